package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

// TestStatusOfARunningHub asks a real hub by the command.
func TestStatusOfARunningHub(t *testing.T) {
	enginetest.Need(t)
	s := newSite(t)
	hostID, key := s.enroll()
	h := s.serve()
	if status := h.report(hostID, key); status != http.StatusOK {
		t.Fatal(status)
	}
	text := hubOutput(t, "status", hostID, "--config", s.config)
	for _, want := range []string{"hub         dev, started ", ", ready\n", "fleet       ", "1 host, applied ",
		"keys        1 used in the last hour", "spool       ", "ClickHouse  ", "switch      ",
		"owner       host/" + hostID + ", of acme, active, last report ", "key k1, last used "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var all struct {
		Fleet struct{ Revision string }
		Owner struct{ Keys []struct{ ID string } }
	}
	line := hubOutput(t, "status", "host/"+hostID, "--config", s.config, "--json")
	if err := json.Unmarshal([]byte(line), &all); err != nil || strings.Contains(line, "\n") || len(all.Fleet.Revision) != 40 || len(all.Owner.Keys) != 1 {
		t.Errorf("%v: %s", err, line)
	}
	if strings.Contains(text+line, key) {
		t.Error("the key is shown")
	}
	if said := hubFails(t, "status", "nobody", "--config", s.config); !strings.HasPrefix(said, "hub: the fleet in force does not know host/nobody\n  ") {
		t.Errorf("an unknown host: %q", said)
	}

	// Killed, it leaves its socket behind: that is no hub, and in nobody's way.
	h.end(syscall.SIGKILL)
	if _, err := os.Lstat(filepath.Join(s.dir, "data", "control.sock")); err != nil {
		t.Error(err)
	}
	if said := hubFails(t, "status", "--config", s.config); !strings.Contains(said, "no hub runs on") {
		t.Errorf("after a kill: %q", said)
	}
	eventually(t, "the engine's end", func() bool { return !alive(h.enginePID) })
	h = s.serve()
	hubOutput(t, "status", "--config", s.config)
	h.end(syscall.SIGTERM)
	if _, err := os.Lstat(filepath.Join(s.dir, "data", "control.sock")); !os.IsNotExist(err) {
		t.Errorf("after a stop: %v", err)
	}
}

// hubFails runs hub, which must exit with 1, and returns its errors.
func hubFails(t *testing.T, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(filepath.Join(hubDir(t), "hub"), args...)
	cmd.Stderr = &stderr
	_ = cmd.Run()
	if status := cmd.ProcessState.ExitCode(); status != exitFailed {
		t.Fatalf("hub %s: exit status %d, not 1\n%s", strings.Join(args, " "), status, stderr.String())
	}
	return stderr.String()
}

// serveSocket has a real control socket answer what is made up, and returns the
// configuration file of its hub.
func serveSocket(t *testing.T, o httpapi.Options) (file string) {
	t.Helper()
	dir := t.TempDir()
	dataDir, file := filepath.Join(dir, "data"), filepath.Join(dir, "hub.yaml")
	if err := os.Mkdir(dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("fleet: {url: fleet.git}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Listen, o.AdminListen, o.ControlSocket = "127.0.0.1:0", "127.0.0.1:0", control.Path(dataDir)
	server, err := httpapi.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	return file
}

func TestFleetAccept(t *testing.T) {
	const revision = "0123456789abcdef0123456789abcdef01234567"
	file := serveSocket(t, httpapi.Options{
		Accept: func(_ context.Context, rev string) (any, error) {
			if rev != revision {
				return nil, &hub.Error{Code: hub.Invalid, Reason: "not_held", Message: fmt.Sprintf("%s is not held", rev), Hint: "hub status shows what is"}
			}
			return map[string]any{"revision": revision, "subject": "back \x1b[31mto before", "author": "Ann", "hosts": 3}, nil
		},
	})
	if said := hubOutput(t, "fleet", "accept", revision, "--config", file); said != `in force: 0123456789ab "back \x1b[31mto before" by Ann, 3 hosts` {
		t.Errorf("%q", said)
	}
	if said := hubOutput(t, "fleet", "accept", revision, "--config", file, "--json"); !strings.HasPrefix(said, `{"author":"Ann","hosts":3,"revision":"0123`) {
		t.Errorf("%q", said)
	}
	if said := hubFails(t, "fleet", "accept", "other", "--config", file); said != "hub: other is not held\n  hub status shows what is\n" {
		t.Errorf("%q", said)
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ name, answer, want string }{
		{"all is well", `{
			"version": "v1.2.0", "started_at": "2026-11-22T11:00:00Z", "ready": true,
			"fleet": {"revision": "bffeb74224043ba2feb48d137756c8a9331c449a", "subject": "enroll acme-1", "author": "Ann <ann@example.org>",
				"signer": "ann@example.org", "applied_at": "2026-11-25T11:57:30Z", "hosts": 1200, "head": "bffeb74224043ba2feb48d137756c8a9331c449a",
				"verdict": {"verdict": "applied"}, "problems": [], "host_problems": [], "checked_at": "2026-11-25T11:59:20Z", "refused_hosts": [],
				"keys": {"1h": 1198, "1d": 2, "7d": 0, "30d": 0, "older": 0, "never": 3}},
			"spool": {"unshipped_records": 0, "disk_bytes": 104857600, "max_bytes": 8589934592},
			"clickhouse": {"shipped_at": "2026-11-25T11:59:59Z"}, "switch": {"last_judged": "2026-11-25T11:59:30Z"}, "messages": {"queued": 0, "dead": 0, "failing": 0}}`,
			`hub         v1.2.0, started 3 days ago (2026-11-22T11:00:00Z), ready
fleet       bffeb7422404 "enroll acme-1" by Ann <ann@example.org>, signed by ann@example.org
            1200 hosts, applied 2 min ago; the repository last answered 40 s ago
keys        1198 used in the last hour, 2 in the last day, 0 in the last week, 0 in the last 30 days, 0 longer ago, 3 never
spool       every report is in ClickHouse; 100 of 8192 MiB
ClickHouse  last took reports 1 s ago
switch      last judged 30 s ago
messages    none waits
`},
		{"nothing is well", `{
			"version": "dev", "started_at": "2026-11-25T11:59:00Z", "ready": false, "problems": ["no fleet is in force"], "warnings": ["ClickHouse is away"],
			"fleet": {"revision": "", "hosts": 0, "head": "28e1879d029cb852e4844d9c718537df08844e03",
				"verdict": {"verdict": "held", "why": "it does not descend from the commit in force", "release": "hub fleet accept 28e1879d029c"},
				"problems": [{"file": "fleet.yaml", "line": 3, "column": 1, "message": "unknown key", "hint": "guards"}],
				"host_problems": [{"file": "customers/acme/hosts/a.yaml", "line": 7, "message": "the seal is another's\u001b[2J\nx"}],
				"last_error": "the remote is away", "frozen": "pulls fail for an hour",
				"refused_hosts": [{"host_id": "acme-1", "reasons": [{"status": 401, "reason": "expired_key", "count": 96, "last": "2026-11-25T11:45:00Z"},
					{"status": 413, "reason": "too_large", "count": 1, "last": "2026-11-24T13:00:00Z"}]}],
				"keys": {}},
			"spool": {"unshipped_records": 9, "oldest_unshipped": "2026-11-25T10:00:00Z", "disk_bytes": 0, "max_bytes": 67108864, "damage": 2},
			"clickhouse": {"last_error": "connection refused"},
			"switch": {"held_by": "ClickHouse does not answer", "held_since": "2026-11-25T08:00:00Z"},
			"messages": {"queued": 12, "oldest": "2026-11-25T09:00:00Z", "dead": 3, "failing": 1},
			"owner": {"owner": "host/acme-1", "customer_id": "acme", "state": "active", "keys": [
				{"id": "k1", "valid": false, "not_after": "2026-11-25T00:00:00Z", "last_use": "2026-11-24T23:00:00Z"},
				{"id": "k2", "valid": true, "not_after": "2027-06-01T00:00:00Z"}, {"id": "k3", "valid": false}, {"id": "k4", "valid": true}]}}`,
			`hub         dev, started 60 s ago (2026-11-25T11:59:00Z), NOT READY
problem     no fleet is in force
warning     ClickHouse is away
fleet       none is in force
head        28e1879d029c is held
            it does not descend from the commit in force
            hub fleet accept 28e1879d029c
            fleet.yaml:3:1: unknown key (guards)
bad files   1 mistake; these hosts keep their last good record
            customers/acme/hosts/a.yaml:7: the seal is another's[2J x
frozen      pulls fail for an hour
last pull   the remote is away
refused     1 host in the last day
            acme-1: 96 x 401 expired_key, last 15 min ago; 1 x 413 too_large, last 23 h ago
keys        0 used in the last hour, 0 in the last day, 0 in the last week, 0 in the last 30 days, 0 longer ago, 0 never
spool       9 records wait for ClickHouse, the oldest came 2 h ago; 2 damaged places; 0 of 64 MiB
ClickHouse  connection refused
switch      held back (first 4 h ago): ClickHouse does not answer
messages    12 wait, the first came 3 h ago; 1 channel fails; 3 given up

owner       host/acme-1, of acme, active, last report never
            key k1, last used 13 h ago, expired since 2026-11-25T00:00:00Z
            key k2, last used never, valid until 2027-06-01T00:00:00Z
            key k3, last used never, not valid
            key k4, last used never
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s statusView
			if err := json.Unmarshal([]byte(c.answer), &s); err != nil {
				t.Fatal(err)
			}
			if got := s.text(now); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}

	// A long list is cut, and says so.
	var s statusView
	s.Fleet.Revision = "x"
	s.Fleet.HostProblems = make([]hub.Problem, maxShown+5)
	if text := s.text(now); !strings.Contains(text, "25 mistakes") || !strings.Contains(text, "\n            and 5 more, which --json shows\n") || strings.Count(text, "            : ") != maxShown {
		t.Errorf("%s", text)
	}
}
