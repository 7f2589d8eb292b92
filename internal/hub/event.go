package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"time"
)

// State is what the switch says of a host.
type State string

// The states. Readers see NeverSeen for every host without any report; it is
// kept only of one of which HostNeverReported was raised.
const (
	NeverSeen State = "never_seen"
	OK        State = "ok"
	Stale     State = "stale"
	Down      State = "down"
)

// EventType is the kind of an event.
type EventType string

// The switch's events.
const (
	HostStale         EventType = "host_stale"
	HostDown          EventType = "host_down"
	HostRecovered     EventType = "host_recovered"
	HostNeverReported EventType = "host_never_reported" // nothing came until the host's enrollBy
	HostFlapping      EventType = "host_flapping"       // falls silent so often that single silences are no longer told
	MassSilence       EventType = "mass_silence"        // many hosts at once; with an empty CustomerID: suspected of the hub itself
	HubSwitchHeld     EventType = "hub_switch_held"     // the operators': evaluations have been held back for a while
)

// Controllers have the same switch, by guest.
const (
	ControllerStale     EventType = "controller_stale"
	ControllerDown      EventType = "controller_down"
	ControllerRecovered EventType = "controller_recovered"
	ControllerFlapping  EventType = "controller_flapping"
)

// SwitchEvents lists the switch's events, those of the deadlines included.
func SwitchEvents() []EventType {
	types := []EventType{HostStale, HostDown, HostRecovered, HostNeverReported, HostFlapping, MassSilence, HubSwitchHeld,
		ControllerStale, ControllerDown, ControllerRecovered, ControllerFlapping}
	for _, d := range AllDeadlines() {
		types = append(types, d.Overdue(), d.Met())
	}
	return types
}

// OwnEvents lists the types that only the hub raises.
func OwnEvents() []EventType {
	return append(SwitchEvents(), FleetRejected, FleetRewound, FleetHeld, FleetFrozen, HostFileRejected, ClickHouseAway, SpoolHigh)
}

// OwnEvent reports whether a type is one that only the hub raises.
func OwnEvent(t EventType) bool { return slices.Contains(OwnEvents(), t) }

// The fleet's events: they are the operators', so their CustomerID is empty.
const (
	FleetRejected    EventType = "fleet_rejected"     // a head with structural mistakes, or not signed as required
	FleetRewound     EventType = "fleet_rewound"      // a head that does not descend from the commit in force
	FleetHeld        EventType = "fleet_held"         // a head that removes more hosts than its guards allow
	FleetFrozen      EventType = "fleet_frozen"       // the repository does not answer, or does not move
	HostFileRejected EventType = "host_file_rejected" // one host keeps its last good record
)

// The hub's events about itself, which are the operators' too. The names are kept
// from others before they are raised.
const (
	ClickHouseAway EventType = "clickhouse_away"
	SpoolHigh      EventType = "spool_high"
)

// Severity returns "info", "warning" or "critical".
func (t EventType) Severity() string {
	switch t {
	case HostDown, ControllerDown, MassSilence:
		return "critical"
	case HostStale, HostNeverReported, HostFlapping, ControllerStale, ControllerFlapping,
		BackupDeadline.Overdue(), RestoreTestDeadline.Overdue(), PBSVerifyDeadline.Overdue(), HubSwitchHeld, ClickHouseAway, SpoolHigh, FleetRejected, FleetRewound, FleetHeld, FleetFrozen, HostFileRejected:
		return "warning"
	default:
		return "info"
	}
}

// Severity returns what the event itself says, else that of its type.
func (e *Event) Severity() string {
	if e.Level != "" {
		return e.Level
	}
	return e.Type.Severity()
}

// Muted reports whether nobody is told of an event by itself: another explains it, or
// there is a reason to be silent.
func (e *Event) Muted() bool { return e.CausedBy != "" || e.SuppressedBy != "" }

