package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/logtest"
)

// process is a running hub.
type process struct {
	*exec.Cmd
	t      testing.TB
	stdout *bufio.Reader
	stderr *logtest.Buffer
}

// start starts hub in the background; it is killed when the test ends.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(filepath.Join(hubDir(t), "hub"), args...), t: t, stderr: &logtest.Buffer{}}
	p.Stderr = p.stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
		if t.Failed() {
			t.Logf("hub %s:\n%s", strings.Join(args, " "), p.stderr)
		}
	})
	return p
}

// end sends a signal, waits, and returns the exit status, -1 where the signal
// ended the process.
func (p *process) end(s syscall.Signal) int {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	timer := time.AfterFunc(15*time.Second, func() { _ = p.Process.Kill() })
	defer timer.Stop()
	err := p.Wait()
	if failed := new(exec.ExitError); err != nil && !errors.As(err, &failed) {
		p.t.Fatal(err)
	}
	return p.ProcessState.ExitCode()
}

// hubOutput runs hub to its end and returns what it printed.
func hubOutput(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(hubDir(t), "hub"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("hub %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// ask sends a query as curl does and returns the status and the reply.
func ask(t *testing.T, address, query string) (int, string) {
	t.Helper()
	res, err := http.Post(address, "text/plain", strings.NewReader(query))
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, strings.TrimSpace(string(reply))
}

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestEngineAlone(t *testing.T) {
	enginetest.Need(t)
	dir := filepath.Join(t.TempDir(), "clickhouse")
	p := start(t, "engine", "--dir", dir, "--json")
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var at struct{ TCP, HTTP string }
	if err := json.Unmarshal([]byte(line), &at); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("{\"tcp\":%q,\"http\":%q}\n", at.TCP, at.HTTP); line != want || !strings.HasPrefix(at.HTTP, "127.0.0.1:") {
		t.Fatalf("first line %q", line)
	}
	d, err := engine.Describe(dir)
	if err != nil {
		t.Fatal(err)
	}
	if status, reply := ask(t, d.HTTPURL(engine.RoleAnalyst).Reveal(), "SELECT version()"); status != 200 || !strings.HasPrefix(reply, "26.7.") {
		t.Errorf("SELECT version() as analyst: %d %q", status, reply)
	}
	if status, reply := ask(t, "http://"+at.HTTP, "SELECT name FROM system.databases"); status == 200 {
		t.Errorf("without a password: %q", reply)
	}
	if status := p.end(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	if alive(d.PID) {
		t.Error("the engine outlived hub")
	}
}

// site is a fleet repository, its clone, and a hub's configuration.
type site struct {
	t                  *testing.T
	dir, clone, config string
}

func newSite(t *testing.T) *site {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+who+"_NAME", "Test")
		t.Setenv("GIT_"+who+"_EMAIL", "test@localhost")
	}
	dir := t.TempDir()
	s := &site{t: t, dir: dir, clone: filepath.Join(dir, "clone"), config: filepath.Join(dir, "hub.yaml")}
	s.git(dir, "init", "-q", "--bare", "-b", "main", "fleet.git")
	s.git(dir, "init", "-q", "-b", "main", "clone")
	s.git(s.clone, "remote", "add", "origin", "../fleet.git")
	hubOutput(t, "fleet", "init", filepath.Join(s.clone, "fleet"), "--identity", filepath.Join(dir, "identity.txt"))
	text := `listen: 127.0.0.1:0
admin_listen: 127.0.0.1:0
fleet: {url: fleet.git, interval: 1h, identity_files: [identity.txt]}
clickhouse: {embedded: {http_port: 0}}
log: {format: json}
`
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) git(dir string, args ...string) {
	s.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// enroll adds a host of acme, and pushes it.
func (s *site) enroll() (hostID, key string) {
	s.t.Helper()
	var host struct {
		ID  string `json:"host_id"`
		Key string `json:"api_key"`
	}
	line := hubOutput(s.t, "fleet", "enroll", "--dir", s.clone, "--customer", "acme", "--new-customer", "--json")
	if err := json.Unmarshal([]byte(line), &host); err != nil {
		s.t.Fatal(err)
	}
	s.git(s.clone, "add", "-A")
	s.git(s.clone, "commit", "-q", "-m", "enroll "+host.ID)
	s.git(s.clone, "push", "-q", "origin", "main")
	return host.ID, host.Key
}

// serve starts hub serve and waits until it is ready.
func (s *site) serve() *served {
	s.t.Helper()
	h := &served{process: start(s.t, "serve", "--config", s.config)}
	eventually(s.t, "the addresses in the log", h.listening)
	eventually(s.t, "ready", h.ready)
	cfg, err := config.Load(s.config, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "its engine", func() bool {
		d, err := engine.Describe(app.EngineDir(cfg))
		h.enginePID = d.PID
		return err == nil
	})
	return h
}

// becomes waits until a query of an analyst, with the URL they are given, has
// this answer.
func (s *site) becomes(query, want string) {
	s.t.Helper()
	address := s.analystURL()
	var reply string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, reply = ask(s.t, address, query); reply == want {
			return
		}
	}
	s.t.Fatalf("%s: %q, not %q", query, reply, want)
}

// analystURL is the address that analysts are given.
func (s *site) analystURL() string {
	s.t.Helper()
	return hubOutput(s.t, "dsn", "--config", s.config, "--role", "analyst", "--http")
}

// served is a running hub serve.
type served struct {
	*process
	Listen      string `json:"listen"`
	AdminListen string `json:"admin_listen"`
	enginePID   int
}

// listening finds the addresses in the log.
func (h *served) listening() bool {
	for line := range strings.Lines(h.stderr.String()) {
		_ = json.Unmarshal([]byte(line), h)
	}
	return h.Listen != ""
}

func (h *served) ready() bool {
	res, err := http.Get("http://" + h.AdminListen + "/readyz")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// report posts the golden report as hostID and returns the status.
func (h *served) report(hostID, key string) int {
	h.t.Helper()
	golden, err := os.ReadFile(filepath.Join(repositoryRoot(h.t), "testdata", "host-report.golden.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	return h.send(key, strings.ReplaceAll(string(golden), "acme-5f2c9a1e", hostID))
}

// send posts a report and returns the status; 0: the hub could not be reached.
func (h *served) send(key, body string) int {
	h.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+h.Listen+"/api/v1/host-report", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

func TestServe(t *testing.T) {
	enginetest.Need(t)
	s := newSite(t)
	hostID, key := s.enroll()
	h := s.serve()

	if status := h.report(hostID, key); status != http.StatusOK {
		t.Fatalf("report: %d", status)
	}
	const reports = "SELECT host_id, customer_id, guest_total, guest_running, cpu_percent FROM host_reports"
	s.becomes(reports, hostID+"\tacme\t2\t1\t12.5")
	native, err := url.Parse(hubOutput(t, "dsn", "--config", s.config))
	if err != nil || native.Scheme != "clickhouse" || native.User.Username() != "hub" {
		t.Errorf("hub dsn: %v, %v", native, err)
	}
	if found := hubOutput(t, "check", "--config", s.config); strings.Contains(found, "WRONG") || !strings.Contains(found, "1 hosts") {
		t.Errorf("hub check beside a running hub:\n%s", found)
	}
	if said := hubOutput(t, "migrate", "--check", "--config", s.config); said != "the schema is up to date" {
		t.Errorf("hub migrate --check: %q", said)
	}

	// SIGHUP pulls at once, however long the interval is.
	second, secondKey := s.enroll()
	if err := h.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pushed host may report", func() bool { return h.report(second, secondKey) == http.StatusOK })

	// Killed, it takes its engine along, and goes on where it was.
	h.end(syscall.SIGKILL)
	eventually(t, "no engine is left", func() bool { return !alive(h.enginePID) })
	h = s.serve()
	if status := h.report(hostID, key); status != http.StatusOK { // a retry, as its answer may have been lost
		t.Fatalf("retry after kill -9: %d", status)
	}
	s.becomes("SELECT uniqExact(host_id), count() FROM host_reports", "2\t2")

	began := time.Now()
	if status := h.end(syscall.SIGTERM); status != 0 || time.Since(began) > stopWithin {
		t.Errorf("exit status %d, %s after SIGTERM", status, time.Since(began))
	}
	if alive(h.enginePID) {
		t.Error("the engine outlived hub")
	}
}
