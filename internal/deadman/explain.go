package deadman

import (
	"context"
	"fmt"
	"strings"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// Records are what ClickHouse keeps of single hosts, for [Switch.Explain].
type Records interface {
	// LastReportUntil returns the newest report received at t or before, if there is one.
	LastReportUntil(ctx context.Context, host string, t time.Time) (clickhouse.Silence, bool, error)
	// StateBefore returns the newest state decided before t; nil: there is none.
	StateBefore(ctx context.Context, host string, t time.Time) (*hub.HostState, error)
	// EventsOf returns the newest events found at t or before, newest first; of a host
	// those of its guests too.
	EventsOf(ctx context.Context, host string, t time.Time, most int) ([]hub.Event, error)
	// GuestsOf returns the ids of the guests that the host's newest report lists.
	GuestsOf(ctx context.Context, host string) ([]string, error)
}

// Explanation is what is known of one host, or of the controller of one guest, at an
// instant, and what the rule makes of it. The decision is Step's; everything else
// shows what Step went by.
type Explanation struct {
	T        time.Time
	Evidence          // of a past instant: with the fleet in force now
	Enrolled bool     // the fleet in force names the host
	Source   string   // who knows the last report: "hub", its own index, or "clickhouse"
	Unsure   []string // what could not be asked: without it the answer may be another

	Silence SilenceSeen
	Stale   time.Time // when the silence is, or will be, stale if nothing comes and the hub stays ready
	Down    time.Time // the same for down

	State  hub.State // what the silence is by itself at T, whatever was decided before
	Since  time.Time
	Next   *hub.HostState // what an evaluation at T changes; nil: nothing
	Events []hub.Event    // that it raises
	Reason Reason
	HeldBy string // why an evaluation at T does not judge; empty: it does

	Muted      string    // why nobody is told of what happens at T, as in Event.SuppressedBy; empty: it is told
	MutedUntil time.Time // when that is over
	Deadlines  []DeadlineSeen

	Raised []hub.Event // the newest events of the host until T, newest first
}

// DeadlineSeen is one deadline of a guest, and what an evaluation now makes of it.
type DeadlineSeen struct {
	DeadlineEvidence
	Due    time.Time // when it passes, or passed; zero: it is not watched
	Next   *hub.DeadlineState
	Events []hub.Event
	Reason Reason
}

// SilenceSeen is the silence since the last report, in the figures that decide.
type SilenceSeen struct {
	Elapsed time.Duration    // T − last report
	Blind   []blind.Interval // of that, when the hub could not have heard; cut to it
	Unheard time.Duration    // how long that was, together
	Length  time.Duration    // S: the rest
	Grace   time.Duration    // G
	Since   time.Time        // end of the later of the first two long blind times; zero: there was none
	Ready   time.Duration    // R: ready time since then; of no meaning where Since is zero
}

// Reason names why an evaluation decides as it does. Where it raises an event it is
// the name that begins the event's reason; else it is one of those below.
type Reason string

// The reasons to raise nothing.
const (
	ReasonHeld          Reason = "held_back"                // the evaluation does not judge
	ReasonRetired       Reason = "retired"                  // or the fleet does not name the host
	ReasonPaused        Reason = "paused"                   // reports are taken, silence is not watched
	ReasonNeverReported Reason = "never_reported"           // nothing is due
	ReasonNotDueYet     Reason = "enroll_by_not_over"       // the first report is due, and its grace is not over
	ReasonUnknownState  Reason = "state_unknown"            // what was decided before could not be asked
	ReasonFirstLook     Reason = "first_look"               // the state is recorded as it is found
	ReasonFleetSilent   Reason = "whole_fleet_silent"       // taken for the hub's own trouble for a while
	ReasonHeard         Reason = "silence_under_threshold"  // the host is ok
	ReasonGrace         Reason = "grace_not_over"           // the silence is long enough, and the hub has not been back for long enough
	ReasonTold          Reason = "told_before"              // the silence was told of, and is no worse
	ReasonSilent        Reason = "recorded_without_telling" // the silence was found at a first look, or the host flaps
	ReasonMuted         Reason = "muted"                    // recorded, and told when what mutes it is over
	ReasonHostUnknown   Reason = "host_not_heard_since"     // a guest's: its host may be about to fall silent too
	ReasonUnwatched     Reason = "no_deadline"              // a deadline's: nobody set one
	ReasonNotPassed     Reason = "within_limit"             // a deadline's: it has not passed
	ReasonAwaitReport   Reason = "no_report_since"          // a deadline's: the report that may tell of a success has not come
	ReasonOverdue       Reason = "overdue"                  // a deadline's: it was told of before
)

const (
	raisedShown   = 5                // events that an explanation shows
	explainWithin = 10 * time.Second // a person waits
)

// Explain tells what an evaluation at t knows of a host, or of a guest's controller
// and its deadlines, and decides. Deadlines are told of for now alone. Zero t is now.
// The fleet, its thresholds and a hold of the whole fleet are those of now; reports,
// recorded states and blind time are those until t. It changes nothing and may be
// called while Tick runs. The error is one for the operator.
func (s *Switch) Explain(ctx context.Context, host string, t time.Time) (Explanation, error) {
	now := s.o.Now().UTC().Truncate(time.Millisecond)
	past := !t.IsZero()
	if !past {
		t = now
	}
	t = t.UTC().Truncate(time.Millisecond)
	x := Explanation{T: t, Evidence: Evidence{HostID: host, Lifecycle: hub.Retired}}
	fleet := s.o.Fleet()
	switch {
	case t.After(now):
		return x, &hub.Error{Code: hub.Invalid, Reason: "future", Message: stamp(t) + " has not come yet: there is no evidence of it"}
	case fleet == nil:
		return x, &hub.Error{Code: hub.Unavailable, Reason: "no_fleet", Message: "no fleet is in force yet", Hint: "hub status says why"}
	}
	x.Enrolled = x.Evidence.enrolled(fleet, s.o.Base)
	x.report(s.o.LastSeen(host))
	ctx, cancel := context.WithTimeout(ctx, explainWithin)
	defer cancel()
	known := x.ask(ctx, s, past)
	if !x.Enrolled && x.LastAt.IsZero() && x.Previous == nil {
		return x, &hub.Error{Code: hub.Invalid, Reason: "unknown_host", Message: fmt.Sprintf("the fleet in force does not know host %s, and nothing is kept of it", host),
			Hint: strings.Join(append(x.Unsure, "hub status says which commit is in force"), "; ")}
	}
	rule := s.ruleFor(&x, past)
	x.judge(rule, known)
	if !past && s.o.Deadlines != nil {
		if err := s.explainDeadlines(ctx, &x, fleet, rule); err != nil {
			x.Unsure = append(x.Unsure, fmt.Sprintf("ClickHouse could not be asked for deadlines: %v", err))
		}
	}
	return x, nil
}

// explainDeadlines adds those of a guest, or of all guests of a host.
func (s *Switch) explainDeadlines(ctx context.Context, x *Explanation, fleet *hub.Fleet, rule *Rule) error {
	guests := []string{x.HostID}
	if !x.guest() {
		var err error
		if guests, err = s.o.Records.GuestsOf(ctx, x.HostID); err != nil || len(guests) == 0 {
			return err
		}
	}
	found, err := s.o.Deadlines.Overdue(ctx, [3]time.Time{}, guests)
	if err != nil {
		return err
	}
	oldest, _ := s.o.Backlog.Behind()
	var evidence []DeadlineEvidence
	for i := range found {
		for _, d := range hub.AllDeadlines() {
			evidence = append(evidence, s.deadlineOf(fleet, &found[i], d, oldest))
		}
	}
	if err := s.completeDeadlines(ctx, evidence, rule.T); err != nil {
		return err
	}
	for _, e := range evidence {
		x.Deadlines = append(x.Deadlines, e.seen(rule))
	}
	return nil
}

// seen has StepDeadline decide.
func (e DeadlineEvidence) seen(r *Rule) DeadlineSeen {
	d := DeadlineSeen{DeadlineEvidence: e}
	if e.Limit > 0 {
		d.Due = e.Base.Add(e.Limit)
	}
	d.Next, d.Events = StepDeadline(e, r)
	switch p := e.Previous; {
	case len(d.Events) > 0:
		name, _, _ := strings.Cut(d.Events[len(d.Events)-1].Reason, ":")
		d.Reason = Reason(name)
	case e.Limit == 0:
		d.Reason = ReasonUnwatched
	case e.Lifecycle == hub.Paused:
		d.Reason = ReasonPaused
	case e.gone() != "":
		d.Reason = Reason(e.gone())
	case p != nil && p.Overdue && p.MutedBy != "":
		d.Reason = ReasonMuted
	case p != nil && p.Overdue:
		d.Reason = ReasonOverdue
	case d.Due.After(r.T):
		d.Reason = ReasonNotPassed
	default:
		d.Reason = ReasonAwaitReport
	}
	return d
}

// report notes a report of which the hub itself knows, if it came until T.
func (x *Explanation) report(seen hub.Receipt, ok bool) {
	if ok && !seen.ReceivedAt.After(x.T) && x.older(seen) {
		x.Last, x.LastAt, x.Source = seen.Position, seen.ReceivedAt, "hub"
	}
}

// ask gets what ClickHouse keeps. It returns whether the recorded state is known.
func (x *Explanation) ask(ctx context.Context, s *Switch, past bool) (known bool) {
	unsure := func(what string, err error) bool {
		if err != nil {
			x.Unsure = append(x.Unsure, fmt.Sprintf("ClickHouse could not be asked for %s: %v", what, err))
		}
		return err != nil
	}
	switch oldest, doubt := s.o.Backlog.Behind(); {
	case doubt:
		x.Unsure = append(x.Unsure, "ClickHouse was restarted, and is being asked whether it still has everything")
	case !oldest.IsZero() && !oldest.After(x.T.Add(-watermark)):
		x.Unsure = append(x.Unsure, fmt.Sprintf("ClickHouse does not have what was acknowledged since %s yet: events of then may be missing here", stamp(oldest)))
	}
	last, ok, err := s.o.Records.LastReportUntil(ctx, x.HostID, x.T)
	if !unsure("the last report", err) && ok && x.older(hub.Receipt{Position: last.Last, ReceivedAt: last.LastAt}) {
		x.Last, x.LastAt, x.Source = last.Last, last.LastAt, "clickhouse"
	}
	before := x.T
	if !past {
		before = time.UnixMilli(1<<53 - 1) // the clock may have stepped back since
	}
	x.Previous, err = s.o.Records.StateBefore(ctx, x.HostID, before)
	known = !unsure("the recorded state", err)
	if own := s.memory.peek(x.HostID); own != nil && own.DecidedAt.Before(before) && (x.Previous == nil || own.DecidedAt.After(x.Previous.DecidedAt)) {
		x.Previous, known = own, true
	}
	one, err := s.addFirstReports(ctx, []Evidence{x.Evidence}, false)
	if !unsure("the report that ended the silence", err) && !one[0].FirstAfter.After(x.LastAt) {
		x.FirstAfter = one[0].FirstAfter
	}
	x.seeHost(ctx, s, past, before, unsure)
	x.Raised, err = s.o.Records.EventsOf(ctx, x.HostID, before, raisedShown)
	unsure("the events", err)
	return known
}

// seeHost gets what is known of the host of a guest, and what its agent announced.
func (x *Explanation) seeHost(ctx context.Context, s *Switch, past bool, before time.Time, unsure func(what string, err error) bool) {
	host := hostOf(x.HostID)
	announced, err := s.announcements(ctx, earlier(x.LastAt, x.T), x.T)
	unsure("announced maintenance", err)
	if a := announced(host); !a.At.After(x.T) {
		x.Quiet.announce(a)
	}
	if !x.guest() {
		return
	}
	seen := HostSeen{}
	last, ok, err := s.o.Records.LastReportUntil(ctx, host, x.T)
	if !unsure("the host's last report", err) && ok {
		seen.LastAt = last.LastAt
	}
	if r, ok := s.o.LastSeen(host); ok && !r.ReceivedAt.After(x.T) {
		seen.LastAt = latest(seen.LastAt, r.ReceivedAt)
	}
	seen.State, err = s.o.Records.StateBefore(ctx, host, before)
	unsure("the host's recorded state", err)
	if own := s.memory.peek(host); own != nil && !past {
		seen.State = own
	}
	x.Host = &seen
}

// ruleFor is the rule at T, by the blind log until then, and notes what holds an
// evaluation back.
func (s *Switch) ruleFor(x *Explanation, past bool) *Rule {
	all := s.o.Eyes.Blind()
	log := blind.New(between(all, time.UnixMilli(0), x.T)...)
	if past {
		if cause, ok := blind.New(all...).At(x.T); ok {
			x.HeldBy = fmt.Sprintf("the hub could not accept reports then: %s", cause)
		}
		return NewRule(x.T, log, s.o.Timing)
	}
	if _, err := s.o.Eyes.Log(x.T); err != nil {
		x.HeldBy = err.Error()
	} else if st := s.Status(); st.HeldBy != "" {
		x.HeldBy = st.HeldBy
	} else {
		x.Evidence.Held = st.KeptBack > 0 && x.T.Before(st.KeptUntil)
	}
	return NewRule(x.T, log, s.o.Timing)
}

// between returns the parts of intervals that lie between from and to.
func between(intervals []blind.Interval, from, to time.Time) []blind.Interval {
	var parts []blind.Interval
	for _, i := range intervals {
		i.From, i.To = latest(i.From, from), earlier(i.To, to)
		if i.From.Before(i.To) {
			parts = append(parts, i)
		}
	}
	return parts
}

// judge has Step decide, and tells by which figures.
func (x *Explanation) judge(r *Rule, known bool) {
	if !x.LastAt.IsZero() {
		s := silence{lastAt: x.LastAt}
		if x.Previous != nil {
			s.watched = x.Previous.WatchedFrom
		}
		x.Silence = r.seen(s)
		if x.Enrolled {
			x.State, x.Since = r.verdict(s, x.Thresholds)
			later := NewRule(r.T.Add(x.DownAfter+2*r.Grace), r.Blind, r.Timing)
			x.Stale, _ = later.due(s, x.StaleAfter)
			x.Down, _ = later.due(s, x.DownAfter)
		}
	} else {
		x.State = hub.NeverSeen
	}
	x.Muted, x.MutedUntil = x.Quiet.At(x.T)
	if x.HeldBy == "" && known {
		x.Next, x.Events = Step(x.Evidence, r)
	}
	x.Reason = x.reason(known)
}

// seen returns the figures of a silence at T.
func (r *Rule) seen(s silence) SilenceSeen {
	seen := SilenceSeen{
		Elapsed: r.T.Sub(s.lastAt), Blind: between(r.Blind.Intervals(), s.lastAt, r.T),
		Unheard: r.Blind.Blind(s.lastAt, r.T), Length: r.Blind.Ready(s.lastAt, r.T), Grace: r.Grace,
	}
	if long := r.longSince(s.lastAt); len(long) > 0 {
		seen.Since = long[len(long)-1].To
		seen.Ready = r.Blind.Ready(seen.Since, r.T)
	}
	return seen
}

// reason names what Step decided.
func (x *Explanation) reason(known bool) Reason {
	switch n := len(x.Events); {
	case x.HeldBy != "":
		return ReasonHeld
	case !known:
		return ReasonUnknownState
	case n > 0:
		name, _, _ := strings.Cut(x.Events[n-1].Reason, ":")
		return Reason(name)
	case x.Lifecycle == hub.Retired:
		return ReasonRetired
	case x.Lifecycle == hub.Paused:
		return ReasonPaused
	case x.LastAt.IsZero():
		return x.reasonNeverSeen()
	case x.Previous == nil || x.Previous.State == hub.NeverSeen:
		return ReasonFirstLook
	}
	now := x.Previous
	if x.Next != nil {
		now = x.Next
	}
	switch {
	case now.State != hub.OK && now.MutedBy != "":
		return ReasonMuted
	case now.State != hub.OK && now.Silent:
		return ReasonSilent
	case x.State != hub.OK && now.State == hub.OK && x.Host.witnessed(x.Since) == unknown:
		return ReasonHostUnknown
	case now.State != hub.OK && (now.State == hub.Down || x.State != hub.Down):
		return ReasonTold
	case x.State != hub.OK && x.Evidence.Held:
		return ReasonFleetSilent
	case x.Silence.Length >= x.StaleAfter:
		return ReasonGrace
	}
	return ReasonHeard
}

func (x *Explanation) reasonNeverSeen() Reason {
	switch {
	case x.EnrollBy.IsZero():
		return ReasonNeverReported
	case x.Previous != nil && x.Previous.Since.Equal(x.EnrollBy):
		return ReasonTold
	}
	return ReasonNotDueYet
}
