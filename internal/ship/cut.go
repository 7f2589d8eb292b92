package ship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// Bounds of one cut. Rows are bounded too: a report of 4 MiB can list 200,000
// guests, and a block must stay under the server's max_insert_block_size.
const (
	maxCutRecords = 20_000
	maxCutBytes   = 28 << 20
	maxCutRows    = 300_000
)

// cut is a run of records that is shipped as one: one block for each table. It
// is written to the spool's folder before the first send and never made again
// differently, because the same token with other rows is silently dropped, and
// the same rows under another token are silently doubled.
type cut struct {
	SpoolID    hub.SpoolID    `json:"spool_id"`
	First      uint64         `json:"first"`
	Last       uint64         `json:"last"`
	Start      spool.Cursor   `json:"start"`
	End        spool.Cursor   `json:"end"`
	Generation map[string]int `json:"generation,omitempty"` // of a block's token, see blockName; absent is 1
	Salt       string         `json:"salt,omitempty"`       // in tokens of a cut whose earlier cuts are not known
	Table      string         `json:"table,omitempty"`      // the one to which it brings back what was lost; absent: every table, for the first time

	// Parts are the blocks of a table that goes in parts, in order; see sieve.
	Parts map[string][]part `json:"parts,omitempty"`

	batch   clickhouse.Batch
	entries []entry
	bytes   int
	items   int       // elements of lists that may become rows when it is delivered
	damaged bool      // it was frozen with records that cannot be read any more
	month   time.Time // partition of its events; zero: it has none

	refusedAt time.Time // since when ClickHouse refuses a block of it
}

// entry is a record of a cut, kept to build the part of it that is missing.
type entry struct {
	spool.Entry
	month  time.Time // partition of its events; zero: it has none
	reason string    // why it cannot become rows; empty: it can
	add    func(*clickhouse.Batch)
	items  []hub.RejectedItem // parts of an accepted report that are left out

	lists *lists // of a report that can be read; nil: it has none
}

// CutState is the name under which the spool keeps the last cut.
const CutState = "cut"

func (c *cut) span() clickhouse.Range {
	return clickhouse.Range{SpoolID: c.SpoolID, First: c.First, Last: c.Last}
}

// token names the block of a run of this cut's records for a table: spool id /
// table / first–last sequence / generation.
func (c *cut) token(table string, first, last uint64) string {
	return fmt.Sprintf("%s/%s/%d-%d#%d%s", c.SpoolID, table, first, last, max(1, c.Generation[c.blockName(table, first, last)]), c.Salt)
}

// nextGeneration makes token return another one for this block.
func (c *cut) nextGeneration(table string, first, last uint64) {
	if c.Generation == nil {
		c.Generation = map[string]int{}
	}
	name := c.blockName(table, first, last)
	c.Generation[name] = max(1, c.Generation[name]) + 1
}

// blockName is the table's for the whole cut, and tells parts apart.
func (c *cut) blockName(table string, first, last uint64) string {
	if first == c.First && last == c.Last {
		return table
	}
	return fmt.Sprintf("%s/%d-%d", table, first, last)
}

// within returns the records of a run.
func (c *cut) within(first, last uint64) []entry {
	from := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].Seq >= first })
	to := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].Seq > last })
	return c.entries[from:to]
}

// rowsOf returns the rows of a run of records.
func (c *cut) rowsOf(first, last uint64) *clickhouse.Batch {
	if first == c.First && last == c.Last {
		return &c.batch
	}
	return rowsOf(c.within(first, last), nil)
}

// rowsOf returns the rows of the records that are not present.
func rowsOf(entries []entry, present map[uint64]bool) *clickhouse.Batch {
	var b clickhouse.Batch
	for _, e := range entries {
		if !present[e.Seq] {
			e.add(&b)
		}
	}
	return &b
}

// save writes the cut down, durably.
func (c *cut) save(s *spool.Spool) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if c.Table != "" {
		return s.WriteState(repairState, data)
	}
	return s.WriteState(CutState, data)
}

