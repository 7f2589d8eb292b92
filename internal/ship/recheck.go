package ship

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// recheck finds what ClickHouse lost after it had acknowledged it, and brings it
// back.
//
// A server whose machine loses power can come back without its last parts: what
// it merged is not synced, and a disk may lie about a sync. So whenever the
// server is not the run that was looked through last, every record that the spool
// still keeps before its cursor is looked for, in every table. Those of one table
// that are missing in a row become a cut of their own, for that table alone, under
// tokens that were never used; it is written down before it is sent, and delivered
// as the cut of an earlier run is: looked for first, and again when it was
// acknowledged. So a crash at any step costs looking again, and a send that still
// runs in the server meets its own token.
//
// It works in small steps between the cuts, so that new reports never wait for it.
//
// Rows of tables that are Repeatable cannot be looked for: those of all records are
// sent again.
//
// Not looked for are rows that retention may have dropped, and records that are
// in rejected_reports. Rows that somebody deleted by hand while the spool keeps
// their records come back.
type recheck struct {
	s    *Shipper
	boot string // the run of the server that is looked through; empty: not asked yet
	done bool   // it was

	at, end  spool.Cursor // what is still to be looked for
	known    repeats      // by the records that were
	since    time.Time    // received_at of the first record that was; zero: none was
	runs     []run        // of what was: what is missing
	open     *delivery    // of that: what is being sent
	restored map[string]int
	vanished int // times that the rows of open were acknowledged and not there
	gaveUp   int // rows that ClickHouse does not have again
	began    time.Time

	verified string        // the run that was found to have everything, as it is written down
	next     time.Time     // no step before
	took     time.Duration // the last step
	ended    time.Time
	backoff  time.Duration
	problem  string // what was logged last
}

// run is a row of records that a table lacks. Records between them have no rows
// there.
type run struct {
	clickhouse.Range
	table string
	start spool.Cursor
}

// Names under which the spool keeps the run of the server that was verified last,
// and the last cut that brought something back.
const (
	verifiedState = "verified"
	repairState   = "repair"
)

const (
	lookRecords = maxCutRecords   // that are looked for with one question
	askInterval = 2 * time.Second // how soon a restart of the server is noticed
	maxVanished = 3               // times that a block is sent anew that does not stay
)

func newRecheck(s *Shipper) *recheck {
	r := &recheck{s: s, restored: map[string]int{}}
	switch verified, err := s.o.Spool.ReadState(verifiedState); {
	case err == nil:
		r.verified = string(verified)
	case !errors.Is(err, fs.ErrNotExist):
		s.o.Logger.Warn("it is not known what ClickHouse had last; all that is kept is looked for", "error", err)
	}
	c, err := loadRepair(s.o.Spool)
	if err != nil {
		s.o.Logger.Warn("the last repair is not known; what is missing is looked for anew", "error", err)
	}
	if c != nil {
		r.deliver(c)
	}
	return r
}

// step does a small piece of the work. It returns true when there is more to do
// at once.
func (r *recheck) step(ctx context.Context) bool {
	if time.Now().Before(r.next) {
		return false
	}
	began := time.Now()
	err := r.advance(ctx)
	r.ended = time.Now()
	r.took = r.ended.Sub(began)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		r.failed(err)
		return false
	}
	r.backoff, r.problem = 0, ""
	if r.done {
		r.next = r.ended.Add(askInterval)
	}
	return !r.done
}

// share is step between two cuts: a fifth of the time while new reports wait.
func (r *recheck) share(ctx context.Context) {
	if time.Since(r.ended) >= 4*r.took {
		r.step(ctx)
	}
}

func (r *recheck) failed(err error) {
	if text := err.Error(); text != r.problem {
		r.problem = text
		r.s.o.Logger.Warn("ClickHouse could not be asked yet whether it still has what was shipped", "error", err)
	}
	r.backoff = min(max(minBackoff, 2*r.backoff), maxBackoff)
	r.next = r.ended.Add(r.backoff)
}

func (r *recheck) advance(ctx context.Context) error {
	switch {
	case r.open != nil:
		return r.send(ctx)
	case r.done || r.boot == "":
		return r.begin(ctx)
	case len(r.runs) > 0:
		return r.freeze()
	case r.at != r.end:
		return r.look(ctx)
	default:
		return r.finish(ctx)
	}
}

// begin asks which run of the server this is, and has everything looked for that
// was shipped to an earlier one. What is being shipped is not before the cursor:
// no step falls into the delivery of a cut.
func (r *recheck) begin(ctx context.Context) error {
	boot, err := r.s.askBoot(ctx)
	if err != nil || r.done && boot == r.boot {
		return err
	}
	r.boot, r.done = boot, boot == r.verified
	r.at, r.end = spool.Cursor{}, r.s.o.Spool.Cursor()
	r.since, r.runs, r.began = time.Time{}, nil, time.Now()
	r.known.forget()
	r.s.count(func(st *Status) { st.Rechecking = !r.done })
	return nil
}

