package clickhouse_test

import (
	"fmt"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

func controllerReport(seq uint64, at time.Time, guest string, apps ...hub.App) clickhouse.ControllerRow {
	return clickhouse.ControllerRow{
		Receipt:    hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: seq}, ReceivedAt: at},
		CustomerID: "acme", KeyID: "customer/acme/c1", Body: fmt.Appendf(nil, `{"n":%d}`, seq),
		Report: &hub.ControllerReport{CustomerID: "acme", GuestID: guest, ReportedAt: at, ControllerVersion: fmt.Sprint("1.", seq), Status: "healthy",
			CPUPercent: ptr(float64(seq)), LastBackupAt: ptr(at.Add(-time.Hour)), LastBackupStatus: "ok", Apps: apps,
			Rejected: []hub.RejectedItem{{Section: "apps", Position: 9, Reason: "why", Item: []byte("x")}}},
	}
}

func insertControllers(t *testing.T, db *clickhouse.DB, token string, rows ...clickhouse.ControllerRow) {
	t.Helper()
	var b clickhouse.Batch
	for _, r := range rows {
		b.AddControllerReport(r)
	}
	insertBatch(t, db, token, &b)
}

func TestControllersAndAppsShowTheNewestReport(t *testing.T) {
	db, conn := open(t)
	f := fleet(t,
		&hub.Host{ID: "acme-1", Customer: "globex", Lifecycle: hub.Active}, // it moved
		&hub.Host{ID: "acme-3", Customer: "acme", Lifecycle: hub.Retired})
	if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
		t.Fatal(err)
	}
	web, mail, gone := hub.App{Name: "web", Status: "running", Version: "2"}, hub.App{Name: "mail", Status: "stopped"}, hub.App{Name: "gone"}
	insertControllers(t, db, "newer", controllerReport(7, epoch, "acme-1/101", web, mail), controllerReport(8, epoch, "acme-3/101", web), controllerReport(9, epoch, "", web))
	insertControllers(t, db, "older", controllerReport(6, epoch, "acme-1/101", gone), controllerReport(5, epoch, "acme-1/102"))
	var b clickhouse.Batch
	b.AddDecision(hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: 10}, ReceivedAt: epoch},
		hub.Decision{States: []hub.HostState{{HostID: "acme-1/102", State: hub.Down, Since: epoch, LastAt: epoch, DecidedAt: epoch}}})
	insertBatch(t, db, "state", &b)

	const controllers = "SELECT toString(groupArray((guest_id, host_id, customer_id, state, state_since, last_report_at, controller_version, cpu_percent, last_backup_at))) FROM (SELECT * FROM controllers ORDER BY guest_id)"
	hour := clock(epoch.Add(-time.Hour))
	want := fmt.Sprintf("[('acme-1/101','acme-1','globex','ok',NULL,'%[1]s','1.7',7,'%[2]s'),('acme-1/102','acme-1','globex','down','%[1]s','%[1]s','1.5',5,'%[2]s')]", clock(epoch), hour)
	const apps = "SELECT toString(groupArray((guest_id, customer_id, name, status, version))) FROM (SELECT * FROM apps ORDER BY guest_id, name)"
	wantApps := "[('acme-1/101','globex','mail','stopped',''),('acme-1/101','globex','web','running','2')]"
	check := func(when string) {
		t.Helper()
		if got := one[string](t, conn, controllers); got != want {
			t.Errorf("%s: controllers %s\nwant %s", when, got, want)
		}
		if got := one[string](t, conn, apps); got != wantApps {
			t.Errorf("%s: apps %s\nwant %s", when, got, wantApps)
		}
		if n := one[uint64](t, conn, "SELECT uniqExact(guest_id) FROM controller_last WHERE guest_id != ''"); n != 3 || one[uint64](t, conn, "SELECT count() FROM controller_last WHERE guest_id = ''") != 0 {
			t.Errorf("%s: controller_last has %d guests", when, n)
		}
		if got := uses(t, db, hub.CustomerOwner("acme")); got != "c1 0" {
			t.Errorf("%s: uses of the customer's keys: %q", when, got)
		}
	}
	check("at first")
	if got := one[string](t, conn, "SELECT toString(groupArray((section, host_id, reason))) FROM rejected_items WHERE spool_seq = 7"); got != "[('apps','acme-1','why')]" {
		t.Errorf("left out: %s", got)
	}
	if got := one[string](t, conn, "SELECT body FROM controller_report_bodies WHERE spool_seq = 7 AND guest_id = 'acme-1/101'"); got != `{"n":7}` {
		t.Errorf("body: %s", got)
	}
	lose := func() {
		for _, table := range []string{"controller_last", "key_last"} {
			if err := conn.Exec(t.Context(), "TRUNCATE TABLE "+table); err != nil {
				t.Fatal(err)
			}
		}
	}
	lose()
	for range 2 {
		if err := db.Refeed(t.Context(), "controller_reports", clickhouse.Range{SpoolID: spoolID, First: 1, Last: 9}); err != nil {
			t.Fatal(err)
		}
	}
	check("fed again")
	lose()
	if err := db.RefeedSince(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	check("fed again by time")
}

// A clock of an agent may say anything.
func TestTimesThatControllersInvent(t *testing.T) {
	db, conn := open(t)
	r := controllerReport(1, epoch, "acme-1/101")
	r.Report.ReportedAt, r.Report.LastBackupAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), ptr(time.Time{}.AddDate(1, 0, 0))
	sent := hub.ControllerEvent{Type: "backup_failed", Severity: "warning", Message: "no space", At: r.Report.ReportedAt}
	var b clickhouse.Batch
	b.AddControllerReport(r)
	b.AddControllerEvent(r.Receipt, sent.Event("acme", r.Receipt))
	insertBatch(t, db, "a", &b)
	if got := one[string](t, conn, "SELECT toString((any(reported_at), any(last_backup_at))) FROM controller_reports"); got != "('2262-04-11 00:00:00.000','1900-01-01 00:00:00.000')" {
		t.Error(got)
	}
	want := fmt.Sprintf("('2262-04-11 00:00:00.000','%s','controller','warning','no space')", clock(epoch))
	if got := one[string](t, conn, "SELECT toString((at, detected_at, source, severity, reason)) FROM events"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
