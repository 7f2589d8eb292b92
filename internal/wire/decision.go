package wire

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"felhom.eu/hub/internal/hub"
)

// decisionVersion is the version of the encoding. It is on disk: a change of
// meaning takes a new number, and the old ones stay readable. Version 1 had the
// first eight fields of a state, version 2 no controllers, no deadlines and
// nothing of what was last seen.
const decisionVersion = 3

type decisionV3 struct {
	Version   int               `json:"v"`
	States    []hostStateV2     `json:"states"`
	Deadlines []deadlineStateV3 `json:"deadlines,omitempty"`
	Events    []eventV1         `json:"events"`
}

// Times are Unix milliseconds, so that they survive exactly.

type hostStateV2 struct {
	HostID    string    `json:"host_id"`
	State     hub.State `json:"state"`
	Since     int64     `json:"since"`
	SpoolID   string    `json:"spool_id"`
	SpoolSeq  uint64    `json:"spool_seq"`
	LastAt    int64     `json:"last_at"`
	Silent    bool      `json:"silent,omitzero"`
	DecidedAt int64     `json:"decided_at"`

	CustomerID  string        `json:"customer_id,omitzero"`
	Lifecycle   hub.Lifecycle `json:"lifecycle,omitzero"`
	WatchedFrom *int64        `json:"watched_from,omitzero"`
	Fold        string        `json:"fold,omitzero"`
	Silences    []int64       `json:"silences,omitempty"` // without the zero ones
	FlapID      string        `json:"flap_spool_id,omitzero"`
	FlapSeq     uint64        `json:"flap_spool_seq,omitzero"`
	MutedBy     string        `json:"muted_by,omitzero"`
}

type deadlineStateV3 struct {
	GuestID    string `json:"guest_id"`
	Deadline   string `json:"deadline"`
	CustomerID string `json:"customer_id"`
	Overdue    bool   `json:"overdue"`
	Base       int64  `json:"base"`
	Since      int64  `json:"since"`
	MutedBy    string `json:"muted_by,omitzero"`
	Closed     *int64 `json:"closed,omitzero"`
	DecidedAt  int64  `json:"decided_at"`
}

type eventV1 struct {
	ID             string        `json:"event_id"`
	Type           hub.EventType `json:"type"`
	CustomerID     string        `json:"customer_id"`
	HostID         string        `json:"host_id"`
	GuestID        string        `json:"guest_id,omitzero"`
	At             int64         `json:"at"`
	DetectedAt     int64         `json:"detected_at"`
	Episode        string        `json:"episode,omitzero"`
	SilenceSeconds float64       `json:"silence_seconds"`
	Reason         string        `json:"reason"`
	Source         string        `json:"source"`
	FoldedInto     string        `json:"folded_into,omitzero"`
	CausedBy       string        `json:"caused_by,omitzero"`
	SuppressedBy   string        `json:"suppressed_by,omitzero"`
	Hosts          []string      `json:"hosts,omitempty"`
	LastSeen       *lastSeenV3   `json:"last_seen,omitzero"`
}

type lastSeenV3 struct {
	At            int64    `json:"at,omitzero"`
	PVEVersion    string   `json:"pve_version,omitzero"`
	Guests        uint32   `json:"guests,omitzero"`
	GuestsRunning uint32   `json:"guests_running,omitzero"`
	MemPercent    *float64 `json:"mem_percent,omitzero"`
	DiskPercent   *float64 `json:"disk_percent,omitzero"`
	GuestName     string   `json:"guest_name,omitzero"`
	GuestStatus   string   `json:"guest_status,omitzero"`
}

// EncodeDecision returns the body of a spool record of kind KindDecision.
// Times keep their millisecond and lose what is finer. It fails on a text that
// is not UTF-8 or a silence that is no number.
func EncodeDecision(d hub.Decision) ([]byte, error) {
	out := decisionV3{
		Version: decisionVersion,
		States:  make([]hostStateV2, len(d.States)),
		Events:  encodeEvents(d.Events),
	}
	for i, s := range d.States {
		out.States[i] = encodeHostState(s)
	}
	for _, s := range d.Deadlines {
		out.Deadlines = append(out.Deadlines, encodeDeadlineState(s))
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode decision: %w", err)
	}
	return body, nil
}

