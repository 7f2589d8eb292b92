package demo

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

func TestPace(t *testing.T) {
	for speed, want := range map[float64]pace{
		1:    {1, 15 * time.Minute, 30 * time.Minute, time.Hour, time.Minute, 5 * time.Second},
		90:   {90, 10 * time.Second, 20 * time.Second, 40 * time.Second, 667 * time.Millisecond, 2 * time.Second},
		1000: {1000, 900 * time.Millisecond, 1800 * time.Millisecond, 3600 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second},
	} {
		if got, err := paceOf(speed); err != nil || got != want {
			t.Errorf("%v: %+v, %v", speed, got, err)
		}
	}
}

func TestFreePorts(t *testing.T) {
	taken, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	usual := ports{port(taken), port(free), port(taken)}
	got, err := freePortsNear(usual)
	if err != nil {
		t.Fatal(err)
	}
	if got.agents == usual.agents || got.admin != usual.admin || got.analysts == usual.analysts || got.agents == got.analysts {
		t.Errorf("instead of %+v: %+v", usual, got)
	}
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func TestConfig(t *testing.T) {
	f := folder(t.TempDir())
	p, err := paceOf(90)
	if err != nil {
		t.Fatal(err)
	}
	file, err := f.writeConfig(ports{1, 2, 3}, p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Listen, want.AdminListen, want.ClickHouse.Embedded.HTTPPort = "127.0.0.1:1", "127.0.0.1:2", 3
	want.DataDir = f.path("data")
	want.Fleet.URL, want.Fleet.Path, want.Fleet.Interval = f.path("fleet.git"), ".", p.pull
	want.Fleet.IdentityFiles = []string{f.path("identity.txt")}
	want.Ingest.PollInterval = p.report
	want.Monitor = config.Monitor{Interval: p.judge, StaleAfter: p.stale, DownAfter: p.down}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if line := "  stale_after: 20s                # silence after which a host is stale [30m]\n"; !strings.Contains(string(text), line) {
		t.Errorf("the comments do not stand in their column:\n%s", text)
	}
}

func TestClaimKeepsOff(t *testing.T) {
	parent := t.TempDir()
	for name, test := range map[string]struct {
		holds string
		fine  bool
	}{
		"missing": {"", true}, "empty": {".", true}, "a demo's": {"keys.jsonl", true}, "another's": {"fleet", false},
	} {
		f := folder(filepath.Join(parent, name))
		if test.holds != "" {
			if err := os.MkdirAll(f.path(test.holds), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.claim(); (err == nil) != test.fine {
			t.Errorf("%s: %v", name, err)
		}
		info, err := os.Stat(string(f))
		if err != nil {
			t.Fatal(err)
		}
		if private := info.Mode().Perm() == 0o700; private != test.fine {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
	}
}

func prepared(t *testing.T) folder {
	t.Helper()
	f := folder(t.TempDir())
	if made, err := f.prepare(t.Context(), 5); err != nil || !made {
		t.Fatal(made, err)
	}
	return f
}

func TestPrepareMakesAValidFleet(t *testing.T) {
	f := prepared(t)
	fleet, problems, err := fleetops.Validate(f.path("fleet"))
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	keys, err := f.keys()
	if err != nil || len(keys) != 5+len(customers) || len(hostsOf(keys)) != 5 || fleet.Len() != 5 {
		t.Fatal(keys, fleet.Len(), err)
	}
	base := hub.Thresholds{StaleAfter: 20 * time.Second, DownAfter: 40 * time.Second}
	for _, key := range keys {
		if c, ok := fleet.Customer(key.Customer); key.HostID == "" {
			if !ok || len(c.Keys) != 1 {
				t.Errorf("%s: %+v", key.Customer, c)
			}
			continue
		}
		h, ok := fleet.Enrolled(key.HostID)
		if !ok || h.Labels["site"] == "" || !strings.HasPrefix(h.DisplayName, "pve-"+h.Labels["site"]) {
			t.Errorf("%s: %+v", key.HostID, h)
		}
		if got := fleet.Thresholds(h, base); got != base {
			t.Errorf("%s: the fleet overrules hub.yaml: %+v", key.HostID, got)
		}
	}
	for _, name := range []string{"identity.txt", "keys.jsonl"} {
		if info, err := os.Stat(f.path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if made, err := f.prepare(t.Context(), 5); err != nil || made {
		t.Errorf("again: %v %v", made, err)
	}
}

func TestPrepareMends(t *testing.T) {
	whole := prepared(t)
	head := func(f folder, name string) string {
		t.Helper()
		commit, err := git(t.Context(), f.path(name), "rev-parse", "main")
		if err != nil {
			t.Fatal(err)
		}
		return commit
	}
	want := head(whole, "fleet")
	for name, test := range map[string]struct {
		harm func(folder) error
		want string // of the error
	}{
		"no clone":           {func(f folder) error { return os.RemoveAll(f.path("fleet")) }, ""},
		"no repository":      {func(f folder) error { return os.RemoveAll(f.path("fleet.git")) }, ""},
		"killed while made":  {func(f folder) error { return f.unmake("fleet", "fleet.git", "identity.txt", "keys.jsonl") }, ""},
		"killed while moved": {func(f folder) error { return f.unmake("fleet", "keys.jsonl") }, ""},
		"neither": {func(f folder) error {
			return errors.Join(os.RemoveAll(f.path("fleet")), os.RemoveAll(f.path("fleet.git")))
		}, "fleet.git and "},
		"no identity": {func(f folder) error { return os.Remove(f.path("identity.txt")) }, "identity.txt is missing"},
		"no keys":     {func(f folder) error { return os.Remove(f.path("keys.jsonl")) }, "keys.jsonl is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			f := folder(t.TempDir())
			if err := os.CopyFS(string(f), os.DirFS(string(whole))); err != nil {
				t.Fatal(err)
			}
			if err := test.harm(f); err != nil {
				t.Fatal(err)
			}
			made, err := f.prepare(t.Context(), 5)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "rm -r "+string(f)) {
					t.Errorf("%v, want %s", err, test.want)
				}
				return
			}
			if err != nil || made || f.has("making") {
				t.Fatal(made, err, f.has("making"))
			}
			if a, b := head(f, "fleet"), head(f, "fleet.git"); a != want || b != want {
				t.Errorf("clone at %s, repository at %s, want %s", a, b, want)
			}
			if _, err := git(t.Context(), filepath.Join(f.path("fleet"), "customers"), "fetch", "origin"); err != nil {
				t.Errorf("the clone has lost its repository: %v", err)
			}
		})
	}
}

// unmake moves pieces back to where they were made.
func (f folder) unmake(names ...string) error {
	err := os.Mkdir(f.path(makingDir), 0o700)
	for _, name := range names {
		err = errors.Join(err, os.Rename(f.path(name), folder(f.path(makingDir)).path(name)))
	}
	return err
}

func TestPrepareBeginsAnewWhatWasHalfMade(t *testing.T) {
	f := folder(t.TempDir())
	if err := os.MkdirAll(f.path("making/fleet.git"), 0o700); err != nil {
		t.Fatal(err)
	}
	if made, err := f.prepare(t.Context(), 1); err != nil || !made || f.has("making") {
		t.Error(made, err, f.has("making"))
	}
}

func TestNoGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := folder(t.TempDir()).prepare(t.Context(), 1); !errors.Is(err, errNoGit) {
		t.Error(err)
	}
}

func TestShares(t *testing.T) {
	for hosts, want := range map[int][3]int{1: {1, 0, 0}, 6: {4, 1, 1}, 40: {20, 12, 8}} {
		if got := [3]int{share(hosts, 0), share(hosts, 1), share(hosts, 2)}; got != want {
			t.Errorf("%d: %v", hosts, got)
		}
	}
}

func TestControl(t *testing.T) {
	var asked []string
	steer := func(action, hostID string) error {
		asked = append(asked, action+" "+hostID)
		if hostID == "x" {
			return errors.New("no x here")
		}
		return nil
	}
	for name, dir := range map[string]string{"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("long/", 40))} {
		t.Run(name, func(t *testing.T) {
			asked = nil
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := Control(t.Context(), dir, "stop", "a"); err == nil || !strings.HasPrefix(err.Error(), "no demo runs in ") {
				t.Error(err)
			}
			leaveSocket(t, folder(dir))
			if err := Control(t.Context(), dir, "stop", "a"); err == nil || !strings.HasPrefix(err.Error(), "no demo runs in ") {
				t.Error(err)
			}
			end, err := folder(dir).control(steer)
			if err != nil {
				t.Fatal(err)
			}
			defer end()
			if info, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil || info.Mode().Perm() != 0o600 {
				t.Error(info, err)
			}
			if _, err := folder(dir).control(steer); err == nil || !strings.Contains(err.Error(), "another demo runs in ") {
				t.Error(err)
			}
			for _, test := range []struct{ action, host, want string }{
				{"stop", "a", ""}, {"start", "a", ""}, {"stop", "x", "no x here"}, {"kill", "a", "stop or start, not kill"}, {"stop", "a/b ?", ""},
			} {
				err := Control(t.Context(), dir, test.action, test.host)
				if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
					t.Errorf("%s %s: %v, want %q", test.action, test.host, err, test.want)
				}
			}
			if got, want := strings.Join(asked, ", "), "stop a, start a, stop x, stop a/b ?"; got != want {
				t.Errorf("asked %s, want %s", got, want)
			}
		})
	}
}

// leaveSocket leaves what a demo that was killed leaves.
func leaveSocket(t *testing.T, f folder) {
	t.Helper()
	address, release, err := f.socket()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

func TestLine(t *testing.T) {
	revision := strings.Repeat("a", 40)
	for want, counts := range map[string]map[string]int64{
		"12,345 accepted, 12,340 in ClickHouse | 38 ok 1 stale 1 down | fleet aaaaaaa":          {"reports": 12340, "ok": 38, "stale": 1, "down": 1},
		"12,345 accepted, 0 in ClickHouse | 0 ok 0 stale 0 down 9 new 1 paused | fleet aaaaaaa": {"never_seen": 9, "paused": 1},
		"12,345 accepted, ClickHouse is away: they wait in the spool | fleet aaaaaaa":           nil,
	} {
		if got := line(12345, counts, revision); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	if got := line(0, nil, ""); !strings.HasSuffix(got, "| fleet ") {
		t.Error(got)
	}
}

func TestScreen(t *testing.T) {
	at := time.Date(2026, 6, 8, 9, 15, 0, 0, time.Local)
	show := func(terminal bool) string {
		var out bytes.Buffer
		s := newScreen(&out, terminal)
		s.count(at, "1 accepted")
		s.count(at.Add(liveEvery-1), "2 accepted")
		s.say(at, "host_down", "%s", "acme-1")
		s.count(at.Add(liveEvery), strings.Repeat("é", width+1))
		s.end()
		return out.String()
	}
	t.Setenv("NO_COLOR", "")
	if got, want := show(false), "09:15:00  counters        1 accepted\n"+
		"09:15:00  host_down       acme-1\n"+
		"09:15:10  counters        "+strings.Repeat("é", width+1)+"\n"; got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	long := strings.Repeat("é", width-1) + "…"
	want := "\r\x1b[K1 accepted\r\x1b[K2 accepted" +
		"\r\x1b[K09:15:00  \x1b[1;31mhost_down     \x1b[0m  acme-1\n2 accepted" +
		"\r\x1b[K" + long + "\r\x1b[K" + long + "\n"
	if got := show(true); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	t.Setenv("NO_COLOR", "1")
	if got := show(true); strings.Contains(got, "\x1b[1;31m") {
		t.Errorf("%q", got)
	}
}

func TestWords(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{number(0), "0"}, {number(999), "999"}, {number(1000), "1,000"}, {number(1234567), "1,234,567"},
		{plural(1, "host"), "1 host"}, {plural(2000, "host"), "2,000 hosts"},
		{brief(10 * time.Second), "10s"}, {brief(30 * time.Minute), "30m"}, {brief(time.Hour), "1h"}, {brief(90 * time.Second), "1m30s"},
		{seconds(3210 * time.Millisecond), "3.2 s"},
		{quote("bin/hub"), "bin/hub"}, {quote("my demo"), "'my demo'"}, {quote("it's"), `'it'\''s'`}, {quote(""), "''"}, {quote("*"), "'*'"},
		{short("0123456789"), "0123456"}, {short(""), ""},
		{folder("my demo").hostFile("acme-1"), "'my demo/fleet'/customers/*/hosts/acme-1.yaml"},
	} {
		if test.got != test.want {
			t.Errorf("%s, want %s", test.got, test.want)
		}
	}
	if got := cut("Könyvelő", 5); got != "Köny…" || utf8.RuneCountInString(got) != 5 {
		t.Error(got)
	}
}

func TestAgentsUnknown(t *testing.T) {
	var a agents
	f := prepared(t)
	keys, err := f.keys()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // they are known, and report nothing
	a.url, a.interval = "http://127.0.0.1:1", time.Hour
	if joined, err := a.join(ctx, keys); err != nil || len(joined) != 5 {
		t.Fatal(joined, err)
	}
	if joined, err := a.join(ctx, keys); err != nil || len(joined) != 0 {
		t.Error(joined, err)
	}
	a.wait(10 * time.Second)
	err = a.steer("stop", "tisza-0")
	if err == nil || !strings.HasPrefix(err.Error(), "no agent of this demo is called tisza-0; there are tisza-") || !strings.HasSuffix(err.Error(), ", …") {
		t.Error(err)
	}
}
