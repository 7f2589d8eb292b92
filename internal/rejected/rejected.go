// Package rejected keeps, in files of the data directory, the acknowledged
// records that can never become rows: of a kind that this hub does not know, or
// refused by ClickHouse for good.
//
// The files are JSON lines, one file a UTC day, appended to and never changed. A
// line is a record or the mark that one was replayed; the newest line about a
// position is the one that counts, so that a record may be appended again (a cut
// of the spool is delivered again after a crash). Lines go to the newest file even
// if the clock went back: their order is the order of what happened.
//
// Bodies are base64, always: a body is kept byte for byte, and JSON inside of
// JSON is not (encoders compact and escape it), nor need a body be JSON or even
// text. Every line ends with a CRC32C over the rest of it, because a record with
// a flipped digit would be replayed in another one's place.
//
// A last line without its end was never acknowledged: readers pass over it, and
// the writer cuts it off before it writes the next one.
//
// What bounds the size: the files together never exceed [MaxBytes]. Where a hub
// rejects that much, files whose records were all replayed go first, oldest first;
// then [ErrFull] is returned and the record is not kept here. Nothing that was
// kept is dropped for it. This is the copy to work with, not the only one: the
// table rejected_reports has a row, whole, of every rejected record.
package rejected

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// MaxBytes bounds the files together. Marks may exceed it: they are small, and
// there is at most one for each record.
const MaxBytes = 256 << 20

// ErrFull means that the files have reached their bound.
var ErrFull = errors.New("the files of rejected records are full")

// Record is an acknowledged record that could not become rows.
type Record struct {
	hub.Position
	ReceivedAt time.Time
	RejectedAt time.Time
	Kind       hub.RecordKind
	HostID     string // empty for a record of the hub itself
	CustomerID string
	KeyID      string // never the key
	Reason     string
	Body       []byte // as the spool held it
}

const suffix = ".jsonl"

// Store appends. It is safe for concurrent use; one process writes to a folder.
type Store struct {
	dir  string
	max  int64
	now  func() time.Time
	sync func(*os.File) error

	mu   sync.Mutex // of the files, and of
	full time.Time  // when nothing was found that could go; zero: not since the last mark
}

// lookAgain is how long after nothing could go the files are not read for it again:
// a hub that rejects everything has no time for that.
const lookAgain = time.Minute

// Open makes the folder, for its owner alone, and returns its store.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, max: MaxBytes, now: time.Now, sync: (*os.File).Sync}
	err := os.Mkdir(dir, 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = s.syncDir(filepath.Dir(dir))
	}
	if err == nil {
		_, err = files(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("rejected records: %w", err)
	}
	return s, nil
}

// Append keeps records: when it returns nil they are on disk. After an error none
// of them counts as kept; the store can be used on.
func (s *Store) Append(records ...Record) error {
	var text []byte
	for _, r := range records {
		line, err := encode(lineOf(r))
		if err != nil {
			return fmt.Errorf("rejected records: %w", err)
		}
		text = append(text, line...)
	}
	return s.append(text, true)
}

// MarkReplayed notes, durably, that records have become rows.
func (s *Store) MarkReplayed(positions ...hub.Position) error {
	var text []byte
	for _, p := range positions {
		mark, err := encode(line{SpoolID: p.SpoolID.String(), Seq: p.Seq, ReplayedAt: s.now().UTC()})
		if err != nil {
			return fmt.Errorf("rejected records: %w", err)
		}
		text = append(text, mark...)
	}
	return s.append(text, false)
}

// append opens the file anew each time: it is seldom called, and whoever moves
// files away need not tell the hub.
func (s *Store) append(text []byte, bounded bool) error {
	if len(text) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name, err := s.newest()
	switch {
	case err == nil && bounded:
		err = s.makeRoom(name, int64(len(text)))
	case err == nil:
		s.full = time.Time{}
	}
	if err == nil {
		err = s.write(name, text)
	}
	if err != nil {
		return fmt.Errorf("rejected records: %w", err)
	}
	return nil
}

// newest returns the name of today's file, or of the newest where the clock went
// back.
func (s *Store) newest() (string, error) {
	name := s.now().UTC().Format(time.DateOnly) + suffix
	names, err := files(s.dir)
	if len(names) > 0 {
		name = max(name, names[len(names)-1])
	}
	return name, err
}

// write appends to a file. What a failed write or sync leaves is cut off: at once
// if it can be, else by the next write.
func (s *Store) write(name string, text []byte) (err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := repair(f)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(text, end); err == nil {
		err = errors.Join(s.sync(f), s.syncDir(s.dir)) // the commit point; the file may be new
	}
	if err != nil {
		return errors.Join(err, f.Truncate(end))
	}
	return nil
}

// repair cuts off what stands behind the last whole line and returns the size.
func repair(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end, err := lastLineEnd(f, info.Size())
	if err != nil || end == info.Size() {
		return end, err
	}
	return end, f.Truncate(end)
}

// lastLineEnd returns the offset behind the last line feed.
func lastLineEnd(r io.ReaderAt, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(block)))
		b := block[:end-start]
		if _, err := r.ReadAt(b, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// makeRoom removes the oldest files as far as all of their records were replayed,
// until size more bytes fit. The file that is written to stays.
func (s *Store) makeRoom(writing string, size int64) error {
	names, err := files(s.dir)
	if err != nil {
		return err
	}
	sizes, total := make([]int64, len(names)), size
	for i, name := range names {
		info, err := os.Stat(filepath.Join(s.dir, name))
		if err != nil {
			return err
		}
		sizes[i] = info.Size()
		total += info.Size()
	}
	if total <= s.max {
		return nil
	}
	errFull := fmt.Errorf("%w: %s has %d MiB; replay or export what is in it (hub spool), then move its files away", ErrFull, s.dir, s.max>>20)
	if !s.full.IsZero() && time.Since(s.full) < lookAgain {
		return errFull
	}
	needed, err := s.needed()
	if err != nil {
		return err
	}
	for i, name := range names {
		if total <= s.max || name == writing || needed[name] {
			break // later files have the marks of this one's records
		}
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			return err
		}
		total -= sizes[i]
	}
	if total > s.max {
		s.full = time.Now()
		return errFull
	}
	return nil
}

// needed names the files with something that was not replayed.
func (s *Store) needed() (map[string]bool, error) {
	kept, err := Read(s.dir)
	needed := map[string]bool{}
	for _, e := range kept.Entries {
		if e.ReplayedAt.IsZero() {
			needed[e.file] = true
		}
	}
	for _, d := range kept.Damage {
		needed[d.File] = true
	}
	return needed, err
}

// syncDir makes what was made in a folder durable.
func (s *Store) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.sync(f), f.Close())
}

// files names the files of a folder, oldest first; what else lies there is not
// ours.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		day, ok := strings.CutSuffix(e.Name(), suffix)
		if _, err := time.Parse(time.DateOnly, day); ok && err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// MarshalJSON writes the record as a line of the files has it, without the
// checksum.
func (r Record) MarshalJSON() ([]byte, error) { return json.Marshal(lineOf(r)) }

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Record) UnmarshalJSON(text []byte) error {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	var err error
	*r, err = l.record()
	return err
}
