package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
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

// step is one acknowledged deed of a life, and when it was acknowledged.
type step struct {
	after   int      // operations in the disk's journal at that time
	bodies  []string // of one Append
	cursor  Cursor   // of one Advance
	receipt hub.Receipt
}

// live runs a spool through appends of one and of many records, rotations,
// cursor moves, a removal and a restart.
func live(t *testing.T, d *disk, c *clock) (steps []step) {
	o := small(d)
	o.Now, o.KeepBytes = c.now, 600
	s := open(t, o)
	put := func(bodies ...string) {
		receipts := mustAppend(t, s, bodies...)
		steps = append(steps, step{after: d.now(), bodies: bodies, receipt: receipts[0]})
		c.add(time.Second)
	}
	ship := func(n int) {
		to := readAll(t, s, s.Cursor())[n-1].End
		if err := s.Advance(to); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step{after: d.now(), cursor: to})
	}
	for i := range 6 {
		put(fmt.Sprint("a", i))
	}
	ship(2)
	put("group-0", "group-1", "group-2")
	put("b0", strings.Repeat("b1", 60))
	ship(6)
	s.removeShipped()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	for i := range 3 {
		put(fmt.Sprint("c", i))
	}
	steps = append(steps, oneGroup(t, d, s, "d0", "d1", "d2", "d3")...)
	put("last-0", "last-1")
	ship(5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return steps
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
// nothing counts as damage; and the spool goes on.
func TestPowerCutAnywhere(t *testing.T) {
	d, c := newDisk(), newClock()
	steps := live(t, d, c)
	total := d.now()
	states := 0
	for n := range total + 1 {
		pending := len(d.pending(n))
		for prefix := range pending + 1 {
			i := -1
			k := func(position int, _ op) (bool, *rand.Rand) {
				i = position
				return i < prefix, nil
			}
			checkAfterCrash(t, fmt.Sprintf("cut after %d of %d operations, %d of %d kept", n, total, prefix, pending), d.crash(n, k), c, steps, n)
			states++
		}
		for seed := range uint64(4) {
			r := rand.New(rand.NewPCG(uint64(n), seed))
			k := func(int, op) (bool, *rand.Rand) { return r.IntN(3) == 0, r }
			checkAfterCrash(t, fmt.Sprintf("cut after %d of %d operations, torn with seed %d", n, total, seed), d.crash(n, k), c, steps, n)
			states++
		}
	}
	t.Logf("%d operations, %d disks", total, states)
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
	if !known {
		t.Fatalf("%s: nobody set the cursor %+v", what, cursor)
	}
}
