package torture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Options are what Run needs. All but Rounds and Rate are required.
type Options struct {
	Bin    string // folder of hub and hub-engine
	Dir    string // where each fault gets a folder, which stays when something went wrong
	Faults []Fault
	Rounds int     // of each fault; 0: its own number
	Seed   uint64  // the same seed makes the same choices, though not the same timing
	Rate   float64 // reports a second that are sent; 0: twice the floor
	Floor  float64 // least reports a second that must have been acknowledged while the hub was up
	Out    io.Writer
}

const (
	steadyHosts = 300
	minRate     = 200
)

// ErrFailed means that a fault's line tells of a failure.
var ErrFailed = errors.New("the hub or the run failed")

// Run tries each fault and prints a line for it. It returns ErrFailed when a
// report was lost or doubled, or a run proved nothing.
func Run(ctx context.Context, o Options) error {
	if o.Rate == 0 {
		o.Rate = max(2*o.Floor, minRate)
	}
	fmt.Fprintf(o.Out, "seed %d, %.0f reports a second sent, at least %.0f to be acknowledged\n%s\n", o.Seed, o.Rate, o.Floor, header)
	failed := false
	sites := map[int]*site{}
	defer func() {
		for _, s := range sites {
			_ = os.RemoveAll(s.dir)
		}
	}()
	for _, f := range o.Faults {
		hosts := steadyHosts + f.spare
		if sites[hosts] == nil {
			s, err := newSite(ctx, o.Bin, filepath.Join(o.Dir, fmt.Sprintf("fleet-%d", hosts)), hosts)
			if err != nil {
				return err
			}
			sites[hosts] = s
		}
		l := o.try(ctx, f, sites[hosts])
		fmt.Fprint(o.Out, l)
		failed = failed || l.err != nil && !errors.Is(l.err, errSkip)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed {
		return ErrFailed
	}
	return nil
}

// try runs all rounds of one fault and judges.
func (o *Options) try(ctx context.Context, f Fault, site *site) (l *line) {
	name := fnv.New64a()
	_, _ = name.Write([]byte(f.Name)) // a hash takes everything
	s := &stand{
		site: site, dir: filepath.Join(o.Dir, f.Name), embedded: f.embedded,
		random: rand.New(rand.NewPCG(o.Seed, name.Sum64())),
	}
	s.alive, s.giveUp = context.WithCancelCause(ctx)
	l = &line{fault: f.Name, dir: s.dir, floor: o.Floor}
	if l.err = os.Mkdir(s.dir, 0o700); l.err != nil {
		return l
	}
	undo := func() error { return nil }
	if f.prepare != nil {
		if undo, l.err = f.prepare(s); l.err != nil {
			return l
		}
	}
	l.err = s.rounds(l, f, cmp.Or(o.Rounds, f.Rounds), o)
	l.err = errors.Join(l.err, s.close(), undo())
	l.judge()
	if l.err == nil {
		l.err = os.RemoveAll(s.dir)
	}
	return l
}

// rounds harms the hub again and again, and compares at the end.
func (s *stand) rounds(l *line, f Fault, rounds int, o *Options) error {
	if err := s.start(o.Rate, steadyHosts, o.Seed); err != nil {
		return err
	}
	for n := range rounds {
		took, err := f.round(s, n)
		if err != nil {
			return fmt.Errorf("round %d: %w", n+1, err)
		}
		l.rounds++
		l.recoveries = append(l.recoveries, took)
	}
	if err := s.finish(); err != nil {
		return err
	}
	l.rate = s.ledger.rate()
	var err error
	l.verdict, err = s.judge()
	return err
}
