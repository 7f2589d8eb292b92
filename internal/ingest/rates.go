package ingest

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiters holds a token bucket for each name that was active lately. Its
// memory is bounded without forgetting anything: a bucket that was not touched
// for longer than it takes to fill is like a new one, and is dropped.
type limiters struct {
	limit rate.Limit
	burst int
	span  time.Duration // no shorter than it takes to fill a bucket

	mu       sync.Mutex
	young    map[string]*rate.Limiter // touched since the turn
	old      map[string]*rate.Limiter // touched within the span before it
	turnedAt time.Time
}

// newLimiters allows perSecond events of each name, with bursts of twice that;
// 0 allows everything.
func newLimiters(perSecond float64) *limiters {
	burst := max(1, int(2*perSecond))
	l := &limiters{limit: rate.Limit(perSecond), burst: burst, span: time.Minute, young: map[string]*rate.Limiter{}}
	if perSecond > 0 {
		l.span = max(l.span, time.Duration(float64(burst)/perSecond*float64(time.Second)))
	}
	return l
}

// allow takes a token of name's bucket. Without one it says how long to wait.
func (l *limiters) allow(name string, now time.Time) (wait time.Duration, ok bool) {
	if l.limit <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.bucket(name, now)
	if bucket.AllowN(now, 1) {
		return 0, true
	}
	return l.until(1 - bucket.TokensAt(now)), false
}

// left is allow, but takes nothing.
func (l *limiters) left(name string, now time.Time) (wait time.Duration, ok bool) {
	if l.limit <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := 1 - l.bucket(name, now).TokensAt(now)
	return l.until(missing), missing <= 0
}

// bucket must be called with the lock held.
func (l *limiters) bucket(name string, now time.Time) *rate.Limiter {
	if now.Sub(l.turnedAt) >= l.span {
		l.old, l.young, l.turnedAt = l.young, make(map[string]*rate.Limiter), now
	}
	bucket := l.young[name]
	if bucket == nil {
		if bucket = l.old[name]; bucket == nil {
			bucket = rate.NewLimiter(l.limit, l.burst)
		}
		l.young[name] = bucket
	}
	return bucket
}

// until returns how long a bucket takes to have so many more tokens.
func (l *limiters) until(tokens float64) time.Duration {
	return time.Duration(tokens / float64(l.limit) * float64(time.Second))
}

// Failures of one network: enough for a fleet behind one address whose keys all
// expired at once, little enough that a log of refusals stays readable.
const (
	failuresPerSecond = 10
	failuresBurst     = 100
	failureSlots      = 4096
)

// failures limits refused keys for each /24 or /64, in fixed memory: networks
// share slots by a secret hash. It is asked only after a key was refused, so it
// never stands in the way of a good one, not even from the same address.
type failures struct {
	seed  maphash.Seed
	mu    sync.Mutex
	slots [failureSlots]struct {
		spent float64 // failures not yet forgiven
		at    time.Time
	}
}

func newFailures() *failures { return &failures{seed: maphash.MakeSeed()} }

// allow counts a failure. Over the limit it says how long to wait.
func (f *failures) allow(from netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	slot := &f.slots[maphash.Comparable(f.seed, network(from))%failureSlots]
	f.mu.Lock()
	defer f.mu.Unlock()
	forgiven := max(0, now.Sub(slot.at).Seconds()) * failuresPerSecond
	slot.spent, slot.at = max(0, slot.spent-forgiven), now
	if slot.spent+1 > failuresBurst {
		excess := slot.spent + 1 - failuresBurst
		return time.Duration(excess / failuresPerSecond * float64(time.Second)), false
	}
	slot.spent++
	return 0, true
}

// network is the /24 or /64 of an address.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // an invalid address is a network of its own
	return p
}
