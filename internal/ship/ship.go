// Package ship drains the spool into ClickHouse, each record exactly once.
//
// It cuts a run of records, writes the cut down, inserts one block for each
// table under a token of its own, and moves the spool's cursor. While the
// server is the same run of the same server, a retry under the same token is
// enough: ClickHouse drops what it already has. A restart of the server can lose
// the log of tokens, or leave it naming a part that was never committed, and what
// an earlier run of the hub sent may have been pushed out of it since. So after
// either the [Shipper] looks first and sends what is missing; and whatever was in
// doubt is counted when it was acknowledged: what is missing even then goes under
// the next generation of its token.
//
// A record that cannot be read, or that ClickHouse refuses, becomes a row of
// rejected_reports and goes to a file; [Shipper.Replay] makes rows of it later.
//
// A server can also lose what it had acknowledged. After each of its restarts all
// that the spool still keeps is looked for, and what is missing is brought back
// ([Status].Restored); until that is done, [Status].Rechecking is set.
package ship

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// Store is the part of ClickHouse that the shipper needs.
type Store interface {
	Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error
	Count(ctx context.Context, table string, r clickhouse.Range) (uint64, error)
	Counts(ctx context.Context, r clickhouse.Range, tables []string) (map[string]uint64, error)
	Present(ctx context.Context, table string, r clickhouse.Range) (map[uint64]bool, error)
	Refeed(ctx context.Context, table string, r clickhouse.Range) error
	Held(ctx context.Context, r clickhouse.Range) (map[uint64]clickhouse.Held, error)
	RefeedSince(ctx context.Context, since time.Time) error
	Boot(ctx context.Context) (string, error)
	Ahead(ctx context.Context) (*clickhouse.Ahead, error)
	TakeRejected(ctx context.Context, positions []hub.Position) error
}

// Options are the parts of a Shipper.
type Options struct {
	Spool  *spool.Spool
	Store  Store
	Linger time.Duration // how long a small cut waits for more records; default 1 s
	Logger *slog.Logger

	// Patience is for how long a block that ClickHouse refuses is tried again before
	// the records are found for whose sake it does; default 15 s.
	Patience time.Duration

	Rejected  Rejected             // nil: rejected_reports is all that keeps them
	Retention clickhouse.Retention // rows that it may have dropped are not brought back
}

// Status is what the shipper says of itself.
type Status struct {
	Shipped  uint64 // records
	Cuts     uint64
	Doubts   uint64 // blocks whose outcome had to be looked up
	Resent   uint64 // blocks of those that were not there, or not whole
	Doubled  uint64 // blocks found more than once: an alarm
	Failures uint64 // attempts that failed
	LeftOut  uint64 // parts of accepted reports that do not count
	SetAside uint64 // records that ClickHouse refused, now in rejected_reports
	Rejected uint64 // records that cannot become rows: these, and those that cannot be read
	Unkept   uint64 // of those, the ones that are not in a file: an alarm
	Replayed uint64 // records that became rows after all
	Rechecks uint64 // times that all was looked for after a restart of the server
	Restored uint64 // rows that the server had lost and that were brought back: an alarm

	Rechecking bool // it is not known whether the server still has what was shipped

	LastError string // of the newest attempt; empty: it succeeded
	ShippedAt time.Time
}

// Shipper ships. New is inert; Run does the work.
type Shipper struct {
	o       Options
	decode  func(spool.Entry) entry
	between chan func(context.Context) // what Run does between two cuts

	replayWait time.Duration

	// Of Run's goroutine only.
	refused map[string]int // records that a table refused since it took one
	found   time.Time      // when a record was last found that ClickHouse does not take
	boot    string         // the server's run when it was last asked; empty: it was not
	reading *reading       // nil: nothing is read ahead
	room    *cut           // one that is done with, for the next; nil: there is none
	repeats repeats
	ahead   *clickhouse.Ahead // nil: not asked for yet

	mu     sync.Mutex
	status Status
}

