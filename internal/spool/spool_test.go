package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

func TestAppendReadRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, Options{Dir: dir})
	want := fillTo(t, s, 10)
	big := strings.Repeat("x", MaxBody)
	mustAppend(t, s, big, "after")
	want = append(want, big, "after")
	wantBodies(t, s, Cursor{}, want)
	recount(t, s)

	half := readAll(t, s, Cursor{})[4].End
	if err := s.Advance(half); err != nil {
		t.Fatal(err)
	}
	wantBodies(t, s, s.Cursor(), want[5:])
	recount(t, s)
	first := readAll(t, s, Cursor{})[0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	var recovered []string
	s = open(t, Options{Dir: dir, Recovered: func(e Entry) { recovered = append(recovered, string(e.Body)) }})
	if !slices.Equal(recovered, want) {
		t.Fatalf("recovered %d records, want %d", len(recovered), len(want))
	}
	if s.Cursor() != half {
		t.Fatalf("the cursor is %+v after a restart, was %+v", s.Cursor(), half)
	}
	recount(t, s)
	again := mustAppend(t, s, "next")[0]
	if again.SpoolID == first.SpoolID || again.Seq != 13 {
		t.Fatalf("after a restart a record got %v, %d: want a new spool id and seq 13", again.SpoolID, again.Seq)
	}
	wantBodies(t, s, s.Cursor(), append(want[5:], "next"))
	recount(t, s)

	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		info, _ := d.Info()
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			t.Errorf("%s has mode %v, others may not read it", path, mode)
		}
		return err
	})
}

func TestReceiptsAndCursorsInsideOneAppend(t *testing.T) {
	c := newClock()
	o := small(newDisk())
	o.Now = c.now
	s := open(t, o)
	receipts := mustAppend(t, s, "a", "b", "c")
	entries := readAll(t, s, Cursor{})
	for i, r := range receipts {
		if r != entries[i].Receipt || r.Seq != uint64(i+1) {
			t.Errorf("receipt %d is %+v, the entry says %+v", i, r, entries[i].Receipt)
		}
		if want := c.now().Truncate(time.Millisecond); !r.ReceivedAt.Equal(want) || r.ReceivedAt.Location() != time.UTC {
			t.Errorf("received at %v, want %v", r.ReceivedAt, want)
		}
	}
	for i, e := range entries {
		wantBodies(t, s, e.Start, []string{"a", "b", "c"}[i:])
		wantBodies(t, s, e.End, []string{"a", "b", "c"}[i+1:])
	}
	if err := s.Advance(entries[1].End); err != nil {
		t.Fatal(err)
	}
	recount(t, s)
	if err := s.Advance(entries[0].End); err == nil {
		t.Error("the cursor went back")
	}
	if err := s.Advance(Cursor{Volume: 7, Seq: 9}); err == nil {
		t.Error("the cursor left the spool")
	}
}

// A commit between looking for the oldest record behind a new cursor and
// setting that cursor must not be overlooked.
func TestCursorMovesWhileRecordsArrive(t *testing.T) {
	s := open(t, small(newDisk()))
	mustAppend(t, s, "1")
	to, end := readAll(t, s, Cursor{})[0].End, s.end()
	mustAppend(t, s, "2")
	if s.moveCursor(to, 0, end) {
		t.Error("the cursor moved, the gauges say nothing is behind it")
	}
	if err := s.Advance(to); err != nil {
		t.Fatal(err)
	}
	recount(t, s)
}

