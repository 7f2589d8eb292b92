package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"felhom.eu/hub/internal/hub"
)

const (
	maxGroup       = 8 << 20  // bytes of frames written and synced at once, more only for one large frame
	maxQueued      = 64 << 20 // bytes of frames that may wait for the disk
	maxPooledFrame = 64 << 10 // larger buffers are not kept for the next Append
	tendInterval   = time.Second
	clockStep      = 30 * time.Second // a step back of the clock that is worth a line in the log

	// A sync costs the processor as much as a dozen reports (m: 130 µs), so while
	// so many come that crowd of them meet in one group, the next group gathers
	// until it is as large, and at most for gatherTime: a fifth less processor time
	// for each, and nobody waits once those are back who were in the last group.
	crowd      = 8
	gatherTime = 2 * time.Millisecond
)

// request is one Append on its way through the committer.
type request struct {
	frame []byte
	count int
	done  chan struct{} // gets one value when first and err are set
	first hub.Receipt
	err   error
}

func (r *request) encode(records []Record) error {
	frame, err := appendFrame(r.frame[:0], records)
	if err != nil {
		return err
	}
	r.frame, r.count, r.err = frame, len(records), nil
	return nil
}

// enqueue hands r to the committer.
func (s *Spool) enqueue(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return &hub.Error{Code: hub.Unavailable, Reason: "stopping", Retry: time.Second, Message: "the hub is stopping"}
	case s.queued > maxQueued:
		return &hub.Error{Code: hub.Unavailable, Reason: "spool_busy", Retry: time.Second,
			Message: "the hub's disk is too slow for what arrives", Hint: "look at the disk that holds data_dir/spool"}
	}
	s.queue = append(s.queue, r)
	s.queued += int64(len(r.frame))
	if len(s.queue) == 1 {
		signal(s.wake)
	}
	if len(s.queue) == s.awaited {
		signal(s.gathered)
	}
	return nil
}

// signal wakes whoever listens on c, a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// committer is what belongs to the goroutine of commitLoop alone.
type committer struct {
	volume  *volume // the active one, or nil
	file    File    // of volume
	nextSeq uint64
	ordinal uint64 // last one used
	buf     []byte
	group   []*request

	refusal *hub.Error // why there is no volume; nil while all is well
	failed  bool       // something failed since the last commit
	pause   bool       // it failed again, or no volume could be opened: try only so often
	tried   time.Time  // when a volume was last to be opened
	behind  bool       // the clock is behind lastAt, and the log says so
}

func (s *Spool) commitLoop() {
	tick := time.NewTicker(s.opts.tend)
	defer tick.Stop()
	for {
		select {
		case <-s.wake:
			for s.takeGroup() {
				s.commitGroup()
				if size := len(s.committer.group); size >= crowd {
					s.gather(size)
				}
			}
		case <-tick.C:
			s.tend()
		case <-s.stop:
			for s.takeGroup() {
				s.commitGroup()
			}
			s.closeVolume()
			return
		}
	}
}

// gather waits until size requests are in the queue, but not for long.
func (s *Spool) gather(size int) {
	if !s.await(size) {
		timer := time.NewTimer(gatherTime)
		defer timer.Stop()
		select {
		case <-s.gathered:
		case <-timer.C:
		case <-s.stop:
		}
	}
	s.await(0)
}

// await makes enqueue signal gathered when the queue has grown to size, which it
// reports whether it has by now; 0 takes that back.
func (s *Spool) await(size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited = size
	select {
	case <-s.gathered: // it came late for the group before
	default:
	}
	return len(s.queue) >= size
}

// takeGroup moves waiting requests, at most maxGroup bytes, into the
// committer's group. While one group is on its way to the disk the next one
// gathers: no timer is needed.
func (s *Spool) takeGroup() bool {
	c := &s.committer
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < len(s.queue) && (n == 0 || size+len(s.queue[n].frame) <= maxGroup) {
		size += len(s.queue[n].frame)
		n++
	}
	c.group = append(c.group[:0], s.queue[:n]...)
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	s.queued -= int64(size)
	return n > 0
}

