package clickhouse

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Register makes fleet_hosts, fleet_customers and fleet_key_changes say what the
// fleet in force says, by appending one row for each difference. It compares
// with the fleet that it wrote last; the first time, and after any error, with
// the tables. Lost rows would be wrong, rows that are there twice do no harm.
//
// It is for one goroutine.
type Register struct {
	db         *DB
	synced     *hub.Fleet     // what the tables say; nil: not known
	base       hub.Thresholds // where synced names none
	generation uint64         // the newest that was used; never used again, whatever became of its rows
}

// NewRegister returns a Register that does not know yet what the tables say.
func NewRegister(db *DB) *Register { return &Register{db: db} }

// Sync writes what is different in fleet, which came into force at appliedAt.
// base are the thresholds where the fleet names none. After an error some of it
// may be written; it is for the caller to try again.
func (r *Register) Sync(ctx context.Context, fleet *hub.Fleet, appliedAt time.Time, base hub.Thresholds) error {
	known := r.synced
	if base != r.base {
		known = nil
	}
	r.synced = nil // until all of it is written
	if known == nil {
		newest, err := r.db.newestGeneration(ctx)
		if err != nil {
			return fmt.Errorf("read the register: %w", err)
		}
		r.generation = max(r.generation, newest)
	}
	r.generation++
	w := &registerWriter{ctx: ctx, db: r.db, fleet: fleet, base: base,
		stamp: registerStamp{r.generation, fleet.Revision(), appliedAt}}
	if err := w.write(known); err != nil {
		return err
	}
	r.synced, r.base = fleet, base
	return nil
}

// write writes what differs from a fleet that the tables have, or, where that is
// not known, from the tables.
func (w *registerWriter) write(known *hub.Fleet) error {
	if known == nil {
		if err := w.reconcile(); err != nil {
			return err
		}
	} else if err := w.change(known); err != nil {
		return err
	}
	return w.flush()
}

// reconcile writes what the fleet and the tables differ in. The newest rows are
// read in the order of ids, as the fleet is, so that no second copy of either is
// held.
func (w *registerWriter) reconcile() error {
	if err := reconcileTable(w, customerRows, customerEntries(w.fleet), w.addCustomer); err != nil {
		return fmt.Errorf("reconcile fleet_customers: %w", err)
	}
	if err := reconcileTable(w, hostRows, hostEntries(w.fleet, w.base), w.addHost); err != nil {
		return fmt.Errorf("reconcile fleet_hosts: %w", err)
	}
	if err := reconcileTable(w, keyRows, keyEntries(w.fleet), w.addKey); err != nil {
		return fmt.Errorf("reconcile fleet_key_changes: %w", err)
	}
	return nil
}

func reconcileTable[E comparable](w *registerWriter, stored storedRows[E], want iter.Seq2[string, *E], add adder[E]) error {
	var failed error // of the reading: the rows end there, and nothing may be made of it
	differences := visitDifferences(add)
	err := merge(want, stored.read(w.ctx, w.db, &failed), func(id string, now *E, before *newest[E]) error {
		if failed != nil {
			return failed
		}
		return differences(id, now, before)
	})
	if err == nil {
		err = failed
	}
	return err
}

// newest is what the register says of a name: its newest row.
type newest[E any] struct {
	entry   E
	removed bool
}

// adder appends one row.
type adder[E any] func(id string, e *E, removed bool) error

// visitDifferences has add called for what is new, changed or gone.
func visitDifferences[E comparable](add adder[E]) func(id string, now *E, before *newest[E]) error {
	return func(id string, now *E, before *newest[E]) error {
		switch {
		case now == nil && before.removed:
			return nil
		case now == nil:
			return add(id, &before.entry, true)
		case before == nil || before.removed || before.entry != *now:
			return add(id, now, false)
		}
		return nil
	}
}

// change writes what the fleet and the one before it differ in. Loaders keep
// what did not change: the same pointer is the same entry, up to the thresholds
// that come from above it.
func (w *registerWriter) change(before *hub.Fleet) error {
	now, base := w.fleet, w.base
	above := before.Monitor() == now.Monitor()
	err := merge(customersByName(now), customersByName(before), func(name string, c, was *hub.Customer) error {
		if c == was {
			return nil
		}
		above = above && c != nil && was != nil && c.Monitor == was.Monitor
		return w.changeCustomer(name, was, c)
	})
	if err != nil {
		return err
	}
	err = merge(hostsByID(now), hostsByID(before), func(id string, h, was *hub.Host) error {
		if h == was && (above || now.Thresholds(h, base) == before.Thresholds(h, base)) {
			return nil
		}
		return w.changeHost(id, hostIn(before, was, base), hostIn(now, h, base), was, h)
	})
	if err != nil {
		return err
	}
	return w.changeKeys(globalKeys(before), globalKeys(now))
}

