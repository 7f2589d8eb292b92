package bench

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/wire"
)

const driveVariable = "HUB_BENCH_TEST_DRIVE"

// TestMain makes the test binary stand in for the agents' process.
func TestMain(m *testing.M) {
	if os.Getenv(driveVariable) != "" {
		if err := DriveChild(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	enginetest.Main(m)
}

func agents() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), driveVariable+"=1")
	return cmd
}

// TestEveryWayOfSending: every report of every encoding over every protocol is
// acknowledged, and none is taken for a retry of another.
func TestEveryWayOfSending(t *testing.T) {
	for _, way := range []struct {
		version  int
		encoding string
	}{{1, "identity"}, {1, "gzip"}, {2, "zstd"}} {
		r, err := Run(t.Context(), Options{Driver: agents, Dir: t.TempDir(), Scenarios: []string{"a", "b", "c", "controllers"},
			Connections: 4, Hosts: 500, Duration: 150 * time.Millisecond, Encoding: way.encoding, HTTP: way.version})
		if err != nil {
			t.Fatalf("%+v: %v", way, err)
		}
		for _, row := range r.Rows {
			if row.Reports == 0 || len(row.Refused) > 0 || row.HubMicros <= 0 || row.P50 <= 0 || row.P50 > row.P999 {
				t.Errorf("%+v: %+v", way, row)
			}
			plain, saves := 2000.0, 0.4
			if row.Scenario == "controllers" { // about 430 bytes
				plain, saves = 400, 0.2
			}
			if compressed := row.BodyBytes < plain; compressed != (way.encoding != "identity") {
				t.Errorf("%+v: %.0f bytes a body", way, row.BodyBytes)
			} else if compressed != (row.Saved > saves) || row.Saved >= 1 {
				t.Errorf("%+v: %.2f saved of %.0f bytes", way, row.Saved, row.BodyBytes)
			}
		}
		if len(r.Rows) != 4 || r.Rows[0].OfBare != 1 || r.Rows[2].AboveBare <= 0 {
			t.Errorf("%+v: %+v", way, r.Rows)
		}
	}
}

// TestAllocationsAboveTheBareHandler: what the way to the acknowledgement may
// allocate for a report beside net/http.
func TestAllocationsAboveTheBareHandler(t *testing.T) {
	const most = 35
	r, err := Run(t.Context(), Options{Driver: agents, Dir: t.TempDir(), Scenarios: []string{"a", "c"},
		Connections: 16, Hosts: 500, Duration: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if above := r.Rows[1].AboveBare; above <= 0 || above > most {
		t.Errorf("%.1f allocations above the bare handler, want at most %d", above, most)
	}
}

// TestUntilAllIsInClickHouse: Run itself counts what is there.
func TestUntilAllIsInClickHouse(t *testing.T) {
	enginetest.Need(t)
	r, err := Run(t.Context(), Options{Driver: agents, Dir: t.TempDir(), Launcher: enginetest.Launcher(t), Scenarios: []string{"d", "rate", "memory", "backlog", "tick", "readers"},
		Connections: 4, Hosts: 500, Duration: 1500 * time.Millisecond, Rate: 50, Backlog: 300})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		if row.InDatabase == 0 || row.PerSecond <= 0 || row.HubMicros <= 0 || row.EngineUS <= 0 || len(row.Refused) > 0 {
			t.Errorf("%+v", row)
		}
		if row.Scenario == "memory" && (row.MeanMinMiB < row.MinMiB || row.MeanMaxMiB > row.MaxMiB || row.MinMiB <= 0) {
			t.Errorf("no memory was seen: %+v", row)
		}
	}
	if ticks := r.Rows[6]; ticks.Evaluated < 2 {
		t.Errorf("the switch judged %d times", ticks.Evaluated)
	}
	if read := r.Rows[8]; r.Rows[7].Reads != 0 || read.Reads == 0 || read.ReadsRefused["400"]+read.ReadsRefused["401"]+read.ReadsRefused["429"] > 0 || read.ReadP50 <= 0 || read.ReadP50 > read.ReadP99 || read.OfUnread <= 0 {
		t.Errorf("of readers: %+v, %+v", r.Rows[7], read)
	}
	if len(r.Rows) != 9 {
		t.Errorf("%d rows", len(r.Rows))
	}
}

func TestMeansOfWholeWindows(t *testing.T) {
	for _, c := range []struct{ samples, want []float64 }{
		{[]float64{1, 3}, []float64{2}},
		{[]float64{1, 2, 3, 4, 5, 9, 100}, []float64{2, 6}},
	} {
		if got := means(c.samples, 3); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v", c.samples, got)
		}
	}
}

