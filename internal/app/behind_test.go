package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine"
)

// ClickHouse answers and takes no reports, also over a restart of the hub: what waits
// in the spool counts, a silence is told of, and so is its end, by the report that
// ended it; each once when ClickHouse takes them again.
func TestP11_AClickHouseThatIsBehindDelaysNoVerdict(t *testing.T) {
	s := newSite(t)
	s.write("fleet.yaml", strings.Replace(s.read("fleet.yaml"), "monitor: {staleAfter: 30m, downAfter: 60m}", "monitor: {staleAfter: 8s, downAfter: 1h}", 1))
	host, late := s.enroll("acme", false), s.enroll("acme", false)
	s.push("hosts")
	r := s.startReady()
	events := func(kind string, n int) bool {
		_, body := r.get("/metrics")
		return strings.Contains(body, fmt.Sprintf("hub_events_total{type=%q} %d\n", kind, n))
	}
	report := func(n int) {
		t.Helper()
		if status := r.report(host.HostID, host.APIKey, n); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	report(1)
	r.becomes("SELECT count() FROM switch_state", "1")
	r.mustQuery("ALTER TABLE host_reports MODIFY SETTING parts_to_throw_insert = 1") // "too many parts"
	report(2)
	if status := r.report(late.HostID, late.APIKey, 1); status != http.StatusOK {
		t.Fatal(status)
	}
	r.eventually("both silences, of which ClickHouse knows nothing", func() bool { return events("host_stale", 2) })
	r.stop() // what it decided is in the spool alone
	r = s.startReady()
	report(3)
	time.Sleep(10 * time.Millisecond)
	report(4)
	r.eventually("the return", func() bool { return events("host_recovered", 1) })
	r.eventually("a judgement while ClickHouse is behind", func() bool { // events are told of before the evaluation ends
		_, body := r.get("/readyz")
		return !strings.Contains(body, "held_by") && strings.Contains(body, "they wait in the spool")
	})
	r.becomes("SELECT count() FROM host_reports", "1")
	r.becomes("SELECT count() FROM events", "0")
	r.mustQuery("ALTER TABLE host_reports RESET SETTING parts_to_throw_insert")
	r.becomes("SELECT type, count(), uniqExact(event_id) FROM events WHERE at <= (SELECT max(received_at) FROM host_reports) GROUP BY type ORDER BY type",
		"host_recovered\t1\t1", "host_stale\t2\t2")
	r.becomes("SELECT count() FROM events WHERE type = 'host_recovered' AND at = (SELECT received_at FROM host_reports WHERE host_id = '"+
		host.HostID+"' ORDER BY received_at LIMIT 1 OFFSET 2)", "1")
}

// mustQuery does what the hub itself may do to its database.
func (r *running) mustQuery(sql string) {
	r.t.Helper()
	if _, err := r.tryQueryAs(engine.RoleHub, sql); err != nil {
		r.t.Fatal(err)
	}
}
