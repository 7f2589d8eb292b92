package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

func crcBytes(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli))
}

func keepAllOrNone(all bool) keep {
	return func(int, op) (bool, *rand.Rand) { return all, nil }
}

// outcomes are what a power cut may leave of the operations that are not
// durable: all up to one, all but one, all with one torn, and random parts.
func outcomes(pending int, seed uint64) iter.Seq2[string, keep] {
	return func(yield func(string, keep) bool) {
		for i := range pending + 1 {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			before := func(j int, _ op) (bool, *rand.Rand) { return j < i, nil }
			but := func(j int, _ op) (bool, *rand.Rand) { return j != i, nil }
			torn := func(j int, _ op) (bool, *rand.Rand) { return j != i, r }
			if !yield(fmt.Sprintf("the first %d of %d kept", i, pending), before) ||
				i < pending && (!yield(fmt.Sprintf("all of %d but %d kept", pending, i), but) ||
					!yield(fmt.Sprintf("%d of %d torn", i, pending), torn)) {
				return
			}
		}
		for variant := range uint64(3) {
			if name, k := mixture(seed, variant); !yield(name, k) {
				return
			}
		}
	}
}

// mixture keeps a third of the operations and tears the others.
func mixture(seed, variant uint64) (string, keep) {
	r := rand.New(rand.NewPCG(seed, ^variant))
	return fmt.Sprintf("torn, seed %d/%d", seed, variant), func(int, op) (bool, *rand.Rand) { return r.IntN(3) == 0, r }
}

// never is the time of what was not acknowledged.
const never = math.MaxInt

// step is one deed of a life, and when it was acknowledged.
type step struct {
	after   int      // operations in the disk's journal at that time
	bodies  []string // of one Append
	cursor  Cursor   // of one Advance
	receipt hub.Receipt
}

// life is a spool on a disk that records, and what was acknowledged. The
// sweeper works beside it, so its operations may lie elsewhere the next time.
type life struct {
	t     *testing.T
	d     *disk
	c     *clock
	s     *Spool
	steps []step
	fails bool // a fault is to come: appends and cursor moves may be refused
}

func (l *life) open() {
	o := small(l.d)
	o.Now, o.KeepBytes = l.c.now, 600
	if l.fails {
		o.tend = time.Hour // only appends try again: the journal is the same each time
	}
	l.s = open(l.t, o)
}

func (l *life) close() {
	if err := l.s.Close(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *life) put(bodies ...string) {
	st := step{after: never, bodies: bodies}
	receipts, err := appendAll(l.s, bodies...)
	switch {
	case err == nil:
		st.after, st.receipt = l.d.now(), receipts[0]
	case !l.fails:
		l.t.Fatal(err)
	default:
		l.s.committer.tried = time.Time{} // as if the time had passed
	}
	l.steps = append(l.steps, st)
	l.c.add(time.Second)
}

func (l *life) ship(n int) {
	st := step{after: never, cursor: readAll(l.t, l.s, l.s.Cursor())[n-1].End}
	switch err := l.s.Advance(st.cursor); {
	case err == nil:
		st.after = l.d.now()
	case !l.fails:
		l.t.Fatal(err)
	}
	l.steps = append(l.steps, st)
}

// run goes through appends of one and of many records, rotations, cursor
// moves, state files, removals and a restart.
func (l *life) run() {
	l.open()
	for i := range 6 {
		l.put(fmt.Sprint("a", i))
	}
	l.ship(2)
	l.put("group-0", "group-1", "group-2")
	l.put("b0", strings.Repeat("b1", 60))
	if err := l.s.WriteState("cut", []byte("one")); err != nil && !l.fails {
		l.t.Fatal(err)
	}
	l.ship(6)
	l.s.removeShipped()
	l.close()
	l.open()
	for i := range 3 {
		l.put(fmt.Sprint("c", i))
	}
	if !l.fails {
		l.steps = append(l.steps, oneGroup(l.t, l.d, l.s, "d0", "d1", "d2", "d3")...)
	}
	l.put("last-0", "last-1")
	l.ship(5)
	l.s.removeShipped()
	l.close()
}

// oneGroup makes several appends that the committer writes with one write: the
// first goes alone, the others gather while its sync waits at the gate.
func oneGroup(t *testing.T, d *disk, s *Spool, bodies ...string) []step {
	release := d.hold(t)
	steps := make([]step, len(bodies))
	var wg sync.WaitGroup
	for i, b := range bodies {
		wg.Go(func() {
			r, err := appendAll(s, b)
			if err != nil {
				t.Error(err)
				return
			}
			steps[i] = step{after: d.now(), bodies: []string{b}, receipt: r[0]}
		})
		eventually(t, "the append waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.writing != 0 && len(s.queue) == i
		})
	}
	release()
	wg.Wait()
	return steps
}

// After a power cut at any operation, whatever was not durable survived, all
// that was acknowledged is there, once, in order; appends are whole or absent;
// nothing counts as damage; the gauges equal a recount; and the spool goes on.
func TestI01_I04_I20_PowerCutAnywhere(t *testing.T) {
	l := &life{t: t, d: newDisk(), c: newClock()}
	l.run()
	total, states := l.d.now(), 0
	for n := range total + 1 {
		for outcome, k := range outcomes(len(l.d.pending(n)), uint64(n)) {
			checkAfterCrash(t, fmt.Sprintf("cut after %d of %d operations, %s", n, total, outcome), l.d.crash(n, k), l.c, l.steps, n)
			states++
		}
	}
	t.Logf("%d operations, %d disks", total, states)
}

