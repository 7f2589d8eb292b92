package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"go.uber.org/goleak"

	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
)

// parentDir, when set, makes this test binary the parent of an engine in that
// directory: TestDiesWithParent kills it.
const parentDir = "ENGINE_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if engine.IsFake() {
		engine.BeFake()
	}
	if dir := os.Getenv(parentDir); dir != "" {
		beParent(dir)
	}
	code := enginetest.Run(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// ask runs a statement as role and fails the test on an error.
func ask(t *testing.T, e *engine.Engine, role engine.Role, statement string) string {
	t.Helper()
	text, err := e.Query(t.Context(), role, statement)
	if err != nil {
		t.Fatalf("%s: %s: %v", role, statement, err)
	}
	return strings.TrimSpace(text)
}

// until waits for a condition, at most 20 s.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// alive reports whether the process runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestServesBothProtocols(t *testing.T) {
	e := enginetest.Shared(t)
	if got := ask(t, e, engine.RoleHub, "SELECT version()"); got != "26.7.2.1" {
		t.Errorf("version %q", got)
	}
	if got := ask(t, e, engine.RoleHub, "SELECT timezone()"); got != "UTC" {
		t.Errorf("timezone %q", got)
	}
	options, err := clickhouse.ParseDSN(enginetest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := clickhouse.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var database string
	if err := db.QueryRow(t.Context(), "SELECT currentDatabase()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	if database != options.Auth.Database || !strings.HasPrefix(database, "test_") {
		t.Errorf("database %q, want %q", database, options.Auth.Database)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	at := enginetest.Shared(t).Endpoint()
	for _, address := range []string{at.TCP, at.HTTP} {
		host, port, err := net.SplitHostPort(address)
		if err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("address %q", address)
		}
	}
}

func TestLogTablesAreOff(t *testing.T) {
	e := enginetest.Shared(t)
	got := ask(t, e, engine.RoleHub, "SELECT count() FROM system.tables WHERE database = 'system' AND name LIKE '%\\_log'")
	if got != "0" {
		t.Errorf("%s log tables are on", got)
	}
}

func TestAnalyst(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t)
	for _, statement := range []string{
		"CREATE TABLE hub.readable (a Int8 COMMENT 'of the column') ENGINE = MergeTree ORDER BY a COMMENT 'of the table'",
		"CREATE TABLE hub.fleet_keys (a Int8) ENGINE = MergeTree ORDER BY a",
		"CREATE TABLE hub.rejected_reports (a Int8) ENGINE = MergeTree ORDER BY a",
		"CREATE VIEW hub.joined DEFINER = CURRENT_USER SQL SECURITY DEFINER AS SELECT a FROM hub.readable WHERE a NOT IN (SELECT a FROM hub.fleet_keys)",
		"INSERT INTO hub.readable VALUES (7)",
		"CREATE TABLE default.secret ENGINE = Memory AS SELECT 1 AS a",
	} {
		ask(t, e, engine.RoleHub, statement)
	}

	for statement, want := range map[string]string{
		"SELECT a FROM hub.readable":                                  "7",
		"SELECT a FROM hub.joined":                                    "7",
		"SELECT comment FROM system.tables WHERE name = 'readable'":   "of the table",
		"SELECT comment FROM system.columns WHERE table = 'readable'": "of the column",
		"SELECT table_name FROM information_schema.tables WHERE table_schema = 'hub' AND table_type = 'BASE TABLE'": "readable",
		"SELECT DISTINCT table FROM system.parts WHERE database = 'hub'":                                            "readable",
		"SELECT DISTINCT table FROM system.columns WHERE database = 'hub' AND table NOT IN ('readable', 'joined')":  "",
		"SELECT 1 SETTINGS max_execution_time = 3600, max_memory_usage = 1000000":                                   "1",
	} {
		if got := ask(t, e, engine.RoleAnalyst, statement); got != want {
			t.Errorf("%s: got %q, want %q", statement, got, want)
		}
	}

	const denied, constrained, readonly = "ACCESS_DENIED", "SETTING_CONSTRAINT_VIOLATION", "READONLY"
	for statement, want := range map[string]string{
		"SELECT * FROM hub.fleet_keys":                             denied,
		"SELECT * FROM hub.rejected_reports":                       denied,
		"SELECT * FROM default.secret":                             denied,
		"SELECT * FROM merge('hub', 'fleet_keys')":                 "CANNOT_EXTRACT_TABLE_STRUCTURE",
		"INSERT INTO hub.readable VALUES (1)":                      denied,
		"ALTER TABLE hub.readable DELETE WHERE 1":                  denied,
		"DROP TABLE hub.readable":                                  denied,
		"CREATE TABLE hub.own (a Int8) ENGINE = Memory":            denied,
		"SYSTEM STOP LISTEN HTTP":                                  denied,
		"SYSTEM SHUTDOWN":                                          denied,
		"SELECT * FROM file('/etc/passwd', 'LineAsString')":        denied,
		"SELECT * FROM url('http://127.0.0.1:1', 'LineAsString')":  denied,
		"SELECT * FROM remote('127.0.0.1:1', 'hub', 'fleet_keys')": denied,
		"SELECT name FROM system.users":                            denied,
		"SELECT 1 SETTINGS max_memory_usage = 0":                   constrained,
		"SELECT 1 SETTINGS max_memory_usage = 1000000000000":       constrained,
		"SELECT 1 SETTINGS max_execution_time = 0":                 constrained,
		"SELECT 1 SETTINGS max_execution_time = 3601":              constrained,
		"SELECT 1 SETTINGS max_threads = 0":                        constrained,
		"SELECT 1 SETTINGS max_memory_usage_for_user = 0":          constrained,
		"SET readonly = 0":                                         readonly,
	} {
		if _, err := e.Query(t.Context(), engine.RoleAnalyst, statement); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", statement, err, want)
		}
	}
}