// Event is one thing that happened, as the table events holds it.
type Event struct {
	ID             string // 32 hex digits; the same whoever computes it
	Type           EventType
	CustomerID     string    // the host's customer at At; empty: the operators'
	HostID         string    // empty where the event is about no host
	GuestID        string    // "<host_id>/<vmid>"; empty where the event is about no guest
	At             time.Time // when the condition first held
	DetectedAt     time.Time // the slot time T that found it
	Episode        string    // one trouble from its first alarm to its recovery, which share it: 32 hex digits; empty: the event stands alone
	SilenceSeconds float64   // At − last report; of a deadline, At − the success before
	Reason         string
	Source         string   // "switch", "fleet" or "controller"
	Level          string   // severity of a controller's event, as it said; empty: that of its Type
	FoldedInto     string   // ID of the MassSilence that this one is part of; empty: none
	CausedBy       string   // ID of the event that explains this one and is told in its place; empty: none
	SuppressedBy   string   // why nobody is told of it, as "retired" or a maintenance window; empty: it is told
	Hosts          []string // of a MassSilence: those that it folds

	LastSeen *LastSeen // of an alarm, for the message; nil: not known
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

// TellingID returns the id of the event that tells of a silence or a deadline after
// all: what alarm said was stored and not told, and when the reason for that was
// over the trouble went on.
func TellingID(alarm string) string {
	sum := sha256.Sum256([]byte("felhom-event/1\ntold_after_all\n" + alarm))
	return hex.EncodeToString(sum[:])[:32]
}

// EpisodeID names the trouble of a host, a guest or a guest's deadline that the
// position or instant of its last sign of life begins.
func EpisodeID(subject, last string) string {
	sum := sha256.Sum256([]byte("felhom-episode/1\n" + subject + "\n" + last))
	return hex.EncodeToString(sum[:])[:32]
}

// DeadlineEventID returns the id of an event of a guest's deadline: the first 32 hex
// digits of the SHA-256 of "felhom-event/1\n<type>\n<guest_id>\n<Unix milliseconds
// of the success, or first sight, before>".
func DeadlineEventID(t EventType, guestID string, base time.Time) string {
	return FleetEventID(t, guestID+"\n"+strconv.FormatInt(base.UnixMilli(), 10))
}

// FleetEventID returns the first 32 hex digits of the SHA-256 of
// "felhom-event/1\n<type>\n<subject>", where the subject names what happened
// (a revision, a host and its blob) and no clock does.
func FleetEventID(t EventType, subject string) string {
	sum := sha256.Sum256([]byte("felhom-event/1\n" + string(t) + "\n" + subject))
	return hex.EncodeToString(sum[:])[:32]
}

// HostState is the switch's memory of one host, or of the controller of one guest.
type HostState struct {
	HostID     string // or guest id
	CustomerID string // at the decision; empty where an older hub decided
	State      State
	Since      time.Time // when the condition of State first held
	Last       Position  // the last report before the silence, or the newest seen when ok
	LastAt     time.Time // received_at of that report
	Silent     bool      // nobody was told of this silence, so nobody is told that it ended
	MutedBy    string    // why what was raised of this silence was not told, as Event.SuppressedBy says, or the id that CausedBy does; empty: it was told
	DecidedAt  time.Time // the slot time T of the decision; later than that of the host's last one

	Lifecycle   Lifecycle // what the switch made of the host: it watches active ones; empty where an older hub decided: Active
	WatchedFrom time.Time // when it was unpaused or returned; zero: always watched, or it reported since
	Fold        string    // ID of the MassSilence that tells of this silence; empty: none

	Silences [FlapMemory]time.Time // beginnings of the newest silences, oldest first; zero ones come before
	Flapping Position              // last report before the silence at which HostFlapping was raised; zero: it does not flap
}

// FlapMemory is how many silences of a host are remembered: as many as make it flap.
const FlapMemory = 6

// DeadlineState is the switch's memory of one deadline of one guest. There is none
// of a guest whose deadline was never missed.
type DeadlineState struct {
	GuestID    string
	Deadline   Deadline
	CustomerID string
	Overdue    bool
	Base       time.Time // the newest success, or the first sight, that the deadline counts from
	Since      time.Time // when the condition first held
	MutedBy    string    // as in HostState
	Closed     time.Time // when it was closed without a success: the guest was gone, or the deadline; zero: it was not
	DecidedAt  time.Time // as in HostState
}

// Decision is what one tick decided, written to the spool as one record so that
// a state and its event are durable together or not at all.
type Decision struct {
	States    []HostState
	Deadlines []DeadlineState
	Events    []Event
}
