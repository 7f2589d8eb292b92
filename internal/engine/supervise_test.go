package engine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The fake engine is this test binary, started as the launcher with a "library"
// whose name says how it misbehaves once its database was made.
const (
	fakeStubborn = "fake-stubborn" // serves, and ignores SIGTERM
	fakeHanging  = "fake-hanging"  // accepts, and answers no more
	fakeAborted  = "fake-aborted"  // answers with code 236
	fakeDying    = "fake-dying"    // ends
	fakeMute     = "fake-mute"     // never listens
)

// IsFake reports whether this process is to be a fake engine.
func IsFake() bool {
	return len(os.Args) > 1 && strings.HasPrefix(filepath.Base(os.Args[1]), "fake-")
}

// BeFake is the fake engine. It does not return.
func BeFake() {
	signal.Ignore(syscall.SIGTERM)
	mode := filepath.Base(os.Args[1])
	if mode != fakeMute {
		go serveFake(mode)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func serveFake(mode string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	for _, message := range []string{"Listening for native protocol (tcp): 127.0.0.1:1", "Listening for http://" + listener.Addr().String()} {
		fmt.Fprintf(os.Stderr, `{"level":"Information","logger_name":"Application","message":%q}`+"\n", message)
	}
	made := false
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			made = true
			if mode == fakeDying {
				fmt.Fprint(os.Stderr, "last words, Stack trace (when copying\n\n1. frame\n")
				time.AfterFunc(10*time.Millisecond, func() { os.Exit(1) })
			}
		case made && mode == fakeHanging:
			select {}
		case made && mode == fakeAborted:
			w.Header().Set("X-ClickHouse-Exception-Code", codeAborted)
			w.WriteHeader(http.StatusInternalServerError)
		}
	})))
}

// deaths is a log handler that keeps what is said about deaths.
type deaths struct {
	slog.Handler
	mu      sync.Mutex
	records []slog.Record
}

func (d *deaths) Enabled(context.Context, slog.Level) bool { return true }
func (d *deaths) WithAttrs([]slog.Attr) slog.Handler       { return d }

func (d *deaths) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "died") {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.records = append(d.records, r)
	}
	return nil
}

// await returns the first n records, each as "LEVEL wait".
func (d *deaths) await(t *testing.T, n int) (told []string, cause string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		records := slices.Clone(d.records)
		d.mu.Unlock()
		if len(records) < n {
			if time.Now().After(deadline) {
				t.Fatalf("%d deaths told within 20 s, want %d", len(records), n)
			}
			continue
		}
		for _, r := range records[:n] {
			r.Attrs(func(a slog.Attr) bool {
				switch a.Key {
				case "wait":
					told = append(told, r.Level.String()+" "+a.Value.String())
				case "cause":
					cause = a.Value.String()
				}
				return true
			})
		}
		return told, cause
	}
}

// fake returns an engine that launches a fake, impatiently.
func fake(t *testing.T, mode string) (*Engine, *deaths) {
	t.Helper()
	dir := t.TempDir()
	library := filepath.Join(dir, mode)
	if err := os.WriteFile(library, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	told := &deaths{}
	e, err := New(Options{Dir: dir, Library: library, Launcher: os.Args[0], Logger: slog.New(told)})
	if err != nil {
		t.Fatal(err)
	}
	const ms = time.Millisecond
	e.timing = timing{
		lock: 100 * ms, ready: 10 * time.Second,
		pingEvery: 5 * ms, pingWithin: 50 * ms, pingsLost: 2, grace: 20 * ms,
		backoff: ms, backoffMax: 4 * ms, healthy: time.Hour,
	}
	t.Cleanup(func() { _ = e.Stop(context.Background()) })
	return e, told
}

func TestSignsOfDeath(t *testing.T) {
	for mode, want := range map[string]string{
		fakeHanging: "deadline exceeded",
		fakeAborted: "code 236",
		fakeDying:   ": last words",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e, told := fake(t, mode)
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, cause := told.await(t, 2); !strings.Contains(cause, want) {
				t.Errorf("cause %q, want %q", cause, want)
			}
			if e.Restarts() < 2 {
				t.Errorf("%d restarts", e.Restarts())
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	for name, c := range map[string]struct {
		healthy time.Duration
		want    []string
	}{
		"dies again and again": {time.Hour, []string{"WARN 1ms", "WARN 2ms", "ERROR 4ms", "ERROR 4ms"}},
		"was healthy between":  {0, []string{"WARN 1ms", "WARN 1ms", "WARN 1ms", "WARN 1ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, told := fake(t, fakeDying)
			e.timing.healthy = c.healthy
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, _ := told.await(t, len(c.want)); !slices.Equal(got, c.want) {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

func TestStopEndsAStubbornEngine(t *testing.T) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for name, c := range map[string]struct {
		grace time.Duration
		ctx   context.Context
	}{
		"after the grace":          {20 * time.Millisecond, context.Background()},
		"at once with its context": {time.Hour, gone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := fake(t, fakeStubborn)
			e.timing.grace = c.grace
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			pid := e.PID()
			if err := e.Stop(c.ctx); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, 0); err == nil {
				t.Errorf("process %d lives", pid)
			}
		})
	}
}

func TestNeverReady(t *testing.T) {
	e, _ := fake(t, fakeMute)
	e.timing.ready = 20 * time.Millisecond
	if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "did not answer within 20ms") {
		t.Errorf("got %v", err)
	}
	if e.PID() != 0 {
		t.Error("a process is left")
	}
}