func TestInheritedIsWhatAnEarlierProcessLeft(t *testing.T) {
	d, entries := threeVolumes(t)
	s := open(t, small(d))
	mustAppend(t, s, "new")
	for i, want := range []int64{12, 11, 10} {
		if got := s.Stats().Inherited; got != want {
			t.Errorf("Inherited is %d, want %d", got, want)
		}
		if err := s.Advance(entries[i].End); err != nil {
			t.Fatal(err)
		}
	}
	for v := uint64(1); v <= 4; v++ {
		if got := s.Inherited(v); got != (v < 4) {
			t.Errorf("Inherited(%d) is %v", v, got)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	s := open(t, small(newDisk()))
	body := make([]byte, MaxBody)
	for name, c := range map[string]struct {
		records []Record
		code    hub.Code
	}{
		"a body over the limit":    {[]Record{{Body: make([]byte, MaxBody+1)}}, hub.TooLarge},
		"an append over the limit": {[]Record{{Body: body}, {Body: body}, {Body: body}, {Body: body}}, hub.TooLarge},
		"a long name":              {[]Record{{HostID: strings.Repeat("h", 256)}}, hub.Invalid},
	} {
		if _, err := s.Append(context.Background(), c.records...); hub.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %d", name, err, c.code)
		}
	}
	if r, err := s.Append(context.Background()); err != nil || r != nil {
		t.Errorf("no records: %v, %v", r, err)
	}
	wantBodies(t, s, Cursor{}, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := appendAll(s, "late"); hub.ReasonOf(err) != "stopping" {
		t.Errorf("after Close: %v", err)
	}
}

func TestManyWritersOneReader(t *testing.T) {
	const writers, each = 16, 200
	o := small(newDisk())
	o.VolumeBytes, o.Keep, o.KeepBytes = 4<<10, time.Nanosecond, 8<<10
	s := open(t, o)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var last hub.Receipt
			for i := range each {
				r, err := appendAll(s, fmt.Sprintf("%d-%d", w, i))
				if err != nil {
					t.Error(err)
					return
				}
				if r[0].Seq <= last.Seq || r[0].ReceivedAt.Before(last.ReceivedAt) {
					t.Errorf("%+v came after %+v", r[0], last)
				}
				last = r[0]
				s.Stats()
			}
		})
	}
	r := s.Reader(Cursor{})
	defer r.Close()
	seen := map[string]bool{}
	for seq := uint64(1); seq <= writers*each; seq++ {
		changed := s.Changed()
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			<-changed
			seq--
			continue
		}
		if e.Seq != seq || seen[string(e.Body)] {
			t.Fatalf("record %d has seq %d and body %q", seq, e.Seq, e.Body)
		}
		seen[string(e.Body)] = true
		if seq%100 == 0 {
			if err := s.Advance(e.End); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	eventually(t, "shipped volumes go", func() bool { return s.Stats().Volumes <= 4 })
	recount(t, s)
	if d := s.Damage(); len(d) != 0 {
		t.Errorf("damage: %v", d)
	}
}

func TestContextEndsWhileTheDiskStalls(t *testing.T) {
	d := newDisk()
	c := newClock()
	o := small(d)
	o.Now = c.now
	s := open(t, o)
	mustAppend(t, s, "first")
	if err := s.Advance(readAll(t, s, Cursor{})[0].End); err != nil {
		t.Fatal(err)
	}
	release := d.hold(t)

	body := []byte("second")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := s.Append(ctx, Record{Kind: hub.KindHostReport, HostID: "h-second", CustomerID: "acme", KeyID: "k1", Body: body})
		done <- err
	}()
	// What is on its way to the disk was received: a judge of silence must see it.
	eventually(t, "the write shows in the gauges", func() bool { return !s.Stats().OldestUnshipped.IsZero() })
	if st := s.Stats(); st.UnshippedRecords != 0 {
		t.Errorf("%d records are readable before their sync", st.UnshippedRecords)
	}
	wantBodies(t, s, s.Cursor(), nil)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Append returned %v", err)
	}
	copy(body, "xxxxxx") // the caller's again
	if _, err := s.Append(ctx, report("never")); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with an ended context returned %v", err)
	}

	// Meanwhile the queue is bounded.
	huge := Record{Body: make([]byte, MaxBody)}
	busy := make(chan error, 10)
	for range cap(busy) {
		go func() { _, err := s.Append(context.Background(), huge, huge, huge); busy <- err }()
	}
	if err := <-busy; hub.ReasonOf(err) != "spool_busy" || hub.CodeOf(err) != hub.Unavailable {
		t.Errorf("with a full queue: %v", err)
	}
	release()
	for range cap(busy) - 1 {
		<-busy
	}
	if e := readAllKinds(t, s, s.Cursor()); string(e[0].Body) != "second" {
		t.Errorf("read %q", e[0].Body)
	}
}

