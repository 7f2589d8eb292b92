// Package fair divides something scarce among those who ask for it, so that
// whoever asks for most cannot take what the others need.
//
// The rule: nobody holds more than what is left free after him. One alone gets
// half of the whole, two greedy ones a third each, and somebody who asks for
// little finds room whatever the others do. Nothing needs to be known of how
// many there are and what each deserves.
package fair

import (
	"context"
	"slices"
	"sync"
)

// Shares are the shares of one thing, counted in units. The methods may be
// called from many goroutines.
type Shares struct {
	total int64

	mu    sync.Mutex
	free  int64
	held  map[string]int64           // nobody stands here with 0
	lines map[string][]chan struct{} // who waits, in order; nobody stands here with an empty line
	turn  []string                   // the names of lines, in the order in which they are served
}

// New divides total units, at least 2.
func New(total int64) *Shares {
	return &Shares{total: total, free: total, held: make(map[string]int64), lines: make(map[string][]chan struct{})}
}

// Used returns how many units are held.
func (s *Shares) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total - s.free
}

// Take gives n units to who, or reports that there is no room for them now.
func (s *Shares) Take(who string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines[who]) == 0 && s.take(who, n)
}

func (s *Shares) take(who string, n int64) bool {
	held := s.held[who] + n
	if held > s.free-n {
		return false
	}
	s.held[who] = held
	s.free -= n
	return true
}

// Wait gives one unit to who as soon as there is room. Those who wait are served
// in turn, one unit each. It returns the error of ctx where that ends first.
func (s *Shares) Wait(ctx context.Context, who string) error {
	s.mu.Lock()
	line := s.lines[who]
	if len(line) == 0 && s.take(who, 1) {
		s.mu.Unlock()
		return nil
	}
	if len(line) == 0 {
		s.turn = append(s.turn, who)
	}
	granted := make(chan struct{})
	s.lines[who] = append(line, granted)
	s.mu.Unlock()

	select {
	case <-granted:
		return nil
	case <-ctx.Done():
		s.leave(who, granted)
		return ctx.Err()
	}
}

// leave takes one who gave up out of the line; what he was given in the same
// moment goes back.
func (s *Shares) leave(who string, granted chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := s.lines[who]
	i := slices.Index(line, granted)
	if i < 0 {
		s.give(who, 1)
		return
	}
	if s.lines[who] = slices.Delete(line, i, i+1); len(line) == 1 {
		delete(s.lines, who)
		s.turn = slices.DeleteFunc(s.turn, func(name string) bool { return name == who })
	}
}

// Give takes n units back from who.
func (s *Shares) Give(who string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.give(who, n)
}

func (s *Shares) give(who string, n int64) {
	s.free += n
	if left := s.held[who] - n; left != 0 {
		s.held[who] = left
	} else {
		delete(s.held, who)
	}
	for passed := 0; passed < len(s.turn); {
		next := s.turn[0]
		s.turn = append(s.turn[1:], next)
		if !s.take(next, 1) {
			passed++
			continue
		}
		passed = 0
		line := s.lines[next]
		close(line[0])
		if s.lines[next] = line[1:]; len(line) == 1 {
			delete(s.lines, next)
			s.turn = s.turn[:len(s.turn)-1]
		}
	}
}
