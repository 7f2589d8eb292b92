package deadman

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// DeadlineEvidence is what is known of one deadline of one guest at a slot time. All
// of it is as ClickHouse had it at one moment, at which it knew the host's newest
// report and all successes until then.
type DeadlineEvidence struct {
	GuestID    string
	Deadline   hub.Deadline
	CustomerID string
	Lifecycle  hub.Lifecycle // of the host
	Limit      time.Duration // zero: it is not watched
	Quiet      Quiet

	Base       time.Time // the newest success, or the first sight where that is later
	FirstAfter time.Time // first success after Previous.Base; zero: Base is it
	Present    bool      // the host's newest report lists the guest
	Host       HostSeen  // LastAt is that report's
	Controller time.Time // received_at of the newest report of the guest's controller, which tells of backups too; zero: there is none that is heard
	Previous   *hub.DeadlineState
}

// DecidedDeadline is the new state of a deadline, and the events of the change.
type DecidedDeadline struct {
	State  hub.DeadlineState
	Events []hub.Event
}

// StepDeadline decides one deadline. It returns its new state, nil where nothing
// changed, and the events of the change in their order. It is a pure function.
//
// A deadline that passed at an instant is missed when the host reported at that
// instant or later and told of no success: so neither an outage of the hub nor one of
// the host makes it look missed, and no clock but the hub's has a part in it. While
// the host is down, nobody is told of it but by the host's event.
//
//	met                     → overdue
//	overdue, a success      → met, and from there as above
//	muted, and that is over → overdue, and it is told after all
//	the guest or the deadline is gone, the host retired → closed, and nobody is told
func StepDeadline(e DeadlineEvidence, r *Rule) (*hub.DeadlineState, []hub.Event) {
	prev := e.Previous
	overdue := prev != nil && prev.Overdue
	gone := e.gone()
	switch {
	case overdue && gone != "":
		return closeDeadline(e, r, gone)
	case gone != "" || e.Lifecycle != hub.Active:
		return nil, nil
	case overdue && e.Base.After(prev.Base):
		return meet(e, r)
	case overdue:
		return tellDeadline(e, r, follow(e, r))
	}
	return miss(e, r)
}

// gone says why the deadline is none any more; empty: it is one.
func (e DeadlineEvidence) gone() string {
	switch {
	case e.Lifecycle == hub.Retired:
		return "retired"
	case e.Limit == 0:
		return "deadline_removed"
	case !e.Present:
		return "guest_gone"
	}
	return ""
}

// follow returns a copy of the previous state, decided now.
func follow(e DeadlineEvidence, r *Rule) *hub.DeadlineState {
	next := hub.DeadlineState{GuestID: e.GuestID, Deadline: e.Deadline, DecidedAt: r.T}
	if e.Previous != nil {
		next = *e.Previous
		if next.DecidedAt = r.T; !r.T.After(e.Previous.DecidedAt) { // the clock stepped back
			next.DecidedAt = e.Previous.DecidedAt.Add(time.Millisecond)
		}
	}
	if e.CustomerID != "" {
		next.CustomerID = e.CustomerID
	}
	return &next
}

func miss(e DeadlineEvidence, r *Rule) (*hub.DeadlineState, []hub.Event) {
	next := follow(e, r)
	next.Base = latest(e.Base, next.Base) // what ClickHouse no longer has was so all the same
	if next.Base.After(base(e.Previous)) {
		next.Closed = time.Time{}
	}
	at := latest(next.Base.Add(e.Limit), next.Closed)
	if at.After(r.T) || e.Host.witnessed(at) == unknown || !e.Controller.IsZero() && e.Controller.Before(at) {
		return nil, nil
	}
	next.Overdue, next.Since = true, at
	next.MutedBy = e.Quiet.mute(at, &e.Host)
	event := overdueEvent(e, r, next, at)
	if next.MutedBy != "" {
		mark(&event, next.MutedBy)
	}
	return next, []hub.Event{event}
}

func base(s *hub.DeadlineState) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.Base
}

// tellDeadline tells of what was not told, if the reason for that is over.
func tellDeadline(e DeadlineEvidence, r *Rule, next *hub.DeadlineState) (*hub.DeadlineState, []hub.Event) {
	if next.MutedBy == "" {
		return nil, nil
	}
	at, over := e.Quiet.over(muted{next.MutedBy, next.Since}, &e.Host, r)
	if !over {
		return nil, nil
	}
	event := overdueEvent(e, r, next, at)
	event.ID, event.Reason = hub.TellingID(event.ID), event.Reason+" not_told_before_by="+strconv.Quote(next.MutedBy)
	next.MutedBy = ""
	return next, []hub.Event{event}
}

func meet(e DeadlineEvidence, r *Rule) (*hub.DeadlineState, []hub.Event) {
	at := e.FirstAfter
	if at.IsZero() {
		at = e.Base
	}
	event := metEvent(e, r, at, "success")
	if e.Previous.MutedBy != "" {
		mark(&event, e.Previous.MutedBy)
	}
	next := follow(e, r)
	next.Overdue, next.Base, next.Since, next.MutedBy, next.Closed = false, e.Base, at, "", time.Time{}
	e.Previous = next
	if again, events := miss(e, r); again != nil {
		return again, append([]hub.Event{event}, events...)
	}
	return next, []hub.Event{event}
}

