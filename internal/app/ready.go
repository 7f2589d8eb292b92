package app

import (
	"fmt"
	"runtime/debug"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
)

// fleetApplied notes the first moment at which reports can be accepted, and has
// ClickHouse told of the new fleet.
func (a *App) fleetApplied(fleet *hub.Fleet) {
	if a.acceptor.FleetApplied(fleet) {
		if err := a.spool.WriteState(formerState, a.acceptor.FormerKeys()); err != nil {
			a.log.Warn("keys that left the fleet are forgotten at the next restart: hosts that still have them would count as silent", "error", err)
		}
	}
	a.firstFleet.Do(func() {
		// Loading a large fleet takes several times the memory that it keeps:
		// the rest is given back now rather than little by little.
		go debug.FreeOSMemory()
	})
	a.keepOpened(cacheWorthWriting)
	a.outbox.FleetChanged()
	select {
	case a.register <- struct{}{}:
	default: // a change is waiting already
	}
}

// refusing tells why a report sent now would not be accepted; no cause: it would.
func (a *App) refusing() (cause blind.Cause, why string) {
	probe, locked := a.unreachable(), a.acceptor.LockedOut()
	switch sp := a.spool.Stats().Refusing; {
	case a.roster.Current() == nil:
		return blind.NotReady, "no fleet is in force"
	case sp != "":
		return blind.SpoolFull, "the spool refuses reports: " + sp
	case a.acceptor.Stalled() > stalledAfter:
		return blind.NotReady, "the disk takes no reports"
	case locked.Broken():
		return blind.AuthBroken, lockedOut(locked)
	case probe != "":
		return blind.ListenerFailing, "the hub does not reach its own public address: " + probe
	}
	return "", ""
}

// lockedOut tells of hosts that are refused the keys that were theirs.
func lockedOut(l ingest.Lockout) string {
	return fmt.Sprintf("%d of %d hosts are refused the keys that were theirs until %s: the fleet lost them, or they expired; bring them back, or give the hosts new ones",
		l.Hosts, l.Hosts+l.Heard, l.Since.UTC().Format(time.RFC3339))
}

// slot returns now as rows keep it: UTC, whole milliseconds.
func (a *App) slot() time.Time { return a.now().UTC().Truncate(time.Millisecond) }
