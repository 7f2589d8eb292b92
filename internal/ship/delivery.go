package ship

import (
	"context"
	"fmt"

	"felhom.eu/hub/internal/clickhouse"
)

// delivery brings one block of a cut into one table.
type delivery struct {
	s     *Shipper
	cut   *cut
	table string
	batch *clickhouse.Batch // what to send: the whole, or what is missing

	doubt bool   // something may have been sent before
	boot  string // the server's run then; empty: not known
}

// attempt makes one try: it returns nil when the block is in the table, once.
// After an error it is called again.
//
// Of all blocks under one token ClickHouse commits one, so sending under the
// same token again doubles nothing, whatever of it may still be running; only a
// restart of the server can lose the log of tokens, so after one the table is
// looked at first. And the log can outlive the block: a block that was
// acknowledged and is not there goes under the next generation of its token,
// under which nothing can be running.
func (d *delivery) attempt(ctx context.Context) error {
	if d.cut.batch.Rows(d.table) == 0 {
		return nil
	}
	boot, err := d.s.o.Store.Boot(ctx)
	if err != nil {
		return err
	}
	if d.doubt && boot != d.boot {
		if done, err := d.look(ctx); done || err != nil {
			return err
		}
	}
	if err := d.cut.sendTo(boot, d.table, d.s.o.Spool); err != nil {
		return err
	}
	doubted := d.doubt
	d.doubt, d.boot = true, boot
	if err := d.s.o.Store.Insert(ctx, d.batch, d.table, d.cut.token(d.table)); err != nil {
		return err
	}
	if !doubted {
		return nil
	}
	done, err := d.look(ctx)
	if done || err != nil {
		return err
	}
	d.cut.nextGeneration(d.table)
	if err := d.cut.save(d.s.o.Spool); err != nil {
		return err
	}
	return fmt.Errorf("%s: the server acknowledged %s and does not have all of it", d.table, d.cut.span())
}

// look settles a doubt: it returns true when the table has the whole block.
// Otherwise what is missing is what goes next.
func (d *delivery) look(ctx context.Context) (bool, error) {
	d.s.count(func(st *Status) { st.Doubts++ })
	want := uint64(d.cut.batch.Rows(d.table))
	have, err := d.s.o.Store.Count(ctx, d.table, d.cut.span())
	if err != nil {
		return false, err
	}
	// What was sent of a damaged cut may have had more than can be read now.
	if have > want && !d.cut.damaged {
		d.s.count(func(st *Status) { st.Doubled++ })
		d.s.o.Logger.Error("ClickHouse has rows twice", "table", d.table, "range", d.cut.span(), "rows", have, "expected", want)
	}
	if have >= want {
		return true, d.s.o.Store.Refeed(ctx, d.table, d.cut.span())
	}
	rest := &d.cut.batch
	if have > 0 {
		present, err := d.s.o.Store.Present(ctx, d.table, d.cut.span())
		if err != nil {
			return false, err
		}
		rest = d.cut.missing(present)
		d.s.o.Logger.Warn("ClickHouse has a part of a range; the rest is sent", "table", d.table, "range", d.cut.span(), "rows", have, "expected", want)
	}
	d.s.count(func(st *Status) { st.Resent++ })
	d.batch = rest
	return false, nil
}

func (s *Shipper) count(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}
