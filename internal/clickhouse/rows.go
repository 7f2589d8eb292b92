package clickhouse

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
)

// column is one column of a block: its name and its values.
type column struct {
	name   string
	values interface {
		slice() any // as the driver takes them
		empty()
	}
}

// values are those of a column.
type values[T any] []T

func (v *values[T]) slice() any { return []T(*v) }

// empty keeps the room.
func (v *values[T]) empty() {
	clear(*v)
	*v = (*v)[:0]
}

// block is the rows of one table, held by column as the native protocol sends
// them (row-wise appending costs 1.4 times as much).
type block interface {
	columns() []column
	rows() int
}

// ReportRow is an accepted host report with what the spool and the fleet knew
// of it.
type ReportRow struct {
	hub.Receipt
	CustomerID string
	KeyID      string
	Body       []byte
	Report     *hub.Report
}

// RejectedRow is an acknowledged record that cannot become rows.
type RejectedRow struct {
	hub.Receipt
	CustomerID, HostID string
	Kind               hub.RecordKind
	Reason             string
	Body               []byte
}

// Batch collects the rows of one cut of the spool. The zero value is empty and
// ready. It keeps what is added; nothing of it may change until the batch is
// done with.
type Batch struct {
	reports  hostReports
	bodies   reportBodies
	guests   guestReports
	items    rejectedItems
	rejected rejectedReports
	events   eventRows
	states   switchStates
	overdue  deadlineStates
	commits  fleetCommits
	blind    blindTimes
	targets  storageTargets

	notifications notificationRows

	// Of tables that are Repeatable.
	backups      backupItems
	restoreTests restoreTestItems
	snapshots    pbsSnapshotItems
	audit        auditItems
	ahead        successesAhead
	deadlines    guestDeadlines

	controllers      controllerReports
	controllerBodies controllerBodies
	apps             controllerApps
}

// Table names, in the order in which a batch is inserted.
const (
	tableReports  = "host_reports"
	tableBodies   = "host_report_bodies"
	tableGuests   = "guest_reports"
	tableItems    = "rejected_items"
	tableRejected = "rejected_reports"
	tableEvents   = "events"
	tableStates   = "switch_state"
	tableOverdue  = "deadline_state"
	tableCommits  = "fleet_commits"
	tableBlind    = "hub_blind"
	tableTargets  = "storage_target_reports"

	tableNotifications = "notifications"

	tableBackups      = "backup_items"
	tableRestoreTests = "restore_test_items"
	tableSnapshots    = "pbs_snapshot_items"
	tableAudit        = "audit_items"
	tableAhead        = "successes_ahead"
	tableDeadlines    = "guest_deadlines"

	tableControllers      = "controller_reports"
	tableControllerBodies = "controller_report_bodies"
	tableApps             = "controller_apps"
)

// RejectedTable has the records that cannot become rows of the other tables.
const RejectedTable = tableRejected

// Tables names every table that the spool feeds, in the order of insertion.
// Bodies and items come before reports, so that who sees a report finds what it
// brought; events come after what they are about. The last is [RejectedTable]: it
// takes what the others refuse.
func Tables() []string {
	return []string{tableBodies, tableBackups, tableRestoreTests, tableSnapshots, tableAudit, tableAhead, tableDeadlines,
		tableReports, tableGuests, tableTargets, tableControllerBodies, tableControllers, tableApps, tableItems,
		tableStates, tableOverdue, tableCommits, tableBlind, tableEvents, tableNotifications, tableRejected}
}

// Repeatable reports whether rows of a table may be inserted any number of times:
// what is there counts once. Such a table tells nothing of whether it has a record.
func Repeatable(table string) bool {
	switch table {
	case tableBackups, tableRestoreTests, tableSnapshots, tableAudit, tableAhead, tableDeadlines:
		return true
	}
	return false
}

// Counted names the tables of [Tables] that are not [Repeatable]: every record has
// its rows there exactly once.
func Counted() []string { return slices.DeleteFunc(Tables(), Repeatable) }

