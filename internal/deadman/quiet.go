package deadman

import (
	"strings"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// Quiet is when nobody wants to be told of a host and its guests.
type Quiet struct {
	Windows []hub.Window
	From    time.Time // the report in which the agent announced maintenance
	Until   time.Time // until when; zero: it did not
}

func (q *Quiet) announce(a clickhouse.Announcement) { q.From, q.Until = a.At, a.Until }

// announcedBy is what says that the agent itself announced its maintenance.
const announcedBy = "maintenance announced by the agent"

// At returns why nobody is told of what happens at t, and the first instant after it
// at which that is over; windows that touch are one. Empty: it is told.
func (q Quiet) At(t time.Time) (by string, until time.Time) {
	for until = t; ; {
		why, to := q.opening(until)
		if why == "" || !to.After(until) {
			return by, until
		}
		if by == "" {
			by = why
		}
		until = to
	}
}

// opening returns the longest one that t lies in.
func (q Quiet) opening(t time.Time) (by string, to time.Time) {
	if !t.Before(q.From) && t.Before(q.Until) {
		by, to = announcedBy, q.Until
	}
	for _, w := range q.Windows {
		if _, end, open := w.Schedule.At(t); open && end.After(to) {
			by, to = "maintenance "+w.Owner.String()+"/"+w.Name, end
		}
	}
	return by, to
}

// HostSeen is what a guest's evidence says of the host that it runs on.
type HostSeen struct {
	State  *hub.HostState // as recorded; nil: the switch never looked at it
	LastAt time.Time      // received_at of its newest report
}

// A guest's trouble is its host's where the host is down. Until that is known, or
// the host was heard after the trouble began, there is no verdict.
type witness uint8

const (
	own     witness = iota // the host was heard since: the trouble is the guest's own
	unknown                // the host may be about to fall silent
	caused                 // the host is down
)

// witnessed tells whose trouble it is that began at an instant. A host speaks for
// itself; so does a guest whose host never reported.
func (h *HostSeen) witnessed(at time.Time) witness {
	switch {
	case h == nil || h.LastAt.IsZero() || !h.LastAt.Before(at):
		return own
	case h.State != nil && h.State.State == hub.Down:
		return caused
	}
	return unknown
}

// hostSilent is why nobody is told of the guests of a host that was found silent when
// the switch first looked at it.
const hostSilent = "host_silent_at_first_look"

// causedPrefix stands in HostState.MutedBy before the id of an event.
const causedPrefix = "event "

// alarm returns what tells of a host that is down in the place of its guests' events.
func (h *HostSeen) alarm() string {
	s := h.State
	switch {
	case s.Flapping != (hub.Position{}):
		return causedPrefix + hub.EventID(hub.HostFlapping, s.HostID, s.Flapping)
	case s.Silent && s.MutedBy == "":
		return hostSilent
	}
	return causedPrefix + hub.EventID(hub.HostDown, s.HostID, s.Last)
}

// mute returns why nobody is told of what happened at an instant; empty: it is told.
func (q Quiet) mute(at time.Time, host *HostSeen) string {
	if by, _ := q.At(at); by != "" {
		return by
	}
	if host.witnessed(at) == caused {
		return host.alarm()
	}
	return ""
}

// mark notes on an event why it is not told.
func mark(event *hub.Event, by string) {
	if id, ok := strings.CutPrefix(by, causedPrefix); ok {
		event.CausedBy = id
	} else {
		event.SuppressedBy = by
	}
}

// muted is trouble that was recorded and not told.
type muted struct {
	by    string
	since time.Time // when it began
}

// over returns the instant at which what muted it was over and it was the subject's
// own trouble, if that has come. A host that came back gives its guests the grace.
func (q Quiet) over(m muted, host *HostSeen, r *Rule) (time.Time, bool) {
	from := m.since
	if m.by == hostSilent || strings.HasPrefix(m.by, causedPrefix) {
		if host == nil || host.State == nil || host.State.State != hub.OK {
			return time.Time{}, false
		}
		from = latest(from, r.Blind.Advance(host.State.Since, r.Grace))
	}
	_, until := q.At(from)
	return until, !until.After(r.T) && host.witnessed(until) == own
}