// loadCut returns the cut that an earlier run wrote down, if it begins at the
// cursor: an older one was finished.
func loadCut(s *spool.Spool) (*cut, error) {
	data, err := s.ReadState(CutState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c cut
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if c.Start != s.Cursor() {
		return nil, nil
	}
	return &c, nil
}

// newCut returns a cut without records that begins at a place of the spool.
func newCut(start spool.Cursor) *cut { return &cut{Start: start, End: start} }

// newCutIn is newCut in the room of a cut that is done with; nil: there is none.
func newCutIn(room *cut, start spool.Cursor) *cut {
	c := newCut(start)
	if room != nil {
		room.batch.Reset()
		clear(room.entries)
		c.batch, c.entries = room.batch, room.entries[:0]
	}
	return c
}

// read collects the records that follow, as many as are there, until a bound is
// met. Unless one is, more may join when they come: call it again.
func (c *cut) read(s *spool.Spool) (more bool, err error) {
	more = true
	err = c.readWhile(s, func(e entry) bool { more = c.fits(e); return more })
	return more, err
}

// readAgain collects the records of a cut that was written down, as far as they
// can be read: it then ends where the last of those ends, because the spool knows
// of no place behind it, and the sequence may go on from there in another volume.
func (c *cut) readAgain(s *spool.Spool) error {
	now := newCut(c.Start)
	err := now.readWhile(s, func(e entry) bool { return e.SpoolID == c.SpoolID && e.Seq <= c.Last })
	c.batch, c.entries, c.End = now.batch, now.entries, now.End
	c.damaged = uint64(len(c.entries)) <= c.Last-c.First
	return err
}

// readWhile collects records up to the first that does not belong to the cut.
func (c *cut) readWhile(s *spool.Spool, belongs func(entry) bool) error {
	r := s.Reader(c.End)
	defer r.Close()
	for {
		e, ok, err := r.Next()
		if !ok || err != nil {
			return err
		}
		next := decode(e)
		if !belongs(next) {
			return nil
		}
		c.append(next)
	}
}

// fits reports whether e may join the cut: same volume, same partitions, and
// within the bounds. An insert into two partitions would not be atomic.
func (c *cut) fits(e entry) bool {
	if len(c.entries) == 0 {
		return true
	}
	return e.SpoolID == c.SpoolID &&
		e.ReceivedAt.UTC().Truncate(day).Equal(c.entries[0].ReceivedAt.UTC().Truncate(day)) &&
		(e.month.IsZero() || c.month.IsZero() || e.month.Equal(c.month)) &&
		len(c.entries) < maxCutRecords && c.bytes+len(e.Body) <= maxCutBytes && c.rows() < maxCutRows && c.items < maxCutRows
}

const day = 24 * time.Hour

func (c *cut) rows() int {
	n := 0
	for _, table := range clickhouse.Tables() {
		n += c.batch.Rows(table)
	}
	return n
}

// setAside gives the records that a table did not take a row of rejected_reports
// each.
func (c *cut) setAside(refusals map[uint64]string) (refused []entry) {
	for i, e := range c.entries {
		why, ok := refusals[e.Seq]
		if !ok {
			continue
		}
		row, add := rejectedRow(e.Entry, why), e.add
		c.entries[i].add = func(b *clickhouse.Batch) { add(b); b.AddRejected(row) }
		c.batch.AddRejected(row)
		c.entries[i].reason = why
		refused = append(refused, c.entries[i])
	}
	return refused
}

func (c *cut) append(e entry) {
	if len(c.entries) == 0 {
		c.SpoolID, c.First = e.SpoolID, e.Seq
	}
	if c.month.IsZero() {
		c.month = e.month
	}
	e.add(&c.batch)
	c.entries = append(c.entries, e)
	c.bytes += len(e.Body)
	if e.lists != nil {
		c.items += e.lists.items
	}
	c.Last, c.End = e.Seq, e.End
}

// decode reads a record. One that cannot be read becomes a row of
// rejected_reports, whole and with the reason.
func decode(e spool.Entry) entry {
	var err error
	switch e.Kind {
	case hub.KindHostReport:
		var report *hub.Report
		if report, err = wire.DecodeReport(e.Body, e.ReceivedAt); err == nil {
			row := clickhouse.ReportRow{Receipt: e.Receipt, CustomerID: e.CustomerID, KeyID: e.KeyID, Body: e.Body, Report: report}
			return entry{Entry: e, items: report.Rejected, lists: listsOf(row), add: func(b *clickhouse.Batch) { b.AddReport(row) }}
		}
	case hub.KindControllerReport:
		var report *hub.ControllerReport
		if report, err = wire.DecodeControllerReport(e.Body); err == nil {
			row := clickhouse.ControllerRow{Receipt: e.Receipt, CustomerID: e.CustomerID, KeyID: e.KeyID, Body: e.Body, Report: report}
			return entry{Entry: e, items: report.Rejected, lists: backupOf(row), add: func(b *clickhouse.Batch) { b.AddControllerReport(row) }}
		}
	case hub.KindControllerEvent:
		var sent *hub.ControllerEvent
		if sent, err = wire.DecodeControllerEvent(e.Body); err == nil {
			event := sent.Event(e.CustomerID, e.Receipt)
			return entry{Entry: e, month: monthOf([]hub.Event{event}), add: func(b *clickhouse.Batch) { b.AddControllerEvent(e.Receipt, event) }}
		}
	case hub.KindDecision:
		var d hub.Decision
		if d, err = wire.DecodeDecision(e.Body); err == nil {
			return entry{Entry: e, month: monthOf(d.Events), add: func(b *clickhouse.Batch) { b.AddDecision(e.Receipt, d) }}
		}
	case hub.KindNotice:
		var n hub.Notice
		if n, err = wire.DecodeNotice(e.Body); err == nil {
			return entry{Entry: e, month: monthOf(n.Events), add: func(b *clickhouse.Batch) { b.AddNotice(e.Receipt, n) }}
		}
	case hub.KindBlind:
		var i blind.Interval
		if i, err = wire.DecodeBlind(e.Body); err == nil {
			return entry{Entry: e, add: func(b *clickhouse.Batch) { b.AddBlind(e.Receipt, i) }}
		}
	case hub.KindDelivery:
		var d hub.Dispatch
		if d, err = wire.DecodeDispatch(e.Body); err == nil {
			return entry{Entry: e, month: monthOfDeliveries(d), add: func(b *clickhouse.Batch) { b.AddDispatch(e.Receipt, d) }}
		}
	default:
		err = fmt.Errorf("this hub knows no records of kind %d", e.Kind)
	}
	row := rejectedRow(e, err.Error())
	return entry{Entry: e, reason: err.Error(), add: func(b *clickhouse.Batch) { b.AddRejected(row) }}
}

func rejectedRow(e spool.Entry, reason string) clickhouse.RejectedRow {
	return clickhouse.RejectedRow{Receipt: e.Receipt, CustomerID: e.CustomerID, HostID: e.HostID, Kind: e.Kind, Reason: reason, Body: e.Body}
}

// monthOf returns the partition of a record's events; all were detected in one
// month.
func monthOf(events []hub.Event) time.Time {
	if len(events) == 0 {
		return time.Time{}
	}
	year, month, _ := events[0].DetectedAt.UTC().Date()
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
}

// monthOfDeliveries is monthOf where all are of one instant.
func monthOfDeliveries(d hub.Dispatch) time.Time {
	if len(d.Deliveries) == 0 {
		return time.Time{}
	}
	year, month, _ := d.Deliveries[0].At.UTC().Date()
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
}

// DescribeCut reads a cut that was written down: its records, and the place
// where it begins. It is open while the spool's cursor stands there.
func DescribeCut(data []byte) (clickhouse.Range, spool.Cursor, error) {
	var c cut
	if err := json.Unmarshal(data, &c); err != nil {
		return clickhouse.Range{}, spool.Cursor{}, err
	}
	return c.span(), c.Start, nil
}