// readAllKinds is readAll for records that report did not make.
func readAllKinds(t testing.TB, s *Spool, from Cursor) (entries []Entry) {
	r := s.Reader(from)
	defer r.Close()
	for {
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return entries
		}
		entries = append(entries, e)
	}
}

func TestCloseFinishesWhatWaits(t *testing.T) {
	d := newDisk()
	s := open(t, small(d))
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := 0
	for i := range 50 {
		wg.Go(func() {
			_, err := appendAll(s, fmt.Sprint(i))
			switch hub.ReasonOf(err) {
			case "stopping":
			default:
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				acked++
				mu.Unlock()
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	s = open(t, small(d))
	if got := len(readAll(t, s, Cursor{})); got != acked {
		t.Errorf("%d records were acknowledged, %d are there", acked, got)
	}
	recount(t, s)
}

func TestReceivedAtNeverGoesBack(t *testing.T) {
	d, c, l := newDisk(), newClock(), &logs{}
	o := small(d)
	o.Now, o.Logger = c.now, l.logger()
	s := open(t, o)
	mustAppend(t, s, "0")
	c.add(5 * time.Second)
	first := mustAppend(t, s, "1")[0].ReceivedAt
	c.add(-10 * time.Second)
	if at := mustAppend(t, s, "2")[0].ReceivedAt; !at.Equal(first) {
		t.Errorf("after a step back received_at is %v, was %v", at, first)
	}
	if l.contain("stepped back") {
		t.Error("a step of 10 s was logged")
	}
	c.add(-time.Minute)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if at := mustAppend(t, s, "3")[0].ReceivedAt; !at.Equal(first) {
		t.Errorf("after a step back and a restart received_at is %v, was %v", at, first)
	}
	if !l.contain("stepped back") {
		t.Error("a step of more than 30 s was not logged")
	}
	c.add(time.Hour)
	if at := mustAppend(t, s, "4")[0].ReceivedAt; !at.Equal(c.now().Truncate(time.Millisecond)) {
		t.Errorf("received_at is %v although the clock is at %v", at, c.now())
	}
}

func TestVolumesCloseBySizeAndAge(t *testing.T) {
	d, c := newDisk(), newClock()
	o := small(d)
	o.Now, o.VolumeAge = c.now, time.Hour
	s := open(t, o)
	mustAppend(t, s, "1")
	c.add(time.Hour)
	eventually(t, "the volume of age is cut to its length", func() bool { return s.Stats().DiskBytes < o.VolumeBytes })
	mustAppend(t, s, "2")
	if n := s.Stats().Volumes; n != 2 {
		t.Fatalf("%d volumes after an hour, want 2", n)
	}
	ids := map[hub.SpoolID]int{}
	want := []string{"1", "2"}
	for i := 3; i <= 30; i++ {
		want = append(want, fmt.Sprint(i))
		mustAppend(t, s, want[i-1])
	}
	for _, e := range readAll(t, s, Cursor{}) {
		ids[e.SpoolID]++
	}
	if n := s.Stats().Volumes; n != len(ids) || n < 5 {
		t.Errorf("%d volumes with %d ids", n, len(ids))
	}
	large := strings.Repeat("y", 5000) // over the size of a volume
	mustAppend(t, s, large)
	mustAppend(t, s, "last")
	wantBodies(t, s, Cursor{}, append(want, large, "last"))
	recount(t, s)
}

func TestI14_ShippedVolumesAreKeptThenRemoved(t *testing.T) {
	d, c := newDisk(), newClock()
	var mu sync.Mutex
	var refuse error
	asked := 0
	o := small(d)
	o.Now, o.Keep = c.now, 24*time.Hour
	o.BeforeRemove = func() error { mu.Lock(); defer mu.Unlock(); asked++; return refuse }
	s := open(t, o)
	want := fillTo(t, s, 20)
	all := readAll(t, s, Cursor{})
	volumes := s.Stats().Volumes

	// Only what lies wholly before the cursor may go, and only when it is old.
	if err := s.Advance(all[9].End); err != nil {
		t.Fatal(err)
	}
	s.removeShipped()
	if n := s.Stats().Volumes; n != volumes || asked != 0 {
		t.Fatalf("%d of %d volumes left, asked %d times: nothing is old", n, volumes, asked)
	}
	c.add(25 * time.Hour)
	refuse = errors.New("not yet")
	s.removeShipped()
	if n := s.Stats().Volumes; n != volumes || asked == 0 {
		t.Fatalf("%d of %d volumes left, asked %d times: BeforeRemove refused", n, volumes, asked)
	}
	mu.Lock()
	refuse = nil
	mu.Unlock()
	s.removeShipped()
	left := readAll(t, s, Cursor{})
	if first := left[0].Seq; first > 11 || first < 8 || s.Stats().Volumes >= volumes {
		t.Fatalf("the first record kept is %d, want the first of the volume that holds 11", first)
	}
	wantBodies(t, s, s.Cursor(), want[10:])
	recount(t, s)

	// The active volume stays also when all of it is shipped.
	if err := s.Advance(all[19].End); err != nil {
		t.Fatal(err)
	}
	c.add(24 * time.Hour)
	s.removeShipped()
	wantBodies(t, s, s.Cursor(), nil)
	if st := s.Stats(); !st.OldestUnshipped.IsZero() || st.UnshippedBytes != 0 {
		t.Errorf("all is shipped, the gauges say %+v", st)
	}
	mustAppend(t, s, "more")
	wantBodies(t, s, s.Cursor(), []string{"more"})
	recount(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	wantBodies(t, s, s.Cursor(), []string{"more"})
	if d := s.Damage(); len(d) != 0 {
		t.Errorf("removed volumes count as damage: %v", d)
	}
}

func TestI15_FullSpoolRefusesThenAcceptsAgain(t *testing.T) {
	d := newDisk()
	o := small(d)
	o.MaxBytes, o.VolumeBytes, o.KeepBytes = 8<<10, 1<<10, 1<<20
	s := open(t, o)
	var acked []string
	var err error
	for i := 0; err == nil; i++ {
		if _, err = appendAll(s, fmt.Sprint(i)); err == nil {
			acked = append(acked, fmt.Sprint(i))
		}
	}
	if hub.ReasonOf(err) != "spool_full" || hub.CodeOf(err) != hub.Unavailable {
		t.Fatalf("a full spool said %v", err)
	}
	if st := s.Stats(); st.Refusing != "spool_full" || st.DiskBytes > o.MaxBytes {
		t.Errorf("a full spool has the gauges %+v", st)
	}
	wantBodies(t, s, Cursor{}, acked)
	entries := readAll(t, s, Cursor{})
	if err := s.Advance(entries[len(entries)/2].End); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the spool accepts again without being asked", func() bool { return s.Stats().Refusing == "" })
	mustAppend(t, s, "again")
	wantBodies(t, s, s.Cursor(), append(slices.Clone(acked[len(entries)/2+1:]), "again"))
	recount(t, s)
}

// Less free space than two volumes is as good as none; shipped volumes go
// before that.
func TestI15_NearlyFullDisk(t *testing.T) {
	d := newDisk()
	o := small(d)
	s := open(t, o)
	acked := fillTo(t, s, 8) // two volumes, the second one full
	free := func(n int64) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.capacity = d.used() + n
	}
	eventually(t, "the ballast is there", func() bool { _, err := d.Open(ballastName); return err == nil })
	free(2*o.VolumeBytes - 100) // closing the second volume gives back less than that
	if _, err := appendAll(s, "no"); hub.ReasonOf(err) != "spool_full" {
		t.Fatalf("with less than two volumes free Append returned %v", err)
	}
	if err := s.Advance(readAll(t, s, Cursor{})[3].End); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shipped volume makes room", func() bool { return s.Stats().Refusing == "" })
	mustAppend(t, s, "again")
	wantBodies(t, s, s.Cursor(), append(acked[4:], "again"))
	recount(t, s)
}

func TestStateFiles(t *testing.T) {
	d := newDisk()
	s := open(t, small(d))
	if _, err := s.ReadState("cut"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a state that never was: %v", err)
	}
	for _, text := range []string{"one", "", strings.Repeat("long", 1000)} {
		if err := s.WriteState("cut", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := s.ReadState("cut"); err != nil || string(b) != text {
			t.Errorf("read %q, %v, want %q", b, err, text)
		}
	}
	for _, name := range []string{"", "cursor", "a/b", "A"} {
		if err := s.WriteState(name, nil); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
	// Its making must not meet the faults in the state file's place.
	eventually(t, "the ballast is there", func() bool { _, err := d.Open(ballastName); return err == nil })
	for _, kind := range []opKind{opCreate, opWrite, opSync, opRename, opSyncDir} {
		old, _ := s.ReadState("cut")
		d.set(kind, fault{times: 1, err: errDisk})
		if err := s.WriteState("cut", fmt.Append(nil, "new", kind)); !errors.Is(err, errDisk) {
			t.Errorf("operation %d failed, WriteState returned %v", kind, err)
		}
		if b, err := s.ReadState("cut"); err != nil || kind != opSyncDir && !bytes.Equal(b, old) {
			t.Errorf("operation %d failed: read %q, %v, want %q", kind, b, err, old)
		}
	}
	n := d.names["cut.state"]
	for i := range n.data {
		n.data[i] ^= 4
		if _, err := s.ReadState("cut"); !errors.Is(err, ErrStateDamaged) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		n.data[i] ^= 4
	}
	n.data = n.data[:len(n.data)-1]
	if _, err := s.ReadState("cut"); !errors.Is(err, ErrStateDamaged) {
		t.Errorf("cut short: %v", err)
	}
}

func TestI15_BallastLetsTheCursorMoveOnAFullDisk(t *testing.T) {
	d := newDisk()
	d.capacity = 64 << 10
	o := small(d)
	s := open(t, o)
	fillTo(t, s, 3)
	eventually(t, "the ballast is there", func() bool { _, err := d.Open(ballastName); return err == nil })
	d.mu.Lock()
	d.capacity = d.used()
	d.mu.Unlock()
	if err := s.Advance(readAll(t, s, Cursor{})[1].End); err != nil {
		t.Fatalf("the cursor does not move on a full disk: %v", err)
	}
	wantBodies(t, s, s.Cursor(), []string{"3"})
	d.mu.Lock()
	d.capacity = 0
	d.mu.Unlock()
	s.removeShipped()
	if _, err := d.Open(ballastName); err != nil {
		t.Errorf("with space again the ballast is not back: %v", err)
	}
}

func TestI11_OneProcessPerSpool(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", os.Getpid())) {
		t.Errorf("a second Open returned %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Options{Dir: dir})
}

// NearlyFull comes before any refusal, on both counts, and goes with the cause.
func TestI15_NearlyFullComesBeforeFull(t *testing.T) {
	d := newDisk()
	o := small(d)
	o.MaxBytes = 8 << 10
	s := open(t, o)
	taken := 0 // while nearly full
	for _, err := appendAll(s, "x"); err == nil; _, err = appendAll(s, "x") {
		st := s.Stats()
		if left := o.MaxBytes - st.DiskBytes; st.NearlyFull != (left < 2*o.VolumeBytes) {
			t.Fatalf("with %d bytes left NearlyFull is %v", left, st.NearlyFull)
		}
		if st.NearlyFull {
			taken++
		}
	}
	if taken == 0 {
		t.Fatal("the spool was full before it was nearly full")
	}
	if st := s.Stats(); !st.NearlyFull || st.Refusing != "spool_full" {
		t.Fatalf("a full spool has the gauges %+v", st)
	}
	entries := readAll(t, s, Cursor{})
	if err := s.Advance(entries[len(entries)-1].End); err != nil {
		t.Fatal(err)
	}
	eventually(t, "shipped volumes make room", func() bool { st := s.Stats(); return !st.NearlyFull && st.Refusing == "" })

	d.mu.Lock()
	d.capacity = d.used() + 3*o.VolumeBytes // fewer than four volumes, more than the two that Append asks for
	d.mu.Unlock()
	eventually(t, "the disk is nearly full", func() bool { return s.Stats().NearlyFull })
	mustAppend(t, s, "small ones are taken")
}
