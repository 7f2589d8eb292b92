// Package audit compares what the spool acknowledged with what is in
// ClickHouse, on a live system.
//
// Where the spool still has the volume, every record that lies before the
// cursor must be there once: a report as a row of host_reports with its body,
// its guests and its rejected items, or of controller_reports with its body, its
// apps and its rejected items; a decision, a notice or an event with each of its rows.
// What a table did not take of it stands in rejected_reports. Records behind the
// cursor wait, and are no gap. Where the volume is gone, ClickHouse is looked at
// alone: the sequence numbers of a volume have no holes, but for damage that is
// known, and nothing is there twice. What came last of a volume that is gone, and
// is missing in ClickHouse, cannot be seen.
//
// Memory is bounded by the number of volumes, hours and decisions of the spool,
// and by chunkSize records; never by the number of reports.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// Store is the part of ClickHouse that an audit asks.
type Store interface {
	Tallies(ctx context.Context, table string, r clickhouse.Range, from, to time.Time) (map[uint64]clickhouse.Tally, error)
	Spans(ctx context.Context, since time.Time) ([]clickhouse.Span, error)
}

// Options are what an audit needs.
type Options struct {
	Spool     spool.FS
	Store     Store
	Now       time.Time
	Retention clickhouse.Retention // what is older was dropped, and is not judged
}

// Result is what an audit found.
type Result struct {
	Hours    []Hour    `json:"hours"`
	Findings []Finding `json:"findings"` // at most maxFindings; the hours count all
	Gaps     uint64    `json:"gaps"`
	Doubles  uint64    `json:"doubles"`
	Waiting  uint64    `json:"waiting"`
	Damaged  uint64    `json:"damaged"`
	NoCursor bool      `json:"no_cursor,omitempty"` // nothing is known to be shipped: no record counts as a gap
}

// Hour counts the records that were received in one hour, UTC.
type Hour struct {
	Hour       time.Time `json:"hour"`
	Spool      uint64    `json:"spool"`      // in volumes that are kept
	ClickHouse uint64    `json:"clickhouse"` // of which something is there
	Gaps       uint64    `json:"gaps"`       // acknowledged, shipped, and not there or not whole
	Doubles    uint64    `json:"doubles"`    // there more than once
	Waiting    uint64    `json:"waiting"`    // to be shipped
	Damaged    uint64    `json:"damaged"`    // missing in ClickHouse because the spool is damaged
}

// Finding is a run of records of which a table lacks rows, or has them twice.
type Finding struct {
	Kind    string    `json:"kind"` // gap or double
	Hour    time.Time `json:"hour"`
	SpoolID string    `json:"spool_id"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"`
	Table   string    `json:"table"`
}

const (
	chunkSize   = 100_000
	maxFindings = 1000

	// grace is how long before its time ClickHouse may drop a row: the clocks differ.
	grace = time.Hour
)

type auditor struct {
	Options
	hours  map[time.Time]*Hour
	result Result
}

// Run makes an audit. It takes no lock and writes nothing.
func Run(ctx context.Context, o Options) (Result, error) {
	a := auditor{Options: o, hours: map[time.Time]*Hour{}}
	kept, err := readSpool(o.Spool)
	if err != nil && !errors.Is(err, spool.ErrNoSpool) && !errors.Is(err, fs.ErrNotExist) {
		return Result{}, err
	}
	// ClickHouse is asked after the cursor was read: what lies before it is there.
	a.result.NoCursor = kept.CursorErr != nil && len(kept.Volumes) > 0
	for _, g := range kept.groups {
		if err := a.compare(ctx, g, kept.Cursor); err != nil {
			return Result{}, err
		}
	}
	if err := a.auditAlone(ctx, kept); err != nil {
		return Result{}, err
	}
	return a.finish(), nil
}

func (a *auditor) finish() Result {
	r := &a.result
	r.Hours = []Hour{}
	if r.Findings == nil {
		r.Findings = []Finding{} // for scripts: a list in any case
	}
	for _, at := range slices.SortedFunc(maps.Keys(a.hours), time.Time.Compare) {
		h := *a.hours[at]
		r.Gaps += h.Gaps
		r.Doubles += h.Doubles
		r.Waiting += h.Waiting
		r.Damaged += h.Damaged
		r.Hours = append(r.Hours, h)
	}
	slices.SortStableFunc(r.Findings, func(x, y Finding) int {
		return cmp.Or(x.Hour.Compare(y.Hour), cmp.Compare(x.First, y.First))
	})
	return *r
}

func (a *auditor) hour(at time.Time) *Hour {
	if a.hours[at] == nil {
		a.hours[at] = &Hour{Hour: at}
	}
	return a.hours[at]
}

