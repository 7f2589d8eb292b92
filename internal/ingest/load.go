package ingest

import (
	"context"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// What is done under load.
const (
	// defaultTurns is well over what one group of the spool needs to be full, and
	// little enough that a report waits for milliseconds when every turn is taken.
	defaultTurns = 256
	// maxWait is how long a report waits for its turn before its agent is sent
	// away. Waiting costs nothing but its body's memory.
	maxWait = 5 * time.Second
	// largeBody is the size above which reports are refused first when the spool
	// is nearly full: a sign of life is small.
	largeBody = 256 << 10
)

var (
	errNoTurn = &hub.Error{Code: hub.Unavailable, Reason: "customer_share",
		Message: "the hub has as much to do as it can, in all or for this customer", Retry: 5 * time.Second}
	errNearlyFull = &hub.Error{Code: hub.Unavailable, Reason: "spool_nearly_full",
		Message: "the spool is nearly full: only reports of at most 256 KiB are taken", Retry: time.Minute}
)

// turn waits for a turn of the customer, which must be given back. A customer
// that sends more than the hub can take waits in its own line (I22).
func (a *Acceptor) turn(ctx context.Context, customer string) error {
	if a.turns.Take(customer, 1) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	switch err := a.turns.Wait(waiting, customer); {
	case ctx.Err() != nil && err != nil:
		return errNotWaited
	case err != nil:
		return errNoTurn
	}
	return nil
}

// progress tells a disk that is slow from one that does not answer.
type progress struct {
	mu      sync.Mutex
	waiting int       // reports that the spool has and did not answer for
	at      time.Time // of the last answer, or when the first of them came
}

func (p *progress) begin(now func() time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting++; p.waiting == 1 {
		p.at = now()
	}
}

func (p *progress) end(now func() time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
	p.at = now()
}

// Stalled returns for how long reports have waited without the spool answering for
// any of them; 0 where none waits (I16).
func (a *Acceptor) Stalled() time.Duration {
	a.progress.mu.Lock()
	defer a.progress.mu.Unlock()
	if a.progress.waiting == 0 {
		return 0
	}
	return max(0, a.now().Sub(a.progress.at))
}