func closeDeadline(e DeadlineEvidence, r *Rule, why string) (*hub.DeadlineState, []hub.Event) {
	event := metEvent(e, r, r.T, why)
	// What returns may be overdue still, and be closed once more.
	event.ID = hub.FleetEventID(event.Type, fmt.Sprintf("closed\n%d\n%s", e.Previous.Since.UnixMilli(), event.ID))
	event.SuppressedBy = why
	next := follow(e, r)
	next.Overdue, next.Since, next.MutedBy, next.Closed = false, r.T, "", r.T
	return next, []hub.Event{event}
}

func overdueEvent(e DeadlineEvidence, r *Rule, s *hub.DeadlineState, at time.Time) hub.Event {
	event := deadlineEvent(e, r, e.Deadline.Overdue(), s.Base, at)
	event.Reason = fmt.Sprintf("no_success_within_limit: last=%s limit=%s host_reported=%s", stamp(s.Base), e.Limit, stamp(e.Host.LastAt))
	if !s.Closed.IsZero() {
		event.ID = hub.FleetEventID(event.Type, fmt.Sprintf("returned\n%d\n%s", s.Closed.UnixMilli(), event.ID))
	}
	return event
}

func metEvent(e DeadlineEvidence, r *Rule, at time.Time, rule string) hub.Event {
	event := deadlineEvent(e, r, e.Deadline.Met(), e.Previous.Base, at)
	event.Reason = fmt.Sprintf("%s: last=%s", rule, stamp(e.Previous.Base))
	return event
}

func deadlineEvent(e DeadlineEvidence, r *Rule, t hub.EventType, base, at time.Time) hub.Event {
	return hub.Event{
		ID: hub.DeadlineEventID(t, e.GuestID, base), Type: t, CustomerID: e.CustomerID, HostID: hostOf(e.GuestID), GuestID: e.GuestID,
		At: at, DetectedAt: r.T, SilenceSeconds: at.Sub(base).Seconds(), Source: "switch",
		Episode: hub.EpisodeID(e.GuestID+"\n"+e.Deadline.String(), strconv.FormatInt(base.UnixMilli(), 10)),
	}
}

// judgeDeadlines evaluates what has to succeed again and again. It comes after the
// hosts, whose trouble it may be.
func (s *Switch) judgeDeadlines(ctx context.Context, rule *Rule) error {
	oldest, doubt := s.o.Backlog.Behind()
	if doubt || s.o.Deadlines == nil {
		return nil // where there is doubt, ClickHouse may have lost successes; whether it did is being asked
	}
	cuts, named := s.deadlineCuts(rule)
	if cuts == [3]time.Time{} && len(named) == 0 {
		return nil
	}
	found, err := s.o.Deadlines.Overdue(ctx, cuts, named)
	if err != nil {
		return fmt.Errorf("the query for overdue deadlines failed: %w", err)
	}
	evidence := s.deadlineEvidence(rule, found, oldest)
	if err := s.completeDeadlines(ctx, evidence, rule.T); err != nil {
		return fmt.Errorf("the query for deadlines failed: %w", err)
	}
	var decided []DecidedDeadline
	for i := range evidence {
		if state, events := StepDeadline(evidence[i], rule); state != nil {
			decided = append(decided, DecidedDeadline{*state, events})
		}
	}
	var alarms []*hub.Event
	for i := range decided {
		alarms = appendAlarms(alarms, decided[i].Events)
	}
	s.describe(ctx, alarms)
	return s.recordDeadlines(ctx, decided)
}

// namedGuests is the number of guests that are asked for by name; of more, all are.
const namedGuests = 20_000

// deadlineCuts returns the instants up to which a success, or first sight, may make a
// guest overdue at T by anybody's limit, and the guests that are overdue by now.
func (s *Switch) deadlineCuts(rule *Rule) (cuts [3]time.Time, named []string) {
	for d, limit := range s.survey.shortest {
		if limit > 0 {
			cuts[d] = rule.T.Add(-limit)
		}
	}
	for _, state := range s.memory.deadlines {
		if state.Overdue {
			named = append(named, state.GuestID)
		}
	}
	slices.Sort(named)
	if named = slices.Compact(named); len(named) > namedGuests {
		return [3]time.Time{rule.T, rule.T, rule.T}, nil
	}
	return cuts, named
}

// shortestLimits returns the shortest limit of each deadline that any host has that is watched.
func shortestLimits(fleet *hub.Fleet) (shortest hub.Deadlines) {
	for h := range fleet.Hosts() {
		if h.Lifecycle != hub.Active {
			continue
		}
		for d, limit := range fleet.Deadlines(h) {
			if limit > 0 && (shortest[d] == 0 || limit < shortest[d]) {
				shortest[d] = limit
			}
		}
	}
	return shortest
}

