package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"felhom.eu/hub/internal/hub"
)

// found is a volume as it lies in the folder at start.
type found struct {
	header      // only the ordinal, and the id if it can be read, where intact is false
	intact bool // the header is, and its ordinal is that of the name
	size   int64
}

// is reports whether the volume may be the one that had this id; an id of
// zero is not known.
func (f found) is(id hub.SpoolID) bool {
	return f.id == id || f.id == hub.SpoolID{} || id == hub.SpoolID{}
}

// recover reads the whole folder: it sets everything in s that comes from
// disk. It changes nothing before it knows that no newer hub wrote here.
func (s *Spool) recover() error {
	volumes, err := s.inspect()
	if err != nil {
		return err
	}
	cursor, id, err := readCursor(s.fs)
	switch {
	case errors.Is(err, ErrNewer):
		return err
	case err != nil && !(errors.Is(err, fs.ErrNotExist) && len(volumes) == 0):
		s.log.Warn("the spool has no cursor: all that is kept will be read again", "error", err)
	case err == nil && !believable(cursor, id, volumes):
		err = ErrOtherCursor
		s.log.Error("the spool's cursor is not that of these volumes: all that is kept will be read again", "cursor", cursor)
	}
	if s.cursorErr = err; err == nil {
		s.cursor = cursor
	}
	s.committer.ordinal, s.committer.nextSeq = cursor.Volume, max(1, cursor.Seq)
	for i, f := range volumes {
		if err := s.recoverVolume(f, endOf(f, volumes[i+1:])); err != nil {
			return err
		}
		if f.intact {
			s.findMissing(f, volumes, s.cursorErr == nil)
		}
	}
	s.inherited = s.committer.ordinal
	s.markShipped()
	return nil
}

// believable reports whether the cursor belongs to these volumes: its volume
// is there, or no older one is, for the oldest go first. Otherwise one of the
// two was restored or copied from elsewhere, and volumes that lie before the
// cursor may never have been shipped.
func believable(c Cursor, id hub.SpoolID, volumes []found) bool {
	for _, v := range volumes {
		if v.ordinal == c.Volume {
			return v.is(id)
		}
	}
	return len(volumes) == 0 || volumes[0].ordinal > c.Volume
}

// inspect reads the headers of all volumes, in the order of ordinals.
func (s *Spool) inspect() ([]found, error) {
	names, err := s.fs.List()
	if err != nil {
		return nil, err
	}
	var volumes []found
	for _, name := range names {
		ordinal, ok := parseVolumeName(name)
		if !ok {
			continue
		}
		f, err := s.inspectVolume(ordinal)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		volumes = append(volumes, f)
	}
	slices.SortFunc(volumes, func(a, b found) int { return cmp.Compare(a.ordinal, b.ordinal) })
	return volumes, nil
}

func (s *Spool) inspectVolume(ordinal uint64) (found, error) {
	file, err := s.fs.Open(volumeName(ordinal))
	if err != nil {
		return found{}, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return found{}, err
	}
	b := make([]byte, headerLen)
	n, _ := file.ReadAt(b, 0) // what cannot be read is a damaged header
	h, err := decodeHeader(b[:n])
	if errors.Is(err, ErrNewer) {
		return found{}, err
	}
	if err != nil || h.ordinal != ordinal {
		return found{header: header{ordinal: ordinal, id: h.id}, size: size}, nil
	}
	return found{header: h, intact: true, size: size}, nil
}

// endOf returns what the volume after f says about the end of f, or nil.
func endOf(f found, later []found) *bound {
	for _, n := range later {
		if n.intact && n.prev.ordinal == f.ordinal && f.is(n.prev.id) {
			return &n.prev
		}
	}
	return nil
}

