package ship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"felhom.eu/hub/internal/clickhouse"
)

// delivery brings one block of a cut, or of a part of it, into one table.
type delivery struct {
	s     *Shipper
	cut   *cut
	table string
	span  clickhouse.Range
	want  uint64            // rows
	batch *clickhouse.Batch // what to send: the whole, or what is missing

	doubt bool      // something may have been sent before
	boot  string    // the server's run then; empty: an earlier run of the hub sent it, nobody knows how long ago
	since time.Time // when this run first sent it
}

// trustToken is how long after a block was first sent its token alone answers for
// it: the shortest time for which a log of tokens keeps it is seven days.
const trustToken = 12 * time.Hour

func (s *Shipper) delivery(c *cut, table string, first, last uint64, doubt bool) *delivery {
	b := c.rowsOf(first, last)
	span := clickhouse.Range{SpoolID: c.SpoolID, First: first, Last: last}
	return &delivery{s: s, cut: c, table: table, span: span, want: uint64(b.Rows(table)), batch: b, doubt: doubt}
}

// attempt makes one try: it returns nil when the block is in the table, once.
// After an error it is called again.
//
// Of all blocks under one token ClickHouse commits one, so sending under the
// same token again doubles nothing, whatever of it may still be running, for as
// long as the log of tokens has it. A restart of the server can lose that log, and
// ten thousand later blocks push a token out of it: so after a restart of the
// server or of the hub the table is looked at first. And the log can outlive the
// block: a block that was acknowledged and is not there goes under the next
// generation of its token, under which nothing can be running.
//
// A table that is Repeatable has no doubts: its rows are sent until they are taken.
//
// Which run of the server it is, is not asked for a block that was never sent: if
// it is a later one than was noted, a retry only looks at the table in vain.
func (d *delivery) attempt(ctx context.Context) error {
	if d.want == 0 {
		return nil
	}
	if clickhouse.Repeatable(d.table) {
		return d.s.o.Store.Insert(ctx, d.batch, d.table, "")
	}
	boot := d.s.boot
	if d.doubt || boot == "" {
		var err error
		if boot, err = d.s.askBoot(ctx); err != nil {
			return err
		}
	}
	if d.doubt && (boot != d.boot || time.Since(d.since) > trustToken) {
		if done, err := d.look(ctx); done || err != nil {
			return err
		}
	}
	doubted := d.doubt
	d.doubt, d.boot = true, boot
	if d.since.IsZero() {
		d.since = time.Now()
	}
	if err := d.s.o.Store.Insert(ctx, d.batch, d.table, d.cut.token(d.table, d.span.First, d.span.Last)); err != nil {
		return err
	}
	if !doubted {
		return nil
	}
	done, err := d.look(ctx)
	if done || err != nil || d.expires() {
		return err
	}
	if err := d.nextGeneration(); err != nil {
		return err
	}
	return fmt.Errorf("%s: %s: %w", d.table, d.span, errVanished)
}

var errVanished = errors.New("the server acknowledged it and does not have all of it")

// expires reports whether retention may drop rows of the block as soon as they
// are there.
func (d *delivery) expires() bool {
	return d.cut.entries[0].ReceivedAt.Before(d.s.o.Retention.Floor(d.table, time.Now()))
}

// look settles a doubt: it returns true when the table has the whole block.
// Otherwise what is missing is what goes next.
func (d *delivery) look(ctx context.Context) (bool, error) {
	d.s.count(func(st *Status) { st.Doubts++ })
	have, err := d.s.o.Store.Count(ctx, d.table, d.span)
	if err != nil {
		return false, err
	}
	// What was sent of a damaged cut may have had more than can be read now.
	if have > d.want && !d.cut.damaged {
		d.s.count(func(st *Status) { st.Doubled++ })
		d.s.o.Logger.Error("ClickHouse has rows twice", "table", d.table, "range", d.span, "rows", have, "expected", d.want)
	}
	if have >= d.want {
		return true, d.s.o.Store.Refeed(ctx, d.table, d.span)
	}
	rest := d.cut.rowsOf(d.span.First, d.span.Last)
	if have > 0 {
		present, err := d.s.o.Store.Present(ctx, d.table, d.span)
		if err != nil {
			return false, err
		}
		rest = rowsOf(d.cut.within(d.span.First, d.span.Last), present)
		if err := d.nextGeneration(); err != nil { // a token is for the same rows only
			return false, err
		}
		d.s.o.Logger.Warn("ClickHouse has a part of a range; the rest is sent", "table", d.table, "range", d.span, "rows", have, "expected", d.want)
	}
	d.s.count(func(st *Status) { st.Resent++ })
	d.batch = rest
	return false, nil
}

// nextGeneration gives the table's block another token, durably.
func (d *delivery) nextGeneration() error {
	d.cut.nextGeneration(d.table, d.span.First, d.span.Last)
	return d.cut.save(d.s.o.Spool)
}

func (s *Shipper) count(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}
