package deadman

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Evidence is what is known of one host, or of the controller of one guest, at a
// slot time.
type Evidence struct {
	HostID     string // or guest id
	CustomerID string // empty: the fleet no longer names the host
	Site       string
	Lifecycle  hub.Lifecycle
	EnrollBy   time.Time // see hub.Host
	hub.Thresholds

	Last       hub.Position   // the newest accepted report
	LastAt     time.Time      // its received_at; zero: it never reported
	FirstAfter time.Time      // first report after Previous.Last; zero: Last is it
	Previous   *hub.HostState // nil: the switch never looked at this host

	Quiet Quiet
	Host  *HostSeen // of a guest: its host

	// Held keeps a new silence back: it is not decided in this evaluation.
	Held bool
}

// guest reports whether the evidence is of a guest's controller.
func (e Evidence) guest() bool { return isGuest(e.HostID) }

func isGuest(id string) bool { return strings.IndexByte(id, '/') >= 0 }

// hostOf returns the host that a guest runs on, or the host itself.
func hostOf(id string) string {
	host, _, _ := strings.Cut(id, "/")
	return host
}

// A host flaps when hub.FlapMemory silences, 30 % of flapSpan, began within
// flapSpan times its stale threshold, until fewer than calmBelow, 25 %, did.
const (
	flapSpan  = 20
	calmBelow = 5
)

// Step decides one host. It returns its new state, nil where nothing changed,
// and the events of the change in their order. It is a pure function.
//
//	first look              → the state as found, no event
//	ok                      → stale | down
//	stale                   → down
//	stale, down, a report   → ok, and from there as above
//	muted, and that is over → the same state, and it is told after all
//	paused                  → nothing, until it is active again
//	retired                 → an open silence is closed, and nobody is told
func Step(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	prev := e.Previous
	switch {
	case e.LastAt.IsZero():
		return neverReported(e, r)
	case prev == nil || prev.State == hub.NeverSeen:
		return firstLook(e, r)
	case e.Lifecycle == hub.Retired:
		return retire(e, r)
	case e.Lifecycle == hub.Paused:
		return pause(e, r)
	case !watched(prev):
		return resume(e, r)
	}
	return watch(e, r)
}

// watched reports whether the switch watched the host when it last decided. An
// older hub knew no other hosts.
func watched(s *hub.HostState) bool { return s.Lifecycle == "" || s.Lifecycle == hub.Active }

// neverReported raises one event when a host that is to report by a date did
// not, and the hub would have heard it.
func neverReported(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	if e.Lifecycle != hub.Active || e.EnrollBy.IsZero() || e.Previous != nil && e.Previous.Since.Equal(e.EnrollBy) {
		return nil, nil
	}
	at, ok := r.due(silence{lastAt: e.EnrollBy.Add(-r.Grace)}, r.Grace)
	if !ok {
		return nil, nil
	}
	next := &hub.HostState{HostID: e.HostID, CustomerID: e.CustomerID, State: hub.NeverSeen, Lifecycle: hub.Active, Since: e.EnrollBy, DecidedAt: r.T}
	if e.Previous != nil {
		next.DecidedAt = r.decidedAfter(e.Previous)
	}
	return next, []hub.Event{{
		ID:   hub.FleetEventID(hub.HostNeverReported, e.HostID+"\n"+stamp(e.EnrollBy)),
		Type: hub.HostNeverReported, CustomerID: e.CustomerID, HostID: e.HostID, At: at, DetectedAt: r.T, Source: "switch",
		Reason: fmt.Sprintf("no_report_until_enroll_by: enroll_by=%s", stamp(e.EnrollBy)),
	}}
}

func firstLook(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	if e.Lifecycle != hub.Active {
		return nil, nil // it is looked at when it is watched
	}
	state, since := r.verdict(silence{lastAt: e.LastAt}, e.Thresholds)
	next := &hub.HostState{HostID: e.HostID, CustomerID: e.CustomerID, State: state, Lifecycle: hub.Active, Since: since,
		Last: e.Last, LastAt: e.LastAt, Silent: state != hub.OK, DecidedAt: r.T}
	if e.Previous != nil {
		next.DecidedAt = r.decidedAfter(e.Previous)
	}
	return next, nil
}

