package roster

import (
	"testing"
	"time"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/hub"
)

// TestSameHostLooksAtWindows: a change of nothing but deadlines or windows is one,
// and what a schedule was asked is none.
func TestSameHostLooksAtWindows(t *testing.T) {
	host := func(every string, deadline time.Duration) *hub.Host {
		schedule, err := calendar.NewRecurring(calendar.Rule{Every: every, Start: "2026-01-13T22:00:00", Zone: time.UTC, Duration: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return &hub.Host{ID: "acme-1", Deadlines: hub.Deadlines{deadline}, Maintenance: []hub.Window{{Name: "nights", Schedule: schedule}}}
	}
	a := host("FREQ=DAILY", time.Hour)
	a.Maintenance[0].Schedule.At(time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC))
	if !sameHost(a, host("FREQ=DAILY", time.Hour)) {
		t.Error("equal hosts differ")
	}
	if sameHost(a, host("FREQ=WEEKLY", time.Hour)) || sameHost(a, host("FREQ=DAILY", 2*time.Hour)) {
		t.Error("other hosts are the same")
	}
}
