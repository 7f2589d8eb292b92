package app

import (
	"context"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/hub"
)

// explanation is what hub switch explain shows. Lengths are in seconds.
type explanation struct {
	HostID     string        `json:"host_id"`
	CustomerID string        `json:"customer_id,omitempty"`
	Site       string        `json:"site,omitempty"`
	Enrolled   bool          `json:"enrolled"` // the fleet in force names the host
	Lifecycle  hub.Lifecycle `json:"lifecycle"`
	EnrollBy   time.Time     `json:"enroll_by,omitzero"`
	At         time.Time     `json:"at"` // the instant that is explained
	StaleAfter float64       `json:"stale_after_seconds,omitempty"`
	DownAfter  float64       `json:"down_after_seconds,omitempty"`

	LastReport *lastReport  `json:"last_report,omitempty"` // none: it never reported
	Silence    *silence     `json:"silence,omitempty"`
	Rule       ruled        `json:"rule"`     // what the silence is by itself
	Decision   decision     `json:"decision"` // what an evaluation makes of it
	Recorded   *recorded    `json:"recorded,omitempty"`
	Muted      string       `json:"muted_by,omitempty"`
	MutedUntil time.Time    `json:"muted_until,omitzero"`
	Host       *hostOfGuest `json:"host,omitempty"`      // of a guest
	Deadlines  []deadline   `json:"deadlines,omitempty"` // of now
	Raised     []raised     `json:"raised"`              // the newest events of the host, newest first; never null
	Unsure     []string     `json:"unsure,omitempty"`    // what could not be asked
}

type lastReport struct {
	At       time.Time `json:"at"` // received_at
	Position string    `json:"position"`
	Source   string    `json:"source"` // hub: its own index; clickhouse
}

type silence struct {
	Elapsed      float64         `json:"elapsed_seconds"`
	Blind        []blindInterval `json:"blind"`         // within it; never null; they may overlap
	BlindTotal   float64         `json:"blind_seconds"` // together
	Length       float64         `json:"observed_seconds"`
	Grace        float64         `json:"grace_seconds"`
	BackSince    time.Time       `json:"back_since,omitzero"`           // end of the later of the first two long blind times
	Ready        *float64        `json:"ready_since_seconds,omitempty"` // ready time since then
	WatchedSince time.Time       `json:"watched_since,omitzero"`        // unpaused or returned then, and not heard of since
}

// hostOfGuest is what is known of the host of a guest: the guest's trouble may be its.
type hostOfGuest struct {
	LastReportAt time.Time `json:"last_report_at,omitzero"`
	State        hub.State `json:"state,omitempty"`
}

type deadline struct {
	GuestID  string         `json:"guest_id"`
	Deadline string         `json:"deadline"`
	Limit    float64        `json:"limit_seconds"` // 0: nobody set one
	Last     time.Time      `json:"last_at"`       // the newest success, or the first sight where that is later
	Due      time.Time      `json:"due_at,omitzero"`
	Overdue  bool           `json:"overdue"` // as recorded
	Muted    string         `json:"muted_by,omitempty"`
	Reason   deadman.Reason `json:"reason"`
	Events   []raised       `json:"events"` // never null
}

type blindInterval struct {
	From  time.Time   `json:"from"`
	To    time.Time   `json:"to"`
	Cause blind.Cause `json:"cause"`
}

