package hub

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// EventQuery asks for events. What is empty or zero does not matter, but for the
// first two: they say whose data the reader may see.
type EventQuery struct {
	Everybody bool   // a global key's: events of all customers, and the operators'
	Customer  string // where not Everybody: this customer's alone

	Host  string
	Guest string
	Type  EventType
	Since time.Time // found then or later
	Until time.Time // found earlier
	After EventPlace
	Limit int // at least 1
}

// EventPlace is a place in the order of events: that in which they were found, and of
// those found at one instant that in which they began. It says where, and nothing of
// whose events are read. The zero place is before all events.
type EventPlace struct {
	DetectedAt time.Time
	At         time.Time
	ID         string
}

// Place returns the place of an event.
func (e *Event) Place() EventPlace { return EventPlace{e.DetectedAt, e.At, e.ID} }

const eventIDBytes = 16

var errEventPlace = errors.New("no place in the order of events")

// Text is the form that ParseEventPlace reads.
func (p EventPlace) Text() string {
	if p == (EventPlace{}) {
		return "0"
	}
	return strconv.FormatInt(p.DetectedAt.UnixMilli(), 10) + "." + strconv.FormatInt(p.At.UnixMilli(), 10) + "." + p.ID
}

// ParseEventPlace reads a place.
func ParseEventPlace(text string) (EventPlace, error) {
	if text == "0" {
		return EventPlace{}, nil
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return EventPlace{}, errEventPlace
	}
	detected, err := strconv.ParseInt(parts[0], 10, 64)
	at, err2 := strconv.ParseInt(parts[1], 10, 64)
	id, err3 := hex.DecodeString(parts[2])
	p := EventPlace{time.UnixMilli(detected).UTC(), time.UnixMilli(at).UTC(), parts[2]}
	if errors.Join(err, err2, err3) != nil || len(id) != eventIDBytes || !KeptInstant(p.DetectedAt) || p.At.Year() < 1900 || p.At.Year() > 2262 || p.Text() != text {
		return EventPlace{}, errEventPlace
	}
	return p, nil
}

// KeptInstant reports whether t is an instant at which something can have been found.
func KeptInstant(t time.Time) bool { return t.Year() >= 1970 && t.Year() < 2262 }