// recoverVolume reads one volume to its end and adds it to s.volumes.
func (s *Spool) recoverVolume(f found, end *bound) error {
	name := volumeName(f.ordinal)
	file, err := s.fs.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()

	sc := scanner{file: file, volume: f.ordinal, id: f.id, pos: headerLen, limit: f.size, reuse: true}
	if end != nil {
		sc.limit, sc.id = min(sc.limit, end.length), cmp.Or(f.id, end.id)
	}
	v := &volume{header: f.header, length: headerLen, synced: headerLen, next: f.first, size: f.size}
	bad, tail := s.scan(&sc, v, f.intact)
	switch {
	case sc.unreadable: // no crash does that, and the disk may be mended
		v.length, v.synced = sc.limit, sc.limit
	case end != nil:
		v.synced = end.synced
		tail.to = max(tail.to, end.length) // the file may be shorter than it was
	default: // nobody says where it ends: zeros are space never used
		tail.to = lastNonZero(file, tail)
	}

	s.committer.ordinal = max(s.committer.ordinal, f.ordinal)
	if !f.intact && v.first == v.next && tail.empty() {
		s.log.Info("a volume of the spool was never begun, nothing is in it: removed", "volume", name, "error", s.fs.Remove(name))
		return nil
	}
	if !f.intact {
		v.id = sc.id
		bad = append(bad, span{0, headerLen})
	}
	if !tail.empty() {
		bad = append(bad, tail)
	}
	s.judge(v, bad)
	s.trim(v, max(v.length, tail.to))
	s.committer.nextSeq = max(s.committer.nextSeq, v.first, v.next)
	s.lastAt = max(s.lastAt, v.created)
	s.volumes = append(s.volumes, v)
	return nil
}

// trim gives back what the volume takes up behind its last byte.
func (s *Spool) trim(v *volume, length int64) {
	if v.size <= length {
		return
	}
	name := volumeName(v.ordinal)
	if err := s.fs.Truncate(name, length); err != nil {
		s.log.Warn("space of the spool that is not used could not be given back", "volume", name, "error", err)
		return
	}
	v.size = length
}

// scan reads the frames of v: it sets where the volume and its sequence end,
// and returns the unreadable ranges between frames and the one behind them.
func (s *Spool) scan(sc *scanner, v *volume, intact bool) (bad []span, tail span) {
	if !intact {
		v.first, v.next = s.committer.nextSeq, s.committer.nextSeq
	}
	for seen := false; ; seen = true {
		f, gap, ok := sc.next()
		if !ok {
			return bad, gap
		}
		if !gap.empty() {
			bad = append(bad, gap)
		}
		if !intact && !seen {
			v.first, v.next = f.seq, f.seq
		}
		if f.seq < v.next { // it was read already, or never this volume's: readers pass it over
			bad = append(bad, span{f.offset, sc.pos})
			continue
		}
		if f.seq > v.next {
			v.lost = append(v.lost, seqs{v.next, f.seq})
		}
		v.length, v.synced, v.next = sc.pos, f.synced, f.seq+uint64(f.count)
		s.lastAt = max(s.lastAt, f.at)
		if s.oldest == 0 && v.next > s.cursor.in(v.ordinal) {
			s.oldest = f.at
		}
		for s.opts.Recovered != nil && f.count > 0 {
			s.opts.Recovered(f.next())
		}
	}
}

// judge tells damage from what a crash tore: what was never known to be synced
// and is no longer than a group was never acknowledged.
func (s *Spool) judge(v *volume, bad []span) {
	for _, b := range bad {
		d := Damage{Volume: v.ordinal, From: b.from, To: b.to}
		if b.from >= v.synced && b.to-b.from <= maxGroup+frameHeaderLen+MaxAppend {
			v.torn = append(v.torn, b)
			s.log.Warn("the spool ends in a write that was not finished: nothing acknowledged is in it", "range", d.String())
			continue
		}
		s.addDamage(d)
	}
}

// lastNonZero returns the end of the last byte in the range that is not zero,
// or its beginning.
func lastNonZero(file io.ReaderAt, r span) int64 {
	b := make([]byte, min(readSize, r.to-r.from))
	for to := r.to; to > r.from; to = max(r.from, to-readSize) {
		from := max(r.from, to-readSize)
		n, _ := file.ReadAt(b[:to-from], from)
		if used := len(bytes.TrimRight(b[:n], "\x00")); used > 0 {
			return from + int64(used)
		}
	}
	return r.from
}

// findMissing raises the alarm when the volume before f is gone although not
// all of it was shipped. Without a cursor that is sure only if an older volume
// is still here: the oldest go first.
func (s *Spool) findMissing(f found, volumes []found, known bool) {
	p := f.prev
	_, here := slices.BinarySearchFunc(volumes, p.ordinal, func(v found, o uint64) int { return cmp.Compare(v.ordinal, o) })
	if here || p.length <= headerLen {
		return
	}
	shipped := s.cursor.Volume > p.ordinal || s.cursor.Volume == p.ordinal && s.cursor.Offset >= p.length
	if known && shipped || !known && volumes[0].ordinal > p.ordinal {
		return
	}
	s.addDamage(Damage{Volume: p.ordinal, To: p.length})
}