// TestAStallCountsForAllWhoWait: with a rate, latency is from when a report was
// to be sent. One stall of 300 ms falls on one request, and on the 30 that could
// not be sent meanwhile.
func TestAStallCountsForAllWhoWait(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if n.Add(1) == 1 {
			time.Sleep(300 * time.Millisecond)
		}
	}))
	defer server.Close()
	o, err := Drive(t.Context(), Load{Address: server.Listener.Addr().String(), HTTP: 1, Encoding: "identity", Hosts: 2, Connections: 1, Rate: 100, Count: 40},
		func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if o.Acknowledged != 40 || o.Latency.Quantile(0.5) < 50 {
		t.Errorf("%d acknowledged, p50 %.1f ms", o.Acknowledged, o.Latency.Quantile(0.5))
	}
}

// TestRefusalsAreCounted: a status, and a connection that was cut.
func TestRefusalsAreCounted(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	o, err := Drive(t.Context(), Load{Address: server.Listener.Addr().String(), HTTP: 1, Encoding: "identity", Hosts: 1, Connections: 1, Count: 5},
		func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if o.Acknowledged != 3 || o.Refused["503"] != 1 || o.Refused[noAnswer] != 1 {
		t.Errorf("%d acknowledged, refused %v", o.Acknowledged, o.Refused)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, err = Drive(t.Context(), Load{Address: l.Addr().String(), HTTP: 1, Encoding: "identity", Hosts: 1, Connections: 1, Count: 1}, func() error { return nil })
	if err == nil {
		t.Error("no error without a hub")
	}
}

// TestReportsAreRealisticAndDistinct holds the load to what the figures claim.
func TestReportsAreRealisticAndDistinct(t *testing.T) {
	seen := map[string]bool{}
	size := 0
	for h := range 100 {
		a, err := newAgent(Load{Seed: "s"}, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			body := a.body()
			report, err := wire.DecodeReport(body, time.Now())
			if err != nil || report.HostID != hostID(h) || len(report.Rejected) > 0 || seen[string(body)] {
				t.Fatalf("%v, seen before: %t\n%s", err, seen[string(body)], body)
			}
			seen[string(body)] = true
			size += len(body)
		}
	}
	if mean := size / len(seen); mean < 2400 || mean > 2900 {
		t.Errorf("a report has %d bytes", mean)
	}
}

// BenchmarkIngest measures a, b and c with the agents in a process of their own;
// of-bare is the share of a's reports a second, in the same run.
func BenchmarkIngest(b *testing.B) {
	var bare, bareAllocs float64
	for _, s := range steps {
		b.Run(s.what, func(b *testing.B) {
			run := &bench{o: Options{Driver: agents, HTTP: 1, Encoding: "identity"}, seed: "bench"}
			l := run.load(0, 0, DefaultConnections)
			l.Count = int64(b.N)
			sum := newSum(s.scenario, s.what, l)
			b.ResetTimer()
			if err := run.onSite(b.Context(), s, l, b.TempDir(), sum); err != nil {
				b.Fatal(err)
			}
			row := sum.row()
			if s.scenario == "a" {
				bare, bareAllocs = row.PerSecond, row.Allocs
			}
			b.ReportMetric(0, "ns/op") // making the reports and the fleet is in it
			b.ReportMetric(row.PerSecond, "reports/s")
			b.ReportMetric(row.HubMicros, "hub-µs")
			if bare > 0 { // a was measured too
				b.ReportMetric(row.PerSecond/bare, "of-bare")
				b.ReportMetric(row.Allocs-bareAllocs, "allocs-above-bare")
			}
			b.ReportMetric(row.P99, "p99-ms")
		})
	}
}