type ruled struct {
	State   hub.State `json:"state,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	StaleAt time.Time `json:"stale_at,omitzero"` // if nothing comes and the hub stays ready
	DownAt  time.Time `json:"down_at,omitzero"`
}

type decision struct {
	Reason deadman.Reason `json:"reason"`
	HeldBy string         `json:"held_by,omitempty"`
	State  hub.State      `json:"state,omitempty"` // that it records; empty: what is recorded stays
	Events []raised       `json:"events"`          // never null
}

type recorded struct {
	State      hub.State     `json:"state"`
	Since      time.Time     `json:"since"`
	DecidedAt  time.Time     `json:"decided_at"`
	Lifecycle  hub.Lifecycle `json:"lifecycle,omitempty"`
	Episode    string        `json:"episode,omitempty"` // position of the report that names the silence, or of the newest looked at
	EpisodeAt  time.Time     `json:"episode_at,omitzero"`
	Silent     bool          `json:"silent,omitempty"` // nobody was told of this silence
	Muted      string        `json:"muted_by,omitempty"`
	FoldedInto string        `json:"folded_into,omitempty"`
	Flapping   bool          `json:"flapping,omitempty"`
}

type raised struct {
	ID           string        `json:"event_id"`
	Type         hub.EventType `json:"type"`
	At           time.Time     `json:"at"`
	DetectedAt   time.Time     `json:"detected_at"`
	Reason       string        `json:"reason"`
	GuestID      string        `json:"guest_id,omitempty"`
	FoldedInto   string        `json:"folded_into,omitempty"`
	CausedBy     string        `json:"caused_by,omitempty"`
	SuppressedBy string        `json:"suppressed_by,omitempty"`
}

// explain tells what the switch knows of a host at an instant, zero for now, and
// decides.
func (a *App) explain(ctx context.Context, host string, at time.Time) (any, error) {
	x, err := a.watch.Explain(ctx, host, at)
	if err != nil {
		return nil, err
	}
	told := explanation{
		HostID: x.HostID, CustomerID: x.CustomerID, Site: x.Site, Enrolled: x.Enrolled, Lifecycle: x.Lifecycle, EnrollBy: x.EnrollBy,
		At: x.T, StaleAfter: x.StaleAfter.Seconds(), DownAfter: x.DownAfter.Seconds(),
		Rule:     ruled{x.State, x.Since, x.Stale, x.Down},
		Decision: decision{Reason: x.Reason, HeldBy: x.HeldBy, Events: raisedOf(x.Events)},
		Raised:   raisedOf(x.Raised), Unsure: x.Unsure,
	}
	if x.Muted != "" {
		told.Muted, told.MutedUntil = x.Muted, x.MutedUntil
	}
	if h := x.Host; h != nil {
		told.Host = &hostOfGuest{LastReportAt: h.LastAt}
		if h.State != nil {
			told.Host.State = h.State.State
		}
	}
	for i := range x.Deadlines {
		told.Deadlines = append(told.Deadlines, deadlineOf(&x.Deadlines[i]))
	}
	if x.Next != nil {
		told.Decision.State = x.Next.State
	}
	if !x.LastAt.IsZero() {
		told.LastReport = &lastReport{x.LastAt, x.Last.Text(), x.Source}
		told.Silence = silenceOf(x)
	}
	if p := x.Previous; p != nil {
		told.Recorded = &recorded{State: p.State, Since: p.Since, DecidedAt: p.DecidedAt, Lifecycle: p.Lifecycle,
			Silent: p.Silent, Muted: p.MutedBy, FoldedInto: p.Fold, Flapping: p.Flapping != hub.Position{}}
		if p.State != hub.NeverSeen {
			told.Recorded.Episode, told.Recorded.EpisodeAt = p.Last.Text(), p.LastAt
		}
	}
	return told, nil
}

func deadlineOf(d *deadman.DeadlineSeen) deadline {
	told := deadline{GuestID: d.GuestID, Deadline: d.Deadline.String(), Limit: d.Limit.Seconds(), Last: d.Base, Due: d.Due, Reason: d.Reason, Events: raisedOf(d.Events)}
	if p := d.Previous; p != nil {
		told.Overdue, told.Muted = p.Overdue, p.MutedBy
	}
	return told
}

func silenceOf(x deadman.Explanation) *silence {
	s := x.Silence
	told := &silence{Elapsed: s.Elapsed.Seconds(), Blind: []blindInterval{}, BlindTotal: s.Unheard.Seconds(), Length: s.Length.Seconds(),
		Grace: s.Grace.Seconds(), BackSince: s.Since}
	for _, i := range s.Blind {
		told.Blind = append(told.Blind, blindInterval{i.From, i.To, i.Cause})
	}
	if !s.Since.IsZero() {
		ready := s.Ready.Seconds()
		told.Ready = &ready
	}
	if p := x.Previous; p != nil && p.WatchedFrom.After(x.LastAt) {
		told.WatchedSince = p.WatchedFrom
	}
	return told
}

func raisedOf(events []hub.Event) []raised {
	told := []raised{}
	for _, e := range events {
		told = append(told, raised{e.ID, e.Type, e.At, e.DetectedAt, e.Reason, e.GuestID, e.FoldedInto, e.CausedBy, e.SuppressedBy})
	}
	return told
}
