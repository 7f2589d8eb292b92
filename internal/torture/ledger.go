package torture

import (
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"
)

type digest = [sha256.Size]byte

// report is what the oracle knows of one acknowledged report.
type report struct {
	id            uint64
	host          string
	guests, items uint16 // rows in guest_reports and rejected_items
	times         uint16 // how often it was acknowledged
	at            int64  // when it was first, Unix milliseconds
}

// ledger is the oracle's memory: which reports were issued and acknowledged. It
// is safe for concurrent use.
type ledger struct {
	issued atomic.Uint64 // the newest id
	sent   atomic.Int64  // when the last sent of the acknowledged reports was sent, Unix nanoseconds

	mu      sync.Mutex
	reports map[digest]report
	refused map[int]int // replies by which a report was set aside; there should be none
	up      time.Duration
	upSince time.Time // zero: the hub is down or nobody reports
}

func newLedger() *ledger {
	return &ledger{reports: make(map[digest]report), refused: make(map[int]int)}
}

// acknowledged notes a report that was answered with 200, sent at the given time.
func (l *ledger) acknowledged(sum digest, r report, sent time.Time) {
	for at := sent.UnixNano(); ; {
		newest := l.sent.Load()
		if newest >= at || l.sent.CompareAndSwap(newest, at) {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, again := l.reports[sum]; again {
		r = known
	} else {
		r.at = time.Now().UnixMilli()
	}
	r.times++
	l.reports[sum] = r
}

// setAside notes a reply after which an agent gives a report up.
func (l *ledger) setAside(status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[status]++
}

// acknowledgedSince reports whether a report sent after t was acknowledged.
func (l *ledger) acknowledgedSince(t time.Time) bool { return l.sent.Load() > t.UnixNano() }

// count returns how many reports were acknowledged.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.reports)
}

// running tells whether the hub is up and agents report: the rate is that of
// this time.
func (l *ledger) running(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.upSince.IsZero() {
		l.up += time.Since(l.upSince)
	}
	l.upSince = time.Time{}
	if yes {
		l.upSince = time.Now()
	}
}

// rate returns acknowledged reports per second of running time.
func (l *ledger) rate() float64 {
	l.running(false)
	if l.up == 0 {
		return 0
	}
	return float64(l.count()) / l.up.Seconds()
}
