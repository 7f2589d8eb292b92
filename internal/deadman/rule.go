package deadman

import (
	"sort"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
)

// Timing are the lengths of time that the switch goes by, apart from the
// thresholds of single hosts.
type Timing struct {
	Pulse time.Duration // between two looks at whether the hub could accept a report
	Gap   time.Duration // a pause between two looks that is longer is blind time
	Long  time.Duration // blind time that is longer is followed by a grace
	Grace time.Duration // ready time that hosts have to report after a long blind time
	Mass  time.Duration // silences that begin within it may be one mass silence
	Hold  time.Duration // how long a silence of the whole fleet is first taken for the hub's own
}

// referenceStale is the monitor.stale_after for which the lengths below are meant.
const referenceStale = 30 * time.Minute

const (
	leastPulse = 100 * time.Millisecond
	leastGap   = 500 * time.Millisecond
)

// TimingFor returns the lengths for monitor.stale_after and the interval at which
// agents report. They shrink in proportion when staleAfter is under 30 min, and
// never grow; but a pause of less than half a second is no sign of anything on a
// machine that is busy.
func TimingFor(staleAfter, reportInterval time.Duration) Timing {
	scaled := func(d time.Duration) time.Duration {
		if staleAfter >= referenceStale {
			return d
		}
		return time.Duration(float64(d) * (float64(staleAfter) / float64(referenceStale))).Round(time.Millisecond)
	}
	return Timing{
		Pulse: max(scaled(10*time.Second), leastPulse), Gap: max(scaled(30*time.Second), leastGap), Long: scaled(5 * time.Minute),
		Grace: max(scaled(10*time.Minute), 2*reportInterval),
		Mass:  scaled(5 * time.Minute), Hold: scaled(10 * time.Minute),
	}
}

// Rule is what one evaluation goes by, for all hosts alike. NewRule makes it.
type Rule struct {
	Timing
	T     time.Time // the slot time of the evaluation
	Blind *blind.Log

	long []blind.Interval // longer than Long, cut off at T
}

// NewRule returns the rule of the evaluation at t, to which log must be complete.
func NewRule(t time.Time, log *blind.Log, timing Timing) *Rule {
	r := &Rule{Timing: timing, T: t, Blind: log}
	for _, i := range log.Long(timing.Long) {
		if i.To.After(t) {
			i.To = t
		}
		if i.To.Sub(i.From) > timing.Long {
			r.long = append(r.long, i)
		}
	}
	return r
}

// silence is how long a host is silent, and since when the switch watches it.
type silence struct {
	lastAt  time.Time // received_at of the last report
	watched time.Time // when it was unpaused or returned; zero: before that report
}

// due reports whether, at T, the silence seen has reached d and every grace is
// over, and the first instant at which that was so. It is a pure function of the
// silence, the blind log and T.
func (r *Rule) due(s silence, d time.Duration) (at time.Time, ok bool) {
	reached := r.Blind.Advance(s.lastAt, d)
	if s.watched.After(s.lastAt) {
		reached = latest(reached, r.Blind.Advance(s.watched, r.Grace))
	}
	if reached.After(r.T) {
		return time.Time{}, false
	}
	at, ok = reached, true
	for _, blind := range r.longSince(s.lastAt) {
		over := r.Blind.Advance(blind.To, r.Grace)
		ok = !over.After(r.T) // the later one's counts
		if at.After(blind.From) {
			at = latest(reached, over)
		}
	}
	return at, ok
}

// longSince returns the first two long blind times of a silence. Of one in which
// the last report came in all the same, only what is left counts.
func (r *Rule) longSince(lastAt time.Time) []blind.Interval {
	i := sort.Search(len(r.long), func(i int) bool { return r.long[i].To.After(lastAt) })
	if i < len(r.long) && r.long[i].From.Before(lastAt) && r.long[i].To.Sub(lastAt) <= r.Long {
		i++
	}
	return r.long[i:min(i+2, len(r.long))]
}

// verdict returns the state that a silence makes at T, and since when. One of
// exactly the threshold counts.
func (r *Rule) verdict(s silence, t hub.Thresholds) (hub.State, time.Time) {
	if at, ok := r.due(s, t.DownAfter); ok {
		return hub.Down, at
	}
	if at, ok := r.due(s, t.StaleAfter); ok {
		return hub.Stale, at
	}
	return hub.OK, s.lastAt
}

// Cut returns the instant up to which, itself included, a last report makes a
// silence of at least d at T. What ClickHouse is asked for and what due decides
// by are this one comparison.
func (r *Rule) Cut(d time.Duration) time.Time { return r.Blind.Back(r.T, d) }

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
