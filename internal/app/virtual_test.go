package app_test

import (
	"context"
	"slices"
	"sync"
	"time"
)

// beat is the pace of virtual time: looks may be that far apart, and no farther.
const beat = 30 * time.Second

// virtual is a clock that moves when a test moves it. What the hub wants to be
// called every so often is called by the test, one thing after the other: hours
// pass without anybody waiting.
type virtual struct {
	mu   sync.Mutex
	wall time.Time
	ran  time.Duration // as a monotonic clock has it: no jump enters it
	jobs []*job
}

type job struct {
	every, next time.Duration
	f           func()
}

// newVirtual begins at the full hour: near enough to the clock of the engine, which
// has its own idea of when rows are too old.
func newVirtual() *virtual { return &virtual{wall: time.Now().UTC().Truncate(time.Hour)} }

func (v *virtual) Now() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.wall
}

// Every is a deadman.Every.
func (v *virtual) Every(ctx context.Context, d time.Duration, f func()) {
	v.mu.Lock()
	j := &job{d, v.ran + d, f}
	v.jobs = append(v.jobs, j)
	v.mu.Unlock()
	<-ctx.Done()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.jobs = slices.DeleteFunc(v.jobs, func(other *job) bool { return other == j })
}

// pass lets time go by, at most a beat.
func (v *virtual) pass(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wall, v.ran = v.wall.Add(d), v.ran+d
}

// jump sets the clock; nothing goes by. A machine that was suspended sees the same.
func (v *virtual) jump(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wall = v.wall.Add(d)
}

// due returns what is to be called now, the more frequent first. Like a ticker it
// forgets calls that were missed.
func (v *virtual) due() (jobs []*job) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, j := range v.jobs {
		if j.next <= v.ran {
			j.next = v.ran + j.every - (v.ran-j.next)%j.every
			jobs = append(jobs, j)
		}
	}
	slices.SortStableFunc(jobs, func(a, b *job) int { return int(a.every - b.every) })
	return jobs
}

// all returns what is called every so often.
func (v *virtual) all() []*job {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.jobs)
}
