package app_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
)

// The outside watchdog is fed while the switch judges, and not without ClickHouse.
func TestWatchdogIsFedWhileTheSwitchJudges(t *testing.T) {
	s := newSite(t)
	var fed atomic.Int64
	watcher := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fed.Add(1) }))
	defer watcher.Close()
	s.cfg.Monitor.WatchdogURL = watcher.URL
	s.external()
	takeAway := s.between()
	r := s.startReady()
	r.eventually("the first feeding", func() bool { return fed.Load() > 0 })

	takeAway()
	r.eventually("not fed any more", func() bool {
		_, body := r.get("/readyz")
		return strings.Contains(body, "the outside watchdog is not fed")
	})
	before := fed.Load()
	time.Sleep(20 * s.cfg.Monitor.Interval)
	if n := fed.Load(); n > before {
		t.Errorf("fed %d times while the switch could not judge", n-before)
	}
}

// between puts a forwarder between the hub and its ClickHouse; cut closes it with
// all that goes through it.
func (s *site) between() (cut func()) {
	s.t.Helper()
	dsn, err := url.Parse(s.cfg.ClickHouse.DSN)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server := dsn.Host
	dsn.Host = l.Addr().String()
	s.cfg.ClickHouse.DSN = dsn.String()
	ctx, cancel := context.WithCancel(context.Background())
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			forwarding.Go(func() { forward(ctx, client, server) })
		}
	})
	cut = sync.OnceFunc(func() {
		cancel()
		_ = l.Close()
		forwarding.Wait()
	})
	s.t.Cleanup(cut)
	return cut
}

func forward(ctx context.Context, client net.Conn, server string) {
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	defer context.AfterFunc(ctx, func() { _ = client.Close(); _ = upstream.Close() })()
	go func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() }()
	_, _ = io.Copy(client, upstream)
}

// The hub answers its own probe, and tells of an outside address that leads
// nowhere, or to somebody else.
func TestHubProbesItsOwnAddress(t *testing.T) {
	app.ProbeEvery(t, 20*time.Millisecond)
	s := newSite(t)
	r := s.startReady()
	time.Sleep(10 * 20 * time.Millisecond)
	if _, body := r.get("/readyz"); strings.Contains(body, "public address") {
		t.Errorf("it does not reach itself: %s", body)
	}
	if status, body := r.post("/api/v1/probe", s.global, "0123456789abcdef"); status != http.StatusOK || len(body) != 65 {
		t.Errorf("probe: %d %q", status, body)
	}
	if status, _ := r.post("/api/v1/probe", s.global, strings.Repeat("x", 65)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large nonce: %d", status)
	}
	r.stop()

	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("welcome")) }))
	defer other.Close()
	s.cfg.Monitor.ProbeURL = other.URL
	r = s.startReady()
	r.eventually("the warning", func() bool {
		_, body := r.get("/readyz")
		_, metrics := r.get("/metrics")
		return strings.Contains(body, "not this hub") && strings.Contains(metrics, "hub_probe_failing 1")
	})
}
