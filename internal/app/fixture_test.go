package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/logtest"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/spool"
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // those that run together mostly wait for the disk
	status := enginetest.Run(m)
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, "goroutines are left:", err)
		status = 1
	}
	os.Exit(status)
}

// site is a fleet repository with its clone, and the configuration of a hub
// that follows it.
type site struct {
	t      *testing.T
	dir    string
	clone  string
	cfg    *config.Config
	global hub.Secret
	log    *logtest.Buffer
	now    func() time.Time // nil: the machine's clock
	every  deadman.Every
}

// newSite makes a repository with the customers acme and globex, a global key,
// and the host of the golden report.
func newSite(t *testing.T) *site {
	t.Helper()
	enginetest.Need(t)
	s := &site{t: t, dir: t.TempDir(), log: &logtest.Buffer{}}
	s.clone = filepath.Join(s.dir, "clone")
	identity := filepath.Join(s.dir, "identity.txt")
	s.git(s.dir, "init", "-q", "--bare", "-b", "main", "fleet.git")
	s.git(s.dir, "clone", "-q", "fleet.git", "clone")
	s.git(s.clone, "checkout", "-q", "-b", "main")
	if _, err := fleetops.Init(filepath.Join(s.clone, "fleet"), fleetops.InitOptions{IdentityFile: identity}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"acme", "globex"} {
		s.enroll(c, true)
	}
	key, err := fleetops.AddKey(s.clone, hub.FleetOwner())
	if err != nil {
		t.Fatal(err)
	}
	s.global = key.APIKey
	s.push("the first fleet")

	s.cfg = config.Default()
	s.cfg.Listen, s.cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	s.cfg.DataDir = filepath.Join(s.dir, "data")
	s.cfg.Fleet.URL = filepath.Join(s.dir, "fleet.git")
	s.cfg.Fleet.IdentityFiles = []string{identity}
	s.cfg.Fleet.Interval = time.Hour // tests say when
	s.cfg.ClickHouse.Embedded.HTTPPort = 0
	s.cfg.Monitor = config.Monitor{Interval: 50 * time.Millisecond, StaleAfter: 30 * time.Minute, DownAfter: time.Hour}
	return s
}

func (s *site) git(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *site) push(message string) (commit string) {
	s.t.Helper()
	s.git(s.clone, "add", "-A")
	s.git(s.clone, "commit", "-q", "-m", message)
	s.git(s.clone, "push", "-q", "origin", "HEAD:main")
	return s.git(s.clone, "rev-parse", "HEAD")
}

// enroll adds a host to the clone, as an operator does.
func (s *site) enroll(customer string, isNew bool) fleetops.Enrolled {
	s.t.Helper()
	hosts, err := fleetops.Enroll(s.clone, fleetops.EnrollOptions{Customer: customer, Count: 1, NewCustomer: isNew})
	if err != nil {
		s.t.Fatal(err)
	}
	return hosts[0]
}

// enrollAs adds a host with a given id, and maybe an end of its key's validity.
func (s *site) enrollAs(customer, id string, notAfter *time.Time) hub.Secret {
	s.t.Helper()
	return s.enrollHost(fleetfile.HostMetadata{Name: id, Customer: customer}, notAfter)
}

func (s *site) enrollHost(host fleetfile.HostMetadata, notAfter *time.Time) hub.Secret {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.clone, "fleet", "recipients.txt"))
	if err != nil {
		s.t.Fatal(err)
	}
	recipients, problems := seal.ParseRecipients("recipients.txt", data)
	if len(problems) > 0 {
		s.t.Fatal(problems)
	}
	key := hub.NewKey()
	sealed, to, err := seal.Seal(seal.Payload{Owner: hub.HostOwner(host.Name), KeyID: "k1", Key: key}, recipients)
	if err != nil {
		s.t.Fatal(err)
	}
	file, err := fleetfile.HostFile{APIVersion: fleetfile.APIVersion, Kind: "Host", Metadata: host,
		Spec: fleetfile.HostSpec{State: "active", Keys: []fleetfile.Key{{ID: "k1", NotAfter: notAfter, SealedTo: to, Sealed: sealed}}}}.Render()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(fleetfile.HostPath(host.Customer, host.Name), string(file))
	return key
}