func (b *Batch) block(table string) block {
	switch table {
	case tableBodies:
		return &b.bodies
	case tableReports:
		return &b.reports
	case tableGuests:
		return &b.guests
	case tableControllers:
		return &b.controllers
	case tableControllerBodies:
		return &b.controllerBodies
	case tableApps:
		return &b.apps
	case tableItems:
		return &b.items
	case tableRejected:
		return &b.rejected
	case tableStates:
		return &b.states
	case tableOverdue:
		return &b.overdue
	case tableCommits:
		return &b.commits
	case tableNotifications:
		return &b.notifications
	case tableBlind:
		return &b.blind
	case tableEvents:
		return &b.events
	case tableTargets:
		return &b.targets
	case tableBackups:
		return &b.backups
	case tableRestoreTests:
		return &b.restoreTests
	case tableSnapshots:
		return &b.snapshots
	case tableAudit:
		return &b.audit
	case tableAhead:
		return &b.ahead
	case tableDeadlines:
		return &b.deadlines
	default:
		panic("clickhouse: no table " + table)
	}
}

// Reset makes the batch empty and keeps its room.
func (b *Batch) Reset() {
	for _, table := range Tables() {
		for _, c := range b.block(table).columns() {
			c.values.empty()
		}
	}
}

// Rows returns the number of rows for a table.
func (b *Batch) Rows(table string) int { return b.block(table).rows() }

// AddReport adds a report's rows in tables that are [Counted]: itself, its body, its
// guests and storage targets, and what was left out of it. AddSection adds the others.
func (b *Batch) AddReport(r ReportRow) {
	at := source{r.ReceivedAt, r.CustomerID, r.Report.HostID, r.SpoolID.String(), r.Seq}
	b.reports.add(at, r)
	b.bodies.add(at, r.Body)
	for i := range r.Report.Guests {
		b.guests.add(at, &r.Report.Guests[i])
	}
	for i := range r.Report.StorageTargets {
		b.targets.add(at, &r.Report.StorageTargets[i])
	}
	for i := range r.Report.Rejected {
		b.items.add(at, &r.Report.Rejected[i])
	}
}

// AddRejected adds a record that could not be read.
func (b *Batch) AddRejected(r RejectedRow) {
	at := source{r.ReceivedAt, r.CustomerID, r.HostID, r.SpoolID.String(), r.Seq}
	b.rejected.sourceColumns.add(at)
	b.rejected.kind = append(b.rejected.kind, uint8(r.Kind))
	b.rejected.reason = append(b.rejected.reason, r.Reason)
	b.rejected.body = append(b.rejected.body, r.Body)
}

// AddDecision adds what one tick of the switch decided.
func (b *Batch) AddDecision(at hub.Receipt, d hub.Decision) {
	for i := range d.States {
		b.states.add(at.Position, &d.States[i])
	}
	for i := range d.Deadlines {
		b.overdue.add(at.Position, &d.Deadlines[i])
	}
	for i := range d.Events {
		b.events.add(at.Position, &d.Events[i])
	}
}

// AddNotice adds what the hub said of its fleet.
func (b *Batch) AddNotice(at hub.Receipt, n hub.Notice) {
	for i := range n.Commits {
		b.commits.add(at.Position, &n.Commits[i])
	}
	for i := range n.Events {
		b.events.add(at.Position, &n.Events[i])
	}
}

// AddBlind adds a time in which the hub could not have accepted a report.
func (b *Batch) AddBlind(at hub.Receipt, i blind.Interval) {
	b.blind.from = append(b.blind.from, clampTime(i.From))
	b.blind.to = append(b.blind.to, clampTime(i.To))
	b.blind.cause = append(b.blind.cause, string(i.Cause))
	b.blind.spoolID = append(b.blind.spoolID, at.SpoolID.String())
	b.blind.spoolSeq = append(b.blind.spoolSeq, at.Seq)
}

// source is what every row of the stream says of where it came from.
type source struct {
	receivedAt         time.Time
	customerID, hostID string
	spoolID            string
	spoolSeq           uint64
}

type sourceColumns struct {
	receivedAt                  values[time.Time]
	customerID, hostID, spoolID values[string]
	spoolSeq                    values[uint64]
}

func (c *sourceColumns) add(s source) {
	c.receivedAt = append(c.receivedAt, s.receivedAt)
	c.customerID = append(c.customerID, s.customerID)
	c.hostID = append(c.hostID, s.hostID)
	c.spoolID = append(c.spoolID, s.spoolID)
	c.spoolSeq = append(c.spoolSeq, s.spoolSeq)
}