func (w *registerWriter) changeCustomer(name string, was, now *hub.Customer) error {
	if err := visitDifferences(w.addCustomer)(name, customerEntryOf(now), known(customerEntryOf(was))); err != nil {
		return err
	}
	return w.changeKeys(customerKeys(was), customerKeys(now))
}

func (w *registerWriter) changeHost(id string, was, now *hostEntry, wasHost, nowHost *hub.Host) error {
	if err := visitDifferences(w.addHost)(id, now, known(was)); err != nil {
		return err
	}
	if wasHost == nowHost {
		return nil
	}
	return w.changeKeys(hostKeys(wasHost), hostKeys(nowHost))
}

func (w *registerWriter) changeKeys(was, now iter.Seq2[string, *keyEntry]) error {
	stored := func(yield func(string, *newest[keyEntry]) bool) {
		for id, k := range was {
			if !yield(id, known(k)) {
				return
			}
		}
	}
	return merge(now, stored, visitDifferences(w.addKey))
}

// known makes an entry that is in force a row that is in the register.
func known[E any](e *E) *newest[E] {
	if e == nil {
		return nil
	}
	return &newest[E]{entry: *e}
}

// merge walks two sequences, both in the order of their ids, and calls visit
// once for each id, with what each has of it: nil is nothing. It holds one item
// of each.
func merge[A, B any](as iter.Seq2[string, *A], bs iter.Seq2[string, *B], visit func(id string, a *A, b *B) error) error {
	next, stop := iter.Pull2(bs)
	defer stop()
	bID, b, more := next()
	for id, a := range as {
		for ; more && bID < id; bID, b, more = next() {
			if err := visit(bID, nil, b); err != nil {
				return err
			}
		}
		var same *B
		if more && bID == id {
			same = b
			bID, b, more = next()
		}
		if err := visit(id, a, same); err != nil {
			return err
		}
	}
	for ; more; bID, b, more = next() {
		if err := visit(bID, nil, b); err != nil {
			return err
		}
	}
	return nil
}

type registerStamp struct {
	generation uint64
	revision   string
	appliedAt  time.Time
}

// registerWriter collects rows and inserts them in blocks of bounded size.
type registerWriter struct {
	ctx       context.Context // of the one Sync that it lives for
	db        *DB
	fleet     *hub.Fleet
	base      hub.Thresholds
	stamp     registerStamp
	hosts     fleetHosts
	customers fleetCustomers
	keys      fleetKeys
}

// Bounds of one block of the register: of its memory in the hub, which holds it
// about three times while it is sent.
const (
	registerRows  = 10_000
	registerBytes = 2 << 20
)

func (w *registerWriter) addHost(id string, e *hostEntry, removed bool) error {
	var h *hub.Host
	if !removed {
		h, _ = w.fleet.Host(id)
	}
	w.hosts.add(w.stamp, id, e, h)
	if !w.hosts.full() {
		return nil
	}
	return w.flushHosts()
}

func (w *registerWriter) addCustomer(name string, e *customerEntry, removed bool) error {
	w.customers.add(w.stamp, name, e, removed)
	if !w.customers.full() {
		return nil
	}
	return w.flushCustomers()
}

func (w *registerWriter) addKey(_ string, e *keyEntry, removed bool) error {
	w.keys.add(w.stamp, e, removed)
	if !w.keys.full() {
		return nil
	}
	return w.flushKeys()
}

func (w *registerWriter) flushHosts() error {
	err := w.append("fleet_hosts", &w.hosts)
	w.hosts = fleetHosts{}
	return err
}

func (w *registerWriter) flushCustomers() error {
	err := w.append("fleet_customers", &w.customers)
	w.customers = fleetCustomers{}
	return err
}

func (w *registerWriter) flushKeys() error {
	err := w.append("fleet_key_changes", &w.keys)
	w.keys = fleetKeys{}
	return err
}

// flush inserts what is left.
func (w *registerWriter) flush() error {
	for _, f := range []func() error{w.flushCustomers, w.flushHosts, w.flushKeys} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// append inserts rows under a token of their own. Without one the server goes by
// their content, and after a kill may take them for a block that it has only the
// mark of.
func (w *registerWriter) append(table string, rows block) error {
	return w.db.insertBlock(w.ctx, table, rows, table+"/"+rand.Text())
}
