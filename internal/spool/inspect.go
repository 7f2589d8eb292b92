package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Inspection is what Inspect found in a spool.
type Inspection struct {
	Volumes []VolumeInfo // in the order of ordinals
	Damage  []Loss
	Torn    []Damage // writes that were not finished: nothing acknowledged is in them
	Cursor  Cursor
	// CursorErr says why there is no cursor: fs.ErrNotExist, ErrStateDamaged,
	// ErrOtherCursor.
	// What is shipped is not known then.
	CursorErr error
	States    map[string]State // but the cursor, by name
}

// State is a state file: what is in it, or why that cannot be read.
type State struct {
	Data []byte
	Err  error
}

// VolumeInfo describes one volume.
type VolumeInfo struct {
	Ordinal         uint64
	ID              hub.SpoolID
	Created         time.Time // zero: the header is damaged
	Records         int64     // that can be read
	Bytes           int64     // up to the end of the last record
	DiskBytes       int64     // of the file, preallocated ones included
	First, Next     uint64    // sequence number of the first record, and the one after the last
	FirstAt, LastAt time.Time // received_at of the first and last record
	Closed          bool      // nothing will be appended
	Shipped         bool      // every record lies before the cursor
	Waiting         int64     // records behind the cursor
}

// Name is the volume's file name.
func (v VolumeInfo) Name() string { return volumeName(v.Ordinal) }

// Name is the file name of the volume that is damaged.
func (d Damage) Name() string { return volumeName(d.Volume) }

// Loss is damage and the sequence numbers that are missing with it: First up to
// Last, none where Last is 0. Some of those at the end of a volume may belong
// to appends that were refused.
type Loss struct {
	Damage
	First, Last uint64
}

// ErrNoSpool means that the folder holds no spool.
var ErrNoSpool = errors.New("no spool is in this folder")

// Folder returns the FS of a folder that is there; it makes none.
func Folder(path string) FS { return dir(path) }

// Inspect reads a whole spool as Open would, but takes no lock and writes
// nothing: also beside a hub that runs, whose newest records it may then find
// before they are acknowledged. each, where not nil, gets every readable record
// in order; the body is valid during the call only. What is behind
// Inspection.Cursor may be shipped meanwhile; what is before it is shipped.
//
// Damage is no error. Errors are ErrNoSpool, ErrNewer, and those of the disk.
func Inspect(fsys FS, each func(Entry)) (Inspection, error) {
	snap, err := takeSnapshot(fsys)
	if err != nil {
		return Inspection{}, fmt.Errorf("read the spool: %w", err)
	}
	defer snap.close()
	in := inspector{each: each, gaps: map[Damage]seqs{}, volumes: map[uint64]VolumeInfo{}}
	s := &Spool{fs: snap, log: slog.New(slog.DiscardHandler), opts: Options{Now: time.Now, Recovered: in.entry}}
	if err := s.recover(); err != nil {
		return Inspection{}, fmt.Errorf("read the spool: %w", err)
	}
	result := Inspection{Cursor: s.cursor, CursorErr: s.cursorErr, States: snap.states}
	for i, v := range s.volumes {
		info := in.describe(v, s)
		info.Closed = info.Closed || i+1 < len(s.volumes)
		result.Volumes = append(result.Volumes, info)
		for _, t := range v.torn {
			result.Torn = append(result.Torn, Damage{Volume: v.ordinal, From: t.from, To: t.to})
		}
	}
	for _, d := range s.damage {
		loss := Loss{Damage: d}
		if m := in.missing(d, s.volumes); m.from < m.to {
			loss.First, loss.Last = m.from, m.to-1
		}
		result.Damage = append(result.Damage, loss)
	}
	return result, nil
}

// inspector notes what recovery passes by.
type inspector struct {
	each    func(Entry)
	last    Entry // without its body
	volumes map[uint64]VolumeInfo
	gaps    map[Damage]seqs // ranges between frames, and the numbers between them
}

func (in *inspector) entry(e Entry) {
	v, seen := in.volumes[e.Start.Volume]
	if !seen {
		v.FirstAt = e.ReceivedAt
		in.last = Entry{End: Cursor{Volume: e.Start.Volume, Offset: headerLen}}
	}
	if from := in.last.End; e.Start.Offset > from.Offset {
		in.gaps[Damage{Volume: e.Start.Volume, From: from.Offset, To: e.Start.Offset}] = seqs{from.Seq, e.Seq}
	}
	v.Records++
	v.LastAt = e.ReceivedAt
	in.volumes[e.Start.Volume] = v
	if in.each != nil {
		in.each(e)
	}
	e.Body = nil
	in.last = e
}

