package hub

import "time"

// The elements of a report's lists, beside its guests. Agents repeat them in report
// after report, so each has an identity of its own. Their times are the agent's
// clock; see [Counts].

// StorageTarget is a place for disks and backups, by its name on the host.
type StorageTarget struct {
	Name, Type, Status    string
	TotalBytes, UsedBytes uint64 // 0 where absent
}

// Backup is one try to back a guest up, identified by guest, target and start.
type Backup struct {
	VMID                  uint32
	Target, Status, Error string
	StartedAt             time.Time
	FinishedAt            time.Time // zero while it runs
	SizeBytes             uint64    // 0 where absent
}

// Succeeded reports whether the backup is finished and good.
func (b *Backup) Succeeded() bool { return b.Status == succeeded && !b.FinishedAt.IsZero() }

// RestoreTest is one try to restore a backup, identified by guest, its own time and
// the backup's.
type RestoreTest struct {
	VMID            uint32
	BackupTime      time.Time // zero where absent
	TestedAt        time.Time
	Status          string
	DurationSeconds float64 // 0 where absent
}

// Succeeded reports whether the backup could be restored.
func (t *RestoreTest) Succeeded() bool { return t.Status == succeeded }

// PBSSnapshot is a backup in a Proxmox Backup Server, identified by datastore, guest
// and time.
type PBSSnapshot struct {
	Datastore string
	VMID      uint32
	TakenAt   time.Time
	SizeBytes uint64 // 0 where absent
	Verified  bool   // the server has read it through and found it whole
}

// AuditEntry is something that somebody did on the host; all its fields identify it.
type AuditEntry struct {
	At                    time.Time
	Actor, Action, Detail string
}

// succeeded is the status of what went well.
const succeeded = "ok"

// Counts returns the time for which a success counts: its own, but never one later than the hub's clock when it first heard of it. So no agent's
// clock, however far ahead, can push a deadline away.
func Counts(own, firstReceivedAt time.Time) time.Time {
	if own.After(firstReceivedAt) {
		return firstReceivedAt
	}
	return own
}
