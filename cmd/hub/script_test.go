package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
)

// TestMain makes the test binary stand in for hub: scripts and tests start it
// by that name.
func TestMain(m *testing.M) {
	testscript.Main(withEngine{m}, map[string]func(){"hub": main})
}

type withEngine struct{ *testing.M }

func (m withEngine) Run() int { return enginetest.Run(m.M) }

// hubDir is the folder of the hub that tests start, with its launcher.
func hubDir(t testing.TB) string {
	t.Helper()
	hub, err := exec.LookPath("hub")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(hub)
	err = os.Symlink(enginetest.Launcher(t), filepath.Join(dir, "hub-engine"))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return dir
}

// TestScripts runs testdata/*.txtar: the command line as people use it.
func TestScripts(t *testing.T) {
	bin := hubDir(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "env-from": envFrom},
		Setup: func(env *testscript.Env) error {
			env.Setenv("HUB_DIR", bin)
			env.Setenv("REPOSITORY", repositoryRoot(t))
			if library, err := engine.FindLibrary(""); err == nil {
				env.Setenv(engine.LibraryVariable, library)
			}
			return nil
		},
	})
}

// exits is a script's "exits STATUS hub …": it runs a program that must exit
// with that status; stdout and stderr then look at what it printed.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS program [argument...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
}

// envFrom is a script's "env-from NAME FILE": what a file holds, as a variable.
func envFrom(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: env-from NAME FILE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

func repositoryRoot(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return root
}
