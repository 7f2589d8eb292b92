package clickhouse_test

import (
	"fmt"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// withBackup is a report with one backup of guest 101 that ended at that time.
func withBackup(seq uint64, at time.Time, status string, finished time.Time) clickhouse.ReportRow {
	r := report(seq, at, "acme-1", hub.Guest{VMID: 101})
	r.Report.Backups = []hub.Backup{{VMID: 101, Target: "pbs", Status: status, StartedAt: epoch.Add(-time.Hour), FinishedAt: finished, SizeBytes: seq}}
	return r
}

// insertSections inserts the sections of reports, each report in a batch of its own.
func insertSections(t *testing.T, db *clickhouse.DB, ahead *clickhouse.Ahead, rows ...clickhouse.ReportRow) {
	t.Helper()
	for _, r := range rows {
		var b clickhouse.Batch
		for s := range clickhouse.Sections {
			b.AddSection(s, r, ahead)
		}
		insertBatch(t, db, "sections", &b)
	}
}

// The first report with the success is the row that counts, in whatever order rows
// arrive and however often; without a success it is the newest.
func TestOfAnItemTheFirstSuccessCounts(t *testing.T) {
	at := func(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }
	running, failed := withBackup(1, at(1), "running", time.Time{}), withBackup(2, at(2), "failed", at(2))
	first, again := withBackup(3, at(3), "ok", at(0)), withBackup(4, at(4), "ok", at(0))
	for name, c := range map[string]struct {
		rows []clickhouse.ReportRow
		want string
	}{
		"in order":        {[]clickhouse.ReportRow{running, failed, first, again}, "3 ok " + at(3).Format(time.RFC3339)},
		"backwards":       {[]clickhouse.ReportRow{again, first, failed, running}, "3 ok " + at(3).Format(time.RFC3339)},
		"again and again": {[]clickhouse.ReportRow{first, again, first, failed, again, first}, "3 ok " + at(3).Format(time.RFC3339)},
		"no success":      {[]clickhouse.ReportRow{failed, running, failed}, "2 failed " + at(2).Format(time.RFC3339)},
	} {
		t.Run(name, func(t *testing.T) {
			db, conn := open(t)
			insertSections(t, db, &clickhouse.Ahead{}, c.rows...)
			const sql = "SELECT concat(toString(any(spool_seq)), ' ', any(status), ' ', formatDateTime(any(received_at), '%Y-%m-%dT%H:%i:%SZ')) FROM backup_reports HAVING count() = 1"
			if got := one[string](t, conn, sql); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if err := conn.Exec(t.Context(), "OPTIMIZE TABLE backup_items FINAL"); err != nil {
				t.Fatal(err)
			}
			if got := one[string](t, conn, sql); got != c.want {
				t.Errorf("when merged: got %s, want %s", got, c.want)
			}
		})
	}
}

// No clock of an agent pushes a deadline away by being repeated: a success counts at
// the latest when the hub first heard of it, also over a restart of the hub.
func TestSuccessesAheadOfTheirTime(t *testing.T) {
	for _, lead := range []time.Duration{48 * time.Hour, 10 * 365 * 24 * time.Hour} {
		t.Run(lead.String(), func(t *testing.T) {
			db, conn := open(t)
			ahead := &clickhouse.Ahead{}
			for i := range 50 { // four days: the shorter lead is overtaken meanwhile
				if i%20 == 10 {
					var err error
					if ahead, err = db.Ahead(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				insertSections(t, db, ahead, withBackup(uint64(i+1), epoch.Add(time.Duration(i)*2*time.Hour), "ok", epoch.Add(lead)))
			}
			if got := one[time.Time](t, conn, "SELECT max(backup_at) FROM guest_deadlines"); !got.Equal(epoch) {
				t.Errorf("counts at %v, want %v", got, epoch)
			}
			if got := one[time.Time](t, conn, "SELECT assumeNotNull(any(succeeded_at)) FROM backup_reports"); !got.Equal(epoch) {
				t.Errorf("the row says %v, want %v", got, epoch)
			}
			// A later success, of a clock that was set right, counts as ever.
			next := withBackup(400, epoch.Add(11*365*24*time.Hour), "ok", epoch.Add(11*365*24*time.Hour-time.Minute))
			next.Report.Backups[0].StartedAt = epoch.Add(10 * time.Hour)
			insertSections(t, db, ahead, next)
			if got := one[time.Time](t, conn, "SELECT max(backup_at) FROM guest_deadlines"); !got.Equal(epoch.Add(11*365*24*time.Hour - time.Minute)) {
				t.Errorf("the next one counts at %v", got)
			}
		})
	}
}

// Within one batch too; and reports that come out of order bring the time down.
func TestSuccessesAheadWithinOneBatch(t *testing.T) {
	db, conn := open(t)
	var b clickhouse.Batch
	ahead := &clickhouse.Ahead{}
	for i := range 50 {
		b.AddSection(clickhouse.BackupsSection, withBackup(uint64(i+1), epoch.Add(time.Duration(i)*time.Hour), "ok", epoch.Add(24*time.Hour)), ahead)
	}
	insertBatch(t, db, "a", &b)
	if got := one[time.Time](t, conn, "SELECT max(backup_at) FROM guest_deadlines"); !got.Equal(epoch) {
		t.Errorf("counts at %v, want %v", got, epoch)
	}
}

func TestFirstSightOfGuests(t *testing.T) {
	db, conn := open(t)
	ahead := &clickhouse.Ahead{}
	insertSections(t, db, ahead, report(5, epoch.Add(5*time.Minute), "acme-1", hub.Guest{VMID: 101}, hub.Guest{VMID: 102}))
	insertSections(t, db, ahead, report(1, epoch, "acme-1", hub.Guest{VMID: 101}))
	success := clickhouse.Success{HostID: "acme-1", VMID: 7, Deadline: hub.PBSVerifyDeadline, Item: "x", At: epoch, ReceivedAt: epoch}
	var b clickhouse.Batch
	b.AddSuccess(success, ahead)
	insertBatch(t, db, "b", &b)
	const sql = "SELECT arrayStringConcat(groupArray(concat(toString(vmid), ' ', toString(toUnixTimestamp(first_seen_at) - ?), ' ', toString(toUnixTimestamp(pbs_verify_at)))), ', ') FROM (SELECT * FROM guest_deadlines FINAL WHERE vmid > 100 ORDER BY vmid)"
	if got, want := one[string](t, conn, sql, epoch.Unix()), "101 0 0, 102 300 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM guest_deadlines FINAL WHERE vmid = 7 AND first_seen_at > toDateTime64('2200-01-01', 3, 'UTC') AND toUnixTimestamp(pbs_verify_at) = ?", epoch.Unix()); n != 1 {
		t.Error("a guest that no report listed was seen")
	}
}

// Of guests that reported before the table was made no success is known: they are
// first seen when they are next reported, else all of them would be overdue.
func TestNobodyIsOverdueForAnUpgrade(t *testing.T) {
	db, conn := openEmpty(t)
	if err := db.MigrateTo(t.Context(), 9, epoch); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "a", report(1, epoch, "acme-1", hub.Guest{VMID: 101}))
	if _, err := db.Migrate(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM guest_deadlines"); n != 0 {
		t.Errorf("%d guests are judged", n)
	}
}

// The newest attempt and the newest success stand side by side, of hosts in the
// register alone.
func TestLatestItems(t *testing.T) {
	db, conn := open(t)
	f := fleet(t, &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active}, &hub.Host{ID: "acme-2", Customer: "acme", Lifecycle: hub.Retired})
	if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
		t.Fatal(err)
	}
	at := func(h int) time.Time { return epoch.Add(time.Duration(h) * time.Hour) }
	for _, host := range []string{"acme-1", "acme-2", "acme-9"} {
		r := report(1, at(9), host, hub.Guest{VMID: 101})
		r.Report.Backups = []hub.Backup{
			{VMID: 101, Target: "old", Status: "ok", StartedAt: at(1), FinishedAt: at(2), SizeBytes: 1},
			{VMID: 101, Target: "pbs", Status: "ok", StartedAt: at(3), FinishedAt: at(4), SizeBytes: 2},
			{VMID: 101, Target: "pbs", Status: "failed", Error: "lock", StartedAt: at(5), FinishedAt: at(6)},
			{VMID: 102, Target: "pbs", Status: "failed", StartedAt: at(5)},
		}
		r.Report.RestoreTests = []hub.RestoreTest{{VMID: 101, TestedAt: at(3), BackupTime: at(1), Status: "ok"}, {VMID: 101, TestedAt: at(4), BackupTime: at(2), Status: "failed"}}
		r.Report.PBSSnapshots = []hub.PBSSnapshot{{Datastore: "a", VMID: 101, TakenAt: at(3), Verified: true}, {Datastore: "b", VMID: 101, TakenAt: at(4)}}
		insertSections(t, db, &clickhouse.Ahead{}, r)
	}
	hours := func(column string) string {
		return fmt.Sprintf("ifNull(toString(dateDiff('hour', fromUnixTimestamp64Milli(toInt64(%d), 'UTC'), %s)), '-')", epoch.UnixMilli(), column)
	}
	for sql, want := range map[string]string{
		"SELECT arrayStringConcat(arraySort(groupArray(concat(guest_id, ' ', customer_id, ' ', status, ' ', error, ' ', " + hours("started_at") + ", ' ', " + hours("finished_at") + ", ' ', " +
			hours("last_success_at") + ", ' ', last_success_target, ' ', toString(last_success_bytes)))), ', ') FROM backups_latest": "acme-1/101 acme failed lock 5 6 4 pbs 2, acme-1/102 acme failed  5 - -  0",
		"SELECT arrayStringConcat(groupArray(concat(guest_id, ' ', status, ' ', " + hours("tested_at") + ", ' ', " + hours("last_success_at") + ", ' ', " + hours("last_success_backup_time") + ")), ', ') FROM restore_tests_latest": "acme-1/101 failed 4 3 1",
		"SELECT arrayStringConcat(groupArray(concat(guest_id, ' ', datastore, ' ', toString(verified), ' ', " + hours("last_verified_at") + ", ' ', last_verified_datastore)), ', ') FROM pbs_snapshots_latest":                       "acme-1/101 b false 3 a",
	} {
		if got := one[string](t, conn, sql); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", sql, got, want)
		}
	}
}