// DecodeDecision reads what EncodeDecision wrote; times are UTC. It refuses
// another version, an unknown field or state, and anything that is not whole.
func DecodeDecision(body []byte) (hub.Decision, error) {
	var in decisionV3
	if err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true)); err != nil {
		return hub.Decision{}, fmt.Errorf("decode decision: %w", err)
	}
	if in.Version < 1 || in.Version > decisionVersion {
		return hub.Decision{}, fmt.Errorf("decode decision: version %d is not 1 to %d: a newer hub wrote it", in.Version, decisionVersion)
	}
	var d hub.Decision
	for _, s := range in.States {
		state, err := s.hostState()
		if err != nil {
			return hub.Decision{}, fmt.Errorf("decode decision: host %q: %w", s.HostID, err)
		}
		d.States = append(d.States, state)
	}
	for _, s := range in.Deadlines {
		state, err := s.deadlineState()
		if err != nil {
			return hub.Decision{}, fmt.Errorf("decode decision: deadline of %q: %w", s.GuestID, err)
		}
		d.Deadlines = append(d.Deadlines, state)
	}
	for _, e := range in.Events {
		if err := e.checkNoticed(); err != nil {
			return hub.Decision{}, fmt.Errorf("decode decision: event %q: %w", e.ID, err)
		}
		d.Events = append(d.Events, e.event())
	}
	return d, nil
}

func encodeEvents(events []hub.Event) []eventV1 {
	out := make([]eventV1, len(events))
	for i, e := range events {
		out[i] = eventV1{
			ID: e.ID, Type: e.Type, CustomerID: e.CustomerID, HostID: e.HostID, GuestID: e.GuestID,
			At: e.At.UnixMilli(), DetectedAt: e.DetectedAt.UnixMilli(), Episode: e.Episode,
			SilenceSeconds: e.SilenceSeconds, Reason: e.Reason, Source: e.Source,
			FoldedInto: e.FoldedInto, CausedBy: e.CausedBy, SuppressedBy: e.SuppressedBy, Hosts: e.Hosts,
			LastSeen: encodeLastSeen(e.LastSeen),
		}
	}
	return out
}

// encodeLastSeen leaves out what cannot be encoded: a verdict does not fail for it.
func encodeLastSeen(s *hub.LastSeen) *lastSeenV3 {
	if s == nil {
		return nil
	}
	out := &lastSeenV3{PVEVersion: utf8Of(s.PVEVersion), Guests: s.Guests, GuestsRunning: s.GuestsRunning,
		MemPercent: finite(s.MemPercent), DiskPercent: finite(s.DiskPercent), GuestName: utf8Of(s.GuestName), GuestStatus: utf8Of(s.GuestStatus)}
	if !s.At.IsZero() {
		out.At = s.At.UnixMilli()
	}
	return out
}