// request speaks HTTP as any local process could.
func request(t *testing.T, e *engine.Engine, user, password, statement string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+e.Endpoint().HTTP+"/", strings.NewReader(statement))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	r.Close = true
	transport := &http.Transport{DisableKeepAlives: true}
	reply, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

func TestNothingWithoutPassword(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t)
	ask(t, e, engine.RoleHub, "CREATE TABLE hub.t ENGINE = Memory AS SELECT 1 AS a")
	for _, c := range []struct{ user, password string }{
		{"", ""}, {"default", ""}, {"default", "x"}, {"hub", ""}, {"hub", "x"}, {"analyst", ""}, {"analyst", "x"},
	} {
		for _, statement := range []string{
			"SYSTEM STOP LISTEN HTTP", "SYSTEM STOP LISTEN TCP", "SELECT a FROM hub.t",
			"CREATE DATABASE x", "SELECT name FROM system.tables WHERE database = 'hub'",
		} {
			if status, text := request(t, e, c.user, c.password, statement); status == http.StatusOK {
				t.Errorf("%q with password %q may %s: %s", c.user, c.password, statement, text)
			}
		}
	}
	if got := ask(t, e, engine.RoleHub, "SELECT a FROM hub.t"); got != "1" || e.Restarts() != 0 {
		t.Errorf("afterwards: %q, %d restarts", got, e.Restarts())
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "clickhouse")
	e := enginetest.Start(t, engine.Options{Dir: dir})
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", dir, info.Mode(), err)
	}
	for _, name := range []string{"users.xml", "config.xml", "hub.password", "analyst.password", "endpoint.json", "lock", "engine.log"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
	users, err := os.ReadFile(filepath.Join(dir, "users.xml"))
	if err != nil || strings.Contains(string(users), e.Password(engine.RoleHub).Reveal()) {
		t.Errorf("users.xml holds the password itself (%v)", err)
	}
}

func TestDataAndPasswordsSurviveStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := enginetest.Start(t, engine.Options{Dir: dir, Database: "own"})
	ask(t, e, engine.RoleHub, "CREATE TABLE own.t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1")
	ask(t, e, engine.RoleHub, "INSERT INTO own.t VALUES (42)")
	password, pid := e.Password(engine.RoleHub), e.PID()
	for range 2 { // the second does nothing
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if alive(pid) || e.PID() != 0 {
		t.Errorf("process %d lives after Stop", pid)
	}
	if _, err := engine.Describe(dir); err == nil {
		t.Error("Describe knows an engine after Stop")
	}
	for range 2 {
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(t, e, engine.RoleHub, "SELECT a FROM own.t"); got != "42" {
		t.Errorf("read %q", got)
	}
	if got := ask(t, e, engine.RoleAnalyst, "SELECT a FROM own.t"); got != "42" {
		t.Errorf("analyst read %q", got)
	}
	if e.Password(engine.RoleHub) != password || e.Restarts() != 0 {
		t.Errorf("another password, or %d restarts", e.Restarts())
	}
}

func TestComesBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		kill func(t *testing.T, e *engine.Engine)
	}{
		{"killed", func(t *testing.T, e *engine.Engine) {
			if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"aborting after junk on the native port", func(t *testing.T, e *engine.Engine) {
			conn, err := net.Dial("tcp", e.Endpoint().TCP)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(strings.Repeat("\x00\x01junk\xff", 100))); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, conn)
		}},
		{"not listening any more", func(t *testing.T, e *engine.Engine) {
			// The reply may get lost with the listener.
			_, _ = e.Query(t.Context(), engine.RoleHub, "SYSTEM STOP LISTEN HTTP")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := enginetest.New(t)
			ask(t, e, engine.RoleHub, "CREATE TABLE hub.t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1")
			ask(t, e, engine.RoleHub, "INSERT INTO hub.t VALUES (42)")
			at, pid := e.Endpoint(), e.PID()
			c.kill(t, e)
			until(t, "back", func() bool { return e.Restarts() == 1 && e.PID() != 0 && answers(e) })
			if alive(pid) || e.PID() == pid {
				t.Errorf("process %d lives on", pid)
			}
			if got := ask(t, e, engine.RoleHub, "SELECT a FROM hub.t"); got != "42" {
				t.Errorf("read %q", got)
			}
			if e.Endpoint() != at {
				t.Errorf("listens on %v now, before on %v", e.Endpoint(), at)
			}
		})
	}
}

