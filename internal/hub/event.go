package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// State is what the switch says of a host.
type State string

// The states. Readers see "never_seen" too, for a host without any report: no
// state is kept of it.
const (
	OK    State = "ok"
	Stale State = "stale"
	Down  State = "down"
)

// EventType is the kind of an event.
type EventType string

// The switch's events.
const (
	HostStale     EventType = "host_stale"
	HostDown      EventType = "host_down"
	HostRecovered EventType = "host_recovered"
)

// The fleet's events: they are the operators', so their CustomerID is empty.
const (
	FleetRejected    EventType = "fleet_rejected"     // a head with structural mistakes, or not signed as required
	FleetRewound     EventType = "fleet_rewound"      // a head that does not descend from the commit in force
	FleetHeld        EventType = "fleet_held"         // a head that removes more hosts than its guards allow
	FleetFrozen      EventType = "fleet_frozen"       // the repository does not answer, or does not move
	HostFileRejected EventType = "host_file_rejected" // one host keeps its last good record
)

// Severity returns "info", "warning" or "critical".
func (t EventType) Severity() string {
	switch t {
	case HostDown:
		return "critical"
	case HostStale, FleetRejected, FleetRewound, FleetHeld, FleetFrozen, HostFileRejected:
		return "warning"
	default:
		return "info"
	}
}

// Event is one thing that happened, as the table events holds it.
type Event struct {
	ID             string // 32 hex digits; the same whoever computes it
	Type           EventType
	CustomerID     string    // the host's customer at At; empty: the operators'
	HostID         string    // empty where the event is about no host
	At             time.Time // when the condition first held
	DetectedAt     time.Time // the slot time T that found it
	SilenceSeconds float64   // At − last report
	Reason         string
	Source         string // "switch" or "fleet"
}

// EventID returns the first 32 hex digits of the SHA-256 of
// "felhom-event/1\n<type>\n<host_id>\n<spool_id>\n<spool_seq>", where the
// position is that of the last report before the silence. No clock enters it,
// so any replica, re-run or restore computes the same id.
func EventID(t EventType, hostID string, last Position) string {
	sum := sha256.Sum256([]byte("felhom-event/1\n" + string(t) + "\n" + hostID + "\n" +
		last.SpoolID.String() + "\n" + strconv.FormatUint(last.Seq, 10)))
	return hex.EncodeToString(sum[:])[:32]
}

// FleetEventID returns the first 32 hex digits of the SHA-256 of
// "felhom-event/1\n<type>\n<subject>", where the subject names what happened
// (a revision, a host and its blob) and no clock does.
func FleetEventID(t EventType, subject string) string {
	sum := sha256.Sum256([]byte("felhom-event/1\n" + string(t) + "\n" + subject))
	return hex.EncodeToString(sum[:])[:32]
}

// HostState is the switch's memory of one host.
type HostState struct {
	HostID    string
	State     State
	Since     time.Time // when the condition of State first held
	Last      Position  // the last report before the silence, or the newest seen when ok
	LastAt    time.Time // received_at of that report
	Silent    bool      // the state was found, not reached: its alarm was never raised
	DecidedAt time.Time // the slot time T of the decision; later than that of the host's last one
}

// Decision is what one tick decided, written to the spool as one record so that
// a state and its event are durable together or not at all.
type Decision struct {
	States []HostState
	Events []Event
}
