package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// searchSpool adds the files of the spool to the places.
func (f *fixture) searchSpool(places map[string]string) {
	f.t.Helper()
	files := 0
	err := filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		places["the spool's "+d.Name()] = string(bytes.TrimRight(data, "\x00"))
		files++
		return err
	})
	if err != nil || files == 0 {
		f.t.Errorf("%d files in the spool, %v", files, err)
	}
}

// slowDisk is the spool on a disk that takes its time for each sync.
type slowDisk struct {
	*faultySpool
	sync time.Duration
}

func (s slowDisk) Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	time.Sleep(s.sync)
	return s.faultySpool.Append(ctx, records...)
}

// crowd posts on its own connections, each as fast as it is answered, and returns
// how long each accepted report took that was sent later than from.
func (f *fixture) crowd(host, key string, connections int, from, until time.Time, serial *atomic.Int64) []time.Duration {
	var (
		mu   sync.Mutex
		took []time.Duration
		all  sync.WaitGroup
	)
	transport := &http.Transport{MaxIdleConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	for range connections {
		all.Go(func() {
			var own []time.Duration
			for time.Now().Before(until) {
				r, err := http.NewRequest(http.MethodPost, "http://"+f.Addr()+"/api/v1/host-report", bytes.NewReader(report(host, int(serial.Add(1)))))
				if err != nil {
					f.t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+f.keys[key].Reveal())
				began := time.Now()
				res, err := transport.RoundTrip(r)
				if err != nil {
					f.t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK && began.After(from) {
					own = append(own, time.Since(began))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
		})
	}
	all.Wait()
	return took
}

// TestI22_OneCustomerCannotDelayTheOthers has one customer come with a hundred
// times the connections of its share, each busy without a pause, and compares what
// the other customer sees in the same run. The disk is made slow, so that turns are
// what is scarce, and not the processor that the clients use as well.
func TestI22_OneCustomerCannotDelayTheOthers(t *testing.T) {
	const (
		share, attempts, enough = 4, 6, 40
		settling, window        = 500 * time.Millisecond, 1500 * time.Millisecond // connections are made in the first
	)
	f := serve(t, func(s *settings) {
		s.ingest.MaxTurns = 16
		s.wrap = func(real *faultySpool) *slowDisk { return &slowDisk{real, 20 * time.Millisecond} }
	})
	var serial atomic.Int64
	p99 := func(noisy int) (others time.Duration, noise int) {
		from := time.Now().Add(settling)
		until := from.Add(window)
		var all sync.WaitGroup
		all.Go(func() { noise = len(f.crowd(goldenHost, "host/"+goldenHost, noisy, from, until, &serial)) })
		took := f.crowd("globex-1", "host/globex-1", share, from, until, &serial)
		all.Wait()
		if len(took) < enough {
			return window, noise
		}
		slices.Sort(took)
		return took[len(took)*99/100], noise
	}
	var told strings.Builder
	for range attempts {
		quiet, _ := p99(share)
		loud, noise := p99(100 * share)
		fmt.Fprintf(&told, "p99 %s, and %s beside %d reports of the loud customer: %.2f times\n", quiet, loud, noise, float64(loud)/float64(quiet))
		if noise == 0 {
			t.Fatal("the loud customer got nothing at all: a share is a share")
		}
		if quiet < window && loud < window && loud <= 2*quiet {
			t.Log(told.String())
			return
		}
	}
	t.Errorf("the others wait more than twice as long:\n%s", told.String())
}

func TestI22_OneCustomerCannotHoldAllMemory(t *testing.T) {
	f := serve(t, func(s *settings) { s.http.MaxInFlightBytes = 1 << 20 })
	for range 40 { // each holds 64 KiB, together more than there is
		f.raw(f.head("host/"+goldenHost, "Content-Length: 60000") + strings.Repeat(" ", 40_000))
	}
	eventually(t, "the customer holds its half", func() bool { return f.InFlight() > 400<<10 })
	if n := f.InFlight(); n > 512<<10 {
		t.Errorf("one customer holds %d bytes of %d", n, 1<<20)
	}
	if a := f.send(request{key: "host/globex-1", body: append(report("globex-1", 1), bytes.Repeat([]byte(" "), 100_000)...)}); a.status != 200 {
		t.Errorf("another customer beside it: %d %s", a.status, a.body)
	}
	if a := f.send(request{key: "host/acme-4", body: append(report("acme-4", 1), bytes.Repeat([]byte(" "), 100_000)...)}); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("more of the same customer: %d %s", a.status, a.body)
	}
}

// TestI18_SlowClientsByTheThousand leaves a thousand connections in the midst of
// their header or body, of which the last ones are over the bound, and has a good
// client report all the while.
func TestI18_SlowClientsByTheThousand(t *testing.T) {
	const slow, most = 1000, 1200
	f := serve(t, func(s *settings) {
		s.http.MaxConnections = most
		s.header, s.read = 2*time.Second, 2*time.Second
	})
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for n := range slow {
		c, err := net.Dial("tcp", f.Addr())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		text := []string{"", "POST /api/v1/host-report HTTP/1.1\r\nHost:", f.head("fleet", "Content-Length: 1000") + "{"}[n%3]
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if n%50 == 0 {
			if a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, n)}); a.status != 200 {
				t.Fatalf("a good client beside %d slow ones: %d %s", n, a.status, a.body)
			}
		}
	}
	for n := range 20 {
		if a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, slow+n)}); a.status != 200 {
			t.Fatalf("a good client beside %d slow ones: %d %s", slow, a.status, a.body)
		}
	}
	eventually(t, "the slow ones are sent away", func() bool { return f.metric("hub_connections") == "0" && f.InFlight() == 0 })
}

// TestI17_EightReportsAgainAndAgain sends a host's last eight reports five times
// at once, before and after a restart, where no ClickHouse ever ran.
func TestI17_EightReportsAgainAndAgain(t *testing.T) {
	dir, keys := t.TempDir(), map[string]hub.Secret{}
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			f := serve(t, func(s *settings) { s.dir, s.keys = dir, keys })
			var all sync.WaitGroup
			for n := range 40 {
				all.Go(func() {
					a, err := f.try(request{key: []string{"fleet", "host/" + goldenHost}[n%2], body: report(goldenHost, n%8)})
					if err != nil || a.status != 200 {
						t.Errorf("%d %s, %v", a.status, a.body, err)
					}
				})
			}
			all.Wait()
			if n := len(f.records()); n != 8 {
				t.Errorf("%d records of 8 reports", n)
			}
		})
	}
}
