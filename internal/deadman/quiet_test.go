package deadman

import (
	"testing"
	"time"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/hub"
)

// A window of a zone lasts across the change to summer time and back, and windows that
// touch are one.
func TestQuietAcrossSummerTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	night, err := calendar.NewRecurring(calendar.Rule{Every: "FREQ=DAILY", Start: "2026-01-01T22:00:00", Zone: berlin, Duration: 5 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	announced := time.Date(2026, 3, 29, 4, 30, 0, 0, berlin)
	q := Quiet{Windows: []hub.Window{{Name: "night", Owner: hub.FleetOwner(), Schedule: night}}, From: announced.Add(-time.Hour), Until: announced}
	for at, until := range map[time.Time]time.Time{
		time.Date(2026, 1, 10, 23, 0, 0, 0, berlin):                      time.Date(2026, 1, 11, 3, 0, 0, 0, berlin),
		time.Date(2026, 3, 28, 23, 0, 0, 0, berlin):                      time.Date(2026, 3, 29, 4, 30, 0, 0, berlin), // 5 h end at 4:00, the announcement goes on
		time.Date(2026, 10, 24, 23, 0, 0, 0, berlin):                     time.Date(2026, 10, 25, 2, 0, 0, 0, time.FixedZone("CET", 3600)),
		time.Date(2026, 10, 24, 21, 59, 0, 0, berlin):                    {},
		time.Date(2026, 10, 25, 2, 0, 0, 0, time.FixedZone("CET", 3600)): {},
	} {
		by, got := q.At(at)
		if until.IsZero() {
			if by != "" {
				t.Errorf("%s is muted by %s until %s", at, by, got)
			}
		} else if by != "maintenance fleet/night" || !got.Equal(until) {
			t.Errorf("%s is muted by %q until %s, want %s", at, by, got, until)
		}
	}
}
