package deadman

import (
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
)

// backupOf is the evidence of a guest's backup whose newest success was at start, of
// a host that is heard at a time after.
func backupOf(heard time.Duration) DeadlineEvidence {
	return DeadlineEvidence{
		GuestID: "h/101", Deadline: hub.BackupDeadline, CustomerID: "acme", Lifecycle: hub.Active, Limit: 26 * time.Hour, Base: start, Present: true,
		Host: HostSeen{State: previous(hub.OK, 1, start, false), LastAt: at(heard)},
	}
}

func ruleAt(t time.Duration) *Rule {
	return NewRule(at(t), blind.New(), Timing{Grace: 30 * time.Minute})
}

// The report that comes after the deadline decides, not the clock: also when the hub
// was away, in whose absence the deadline passed and was met.
func TestDeadlineIsDecidedByTheNextReport(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*DeadlineEvidence)
		t      time.Duration
		want   string
	}{
		"not passed":                           {nil, 25 * time.Hour, ""},
		"passed, and not heard since":          {func(e *DeadlineEvidence) { e.Host.LastAt = at(26*time.Hour - 1) }, 27 * time.Hour, ""},
		"passed, and heard at that instant":    {func(e *DeadlineEvidence) { e.Host.LastAt = at(26 * time.Hour) }, 26 * time.Hour, "backup_overdue@26h0m0s"},
		"passed long ago, found late":          {func(e *DeadlineEvidence) { e.Host.LastAt = at(99 * time.Hour) }, 99 * time.Hour, "backup_overdue@26h0m0s"},
		"met while the hub was away":           {func(e *DeadlineEvidence) { e.Host.LastAt, e.Base = at(99*time.Hour), at(80*time.Hour) }, 99 * time.Hour, ""},
		"the host is stale":                    {func(e *DeadlineEvidence) { e.Host.State.State = hub.Stale }, 27 * time.Hour, ""},
		"the host is down":                     {func(e *DeadlineEvidence) { e.Host.State.State = hub.Down }, 27 * time.Hour, "backup_overdue@26h0m0s caused"},
		"the controller may tell of a success": {func(e *DeadlineEvidence) { e.Host.LastAt, e.Controller = at(26*time.Hour), at(25*time.Hour) }, 26 * time.Hour, ""},
		"the controller told of none":          {func(e *DeadlineEvidence) { e.Host.LastAt, e.Controller = at(26*time.Hour), at(26*time.Hour) }, 26 * time.Hour, "backup_overdue@26h0m0s"},
		"paused":                               {func(e *DeadlineEvidence) { e.Host.LastAt, e.Lifecycle = at(27*time.Hour), hub.Paused }, 27 * time.Hour, ""},
		"nobody set one":                       {func(e *DeadlineEvidence) { e.Host.LastAt, e.Limit = at(27*time.Hour), 0 }, 27 * time.Hour, ""},
		"gone":                                 {func(e *DeadlineEvidence) { e.Host.LastAt, e.Present = at(27*time.Hour), false }, 27 * time.Hour, ""},
		"ClickHouse lost a success once known": {func(e *DeadlineEvidence) { e.Host.LastAt, e.Previous = at(27*time.Hour), metState(at(5*time.Hour)) }, 27 * time.Hour, ""},
		"the agent's announcement lies over it": {func(e *DeadlineEvidence) {
			e.Host.LastAt = at(26 * time.Hour)
			e.Quiet = Quiet{From: at(25 * time.Hour), Until: at(28 * time.Hour)}
		}, 26 * time.Hour, "backup_overdue@26h0m0s suppressed"},
	} {
		t.Run(name, func(t *testing.T) {
			e := backupOf(time.Hour)
			if c.change != nil {
				c.change(&e)
			}
			_, events := StepDeadline(e, ruleAt(c.t))
			if got := inShort(events); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func metState(base time.Time) *hub.DeadlineState {
	return &hub.DeadlineState{GuestID: "h/101", Deadline: hub.BackupDeadline, Base: base, DecidedAt: base}
}

func inShort(events []hub.Event) string {
	var words []string
	for _, e := range events {
		words = append(words, string(e.Type)+"@"+e.At.Sub(start).String())
		if e.CausedBy != "" {
			words = append(words, "caused")
		}
		if e.SuppressedBy != "" {
			words = append(words, "suppressed")
		}
	}
	return strings.Join(words, " ")
}

// The ids are a contract: of the guest, the deadline and the success before.
func TestDeadlineEventIDs(t *testing.T) {
	e := backupOf(26 * time.Hour)
	state, events := StepDeadline(e, ruleAt(26*time.Hour))
	if got, want := events[0].ID, hub.DeadlineEventID("backup_overdue", "h/101", start); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e.Previous, e.Base, e.FirstAfter = state, at(40*time.Hour), at(30*time.Hour)
	_, events = StepDeadline(e, ruleAt(41*time.Hour))
	if got, want := inShort(events), "backup_met@30h0m0s"; got != want || events[0].ID != hub.DeadlineEventID("backup_met", "h/101", start) {
		t.Errorf("%s, want %s", got, want)
	}
}
