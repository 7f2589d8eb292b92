package ingest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

func entry(host string, seq uint64) spool.Entry {
	return spool.Entry{
		Record:  spool.Record{Kind: hub.KindHostReport, HostID: host, Body: body(host, int(seq))},
		Receipt: receipt(seq),
	}
}

// Recovery, a snapshot and live reports may come in any order, and repeat each
// other: what is known in the end is the same.
func TestRecoveryNeedsNoOrder(t *testing.T) {
	var entries []spool.Entry
	for seq := uint64(1); seq <= 60; seq++ {
		entries = append(entries, entry(fmt.Sprintf("acme-%d", seq%5), seq))
	}
	want := New(Options{})
	for _, e := range entries {
		want.Recover(e)
	}
	old := New(Options{})
	for _, e := range entries[:45] {
		old.Recover(e)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a := New(Options{})
		mixed := append(append([]spool.Entry{}, entries...), entries[random.IntN(60)], entries[random.IntN(60)])
		random.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		restoreAt := random.IntN(len(mixed))
		for i, e := range mixed {
			if i == restoreAt {
				if err := a.Restore(old.Snapshot()); err != nil {
					t.Fatal(err)
				}
			}
			a.Recover(e)
		}
		if !bytes.Equal(a.Snapshot(), want.Snapshot()) {
			t.Fatal("another order gave another index")
		}
	}
	if got, ok := want.LastSeen("acme-0"); !ok || got != receipt(60) {
		t.Errorf("last seen %+v, %v", got, ok)
	}
	if _, ok := want.LastSeen("nobody"); ok {
		t.Error("a host never seen was seen")
	}
}

func TestRecoverIgnoresDecisions(t *testing.T) {
	a := New(Options{})
	e := entry("acme-1", 1)
	e.Kind = hub.KindDecision
	a.Recover(e)
	if _, ok := a.LastSeen("acme-1"); ok {
		t.Error("a decision is no sign of life")
	}
}

func TestI17_ARestoredHubKnowsRetries(t *testing.T) {
	before := newFixture(t)
	for n := range 3 {
		if _, _, err := before.report(t.Context(), before.bearer("host/acme-1"), body("acme-1", n)); err != nil {
			t.Fatal(err)
		}
	}
	after := newFixture(t)
	if err := after.Restore(before.Snapshot()); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		_, retry, err := after.report(t.Context(), after.bearer("host/acme-1"), body("acme-1", n))
		if err != nil || retry != (n < 3) {
			t.Errorf("report %d: retry %v, %v", n, retry, err)
		}
	}
	if after.spool.rows() != 1 {
		t.Errorf("%d rows", after.spool.rows())
	}
}

// A disk lost the end of the spool, so that sequences begin lower again: newer
// reports are remembered all the same.
func TestSequencesThatBeginAgain(t *testing.T) {
	a := New(Options{})
	for seq := uint64(1000); seq < 1010; seq++ {
		a.Recover(entry("acme-1", seq))
	}
	late := entry("acme-1", 5)
	late.ReceivedAt = receipt(2000).ReceivedAt
	a.Recover(late)
	if last, _ := a.LastSeen("acme-1"); last != late.Receipt {
		t.Errorf("LastSeen: %+v, want %+v", last, late.Receipt)
	}
	if !a.recent.shard("acme-1").hosts["acme-1"].knows(sumOf(late.Body)) {
		t.Error("a retry of the newest report would not be recognised")
	}
}

func TestADamagedSnapshotChangesNothing(t *testing.T) {
	a := New(Options{})
	a.Recover(entry("acme-1", 1))
	a.Recover(entry("acme-2", 2))
	good := a.Snapshot()
	b := New(Options{})
	empty := b.Snapshot()
	for i := range good {
		damaged := bytes.Clone(good)
		damaged[i] ^= 0x10
		if b.Restore(damaged) == nil || b.Restore(good[:i]) == nil {
			t.Fatalf("damage at byte %d was not noticed", i)
		}
	}
	if !bytes.Equal(b.Snapshot(), empty) {
		t.Error("a damaged snapshot left something behind")
	}
	if err := b.Restore(empty); err != nil {
		t.Errorf("the snapshot of an empty index: %v", err)
	}
}

func FuzzRestore(f *testing.F) {
	a := New(Options{})
	a.Recover(entry("acme-1", 1))
	f.Add(a.Snapshot()[len(snapshotMagic):])
	f.Fuzz(func(t *testing.T, hosts []byte) {
		for len(hosts) > 0 { // behind the checksum
			host, h, rest, err := readHistory(hosts)
			if err != nil {
				return
			}
			if len(rest) >= len(hosts) || h.n < 1 || h.n > remembered || len(host) > 255 {
				t.Fatalf("host %q with %d reports, %d bytes left of %d", host, h.n, len(rest), len(hosts))
			}
			hosts = rest
		}
	})
}

func TestMemoryOfAHundredThousandHosts(t *testing.T) {
	const hosts, limit = 100_000, 34 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := newRecent()
	for i := range hosts {
		host := fmt.Sprintf("customer-%08x", i)
		for n := range uint64(remembered) {
			r.insert(host, sum{byte(n)}, receipt(n))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := after.HeapAlloc - before.HeapAlloc; used > limit {
		t.Errorf("%d MiB for %d hosts, want at most %d", used>>20, hosts, limit>>20)
	} else {
		t.Logf("%d MiB", used>>20)
	}
	runtime.KeepAlive(r)
}

func TestFirstSeen(t *testing.T) {
	r := newRecent()
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
	add := func(n int) {
		r.insert("h", sum{byte(n)}, hub.Receipt{ReceivedAt: at(n), Position: hub.Position{Seq: uint64(n)}})
	}
	want := func(what string, after int, first int, ok bool) {
		t.Helper()
		if got, known := r.first("h", at(after)); known != ok || ok && !got.Equal(at(first)) {
			t.Errorf("%s: %s, %v; want %s, %v", what, got, known, at(first), ok)
		}
	}
	want("nothing is known", 0, 0, false)
	for _, n := range []int{5, 3, 1} {
		add(n)
	}
	want("after the first", 1, 3, true)
	want("between two", 4, 5, true)
	want("after the last", 5, 0, false)
	want("one before it may be forgotten", 0, 0, false)
	for n := 6; n <= 6+remembered; n++ {
		add(n)
	}
	want("too many came since", 5, 0, false)
	want("not too many", 7, 8, true)
}