func (s *site) write(name, text string) {
	s.t.Helper()
	file := filepath.Join(s.clone, "fleet", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.clone, "fleet", name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// running is a started hub.
type running struct {
	*app.App
	t    *testing.T
	stop func()
}

func (s *site) start() *running {
	s.t.Helper()
	o := app.Options{Config: s.cfg, Launcher: enginetest.Launcher(s.t), Version: "test", Linger: 5 * time.Millisecond,
		Now: s.now, Every: s.every,
		Logger: slog.New(slog.NewTextHandler(s.log, nil))}
	a, err := app.New(o)
	for range 100 { // a child that was forked meanwhile has the lock until it becomes another program
		if !errors.Is(err, spool.ErrLocked) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		a, err = app.New(o)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if err := a.Start(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	r := &running{App: a, t: s.t}
	r.stop = sync.OnceFunc(func() {
		began := time.Now()
		if err := a.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
		if d := time.Since(began); d > 10*time.Second {
			s.t.Errorf("Stop took %s", d)
		}
	})
	s.t.Cleanup(r.stop)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Log(s.log.String())
		}
	})
	return r
}

// startReady starts a hub and waits until it would accept reports.
func (s *site) startReady() *running {
	r := s.start()
	r.eventually("ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	return r
}

func (r *running) eventually(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("never came: %s", what)
		}
	}
}

func (r *running) get(path string) (int, string) {
	r.t.Helper()
	res, err := http.Get("http://" + r.AdminAddr() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

func (r *running) post(path string, key hub.Secret, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+r.Addr()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	reply, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(reply)
}

// report posts a small report; n makes it another one than those before.
func (r *running) report(host string, key hub.Secret, n int) int {
	r.t.Helper()
	status, _ := r.post("/api/v1/host-report", key, reportBody(host, n))
	return status
}

func reportBody(host string, n int) string {
	return fmt.Sprintf(`{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{"uptime_seconds":%d}}`, host, n)
}

// tryQuery asks ClickHouse as the analyst does, over HTTP, and returns the lines.
func (r *running) tryQuery(sql string) ([]string, error) {
	return r.tryQueryAs(engine.RoleAnalyst, sql)
}

func (r *running) tryQueryAs(role engine.Role, sql string) ([]string, error) {
	d, ok := r.Engine()
	if !ok {
		return nil, fmt.Errorf("no engine runs")
	}
	u, err := url.Parse(d.HTTPURL(role).Reveal())
	if err != nil {
		return nil, err
	}
	res, err := http.Post(u.String(), "text/plain", strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", res.StatusCode, body)
	}
	text := strings.TrimRight(string(body), "\n")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// becomes waits until a query of the analyst has this answer.
func (r *running) becomes(sql string, want ...string) {
	r.t.Helper()
	r.becomesAs(engine.RoleAnalyst, sql, want...)
}

func (r *running) becomesAs(role engine.Role, sql string, want ...string) {
	r.t.Helper()
	var got []string
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got, err = r.tryQueryAs(role, sql); err == nil && strings.Join(got, "\n") == strings.Join(want, "\n") {
			return
		}
	}
	r.t.Fatalf("%s\n got %q, %v\nwant %q", sql, got, err, want)
}

// fleetStatus is GET /api/v1/fleet/status.
func (r *running) fleetStatus() (s struct {
	Revision  string
	AppliedAt time.Time `json:"applied_at"`
	Hosts     int
	Problems  []hub.Problem
	LastError string `json:"last_error"`
}) {
	r.t.Helper()
	_, body := r.get("/api/v1/fleet/status")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		r.t.Fatalf("%v: %s", err, body)
	}
	return s
}

func golden(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