func (c *sourceColumns) rows() int { return len(c.spoolSeq) }

func (c *sourceColumns) with(more ...column) []column {
	return append([]column{
		{"received_at", &c.receivedAt},
		{"customer_id", &c.customerID},
		{"host_id", &c.hostID},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}, more...)
}

type hostReports struct {
	sourceColumns
	reportedAt                                    values[time.Time]
	keyID, agentVersion                           values[string]
	hostname, pveVersion, kernel, bootID          values[string]
	uptime, cpuCount                              values[*uint64]
	cpuPercent, load1, load5, load15              values[*float64]
	memTotal, memUsed, diskTotal, diskUsed        values[*uint64]
	memPercent, diskPercent                       values[*float64]
	guestTotal, guestRunning, rejected, bodyBytes values[uint32]
	targetTotal                                   values[uint32]
	cloudflared, maintenanceReason                values[string]
	maintenanceUntil                              values[*time.Time]
	bodySHA256                                    values[[]byte]
}

func (c *hostReports) add(at source, row ReportRow) {
	r := row.Report
	c.sourceColumns.add(at)
	c.reportedAt = append(c.reportedAt, clampTime(r.ReportedAt))
	c.keyID = append(c.keyID, row.KeyID)
	c.agentVersion = append(c.agentVersion, r.AgentVersion)
	c.hostname = append(c.hostname, r.Hostname)
	c.pveVersion = append(c.pveVersion, r.PVEVersion)
	c.kernel = append(c.kernel, r.Kernel)
	c.bootID = append(c.bootID, r.BootID)
	c.uptime = append(c.uptime, r.UptimeSeconds)
	c.cpuCount = append(c.cpuCount, r.CPUCount)
	c.cpuPercent = append(c.cpuPercent, r.CPUPercent)
	c.load1 = append(c.load1, loadAt(r.LoadAverage, 0))
	c.load5 = append(c.load5, loadAt(r.LoadAverage, 1))
	c.load15 = append(c.load15, loadAt(r.LoadAverage, 2))
	c.memTotal = append(c.memTotal, r.MemoryTotalBytes)
	c.memUsed = append(c.memUsed, r.MemoryUsedBytes)
	c.diskTotal = append(c.diskTotal, r.DiskTotalBytes)
	c.diskUsed = append(c.diskUsed, r.DiskUsedBytes)
	c.memPercent = append(c.memPercent, r.MemPercent())
	c.diskPercent = append(c.diskPercent, r.DiskPercent())
	c.guestTotal = append(c.guestTotal, uint32(len(r.Guests)))
	c.guestRunning = append(c.guestRunning, uint32(r.GuestRunning()))
	c.targetTotal = append(c.targetTotal, uint32(len(r.StorageTargets)))
	c.rejected = append(c.rejected, uint32(len(r.Rejected)))
	c.bodyBytes = append(c.bodyBytes, uint32(len(row.Body)))
	c.cloudflared = append(c.cloudflared, r.CloudflaredStatus)
	c.maintenanceReason = append(c.maintenanceReason, r.MaintenanceReason)
	c.maintenanceUntil = append(c.maintenanceUntil, r.MaintenanceUntil)
	sum := sha256.Sum256(row.Body)
	c.bodySHA256 = append(c.bodySHA256, sum[:])
}

func (c *hostReports) columns() []column {
	return c.with(
		column{"reported_at", &c.reportedAt},
		column{"key_id", &c.keyID},
		column{"agent_version", &c.agentVersion},
		column{"hostname", &c.hostname},
		column{"pve_version", &c.pveVersion},
		column{"kernel", &c.kernel},
		column{"boot_id", &c.bootID},
		column{"uptime_seconds", &c.uptime},
		column{"cpu_count", &c.cpuCount},
		column{"cpu_percent", &c.cpuPercent},
		column{"load_1", &c.load1},
		column{"load_5", &c.load5},
		column{"load_15", &c.load15},
		column{"memory_total_bytes", &c.memTotal},
		column{"memory_used_bytes", &c.memUsed},
		column{"mem_percent", &c.memPercent},
		column{"disk_total_bytes", &c.diskTotal},
		column{"disk_used_bytes", &c.diskUsed},
		column{"disk_percent", &c.diskPercent},
		column{"guest_total", &c.guestTotal},
		column{"guest_running", &c.guestRunning},
		column{"storage_target_total", &c.targetTotal},
		column{"cloudflared_status", &c.cloudflared},
		column{"maintenance_until", &c.maintenanceUntil},
		column{"maintenance_reason", &c.maintenanceReason},
		column{"rejected_total", &c.rejected},
		column{"body_sha256", &c.bodySHA256},
		column{"body_bytes", &c.bodyBytes},
	)
}

