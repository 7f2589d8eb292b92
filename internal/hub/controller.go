package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// ControllerReport is the report of a controller, decoded. Pointers are nil where
// the report gave no value, or one out of its range (then Rejected says so).
type ControllerReport struct {
	CustomerID        string
	GuestID           string    // "<host_id>/<vmid>"; empty where the controller does not say in which guest it runs
	ReportedAt        time.Time // the controller's clock; never used to judge liveness
	ControllerVersion string

	Status                                 string // "" where absent
	UptimeSeconds                          *uint64
	CPUPercent, MemoryPercent, DiskPercent *float64

	LastBackupAt     *time.Time // when the guest's newest backup succeeded, by the controller's clock
	LastBackupStatus string     // of its newest backup, as "ok"; "" where absent

	Apps     []App
	Rejected []RejectedItem
}

// App is one application that a controller runs.
type App struct {
	Name    string // not empty, unique within a report
	Status  string
	Version string
}

// ControllerEvent is what a controller tells, decoded.
type ControllerEvent struct {
	Type     EventType
	Severity string    // info, warning or critical
	Message  string    // never empty
	GuestID  string    // empty where it is about no guest
	At       time.Time // the controller's clock; zero where it does not say
}

// maxEventReason is how much of a message is kept, in characters: it goes into mails.
const maxEventReason = 2000

// Event returns the event as the table events holds it. at is the record's receipt,
// which also stands in for a time that the controller did not give; of the message
// the first 2,000 characters are kept.
func (e *ControllerEvent) Event(customerID string, at Receipt) Event {
	hostID, _, _ := ParseGuestID(e.GuestID)
	event := Event{
		ID: ControllerEventID(at.Position), Type: e.Type, Level: e.Severity, Source: "controller",
		CustomerID: customerID, HostID: hostID, GuestID: e.GuestID,
		At: e.At, DetectedAt: at.ReceivedAt, Reason: firstOf(e.Message, maxEventReason),
	}
	if e.At.IsZero() {
		event.At = at.ReceivedAt
	}
	return event
}

// firstOf returns the first n characters of a text.
func firstOf(text string, n int) string {
	for i := range text {
		if n == 0 {
			return text[:i]
		}
		n--
	}
	return text
}

// ControllerEventID returns the first 32 hex digits of the SHA-256 of
// "felhom-event/1\ncontroller\n<spool_id>\n<spool_seq>": of the record that holds
// the event. No clock enters it.
func ControllerEventID(at Position) string {
	sum := sha256.Sum256([]byte("felhom-event/1\ncontroller\n" + at.SpoolID.String() + "\n" + strconv.FormatUint(at.Seq, 10)))
	return hex.EncodeToString(sum[:])[:32]
}
