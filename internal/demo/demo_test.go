package demo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/demo"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/fleetops"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// tour is a demo that runs, and what its user sees and does.
type tour struct {
	t      *testing.T
	dir    string
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	screen bytes.Buffer
}

func (u *tour) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.screen.Write(p)
}

func options(t *testing.T, dir string, out io.Writer) demo.Options {
	return demo.Options{Dir: dir, Hosts: 6, Speed: 900, Launcher: enginetest.Launcher(t), Program: "bin/hub", Version: "test", Out: out}
}

func begin(t *testing.T, dir string) *tour {
	t.Helper()
	u := &tour{t: t, dir: dir, ended: make(chan error, 1)}
	o := options(t, dir, u)
	ctx, cancel := context.WithCancel(context.Background())
	u.cancel = cancel
	go func() { u.ended <- demo.Run(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			u.mu.Lock()
			defer u.mu.Unlock()
			log, _ := os.ReadFile(filepath.Join(dir, "hub.log"))
			t.Logf("screen:\n%s\nlog:\n%s", u.screen.String(), log)
		}
	})
	return u
}

// sees waits until the screen matches and returns the groups.
func (u *tour) sees(pattern string) []string {
	u.t.Helper()
	wanted := regexp.MustCompile("(?m)" + pattern)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		u.mu.Lock()
		found := wanted.FindStringSubmatch(u.screen.String())
		u.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case err := <-u.ended:
			u.t.Fatalf("the demo ended: %v", err)
		default:
		}
	}
	u.t.Fatalf("the screen never had %s", pattern)
	return nil
}

// asks queries with the address that the guide shows.
func (u *tour) asks(sql string) string {
	u.t.Helper()
	address := u.sees(`^  DB='(http://analyst:.*)'$`)[1]
	reply, err := http.Post(address, "text/plain", strings.NewReader(sql))
	if err != nil {
		u.t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		u.t.Fatalf("%s: %v %s", sql, err, text)
	}
	return strings.TrimSpace(string(text))
}

// learns waits until a query has this answer.
func (u *tour) learns(sql, want string) {
	u.t.Helper()
	got := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = u.asks(sql); got == want {
			return
		}
	}
	u.t.Fatalf("%s: %s, want %s", sql, got, want)
}

