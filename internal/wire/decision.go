package wire

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"felhom.eu/hub/internal/hub"
)

// decisionVersion is the version of the encoding. It is on disk: a change of
// meaning takes a new number, and the old one stays readable.
const decisionVersion = 1

type decisionV1 struct {
	Version int           `json:"v"`
	States  []hostStateV1 `json:"states"`
	Events  []eventV1     `json:"events"`
}

// Times are Unix milliseconds, so that they survive exactly.

type hostStateV1 struct {
	HostID    string    `json:"host_id"`
	State     hub.State `json:"state"`
	Since     int64     `json:"since"`
	SpoolID   string    `json:"spool_id"`
	SpoolSeq  uint64    `json:"spool_seq"`
	LastAt    int64     `json:"last_at"`
	Silent    bool      `json:"silent,omitzero"`
	DecidedAt int64     `json:"decided_at"`
}

type eventV1 struct {
	ID             string        `json:"event_id"`
	Type           hub.EventType `json:"type"`
	CustomerID     string        `json:"customer_id"`
	HostID         string        `json:"host_id"`
	At             int64         `json:"at"`
	DetectedAt     int64         `json:"detected_at"`
	SilenceSeconds float64       `json:"silence_seconds"`
	Reason         string        `json:"reason"`
	Source         string        `json:"source"`
}

// EncodeDecision returns the body of a spool record of kind KindDecision.
// Times keep their millisecond and lose what is finer. It fails on a text that
// is not UTF-8 or a silence that is no number.
func EncodeDecision(d hub.Decision) ([]byte, error) {
	out := decisionV1{
		Version: decisionVersion,
		States:  make([]hostStateV1, len(d.States)),
		Events:  encodeEvents(d.Events),
	}
	for i, s := range d.States {
		out.States[i] = hostStateV1{
			HostID: s.HostID, State: s.State, Since: s.Since.UnixMilli(),
			SpoolID: s.Last.SpoolID.String(), SpoolSeq: s.Last.Seq, LastAt: s.LastAt.UnixMilli(),
			Silent: s.Silent, DecidedAt: s.DecidedAt.UnixMilli(),
		}
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
	var in decisionV1
	if err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true)); err != nil {
		return hub.Decision{}, fmt.Errorf("decode decision: %w", err)
	}
	if in.Version != decisionVersion {
		return hub.Decision{}, fmt.Errorf("decode decision: version %d is not %d: a newer hub wrote it", in.Version, decisionVersion)
	}
	var d hub.Decision
	for _, s := range in.States {
		state, err := s.hostState()
		if err != nil {
			return hub.Decision{}, fmt.Errorf("decode decision: host %q: %w", s.HostID, err)
		}
		d.States = append(d.States, state)
	}
	for _, e := range in.Events {
		if e.ID == "" || e.Type == "" || !hub.ValidHostID(e.HostID) {
			return hub.Decision{}, fmt.Errorf("decode decision: event %q of host %q lacks its id, type or host", e.ID, e.HostID)
		}
		d.Events = append(d.Events, e.event())
	}
	return d, nil
}

func encodeEvents(events []hub.Event) []eventV1 {
	out := make([]eventV1, len(events))
	for i, e := range events {
		out[i] = eventV1{
			ID: e.ID, Type: e.Type, CustomerID: e.CustomerID, HostID: e.HostID,
			At: e.At.UnixMilli(), DetectedAt: e.DetectedAt.UnixMilli(),
			SilenceSeconds: e.SilenceSeconds, Reason: e.Reason, Source: e.Source,
		}
	}
	return out
}

func (e eventV1) event() hub.Event {
	return hub.Event{
		ID: e.ID, Type: e.Type, CustomerID: e.CustomerID, HostID: e.HostID,
		At: instant(e.At), DetectedAt: instant(e.DetectedAt),
		SilenceSeconds: e.SilenceSeconds, Reason: e.Reason, Source: e.Source,
	}
}

func (s hostStateV1) hostState() (hub.HostState, error) {
	if !hub.ValidHostID(s.HostID) {
		return hub.HostState{}, fmt.Errorf("not a host id")
	}
	switch s.State {
	case hub.OK, hub.Stale, hub.Down:
	default:
		return hub.HostState{}, fmt.Errorf("%q is no state", s.State)
	}
	id, err := hub.ParseSpoolID(s.SpoolID)
	if err != nil {
		return hub.HostState{}, err
	}
	return hub.HostState{
		HostID: s.HostID, State: s.State, Since: instant(s.Since),
		Last:   hub.Position{SpoolID: id, Seq: s.SpoolSeq},
		LastAt: instant(s.LastAt), Silent: s.Silent, DecidedAt: instant(s.DecidedAt),
	}, nil
}

// instant undoes UnixMilli, the zero time included.
func instant(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