type reportBodies struct {
	sourceColumns
	body values[[]byte]
}

func (c *reportBodies) add(at source, body []byte) {
	c.sourceColumns.add(at)
	c.body = append(c.body, body)
}

func (c *reportBodies) columns() []column { return c.with(column{"body", &c.body}) }

type guestReports struct {
	sourceColumns
	guestID                   values[string]
	vmid                      values[uint32]
	name, status, ctrlVersion values[string]
	spec                      values[[]byte]
}

func (c *guestReports) add(at source, g *hub.Guest) {
	c.sourceColumns.add(at)
	c.guestID = append(c.guestID, hub.GuestID(at.hostID, g.VMID))
	c.vmid = append(c.vmid, g.VMID)
	c.name = append(c.name, g.Name)
	c.status = append(c.status, g.Status)
	c.ctrlVersion = append(c.ctrlVersion, g.ControllerVersion)
	c.spec = append(c.spec, g.Spec)
}

func (c *guestReports) columns() []column {
	return c.with(
		column{"guest_id", &c.guestID},
		column{"vmid", &c.vmid},
		column{"name", &c.name},
		column{"status", &c.status},
		column{"controller_version", &c.ctrlVersion},
		column{"spec", &c.spec},
	)
}

type rejectedItems struct {
	sourceColumns
	section  values[string]
	position values[int32]
	reason   values[string]
	item     values[[]byte]
}

func (c *rejectedItems) add(at source, r *hub.RejectedItem) {
	c.sourceColumns.add(at)
	c.section = append(c.section, r.Section)
	c.position = append(c.position, int32(r.Position))
	c.reason = append(c.reason, r.Reason)
	c.item = append(c.item, r.Item)
}

func (c *rejectedItems) columns() []column {
	return c.with(
		column{"section", &c.section},
		column{"position", &c.position},
		column{"reason", &c.reason},
		column{"item", &c.item},
	)
}

type rejectedReports struct {
	sourceColumns
	kind   values[uint8]
	reason values[string]
	body   values[[]byte]
}

func (c *rejectedReports) columns() []column {
	return c.with(column{"kind", &c.kind}, column{"reason", &c.reason}, column{"body", &c.body})
}

type eventRows struct {
	id, typ, severity, customerID          values[string]
	hostID, guestID, episode               values[string]
	at, detectedAt                         values[time.Time]
	silence                                values[float64]
	reason, source, foldedInto, suppressed values[string]
	causedBy                               values[string]
	hosts                                  values[[]string]
	spoolID                                values[string]
	spoolSeq                               values[uint64]
}

func (c *eventRows) rows() int { return len(c.id) }

func (c *eventRows) add(at hub.Position, e *hub.Event) {
	c.id = append(c.id, e.ID)
	c.typ = append(c.typ, string(e.Type))
	c.severity = append(c.severity, e.Severity())
	c.customerID = append(c.customerID, e.CustomerID)
	c.hostID = append(c.hostID, e.HostID)
	c.guestID = append(c.guestID, e.GuestID)
	c.at = append(c.at, e.At)
	c.detectedAt = append(c.detectedAt, e.DetectedAt)
	c.episode = append(c.episode, e.Episode)
	c.silence = append(c.silence, e.SilenceSeconds)
	c.reason = append(c.reason, e.Reason)
	c.source = append(c.source, e.Source)
	c.foldedInto = append(c.foldedInto, e.FoldedInto)
	c.causedBy = append(c.causedBy, e.CausedBy)
	c.suppressed = append(c.suppressed, e.SuppressedBy)
	c.hosts = append(c.hosts, e.Hosts)
	c.spoolID = append(c.spoolID, at.SpoolID.String())
	c.spoolSeq = append(c.spoolSeq, at.Seq)
}

