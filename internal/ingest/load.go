package ingest

import (
	"context"
	"time"

	"felhom.eu/hub/internal/hub"
)

// What is done under load.
const (
	// defaultTurns is well over what one group of the
	// spool needs to be full, and little enough that a report waits for
	// milliseconds when every turn is taken.
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

// turn waits for a turn of the key's customer; call done after it. A customer
// that sends more than the hub can take waits in its own line (I22).
func (a *Acceptor) turn(ctx context.Context, key hub.Key) (done func(), err error) {
	customer := ""
	if host, ok := a.fleets.Current().Enrolled(key.Owner.Name); ok && key.Owner.Kind == hub.OwnerHost {
		customer = host.Customer
	}
	if !a.turns.Take(customer, 1) {
		waiting, cancel := context.WithTimeout(ctx, maxWait)
		defer cancel()
		switch err := a.turns.Wait(waiting, customer); {
		case ctx.Err() != nil && err != nil:
			return nil, errNotWaited
		case err != nil:
			return nil, errNoTurn
		}
	}
	return func() { a.turns.Give(customer, 1) }, nil
}
