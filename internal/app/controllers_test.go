package app_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

// The golden report of a controller and an event, from the handler to the rows that
// an analyst sees; also across a stop of the hub, after which both are still known.
func TestControllersBecomeRows(t *testing.T) {
	s := newSite(t)
	s.enrollAs("acme", goldenHost, nil)
	key := s.customerKey("acme")
	s.push("the golden host, and a key for its controllers")
	const (
		guest = goldenHost + "/101"
		event = `{"type":"backup_failed","severity":"critical","message":"no space left on pbs-main","guest_id":"` + guest + `","at":"2026-06-08T01:07:31Z"}`
	)
	send := func(r *running) {
		t.Helper()
		for range 2 { // the second is a retry
			if status, reply := r.post("/api/v1/report", key, golden(t, "controller-report.golden.json")); status != http.StatusOK || reply != `{"status":"ok","blocked":false}`+"\n" {
				t.Fatalf("report: %d %q", status, reply)
			}
			if status, reply := r.post("/api/v1/event", key, event); status != http.StatusAccepted || reply != `{"status":"ok"}`+"\n" {
				t.Fatalf("event: %d %q", status, reply)
			}
		}
	}
	r := s.startReady()
	send(r)
	r.becomes("SELECT customer_id, host_id, guest_id, key_id, controller_version, status, uptime_seconds, cpu_percent, memory_percent, disk_percent, last_backup_at, last_backup_status, app_total, rejected_total, reported_at FROM controller_reports",
		"acme\t"+goldenHost+"\t"+guest+"\tcustomer/acme/k1\t1.12.0\thealthy\t86400\t8.25\t43.5\t61\t2026-06-08 01:07:31.000\tok\t2\t0\t2026-06-08 09:16:00.000")
	r.becomes("SELECT name, status, version FROM controller_apps ORDER BY name", "nextcloud\trunning\t31.0.4", "vaultwarden\tstopped\t1.34.1")
	sum := sha256.Sum256([]byte(golden(t, "controller-report.golden.json")))
	r.becomes("SELECT lower(hex(SHA256(body))), count() FROM controller_report_bodies GROUP BY 1", hex.EncodeToString(sum[:])+"\t1")
	r.becomes("SELECT guest_id, host_id, customer_id, state, status, cpu_percent FROM controllers", guest+"\t"+goldenHost+"\tacme\tok\thealthy\t8.25")
	r.becomes("SELECT guest_id, name, status, version FROM apps ORDER BY name", guest+"\tnextcloud\trunning\t31.0.4", guest+"\tvaultwarden\tstopped\t1.34.1")
	r.becomes("SELECT type, severity, source, customer_id, host_id, guest_id, at, reason, suppressed_by FROM events WHERE source = 'controller'",
		"backup_failed\tcritical\tcontroller\tacme\t"+goldenHost+"\t"+guest+"\t2026-06-08 01:07:31.000\tno space left on pbs-main\t")
	r.becomes("SELECT event_id = lower(substring(hex(SHA256(concat('felhom-event/1\\ncontroller\\n', spool_id, '\\n', toString(spool_seq)))), 1, 32)) FROM events WHERE source = 'controller'", "1")
	r.stop()

	r = s.startReady()
	send(r) // all of it retries
	if status, _ := r.post("/api/v1/report", key, strings.Replace(golden(t, "controller-report.golden.json"), "8.25", "9.5", 1)); status != http.StatusOK {
		t.Fatal(status)
	}
	r.becomes("SELECT cpu_percent FROM controllers", "9.5")
	r.becomes("SELECT (SELECT count() FROM controller_reports), (SELECT count() FROM events WHERE source = 'controller')", "2\t1")
}

// customerKey gives a customer a key for its controllers.
func (s *site) customerKey(customer string) hub.Secret {
	s.t.Helper()
	key, err := fleetops.AddKey(s.clone, hub.CustomerOwner(customer))
	if err != nil {
		s.t.Fatal(err)
	}
	return key.APIKey
}
