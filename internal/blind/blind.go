// Package blind keeps the times in which the hub could not have accepted a
// report, and reckons with them.
//
// A [Log] is a set of intervals, each with its [Cause]. Silence in them is the
// hub's own and counts for nothing: what counts is ready time, the rest. A Log
// never changes; adding to it makes another. It does no I/O and reads no clock.
package blind

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// Cause says why a report could not have been accepted.
type Cause string

// The causes. They are stored: never change or reuse one.
const (
	ProcessDown     Cause = "process_down"     // the hub did not run
	NotReady        Cause = "not_ready"        // no fleet in force, or the disk takes nothing
	SpoolFull       Cause = "spool_full"       // the spool refuses for want of space
	Suspended       Cause = "suspended"        // the process or the machine stood still, or the clock was set
	AuthBroken      Cause = "auth_broken"      // most hosts are refused keys that were theirs; see ingest.Lockout
	ListenerFailing Cause = "listener_failing" // a probe of the hub's own public address fails
)

// Known reports whether c is one of the causes above.
func (c Cause) Known() bool {
	switch c {
	case ProcessDown, NotReady, SpoolFull, Suspended, AuthBroken, ListenerFailing:
		return true
	}
	return false
}

// Interval is the time from From, included, to To, not included.
type Interval struct {
	From, To time.Time
	Cause    Cause
}

// Log is a set of intervals. Those that overlap or touch count as one, whatever
// their causes. Instants are kept in whole milliseconds. A nil Log is empty.
type Log struct {
	entries []Interval // as given, by From
	spans   []span     // their union
}

// span is a blind time on its own: no other overlaps or touches it.
type span struct {
	from, to int64 // Unix milliseconds
	before   int64 // blind milliseconds before from
}

// New returns a log of intervals; empty ones are left out.
func New(intervals ...Interval) *Log {
	l := &Log{entries: slices.DeleteFunc(slices.Clone(intervals), func(i Interval) bool {
		return i.From.UnixMilli() >= i.To.UnixMilli()
	})}
	slices.SortFunc(l.entries, func(a, b Interval) int {
		return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Cause, b.Cause))
	})
	l.entries = slices.CompactFunc(l.entries, func(a, b Interval) bool {
		return a.From.Equal(b.From) && a.To.Equal(b.To) && a.Cause == b.Cause
	})
	total := int64(0)
	for _, i := range l.entries {
		from, to := i.From.UnixMilli(), i.To.UnixMilli()
		if n := len(l.spans); n > 0 && from <= l.spans[n-1].to {
			last := &l.spans[n-1]
			total += max(0, to-last.to)
			last.to = max(last.to, to)
			continue
		}
		l.spans = append(l.spans, span{from, to, total})
		total += to - from
	}
	return l
}

// Add returns a log that has the intervals too.
func (l *Log) Add(intervals ...Interval) *Log {
	return New(append(slices.Clone(l.Intervals()), intervals...)...)
}

// Since returns a log without the intervals that ended at t or before.
func (l *Log) Since(t time.Time) *Log {
	return New(slices.DeleteFunc(slices.Clone(l.Intervals()), func(i Interval) bool { return !i.To.After(t) })...)
}

// Intervals returns what the log was made of, in the order of their beginnings.
// The caller must not change it.
func (l *Log) Intervals() []Interval {
	if l == nil {
		return nil
	}
	return l.entries
}

// Blind returns how much of the time from a to b was blind; 0 where b is not
// after a.
func (l *Log) Blind(a, b time.Time) time.Duration {
	return length(l.blind(a.UnixMilli(), b.UnixMilli()))
}

// Ready returns how much of the time from a to b was not blind; 0 where b is not
// after a.
func (l *Log) Ready(a, b time.Time) time.Duration {
	from, to := a.UnixMilli(), b.UnixMilli()
	if to <= from {
		return 0
	}
	return length(to - from - l.blind(from, to))
}

// Advance returns the first instant, not before a, by which d of ready time has
// passed since a.
func (l *Log) Advance(a time.Time, d time.Duration) time.Time {
	return at(l.advance(a.UnixMilli(), millis(d)))
}

// Back returns the last instant, not after t, from which d of ready time passes
// until t: a is not after it exactly if Ready(a, t) is at least d. d must be over 0.
func (l *Log) Back(t time.Time, d time.Duration) time.Time {
	end := t.UnixMilli()
	left := millis(d)
	for i := l.next(end) - 1; i >= 0; i-- {
		ready := end - min(l.spans[i].to, end)
		if ready >= left {
			break
		}
		left, end = left-ready, l.spans[i].from
	}
	return at(end - left)
}

// Long returns the spans of blind time that are longer than d, in order. Causes
// do not part a span.
func (l *Log) Long(d time.Duration) []Interval {
	if l == nil {
		return nil
	}
	var long []Interval
	for _, s := range l.spans {
		if s.to-s.from > millis(d) {
			long = append(long, Interval{From: at(s.from), To: at(s.to)})
		}
	}
	return long
}

// At returns the cause of the blind time at t, and whether there is one.
func (l *Log) At(t time.Time) (Cause, bool) {
	for _, i := range l.Intervals() {
		if !t.Before(i.From) && t.Before(i.To) {
			return i.Cause, true
		}
	}
	return "", false
}

// next returns the index of the first span that begins at t or later.
func (l *Log) next(t int64) int {
	if l == nil {
		return 0
	}
	return sort.Search(len(l.spans), func(i int) bool { return l.spans[i].from >= t })
}

// total returns the blind milliseconds before t.
func (l *Log) total(t int64) int64 {
	i := l.next(t)
	if i == 0 {
		return 0
	}
	s := l.spans[i-1]
	return s.before + min(s.to, t) - s.from
}

func (l *Log) blind(a, b int64) int64 {
	if l == nil || b <= a || len(l.spans) == 0 || l.spans[len(l.spans)-1].to <= a {
		return 0 // the usual case: nothing blind since the last report
	}
	return l.total(b) - l.total(a)
}

func (l *Log) advance(a, d int64) int64 {
	if d <= 0 {
		return a
	}
	if l == nil {
		return later(a, d)
	}
	i := l.next(a)
	if i > 0 {
		a = max(a, l.spans[i-1].to)
	}
	for ; i < len(l.spans); i++ {
		ready := l.spans[i].from - a
		if ready >= d {
			break
		}
		d, a = d-ready, l.spans[i].to
	}
	return later(a, d)
}

// later adds without running over.
func later(a, d int64) int64 {
	if a > math.MaxInt64-d {
		return math.MaxInt64
	}
	return a + d
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func length(ms int64) time.Duration {
	if ms > math.MaxInt64/int64(time.Millisecond) {
		return math.MaxInt64
	}
	return time.Duration(ms) * time.Millisecond
}

// millis rounds up: a length is over only when all of it has passed.
func millis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
