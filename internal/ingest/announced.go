package ingest

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// announcements are what agents said of maintenance in reports that ClickHouse may
// not have yet. Few reports say anything of it.
type announcements struct {
	mu     sync.Mutex
	byHost map[string]announcement
}

type announcement struct {
	report hub.Receipt
	until  time.Time
}

func newAnnouncements() *announcements {
	return &announcements{byHost: map[string]announcement{}}
}

// note learns of a host's report; they may come in any order.
func (a *announcements) note(record spool.Record, report hub.Receipt) {
	if !bytes.Contains(record.Body, []byte(`"maintenance"`)) {
		return // what is written with escapes is known when ClickHouse has it
	}
	decoded, err := wire.DecodeReport(record.Body, report.ReceivedAt)
	if err != nil || decoded.MaintenanceUntil == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.byHost[record.HostID]; !ok || report.ReceivedAt.After(old.report.ReceivedAt) || report.ReceivedAt.Equal(old.report.ReceivedAt) && report.Seq > old.report.Seq {
		a.byHost[strings.Clone(record.HostID)] = announcement{report, *decoded.MaintenanceUntil}
	}
}

// Announced returns what a host's newest report says of maintenance: received_at, and
// until when it lasts, zero where it says nothing, or stands in a restored snapshot
// alone: then ClickHouse has it. false: no report is known.
func (a *Acceptor) Announced(hostID string) (at, until time.Time, ok bool) {
	seen, ok := a.recent.last(hostID)
	if !ok {
		return at, until, false
	}
	a.announced.mu.Lock()
	defer a.announced.mu.Unlock()
	if said := a.announced.byHost[hostID]; said.report.Position == seen.Position {
		until = said.until
	}
	return seen.ReceivedAt, until, true
}
