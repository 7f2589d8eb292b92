package app

import (
	"testing"
	"time"

	"felhom.eu/hub/internal/deadman"
)

// ProbeEvery has hubs that start during the test knock more often.
func ProbeEvery(t *testing.T, interval time.Duration) {
	before := probeInterval
	probeInterval = interval
	t.Cleanup(func() { probeInterval = before })
}

// Ailing has hubs that start during the test look at themselves more often, and tell of
// a ClickHouse that is away after a time.
func Ailing(t *testing.T, look, away time.Duration) {
	before := [2]time.Duration{ailmentLook, awayAfter}
	ailmentLook, awayAfter = look, away
	t.Cleanup(func() { ailmentLook, awayAfter = before[0], before[1] })
}

// Switch is what the dead-man's switch says of itself.
func (a *App) Switch() deadman.Status { return a.watch.Status() }

// SwitchOptions are those of another switch on the same hub.
func (a *App) SwitchOptions() deadman.Options { return a.switchOptions(nil, nil) }

// Visible reports whether ClickHouse has all that was acknowledged up to t.
func (a *App) Visible(t time.Time) bool {
	oldest, doubt := (*backlog)(a).Behind()
	return a.prepared() && !doubt && (oldest.IsZero() || oldest.After(t))
}

// Unshipped counts the records that ClickHouse does not have yet.
func (a *App) Unshipped() int64 { return a.spool.Stats().UnshippedRecords }