// merges commits and pushes in the clone, as a user without any configuration.
func (u *tour) merges(message string) {
	u.t.Helper()
	for _, args := range [][]string{{"add", "."}, {"commit", "-qm", message}, {"push", "-q"}} {
		cmd := exec.Command("git", append([]string{"-C", filepath.Join(u.dir, "fleet")}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			u.t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
}

func (u *tour) edits(file, text, by string) {
	u.t.Helper()
	files, err := filepath.Glob(filepath.Join(u.dir, file))
	if err != nil || len(files) != 1 {
		u.t.Fatal(files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(files[0], bytes.Replace(data, []byte(text), []byte(by), 1), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

// ends stops the demo as Ctrl-C does, and looks for what it leaves.
func (u *tour) ends() {
	u.t.Helper()
	cfg, err := config.Load(filepath.Join(u.dir, "hub.yaml"), nil)
	if err != nil {
		u.t.Fatal(err)
	}
	running, err := engine.Describe(app.EngineDir(cfg))
	if err != nil {
		u.t.Fatal(err)
	}
	began := time.Now()
	u.cancel()
	if err := <-u.ended; err != nil {
		u.t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		u.t.Errorf("the end took %s", took)
	}
	if err := syscall.Kill(running.PID, 0); !errors.Is(err, syscall.ESRCH) {
		u.t.Errorf("the engine, process %d, is still there: %v", running.PID, err)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "control.sock")); !os.IsNotExist(err) {
		u.t.Error("the control socket is still there")
	}
}

func TestTour(t *testing.T) {
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "demo")

	u := begin(t, dir)
	u.sees(`report +first report accepted after \d+\.\d s$`)
	host := u.sees(`^  bin/hub demo stop (nordlicht-[0-9a-f]{8}) --dir `)[1]
	u.learns("SELECT count() FROM hosts WHERE state = 'ok'", "6")
	u.learns("SELECT count() FROM controllers", "6")

	err := demo.Control(ctx, dir, "stop", "nordlicht-0")
	if err == nil || !strings.Contains(err.Error(), "no agent of this demo is called nordlicht-0; there are nordlicht-") {
		t.Error(err)
	}
	if err := demo.Control(ctx, dir, "stop", host); err != nil {
		t.Fatal(err)
	}
	u.sees(`host_stale +` + host + ` +nordlicht +silent for 2\.0 s$`)
	u.sees(`host_down +` + host + ` +nordlicht +silent for 4\.0 s$`)
	u.sees(`message +pve-hamburg-01 is down: no report for \d+ seconds \(Nordlicht Logistik GmbH\)$`)
	if err := demo.Control(ctx, dir, "start", host); err != nil {
		t.Fatal(err)
	}
	u.sees(`host_recovered +` + host + ` +nordlicht +silent for \d+\.\d s$`)
	u.sees(`message +pve-hamburg-01 reports again \(Nordlicht Logistik GmbH\)$`)
	u.sees(`counters +[\d,]+ accepted, [\d,]+ in ClickHouse \| \d ok \d stale \d down.* \| fleet [0-9a-f]{7}$`)

	u.edits("fleet/customers/*/hosts/"+host+".yaml", ": active", ": paused")
	u.merges("Pause it")
	u.sees(`fleet +[0-9a-f]{7} in force, 6 hosts: Pause it$`)
	u.learns("SELECT lifecycle FROM hosts WHERE host_id = '"+host+"'", "paused")

	added := u.enrolls()
	u.merges("Enroll another")
	u.sees(`fleet +[0-9a-f]{7} in force, 7 hosts: Enroll another$`)
	u.sees(`agent +` + added + ` begins to report$`)
	u.learns("SELECT state FROM hosts WHERE host_id = '"+added+"'", "ok")

	u.edits("fleet/fleet.yaml", "guards", "gards")
	u.merges("Oops")
	u.sees(`rejected +[0-9a-f]{7} has mistakes, [0-9a-f]{7} stays in force: Oops\n    fleet\.yaml:\d+.*gards`)

	if err := demo.Run(ctx, options(t, dir, io.Discard)); err == nil || !strings.Contains(err.Error(), "another demo runs in "+dir) {
		t.Error(err)
	}
	reports := u.asks("SELECT count() FROM host_reports")
	u.ends()

	u = begin(t, dir)
	u.sees(`found .*fleet\.git: 7 hosts; another number needs another --dir`)
	u.sees(`in force, 7 hosts: Enroll another$`)
	u.sees(`^  bin/hub demo stop ` + host + ` --dir `)
	if got := u.asks("SELECT count() >= " + reports + " FROM host_reports"); got != "1" {
		t.Errorf("reports of the first run are lost: there were %s", reports)
	}
	u.learns("SELECT count() FROM hosts WHERE last_report_at > now() - 3", "7")
	u.ends()
	if err := demo.Control(ctx, dir, "stop", host); err == nil || !strings.Contains(err.Error(), "no demo runs in "+dir) {
		t.Error(err)
	}
}

// enrolls does what the guide says of enrolling.
func (u *tour) enrolls() (hostID string) {
	u.t.Helper()
	enrolled, err := fleetops.Enroll(filepath.Join(u.dir, "fleet"), fleetops.EnrollOptions{Customer: "tisza"})
	if err != nil {
		u.t.Fatal(err)
	}
	keys, err := os.OpenFile(filepath.Join(u.dir, "keys.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		u.t.Fatal(err)
	}
	defer keys.Close()
	line, err := json.Marshal(map[string]string{"host_id": enrolled[0].HostID, "api_key": enrolled[0].APIKey.Reveal()})
	if err != nil {
		u.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(keys, "%s\n", line); err != nil {
		u.t.Fatal(err)
	}
	return enrolled[0].HostID
}

func TestRunRefuses(t *testing.T) {
	occupied := t.TempDir()
	if err := os.Mkdir(filepath.Join(occupied, "fleet"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*demo.Options)
		want   string
	}{
		"no hosts":        {func(o *demo.Options) { o.Hosts = 0 }, "there must be at least 1"},
		"no time":         {func(o *demo.Options) { o.Speed = 0 }, "it must be over 0"},
		"too fast":        {func(o *demo.Options) { o.Speed = 1001 }, "at most 1000"},
		"other's folder":  {func(o *demo.Options) { o.Dir = occupied }, "is no demo's folder and not empty"},
		"no such program": {func(o *demo.Options) { o.Launcher = "/nonexistent/hub-engine" }, "hub.log"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, filepath.Join(t.TempDir(), "demo"), io.Discard)
			test.change(&o)
			if err := demo.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}
