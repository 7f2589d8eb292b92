package torture

import (
	"context"
	"errors"
	"time"
)

// troubled makes rounds in which a few inserts meet a trouble.
func troubled(t trouble) func(*stand, int) (time.Duration, error) {
	return func(s *stand, _ int) (time.Duration, error) { return s.meet(t) }
}

// refused makes rounds in which a few inserts are refused.
func refused(code int) func(*stand, int) (time.Duration, error) {
	return func(s *stand, n int) (time.Duration, error) {
		what := refuseQuery
		if n%2 == 1 {
			what = refuseData
		}
		return s.meet(trouble{what: what, code: code})
	}
}

// meet lets the trouble happen a few times and returns how long it took from its
// end until ClickHouse had all of before.
func (s *stand) meet(t trouble) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(s.alive, patience)
	defer cancel()
	s.proxy.make(t)
	happened := s.proxy.happened(ctx, s.proxy.done.Load(), 1+s.random.Int64N(4))
	s.proxy.make(trouble{})
	if !happened {
		return 0, errors.New("no insert met the trouble")
	}
	over := time.Now()
	return since(over, s.shipped(over))
}

func stopAway(s *stand, _ int) (time.Duration, error) {
	s.proxy.make(trouble{what: away})
	if err := s.traffic(500*time.Millisecond, 2*time.Second); err != nil {
		return 0, err
	}
	if err := s.stopHub(); err != nil {
		return 0, err
	}
	if _, err := s.restart(time.Now()); err != nil {
		return 0, err
	}
	if err := s.traffic(200*time.Millisecond, time.Second); err != nil {
		return 0, err
	}
	s.proxy.make(trouble{})
	back := time.Now()
	return since(back, s.shipped(back))
}
