package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/plan"
)

// TestPlanAsksTheDatabase plans the end of a host that reported a moment ago.
func TestPlanAsksTheDatabase(t *testing.T) {
	dsn := enginetest.DSN(t)
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=Olga", "-c", "user.email=olga@example.com", "-C", dir}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	folder := filepath.Join(dir, "fleet")
	if _, err := fleetops.Init(folder, fleetops.InitOptions{IdentityFile: filepath.Join(t.TempDir(), "identity.txt")}); err != nil {
		t.Fatal(err)
	}
	enrolled, err := fleetops.Enroll(folder, fleetops.EnrollOptions{Customer: "acme", NewCustomer: true, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	host := enrolled[0]
	git("init", "-q")
	git("add", "-A")
	git("commit", "-q", "-m", "first")
	if err := os.Remove(host.File); err != nil {
		t.Fatal(err)
	}
	git("commit", "-q", "-a", "-m", "the end")

	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	var batch clickhouse.Batch
	batch.AddReport(clickhouse.ReportRow{Receipt: hub.Receipt{Position: hub.Position{Seq: 1}, ReceivedAt: time.Now().Add(-3 * time.Minute)},
		CustomerID: "acme", KeyID: "k1", Body: []byte("{}"), Report: &hub.Report{HostID: host.HostID}})
	for _, table := range clickhouse.Tables() {
		if err := db.Insert(t.Context(), &batch, table, table); err != nil {
			t.Fatal(err)
		}
	}

	var p plan.Plan
	if err := json.Unmarshal([]byte(hubOutput(t, "fleet", "plan", "--base", "HEAD~1", "--dir", dir, "--json", "--dsn", dsn)), &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Reports) != 1 || p.Reports[0].Host != host.HostID || p.Reports[0].KeyID != "k1" || p.Reports[0].AgeSeconds < 179 || p.Reports[0].AgeSeconds > 240 {
		t.Errorf("got %+v", p.Reports)
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Message, "reported 3 min ago: its reports will be refused") {
		t.Errorf("got %+v", p.Warnings)
	}
}
