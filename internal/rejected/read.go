package rejected

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"felhom.eu/hub/internal/hub"
)

// line is one line of a file: a record, or a mark, which has ReplayedAt.
type line struct {
	SpoolID    string         `json:"spool_id"`
	Seq        uint64         `json:"spool_seq"`
	ReceivedAt time.Time      `json:"received_at,omitzero"`
	RejectedAt time.Time      `json:"rejected_at,omitzero"`
	Kind       hub.RecordKind `json:"kind,omitempty"`
	CustomerID string         `json:"customer_id,omitempty"`
	HostID     string         `json:"host_id,omitempty"`
	KeyID      string         `json:"key_id,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Body       []byte         `json:"body,omitempty"`
	ReplayedAt time.Time      `json:"replayed_at,omitzero"`
}

func lineOf(r Record) line {
	return line{SpoolID: r.SpoolID.String(), Seq: r.Seq, ReceivedAt: r.ReceivedAt.UTC(), RejectedAt: r.RejectedAt.UTC(),
		Kind: r.Kind, CustomerID: r.CustomerID, HostID: r.HostID, KeyID: r.KeyID, Reason: r.Reason, Body: r.Body}
}

func (l line) record() (Record, error) {
	id, err := hub.ParseSpoolID(l.SpoolID)
	return Record{Position: hub.Position{SpoolID: id, Seq: l.Seq}, ReceivedAt: l.ReceivedAt, RejectedAt: l.RejectedAt,
		Kind: l.Kind, CustomerID: l.CustomerID, HostID: l.HostID, KeyID: l.KeyID, Reason: l.Reason, Body: l.Body}, err
}

// A line ends with its checksum, as its last member: eight hex digits of the
// CRC32C of the object without it.
const (
	sumOpen = `,"sum":"`
	sumLen  = len(sumOpen) + 8 + len(`"}`)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encode(l line) ([]byte, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(text[:len(text)-1:len(text)-1], "%s%08x\"}\n", sumOpen, crc32.Checksum(text, castagnoli)), nil
}

var errSum = errors.New("the line is not as it was written: its checksum differs")

// decode reads a line, without its line feed.
func decode(text []byte) (l line, err error) {
	cut := len(text) - sumLen
	if cut < 1 || !bytes.HasPrefix(text[cut:], []byte(sumOpen)) {
		return l, errSum
	}
	object := append(text[:cut:cut], '}')
	if fmt.Sprintf("%08x\"}", crc32.Checksum(object, castagnoli)) != string(text[cut+len(sumOpen):]) {
		return l, errSum
	}
	return l, json.Unmarshal(object, &l)
}

// Entry is a record as the files have it. Its Body is nil: Load reads it.
type Entry struct {
	Record
	Bytes      int       // length of the body
	ReplayedAt time.Time // zero: it was not

	dir, file string
	offset    int64
	length    int
}

// Load reads the record whole.
func (e Entry) Load() (Record, error) {
	text := make([]byte, e.length)
	f, err := os.Open(filepath.Join(e.dir, e.file))
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	if _, err := f.ReadAt(text, e.offset); err != nil {
		return Record{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	l, err := decode(text)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return l.record()
}

// Damage is a line that cannot be read.
type Damage struct {
	File string
	Line int // from 1
	Err  error
}

func (d Damage) String() string { return fmt.Sprintf("%s:%d: %v", d.File, d.Line, d.Err) }

// Contents is what the files hold.
type Contents struct {
	Entries []Entry // each position once, in the order in which they were first rejected
	Damage  []Damage
}

// Read reads the files of a folder, also beside a hub that writes to them. A
// folder that is not there holds nothing. Damage costs the lines it hit.
func Read(dir string) (Contents, error) {
	names, err := files(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Contents{}, nil
	}
	r := reader{dir: dir, at: map[hub.Position]int{}}
	for _, name := range names {
		if err == nil {
			err = r.file(name)
		}
	}
	if err != nil {
		return Contents{}, fmt.Errorf("rejected records: %w", err)
	}
	return r.Contents, nil
}

type reader struct {
	Contents
	dir string
	at  map[hub.Position]int // of Entries
}

func (r *reader) file(name string) error {
	f, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	var offset int64
	for n := 1; ; n++ {
		text, err := in.ReadBytes('\n')
		if err == io.EOF { // what stands behind the last line feed is torn
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.line(name, offset, text[:len(text)-1]); err != nil {
			r.Damage = append(r.Damage, Damage{File: name, Line: n, Err: err})
		}
		offset += int64(len(text))
	}
}

func (r *reader) line(name string, offset int64, text []byte) error {
	l, err := decode(text)
	if err != nil {
		return err
	}
	record, err := l.record()
	if err != nil {
		return err
	}
	i, known := r.at[record.Position]
	if !l.ReplayedAt.IsZero() {
		if known { // else its record's file was moved away
			r.Entries[i].ReplayedAt = l.ReplayedAt
		}
		return nil
	}
	record.Body = nil
	e := Entry{Record: record, Bytes: len(l.Body), dir: r.dir, file: name, offset: offset, length: len(text)}
	if known {
		r.Entries[i] = e
		return nil
	}
	r.at[record.Position] = len(r.Entries)
	r.Entries = append(r.Entries, e)
	return nil
}