func (c *eventRows) columns() []column {
	return []column{
		{"event_id", &c.id},
		{"type", &c.typ},
		{"severity", &c.severity},
		{"customer_id", &c.customerID},
		{"host_id", &c.hostID},
		{"guest_id", &c.guestID},
		{"at", &c.at},
		{"detected_at", &c.detectedAt},
		{"episode", &c.episode},
		{"silence_seconds", &c.silence},
		{"reason", &c.reason},
		{"source", &c.source},
		{"folded_into", &c.foldedInto},
		{"caused_by", &c.causedBy},
		{"suppressed_by", &c.suppressed},
		{"hosts", &c.hosts},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}
}

type switchStates struct {
	hostID, customerID, state values[string]
	since, lastAt, decided    values[time.Time]
	silent                    values[uint8]
	episodeID, spoolID        values[string]
	episodeSeq, spoolSeq      values[uint64]
	lifecycle, fold, flapID   values[string]
	mutedBy                   values[string]
	watchedFrom               values[*time.Time]
	silences                  values[[]time.Time]
	flapSeq                   values[uint64]
}

func (c *switchStates) rows() int { return len(c.hostID) }

func (c *switchStates) add(at hub.Position, s *hub.HostState) {
	c.hostID = append(c.hostID, s.HostID)
	c.state = append(c.state, string(s.State))
	c.customerID = append(c.customerID, s.CustomerID)
	c.since = append(c.since, clampTime(s.Since))
	c.lastAt = append(c.lastAt, clampTime(s.LastAt)) // none of a host that never reported
	c.decided = append(c.decided, s.DecidedAt)
	c.silent = append(c.silent, flag(s.Silent))
	c.episodeID = append(c.episodeID, s.Last.SpoolID.String())
	c.episodeSeq = append(c.episodeSeq, s.Last.Seq)
	c.spoolID = append(c.spoolID, at.SpoolID.String())
	c.spoolSeq = append(c.spoolSeq, at.Seq)
	c.addMore(s)
}

// addMore adds what a state says beyond the host's last silence.
func (c *switchStates) addMore(s *hub.HostState) {
	c.lifecycle = append(c.lifecycle, cmp.Or(string(s.Lifecycle), string(hub.Active)))
	c.fold = append(c.fold, s.Fold)
	var watchedFrom *time.Time
	if !s.WatchedFrom.IsZero() {
		watchedFrom = &s.WatchedFrom
	}
	c.watchedFrom = append(c.watchedFrom, watchedFrom)
	var silences []time.Time
	for _, at := range s.Silences {
		if !at.IsZero() {
			silences = append(silences, at)
		}
	}
	c.silences = append(c.silences, silences)
	flapID := ""
	if s.Flapping != (hub.Position{}) {
		flapID = s.Flapping.SpoolID.String()
	}
	c.flapID = append(c.flapID, flapID)
	c.flapSeq = append(c.flapSeq, s.Flapping.Seq)
	c.mutedBy = append(c.mutedBy, s.MutedBy)
}

func (c *switchStates) columns() []column {
	return []column{
		{"host_id", &c.hostID},
		{"customer_id", &c.customerID},
		{"state", &c.state},
		{"since", &c.since},
		{"silent", &c.silent},
		{"last_report_at", &c.lastAt},
		{"episode_spool_id", &c.episodeID},
		{"episode_spool_seq", &c.episodeSeq},
		{"decided_at", &c.decided},
		{"lifecycle", &c.lifecycle},
		{"watched_from", &c.watchedFrom},
		{"folded_into", &c.fold},
		{"silences", &c.silences},
		{"flapping_spool_id", &c.flapID},
		{"flapping_spool_seq", &c.flapSeq},
		{"muted_by", &c.mutedBy},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}
}

type deadlineStates struct {
	guestID, deadline, customerID, mutedBy, spoolID values[string]
	overdue                                         values[uint8]
	base, since, decided                            values[time.Time]
	closed                                          values[*time.Time]
	spoolSeq                                        values[uint64]
}

func (c *deadlineStates) rows() int { return len(c.guestID) }

