package torture

import (
	"errors"
	"syscall"
	"time"

	"felhom.eu/hub/internal/engine"
)

// killHub kills at any moment of a hub's first seconds; in every third round it
// waits until that run has begun to ship, so that inserts are under way.
func killHub(s *stand, n int) (time.Duration, error) {
	if n%3 == 0 {
		err := s.until("shipping", func() bool {
			st, err := s.status()
			return err == nil && !st.ClickHouse.ShippedAt.IsZero()
		})
		if err != nil {
			return 0, err
		}
	}
	if err := s.traffic(200*time.Millisecond, 2*time.Second); err != nil {
		return 0, err
	}
	down := time.Now()
	s.killHub()
	return s.restart(down)
}

func killEngine(s *stand, _ int) (time.Duration, error) {
	if err := s.traffic(200*time.Millisecond, 2*time.Second); err != nil {
		return 0, err
	}
	before, down := s.engine.Restarts(), time.Now()
	if pid := s.engine.PID(); pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return 0, errors.New("there was no engine to kill")
	}
	if err := s.until("the engine's restart", func() bool { return s.engine.Restarts() > before }); err != nil {
		return 0, err
	}
	return since(down, s.shipped(time.Now()))
}

func killBoth(s *stand, _ int) (time.Duration, error) {
	if err := s.traffic(time.Second, 4*time.Second); err != nil {
		return 0, err
	}
	// It may be just about to start, after the last round: then there is none yet.
	var at engine.Description
	err := s.until("the hub's engine", func() (up bool) {
		var err error
		at, err = engine.Describe(s.embeddedDir())
		return err == nil
	})
	if err != nil {
		return 0, err
	}
	down := time.Now()
	if s.random.IntN(2) == 0 {
		_ = syscall.Kill(at.PID, syscall.SIGKILL)
		time.Sleep(time.Duration(s.random.IntN(100)) * time.Millisecond)
	}
	s.killHub()
	_ = syscall.Kill(at.PID, syscall.SIGKILL) // it may be gone with the hub
	return s.restart(down)
}

func since(t time.Time, err error) (time.Duration, error) { return time.Since(t), err }
