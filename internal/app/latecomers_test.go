package app

import (
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// TestLatecomers: events that stood in the spool late hold readers back until ClickHouse
// has them, and only then.
func TestLatecomers(t *testing.T) {
	start := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var l latecomers
	l.note([]hub.Event{{DetectedAt: at(0)}, {DetectedAt: at(0)}}, at(9)) // in time
	l.note([]hub.Event{{DetectedAt: at(20)}, {DetectedAt: at(20)}}, at(45))
	l.note([]hub.Event{{DetectedAt: at(60)}}, at(80))
	for _, c := range []struct{ oldest, want int }{
		{5, -5},  // far behind: nothing of all this is in ClickHouse, nor asked for
		{40, 20}, // all of it would be asked for but for the first latecomer
		{45, 20}, // the record of that instant is not there
		{46, 36}, // the first is there
		{75, 60},
		{80, 60},
		{81, 71},
		{200, 190},
		{40, 30}, // what was there does not come back
	} {
		if got := l.bound(at(c.oldest-10), at(c.oldest)); !got.Equal(at(c.want)) {
			t.Errorf("with the oldest of %d settled is %s, want %d", c.oldest, got.Sub(start), c.want)
		}
	}
	if len(l.list) != 0 {
		t.Errorf("%d are left", len(l.list))
	}
}