// The same when the power goes a second time, while the hub that came back
// reads, tidies up and appends.
func TestI01_I05_PowerCutDuringRecovery(t *testing.T) {
	l := &life{t: t, d: newDisk(), c: newClock()}
	l.run()
	total, states := l.d.now(), 0
	for n := 0; n <= total; n += 2 {
		_, k := mixture(uint64(n), 0)
		again := &life{t: t, d: l.d.crash(n, k), c: l.c, steps: l.known(n)}
		again.open()
		again.put("between")
		again.close()
		for m := range again.d.now() + 1 {
			for _, k := range []keep{keepAllOrNone(true), keepAllOrNone(false), second(mixture(uint64(m), 1))} {
				checkAfterCrash(t, fmt.Sprintf("cut after %d of %d operations, then after %d more", n, total, m), again.d.crash(m, k), l.c, again.steps, m)
				states++
			}
		}
	}
	t.Logf("%d disks", states)
}

func second(_ string, k keep) keep { return k }

// known returns the steps for whoever finds the disk after n operations: what
// was acknowledged is so from the beginning.
func (l *life) known(n int) (steps []step) {
	for _, st := range l.steps {
		if st.after <= n {
			st.after = 0
		} else {
			st.after = never
		}
		steps = append(steps, st)
	}
	return steps
}

// One operation fails, in two twins: it was lost, or it was done nevertheless.
// The life goes on, and then the power goes, anywhere.
func TestI01_I03_PowerCutAfterAFault(t *testing.T) {
	states := 0
	for kind, name := range faultKinds {
		for _, kept := range []bool{false, true} {
			for skip := 0; ; skip++ {
				l := &life{t: t, d: newDisk(), c: newClock(), fails: true}
				l.d.set(kind, fault{times: 1, skip: skip, kept: kept, err: errDisk})
				l.run()
				if l.d.faults[kind].times != 0 {
					if skip < 2 {
						t.Errorf("%s %d never happened", name, skip)
					}
					break
				}
				for n := skip % 2; n <= l.d.now(); n += 2 {
					for _, k := range []keep{keepAllOrNone(true), keepAllOrNone(false), second(mixture(uint64(n), uint64(skip)))} {
						checkAfterCrash(t, fmt.Sprintf("%s %d failed (kept: %v), cut after %d operations", name, skip, kept, n), l.d.crash(n, k), l.c, l.steps, n)
						states++
					}
				}
			}
		}
	}
	t.Logf("%d disks", states)
}

var faultKinds = map[opKind]string{
	opCreate: "create", opWrite: "write", opSync: "sync", opSyncDir: "sync of the folder",
	opTruncate: "truncate", opRename: "rename", opRemove: "remove",
}

func checkAfterCrash(t *testing.T, what string, d *disk, c *clock, steps []step, n int) {
	t.Helper()
	o := small(d)
	o.Now = c.now
	for range 2 { // the second start finds what the first one did with it
		s, err := Open(o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if dam := s.Damage(); len(dam) != 0 {
			t.Fatalf("%s: damage %v", what, dam)
		}
		checkSteps(t, what, s, steps, n)
		recount(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := readAll(t, s, s.Cursor())
	receipt := mustAppend(t, s, "new")[0]
	for _, st := range steps {
		if st.bodies != nil && st.after <= n && (receipt.SpoolID == st.receipt.SpoolID || receipt.Seq <= st.receipt.Seq || receipt.ReceivedAt.Before(st.receipt.ReceivedAt)) {
			t.Fatalf("%s: the next receipt is %+v, one before was %+v", what, receipt, st.receipt)
		}
	}
	after := readAll(t, s, s.Cursor())
	if !slices.Equal(bodiesOf(after), append(bodiesOf(before), "new")) {
		t.Fatalf("%s: read %q after %q", what, bodiesOf(after), bodiesOf(before))
	}
}

// checkSteps compares what is readable with what had been acknowledged when
// the journal had n operations.
func checkSteps(t *testing.T, what string, s *Spool, steps []step, n int) {
	t.Helper()
	cursor := s.Cursor()
	found := map[string]Entry{}
	var last uint64
	for _, e := range readAll(t, s, cursor) {
		if _, twice := found[string(e.Body)]; twice || e.Seq <= last {
			t.Fatalf("%s: %q is out of order or there twice", what, e.Body)
		}
		found[string(e.Body)], last = e, e.Seq
	}
	known := cursor == Cursor{}
	foreign := len(found)
	for _, st := range steps {
		acked := st.after <= n
		if st.bodies == nil {
			known = known || cursor == st.cursor
			if acked && cursor.before(st.cursor) {
				t.Fatalf("%s: the cursor %+v went back to %+v", what, st.cursor, cursor)
			}
			continue
		}
		there := 0
		for i, b := range st.bodies {
			e, ok := found[b]
			if ok {
				foreign--
			}
			if ok || acked && st.receipt.Seq+uint64(i) < cursor.Seq { // shipped
				there++
			}
			if ok && acked && (e.SpoolID != st.receipt.SpoolID || e.Seq != st.receipt.Seq+uint64(i) || !e.ReceivedAt.Equal(st.receipt.ReceivedAt)) {
				t.Fatalf("%s: %q reads %+v, its receipt was %+v", what, b, e.Receipt, st.receipt)
			}
		}
		if acked && there != len(st.bodies) || there != 0 && there != len(st.bodies) && cursor.Seq <= st.receipt.Seq {
			t.Fatalf("%s: %d of the records %q are there, acknowledged: %v", what, there, st.bodies, acked)
		}
	}
	if foreign != 0 {
		t.Fatalf("%s: %d records are there that nobody appended", what, foreign)
	}
	if !known {
		t.Fatalf("%s: nobody set the cursor %+v", what, cursor)
	}
}