// look asks for the next records, of one volume, and notes what is missing.
func (r *recheck) look(ctx context.Context) error {
	if err := r.s.load(ctx); err != nil {
		return err
	}
	next, err := r.read()
	if err != nil {
		return err
	}
	if len(next.records) > 0 {
		held, err := r.s.o.Store.Held(ctx, next.span)
		if err == nil {
			err = r.repeat(ctx, next)
		}
		if err != nil {
			return err
		}
		r.runs = missing(next.span, next.records, held, r.floors())
		if r.since.IsZero() {
			r.since = next.records[0].at
		}
	}
	r.at = next.end
	return nil
}

// repeat inserts what records say beyond those before them into the tables that are
// Repeatable. Rows that are refused were refused before, or a person has to mend the
// table; the next run of the hub tries again.
func (r *recheck) repeat(ctx context.Context, s *stretch) error {
	for _, table := range clickhouse.Tables() {
		if !clickhouse.Repeatable(table) {
			continue
		}
		err := r.s.o.Store.Insert(ctx, &s.rows, table, "")
		switch {
		case clickhouse.Refused(err):
			r.gaveUp += s.rows.Rows(table)
			r.s.o.Logger.Error("ClickHouse does not take rows again that it may have lost; the spool has them for now",
				"table", table, "range", s.span, "rows", s.rows.Rows(table), "error", err)
		case err != nil:
			return err
		}
	}
	r.known.note(s.news)
	return nil
}

// stretch is a piece of the spool that is looked for with one question.
type stretch struct {
	records []record
	span    clickhouse.Range
	end     spool.Cursor     // where to go on
	rows    clickhouse.Batch // of the records in tables that are Repeatable
	news    *news
	bytes   int // of the bodies that the rows lie in
}

// record is what has to be known of a record to judge whether a table lacks it.
type record struct {
	seq   uint64
	at    time.Time
	start spool.Cursor
	rows  map[string]bool // tables in which it has rows; nil: a host report, of which host_reports tells
}

// read returns the next records, of one volume.
func (r *recheck) read() (*stretch, error) {
	reader := r.s.o.Spool.Reader(r.at)
	defer reader.Close()
	s := &stretch{end: r.at, news: r.known.news()}
	for len(s.records) < lookRecords && s.bytes < maxCutBytes {
		e, ok, err := reader.Next()
		if err != nil {
			return nil, err
		}
		if !ok || e.Seq >= r.end.SeqIn(e.Start.Volume) {
			s.end = r.end
			break
		}
		if len(s.records) == 0 {
			s.span = clickhouse.Range{SpoolID: e.SpoolID, First: e.Seq}
		} else if e.Start.Volume != s.records[0].start.Volume {
			break
		}
		s.add(decode(e), r.s.ahead)
	}
	return s, nil
}

func (s *stretch) add(e entry, ahead *clickhouse.Ahead) {
	s.records = append(s.records, record{e.Seq, e.ReceivedAt, e.Start, tablesOf(e)})
	s.span.Last, s.end = e.Seq, e.End
	if s.news.add(&e, &s.rows, ahead) != nil {
		s.bytes += len(e.Body)
	}
}

// tablesOf returns the tables in which a record has rows. Of a host report that is
// not asked: there are too many of them.
func tablesOf(e entry) map[string]bool {
	if e.Kind == hub.KindHostReport {
		return nil
	}
	var b clickhouse.Batch
	e.add(&b)
	rows := map[string]bool{}
	for _, table := range clickhouse.Counted() {
		rows[table] = b.Rows(table) > 0
	}
	return rows
}

func (r *recheck) floors() map[string]time.Time {
	now, floors := time.Now(), map[string]time.Time{}
	for _, table := range clickhouse.Counted() {
		floors[table] = r.s.o.Retention.Floor(table, now)
	}
	return floors
}

// missing returns what the tables lack of the records of a range, table by table
// in the order of insertion.
func missing(span clickhouse.Range, records []record, held map[uint64]clickhouse.Held, floors map[string]time.Time) []run {
	var runs []run
	for _, table := range clickhouse.Counted() {
		goesOn := false // the last run of runs may
		for _, rec := range records {
			switch p := rec.place(table, held[rec.seq]); {
			case p == settled || rec.at.Before(floors[table]):
				goesOn = false
			case p == absent && goesOn:
				runs[len(runs)-1].Last = rec.seq
			case p == absent:
				goesOn = true
				runs = append(runs, run{clickhouse.Range{SpoolID: span.SpoolID, First: rec.seq, Last: rec.seq}, table, rec.start})
			}
		}
	}
	return runs
}

// place says what a table has of a record.
type place int

const (
	settled place = iota // what it should have, or what it must not be given
	rowless              // nothing, and that is right
	absent               // nothing, although the record may have rows there
)