// retire closes what is open. Should the host return, the switch knows of what
// it told.
func retire(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	prev := e.Previous
	if prev.Lifecycle == hub.Retired {
		return nil, nil
	}
	if e.CustomerID == "" {
		e.CustomerID = prev.CustomerID
	}
	next := r.follow(e)
	next.Lifecycle, next.Flapping, next.MutedBy = hub.Retired, hub.Position{}, ""
	var events []hub.Event
	for _, open := range []struct {
		what string
		last hub.Position
	}{{string(prev.State), openSilence(prev)}, {"flapping", prev.Flapping}} {
		if open.last == (hub.Position{}) {
			continue
		}
		event := newEvent(e, r, hub.HostRecovered, episode{open.last, prev.LastAt}, r.T, "retired")
		// Should the host return and be silent on, that may end once more.
		event.ID = hub.FleetEventID(event.Type, "retired\n"+open.what+"\n"+event.ID)
		event.SuppressedBy = "retired"
		events = append(events, event)
	}
	next.Silent, next.Silences = next.State != hub.OK, [hub.FlapMemory]time.Time{}
	return next, events
}

// openSilence returns the position that names the silence that stands in the log
// and goes on; zero: there is none.
func openSilence(s *hub.HostState) hub.Position {
	if s.State == hub.OK || s.Silent && s.MutedBy == "" {
		return hub.Position{}
	}
	return s.Last
}

func pause(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	if !watched(e.Previous) {
		return nil, nil
	}
	next := r.follow(e)
	next.Lifecycle = hub.Paused
	return next, nil
}

// resume watches a host again. From now on it has the grace to report; what was
// open before goes on.
func resume(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	next := r.follow(e)
	next.Lifecycle, next.WatchedFrom = hub.Active, r.T
	e.Previous = next
	if further, events := watch(e, r); further != nil {
		return further, events
	}
	return next, nil
}

// watch decides a host that is watched and reported before.
func watch(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	prev := e.Previous
	if prev.State != hub.OK && !e.LastAt.After(prev.LastAt) {
		return worsen(e, r)
	}
	next, changed := r.follow(e), false
	next.Last, next.LastAt = e.Last, e.LastAt
	var events []hub.Event
	if prev.State != hub.OK {
		next.State, next.Since, next.Silent, next.Fold, next.MutedBy, changed = hub.OK, e.firstAfter(), false, "", "", true
		events = append(events, endSilence(e, r, next.Since)...)
	}
	if state, since := e.verdict(r, silence{e.LastAt, prev.WatchedFrom}); state != hub.OK && !e.Held {
		next.State, next.Since, changed = state, since, true
		events = append(events, fallSilent(e, r, next)...)
	} else if over, ok := calm(next, e.Thresholds, r.T); ok {
		events = append(events, newEvent(e, r, hub.HostRecovered, episode{next.Flapping, time.Time{}}, over, "flapping_ended"))
		next.Flapping, next.Silences, changed = hub.Position{}, [hub.FlapMemory]time.Time{}, true
	}
	if !changed {
		return nil, nil
	}
	return next, events
}

// endSilence tells that a silence ended, to those who were told that it began.
func endSilence(e Evidence, r *Rule, at time.Time) []hub.Event {
	prev := e.Previous
	if openSilence(prev) == (hub.Position{}) {
		return nil
	}
	event := newEvent(e, r, hub.HostRecovered, episode{prev.Last, prev.LastAt}, at, "report_after_silence")
	if prev.Silent {
		mark(&event, prev.MutedBy)
	}
	return []hub.Event{event}
}

// verdict is the rule's, as far as it is known whose silence it is: a guest's own,
// or its host's.
func (e Evidence) verdict(r *Rule, s silence) (hub.State, time.Time) {
	if at, ok := r.due(s, e.DownAfter); ok && e.Host.witnessed(at) != unknown {
		return hub.Down, at
	}
	if at, ok := r.due(s, e.StaleAfter); ok && e.Host.witnessed(at) != unknown {
		return hub.Stale, at
	}
	return hub.OK, s.lastAt
}

