package hub

import "time"

// LastSeen is what was last known of the host or guest that an alarm is about, by the
// last report before it. It is for people: nothing is decided by it.
type LastSeen struct {
	At            time.Time // received_at of that report
	PVEVersion    string    // empty where absent, as all that follows may be
	Guests        uint32
	GuestsRunning uint32
	MemPercent    *float64 // 0-100; nil where absent
	DiskPercent   *float64 // 0-100; nil where absent

	GuestName   string // of the guest, where the alarm is about one; then these alone
	GuestStatus string // as Proxmox says: running, stopped
}