const (
	defaultLinger = time.Second
	// A cut of this many records does not wait for more.
	enough = 5000
	// What comes while a cut is sent is read this often.
	readEvery  = 20 * time.Millisecond
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// New returns a shipper that has not begun.
func New(o Options) *Shipper {
	if o.Linger == 0 {
		o.Linger = defaultLinger
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	return &Shipper{o: o, decode: decode, between: make(chan func(context.Context)), replayWait: defaultReplayWait,
		refused: map[string]int{}, status: Status{Rechecking: true}}
}

// Run ships until ctx ends. What it was sending then is settled by the next run.
func (s *Shipper) Run(ctx context.Context) {
	resumed, err := loadCut(s.o.Spool)
	if err != nil {
		// A lost cut costs questions to ClickHouse, nothing else: its records
		// are of an earlier run, and those are always looked for first.
		s.o.Logger.Warn("the last cut is not known; ClickHouse is asked what it has", "error", err)
	}
	r := newRecheck(s)
	defer s.endReading()
	for s.wait(ctx, r) {
		c, err := s.nextCut(resumed)
		if err == nil && len(c.entries) == 0 {
			resumed = nil // nothing of it can be read any more
			sleep(ctx, s.o.Linger)
			continue
		}
		if err != nil {
			s.failed(err)
			sleep(ctx, maxBackoff)
			continue
		}
		doubt := func(string) bool { return resumed != nil }
		if resumed == nil && s.o.Spool.Inherited(c.End.Volume) {
			c.Salt = rand.Text()
			if doubt, err = s.inherited(ctx, c); err != nil {
				return
			}
		}
		if resumed == nil && s.retry(ctx, func(context.Context) error { return c.save(s.o.Spool) }) != nil {
			return
		}
		s.readAhead(c)
		if s.deliver(ctx, c, doubt) != nil {
			return
		}
		resumed, s.room = nil, nil
		if len(c.entries) >= enough {
			s.room = c // where much comes, more will
		}
		select {
		case work := <-s.between:
			work(ctx)
		default:
		}
		r.share(ctx)
	}
}

// nextCut returns the cut at the cursor, without records when there are none.
func (s *Shipper) nextCut(resumed *cut) (*cut, error) {
	if resumed != nil {
		return resumed, resumed.readAgain(s.o.Spool)
	}
	c := s.endReading()
	if c == nil || c.Start != s.o.Spool.Cursor() {
		c = newCut(s.o.Spool.Cursor())
	}
	_, err := c.read(s.o.Spool)
	return c, err
}

// reading is what follows the cut that is sent being read.
type reading struct {
	stop chan struct{}
	cut  chan *cut // gets it; nil: it could not be read
}

// readAhead reads what follows a cut while that is sent, also what only comes
// meanwhile: reading takes the hub as long as storing takes ClickHouse.
func (s *Shipper) readAhead(c *cut) {
	next, r := newCutIn(s.room, c.End), &reading{make(chan struct{}), make(chan *cut, 1)}
	s.reading, s.room = r, nil
	go func() { r.cut <- s.follow(next, r.stop) }()
}

// follow collects records until a bound of the cut is met or stop is closed.
func (s *Shipper) follow(c *cut, stop <-chan struct{}) *cut {
	for {
		changed := s.o.Spool.Changed()
		if more, err := c.read(s.o.Spool); err != nil {
			return nil // nextCut tries again, and tells of it
		} else if !more {
			return c
		}
		select {
		case <-changed:
		case <-stop:
			return c
		}
		select {
		case <-time.After(readEvery): // what else comes is read with it
		case <-stop:
			return c
		}
	}
}

// endReading returns what was read ahead; nil: nothing was.
func (s *Shipper) endReading() *cut {
	r := s.reading
	if r == nil {
		return nil
	}
	s.reading = nil
	close(r.stop)
	return <-r.cut
}

// inherited returns which tables are in doubt of a cut of records that an earlier
// run of the hub left. It may have sent them, if its cursor was lost or the spool
// is an old copy; so all tables are asked, with one question. Where nothing is, the
// cut is like a new one: its salted token was never sent, so that what is
// acknowledged under it is there.
func (s *Shipper) inherited(ctx context.Context, c *cut) (doubt func(table string) bool, err error) {
	tables := slices.DeleteFunc(clickhouse.Counted(), func(table string) bool { return c.batch.Rows(table) == 0 })
	err = s.retry(ctx, func(ctx context.Context) error {
		have, err := s.o.Store.Counts(ctx, c.span(), tables)
		doubt = func(table string) bool { return have[table] > 0 || !slices.Contains(tables, table) }
		return err
	})
	return doubt, err
}

// askBoot asks which run of the server this is, and notes it.
func (s *Shipper) askBoot(ctx context.Context) (string, error) {
	boot, err := s.o.Store.Boot(ctx)
	if err == nil && boot != s.boot {
		if s.boot != "" {
			s.repeats.forget()
		}
		s.boot = boot
	}
	return boot, err
}

// wait returns true when there are records to ship, false when ctx ended. Few
// records wait a moment for more, since every cut makes parts that ClickHouse
// must merge; to what an earlier run left no more will come.
func (s *Shipper) wait(ctx context.Context, r *recheck) bool {
	for {
		changed := s.o.Spool.Changed()
		st := s.o.Spool.Stats()
		switch {
		case st.UnshippedRecords >= enough || st.Inherited > 0:
			return ctx.Err() == nil
		case st.UnshippedRecords > 0:
			end := time.Now().Add(s.o.Linger)
			for time.Until(end) > r.took && r.step(ctx) {
				continue
			}
			return sleep(ctx, time.Until(end))
		}
		if r.step(ctx) {
			continue
		}
		select {
		case <-changed:
		case work := <-s.between:
			work(ctx)
		case <-time.After(time.Until(r.next)):
		case <-ctx.Done():
			return false
		}
	}
}

// deliver sends every block of a cut and moves the cursor. It tries until that
// is done or ctx ends.
func (s *Shipper) deliver(ctx context.Context, c *cut, doubt func(table string) bool) error {
	s.noteUnread(c.entries)
	if err := s.retry(ctx, s.load); err != nil {
		return err
	}
	news := s.repeats.news()
	c.addNews(news, s.ahead)
	for _, table := range clickhouse.Tables() {
		if table == clickhouse.RejectedTable {
			s.noteRefused(c.setAside(c.refusals()))
		}
		if err := s.fill(ctx, c, table, doubt(table)); err != nil {
			return err
		}
	}
	if err := s.retry(ctx, func(context.Context) error { return s.o.Spool.Advance(c.End) }); err != nil {
		return err
	}
	s.repeats.note(news)
	for _, e := range c.entries {
		if len(e.items) > 0 {
			s.noteItems(e)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Cuts++
	s.status.Shipped += uint64(len(c.entries))
	s.status.ShippedAt = time.Now()
	return nil
}

// fill brings a cut's rows into one table: as one block, and in parts where
// ClickHouse refuses that.
func (s *Shipper) fill(ctx context.Context, c *cut, table string, doubt bool) error {
	if len(c.Parts[table]) > 0 {
		return s.sift(ctx, c, table)
	}
	d := s.delivery(c, table, c.First, c.Last, doubt)
	err := s.retry(ctx, func(ctx context.Context) error {
		err := d.attempt(ctx)
		switch {
		case !clickhouse.Refused(err):
			c.refusedAt = time.Time{}
		case c.refusedAt.IsZero():
			c.refusedAt = time.Now()
		}
		if clickhouse.Refused(err) && (time.Since(c.refusedAt) >= s.o.Patience || time.Since(s.found) < knownRefusals) {
			return refusal{err}
		}
		return err
	})
	if no := (refusal{}); errors.As(err, &no) {
		return s.sift(ctx, c, table)
	}
	return err
}

// noteRefused tells of records that ClickHouse does not take.
func (s *Shipper) noteRefused(refused []entry) {
	for _, e := range refused {
		s.found = time.Now()
		s.count(func(st *Status) { st.SetAside++ })
		s.o.Logger.Error("ClickHouse does not take a record; it is kept in rejected_reports", "host", e.HostID,
			"kind", e.Kind, "record", fmt.Sprintf("%s/%d", e.SpoolID, e.Seq), "reason", e.reason)
	}
	s.keepRejected(refused)
}

// noteItems tells of what an accepted report leaves out: of the first item; all of
// them are rows of rejected_items.
func (s *Shipper) noteItems(e entry) {
	s.count(func(st *Status) { st.LeftOut += uint64(len(e.items)) })
	first := e.items[0]
	s.o.Logger.Warn("parts of an accepted report were left out", "host", e.HostID, "items", len(e.items),
		"section", first.Section, "position", first.Position, "reason", first.Reason)
}

// retry calls f until it succeeds, with backoff. It returns a refusal of f, or
// ctx's error, and no other.
func (s *Shipper) retry(ctx context.Context, f func(context.Context) error) error {
	backoff := minBackoff
	for {
		err := f(ctx)
		if err == nil {
			s.succeeded()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if no := (refusal{}); errors.As(err, &no) {
			return err
		}
		s.failed(err)
		if !sleep(ctx, backoff) {
			return ctx.Err()
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func (s *Shipper) succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.LastError != "" {
		s.o.Logger.Info("ClickHouse takes reports again")
	}
	s.status.LastError = ""
}

// failed notes an error; the log has the first of a row, and later ones at debug.
func (s *Shipper) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Failures++
	switch {
	case s.status.LastError != "":
		s.o.Logger.Debug("shipping failed again", "error", err)
	case clickhouse.Permanent(err):
		s.o.Logger.Error("ClickHouse refuses reports; they stay in the spool until this is mended (hub check says more)", "error", err)
	default:
		s.o.Logger.Warn("ClickHouse does not take reports; they stay in the spool and are tried again", "error", err)
	}
	s.status.LastError = err.Error()
}

// Status returns a copy.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// sleep returns true after d, false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
