package rejected

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// day is the morning of the tests' first day.
var day = time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)

func open(t *testing.T) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rejected")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.now = func() time.Time { return day }
	return s, dir
}

func record(seq uint64, reason string) Record {
	return Record{Position: hub.Position{SpoolID: hub.SpoolID{0xab, 15: 1}, Seq: seq}, ReceivedAt: day.Add(time.Duration(seq) * time.Second),
		RejectedAt: day, Kind: 77, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Reason: reason,
		Body: fmt.Appendf(nil, "{ \"n\":%d,  \"t\": \"<\u2028\xff\n\" }", seq)}
}

func add(t *testing.T, s *Store, records ...Record) {
	t.Helper()
	if err := s.Append(records...); err != nil {
		t.Fatal(err)
	}
}

func mark(t *testing.T, s *Store, seqs ...uint64) {
	t.Helper()
	for _, seq := range seqs {
		if err := s.MarkReplayed(record(seq, "").Position); err != nil {
			t.Fatal(err)
		}
	}
}

// want checks what the folder holds: "seq reason", and "replayed" where it was.
func want(t *testing.T, dir string, damage int, entries ...string) Contents {
	t.Helper()
	c, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, e := range c.Entries {
		text := fmt.Sprintf("%d %s", e.Seq, e.Reason)
		if !e.ReplayedAt.IsZero() {
			text += " replayed"
		}
		got = append(got, text)
		whole, err := e.Load()
		if err != nil {
			t.Fatal(err)
		}
		if r := record(e.Seq, ""); !bytes.Equal(whole.Body, r.Body) || e.Bytes != len(r.Body) {
			t.Errorf("body of %d: %q (%d bytes), want %q", e.Seq, whole.Body, e.Bytes, r.Body)
		}
	}
	if !slices.Equal(got, entries) || len(c.Damage) != damage {
		t.Errorf("entries %q and damage %v\nwant %q and %d", got, c.Damage, entries, damage)
	}
	return c
}

func TestRecordsComeBackWhole(t *testing.T) {
	s, dir := open(t)
	add(t, s, record(1, "a"), record(2, "b"))
	add(t, s, Record{Position: record(3, "").Position})
	c, err := Read(dir)
	if err != nil || len(c.Entries) != 3 {
		t.Fatal(c, err)
	}
	for i, sent := range []Record{record(1, "a"), record(2, "b"), {Position: record(3, "").Position}} {
		got, err := c.Entries[i].Load()
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", sent) {
			t.Errorf("%+v, %v\nwant %+v", got, err, sent)
		}
		text, err := json.Marshal(sent)
		var again Record
		if err = errors.Join(err, json.Unmarshal(text, &again)); err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", sent) {
			t.Errorf("through JSON: %+v, %v", again, err)
		}
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, "2026-11-28.jsonl"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}

func TestNothingIsRejectedYet(t *testing.T) {
	want(t, filepath.Join(t.TempDir(), "none"), 0)
	_, dir := open(t)
	want(t, dir, 0)
}

// The newest line about a position counts.
func TestAPositionComesOnce(t *testing.T) {
	s, dir := open(t)
	add(t, s, record(1, "old"), record(2, "b"))
	mark(t, s, 9) // of a file that was moved away
	s.now = func() time.Time { return day.AddDate(0, 0, 1) }
	add(t, s, record(1, "new"))
	want(t, dir, 0, "1 new", "2 b")
	mark(t, s, 1)
	want(t, dir, 0, "1 new replayed", "2 b")
	s.now = func() time.Time { return day } // the clock went back; the order does not
	add(t, s, record(1, "again"))
	want(t, dir, 0, "1 again", "2 b")
	if names, err := files(dir); err != nil || len(names) != 2 {
		t.Error(names, err)
	}
}

