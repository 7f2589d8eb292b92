// Package calendar says when a maintenance window is open: once, or again and
// again by a recurrence rule of RFC 5545 in a time zone.
//
// A rule counts in the clock on the wall, and only what it gives is turned into
// instants, by [instant]: so a window that opens at 22:00 opens at 22:00 in
// summer and in winter, and what happens in the hour that a change of the clocks
// skips or doubles is decided here and not by the library of rules. How long a
// window is open is elapsed time, whatever the clocks do meanwhile.
//
// The zones are in the binary, so that it needs none of the machine (450 KB).
package calendar

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // where the machine has no zones of its own

	"felhom.eu/hub/internal/hub"
)

// MaxDuration is the longest time that a window is open.
const MaxDuration = 31 * 24 * time.Hour

// Schedule is a hub.Schedule of which people can be told. Equal ones have equal
// texts (String).
type Schedule interface {
	hub.Schedule
	fmt.Stringer

	// Openings returns those of which a part lies in from ≤ t < to, in the order
	// in which they begin.
	Openings(from, to time.Time) []Opening

	// End returns when the last opening closes; false: there is no last one.
	End() (time.Time, bool)

	// Zone is the one in which people think of it.
	Zone() *time.Location
}

// Opening is a time in which a window is open: From ≤ t < To.
type Opening struct{ From, To time.Time }

// Once is the schedule of a window that opens a single time.
type Once Opening

// NewOnce makes the schedule of a window that is open for from ≤ t < to.
func NewOnce(from, to time.Time) (Once, error) {
	o := Once{From: from.UTC(), To: to.UTC()}
	switch {
	case !o.From.Before(o.To):
		return Once{}, mistake("to", "it closes before it opens", "to is later than from")
	case o.To.Sub(o.From) > MaxDuration:
		return Once{}, mistake("to", fmt.Sprintf("it is open for %s", short(o.To.Sub(o.From))), "at most 31 days")
	}
	return o, nil
}

// At implements hub.Schedule.
func (o Once) At(t time.Time) (from, to time.Time, open bool) {
	if t.Before(o.From) || !t.Before(o.To) {
		return time.Time{}, time.Time{}, false
	}
	return o.From, o.To, true
}

// Openings implements Schedule.
func (o Once) Openings(from, to time.Time) []Opening {
	if !o.From.Before(to) || !from.Before(o.To) {
		return nil
	}
	return []Opening{Opening(o)}
}

// End implements Schedule.
func (o Once) End() (time.Time, bool) { return o.To, true }

// Zone implements Schedule.
func (o Once) Zone() *time.Location { return time.UTC }

// String returns "from 2026-12-01T21:00:00Z to 2026-12-02T01:00:00Z".
func (o Once) String() string {
	return "from " + o.From.Format(time.RFC3339Nano) + " to " + o.To.Format(time.RFC3339Nano)
}

// Zone returns the time zone of this name of the IANA's list, as Europe/Berlin.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if name == "" || name == "Local" || err != nil {
		return nil, mistake("timeZone", fmt.Sprintf("%q is no time zone", name), "as Europe/Berlin or UTC")
	}
	return zone, nil
}

// Mistake is what is wrong with a schedule.
type Mistake struct {
	Field   string // to, every, start, timeZone or duration
	Message string
	Hint    string // may be empty
}

func (m *Mistake) Error() string {
	return strings.TrimSuffix(m.Field+": "+m.Message+" ("+m.Hint+")", " ()")
}

func mistake(field, message, hint string) error {
	return &Mistake{Field: field, Message: message, Hint: hint}
}

// short writes a duration as files do: 4h, 1h30m, 2d.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
