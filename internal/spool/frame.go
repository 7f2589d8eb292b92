package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"felhom.eu/hub/internal/hub"
)

// A frame holds the records of one Append and is covered by one checksum: that
// is what makes an Append all or nothing, also after a crash in its middle.
//
//	 0  magic        4
//	 4  payload size 4   bytes after this header
//	 8  CRC32C       4   of the whole frame but these four bytes
//	12  records      4
//	16  seq          8   of the first record; the others count on
//	24  received_at  8   milliseconds since 1970
//	32  synced       8   bytes of the volume that were durable when this was written
//	40  spool id    16   the volume's
//	56  records          kind 1, sizes of host, customer, key id 1 each, size of
//	                     body 4, then the four
//
// All numbers are little endian. The spool id stands in every frame for two
// reasons: a volume whose header is gone still knows the name of its records,
// and bytes inside a body cannot pass for a frame when a damaged range is
// searched. synced tells a group that was torn by a crash (never acknowledged)
// from damage to one that was.
const (
	frameMagic      = "\xffFR1" // no valid UTF-8 text contains 0xff
	frameHeaderLen  = 56
	recordHeaderLen = 8

	// MaxBody is the largest body of one record, in bytes.
	MaxBody = 4<<20 + 64<<10
	// MaxAppend is the largest sum of the sizes of the records of one Append,
	// in bytes; each record takes 8 bytes more than its strings and its body.
	MaxAppend = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC32C of b without the four bytes at hole.
func checksum(b []byte, hole int) uint32 {
	return crc32.Update(crc32.Checksum(b[:hole], castagnoli), castagnoli, b[hole+4:])
}

// appendFrame appends a frame with these records to b; seal completes it.
func appendFrame(b []byte, records []Record) ([]byte, error) {
	start := len(b)
	b = append(b, frameMagic...)
	b = append(b, make([]byte, frameHeaderLen-len(frameMagic))...)
	for i := range records {
		r := &records[i]
		if len(r.Body) > MaxBody {
			return nil, &hub.Error{Code: hub.TooLarge, Reason: "record_too_large",
				Message: fmt.Sprintf("a record of %d bytes is over the spool's limit of %d", len(r.Body), MaxBody)}
		}
		if max(len(r.HostID), len(r.CustomerID), len(r.KeyID)) > math.MaxUint8 {
			return nil, &hub.Error{Code: hub.Invalid, Reason: "identity_too_long",
				Message: "host, customer and key id of a record have at most 255 bytes"}
		}
		b = append(b, byte(r.Kind), byte(len(r.HostID)), byte(len(r.CustomerID)), byte(len(r.KeyID)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Body)))
		b = append(b, r.HostID...)
		b = append(b, r.CustomerID...)
		b = append(b, r.KeyID...)
		b = append(b, r.Body...)
	}
	size := len(b) - start - frameHeaderLen
	if size > MaxAppend {
		return nil, &hub.Error{Code: hub.TooLarge, Reason: "record_too_large",
			Message: fmt.Sprintf("%d records with %d bytes are over the spool's limit of %d for one append", len(records), size, MaxAppend)}
	}
	binary.LittleEndian.PutUint32(b[start+4:], uint32(size))
	binary.LittleEndian.PutUint32(b[start+12:], uint32(len(records)))
	return b, nil
}

// seal fills in what only the committer knows, and the checksum.
func seal(b []byte, seq uint64, at, synced int64, id hub.SpoolID) {
	binary.LittleEndian.PutUint64(b[16:], seq)
	binary.LittleEndian.PutUint64(b[24:], uint64(at))
	binary.LittleEndian.PutUint64(b[32:], uint64(synced))
	copy(b[40:frameHeaderLen], id[:])
	binary.LittleEndian.PutUint32(b[8:], checksum(b, 8))
}

// frame is a frame that was read; payload aliases the reader's buffer.
type frame struct {
	volume  uint64
	offset  int64 // in the volume
	size    int64
	seq     uint64 // of the first record in payload
	count   int    // of the records in payload
	at      int64
	synced  int64
	id      hub.SpoolID
	payload []byte
}

// frameSize returns the size of the frame that begins with this header, and
// whether it can be one at all.
func frameSize(header []byte) (int, bool) {
	if len(header) < frameHeaderLen || string(header[:4]) != frameMagic {
		return 0, false
	}
	size := binary.LittleEndian.Uint32(header[4:])
	count := binary.LittleEndian.Uint32(header[12:])
	if size > MaxAppend || count == 0 || count > size/recordHeaderLen {
		return 0, false
	}
	return frameHeaderLen + int(size), true
}

// decodeFrame reads the frame that b is; ok is false where its checksum or
// its inner sizes are wrong.
func decodeFrame(b []byte) (f frame, ok bool) {
	size, ok := frameSize(b)
	if !ok || size != len(b) || binary.LittleEndian.Uint32(b[8:]) != checksum(b, 8) {
		return frame{}, false
	}
	f = frame{
		size:    int64(size),
		count:   int(binary.LittleEndian.Uint32(b[12:])),
		seq:     binary.LittleEndian.Uint64(b[16:]),
		at:      int64(binary.LittleEndian.Uint64(b[24:])),
		synced:  int64(binary.LittleEndian.Uint64(b[32:])),
		id:      hub.SpoolID(b[40:frameHeaderLen]),
		payload: b[frameHeaderLen:],
	}
	rest := f.payload
	for range f.count {
		n, ok := recordSize(rest)
		if !ok {
			return frame{}, false
		}
		rest = rest[n:]
	}
	return f, len(rest) == 0 && f.seq <= math.MaxUint64-uint64(f.count)
}

// recordSize returns how many bytes of b its first record takes.
func recordSize(b []byte) (int, bool) {
	if len(b) < recordHeaderLen {
		return 0, false
	}
	n := recordHeaderLen + int(b[1]) + int(b[2]) + int(b[3]) + int(binary.LittleEndian.Uint32(b[4:]))
	return n, n <= len(b)
}

// next returns the frame's first record and takes it off the frame; there
// must be one.
func (f *frame) next() Entry {
	b := f.payload
	size, _ := recordSize(b)
	host, customer, key := int(b[1]), int(b[2]), int(b[3])
	body := recordHeaderLen + host + customer + key
	names := string(b[recordHeaderLen:body]) // one allocation for the three

	e := Entry{
		Record: Record{
			Kind:       hub.RecordKind(b[0]),
			HostID:     names[:host],
			CustomerID: names[host : host+customer],
			KeyID:      names[host+customer:],
			Body:       b[body:size:size],
		},
		Receipt: hub.Receipt{
			Position:   hub.Position{SpoolID: f.id, Seq: f.seq},
			ReceivedAt: time.UnixMilli(f.at).UTC(),
		},
		Start: Cursor{Volume: f.volume, Offset: f.offset, Seq: f.seq},
	}
	f.payload, f.count, f.seq = b[size:], f.count-1, f.seq+1
	e.End = Cursor{Volume: f.volume, Offset: f.offset, Seq: f.seq}
	if f.count == 0 {
		e.End.Offset += f.size
	}
	return e
}
