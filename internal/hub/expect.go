package hub

import (
	"math"
	"slices"
	"time"
)

// Deadline is something that has to succeed again and again for every guest.
type Deadline uint8

// The deadlines, in the order in which lists of them stand.
const (
	BackupDeadline Deadline = iota
	RestoreTestDeadline
	PBSVerifyDeadline
	deadlines
)

// AllDeadlines lists them.
func AllDeadlines() []Deadline {
	return []Deadline{BackupDeadline, RestoreTestDeadline, PBSVerifyDeadline}
}

// String returns the word that rows use: backup, restore_test or pbs_verify.
func (d Deadline) String() string { return [...]string{"backup", "restore_test", "pbs_verify"}[d] }

// ParseDeadline reads the word of a deadline.
func ParseDeadline(word string) (Deadline, bool) {
	i := slices.IndexFunc(AllDeadlines(), func(d Deadline) bool { return d.String() == word })
	return Deadline(max(0, i)), i >= 0
}

// Overdue is the event of a success that is missing, Met that of one that came.
func (d Deadline) Overdue() EventType { return EventType(d.String() + "_overdue") }

// Met is the event of a success that came after Overdue.
func (d Deadline) Met() EventType { return EventType(d.String() + "_met") }

// Deadlines are the longest times from one success to the next, by [Deadline]. Zero
// means "as above", as in [Thresholds]; zero everywhere: it is not watched.
type Deadlines [deadlines]time.Duration

// Unwatched, as one of Deadlines, is that of an owner which takes back what stands
// above it. Fleet.Deadlines makes zero of it.
const Unwatched = time.Duration(math.MaxInt64)

// Or returns d with its zero fields taken from fallback.
func (d Deadlines) Or(fallback Deadlines) Deadlines {
	for i := range d {
		if d[i] == 0 {
			d[i] = fallback[i]
		}
	}
	return d
}

// Schedule tells when a maintenance window is open. It is a pure function of its
// own fields.
type Schedule interface {
	// At returns the opening that t lies in, from ≤ t < to; false where there is none.
	At(t time.Time) (from, to time.Time, open bool)
}

// Window is a time in which nobody wants to be told.
type Window struct {
	Name     string // unique within its owner
	Reason   string // for people; may be empty
	Owner    Owner  // whose file it stands in: of the fleet, a customer or a host
	Schedule Schedule
}

// Deadlines returns what holds for the guests of h: its own, else its customer's,
// else the fleet's. Zero is not watched.
func (f *Fleet) Deadlines(h *Host) Deadlines {
	d := h.Deadlines
	if c, ok := f.customers[h.Customer]; ok {
		d = d.Or(c.Deadlines)
	}
	d = d.Or(f.spec.Deadlines)
	for i := range d {
		if d[i] == Unwatched {
			d[i] = 0
		}
	}
	return d
}

// Windows returns the maintenance windows that h lies in: its own, its
// customer's and the fleet's, in this order.
func (f *Fleet) Windows(h *Host) []Window {
	var ofCustomer []Window
	if c, ok := f.customers[h.Customer]; ok {
		ofCustomer = c.Maintenance
	}
	if len(h.Maintenance)+len(ofCustomer) == 0 {
		return f.spec.Maintenance // which most hosts share
	}
	return slices.Concat(h.Maintenance, ofCustomer, f.spec.Maintenance)
}

// TakesEvent reports whether a controller may send events of this type: it is on
// the fleet's list, or on [DefaultControllerEvents] where the fleet has none. The
// hub's own types are never taken.
func (f *Fleet) TakesEvent(t EventType) bool {
	if OwnEvent(t) {
		return false
	}
	if f.spec.ControllerEvents == nil {
		return slices.Contains(DefaultControllerEvents(), t)
	}
	return slices.Contains(f.spec.ControllerEvents, t)
}

// DefaultControllerEvents lists the types of events that controllers may send where
// fleet.yaml says nothing.
func DefaultControllerEvents() []EventType {
	return []EventType{
		"backup_started", "backup_succeeded", "backup_failed", "restore_succeeded", "restore_failed",
		"update_available", "update_started", "update_succeeded", "update_failed", "reboot_required",
		"app_installed", "app_removed", "app_started", "app_stopped", "app_failed", "app_recovered",
		"login_failed", "login_blocked", "certificate_expiring", "certificate_expired", "security_advisory",
		"disk_filling", "disk_full", "disk_recovered", "disk_failing", "storage_unavailable", "storage_available",
	}
}