// compare looks for the records of a group of the spool in ClickHouse.
func (a *auditor) compare(ctx context.Context, g *group, cursor spool.Cursor) error {
	if a.expired(a.Retention.Reports, g.from) {
		return nil
	}
	h := a.hour(g.hour)
	shippedTo := cursor.SeqIn(g.volume)
	for c := range g.chunks() {
		found, err := a.look(ctx, c, g.from, g.to)
		if err != nil {
			return err
		}
		for seq := range g.seqs(c) {
			h.Spool++
			if found.any(seq) {
				h.ClickHouse++
			}
			v := found.judge(seq, g.wants[seq])
			if seq >= shippedTo {
				h.Waiting++
				v.gap = ""
			}
			a.note(h, g.id, seq, v)
		}
	}
	return nil
}

// auditAlone judges what ClickHouse has of volumes that are gone. Volumes that
// began after the spool was read are left out: they are still being shipped.
func (a *auditor) auditAlone(ctx context.Context, kept contents) error {
	since := time.UnixMilli(0)
	if keep := a.Retention.Reports; keep > 0 {
		since = a.Now.Add(grace - keep)
	}
	spans, err := a.Store.Spans(ctx, since)
	if err != nil {
		return err
	}
	young := map[hub.SpoolID]bool{}
	newest := kept.newest
	if newest.IsZero() {
		newest = a.Now
	}
	for _, s := range spans {
		young[s.SpoolID] = young[s.SpoolID] || !s.Newest.Before(newest)
	}
	for i, s := range spans {
		if kept.has(s.SpoolID) || young[s.SpoolID] {
			continue
		}
		r := s.Range
		if i > 0 && spans[i-1].SpoolID == s.SpoolID {
			r.First = spans[i-1].Last + 1
		}
		if err := a.alone(ctx, r, s.Hour, kept.Damage); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) alone(ctx context.Context, r clickhouse.Range, hour time.Time, damage []spool.Loss) error {
	h := a.hour(hour)
	for c := range chunks(r) {
		found, err := a.look(ctx, c, hour, hour.Add(time.Hour-time.Millisecond))
		if err != nil {
			return err
		}
		for seq := c.First; seq <= c.Last; seq++ {
			switch {
			case found.any(seq):
				h.ClickHouse++
				a.note(h, r.SpoolID, seq, found.judgeAlone(seq))
			case slices.ContainsFunc(damage, func(l spool.Loss) bool { return l.First <= seq && seq <= l.Last }):
				h.Damaged++
			default:
				a.note(h, r.SpoolID, seq, verdict{gap: "host_reports"})
			}
		}
	}
	return nil
}

// look asks every table for a range.
func (a *auditor) look(ctx context.Context, r clickhouse.Range, from, to time.Time) (found, error) {
	f := found{noBodies: a.expired(a.Retention.Raw, from), noGuests: a.expired(a.Retention.Guests, from),
		noEvents: a.expired(a.Retention.Events, from), tables: map[string]map[uint64]clickhouse.Tally{}}
	for _, table := range clickhouse.Counted() {
		var err error
		if f.tables[table], err = a.Store.Tallies(ctx, table, r, from, to); err != nil {
			return f, err
		}
	}
	return f, nil
}

// expired reports whether rows received at this time may be gone by retention.
func (a *auditor) expired(keep time.Duration, at time.Time) bool {
	return keep > 0 && at.Before(a.Now.Add(grace-keep))
}

// note counts a verdict and puts it beside the one before where it goes on.
func (a *auditor) note(h *Hour, id hub.SpoolID, seq uint64, v verdict) {
	if v.gap != "" {
		h.Gaps++
		a.find(Finding{"gap", h.Hour, id.String(), seq, seq, v.gap})
	}
	if v.double != "" {
		h.Doubles++
		a.find(Finding{"double", h.Hour, id.String(), seq, seq, v.double})
	}
}

func (a *auditor) find(f Finding) {
	if n := len(a.result.Findings); n > 0 {
		last := &a.result.Findings[n-1]
		if last.Kind == f.Kind && last.Hour.Equal(f.Hour) && last.SpoolID == f.SpoolID && last.Table == f.Table && last.Last+1 == f.First {
			last.Last = f.Last
			return
		}
	}
	if len(a.result.Findings) < maxFindings {
		a.result.Findings = append(a.result.Findings, f)
	}
}

// String names the place: table, hour and records.
func (f Finding) String() string {
	return fmt.Sprintf("%s in %s: %s/%d-%d, received from %s", f.Kind, f.Table, f.SpoolID, f.First, f.Last, f.Hour.Format(time.RFC3339))
}
