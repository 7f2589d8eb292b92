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
// A new generation of the token is safe only where nothing sent under the old
// one can still be running: after a restart of the server. Within one run of
// the server, also across a restart of the hub, the same token goes again.
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
	// The answer to a retry proves nothing: the log of tokens may name a part
	// that was never committed.
	done, err := d.look(ctx)
	if err == nil && !done {
		err = fmt.Errorf("%s: the server acknowledged %s and does not have it", d.table, d.cut.span())
	}
	return err
}

// look settles a doubt: it returns true when the table has the whole block.
// Otherwise it readies the send of what is missing, under a new token.
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
	d.cut.nextGeneration(d.table)
	return false, d.cut.save(d.s.o.Spool)
}

func (s *Shipper) count(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}
