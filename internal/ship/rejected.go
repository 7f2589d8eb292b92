package ship

import (
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
)

// Rejected keeps records that cannot become rows, and notes which of them did
// after all. See package rejected.
type Rejected interface {
	Append(records ...rejected.Record) error
	MarkReplayed(positions ...hub.Position) error
}

// noteUnread tells of a cut's records that this hub cannot read, and keeps them.
func (s *Shipper) noteUnread(entries []entry) {
	var unread []entry
	for _, e := range entries {
		if e.reason != "" {
			unread = append(unread, e)
		}
	}
	if len(unread) == 0 {
		return
	}
	s.o.Logger.Error("acknowledged records cannot be read; they are kept (hub spool show lists them), also in rejected_reports",
		"records", len(unread), "first", unread[0].Position.Text(), "host", unread[0].HostID, "reason", unread[0].reason)
	s.keepRejected(unread)
}

// keepRejected writes down records that cannot become rows. It comes before their
// rows of rejected_reports, so that what is found there is found in the files. A
// file that cannot be written holds nothing up: the rows are whole too, and to
// ship is what makes room on a full disk.
func (s *Shipper) keepRejected(entries []entry) {
	if len(entries) == 0 {
		return
	}
	now := time.Now().UTC()
	records := make([]rejected.Record, len(entries))
	for i, e := range entries {
		records[i] = rejected.Record{Position: e.Position, ReceivedAt: e.ReceivedAt, RejectedAt: now, Kind: e.Kind,
			HostID: e.HostID, CustomerID: e.CustomerID, KeyID: e.KeyID, Reason: e.reason, Body: e.Body}
	}
	s.count(func(st *Status) { st.Rejected += uint64(len(records)) })
	if s.o.Rejected == nil {
		return
	}
	if err := s.o.Rejected.Append(records...); err != nil {
		s.count(func(st *Status) { st.Unkept += uint64(len(records)) })
		s.o.Logger.Error("rejected records are in rejected_reports only", "records", len(records), "first", records[0].Position.Text(), "error", err)
	}
}
