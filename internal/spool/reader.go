package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"felhom.eu/hub/internal/hub"
)

const (
	readSize  = 256 << 10 // bytes read at once
	blockSize = 4 << 10   // what an unreadable place costs
)

// scanner walks over the frames of one volume, past whatever is no frame. It
// is the one way in which volumes are read: at start, by the shipper, and
// after damage.
type scanner struct {
	file   io.ReaderAt
	volume uint64
	id     hub.SpoolID // zero: not known, taken from the first frame
	pos    int64       // in the volume
	limit  int64       // nothing is read at or behind it
	reuse  bool        // frames may be overwritten by the next call

	buf        []byte // bytes of the volume; those at pos begin at buf[at]
	at         int
	unreadable bool // the disk failed to return something
}

// span is a range of bytes of a volume.
type span struct{ from, to int64 }

func (s span) empty() bool { return s.from == s.to }

// next returns the next frame and the range that was passed over to find it.
// ok is false at the limit.
func (sc *scanner) next() (f frame, bad span, ok bool) {
	from := sc.pos
	for sc.pos < sc.limit {
		if f, ok = sc.frame(); ok {
			return f, span{from, f.offset}, true
		}
		sc.skip()
	}
	return frame{}, span{from, sc.pos}, false
}

// frame decodes the frame at pos and goes behind it.
func (sc *scanner) frame() (frame, bool) {
	size, ok := frameSize(sc.peek(frameHeaderLen))
	if !ok {
		return frame{}, false
	}
	if !sc.ours(sc.peek(frameHeaderLen)) {
		return frame{}, false
	}
	f, ok := decodeFrame(sc.peek(size))
	if !ok {
		return frame{}, false
	}
	f.volume, f.offset = sc.volume, sc.pos
	sc.id = f.id
	sc.forward(size)
	return f, true
}

// ours keeps bytes inside a record's body from passing for a frame: nobody who
// sends a body knows the volume's id.
func (sc *scanner) ours(header []byte) bool {
	return sc.id == hub.SpoolID{} || sc.id == hub.SpoolID(header[40:frameHeaderLen])
}

// skip goes to the next place at which a frame may begin.
func (sc *scanner) skip() {
	sc.forward(1)
	for sc.pos < sc.limit {
		b := sc.peek(max(len(frameMagic), len(sc.buf)-sc.at))
		if i := bytes.Index(b, []byte(frameMagic)); i >= 0 {
			sc.forward(i)
			return
		}
		if sc.pos+int64(len(b)) == sc.limit {
			sc.forward(len(b))
			return
		}
		sc.forward(len(b) - len(frameMagic) + 1)
	}
}

func (sc *scanner) forward(n int) {
	sc.pos += int64(n)
	sc.at += n
}

// peek returns the n bytes at pos, fewer where the limit is nearer.
func (sc *scanner) peek(n int) []byte {
	n = int(min(int64(n), sc.limit-sc.pos))
	if len(sc.buf)-sc.at < n {
		sc.fill(n)
	}
	return sc.buf[sc.at : sc.at+n]
}

// fill reads ahead, so that at least n bytes from pos are in buf. Without
// reuse it never writes to a byte that a frame may alias.
func (sc *scanner) fill(n int) {
	have := sc.buf[sc.at:]
	if cap(sc.buf)-sc.at < n {
		next := sc.buf[:0]
		if !sc.reuse || cap(next) < n {
			next = make([]byte, 0, max(n, int(min(readSize, sc.limit-sc.pos))))
		}
		sc.buf, sc.at = append(next, have...), 0
	}
	filled := len(sc.buf)
	sc.buf = sc.buf[:min(int64(cap(sc.buf)), int64(sc.at)+sc.limit-sc.pos)]
	sc.read(sc.buf[filled:], sc.pos+int64(filled-sc.at))
}

// read fills b from the file. What cannot be read becomes zeros, which no
// checksum matches, so that a bad sector costs no more than its records.
func (sc *scanner) read(b []byte, off int64) {
	if n, _ := sc.file.ReadAt(b, off); n == len(b) {
		return
	}
	sc.unreadable = true
	for len(b) > 0 {
		block := b[:min(blockSize-int(off%blockSize), len(b))]
		n, _ := sc.file.ReadAt(block, off)
		clear(block[n:])
		b, off = b[len(block):], off+int64(len(block))
	}
}

// Reader reads records in order, only those that are durable. It is not safe
// for concurrent use.
type Reader struct {
	s    *Spool
	at   Cursor
	file File
	sc   scanner
	cur  frame
}

// Reader returns a reader that begins at from; the zero Cursor is the oldest
// record kept. Volumes that are gone are passed over.
func (s *Spool) Reader(from Cursor) *Reader { return &Reader{s: s, at: from} }

// Next returns the next record, and false when there is none yet: take
// [Spool.Changed] before, wait for it, and call again. The body stays valid,
// must not be changed, and keeps up to 256 KiB of memory alive. Damage is
// passed over, counted and logged. An error means that a file could not be
// opened; calling again tries again.
func (r *Reader) Next() (Entry, bool, error) {
	for {
		for r.cur.count > 0 {
			e := r.cur.next()
			if e.Seq < r.at.Seq {
				continue
			}
			r.at = e.End
			return e, true, nil
		}
		if ok, err := r.nextFrame(); !ok {
			return Entry{}, false, err
		}
	}
}

// nextFrame makes the next frame the current one, going to the next volume
// where one ends.
func (r *Reader) nextFrame() (bool, error) {
	for {
		v, last, ok := r.s.view(r.at.Volume)
		if !ok {
			return false, nil
		}
		if r.file == nil || v.ordinal != r.sc.volume {
			if err := r.open(v); err != nil {
				return false, err
			}
		}
		r.sc.limit = max(v.length, r.sc.pos)
		f, bad, ok := r.sc.next()
		if !bad.empty() {
			missing := seqs{r.at.Seq, v.next}
			if ok {
				missing.to = f.seq
			}
			r.s.noteBad(v.ordinal, bad, missing)
		}
		if ok {
			r.cur = f
			return true, nil
		}
		if last {
			return false, nil
		}
		_ = r.Close()
		r.at = Cursor{Volume: v.ordinal + 1}
	}
}

func (r *Reader) open(v volume) error {
	_ = r.Close()
	f, err := r.s.fs.Open(volumeName(v.ordinal))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f = gone{} // all of it reads as damage
	case err != nil:
		return fmt.Errorf("read the spool: %w", err)
	}
	if r.at.Volume != v.ordinal {
		r.at = Cursor{Volume: v.ordinal}
	}
	r.at.Seq = max(r.at.Seq, v.first)
	r.file = f
	r.sc = scanner{file: f, volume: v.ordinal, id: v.id, pos: max(headerLen, r.at.Offset)}
	return nil
}

// Close frees what the reader holds; Next may be called again.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file, r.sc = nil, scanner{}
	return f.Close()
}

// gone stands for the file of a volume that somebody deleted.
type gone struct{ File }

func (gone) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (gone) Close() error                      { return nil }
