// Package enginetest gives tests a real ClickHouse: one engine a test binary,
// one random database a test.
//
// A package that uses it says so in its TestMain:
//
//	func TestMain(m *testing.M) { enginetest.Main(m) }
//
// Nothing is left behind: the engine is stopped by Main, and it dies with the
// test binary when that is killed.
package enginetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine"
)

// scratch is this binary's folder: the launcher, and the shared engine's data.
var scratch struct {
	sync.Mutex
	dir      string
	launcher string
	shared   *engine.Engine
}

// Main runs the tests, stops the shared engine and exits.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has more to do: it runs the tests, stops the
// shared engine and returns the exit status.
func Run(m *testing.M) int {
	defer cleanUp()
	return m.Run()
}

func cleanUp() {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.shared != nil {
		_ = scratch.shared.Stop(context.Background())
		scratch.shared = nil
	}
	if scratch.dir != "" {
		_ = os.RemoveAll(scratch.dir)
		scratch.dir, scratch.launcher = "", ""
	}
}

// Launcher returns the path of a hub-engine built from this tree. It is gone
// when Main ends.
func Launcher(t testing.TB) string {
	t.Helper()
	scratch.Lock()
	defer scratch.Unlock()
	path, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func launcher() (string, error) {
	if scratch.launcher != "" {
		return scratch.launcher, nil
	}
	if scratch.dir == "" {
		dir, err := os.MkdirTemp("", "hub-enginetest-")
		if err != nil {
			return "", err
		}
		scratch.dir = dir
	}
	path := filepath.Join(scratch.dir, "hub-engine")
	build := exec.Command("go", "build", "-o", path, "felhom.eu/hub/cmd/hub-engine")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build hub-engine: %w\n%s", err, output)
	}
	scratch.launcher = path
	return path, nil
}

// Need skips a test that needs the engine where only the fast ones are wanted
// (go test -short, make check): the engine may not be fetched there. Whatever
// returns an engine calls it.
func Need(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the engine: make test runs it")
	}
}

// Shared returns the engine that all tests of this binary share, started at
// the first call and stopped by Main. Do not stop or kill it: that is what New
// is for.
func Shared(t testing.TB) *engine.Engine {
	t.Helper()
	Need(t)
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.shared != nil {
		return scratch.shared
	}
	e, err := startShared()
	if err != nil {
		t.Fatal(err)
	}
	scratch.shared = e
	return e
}

func startShared() (*engine.Engine, error) {
	path, err := launcher()
	if err != nil {
		return nil, err
	}
	e, err := engine.New(engine.Options{Dir: filepath.Join(scratch.dir, "engine"), Launcher: path})
	if err != nil {
		return nil, err
	}
	return e, start(e)
}

// start allows for a machine that is busy with other tests.
func start(e *engine.Engine) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return e.Start(ctx)
}

// New returns a started engine of the test's own, in a directory of its own,
// stopped when the test ends. It comes back soon however often it is killed.
func New(t testing.TB) *engine.Engine {
	t.Helper()
	return Start(t, engine.Options{Dir: t.TempDir(), MaxBackoff: 100 * time.Millisecond})
}

// Start is New with options; the launcher is filled in.
func Start(t testing.TB, o engine.Options) *engine.Engine {
	t.Helper()
	Need(t)
	o.Launcher = Launcher(t)
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(context.Background()) })
	if err := start(e); err != nil {
		t.Fatal(err)
	}
	return e
}

// DSN returns clickhouse://hub:…@…/test_… of a new, empty database of the
// shared engine, dropped when the test ends.
func DSN(t testing.TB) string {
	t.Helper()
	return DSNOf(t, Shared(t))
}

// DSNOf is DSN for an engine that New returned.
func DSNOf(t testing.TB, e *engine.Engine) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text()[:12])
	if _, err := e.Query(context.Background(), engine.RoleHub, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := e.Query(ctx, engine.RoleHub, "DROP DATABASE IF EXISTS "+name+" SYNC")
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && e.PID() != 0 {
			t.Logf("drop %s: %v", name, err)
		}
	})
	at := url.URL{
		Scheme: "clickhouse", Host: e.Endpoint().TCP, Path: "/" + name,
		User: url.UserPassword(string(engine.RoleHub), e.Password(engine.RoleHub).Reveal()),
	}
	return at.String()
}