// commitGroup writes the group and replies to its requests.
func (s *Spool) commitGroup() {
	c := &s.committer
	size, count := 0, 0
	for _, r := range c.group {
		size += len(r.frame)
		count += r.count
	}
	at := s.beginWrite()
	err := s.writeGroup(at, int64(size))
	// On success this is the commit point: the records are on the disk and
	// readers see them; only then the callers get their receipts.
	s.endWrite(at, int64(size), err)
	first := c.nextSeq - uint64(count)
	for i, r := range c.group {
		c.group[i] = nil // once done is sent, r is the caller's
		if r.err = err; err == nil {
			r.first = hub.Receipt{
				Position:   hub.Position{SpoolID: c.volume.id, Seq: first},
				ReceivedAt: time.UnixMilli(at).UTC(),
			}
			first += uint64(r.count)
		}
		r.done <- struct{}{}
	}
}

// beginWrite draws received_at for a group and shows it to Stats in the same
// instant.
func (s *Spool) beginWrite() int64 {
	c := &s.committer
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now().UnixMilli()
	step := time.Duration(s.lastAt-now) * time.Millisecond
	if behind := step > clockStep; behind != c.behind {
		c.behind = behind
		if behind {
			s.log.Warn("the clock stepped back: received_at stands still until it is past the last record's", "step", step)
		}
	}
	s.lastAt = max(now, s.lastAt)
	s.writing = s.lastAt
	return s.lastAt
}

// writeGroup writes the group to the active volume and syncs it. Its error is
// a *hub.Error.
func (s *Spool) writeGroup(at, size int64) error {
	c := &s.committer
	if err := s.ensureVolume(at, size); err != nil {
		return err
	}
	v := c.volume
	c.buf = c.buf[:0]
	for _, r := range c.group {
		seal(r.frame, c.nextSeq, at, v.length, v.id)
		c.nextSeq += uint64(r.count)
		c.buf = append(c.buf, r.frame...)
	}
	_, err := c.file.WriteAt(c.buf, v.length)
	if err == nil {
		err = c.file.Sync()
	}
	if cap(c.buf) > 2*maxGroup {
		c.buf = nil
	}
	if err != nil {
		c.pause = c.failed
		err = s.refuse(fmt.Errorf("write %s: %w", volumeName(v.ordinal), err))
		s.retire(false)
		return err
	}
	c.failed, c.pause = false, false
	return nil
}

// endWrite makes a group that is durable visible, or the refusal.
func (s *Spool) endWrite(at, size int64, err error) {
	c := &s.committer
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing, s.refusing = 0, c.refusal
	if err != nil {
		return
	}
	v := c.volume
	v.length += size
	v.synced, v.next, v.size = v.length, c.nextSeq, max(v.size, v.length)
	if s.oldest == 0 {
		s.oldest = at
	}
	s.lastSync = s.opts.Now()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// ensureVolume leaves an active volume that has room, or returns the refusal.
func (s *Spool) ensureVolume(at, size int64) error {
	c := &s.committer
	if v := c.volume; v != nil {
		if v.length == headerLen || v.length+size <= s.opts.VolumeBytes && !s.aged(v, at) {
			return nil
		}
		s.closeVolume()
	}
	if c.pause && time.Since(c.tried) < s.opts.tend {
		return c.refusal
	}
	return s.openVolume(at, max(s.opts.VolumeBytes, headerLen+size))
}

func (s *Spool) aged(v *volume, at int64) bool {
	return at-v.created >= s.opts.VolumeAge.Milliseconds()
}

// tend does what is due without an append: it closes a volume of age, and
// tries to be of use again after a failure.
func (s *Spool) tend() {
	c := &s.committer
	_, _ = s.askFree() // an error shows when a volume is to be opened
	at := max(s.opts.Now().UnixMilli(), s.lastTime())
	if v := c.volume; v != nil && v.length > headerLen && s.aged(v, at) {
		s.closeVolume()
	}
	if c.volume == nil && c.refusal != nil {
		_ = s.openVolume(at, s.opts.VolumeBytes) // the refusal is logged and kept
		s.mu.Lock()
		s.refusing = c.refusal
		s.mu.Unlock()
	}
}

func (s *Spool) lastTime() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastAt
}

