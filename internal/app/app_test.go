package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
	"felhom.eu/hub/internal/spool"
)

const goldenHost = "acme-5f2c9a1e"

func TestGoldenReportBecomesRows(t *testing.T) {
	s := newSite(t)
	key := s.enrollAs("acme", goldenHost, nil)
	s.push("the golden host")
	r := s.startReady()
	for range 2 { // the second is a retry
		status, reply := r.post("/api/v1/host-report", key, golden(t, "host-report.golden.json"))
		if status != http.StatusOK || reply != golden(t, "envelope.golden.json") {
			t.Fatalf("%d %q", status, reply)
		}
	}
	r.becomes("SELECT guest_total, guest_running, cloudflared_status, cpu_percent, mem_percent, disk_percent FROM host_reports",
		"2\t1\tactive\t12.5\t37.5\t25")
	r.becomes("SELECT guest_id, vmid, name, status, controller_version, spec FROM guest_reports ORDER BY vmid",
		goldenHost+`/101	101	controller	running	1.12.0	{\n        "type": "lxc",\n        "cores": 4,\n        "memory_mb": 4096,\n        "disk_gb": 32\n      }`,
		goldenHost+`/102	102	staging	stopped	1.11.4	{\n        "type": "lxc",\n        "cores": 2,\n        "memory_mb": 2048,\n        "disk_gb": 16\n      }`)
	r.becomes("SELECT customer_id, host_id, agent_version, hostname, key_id, maintenance_until, reported_at FROM host_reports",
		"acme\t"+goldenHost+"\t0.3.0\tpve-acme-01\tk1\t\\N\t2026-06-08 09:15:00.000")
	r.becomes("SELECT hex(SHA256(body)), count() FROM host_report_bodies GROUP BY 1",
		"9FECF8D9D41F908B8A9DF8461608D21C67CEFAAD306321892C206E7F530C2C5F\t1")
	r.becomes("SELECT host_id, customer_id, lifecycle, guest_total, guest_running, cpu_percent FROM hosts WHERE last_report_at IS NOT NULL",
		goldenHost+"\tacme\tactive\t2\t1\t12.5")
	r.becomes("SELECT guest_id, status, present FROM guests ORDER BY vmid", goldenHost+"/101\trunning\ttrue", goldenHost+"/102\tstopped\ttrue")
	if r.fleetStatus().Hosts != 3 {
		t.Errorf("fleet status: %+v", r.fleetStatus())
	}
	// A newer report with everything filled in: reality follows, the register does not move.
	if status, reply := r.post("/api/v1/host-report", key, golden(t, "host-report.full.json")); status != http.StatusOK {
		t.Fatalf("%d %s", status, reply)
	}
	r.becomes("SELECT guest_total, guest_running, cloudflared_status FROM hosts WHERE last_report_at IS NOT NULL", "3\t2\tdegraded")
	r.becomes("SELECT count(), max(desired) FROM fleet_hosts WHERE host_id = '"+goldenHost+"'", "1\t")
	r.becomes("SELECT position(body, 'subscription') > 0 FROM host_report_bodies ORDER BY received_at", "0", "1")
}

