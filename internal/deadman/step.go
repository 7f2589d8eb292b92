package deadman

import (
	"fmt"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Evidence is what is known of one host at a slot time.
type Evidence struct {
	HostID     string
	CustomerID string
	Last       hub.Position   // the newest accepted report
	LastAt     time.Time      // its received_at
	FirstAfter time.Time      // first report after Previous.Last; zero: Last is it
	Previous   *hub.HostState // nil: the switch never looked at this host
}

// Rule is what one evaluation is judged by.
type Rule struct {
	hub.Thresholds
	Ready time.Time // since when the hub could accept reports; silence before it does not count
	T     time.Time // the slot time of the evaluation
}

// reached returns the instant at which the silence since the last report
// reached d. The silence is T − max(last report, ready).
func (r Rule) reached(lastAt time.Time, d time.Duration) time.Time {
	from := lastAt
	if r.Ready.After(from) {
		from = r.Ready
	}
	return from.Add(d)
}

// verdict returns the state that a host with this last report has at T, and
// since when. A silence of exactly the threshold counts.
func (r Rule) verdict(lastAt time.Time) (hub.State, time.Time) {
	if at := r.reached(lastAt, r.DownAfter); !r.T.Before(at) {
		return hub.Down, at
	}
	if at := r.reached(lastAt, r.StaleAfter); !r.T.Before(at) {
		return hub.Stale, at
	}
	return hub.OK, lastAt
}

// decidedAfter is T, or right after prev where the clock stepped back: a host's
// newest decision is the one with the latest time.
func (r Rule) decidedAfter(prev *hub.HostState) time.Time {
	if r.T.After(prev.DecidedAt) {
		return r.T
	}
	return prev.DecidedAt.Add(time.Millisecond)
}

// Step decides one host. It returns its new state, nil where nothing changed,
// and the events of the change in their order. It is a pure function.
//
//	first look              → the state as found, no event
//	ok                      → stale | down
//	stale                   → down
//	stale, down, a report   → ok, and from there as above
func Step(e Evidence, r Rule) (*hub.HostState, []hub.Event) {
	state, since := r.verdict(e.LastAt)
	next := &hub.HostState{HostID: e.HostID, State: state, Since: since, Last: e.Last, LastAt: e.LastAt, DecidedAt: r.T}
	prev := e.Previous
	if prev == nil {
		next.Silent = state != hub.OK
		return next, nil
	}
	next.DecidedAt = r.decidedAfter(prev)
	if prev.State != hub.OK && !e.LastAt.After(prev.LastAt) {
		return worsen(e, r)
	}
	var events []hub.Event
	if prev.State != hub.OK && !prev.Silent {
		events = append(events, newEvent(e, r, hub.HostRecovered, prev.Last, prev.LastAt, e.firstAfter()))
	}
	switch state {
	case hub.Down:
		events = append(events, newEvent(e, r, hub.HostDown, e.Last, e.LastAt, since))
	case hub.Stale:
		events = append(events, newEvent(e, r, hub.HostStale, e.Last, e.LastAt, since))
	default:
		if prev.State == hub.OK {
			return nil, nil
		}
		next.Since = e.firstAfter()
	}
	return next, events
}

// worsen decides a host whose recorded silence goes on: stale becomes down, and
// nothing else changes, however the verdict moved with Ready.
func worsen(e Evidence, r Rule) (*hub.HostState, []hub.Event) {
	next := *e.Previous
	state, since := r.verdict(next.LastAt)
	if next.State != hub.Stale || state != hub.Down {
		return nil, nil
	}
	next.State, next.Since, next.Silent, next.DecidedAt = hub.Down, since, false, r.decidedAfter(e.Previous)
	return &next, []hub.Event{newEvent(e, r, hub.HostDown, next.Last, next.LastAt, since)}
}

func (e Evidence) firstAfter() time.Time {
	if e.FirstAfter.IsZero() {
		return e.LastAt
	}
	return e.FirstAfter
}

func newEvent(e Evidence, r Rule, t hub.EventType, last hub.Position, lastAt, at time.Time) hub.Event {
	return hub.Event{
		ID:             hub.EventID(t, e.HostID, last),
		Type:           t,
		CustomerID:     e.CustomerID,
		HostID:         e.HostID,
		At:             at,
		DetectedAt:     r.T,
		SilenceSeconds: at.Sub(lastAt).Seconds(),
		Reason:         reason(t, r, lastAt),
		Source:         "switch",
	}
}

// reason names the rule and the figures that led to the event.
func reason(t hub.EventType, r Rule, lastAt time.Time) string {
	switch t {
	case hub.HostRecovered:
		return "report_after_silence"
	case hub.HostDown:
		return fmt.Sprintf("silence_reached_down_after: last=%s ready=%s down_after=%s", stamp(lastAt), stamp(r.Ready), r.DownAfter)
	default:
		return fmt.Sprintf("silence_reached_stale_after: last=%s ready=%s stale_after=%s", stamp(lastAt), stamp(r.Ready), r.StaleAfter)
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
