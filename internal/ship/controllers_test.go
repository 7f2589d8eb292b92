package ship_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// A backup that a controller tells of counts for its guest's deadline, but never
// later than the hub's clock when it first heard of it, however often it is repeated,
// also by the next run of the hub, and whatever came of the newest try; one whose guest
// is not told does not count.
func TestBackupsOfControllersCount(t *testing.T) {
	f := newFixture(t)
	past, future := time.Now().UTC().Add(-48*time.Hour).Truncate(time.Second), time.Now().UTC().Add(1000*time.Hour).Truncate(time.Second)
	n := 0
	report := func(guest string, at time.Time, status string) {
		t.Helper()
		n++
		named := ""
		if guest != "" {
			named = fmt.Sprintf(`"guest_id":%q,`, guest)
		}
		if _, err := f.sp.Append(context.Background(), spool.Record{Kind: hub.KindControllerReport, HostID: guest, CustomerID: "acme", KeyID: "customer/acme/c1", Body: fmt.Appendf(nil,
			`{"customer_id":"acme",%s"reported_at":"2026-06-08T09:15:00Z","controller_version":"1","uptime_seconds":%d,"backup":{"last_success_at":%q%s}}`,
			named, n, at.Format(time.RFC3339), status)}); err != nil {
			t.Fatal(err)
		}
	}
	all := func() {
		report("acme-1/101", past, `,"last_status":"ok"`)
		report("acme-1/102", past, "")
		report("acme-1/103", future, "")
		report("acme-1/104", past, `,"last_status":"failed"`)
		report("", past, "")
	}
	s, stop := f.start(f.db)
	all()
	f.drained(s)
	first := f.text("SELECT toString(min(received_at)) FROM controller_reports WHERE guest_id = 'acme-1/103'")
	want := fmt.Sprintf("[('acme-1',101,'%[1]s.000'),('acme-1',102,'%[1]s.000'),('acme-1',103,'%[2]s'),('acme-1',104,'%[1]s.000')]", past.Format(time.DateTime), first)
	const deadlines = "SELECT toString(groupArray((host_id, vmid, backup_at))) FROM (SELECT * FROM guest_deadlines FINAL ORDER BY vmid)"
	f.want(deadlines, want)
	time.Sleep(20 * time.Millisecond)
	all()
	f.drained(s)
	f.want(deadlines, want)
	stop()
	f.reopen()
	s, _ = f.start(f.db)
	all()
	f.drained(s)
	f.want(deadlines, want)
}
