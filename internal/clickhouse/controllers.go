package clickhouse

import (
	"crypto/sha256"
	"time"

	"felhom.eu/hub/internal/hub"
)

// ControllerRow is an accepted report of a controller with what the spool and the
// fleet knew of it.
type ControllerRow struct {
	hub.Receipt
	CustomerID string
	KeyID      string
	Body       []byte
	Report     *hub.ControllerReport
}

// AddControllerReport adds a report's rows: itself, its body, its apps and what was
// left out of it.
func (b *Batch) AddControllerReport(r ControllerRow) {
	hostID, _, _ := hub.ParseGuestID(r.Report.GuestID)
	at := source{r.ReceivedAt, r.CustomerID, hostID, r.SpoolID.String(), r.Seq}
	b.controllers.add(at, r)
	b.controllerBodies.add(at, r.Report.GuestID, r.Body)
	for i := range r.Report.Apps {
		b.apps.add(at, r.Report.GuestID, &r.Report.Apps[i])
	}
	for i := range r.Report.Rejected {
		b.items.add(at, &r.Report.Rejected[i])
	}
}

// AddControllerBackup adds the backup that a controller tells of to what its guest's
// deadline is judged by, whatever came of the newest try.
func (b *Batch) AddControllerBackup(r ControllerRow, ahead *Ahead) {
	host, vmid, _ := hub.ParseGuestID(r.Report.GuestID)
	at := *r.Report.LastBackupAt
	b.AddSuccess(Success{HostID: host, VMID: vmid, Deadline: hub.BackupDeadline, Item: itemName("controller", at), At: at, ReceivedAt: r.ReceivedAt}, ahead)
}

// AddControllerEvent adds an event that a controller sent.
func (b *Batch) AddControllerEvent(at hub.Receipt, e hub.Event) {
	e.At = clampTime(e.At) // the controller's clock says what it likes
	b.events.add(at.Position, &e)
}

type controllerReports struct {
	sourceColumns
	guestID, keyID, version, status values[string]
	reportedAt                      values[time.Time]
	uptime                          values[*uint64]
	cpu, memory, disk               values[*float64]
	backupAt                        values[*time.Time]
	backupStatus                    values[string]
	apps, rejected, bodyBytes       values[uint32]
	bodySHA256                      values[[]byte]
}

func (c *controllerReports) add(at source, row ControllerRow) {
	r := row.Report
	c.sourceColumns.add(at)
	c.guestID = append(c.guestID, r.GuestID)
	c.keyID = append(c.keyID, row.KeyID)
	c.version = append(c.version, r.ControllerVersion)
	c.status = append(c.status, r.Status)
	c.reportedAt = append(c.reportedAt, clampTime(r.ReportedAt))
	c.uptime = append(c.uptime, r.UptimeSeconds)
	c.cpu = append(c.cpu, r.CPUPercent)
	c.memory = append(c.memory, r.MemoryPercent)
	c.disk = append(c.disk, r.DiskPercent)
	c.backupAt = append(c.backupAt, clampOptional(r.LastBackupAt))
	c.backupStatus = append(c.backupStatus, r.LastBackupStatus)
	c.apps = append(c.apps, uint32(len(r.Apps)))
	c.rejected = append(c.rejected, uint32(len(r.Rejected)))
	c.bodyBytes = append(c.bodyBytes, uint32(len(row.Body)))
	sum := sha256.Sum256(row.Body)
	c.bodySHA256 = append(c.bodySHA256, sum[:])
}

func (c *controllerReports) columns() []column {
	return c.with(
		column{"guest_id", &c.guestID},
		column{"key_id", &c.keyID},
		column{"controller_version", &c.version},
		column{"status", &c.status},
		column{"reported_at", &c.reportedAt},
		column{"uptime_seconds", &c.uptime},
		column{"cpu_percent", &c.cpu},
		column{"memory_percent", &c.memory},
		column{"disk_percent", &c.disk},
		column{"last_backup_at", &c.backupAt},
		column{"last_backup_status", &c.backupStatus},
		column{"app_total", &c.apps},
		column{"rejected_total", &c.rejected},
		column{"body_bytes", &c.bodyBytes},
		column{"body_sha256", &c.bodySHA256},
	)
}

type controllerBodies struct {
	reportBodies
	guestID values[string]
}

func (c *controllerBodies) add(at source, guestID string, body []byte) {
	c.reportBodies.add(at, body)
	c.guestID = append(c.guestID, guestID)
}

func (c *controllerBodies) columns() []column {
	return append(c.reportBodies.columns(), column{"guest_id", &c.guestID})
}

type controllerApps struct {
	sourceColumns
	guestID, name, status, version values[string]
}

func (c *controllerApps) add(at source, guestID string, a *hub.App) {
	c.sourceColumns.add(at)
	c.guestID = append(c.guestID, guestID)
	c.name = append(c.name, a.Name)
	c.status = append(c.status, a.Status)
	c.version = append(c.version, a.Version)
}

func (c *controllerApps) columns() []column {
	return c.with(
		column{"guest_id", &c.guestID},
		column{"name", &c.name},
		column{"status", &c.status},
		column{"version", &c.version},
	)
}

func clampOptional(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	clamped := clampTime(*t)
	return &clamped
}
