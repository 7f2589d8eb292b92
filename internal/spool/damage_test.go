package spool

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// threeVolumes returns a disk with three volumes of four records each, as a
// clean stop leaves it, and its records.
func threeVolumes(t testing.TB) (*disk, []Entry) {
	t.Helper()
	d := newDisk()
	s := open(t, small(d))
	fillTo(t, s, 12)
	entries := readAll(t, s, Cursor{})
	if s.Stats().Volumes != 3 || entries[11].Start.Volume != 3 || entries[4].Start.Volume != 2 {
		t.Fatalf("want three volumes of four records, there are %+v", s.Stats())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d, entries
}

// Every single flipped bit costs at most its own record, and is loud, but for
// the end of the newest volume, where it cannot be told from a torn write.
func TestI05_BitFlips(t *testing.T) {
	d, entries := threeVolumes(t)
	for ordinal := uint64(1); ordinal <= 3; ordinal++ {
		name := volumeName(ordinal)
		for at := range d.names[name].data {
			c := d.clone()
			c.names[name].data[at] ^= 1 << (at % 8)
			s := open(t, small(c))
			var want []string
			hit := false
			for i, e := range entries {
				end := int64(1 << 60)
				if i+1 < len(entries) && entries[i+1].Start.Volume == ordinal {
					end = entries[i+1].Start.Offset
				}
				if e.Start.Volume == ordinal && e.Start.Offset <= int64(at) && int64(at) < end {
					hit = true
					continue
				}
				want = append(want, string(e.Body))
			}
			got := readAll(t, s, Cursor{})
			if !slices.Equal(bodiesOf(got), want) {
				t.Fatalf("%s, byte %d flipped: read %q, want %q", name, at, bodiesOf(got), want)
			}
			for _, e := range got {
				if e.Receipt != entries[e.Seq-1].Receipt {
					t.Fatalf("%s, byte %d flipped: the receipt is %+v, was %+v", name, at, e.Receipt, entries[e.Seq-1].Receipt)
				}
			}
			torn := hit && len(want) == 11 && got[10].Seq == 11
			if dam := s.Damage(); torn != (len(dam) == 0) || len(dam) > 1 || s.Stats().Damage != len(dam) {
				t.Fatalf("%s, byte %d flipped: damage %v", name, at, dam)
			} else if len(dam) == 1 && (dam[0].Volume != ordinal || int64(at) < dam[0].From || int64(at) >= dam[0].To) {
				t.Fatalf("%s, byte %d flipped: damage %v", name, at, dam)
			}
			recount(t, s)
			if r := mustAppend(t, s, "new")[0]; r.Seq < 12 {
				t.Fatalf("%s, byte %d flipped: the next seq is %d", name, at, r.Seq)
			}
			wantBodies(t, s, Cursor{}, append(want, "new"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestI04_TornTail(t *testing.T) {
	d, entries := threeVolumes(t)
	size := int64(len(d.names[volumeName(3)].data))
	for cut := entries[11].Start.Offset; cut < size; cut++ {
		c := d.clone()
		c.names[volumeName(3)].data = c.names[volumeName(3)].data[:cut]
		want := bodiesOf(entries[:11])
		for range 2 { // a torn tail stays without alarm when it is no longer the newest
			s := open(t, small(c))
			wantBodies(t, s, Cursor{}, want)
			if dam := s.Damage(); len(dam) != 0 {
				t.Fatalf("cut at %d: damage %v", cut, dam)
			}
			recount(t, s)
			mustAppend(t, s, "new")
			want = append(want, "new")
			wantBodies(t, s, Cursor{}, want)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestI05_OlderVolumeCutShort(t *testing.T) {
	d, entries := threeVolumes(t)
	n := d.names[volumeName(2)]
	n.data = n.data[:entries[6].Start.Offset+9]
	s := open(t, small(d))
	wantBodies(t, s, Cursor{}, bodiesOf(slices.Concat(entries[:6], entries[8:])))
	if dam := s.Damage(); len(dam) != 1 || dam[0].Volume != 2 || dam[0].From != entries[6].Start.Offset {
		t.Errorf("damage %v, want one from %d", dam, entries[6].Start.Offset)
	}
	recount(t, s)
}

func TestI05_MissingVolume(t *testing.T) {
	for _, c := range []struct {
		name    string
		missing uint64
		shipped int // records
		lost    bool
		damage  bool
	}{
		{"in the middle", 2, 0, true, true},
		{"the oldest, with nothing shipped and no cursor", 1, 0, true, false}, // cannot be known
		{"the oldest, with a part shipped", 1, 2, true, true},
		{"the oldest, shipped", 1, 4, false, false},
		{"in the middle, shipped", 2, 9, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, entries := threeVolumes(t)
			if c.shipped > 0 {
				s := open(t, small(d))
				if err := s.Advance(entries[c.shipped-1].End); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			delete(d.names, volumeName(c.missing))
			s := open(t, small(d))
			var want []string
			for _, e := range entries[c.shipped:] {
				if e.Start.Volume != c.missing {
					want = append(want, string(e.Body))
				}
			}
			wantBodies(t, s, s.Cursor(), want)
			if got := len(s.Damage()) == 1; got != c.damage {
				t.Errorf("damage %v, want it: %v", s.Damage(), c.damage)
			}
			recount(t, s)
		})
	}
}

// What rots while the spool is open is found by whoever reads it.
func TestI05_DamageWhileOpen(t *testing.T) {
	d := newDisk()
	s := open(t, small(d))
	fillTo(t, s, 12)
	entries := readAll(t, s, Cursor{})
	d.mu.Lock()
	d.names[volumeName(2)].data[entries[5].Start.Offset+60] ^= 1
	delete(d.names, volumeName(1))
	d.mu.Unlock()
	for range 2 {
		wantBodies(t, s, Cursor{}, bodiesOf(slices.Concat(entries[4:5], entries[6:])))
	}
	if dam := s.Damage(); len(dam) != 2 {
		t.Errorf("damage %v, want two", dam)
	}
	if n := s.Stats().UnshippedRecords; n != 7 {
		t.Errorf("%d records are left, the gauge should be 7", n)
	}
	if err := s.Advance(entries[11].End); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.UnshippedRecords != 0 || !st.OldestUnshipped.IsZero() {
		t.Errorf("all is shipped, the gauges say %+v", st)
	}
}

// badSector is a disk that cannot read one range of one file.
type badSector struct {
	*disk
	name     string
	from, to int64
}

func (b badSector) Open(name string) (File, error) {
	f, err := b.disk.Open(name)
	if name == b.name && err == nil {
		return badFile{f, b}, nil
	}
	return f, err
}

type badFile struct {
	File
	bad badSector
}

func (f badFile) ReadAt(b []byte, off int64) (int, error) {
	if off < f.bad.to && off+int64(len(b)) > f.bad.from {
		return 0, errDisk
	}
	return f.File.ReadAt(b, off)
}

func TestI05_UnreadableSectorCostsItsRecords(t *testing.T) {
	for _, c := range []struct {
		from, to int64 // blocks
		lost     int   // records that lie there, at most
	}{{5, 6, 10}, {12, 1 << 20, 18}} {
		d := newDisk()
		o := small(d)
		o.VolumeBytes = 1 << 20
		s := open(t, o)
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprintf("%0500d", i))
			mustAppend(t, s, want[i])
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o.FS = badSector{d, volumeName(1), c.from * blockSize, c.to * blockSize}
		s = open(t, o)
		entries := readAll(t, s, Cursor{})
		if n := 100 - len(entries); n > c.lost || n == 0 {
			t.Errorf("%d records could not be read, at most %d lie there", n, c.lost)
		}
		if len(s.Damage()) != 1 {
			t.Errorf("damage %v", s.Damage())
		}
		for _, e := range entries {
			if string(e.Body) != want[e.Seq-1] {
				t.Fatalf("record %d reads %q", e.Seq, e.Body)
			}
		}
		mustAppend(t, s, "new")
		recount(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o.FS = d // the disk was mended: nothing was cut off in the meantime
		s = open(t, o)
		wantBodies(t, s, Cursor{}, append(want, "new"))
		if len(s.Damage()) != 0 {
			t.Errorf("damage %v", s.Damage())
		}
		// "new" may have a seq that is also in the first volume: that must not
		// make it look shipped.
		if err := s.Advance(readAll(t, s, Cursor{})[99].End); err != nil {
			t.Fatal(err)
		}
		wantBodies(t, s, s.Cursor(), []string{"new"})
		recount(t, s)
	}
}

func TestI06_LostOrDamagedCursor(t *testing.T) {
	d, entries := threeVolumes(t)
	s := open(t, small(d))
	if err := s.Advance(entries[6].End); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := cursorName + stateSuffix
	spoil := map[string]func(*disk){
		"missing": func(d *disk) { delete(d.names, name) },
		"empty":   func(d *disk) { d.names[name].data = nil },
	}
	for at := range d.names[name].data {
		spoil[fmt.Sprintf("byte %d flipped", at)] = func(d *disk) { d.names[name].data[at] ^= 1 << (at % 8) }
	}
	for what, do := range spoil {
		c := d.clone()
		do(c)
		s := open(t, small(c))
		if s.Cursor() != (Cursor{}) {
			t.Errorf("%s: the cursor is %+v", what, s.Cursor())
		}
		wantBodies(t, s, s.Cursor(), bodiesOf(entries))
		recount(t, s)
		if r := mustAppend(t, s, "new")[0]; r.Seq != 13 {
			t.Errorf("%s: the next seq is %d", what, r.Seq)
		}
	}
}

// The cursor alone keeps sequence numbers from being used again.
func TestI06_CursorAheadOfTheVolumes(t *testing.T) {
	d, entries := threeVolumes(t)
	s := open(t, small(d))
	if err := s.Advance(entries[11].End); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for v := uint64(1); v <= 3; v++ {
		delete(d.names, volumeName(v))
	}
	s = open(t, small(d))
	if r := mustAppend(t, s, "new")[0]; r.Seq != 13 {
		t.Errorf("the next seq is %d, want 13", r.Seq)
	}
	e := readAll(t, s, s.Cursor())
	if len(e) != 1 || e[0].Start.Volume != 4 {
		t.Errorf("read %+v, want one record in volume 4", e)
	}
	recount(t, s)
}

func TestI19_NewerFormatIsRefusedUntouched(t *testing.T) {
	for _, name := range []string{volumeName(2), cursorName + stateSuffix} {
		d, entries := threeVolumes(t)
		s := open(t, small(d))
		if err := s.Advance(entries[1].End); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		b := d.names[name].data
		b[8] = formatVersion + 1
		copy(b[12:prefixLen], crcBytes(b[:12]))
		before := d.clone()
		if _, err := Open(small(d)); !errors.Is(err, ErrNewer) {
			t.Errorf("%s is of a newer format: Open returned %v", name, err)
		}
		if !maps.EqualFunc(d.names, before.names, func(a, b *inode) bool { return slices.Equal(a.data, b.data) }) {
			t.Errorf("%s is of a newer format: Open changed the spool", name)
		}
		if d.locked {
			t.Error("Open failed and left the lock")
		}
	}
}

// A body that looks like a frame is never read as one, also when a damaged
// range is searched.
func TestI05_BodyThatLooksLikeAFrame(t *testing.T) {
	d := newDisk()
	o := small(d)
	o.VolumeBytes = 4096
	s := open(t, o)
	forged, err := appendFrame(nil, []Record{report("forged")})
	if err != nil {
		t.Fatal(err)
	}
	seal(forged, 2, 0, 0, hub.SpoolID{1, 2, 3})
	mustAppend(t, s, "1")
	mustAppend(t, s, string(forged))
	mustAppend(t, s, "3")
	entries := readAllKinds(t, s, Cursor{})
	if len(entries) != 3 {
		t.Fatalf("read %d records, want 3", len(entries))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.names[volumeName(1)].data[entries[1].Start.Offset] ^= 1
	s = open(t, o)
	wantBodies(t, s, Cursor{}, []string{"1", "3"})
}

// Each fault in two twins: what failed was lost, or it was done nevertheless.
func TestI03_DiskFaults(t *testing.T) {
	kinds := map[string]opKind{
		"create": opCreate, "write": opWrite, "sync": opSync, "sync of the folder": opSyncDir, "truncate": opTruncate,
	}
	for name, kind := range kinds {
		for _, kept := range []bool{false, true} {
			for before := range 6 { // records in the volume
				t.Run(fmt.Sprintf("%s/kept=%v/before=%d", name, kept, before), func(t *testing.T) {
					testDiskFault(t, kind, kept, before)
				})
			}
		}
	}
}

func testDiskFault(t *testing.T, kind opKind, kept bool, before int) {
	d := newDisk()
	o := small(d)
	o.tend = time.Hour // only appends try again here
	s := open(t, o)
	eventually(t, "the ballast is there", func() bool { _, err := d.Open(ballastName); return err == nil })
	acked := fillTo(t, s, before)
	d.set(kind, fault{times: 1, kept: kept, err: errDisk})
	var refused error
	for i := range 8 {
		body := fmt.Sprintf("then-%d", i)
		_, err := appendAll(s, body)
		if err == nil {
			acked = append(acked, body)
			continue
		}
		if hub.CodeOf(err) != hub.Unavailable || hub.ReasonOf(err) != "disk_failed" || !errors.Is(err, errDisk) {
			t.Fatalf("Append returned %v", err)
		}
		if refused != nil {
			t.Fatalf("one fault, a second refusal: %v", err)
		}
		refused = err
		if st := s.Stats(); st.Refusing != "disk_failed" {
			t.Fatalf("the gauges say %+v", st)
		}
		if kind == opCreate || kind == opSyncDir || s.committer.pause {
			s.committer.tried = time.Time{} // as if the time had passed
		}
	}
	if d.faults[kind].times != 0 {
		t.Fatal("the fault never happened")
	}
	if st := s.Stats(); st.Refusing != "" {
		t.Fatalf("all is well again, the gauges say %+v", st)
	}
	wantBodies(t, s, Cursor{}, acked)
	recount(t, s)

	for _, lose := range []bool{false, true} {
		c := d.crash(d.now(), keepAllOrNone(!lose))
		s := open(t, small(c))
		wantBodies(t, s, Cursor{}, acked)
		if dam := s.Damage(); len(dam) != 0 {
			t.Fatalf("after a crash: damage %v", dam)
		}
		recount(t, s)
	}
}

func TestI15_NoSpaceThenSpaceAgain(t *testing.T) {
	for _, kind := range []opKind{opWrite, opTruncate} {
		d := newDisk()
		s := open(t, small(d))
		acked := fillTo(t, s, 6)
		d.mu.Lock()
		d.capacity = d.used() // no volume can be made
		d.mu.Unlock()
		var err error
		for i := 0; err == nil; i++ {
			if _, err = appendAll(s, fmt.Sprint("x", i)); err == nil {
				acked = append(acked, fmt.Sprint("x", i))
			}
		}
		if hub.ReasonOf(err) != "spool_full" {
			t.Fatalf("operation %d: without space Append returned %v", kind, err)
		}
		d.mu.Lock()
		d.capacity = 0
		d.mu.Unlock()
		eventually(t, "the spool accepts again without being asked", func() bool { return s.Stats().Refusing == "" })
		mustAppend(t, s, "again")
		wantBodies(t, s, Cursor{}, append(acked, "again"))
		recount(t, s)
	}
}

// A disk that fails for long does not fill with attempts.
func TestI15_DiskFailsForLong(t *testing.T) {
	d := newDisk()
	o := small(d)
	s := open(t, o)
	acked := fillTo(t, s, 2)
	d.set(opSync, fault{times: 1 << 30, err: errDisk})
	for range 100 {
		if _, err := appendAll(s, "lost"); hub.ReasonOf(err) != "disk_failed" {
			t.Fatalf("Append returned %v", err)
		}
	}
	if n := s.Stats().Volumes; n != 1 {
		t.Errorf("%d volumes after 100 failures, want 1", n)
	}
	d.set(opSync, fault{})
	eventually(t, "the spool accepts again", func() bool { return s.Stats().Refusing == "" })
	mustAppend(t, s, "3")
	wantBodies(t, s, Cursor{}, append(acked, "3"))
	recount(t, s)
}

// Nor with volumes whose header can be written and whose records cannot.
func TestI15_WritesFailForLong(t *testing.T) {
	d := newDisk()
	o := small(d)
	o.tend = time.Hour
	s := open(t, o)
	acked := fillTo(t, s, 2)
	d.set(opWrite, fault{times: 1 << 30, err: errDisk, only: func(o op) bool { return o.off >= headerLen }})
	before := d.now()
	for range 100 {
		if _, err := appendAll(s, "lost"); hub.ReasonOf(err) != "disk_failed" {
			t.Fatalf("Append returned %v", err)
		}
	}
	made := 0
	for _, o := range d.journal[before:] {
		if o.kind == opCreate && o.name != ballastName {
			made++
		}
	}
	if made > 2 || s.Stats().Volumes != 1 {
		t.Errorf("100 failures made %d volumes, %d are left", made, s.Stats().Volumes)
	}
	wantBodies(t, s, Cursor{}, acked)
	recount(t, s)
}