func TestWhoMayReport(t *testing.T) {
	s := newSite(t)
	past := time.Now().Add(-time.Minute)
	host, other := s.enroll("acme", false), s.enroll("globex", false)
	expired := s.enrollAs("acme", "acme-expired", &past)
	s.enrollAs("acme", "acme-retired", nil)
	s.write("customers/acme/hosts/acme-retired.yaml", strings.Replace(s.read("customers/acme/hosts/acme-retired.yaml"), "state: active", "state: retired", 1))
	s.push("hosts")
	r := s.startReady()
	for name, c := range map[string]struct {
		key  hub.Secret
		host string
		want int
	}{
		"its own":           {host.APIKey, host.HostID, 200},
		"another host":      {other.APIKey, host.HostID, 403},
		"global":            {s.global, host.HostID, 200},
		"global, not known": {s.global, "acme-nobody", 400},
		"global, retired":   {s.global, "acme-retired", 400},
		"unknown key":       {hub.NewKey(), host.HostID, 401},
		"expired key":       {expired, "acme-expired", 401},
		"no key at all":     {hub.Secret{}, host.HostID, 401},
	} {
		t.Run(name, func(t *testing.T) {
			if got := r.report(c.host, c.key, len(name)); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
	r.becomes("SELECT host_id, key_id FROM host_reports ORDER BY key_id", host.HostID+"\tfleet/k1", host.HostID+"\tk1")
}

func TestBlockedCustomerIsToldAndStored(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	s.write("customers/acme/customer.yaml", strings.Replace(s.read("customers/acme/customer.yaml"), "status: active", "status: blocked", 1))
	s.push("block acme")
	r := s.startReady()
	status, reply := r.post("/api/v1/host-report", host.APIKey, reportBody(host.HostID, 1))
	if want := strings.Replace(golden(t, "envelope.golden.json"), `"blocked":false`, `"blocked":true`, 1); status != 200 || reply != want {
		t.Errorf("%d %q, want %q", status, reply, want)
	}
	r.becomes("SELECT count() FROM host_reports", "1")
	r.becomes("SELECT blocked FROM fleet_customers WHERE customer_id = 'acme'", "1")
}

func TestBadHeadKeepsTheWholeLastGoodFleet(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	good := s.push("good")
	r := s.startReady()
	if got := r.fleetStatus(); got.Revision != good || got.Hosts != 3 || len(got.Problems) != 0 || got.AppliedAt.IsZero() {
		t.Fatalf("status: %+v", got)
	}

	late := s.enroll("acme", false)
	s.write("customers/globex/hosts/"+host.HostID+".yaml", s.read("customers/acme/hosts/"+host.HostID+".yaml")) // the id twice
	s.push("bad")
	r.Reload()
	r.eventually("the problem in the status", func() bool { return len(r.fleetStatus().Problems) > 0 })
	got := r.fleetStatus()
	if got.Revision != good || !strings.Contains(fmt.Sprint(got.Problems), host.HostID) {
		t.Errorf("status: %+v", got)
	}
	if status := r.report(late.HostID, late.APIKey, 1); status != 401 {
		t.Errorf("a host of the bad head: %d, want 401", status)
	}
	if status := r.report(host.HostID, host.APIKey, 1); status != 200 {
		t.Errorf("a host of the good fleet: %d, want 200", status)
	}
	status, detail := r.get("/readyz")
	if status != 200 || !strings.Contains(detail, host.HostID) {
		t.Errorf("readyz: %d %s", status, detail)
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\nhub_fleet_problems 1\n") {
		t.Error("the metric of problems does not tell")
	}

	// A restart begins with the fleet that was in force, and a good head heals it.
	r.stop()
	r = s.startReady()
	if got := r.fleetStatus(); got.Revision != good {
		t.Errorf("after a restart: %+v", got)
	}
	if err := os.Remove(filepath.Join(s.clone, "fleet/customers/globex/hosts", host.HostID+".yaml")); err != nil {
		t.Fatal(err)
	}
	healed := s.push("healed")
	r.Reload()
	r.eventually("the good head", func() bool { return r.fleetStatus().Revision == healed })
	if status := r.report(late.HostID, late.APIKey, 1); status != 200 {
		t.Errorf("the late host: %d, want 200", status)
	}
	r.becomes("SELECT count() FROM hosts", "4")
}

func TestRemoteAwayAtStart(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	s.push("host")
	s.startReady().stop()
	if err := os.Rename(s.cfg.Fleet.URL, s.cfg.Fleet.URL+".away"); err != nil {
		t.Fatal(err)
	}
	r := s.startReady()
	if status := r.report(host.HostID, host.APIKey, 1); status != 200 {
		t.Errorf("%d, want 200: the mirror is enough", status)
	}
	r.eventually("the error in the status", func() bool { return r.fleetStatus().LastError != "" })
}

func TestI16_NoFleetIsNotReady(t *testing.T) {
	s := newSite(t)
	s.cfg.Fleet.Branch = "nowhere"
	r := s.start()
	if status := r.report("acme-1", hub.NewKey(), 1); status != 503 {
		t.Errorf("%d, want 503", status)
	}
	if status, _ := r.get("/readyz"); status != 503 {
		t.Errorf("readyz: %d, want 503", status)
	}
}

func TestMint(t *testing.T) {
	mint := func(r *running, key hub.Secret, body string) (int, map[string]string) {
		status, reply := r.post("/api/v1/admin/hosts", key, body)
		fields := map[string]string{}
		_ = json.Unmarshal([]byte(reply), &fields)
		return status, fields
	}
	t.Run("off", func(t *testing.T) {
		s := newSite(t)
		r := s.startReady()
		if status, _ := mint(r, s.global, `{"customer_id":"acme"}`); status != 403 {
			t.Errorf("%d, want 403", status)
		}
	})
	t.Run("direct", func(t *testing.T) {
		s := newSite(t)
		host := s.enroll("acme", false)
		s.push("host")
		s.cfg.Fleet.Mint = "direct"
		r := s.startReady()
		for name, c := range map[string]struct {
			key  hub.Secret
			body string
			want int
		}{
			"no key":           {hub.NewKey(), `{"customer_id":"acme"}`, 401},
			"a host's key":     {host.APIKey, `{"customer_id":"acme"}`, 403},
			"unknown customer": {s.global, `{"customer_id":"nobody"}`, 400},
			"no customer":      {s.global, `{}`, 400},
		} {
			if status, _ := mint(r, c.key, c.body); status != c.want {
				t.Errorf("%s: %d, want %d", name, status, c.want)
			}
		}
		// Others push at the same time: the mint is built again on their head.
		s.enroll("globex", false)
		s.push("meanwhile")
		status, reply := mint(r, s.global, `{"customer_id":"acme","display_name":"Minted"}`)
		if status != 201 || reply["branch"] != "main" || !strings.HasPrefix(reply["host_id"], "acme-") {
			t.Fatalf("%d %v", status, reply)
		}
		if status := r.report(reply["host_id"], hub.NewSecret(reply["api_key"]), 1); status != 200 {
			t.Errorf("the minted key: %d, want 200 on the next request", status)
		}
		s.git(s.clone, "pull", "-q", "origin", "main")
		if head := s.git(s.clone, "rev-parse", "HEAD"); head != reply["commit"] {
			t.Errorf("head %s, commit %s", head, reply["commit"])
		}
		if strings.Contains(s.read("customers/acme/hosts/"+reply["host_id"]+".yaml"), reply["api_key"]) || strings.Contains(s.log.String(), reply["api_key"]) {
			t.Error("the key stands in the clear")
		}
		if err := os.Rename(s.cfg.Fleet.URL, s.cfg.Fleet.URL+".away"); err != nil {
			t.Fatal(err)
		}
		if status, _ := mint(r, s.global, `{"customer_id":"acme"}`); status != 503 {
			t.Errorf("remote away: %d, want 503", status)
		}
	})
	t.Run("branch", func(t *testing.T) {
		s := newSite(t)
		s.cfg.Fleet.Mint = "branch"
		r := s.startReady()
		before := r.fleetStatus().Revision
		status, reply := mint(r, s.global, `{"customer_id":"acme"}`)
		if status != 201 || reply["branch"] != "enroll/"+reply["host_id"] {
			t.Fatalf("%d %v", status, reply)
		}
		key := hub.NewSecret(reply["api_key"])
		if status := r.report(reply["host_id"], key, 1); status != 401 {
			t.Errorf("before the merge: %d, want 401", status)
		}
		s.git(s.clone, "fetch", "-q", "origin")
		s.git(s.clone, "merge", "-q", "origin/"+reply["branch"])
		s.git(s.clone, "push", "-q", "origin", "HEAD:main")
		r.Reload()
		r.eventually("the merge", func() bool { return r.fleetStatus().Revision != before })
		if status := r.report(reply["host_id"], key, 1); status != 200 {
			t.Errorf("after the merge: %d, want 200", status)
		}
	})
}

func TestI16_ClickHouseAwayIsStillReady(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	s.push("host")
	r := s.startReady()
	if status := r.report(host.HostID, host.APIKey, 0); status != 200 {
		t.Fatal(status)
	}
	r.becomes("SELECT count() FROM host_reports", "1")
	d, _ := r.Engine()
	if err := syscall.Kill(d.PID, syscall.SIGSTOP); err != nil { // away, and not dead
		t.Fatal(err)
	}
	for n := 1; n <= 50; n++ {
		if status := r.report(host.HostID, host.APIKey, n); status != 200 {
			t.Fatalf("report %d with ClickHouse away: %d", n, status)
		}
		time.Sleep(100 * time.Millisecond) // the host's rate
	}
	if status, _ := r.get("/readyz"); status != 200 {
		t.Errorf("readyz: %d, want 200: reports are acknowledged", status)
	}
	_ = syscall.Kill(d.PID, syscall.SIGCONT)
	r.becomes("SELECT count(), uniqExact(spool_seq) FROM host_reports", "51\t51")
}

// An engine that hangs holds no stop up (start's stop measures), and what it did
// not take is not lost.
func TestI21_StopWhileTheEngineHangs(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	s.push("host")
	r := s.startReady()
	r.report(host.HostID, host.APIKey, 0)
	r.becomes("SELECT count() FROM host_reports", "1")
	d, _ := r.Engine()
	if err := syscall.Kill(d.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if status := r.report(host.HostID, host.APIKey, 1); status != 200 {
		t.Errorf("%d", status)
	}
	r.stop()
	r = s.startReady()
	r.becomes("SELECT count(), uniqExact(spool_seq) FROM host_reports", "2\t2")
}

func TestSwitchEndToEnd(t *testing.T) {
	s := newSite(t)
	told := newInbox(t)
	s.write("fleet.yaml", strings.Replace(s.read("fleet.yaml"), "monitor: {staleAfter: 30m, downAfter: 60m}", "monitor: {staleAfter: 6s, downAfter: 20s}\n"+told.channel(), 1))
	host, never := s.enroll("acme", false), s.enroll("globex", false)
	s.push("hosts")
	r := s.startReady()
	body := strings.Replace(reportBody(host.HostID, 1), `"uptime_seconds":1`, `"uptime_seconds":1,"pve_version":"8.4.1","memory_total_bytes":200,"memory_used_bytes":50`, 1)
	if status, reply := r.post("/api/v1/host-report", host.APIKey, body); status != 200 {
		t.Fatal(status, reply)
	}
	const (
		stale = "SELECT type, customer_id, severity, toInt64(silence_seconds) FROM events WHERE type = 'host_stale'"
		log   = "SELECT type, customer_id, severity, toInt64(silence_seconds) FROM events ORDER BY at"
	)
	r.becomes("SELECT state FROM hosts WHERE host_id = '"+host.HostID+"'", "ok")
	r.becomes(stale, "host_stale\tacme\twarning\t6")
	r.eventually("a message that says what was last seen", func() bool {
		return strings.Contains(told.all(), "Last state: Proxmox VE 8.4.1, memory 25%")
	})
	r.stop() // the silence goes on over a restart
	r = s.startReady()
	r.becomes(log, "host_stale\tacme\twarning\t6", r.downLine())
	if status := r.report(host.HostID, host.APIKey, 2); status != 200 {
		t.Fatal(status)
	}
	r.becomes("SELECT type FROM events ORDER BY at", "host_stale", "host_down", "host_recovered")
	r.becomes("SELECT count(), uniqExact(event_id) FROM events", "3\t3")
	r.becomes("SELECT e.at = r.received_at FROM events AS e, host_reports AS r WHERE e.type = 'host_recovered' AND r.received_at > (SELECT min(received_at) FROM host_reports)", "1")
	r.becomes("SELECT state FROM hosts WHERE host_id = '"+never.HostID+"'", "never_seen")
	r.becomes("SELECT count() FROM switch_state WHERE host_id = '"+never.HostID+"'", "0")
}

// downLine waits for host_down and returns its line: how long the silence was
// by then depends on when the hub was ready again.
func (r *running) downLine() string {
	r.t.Helper()
	var lines []string
	r.eventually("host_down", func() bool {
		lines, _ = r.tryQuery("SELECT type, customer_id, severity, toInt64(silence_seconds) FROM events WHERE type = 'host_down'")
		return len(lines) == 1
	})
	return lines[0]
}

func TestSecondHubOnOneDirectory(t *testing.T) {
	s := newSite(t)
	s.startReady()
	_, err := app.New(app.Options{Config: s.cfg, Launcher: enginetest.Launcher(t)})
	if err == nil || !strings.Contains(err.Error(), "process") {
		t.Errorf("got %v, want an error that names the other process", err)
	}
}

func TestDataDirOpenToOthersIsRefused(t *testing.T) {
	s := newSite(t)
	if err := os.MkdirAll(s.cfg.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := app.New(app.Options{Config: s.cfg, Launcher: enginetest.Launcher(t)})
	if err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v", err)
	}
}

func TestCheckAndMigrate(t *testing.T) {
	s := newSite(t)
	for _, f := range app.Check(t.Context(), s.cfg, enginetest.Launcher(t)) {
		if !f.OK {
			t.Errorf("%s: %s", f.Area, f.Message)
		}
	}
	steps, err := app.Migrate(t.Context(), s.cfg, enginetest.Launcher(t), true)
	if err != nil || len(steps) < 5 {
		t.Fatalf("dry run: %v, %v", steps, err)
	}
	if _, err := app.Migrate(t.Context(), s.cfg, enginetest.Launcher(t), false); err != nil {
		t.Fatal(err)
	}
	if steps, err = app.Migrate(t.Context(), s.cfg, enginetest.Launcher(t), true); err != nil || len(steps) != 0 {
		t.Errorf("afterwards: %v, %v", steps, err)
	}
	s.cfg.Fleet.IdentityFiles = nil
	s.write("fleet.yaml", "kind: Nonsense\n")
	s.push("bad")
	failed := 0
	for _, f := range app.Check(t.Context(), s.cfg, enginetest.Launcher(t)) {
		if !f.OK {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d areas fail, want identities and fleet", failed)
	}
	if left, _ := filepath.Glob(filepath.Join(s.cfg.DataDir, "check-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A ClickHouse of one's own is used like the embedded engine, and none is started.
func TestOwnClickHouse(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	s.push("host")
	s.external()
	r := s.startReady()
	if status := r.report(host.HostID, host.APIKey, 1); status != 200 {
		t.Fatal(status)
	}
	dsn, err := url.Parse(s.cfg.ClickHouse.DSN)
	if err != nil {
		t.Fatal(err)
	}
	database := strings.TrimPrefix(dsn.Path, "/")
	r.eventually("the report there", func() bool {
		count, err := enginetest.Shared(t).Query(t.Context(), engine.RoleHub, "SELECT count() FROM "+database+".hosts WHERE state = 'ok' AND last_report_at IS NOT NULL")
		return err == nil && strings.TrimSpace(count) == "1"
	})
	if _, ok := r.Engine(); ok {
		t.Error("an engine of its own runs")
	}
	for _, f := range app.Check(t.Context(), s.cfg, "") {
		if !f.OK {
			t.Errorf("check: %s: %s", f.Area, f.Message)
		}
	}
}

// A spool that must make room at once does so with the whole index of recent
// reports kept, that of earlier volumes too.
func TestRemovalAtStartKeepsTheRecentIndex(t *testing.T) {
	s := newSite(t)
	s.cfg.Spool.MaxBytes = 64 << 20
	dir := filepath.Join(s.cfg.DataDir, "spool")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	known := ingest.New(ingest.Options{})
	const hosts = 50_000 // long enough to restore
	for i := range hosts {
		known.Recover(spool.Entry{
			Record:  spool.Record{Kind: hub.KindHostReport, HostID: fmt.Sprintf("acme-%d", i), Body: []byte("{}")},
			Receipt: hub.Receipt{Position: hub.Position{SpoolID: hub.SpoolID{1}, Seq: uint64(i + 1)}, ReceivedAt: time.Now()},
		})
	}
	sp, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 1 << 30, VolumeBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		if _, err := sp.Append(t.Context(), spool.Record{Kind: hub.KindHostReport, HostID: "acme-spooled", Body: make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	r := sp.Reader(sp.Cursor())
	for {
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if err := sp.Advance(e.End); err != nil {
			t.Fatal(err)
		}
	}
	_ = r.Close()
	if err := errors.Join(sp.WriteState("recent", known.Snapshot()), sp.Close()); err != nil {
		t.Fatal(err)
	}
	volumes := func() int {
		names, _ := filepath.Glob(filepath.Join(dir, "*.vol"))
		return len(names)
	}
	before := volumes()

	a, err := app.New(app.Options{Config: s.cfg, Launcher: enginetest.Launcher(t), Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); volumes() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d volumes, none is removed", before)
		}
	}
	if err := a.Stop(t.Context()); err != nil { // never started: it writes no index
		t.Fatal(err)
	}
	if sp, err = spool.Open(spool.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	snapshot, err := sp.ReadState("recent")
	if err != nil {
		t.Fatal(err)
	}
	kept := ingest.New(ingest.Options{})
	if err := kept.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for i := range hosts {
		if _, ok := kept.LastSeen(fmt.Sprintf("acme-%d", i)); !ok {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("the last reports of %d hosts are forgotten", lost)
	}
}