// Items go after their retention, counted from the report that the row is of; what is
// needed to judge stays.
func TestRetentionOfItems(t *testing.T) {
	db, conn := open(t)
	for _, keep := range []time.Duration{0, 730 * 24 * time.Hour} {
		for range 2 {
			if err := db.SetRetention(t.Context(), clickhouse.Retention{Items: keep}); err != nil {
				t.Fatal(err)
			}
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	old, young := withBackup(1, now.AddDate(-3, 0, 0), "ok", now.AddDate(-3, 0, 0)), withBackup(2, now, "ok", now)
	old.Report.Backups[0].StartedAt = now.AddDate(-3, 0, -1)
	insertSections(t, db, &clickhouse.Ahead{}, old, young)
	if err := conn.Exec(t.Context(), "OPTIMIZE TABLE backup_items FINAL"); err != nil {
		t.Fatal(err)
	}
	if n := one[uint64](t, conn, "SELECT sum(spool_seq) FROM backup_reports"); n != 2 {
		t.Errorf("the rows %d are left, want the young one", n)
	}
	const sql = "SELECT groupArray(name) FROM (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine_full LIKE '% TTL %' ORDER BY name)"
	if got, want := fmt.Sprint(one[[]string](t, conn, sql)), "[audit_items backup_items pbs_snapshot_items restore_test_items]"; got != want {
		t.Errorf("tables that forget: %s, want %s", got, want)
	}
}