func utf8Of(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func finite(f *float64) *float64 {
	if f != nil && (math.IsNaN(*f) || math.IsInf(*f, 0)) {
		return nil
	}
	return f
}

func (s *lastSeenV3) lastSeen() *hub.LastSeen {
	if s == nil {
		return nil
	}
	out := &hub.LastSeen{PVEVersion: s.PVEVersion, Guests: s.Guests, GuestsRunning: s.GuestsRunning,
		MemPercent: s.MemPercent, DiskPercent: s.DiskPercent, GuestName: s.GuestName, GuestStatus: s.GuestStatus}
	if s.At != 0 {
		out.At = instant(s.At)
	}
	return out
}

func encodeHostState(s hub.HostState) hostStateV2 {
	out := hostStateV2{
		HostID: s.HostID, State: s.State, Since: s.Since.UnixMilli(),
		SpoolID: s.Last.SpoolID.String(), SpoolSeq: s.Last.Seq, LastAt: s.LastAt.UnixMilli(),
		Silent: s.Silent, DecidedAt: s.DecidedAt.UnixMilli(),
		CustomerID: s.CustomerID, Lifecycle: s.Lifecycle, Fold: s.Fold, MutedBy: s.MutedBy,
	}
	if !s.WatchedFrom.IsZero() {
		ms := s.WatchedFrom.UnixMilli()
		out.WatchedFrom = &ms
	}
	for _, at := range s.Silences {
		if !at.IsZero() {
			out.Silences = append(out.Silences, at.UnixMilli())
		}
	}
	if s.Flapping != (hub.Position{}) {
		out.FlapID, out.FlapSeq = s.Flapping.SpoolID.String(), s.Flapping.Seq
	}
	return out
}

func (e eventV1) event() hub.Event {
	return hub.Event{
		ID: e.ID, Type: e.Type, CustomerID: e.CustomerID, HostID: e.HostID, GuestID: e.GuestID,
		At: instant(e.At), DetectedAt: instant(e.DetectedAt), Episode: e.Episode,
		SilenceSeconds: e.SilenceSeconds, Reason: e.Reason, Source: e.Source,
		FoldedInto: e.FoldedInto, CausedBy: e.CausedBy, SuppressedBy: e.SuppressedBy, Hosts: e.Hosts, LastSeen: e.LastSeen.lastSeen(),
	}
}

func (s hostStateV2) hostState() (hub.HostState, error) {
	if !hub.ValidHostID(s.HostID) && !hub.ValidGuestID(s.HostID) {
		return hub.HostState{}, fmt.Errorf("neither a host id nor a guest id")
	}
	switch s.State {
	case hub.NeverSeen, hub.OK, hub.Stale, hub.Down:
	default:
		return hub.HostState{}, fmt.Errorf("%q is no state", s.State)
	}
	switch s.Lifecycle {
	case "", hub.Active, hub.Paused, hub.Retired:
	default:
		return hub.HostState{}, fmt.Errorf("%q is no lifecycle", s.Lifecycle)
	}
	id, err := hub.ParseSpoolID(s.SpoolID)
	if err != nil {
		return hub.HostState{}, err
	}
	out := hub.HostState{
		HostID: s.HostID, State: s.State, Since: instant(s.Since),
		Last:   hub.Position{SpoolID: id, Seq: s.SpoolSeq},
		LastAt: instant(s.LastAt), Silent: s.Silent, DecidedAt: instant(s.DecidedAt),
		CustomerID: s.CustomerID, Lifecycle: s.Lifecycle, Fold: s.Fold, MutedBy: s.MutedBy,
	}
	if s.WatchedFrom != nil {
		out.WatchedFrom = instant(*s.WatchedFrom)
	}
	if len(s.Silences) > len(out.Silences) {
		return hub.HostState{}, fmt.Errorf("%d silences are more than a state keeps", len(s.Silences))
	}
	for i, ms := range s.Silences {
		out.Silences[len(out.Silences)-len(s.Silences)+i] = instant(ms)
	}
	if s.FlapID != "" {
		if id, err = hub.ParseSpoolID(s.FlapID); err != nil {
			return hub.HostState{}, err
		}
		out.Flapping = hub.Position{SpoolID: id, Seq: s.FlapSeq}
	}
	return out, nil
}

func encodeDeadlineState(s hub.DeadlineState) deadlineStateV3 {
	out := deadlineStateV3{
		GuestID: s.GuestID, Deadline: s.Deadline.String(), CustomerID: s.CustomerID, Overdue: s.Overdue,
		Base: s.Base.UnixMilli(), Since: s.Since.UnixMilli(), MutedBy: s.MutedBy, DecidedAt: s.DecidedAt.UnixMilli(),
	}
	if !s.Closed.IsZero() {
		ms := s.Closed.UnixMilli()
		out.Closed = &ms
	}
	return out
}

func (s deadlineStateV3) deadlineState() (hub.DeadlineState, error) {
	deadline, ok := hub.ParseDeadline(s.Deadline)
	switch {
	case !hub.ValidGuestID(s.GuestID):
		return hub.DeadlineState{}, fmt.Errorf("not a guest id")
	case !ok:
		return hub.DeadlineState{}, fmt.Errorf("%q is no deadline", s.Deadline)
	}
	out := hub.DeadlineState{
		GuestID: s.GuestID, Deadline: deadline, CustomerID: s.CustomerID, Overdue: s.Overdue,
		Base: instant(s.Base), Since: instant(s.Since), MutedBy: s.MutedBy, DecidedAt: instant(s.DecidedAt),
	}
	if s.Closed != nil {
		out.Closed = instant(*s.Closed)
	}
	return out, nil
}

// instant undoes UnixMilli, the zero time included.
func instant(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
