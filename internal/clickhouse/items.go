package clickhouse

import (
	"strconv"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Section is a part of a report that most reports repeat from the one before.
type Section uint8

// The sections. Those of lists have an element each in a table; of the guests only
// the first sight of each is kept this way.
const (
	GuestsSection Section = iota
	BackupsSection
	RestoreTestsSection
	PBSSnapshotsSection
	AuditSection
	Sections // how many there are
)

// AddSection adds the rows of a section to the tables that are [Repeatable]: what a
// report repeats may be left out, or added again. Reports must come in the order in
// which they were received, as far as ahead is concerned.
func (b *Batch) AddSection(s Section, r ReportRow, ahead *Ahead) {
	at := source{r.ReceivedAt, r.CustomerID, r.Report.HostID, r.SpoolID.String(), r.Seq}
	switch s {
	case GuestsSection:
		for i := range r.Report.Guests {
			b.deadlines.addSight(at, r.Report.Guests[i].VMID)
		}
	case BackupsSection:
		for i := range r.Report.Backups {
			b.addBackup(at, &r.Report.Backups[i], ahead)
		}
	case RestoreTestsSection:
		for i := range r.Report.RestoreTests {
			b.addRestoreTest(at, &r.Report.RestoreTests[i], ahead)
		}
	case PBSSnapshotsSection:
		for i := range r.Report.PBSSnapshots {
			b.addPBSSnapshot(at, &r.Report.PBSSnapshots[i], ahead)
		}
	case AuditSection:
		for i := range r.Report.AuditTail {
			b.audit.add(at, &r.Report.AuditTail[i])
		}
	}
}

func (b *Batch) addBackup(at source, item *hub.Backup, ahead *Ahead) {
	var counts *time.Time
	if item.Succeeded() {
		counts = b.addItemSuccess(at, item.VMID, hub.BackupDeadline, item.FinishedAt, itemName(item.Target, item.StartedAt), ahead)
	}
	c := &b.backups
	c.guestColumns.add(at, item.VMID, counts)
	c.target = append(c.target, item.Target)
	c.startedAt = append(c.startedAt, clampTime(item.StartedAt))
	c.finishedAt = append(c.finishedAt, optionalTime(item.FinishedAt))
	c.status = append(c.status, item.Status)
	c.size = append(c.size, item.SizeBytes)
	c.err = append(c.err, item.Error)
}

func (b *Batch) addRestoreTest(at source, item *hub.RestoreTest, ahead *Ahead) {
	var counts *time.Time
	if item.Succeeded() {
		counts = b.addItemSuccess(at, item.VMID, hub.RestoreTestDeadline, item.TestedAt, itemName("", item.TestedAt, item.BackupTime), ahead)
	}
	c := &b.restoreTests
	c.guestColumns.add(at, item.VMID, counts)
	c.testedAt = append(c.testedAt, clampTime(item.TestedAt))
	c.backupTime = append(c.backupTime, clampTime(item.BackupTime))
	c.status = append(c.status, item.Status)
	c.duration = append(c.duration, item.DurationSeconds)
}

func (b *Batch) addPBSSnapshot(at source, item *hub.PBSSnapshot, ahead *Ahead) {
	var counts *time.Time
	if item.Verified {
		counts = b.addItemSuccess(at, item.VMID, hub.PBSVerifyDeadline, item.TakenAt, itemName(item.Datastore, item.TakenAt), ahead)
	}
	c := &b.snapshots
	c.guestColumns.add(at, item.VMID, counts)
	c.datastore = append(c.datastore, item.Datastore)
	c.takenAt = append(c.takenAt, clampTime(item.TakenAt))
	c.size = append(c.size, item.SizeBytes)
	c.verified = append(c.verified, item.Verified)
}

func (b *Batch) addItemSuccess(at source, vmid uint32, d hub.Deadline, own time.Time, name string, ahead *Ahead) *time.Time {
	counts := b.AddSuccess(Success{HostID: at.hostID, VMID: vmid, Deadline: d, Item: name, At: own, ReceivedAt: at.receivedAt}, ahead)
	return &counts
}

// itemName tells an item of a guest from the others, as the key of its table does.
func itemName(place string, times ...time.Time) string {
	name := []byte(place)
	for _, t := range times {
		name = strconv.AppendInt(append(name, ' '), clampTime(t).UnixMilli(), 10)
	}
	return string(name)
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = clampTime(t)
	return &t
}

// guestColumns are those that the items of guests share.
type guestColumns struct {
	sourceColumns
	guestID   values[string]
	vmid      values[uint32]
	succeeded values[*time.Time]
}

func (c *guestColumns) add(at source, vmid uint32, succeeded *time.Time) {
	c.sourceColumns.add(at)
	c.guestID = append(c.guestID, hub.GuestID(at.hostID, vmid))
	c.vmid = append(c.vmid, vmid)
	c.succeeded = append(c.succeeded, succeeded)
}

func (c *guestColumns) with(more ...column) []column {
	return c.sourceColumns.with(append([]column{
		{"guest_id", &c.guestID},
		{"vmid", &c.vmid},
		{"succeeded_at", &c.succeeded},
	}, more...)...)
}

type backupItems struct {
	guestColumns
	target, status, err values[string]
	startedAt           values[time.Time]
	finishedAt          values[*time.Time]
	size                values[uint64]
}

func (c *backupItems) columns() []column {
	return c.with(
		column{"target", &c.target},
		column{"started_at", &c.startedAt},
		column{"finished_at", &c.finishedAt},
		column{"status", &c.status},
		column{"size_bytes", &c.size},
		column{"error", &c.err},
	)
}

type restoreTestItems struct {
	guestColumns
	testedAt, backupTime values[time.Time]
	status               values[string]
	duration             values[float64]
}

func (c *restoreTestItems) columns() []column {
	return c.with(
		column{"tested_at", &c.testedAt},
		column{"backup_time", &c.backupTime},
		column{"status", &c.status},
		column{"duration_seconds", &c.duration},
	)
}

type pbsSnapshotItems struct {
	guestColumns
	datastore values[string]
	takenAt   values[time.Time]
	size      values[uint64]
	verified  values[bool]
}

func (c *pbsSnapshotItems) columns() []column {
	return c.with(
		column{"datastore", &c.datastore},
		column{"taken_at", &c.takenAt},
		column{"size_bytes", &c.size},
		column{"verified", &c.verified},
	)
}

type auditItems struct {
	sourceColumns
	at                    values[time.Time]
	actor, action, detail values[string]
}

func (c *auditItems) add(at source, e *hub.AuditEntry) {
	c.sourceColumns.add(at)
	c.at = append(c.at, clampTime(e.At))
	c.actor = append(c.actor, e.Actor)
	c.action = append(c.action, e.Action)
	c.detail = append(c.detail, e.Detail)
}

func (c *auditItems) columns() []column {
	return c.with(
		column{"at", &c.at},
		column{"actor", &c.actor},
		column{"action", &c.action},
		column{"detail", &c.detail},
	)
}

type storageTargets struct {
	sourceColumns
	name, kind, status values[string]
	total, used        values[uint64]
}

func (c *storageTargets) add(at source, t *hub.StorageTarget) {
	c.sourceColumns.add(at)
	c.name = append(c.name, t.Name)
	c.kind = append(c.kind, t.Type)
	c.status = append(c.status, t.Status)
	c.total = append(c.total, t.TotalBytes)
	c.used = append(c.used, t.UsedBytes)
}

func (c *storageTargets) columns() []column {
	return c.with(
		column{"name", &c.name},
		column{"type", &c.kind},
		column{"status", &c.status},
		column{"total_bytes", &c.total},
		column{"used_bytes", &c.used},
	)
}
