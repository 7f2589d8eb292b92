package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"strings"

	"felhom.eu/hub/internal/hub"
)

// A state file is a prefix as that of a volume, the CRC32C of the data (4),
// and the data. It is replaced as a whole: written aside, synced, renamed,
// and the folder synced.
const (
	stateMagic     = "FelhomST"
	stateHeaderLen = prefixLen + 4
	stateSuffix    = ".state"
	tempSuffix     = ".tmp"
	cursorName     = "cursor"
	cursorLen      = 24

	// ballastName is a file that only takes up space: it is given back when a
	// state file must be written to a full disk.
	ballastName = "ballast"
	ballastSize = 4 << 20
)

// ErrStateDamaged means that a state file is there but cannot be read.
var ErrStateDamaged = errors.New("the state file is damaged")

// ErrOtherCursor means that the cursor was kept of other volumes than are there.
var ErrOtherCursor = errors.New("the cursor is that of other volumes")

// ReadState returns what WriteState last kept under this name. The error is
// fs.ErrNotExist where that never happened, ErrStateDamaged where it is
// unreadable, ErrNewer where a newer hub wrote it. Whoever keeps a state must
// be able to do without it.
func (s *Spool) ReadState(name string) ([]byte, error) {
	return readState(s.fs, name)
}

// ReadStateIn is ReadState of a spool that is not open: for states that must be known
// before its records are read.
func ReadStateIn(dir, name string) ([]byte, error) { return readState(Folder(dir), name) }

func readState(fsys FS, name string) ([]byte, error) {
	f, err := fsys.Open(name + stateSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStateDamaged, name, err)
	}
	switch err := checkPrefix(b, stateMagic); {
	case errors.Is(err, ErrNewer):
		return nil, fmt.Errorf("state %s: %w", name, err)
	case err != nil || len(b) < stateHeaderLen,
		binary.LittleEndian.Uint32(b[prefixLen:]) != crc32.Checksum(b[stateHeaderLen:], castagnoli):
		return nil, fmt.Errorf("%w: %s", ErrStateDamaged, name)
	}
	return b[stateHeaderLen:], nil
}

// WriteState keeps data under a name of lowercase letters, durably, in place
// of what was kept before: after a crash it is one or the other. On a full
// disk it gives the ballast back and tries once more.
func (s *Spool) WriteState(name string, data []byte) error {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") != "" || name == cursorName {
		return fmt.Errorf("%q is no name for a state of the spool: lowercase letters, not %q", name, cursorName)
	}
	return s.writeState(name, data)
}

func (s *Spool) writeState(name string, data []byte) error {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	err := replaceState(s.fs, name, data)
	if noSpace(err) && s.fs.Remove(ballastName) == nil {
		s.log.Warn("the disk is full: the spool's ballast was given back", "state", name)
		err = replaceState(s.fs, name, data)
	}
	if err != nil {
		return fmt.Errorf("keep the spool's state %s: %w", name, err)
	}
	return nil
}

func replaceState(fsys FS, name string, data []byte) error {
	b := appendPrefix(make([]byte, 0, stateHeaderLen+len(data)), stateMagic)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
	b = append(b, data...)

	temp := name + stateSuffix + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = fsys.Remove(temp)
		return err
	}
	if err := fsys.Rename(temp, name+stateSuffix); err != nil {
		return err
	}
	return fsys.SyncDir()
}

// keepBallast makes the ballast anew when it is gone and there is room.
func (s *Spool) keepBallast(free int64) error {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	if free < 2*s.opts.VolumeBytes {
		return nil
	}
	f, err := s.fs.Create(ballastName)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = errors.Join(f.Allocate(min(ballastSize, s.opts.VolumeBytes)), f.Close())
	if err != nil {
		_ = s.fs.Remove(ballastName)
	}
	return err
}

// Cursor is a place between two records; all before it is shipped. The zero
// Cursor is the very beginning. Volume and Seq decide which records come after
// it, Offset says where to look.
type Cursor struct {
	Volume uint64 // ordinal of the file
	Offset int64  // of a frame in it
	Seq    uint64 // of the next record
}

// before reports whether c is an earlier place than d.
func (c Cursor) before(d Cursor) bool {
	return cmp.Or(cmp.Compare(c.Volume, d.Volume), cmp.Compare(c.Seq, d.Seq), cmp.Compare(c.Offset, d.Offset)) < 0
}

// in returns the first seq of a volume that lies behind c. Sequence numbers of
// two volumes are not compared: after damage to the end of one they may overlap.
func (c Cursor) in(volume uint64) uint64 {
	switch {
	case volume < c.Volume:
		return math.MaxUint64
	case volume == c.Volume:
		return c.Seq
	}
	return 0
}

func (c Cursor) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, c.Volume)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Offset))
	return binary.LittleEndian.AppendUint64(b, c.Seq)
}

// readCursor returns the cursor kept on disk and the id of its volume, zero
// where an older hub kept it. Without a cursor everything kept is read again,
// and whoever ships asks what is there.
func readCursor(fsys FS) (c Cursor, id hub.SpoolID, err error) {
	b, err := readState(fsys, cursorName)
	switch {
	case err != nil:
		return c, id, err
	case len(b) == cursorLen+len(id):
		id = hub.SpoolID(b[cursorLen:])
	case len(b) != cursorLen:
		return c, id, ErrStateDamaged
	}
	return Cursor{
		Volume: binary.LittleEndian.Uint64(b),
		Offset: int64(binary.LittleEndian.Uint64(b[8:])),
		Seq:    binary.LittleEndian.Uint64(b[16:]),
	}, id, nil
}
