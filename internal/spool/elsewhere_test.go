package spool

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"felhom.eu/hub/internal/hub"
)

// later returns a copy of d in which a hub appended these and stopped.
func later(t *testing.T, d *disk, bodies ...string) *disk {
	t.Helper()
	c := d.clone()
	s := open(t, small(c))
	for _, b := range bodies {
		mustAppend(t, s, b)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// shipped returns a copy of d whose cursor is at to.
func shipped(t *testing.T, d *disk, to Cursor) *disk {
	t.Helper()
	c := d.clone()
	s := open(t, small(c))
	if err := s.Advance(to); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// Volumes and cursors that were restored or copied from elsewhere: a start
// succeeds, what was not shipped is read, and every record keeps its spool id
// and seq, so that one that is there twice is known as the same.
func TestI05_FromElsewhere(t *testing.T) {
	ours, entries := threeVolumes(t)
	theirs, _ := threeVolumes(t) // as many volumes, other ids
	today := shipped(t, later(t, ours, "13", "14"), entries[6].End)
	one, two, three, four, five := volumeName(1), volumeName(2), volumeName(3), volumeName(4), volumeName(5)
	cursor := cursorName + stateSuffix
	all := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}
	for name, c := range map[string]struct {
		from  *disk
		do    func(names map[string]*inode)
		want  []string // behind the cursor
		alarm bool
	}{
		"yesterday's folder": {ours, func(map[string]*inode) {}, all, false},
		"yesterday's cursor": {today, func(n map[string]*inode) { delete(n, cursor) }, append(slices.Clone(all), "13", "14"), false},
		"today's cursor, yesterday's volumes": {ours, func(n map[string]*inode) { n[cursor] = today.names[cursor] },
			all[7:], false},
		"today's cursor, its volume not restored": {shipped(t, ours, entries[10].End), func(n map[string]*inode) { delete(n, three) },
			all[:8], false},
		"another spool's cursor": {ours, func(n map[string]*inode) { n[cursor] = shipped(t, theirs, entries[10].End).names[cursor] },
			all, false},
		"a volume twice": {ours, func(n map[string]*inode) { n[four] = n[one] },
			append(slices.Clone(all), all[:4]...), true},
		"a volume under another's name": {ours, func(n map[string]*inode) { n[two] = n[one] },
			slices.Concat(all[:4], all[:4], all[8:]), true},
		"another spool's volume behind ours": {ours, func(n map[string]*inode) { n[four] = theirs.names[three] },
			append(slices.Clone(all), all[8:]...), true},
		"another spool's volume in ours' place": {ours, func(n map[string]*inode) { n[two] = theirs.names[two] }, all, false},
		"another spool's longer volume in ours' place": {shipped(t, ours, entries[0].End), func(n map[string]*inode) {
			n[two] = later(t, theirs, "long-13", "long-14", "long-15", "long-16", "long-17", "long-18").names[five]
		}, slices.Concat(all[1:4], []string{"long-17", "long-18"}, all[8:]), true},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.from.clone()
			c.do(d.names)
			d = d.clone() // nothing is shared
			known := ids(t, d)
			s := open(t, small(d))
			wantBodies(t, s, s.Cursor(), c.want)
			if dam := s.Damage(); (len(dam) > 0) != c.alarm {
				t.Errorf("damage %v, want it: %v", dam, c.alarm)
			}
			for _, e := range readAll(t, s, Cursor{}) {
				if !known[e.Position][string(e.Body)] {
					t.Errorf("%q reads as %+v, which is not what its frame says", e.Body, e.Position)
				}
			}
			recount(t, s)
			before := maps.Clone(known)
			if r := mustAppend(t, s, "new")[0]; before[r.Position] != nil {
				t.Errorf("the position %+v was given out before", r.Position)
			}
			wantBodies(t, s, s.Cursor(), append(slices.Clone(c.want), "new"))
		})
	}
}

// ids reads the frames of all volumes without the spool.
func ids(t *testing.T, d *disk) map[hub.Position]map[string]bool {
	t.Helper()
	known := map[hub.Position]map[string]bool{}
	for name, n := range d.names {
		if _, ok := parseVolumeName(name); !ok {
			continue
		}
		sc := scanner{file: bytes.NewReader(n.data), pos: headerLen, limit: int64(len(n.data))}
		for f, _, ok := sc.next(); ok; f, _, ok = sc.next() {
			for f.count > 0 {
				e := f.next()
				if known[e.Position] == nil {
					known[e.Position] = map[string]bool{}
				}
				known[e.Position][string(e.Body)] = true
			}
		}
	}
	return known
}

// testdata/format1 was written before volumes named the id of the one before
// them, and cursors that of their volume.
func TestI19_OlderSpoolIsRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "format1"))); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Dir: dir, VolumeBytes: 480})
	want := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"}
	wantBodies(t, s, s.Cursor(), want[2:])
	if dam := s.Damage(); len(dam) != 0 {
		t.Errorf("damage %v", dam)
	}
	recount(t, s)
	if r := mustAppend(t, s, "12")[0]; r.Seq != 12 {
		t.Errorf("the next seq is %d, want 12", r.Seq)
	}
	if err := s.Advance(readAll(t, s, s.Cursor())[0].End); err != nil {
		t.Fatal(err)
	}
	wantBodies(t, s, s.Cursor(), append(want[3:], "12"))
}

// Whenever a volume is deleted, a power cut that loses all that can be lost
// leaves a cursor behind that volume.
func TestI07_CursorFirstThenDelete(t *testing.T) {
	l := &life{t: t, d: newDisk(), c: newClock()}
	l.run()
	removed := 0
	for n, o := range l.d.journal {
		ordinal, ok := parseVolumeName(o.name)
		if o.kind != opRemove || !ok {
			continue
		}
		removed++
		c, _, err := readCursor(l.d.crash(n, keepAllOrNone(false)))
		if err != nil || c.Volume < ordinal {
			t.Errorf("operation %d removes %s while the durable cursor is %+v (%v)", n, o.name, c, err)
		}
	}
	if removed == 0 {
		t.Error("no volume was removed")
	}
}

// A removal that fails still counts as space in use, and is tried again.
func TestI15_RemovalFailsThenWorks(t *testing.T) {
	for _, kept := range []bool{false, true} {
		d := newDisk()
		o := small(d)
		o.KeepBytes = 1
		s := open(t, o)
		fillTo(t, s, 8)
		isVolume := func(o op) bool { _, ok := parseVolumeName(o.name); return ok }
		d.set(opRemove, fault{times: 1, only: isVolume, kept: kept, err: errDisk})
		if err := s.Advance(readAll(t, s, Cursor{})[4].End); err != nil {
			t.Fatal(err)
		}
		s.removeShipped()
		s.removeShipped()
		if _, err := d.Open(volumeName(1)); err == nil {
			t.Errorf("kept=%v: the shipped volume is still there", kept)
		}
		recount(t, s)
	}
}
