package spool

import (
	"errors"
	"io/fs"
	"time"
)

const sweepInterval = time.Minute

// sweepLoop removes shipped volumes beside the committer, so that no append
// waits for BeforeRemove.
func (s *Spool) sweepLoop() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		s.removeShipped()
		select {
		case <-s.sweep:
		case <-tick.C:
		case <-s.stop:
			return
		}
	}
}

func (s *Spool) kickSweep() { signal(s.sweep) }

// removeShipped removes the oldest volumes that may go, and keeps the ballast.
func (s *Spool) removeShipped() {
	s.sweepMu.Lock()
	defer s.sweepMu.Unlock()
	for asked := false; ; asked = true {
		free, err := s.askFree()
		if err != nil {
			s.log.Warn("the free space of the spool's disk is not known", "error", err)
			return
		}
		if err := s.keepBallast(free); err != nil {
			s.log.Warn("the spool's ballast could not be made", "error", err)
		}
		if !s.mayRemove() {
			return
		}
		if before := s.opts.BeforeRemove; before != nil && !asked {
			if err := before(); err != nil {
				s.log.Warn("shipped volumes of the spool are not removed yet", "error", err)
				return
			}
		}
		if err := s.removeOldest(); err != nil {
			s.log.Warn("a shipped volume of the spool could not be removed", "error", err)
			return
		}
	}
}

// mayRemove reports whether the oldest volume is shipped and has been kept for
// long enough, or must make room.
func (s *Spool) mayRemove() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving != nil {
		return true
	}
	if len(s.volumes) == 0 || !s.shippedWholly(s.volumes[0]) {
		return false
	}
	var kept int64
	for _, v := range s.volumes {
		if s.shippedWholly(v) {
			kept += v.size
		}
	}
	return s.opts.Now().Sub(s.volumes[0].shipped) >= s.opts.Keep ||
		kept > s.opts.KeepBytes || s.nearlyFull()
}

// removeOldest takes the oldest volume from the readers first, so that none
// misses it, then deletes it, or what the last call could not delete. Its end
// lies before a cursor that is durable.
func (s *Spool) removeOldest() error {
	s.mu.Lock()
	if s.leaving == nil {
		s.leaving = s.volumes[0]
		s.volumes = append(s.volumes[:0:0], s.volumes[1:]...)
	}
	name := volumeName(s.leaving.ordinal)
	s.mu.Unlock()
	s.log.Debug("a shipped volume of the spool is removed", "volume", name)
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = nil
	return nil
}

// shippedWholly reports whether v is closed and has no record behind the
// cursor. s.mu is held.
func (s *Spool) shippedWholly(v *volume) bool {
	return !v.active && v.next <= s.cursor.in(v.ordinal)
}

// markShipped begins the time of keeping for volumes that are shipped now.
// s.mu is held.
func (s *Spool) markShipped() {
	for _, v := range s.volumes {
		if v.shipped.IsZero() && s.shippedWholly(v) {
			v.shipped = s.opts.Now()
		}
	}
}