// deadlineEvidence returns that of the deadlines which may change.
func (s *Switch) deadlineEvidence(rule *Rule, found []clickhouse.GuestSuccess, oldest time.Time) []DeadlineEvidence {
	var evidence []DeadlineEvidence
	for i := range found {
		g := &found[i]
		var limits hub.Deadlines
		if h, ok := s.fleet.Host(g.HostID); ok {
			limits = s.fleet.Deadlines(h)
		}
		for _, d := range hub.AllDeadlines() {
			passed := limits[d] > 0 && !latest(g.FirstSeen, g.Newest[d]).Add(limits[d]).After(rule.T)
			if previous := s.memory.deadline(g.HostID, g.VMID, d); !passed && (previous == nil || !previous.Overdue) {
				continue // as most of them
			}
			if e := s.deadlineOf(s.fleet, g, d, oldest); e.mayChange() {
				evidence = append(evidence, e)
			}
		}
	}
	return evidence
}

// deadlineOf joins what ClickHouse knows of a guest's deadline with what was decided of
// it.
func (s *Switch) deadlineOf(fleet *hub.Fleet, g *clickhouse.GuestSuccess, d hub.Deadline, oldest time.Time) DeadlineEvidence {
	e := DeadlineEvidence{
		GuestID: hub.GuestID(g.HostID, g.VMID), Deadline: d, Lifecycle: hub.Retired,
		Base: latest(g.FirstSeen, g.Newest[d]), Present: g.Present,
		Host: HostSeen{State: s.memory.peek(g.HostID), LastAt: g.HostLastAt}, Previous: s.memory.deadline(g.HostID, g.VMID, d),
	}
	if h, ok := fleet.Host(g.HostID); ok {
		e.CustomerID, e.Lifecycle, e.Limit, e.Quiet.Windows = h.Customer, h.Lifecycle, fleet.Deadlines(h)[d], fleet.Windows(h)
	}
	if d == hub.BackupDeadline {
		e.Controller = s.controllerHeard(e.GuestID, oldest)
	}
	return e
}

// mayChange leaves out what is overdue as it was, in every evaluation.
func (e *DeadlineEvidence) mayChange() bool {
	p := e.Previous
	return p == nil || !p.Overdue || e.Base.After(p.Base) || p.MutedBy != "" || e.gone() != ""
}

// controllerHeard returns when the controller of a guest last reported, if it is
// heard. The successes of a report that ClickHouse does not have yet are not known: for
// that one it is worth waiting.
func (s *Switch) controllerHeard(guest string, oldest time.Time) time.Time {
	state := s.memory.peek(guest)
	if state == nil || state.State != hub.OK {
		return time.Time{}
	}
	switch seen, ok := s.o.LastSeen(guest); {
	case !ok:
		return state.LastAt
	case oldest.IsZero() || seen.ReceivedAt.Before(oldest):
		return seen.ReceivedAt
	}
	return time.UnixMilli(0)
}

// completeDeadlines looks up which success ended what was overdue, and what the hosts'
// agents announced.
func (s *Switch) completeDeadlines(ctx context.Context, evidence []DeadlineEvidence, t time.Time) error {
	if len(evidence) == 0 {
		return nil
	}
	var after [3]map[string]time.Time
	oldest := t
	for i := range evidence {
		e := &evidence[i]
		oldest = earlier(oldest, e.Host.LastAt)
		if p := e.Previous; p != nil && p.Overdue && e.Base.After(p.Base) {
			if after[e.Deadline] == nil {
				after[e.Deadline] = map[string]time.Time{}
			}
			after[e.Deadline][e.GuestID] = p.Base
		}
	}
	var first [3]map[string]time.Time
	for _, d := range hub.AllDeadlines() {
		if len(after[d]) == 0 {
			continue
		}
		var err error
		if first[d], err = s.o.Deadlines.FirstSuccesses(ctx, d, after[d]); err != nil {
			return err
		}
	}
	announced, err := s.announcements(ctx, oldest, t)
	for i := range evidence {
		e := &evidence[i]
		e.Quiet.announce(announced(hostOf(e.GuestID)))
		e.FirstAfter = first[e.Deadline][e.GuestID]
	}
	return err
}

// recordDeadlines writes what was decided to the spool, each state with its events,
// and remembers what is durable.
func (s *Switch) recordDeadlines(ctx context.Context, decided []DecidedDeadline) error {
	slices.SortFunc(decided, func(a, b DecidedDeadline) int {
		if c := strings.Compare(a.State.GuestID, b.State.GuestID); c != 0 {
			return c
		}
		return int(a.State.Deadline) - int(b.State.Deadline)
	})
	for part := range slices.Chunk(decided, hostsPerRecord) {
		var d hub.Decision
		for _, one := range part {
			d.Deadlines = append(d.Deadlines, one.State)
			d.Events = append(d.Events, one.Events...)
		}
		if err := s.append(ctx, d); err != nil {
			return err
		}
		for i := range part {
			s.memory.putDeadline(part[i].State)
		}
	}
	return nil
}
