package app

import (
	"runtime/debug"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
)

// fleetApplied notes the first moment at which reports can be accepted, and has
// ClickHouse told of the new fleet.
func (a *App) fleetApplied(fleet *hub.Fleet) {
	a.acceptor.FleetApplied(fleet)
	a.firstFleet.Do(func() {
		// Loading a large fleet takes several times the memory that it keeps:
		// the rest is given back now rather than little by little.
		go debug.FreeOSMemory()
	})
	a.keepOpened(cacheWorthWriting)
	select {
	case a.register <- struct{}{}:
	default: // a change is waiting already
	}
}

// refusing tells why a report sent now would not be accepted; no cause: it would.
func (a *App) refusing() (cause blind.Cause, why string) {
	probe := a.unreachable()
	switch sp := a.spool.Stats().Refusing; {
	case a.roster.Current() == nil:
		return blind.NotReady, "no fleet is in force"
	case sp != "":
		return blind.SpoolFull, "the spool refuses reports: " + sp
	case a.acceptor.Stalled() > stalledAfter:
		return blind.NotReady, "the disk takes no reports"
	case probe != "":
		return blind.ListenerFailing, "the hub does not reach its own public address: " + probe
	}
	return "", ""
}

// slot returns now as rows keep it: UTC, whole milliseconds.
func (a *App) slot() time.Time { return a.now().UTC().Truncate(time.Millisecond) }