// fallSilent tells of a silence that next has just been given, in the way that
// the silences before it ask for.
func fallSilent(e Evidence, r *Rule, next *hub.HostState) []hub.Event {
	if next.Flapping != (hub.Position{}) {
		remember(next, next.Since)
		return strike(e, r, next)
	}
	if by := e.Quiet.mute(next.Since, e.Host); by != "" {
		next.Silent, next.MutedBy = true, by
		event := silenceEvent(e, r, next.State, next.Since)
		mark(&event, by)
		return []hub.Event{event}
	}
	remember(next, next.Since)
	switch oldest := next.Silences[0]; {
	case next.State == hub.Stale && !oldest.IsZero() && next.Since.Sub(oldest) < flapSpan*e.StaleAfter:
		next.Flapping, next.Silent = e.Last, true
		return []hub.Event{newEvent(e, r, hub.HostFlapping, episode{e.Last, e.LastAt}, next.Since, "silences_in_a_row",
			"silences", hub.FlapMemory, "since", stamp(oldest))}
	default:
		return []hub.Event{silenceEvent(e, r, next.State, next.Since)}
	}
}

// remember notes when a silence began that counts as one of a host that flaps.
func remember(next *hub.HostState, began time.Time) {
	copy(next.Silences[:], next.Silences[1:])
	next.Silences[hub.FlapMemory-1] = began
}

// silenceEvent tells that the silence since the newest report is stale, or down.
func silenceEvent(e Evidence, r *Rule, state hub.State, at time.Time) hub.Event {
	if state == hub.Stale {
		return newEvent(e, r, hub.HostStale, episode{e.Last, e.LastAt}, at, "silence_reached_stale_after", "stale_after", e.StaleAfter)
	}
	return newEvent(e, r, hub.HostDown, episode{e.Last, e.LastAt}, at, "silence_reached_down_after", "down_after", e.DownAfter)
}

// strike keeps the silence of a flapping host to itself, unless it has gone on
// for two graces more than makes others down: then it does not flap, it is dead.
func strike(e Evidence, r *Rule, next *hub.HostState) []hub.Event {
	s := silence{next.LastAt, next.WatchedFrom}
	at, dead := r.due(s, e.DownAfter+2*r.Grace)
	if !dead || e.Host.witnessed(at) == unknown {
		next.Silent = true
		return nil
	}
	next.State, next.Since, next.Fold = hub.Down, at, ""
	next.Flapping, next.Silences = hub.Position{}, [hub.FlapMemory]time.Time{}
	event := newEvent(e, r, hub.HostDown, episode{next.Last, next.LastAt}, at, "flapping_host_silent_on", "down_after", e.DownAfter)
	next.MutedBy = e.Quiet.mute(at, e.Host)
	if next.Silent = next.MutedBy != ""; next.Silent {
		mark(&event, next.MutedBy)
	}
	return []hub.Event{event}
}

// calm returns the instant at which a flapping host that is ok had been calm for
// long enough, if that has come.
func calm(next *hub.HostState, t hub.Thresholds, now time.Time) (time.Time, bool) {
	if next.Flapping == (hub.Position{}) || next.State != hub.OK {
		return time.Time{}, false
	}
	over := latest(next.Silences[hub.FlapMemory-calmBelow].Add(flapSpan*t.StaleAfter), next.Since)
	return over, !over.After(now)
}

// worsen decides a host whose recorded silence goes on: stale becomes down, what
// was not told is told when the reason for that is over, and nothing else changes,
// however the thresholds did.
func worsen(e Evidence, r *Rule) (*hub.HostState, []hub.Event) {
	prev := e.Previous
	e.Last, e.LastAt = prev.Last, prev.LastAt
	next := r.follow(e)
	at, down := r.due(silence{prev.LastAt, prev.WatchedFrom}, e.DownAfter)
	down = down && prev.State == hub.Stale && e.Host.witnessed(at) != unknown
	if prev.Flapping != (hub.Position{}) {
		if events := strike(e, r, next); events != nil || !down {
			return changed(next, events)
		}
		next.State, next.Since = hub.Down, at
		return next, nil
	}
	if !down {
		return changed(next, tellAfterAll(e, r, next))
	}
	next.State, next.Since, next.Fold = hub.Down, at, ""
	event := silenceEvent(e, r, hub.Down, at)
	if next.MutedBy = e.Quiet.mute(at, e.Host); next.MutedBy != "" {
		mark(&event, next.MutedBy)
	} else {
		next.Silent = false
	}
	return next, []hub.Event{event}
}