func (rec record) place(table string, held clickhouse.Held) place {
	switch {
	case held.In(table) || held.Rejected():
		return settled
	case rec.rows != nil && rec.rows[table]:
		return absent
	case rec.rows == nil && (held.Owed(table) || !held.Reported()):
		return absent // of one that is not reported only reading it tells
	}
	return rowless
}

// freeze makes a cut of the first records that are missing, and writes it down.
func (r *recheck) freeze() error {
	first := &r.runs[0]
	c, err := readRun(r.s.o.Spool, first.start, first.Range, true)
	if err != nil {
		return err
	}
	if c == nil { // the volume was removed meanwhile
		r.runs = r.runs[1:]
		return nil
	}
	if c.batch.Rows(first.table) > 0 {
		c.Table, c.Salt = first.table, rand.Text()
		if err := c.save(r.s.o.Spool); err != nil {
			return err
		}
		r.deliver(c)
	}
	if first.start, first.First = c.End, c.Last+1; first.First > first.Last {
		r.runs = r.runs[1:]
	}
	return nil
}

func (r *recheck) deliver(c *cut) {
	r.vanished = 0
	r.open = r.s.delivery(c, c.Table, c.First, c.Last, true)
}

// send makes one try to bring back what is open.
func (r *recheck) send(ctx context.Context) error {
	d := r.open
	err := d.attempt(ctx)
	rows := d.batch.Rows(d.table)
	switch {
	case err == nil && !d.since.IsZero(): // it was sent
		r.restored[d.table] += rows
		r.s.count(func(st *Status) { st.Restored += uint64(rows) })
	case errors.Is(err, errVanished) && r.vanished < maxVanished:
		r.vanished++
		return err
	case clickhouse.Refused(err) || errors.Is(err, errVanished):
		// It had them once. The switch must not wait for what a person has to mend;
		// the next run of the hub tries again.
		r.gaveUp += rows
		r.s.o.Logger.Error("ClickHouse lost rows and does not keep them again; the spool has them for now",
			"table", d.table, "range", d.span, "rows", rows, "error", err)
	case err != nil:
		return err
	}
	r.open = nil
	return nil
}

// finish settles that this run of the server has everything, if it is still the
// one that was asked.
func (r *recheck) finish(ctx context.Context) error {
	if !r.since.IsZero() {
		if err := r.s.o.Store.RefeedSince(ctx, r.since); err != nil {
			return err
		}
	}
	boot, err := r.s.askBoot(ctx)
	if err != nil {
		return err
	}
	if boot != r.boot {
		r.boot = "" // all over again
		return nil
	}
	if r.gaveUp == 0 {
		if err := r.settle(); err != nil {
			return err
		}
	}
	if len(r.restored) > 0 {
		rows := 0
		for _, n := range r.restored {
			rows += n
		}
		r.s.o.Logger.Error("ClickHouse had lost rows when it restarted; they were brought back from the spool",
			"rows", rows, "tables", fmt.Sprint(r.restored), "seconds", time.Since(r.began).Round(time.Millisecond).Seconds())
	}
	r.done, r.restored, r.gaveUp = true, map[string]int{}, 0
	r.s.count(func(st *Status) { st.Rechecking, st.Rechecks = false, st.Rechecks+1 })
	return nil
}

// settle writes down that nothing is open and that this run of the server was
// verified, in this order.
func (r *recheck) settle() error {
	if _, err := r.s.o.Spool.ReadState(repairState); !errors.Is(err, fs.ErrNotExist) {
		if err := r.s.o.Spool.WriteState(repairState, nil); err != nil {
			return err
		}
	}
	if err := r.s.o.Spool.WriteState(verifiedState, []byte(r.boot)); err != nil {
		return err
	}
	r.verified = r.boot
	return nil
}

// readRun reads the records of a range from start on, within the bounds of a cut
// or without, and returns nil where there are none any more.
func readRun(s *spool.Spool, start spool.Cursor, r clickhouse.Range, bounded bool) (*cut, error) {
	c := newCut(start)
	err := c.readWhile(s, func(e entry) bool {
		return e.SpoolID == r.SpoolID && e.Seq <= r.Last && (!bounded || c.fits(e))
	})
	if err != nil {
		return nil, err
	}
	if len(c.entries) == 0 {
		return nil, nil
	}
	return c, nil
}

// loadRepair returns the cut that an earlier run of the hub was bringing back, nil
// where there is none, or nothing of it can be read any more.
func loadRepair(s *spool.Spool) (*cut, error) {
	data, err := s.ReadState(repairState)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c cut
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	now, err := readRun(s, c.Start, c.span(), false)
	if now == nil || err != nil {
		return nil, err
	}
	c.batch, c.entries, c.damaged = now.batch, now.entries, now.Last < c.Last || now.First > c.First
	return &c, nil
}
