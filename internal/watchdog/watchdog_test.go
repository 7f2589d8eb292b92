package watchdog

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestFedOnlyWhileTheSwitchJudges(t *testing.T) {
	var fed, status atomic.Int64
	status.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/ping" {
			fed.Add(1)
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	var held atomic.Pointer[string]
	f, err := New(Options{URL: server.URL + "/ping", Interval: 5 * time.Millisecond, Healthy: func() error {
		if why := held.Load(); why != nil {
			return errors.New(*why)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	defer running.Wait()
	defer cancel()
	eventually := func(what string, f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never came: %s", what)
			}
		}
	}
	eventually("three pings", func() bool { return fed.Load() >= 3 && f.Status().LastError == "" && !f.Status().FedAt.IsZero() })

	why := "ClickHouse is away"
	held.Store(&why)
	eventually("held back", func() bool { return strings.Contains(f.Status().LastError, why) })
	before := fed.Load()
	time.Sleep(50 * time.Millisecond)
	if n := fed.Load(); n != before {
		t.Errorf("fed %d times while the switch was held back", n-before)
	}
	held.Store(nil)
	eventually("fed again", func() bool { return fed.Load() > before })

	status.Store(http.StatusNotFound)
	eventually("a refusal is noticed", func() bool { return strings.Contains(f.Status().LastError, "404") })
	server.Close()
	eventually("a dead watcher is noticed", func() bool { return strings.Contains(f.Status().LastError, "refused") })
	if text := f.Status().LastError; strings.Contains(text, "ping") {
		t.Errorf("the address shows: %s", text)
	}
}

func TestAddressOfTheWatchdog(t *testing.T) {
	for _, bad := range []string{"hc-ping.com/x", "mailto:a@b", "https://"} {
		if _, err := New(Options{URL: bad}); err == nil {
			t.Errorf("%q was taken for an address", bad)
		}
	}
}