// tellAfterAll tells of a silence that was not told, if the reason for that is over.
func tellAfterAll(e Evidence, r *Rule, next *hub.HostState) []hub.Event {
	if next.MutedBy == "" || e.Held {
		return nil
	}
	at, over := e.Quiet.over(muted{next.MutedBy, next.Since}, e.Host, r)
	if !over {
		return nil
	}
	event := silenceEvent(e, r, next.State, at)
	event.ID, event.Reason = hub.TellingID(event.ID), event.Reason+" not_told_before_by="+strconv.Quote(next.MutedBy)
	next.Silent, next.MutedBy = false, ""
	remember(next, at)
	return []hub.Event{event}
}

// toldLate reports whether an event tells of a silence that was recorded before.
func toldLate(event *hub.Event, s *hub.HostState) bool {
	return event.ID == hub.TellingID(hub.EventID(event.Type, s.HostID, s.Last))
}

// changed returns nothing where there are no events.
func changed(next *hub.HostState, events []hub.Event) (*hub.HostState, []hub.Event) {
	if events == nil {
		return nil, nil
	}
	return next, events
}

// follow returns a copy of the previous state, decided now.
func (r *Rule) follow(e Evidence) *hub.HostState {
	next := *e.Previous
	next.CustomerID, next.DecidedAt = e.CustomerID, r.decidedAfter(e.Previous)
	if next.Lifecycle == "" {
		next.Lifecycle = hub.Active
	}
	if e.LastAt.After(next.WatchedFrom) {
		next.WatchedFrom = time.Time{}
	}
	return &next
}

// decidedAfter is T, or right after prev where the clock stepped back: a host's
// newest decision is the one with the latest time.
func (r *Rule) decidedAfter(prev *hub.HostState) time.Time {
	if r.T.After(prev.DecidedAt) {
		return r.T
	}
	return prev.DecidedAt.Add(time.Millisecond)
}

func (e Evidence) firstAfter() time.Time {
	if e.FirstAfter.IsZero() {
		return e.LastAt
	}
	return e.FirstAfter
}

// episode is one silence: the last report before it.
type episode struct {
	last   hub.Position
	lastAt time.Time // zero: it is not about the length of a silence
}

// ofController is what the events of a host are called for a controller.
var ofController = map[hub.EventType]hub.EventType{
	hub.HostStale: hub.ControllerStale, hub.HostDown: hub.ControllerDown,
	hub.HostRecovered: hub.ControllerRecovered, hub.HostFlapping: hub.ControllerFlapping,
}

// name is what an event of a host is called for whom the evidence is of.
func (e Evidence) name(t hub.EventType) hub.EventType {
	if e.guest() {
		return ofController[t]
	}
	return t
}

// newEvent makes an event whose reason names the rule, and the figures that led
// to it.
func newEvent(e Evidence, r *Rule, t hub.EventType, of episode, at time.Time, rule string, figures ...any) hub.Event {
	event := hub.Event{
		Type:       t,
		CustomerID: e.CustomerID,
		HostID:     hostOf(e.HostID),
		At:         at,
		DetectedAt: r.T,
		Episode:    hub.EpisodeID(e.HostID, of.last.Text()),
		Source:     "switch",
		Reason:     rule,
	}
	if e.guest() {
		event.Type, event.GuestID = e.name(t), e.HostID
	}
	event.ID = hub.EventID(event.Type, e.HostID, of.last)
	if of.lastAt.IsZero() {
		return event
	}
	event.SilenceSeconds = at.Sub(of.lastAt).Seconds()
	event.Reason += fmt.Sprintf(": last=%s blind=%s grace=%s", stamp(of.lastAt), r.Blind.Blind(of.lastAt, at), r.Grace)
	for i := 0; i+1 < len(figures); i += 2 {
		event.Reason += fmt.Sprintf(" %s=%v", figures[i], figures[i+1])
	}
	return event
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
