package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// The header of a volume. Its first 16 bytes mean the same in every format
// version, with a checksum of their own, so that an older hub knows a newer
// volume from a damaged one.
//
//	 0  magic       8
//	 8  version     4
//	12  CRC32C      4   of bytes 0–11
//	16  ordinal     8
//	24  spool id   16
//	40  created_at  8   milliseconds since 1970
//	48  first seq   8
//	56  previous   40   ordinal, synced, length and spool id of the volume before it, or zeros
//	96  zeros      28
//	124 CRC32C      4   of bytes 0–123
const (
	volumeMagic   = "FelhomSP"
	formatVersion = 1
	prefixLen     = 16
	headerLen     = 128

	volumeSuffix = ".vol"
)

// bound says where a volume ends that was followed by another. Frames that
// were written behind length, by a group whose write or fsync failed, were
// never acknowledged; those behind synced may be torn. The id keeps it from
// being said of another volume that was put in that one's place.
type bound struct {
	ordinal        uint64
	synced, length int64
	id             hub.SpoolID // zero: not known
}

type header struct {
	ordinal uint64
	id      hub.SpoolID
	created int64 // milliseconds
	first   uint64
	prev    bound
}

func (h header) encode() []byte {
	b := appendPrefix(make([]byte, 0, headerLen), volumeMagic)
	b = binary.LittleEndian.AppendUint64(b, h.ordinal)
	b = append(b, h.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created))
	b = binary.LittleEndian.AppendUint64(b, h.first)
	b = binary.LittleEndian.AppendUint64(b, h.prev.ordinal)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.prev.synced))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.prev.length))
	b = append(b, h.prev.id[:]...)
	b = b[:headerLen-4]
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errDamaged means that a checksum is wrong.
var errDamaged = errors.New("damaged: the checksum is wrong")

// ErrNewer means that a newer hub wrote this spool. Nothing in it was changed.
var ErrNewer = errors.New("written by a newer hub: install that one again, or start with an empty data_dir")

// decodeHeader reads a header. It returns ErrNewer for a format version above
// ours, and errDamaged.
func decodeHeader(b []byte) (h header, err error) {
	if err := checkPrefix(b, volumeMagic); err != nil {
		return h, err
	}
	const body = headerLen - 4
	if len(b) < headerLen || binary.LittleEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], castagnoli) {
		return h, errDamaged
	}
	return header{
		ordinal: binary.LittleEndian.Uint64(b[16:]),
		id:      hub.SpoolID(b[24:40]),
		created: int64(binary.LittleEndian.Uint64(b[40:])),
		first:   binary.LittleEndian.Uint64(b[48:]),
		prev: bound{
			ordinal: binary.LittleEndian.Uint64(b[56:]),
			synced:  int64(binary.LittleEndian.Uint64(b[64:])),
			length:  int64(binary.LittleEndian.Uint64(b[72:])),
			id:      hub.SpoolID(b[80:96]),
		},
	}, nil
}

// appendPrefix appends magic, which has 8 bytes, our format version and their
// checksum.
func appendPrefix(b []byte, magic string) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func checkPrefix(b []byte, magic string) error {
	if len(b) < prefixLen || string(b[:8]) != magic ||
		binary.LittleEndian.Uint32(b[12:]) != crc32.Checksum(b[:12], castagnoli) {
		return errDamaged
	}
	if binary.LittleEndian.Uint32(b[8:]) > formatVersion {
		return ErrNewer
	}
	return nil
}

// Damage names a range of a volume whose records cannot be read. From and To
// are bytes from the volume's beginning.
type Damage struct {
	Volume   uint64
	From, To int64
}

// String returns "000000000007.vol: bytes 128–4096".
func (d Damage) String() string {
	return fmt.Sprintf("%s: bytes %d–%d", volumeName(d.Volume), d.From, d.To)
}

func volumeName(ordinal uint64) string { return fmt.Sprintf("%012d%s", ordinal, volumeSuffix) }

func parseVolumeName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, volumeSuffix)
	ordinal, err := strconv.ParseUint(digits, 10, 64)
	return ordinal, ok && err == nil && name == volumeName(ordinal)
}

// volume is what the spool knows of one file; Spool.mu guards it.
type volume struct {
	header
	length  int64     // readers stop here: all before it is durable
	synced  int64     // what is unreadable before this is damage, behind it was torn by a crash
	next    uint64    // the seq after its last record
	lost    []seqs    // sequence numbers missing between its records
	torn    []span    // what a crash left unfinished
	size    int64     // bytes it takes on the disk
	active  bool      // the committer writes to it
	shipped time.Time // since when all of it is before the cursor, as far as this process saw
}

// seqs is the range from ≤ seq < to.
type seqs struct{ from, to uint64 }

// since returns how many of the range are seq or later.
func (r seqs) since(seq uint64) int64 {
	if from := max(r.from, seq); from < r.to {
		return int64(r.to - from)
	}
	return 0
}

// recordsSince returns how many readable records behind c the volume holds.
func (v *volume) recordsSince(c Cursor) int64 {
	seq := c.in(v.ordinal)
	n := seqs{v.first, v.next}.since(seq)
	for _, l := range v.lost {
		n -= l.since(seq)
	}
	return max(0, n)
}

// bound is what the header of the next volume says of this one.
func (v *volume) bound() bound { return bound{v.ordinal, v.synced, v.length, v.id} }