func (in *inspector) describe(v *volume, s *Spool) VolumeInfo {
	info := in.volumes[v.ordinal]
	info.Ordinal, info.ID = v.ordinal, v.id
	if v.created != 0 {
		info.Created = time.UnixMilli(v.created).UTC()
	}
	info.Bytes, info.DiskBytes = v.length, v.size
	info.First, info.Next = v.first, v.next
	info.Closed = v.size == v.length
	info.Shipped = v.next <= s.cursor.in(v.ordinal)
	info.Waiting = v.recordsSince(s.cursor)
	return info
}

// missing returns the sequence numbers that went with d.
func (in *inspector) missing(d Damage, volumes []*volume) seqs {
	i, here := slices.BinarySearchFunc(volumes, d.Volume, byOrdinal)
	m, between := in.gaps[d]
	switch {
	case between && m.from != 0:
		return m
	case between: // before the first frame
		if volumes[i].created != 0 {
			m.from = volumes[i].first
		} else {
			m.from = endBefore(volumes, i, m.to)
		}
		return m
	case here && d.From < volumes[i].length: // the header
		return seqs{}
	case here:
		m.from = volumes[i].next
		i++
	default: // the whole volume is gone
		m.from = endBefore(volumes, i, 0)
	}
	if m.from != 0 && i < len(volumes) {
		m.to = volumes[i].first
	}
	return m
}

// endBefore returns the number after the last of the volume before volumes[i].
func endBefore(volumes []*volume, i int, none uint64) uint64 {
	if i == 0 {
		return none
	}
	return volumes[i-1].next
}

// snapshot is a spool's folder as it was at one instant, for reading: volumes
// that a running hub removes stay, and what it appends is not seen. Otherwise a
// record that is written while it is read would pass for damage.
type snapshot struct {
	fsys   FS
	names  []string
	files  map[string]snapshotFile
	states map[string]State
}

var errReadOnly = errors.New("the spool is only read")

func takeSnapshot(fsys FS) (*snapshot, error) {
	names, err := fsys.List()
	if err != nil {
		return nil, err
	}
	s := &snapshot{fsys: fsys, files: map[string]snapshotFile{}, states: map[string]State{}}
	known := false
	for _, name := range names {
		if _, ok := parseVolumeName(name); ok {
			if err := s.keep(name); err != nil {
				s.close()
				return nil, err
			}
		} else if state, ok := strings.CutSuffix(name, stateSuffix); ok && state != cursorName {
			data, err := readState(fsys, state)
			s.states[state] = State{data, err}
		} else {
			known = known || name == lockName || name == ballastName || name == cursorName+stateSuffix
		}
	}
	if !known && len(s.files) == 0 && len(s.states) == 0 {
		return nil, ErrNoSpool
	}
	s.names = slices.Sorted(maps.Keys(s.files))
	s.freeze()
	return s, nil
}

// keep opens a volume; one that was removed meanwhile was shipped.
func (s *snapshot) keep(name string) error {
	f, err := s.fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	s.files[name] = snapshotFile{File: f, end: size}
	return err
}

// freeze hides what will be written behind the end of the newest volume.
func (s *snapshot) freeze() {
	if len(s.names) == 0 {
		return
	}
	name := s.names[len(s.names)-1]
	f := s.files[name]
	f.end = lastNonZero(f.File, span{0, f.end})
	s.files[name] = f
}

func (s *snapshot) close() {
	for _, f := range s.files {
		_ = f.File.Close()
	}
}

func (s *snapshot) List() ([]string, error) { return s.names, nil }

func (s *snapshot) Open(name string) (File, error) {
	if f, ok := s.files[name]; ok {
		return f, nil
	}
	return s.fsys.Open(name)
}

func (s *snapshot) Lock() (io.Closer, error)     { return nil, errReadOnly }
func (s *snapshot) Create(string) (File, error)  { return nil, errReadOnly }
func (s *snapshot) Truncate(string, int64) error { return errReadOnly }
func (s *snapshot) Rename(string, string) error  { return errReadOnly }
func (s *snapshot) Remove(string) error          { return errReadOnly }
func (s *snapshot) SyncDir() error               { return errReadOnly }
func (s *snapshot) Free() (int64, error)         { return 0, errReadOnly }

// snapshotFile is a volume that reads as zeros behind end.
type snapshotFile struct {
	File
	end int64
}

func (f snapshotFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	if errors.Is(err, io.EOF) { // a running hub gave back what it did not use
		clear(b[n:])
		n, err = len(b), nil
	}
	if behind := f.end - off; behind < int64(n) {
		clear(b[max(0, behind):n])
	}
	return n, err
}

// Close does nothing: the snapshot closes its files.
func (f snapshotFile) Close() error { return nil }

// SeqIn returns the first sequence number of a volume that lies behind c.
func (c Cursor) SeqIn(volume uint64) uint64 { return c.in(volume) }