// However much of the last line reached the disk, the ones before it are whole,
// and the next one is too.
func TestTornLastLine(t *testing.T) {
	s, dir := open(t)
	add(t, s, record(1, "a"))
	file := filepath.Join(dir, "2026-11-28.jsonl")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range [][]byte{nil, whole} {
		for n := range whole {
			if err := os.WriteFile(file, append(slices.Clone(first), whole[:n]...), 0o600); err != nil {
				t.Fatal(err)
			}
			kept := []string{"1 a"}[:min(len(first), 1)]
			want(t, dir, 0, kept...)
			add(t, s, record(2, "b"))
			want(t, dir, 0, append(slices.Clone(kept), "2 b")...)
		}
	}
	long := bytes.Repeat([]byte("x"), 200<<10) // more than a block
	if err := os.WriteFile(file, append(slices.Clone(whole), long...), 0o600); err != nil {
		t.Fatal(err)
	}
	add(t, s, record(2, "b"))
	want(t, dir, 0, "1 a", "2 b")
}

// Any flipped bit is found, and costs its line.
func TestDamage(t *testing.T) {
	s, dir := open(t)
	add(t, s, record(1, "a"), record(2, "b"), record(3, "c"))
	file := filepath.Join(dir, "2026-11-28.jsonl")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	from := bytes.IndexByte(whole, '\n') + 1
	to := from + bytes.IndexByte(whole[from:], '\n')
	for i := from; i < to; i++ {
		hurt := slices.Clone(whole)
		if hurt[i] ^= 4; hurt[i] == '\n' {
			continue
		}
		if err := os.WriteFile(file, hurt, 0o600); err != nil {
			t.Fatal(err)
		}
		c := want(t, dir, 1, "1 a", "3 c")
		if d := c.Damage[0]; !strings.HasPrefix(d.String(), "2026-11-28.jsonl:2: ") {
			t.Errorf("damage %q", d)
		}
	}
}

// A sync that failed is no acknowledgement, and what it left is gone.
func TestFailedSync(t *testing.T) {
	s, dir := open(t)
	add(t, s, record(1, "a"))
	s.sync = func(*os.File) error { return syscall.EIO }
	if err := s.Append(record(2, "b")); !errors.Is(err, syscall.EIO) {
		t.Errorf("Append said %v", err)
	}
	if err := s.MarkReplayed(record(1, "").Position); !errors.Is(err, syscall.EIO) {
		t.Errorf("MarkReplayed said %v", err)
	}
	want(t, dir, 0, "1 a")
	s.sync = (*os.File).Sync
	add(t, s, record(2, "b"))
	want(t, dir, 0, "1 a", "2 b")
}

// The file and its folder are synced before Append returns.
func TestAppendSyncs(t *testing.T) {
	s, dir := open(t)
	var synced []string
	s.sync = func(f *os.File) error { synced = append(synced, f.Name()); return f.Sync() }
	add(t, s, record(1, "a"))
	if !slices.Equal(synced, []string{filepath.Join(dir, "2026-11-28.jsonl"), dir}) {
		t.Errorf("synced %q", synced)
	}
}

// The files stay under their bound: what was replayed goes, what was not stays.
func TestBound(t *testing.T) {
	s, dir := open(t)
	add(t, s, record(1, "a"))
	one := lineSize(t, record(1, "a"))
	s.max = 4 * one
	for i := uint64(2); i <= 4; i++ {
		s.now = func() time.Time { return day.AddDate(0, 0, int(i)) }
		add(t, s, record(i, "a"))
	}
	for range 2 {
		if err := s.Append(record(5, "a")); !errors.Is(err, ErrFull) {
			t.Fatalf("Append to full files said %v", err)
		}
		if s.full.IsZero() {
			t.Error("they are read again for each record")
		}
	}
	mark(t, s, 2, 1) // marks always find room; those of 1 and 2 are in the file of 4
	want(t, dir, 0, "1 a replayed", "2 a replayed", "3 a", "4 a")
	add(t, s, record(5, "a"))
	want(t, dir, 0, "3 a", "4 a", "5 a")
	mark(t, s, 4, 5)
	for err := error(nil); err == nil; { // 3 was not replayed: nothing goes any more
		err = s.Append(record(5, "b"))
	}
	if c, err := Read(dir); err != nil || len(c.Entries) == 0 || c.Entries[0].Seq != 3 {
		t.Errorf("what was not replayed is gone: %+v, %v", c, err)
	}
}

func lineSize(t *testing.T, r Record) int64 {
	t.Helper()
	text, err := encode(lineOf(r))
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(text))
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no", "such")); err == nil {
		t.Error("a folder in no folder was opened")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file was taken for a folder")
	}
}
