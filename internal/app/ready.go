package app

import (
	"context"
	"runtime/debug"
	"time"

	"felhom.eu/hub/internal/hub"
)

// fleetApplied notes the first moment at which reports can be accepted, and has
// ClickHouse told of the new fleet.
func (a *App) fleetApplied(fleet *hub.Fleet) {
	a.acceptor.FleetApplied(fleet)
	now := slot()
	if a.readyAt.CompareAndSwap(nil, &now) {
		// Loading a large fleet takes several times the memory that it keeps:
		// the rest is given back now rather than little by little.
		go debug.FreeOSMemory()
	}
	a.keepOpened(cacheWorthWriting)
	select {
	case a.register <- struct{}{}:
	default: // a change is waiting already
	}
}

// readySince returns since when reports can be accepted, false while they
// cannot: silence before that is the hub's own.
func (a *App) readySince() (time.Time, bool) {
	at := a.readyAt.Load()
	if at == nil || a.spool.Stats().Refusing != "" {
		return time.Time{}, false
	}
	return *at, true
}

// followReadiness begins readiness anew after the spool has refused reports for
// a while.
func (a *App) followReadiness(ctx context.Context) {
	var refusal outage
	for sleep(ctx, time.Second) {
		now := slot()
		if refusal.ended(a.spool.Stats().Refusing != "", now) {
			a.readyAt.Store(&now)
		}
	}
}

// outage watches a condition that comes and goes.
type outage struct{ since time.Time }

// A shorter refusal is no outage: agents try again within seconds.
const outageAfter = 30 * time.Second

// ended takes what is true at now, and reports whether an outage has just ended.
func (o *outage) ended(refusing bool, now time.Time) bool {
	if refusing {
		if o.since.IsZero() {
			o.since = now
		}
		return false
	}
	long := !o.since.IsZero() && now.Sub(o.since) >= outageAfter
	o.since = time.Time{}
	return long
}

// slot returns now as rows keep it: UTC, whole milliseconds.
func slot() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