func (c *deadlineStates) add(at hub.Position, s *hub.DeadlineState) {
	c.guestID = append(c.guestID, s.GuestID)
	c.deadline = append(c.deadline, s.Deadline.String())
	c.customerID = append(c.customerID, s.CustomerID)
	c.overdue = append(c.overdue, flag(s.Overdue))
	c.base = append(c.base, clampTime(s.Base))
	c.since = append(c.since, clampTime(s.Since))
	c.mutedBy = append(c.mutedBy, s.MutedBy)
	var closed *time.Time
	if !s.Closed.IsZero() {
		closed = &s.Closed
	}
	c.closed = append(c.closed, closed)
	c.decided = append(c.decided, s.DecidedAt)
	c.spoolID = append(c.spoolID, at.SpoolID.String())
	c.spoolSeq = append(c.spoolSeq, at.Seq)
}

func (c *deadlineStates) columns() []column {
	return []column{
		{"guest_id", &c.guestID},
		{"deadline", &c.deadline},
		{"customer_id", &c.customerID},
		{"overdue", &c.overdue},
		{"base_at", &c.base},
		{"since", &c.since},
		{"muted_by", &c.mutedBy},
		{"closed_at", &c.closed},
		{"decided_at", &c.decided},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}
}

type blindTimes struct {
	from, to       values[time.Time]
	cause, spoolID values[string]
	spoolSeq       values[uint64]
}

func (c *blindTimes) rows() int { return len(c.cause) }

func (c *blindTimes) columns() []column {
	return []column{
		{"from_at", &c.from},
		{"to_at", &c.to},
		{"cause", &c.cause},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}
}

type fleetCommits struct {
	revision, author, subject, signer        values[string]
	verdict, reason, why                     values[string]
	committedAt, decidedAt                   values[time.Time]
	hosts, added, removed, changed, badFiles values[uint32]
	spoolID                                  values[string]
	spoolSeq                                 values[uint64]
}

func (c *fleetCommits) rows() int { return len(c.revision) }

func (c *fleetCommits) add(at hub.Position, f *hub.FleetCommit) {
	c.revision = append(c.revision, f.Revision)
	c.author = append(c.author, f.Author)
	c.committedAt = append(c.committedAt, clampTime(f.CommittedAt))
	c.subject = append(c.subject, f.Subject)
	c.signer = append(c.signer, f.Signer)
	c.verdict = append(c.verdict, string(f.Verdict))
	c.reason = append(c.reason, f.Reason)
	c.why = append(c.why, f.Why)
	c.decidedAt = append(c.decidedAt, clampTime(f.DecidedAt))
	c.hosts = append(c.hosts, uint32(f.Hosts))
	c.added = append(c.added, uint32(f.Added))
	c.removed = append(c.removed, uint32(f.Removed))
	c.changed = append(c.changed, uint32(f.Changed))
	c.badFiles = append(c.badFiles, uint32(f.BadFiles))
	c.spoolID = append(c.spoolID, at.SpoolID.String())
	c.spoolSeq = append(c.spoolSeq, at.Seq)
}

func (c *fleetCommits) columns() []column {
	return []column{
		{"revision", &c.revision},
		{"author", &c.author},
		{"committed_at", &c.committedAt},
		{"subject", &c.subject},
		{"signer", &c.signer},
		{"verdict", &c.verdict},
		{"reason", &c.reason},
		{"why", &c.why},
		{"decided_at", &c.decidedAt},
		{"hosts", &c.hosts},
		{"added", &c.added},
		{"removed", &c.removed},
		{"changed", &c.changed},
		{"bad_files", &c.badFiles},
		{"spool_id", &c.spoolID},
		{"spool_seq", &c.spoolSeq},
	}
}

// The driver counts a DateTime64 in 64 bits of nanoseconds, which end in 2262;
// the clock of an agent or of a commit's author may say anything.
var (
	minTime = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC)
)

func clampTime(t time.Time) time.Time {
	switch {
	case t.Before(minTime):
		return minTime
	case t.After(maxTime):
		return maxTime
	default:
		return t
	}
}

func loadAt(load []float64, i int) *float64 {
	if i >= len(load) {
		return nil
	}
	return &load[i]
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}