func answers(e *engine.Engine) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := e.Query(ctx, engine.RoleHub, "SELECT 1")
	return err == nil
}

func TestComesBackEachTime(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t)
	at := e.Endpoint()
	for n := range int64(10) {
		if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "back", func() bool { return e.Restarts() == n+1 && e.PID() != 0 && answers(e) })
	}
	if e.Endpoint() != at {
		t.Errorf("listens on %v now, before on %v", e.Endpoint(), at)
	}
}

func TestStopWhileItComesBack(t *testing.T) {
	t.Parallel()
	e := enginetest.New(t)
	if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "death noticed", func() bool { return e.Restarts() > 0 })
	if err := e.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.PID() != 0 {
		t.Error("an engine runs after Stop")
	}
}

func TestOwnProcessGroup(t *testing.T) {
	pid := enginetest.Shared(t).PID()
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("engine %d is in group %d (%v): Ctrl-C would reach it", pid, group, err)
	}
}

func TestSecondEngineOnTheSameDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := enginetest.Start(t, engine.Options{Dir: dir})
	second, err := engine.New(engine.Options{Dir: dir, Launcher: enginetest.Launcher(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); !errors.Is(err, engine.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	if !answers(first) {
		t.Error("the first one suffered")
	}
}

func TestPortTaken(t *testing.T) {
	enginetest.Need(t)
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, o := range []engine.Options{{HTTPPort: port}, {TCPPort: port}} {
		o.Dir, o.Launcher = t.TempDir(), enginetest.Launcher(t)
		e, err := engine.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context()); !errors.Is(err, engine.ErrPortTaken) {
			t.Errorf("got %v", err)
		}
		if e.PID() != 0 {
			t.Error("a process is left")
		}
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	enginetest.Need(t)
	e, err := engine.New(engine.Options{Dir: t.TempDir(), Launcher: enginetest.Launcher(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if e.PID() != 0 {
		t.Error("a process is left")
	}
}

func TestNotALibrary(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(path, []byte("no ELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Options{Dir: t.TempDir(), Library: path, Launcher: enginetest.Launcher(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, which does not name %s", err, path)
	}
}

func TestNewRefuses(t *testing.T) {
	launcher := enginetest.Launcher(t)
	for name, o := range map[string]engine.Options{
		"no directory": {Launcher: launcher},
		"bad database": {Dir: t.TempDir(), Launcher: launcher, Database: "a`b"},
		"no launcher":  {Dir: t.TempDir(), Launcher: filepath.Join(t.TempDir(), "nothing")},
		"no library":   {Dir: t.TempDir(), Launcher: launcher, Library: filepath.Join(t.TempDir(), "nothing")},
	} {
		if _, err := engine.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a & <b>")
	if _, err := engine.Describe(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("without an engine: %v", err)
	}
	e := enginetest.Start(t, engine.Options{Dir: dir})
	d, err := engine.Describe(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d.Endpoint != e.Endpoint() || d.PID != e.PID() || d.Database != "hub" {
		t.Errorf("described as %+v", d)
	}
	if want := "clickhouse://hub:" + e.Password(engine.RoleHub).Reveal() + "@" + e.Endpoint().TCP + "/hub"; d.NativeURL(engine.RoleHub).Reveal() != want {
		t.Errorf("native URL %s, want %s", d.NativeURL(engine.RoleHub).Reveal(), want)
	}
	reply, err := http.Get(d.HTTPURL(engine.RoleAnalyst).Reveal() + "&query=SELECT+currentUser(),currentDatabase()")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer reply.Body.Close()
	if text, err := io.ReadAll(reply.Body); err != nil || string(text) != "analyst\thub\n" {
		t.Errorf("over the HTTP URL: %q, %v", text, err)
	}
}

// beParent starts an engine, says where, and waits to be killed.
func beParent(dir string) {
	e, err := engine.New(engine.Options{Dir: dir, Launcher: os.Getenv("ENGINE_TEST_LAUNCHER")})
	if err == nil {
		err = e.Start(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(e.Describe())
	select {}
}

func TestDiesWithParent(t *testing.T) {
	enginetest.Need(t)
	t.Parallel()
	dir := t.TempDir()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGQUIT} {
		parent := exec.Command(os.Args[0])
		parent.Env = append(os.Environ(), parentDir+"="+dir, "ENGINE_TEST_LAUNCHER="+enginetest.Launcher(t))
		output, err := parent.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(output).ReadString('\n')
		var d engine.Description
		if err := json.Unmarshal([]byte(line), &d); err != nil || !alive(d.PID) {
			t.Fatalf("the parent said %q: %v", line, err)
		}
		if err := parent.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = parent.Wait()
		until(t, "engine gone", func() bool { return !alive(d.PID) })
	}
	// The directory is free again at once.
	e := enginetest.Start(t, engine.Options{Dir: dir})
	if !answers(e) {
		t.Error("no answer from the next engine")
	}
}