// openVolume begins a volume of this size. Its error is the refusal.
func (s *Spool) openVolume(at, size int64) error {
	c := &s.committer
	c.tried = time.Now()
	err := s.checkRoom(size)
	if err == nil {
		err = s.createVolume(at, size)
	}
	if err != nil {
		c.pause = true
		s.kickSweep()
		return s.refuse(err)
	}
	if c.refusal != nil {
		s.log.Info("the spool accepts records again")
	}
	c.refusal = nil
	return nil
}

// errFull means that Options.MaxBytes or the disk leaves no room for a volume.
var errFull = errors.New("no room for another volume")

func (s *Spool) checkRoom(size int64) error {
	s.mu.Lock()
	used := s.diskBytes()
	s.mu.Unlock()
	if used+size > s.opts.MaxBytes {
		return fmt.Errorf("%w: %d bytes used of %d", errFull, used, s.opts.MaxBytes)
	}
	// Two volumes, so that the last one can be finished and what is beside the
	// spool on this disk does not starve.
	free, err := s.askFree()
	if err == nil && free < 2*size {
		return fmt.Errorf("%w: %d bytes free on the disk, %d needed", errFull, free, 2*size)
	}
	return err
}

// createVolume makes the next volume. When it returns nil the file, its
// header and its name are durable.
func (s *Spool) createVolume(at, size int64) error {
	c := &s.committer
	c.ordinal++
	h := header{ordinal: c.ordinal, created: at, first: c.nextSeq, prev: s.end()}
	_, _ = rand.Read(h.id[:]) // never fails, says crypto/rand
	name := volumeName(h.ordinal)
	f, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	if err = f.Allocate(size); err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.fs.SyncDir()
	}
	if err != nil {
		_ = f.Close()
		_ = s.fs.Remove(name) // no record is in it: what stays of it does no harm
		return err
	}
	c.file = f
	c.volume = &volume{header: h, length: headerLen, synced: headerLen, next: h.first, size: size, active: true}
	s.mu.Lock()
	s.volumes = append(s.volumes, c.volume)
	s.mu.Unlock()
	return nil
}

// refuse keeps err as the reason why appends are refused.
func (s *Spool) refuse(err error) *hub.Error {
	c := &s.committer
	e := &hub.Error{Code: hub.Unavailable, Retry: 5 * time.Second, Cause: err,
		Reason: "disk_failed", Message: "the hub cannot store this now",
		Hint: "look at the disk that holds data_dir/spool; the hub tries again by itself"}
	if noSpace(err) || errors.Is(err, errFull) {
		e.Reason = "spool_full"
		e.Hint = "free space on the disk that holds data_dir/spool, bring ClickHouse back so that the spool drains, or raise spool.max_bytes"
	}
	if !c.failed || c.refusal == nil || c.refusal.Reason != e.Reason {
		s.log.Error("the spool refuses records", "reason", e.Reason, "error", err, "hint", e.Hint)
	}
	c.failed, c.refusal = true, e
	return e
}

// closeVolume ends the active volume, if there is one.
func (s *Spool) closeVolume() {
	if s.committer.volume != nil {
		s.retire(true)
	}
}

// retire closes the active volume for good. What was not used of it, or was
// written but never acknowledged, is cut off where that can be done; the next
// volume's header says where this one ends in any case.
func (s *Spool) retire(healthy bool) {
	c := &s.committer
	v, f, name := c.volume, c.file, volumeName(c.volume.ordinal)
	c.volume, c.file = nil, nil

	empty := v.length == headerLen
	var err error
	if empty {
		if err = s.fs.Remove(name); err == nil {
			err = s.fs.SyncDir()
		}
	} else if err = s.fs.Truncate(name, v.length); err == nil && healthy {
		err = f.Sync()
	}
	size, sizeErr := f.Size()
	if err = errors.Join(err, sizeErr, f.Close()); err != nil {
		s.log.Warn("a volume of the spool could not be tidied up; its records are safe", "volume", name, "error", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	v.active = false
	if sizeErr == nil {
		v.size = size
	}
	if empty && err == nil {
		s.volumes = s.volumes[:len(s.volumes)-1]
	}
	s.markShipped()
	s.kickSweep()
}
