package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// folder makes a spool in a real folder: three volumes of four records.
func folder(t *testing.T) (string, []Entry) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spool")
	s, err := Open(Options{Dir: path, MaxBytes: 1 << 30, VolumeBytes: 480, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	fillTo(t, s, 12)
	entries := readAll(t, s, Cursor{})
	if err := s.Advance(entries[4].End); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteState("cut", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path, entries
}

// print is a digest of all files of a folder, their names, sizes and times.
func print(t *testing.T, path string) string {
	t.Helper()
	files, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for _, f := range files {
		info, _ := f.Info()
		data, err := os.ReadFile(filepath.Join(path, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(h, f.Name(), info.ModTime(), data)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// inspect inspects a folder and checks that nothing in it was touched.
func inspect(t *testing.T, path string) (Inspection, []uint64, error) {
	t.Helper()
	before := print(t, path)
	var seen []uint64
	in, err := Inspect(Folder(path), func(e Entry) { seen = append(seen, e.Seq) })
	if after := print(t, path); before != after {
		t.Error("the folder was changed")
	}
	return in, seen, err
}

func change(t *testing.T, path string, ordinal uint64, f func([]byte) []byte) {
	t.Helper()
	name := filepath.Join(path, volumeName(ordinal))
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, f(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInspect(t *testing.T) {
	cut := func(n int64) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	flip := func(n int64) func([]byte) []byte {
		return func(b []byte) []byte { b[n] ^= 4; return b }
	}
	for _, c := range []struct {
		name    string
		damage  func(path string, e []Entry)
		records int
		torn    int
		losses  []Loss // their ranges are looked at as far as the volume
	}{
		{"whole", nil, 12, 0, nil},
		{"a bit flips in the middle", func(p string, e []Entry) { change(t, p, 2, flip(e[5].Start.Offset+70)) }, 11, 0,
			[]Loss{{Damage{Volume: 2}, 6, 6}}},
		{"a bit flips in the first record", func(p string, e []Entry) { change(t, p, 2, flip(e[4].Start.Offset+70)) }, 11, 0,
			[]Loss{{Damage{Volume: 2}, 5, 5}}},
		{"a bit flips in a header", func(p string, _ []Entry) { change(t, p, 2, flip(30)) }, 12, 0,
			[]Loss{{Damage{Volume: 2}, 0, 0}}},
		{"an older volume is cut short", func(p string, e []Entry) { change(t, p, 2, cut(e[6].Start.Offset+9)) }, 10, 0,
			[]Loss{{Damage{Volume: 2}, 7, 8}}},
		{"the newest volume is cut short", func(p string, e []Entry) { change(t, p, 3, cut(e[11].Start.Offset+9)) }, 11, 1, nil},
		{"the middle is missing", func(p string, _ []Entry) { _ = os.Remove(filepath.Join(p, volumeName(2))) }, 8, 0,
			[]Loss{{Damage{Volume: 2}, 5, 8}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, entries := folder(t)
			if c.damage != nil {
				c.damage(path, entries)
			}
			in, seen, err := inspect(t, path)
			if err != nil {
				t.Fatal(err)
			}
			if len(seen) != c.records || len(in.Torn) != c.torn || len(in.Damage) != len(c.losses) {
				t.Fatalf("%d records, torn %v, damage %+v", len(seen), in.Torn, in.Damage)
			}
			for i, l := range c.losses {
				if d := in.Damage[i]; d.Volume != l.Volume || d.First != l.First || d.Last != l.Last {
					t.Errorf("damage %+v, want %+v", d, l)
				}
			}
			cursor, shipped, cursorErr := entries[4].End, uint64(1), error(nil)
			if !slices.ContainsFunc(in.Volumes, func(v VolumeInfo) bool { return v.Ordinal == cursor.Volume }) {
				// Its volume is gone while an older one is there: it is not believed.
				cursor, shipped, cursorErr = Cursor{}, 0, ErrOtherCursor
			}
			if !errors.Is(in.CursorErr, cursorErr) || in.Cursor != cursor || string(in.States["cut"].Data) != "x" {
				t.Errorf("cursor %+v (%v), cut %+v", in.Cursor, in.CursorErr, in.States["cut"])
			}
			var records int64
			for _, v := range in.Volumes {
				records += v.Records
				if v.ID.String() == "" || !v.Closed && v.Ordinal != 3 || v.Shipped != (v.Ordinal == shipped) {
					t.Errorf("volume %+v", v)
				}
			}
			if records != int64(c.records) {
				t.Errorf("the volumes hold %d records, %d were read", records, c.records)
			}
		})
	}
}

func TestInspectWhatIsNoSpool(t *testing.T) {
	path := t.TempDir()
	if _, _, err := inspect(t, path); !errors.Is(err, ErrNoSpool) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := Inspect(Folder(filepath.Join(path, "missing")), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(path, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if in, _, err := inspect(t, path); err != nil || len(in.Volumes)+len(in.Damage) != 0 || !errors.Is(in.CursorErr, fs.ErrNotExist) {
		t.Errorf("an empty spool: %+v, %v", in, err)
	}
}

func TestInspectLeavesANewerSpool(t *testing.T) {
	path, _ := folder(t)
	change(t, path, 3, func(b []byte) []byte {
		b[8] = formatVersion + 1
		copy(b[12:16], crcBytes(b[:12]))
		return b
	})
	if _, _, err := inspect(t, path); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer spool: %v", err)
	}
}

// Beside a hub that appends, rotates and removes, nothing looks damaged, and
// what was acknowledged before is found.
func TestInspectBesideAWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	s, err := Open(Options{Dir: path, MaxBytes: 1 << 30, VolumeBytes: 1 << 20, KeepBytes: 4 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Append(context.Background(), benchRecord); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer writers.Wait()
	defer cancel()
	for range 30 {
		last := mustAppend(t, s, "mark")[0].Seq
		var newest uint64
		in, err := Inspect(Folder(path), func(e Entry) { newest = e.Seq })
		if err != nil || len(in.Damage) != 0 || newest < last {
			t.Fatalf("damage %v, newest %d, want %d or later, error %v", in.Damage, newest, last, err)
		}
		r := s.Reader(s.Cursor())
		var end Cursor
		for e, ok, _ := r.Next(); ok && e.Seq <= newest; e, ok, _ = r.Next() {
			end = e.End
		}
		_ = r.Close()
		if err := s.Advance(end); err != nil {
			t.Fatal(err)
		}
	}
}
