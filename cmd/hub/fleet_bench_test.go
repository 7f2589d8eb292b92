package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/bench"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/fleetfile/fleettest"
	"felhom.eu/hub/internal/hub"
)

// bigFleet is a hub of its own process that follows a repository of 100,000 hosts.
type bigFleet struct {
	*fleettest.Repository
	dir, config string
	hub         *served
	next        int // host to change next
}

const bigSecret = "not guessed"

func newBigFleet(b *testing.B) *bigFleet {
	enginetest.Need(b)
	f := &bigFleet{Repository: fleettest.Cached(b, fleettest.Big), dir: b.TempDir()}
	f.config = filepath.Join(f.dir, "hub.yaml")
	for name, text := range map[string]string{
		"secret": bigSecret,
		"hub.yaml": fmt.Sprintf("listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nfleet: {url: %s, interval: 1h, identity_files: [%s], webhook_secret_file: secret}\n"+
			"clickhouse: {embedded: {http_port: 0}}\nlog: {format: json}\n", f.Dir, f.Identity),
	} {
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

// serve starts the hub and waits until it is ready.
func (f *bigFleet) serve(b *testing.B) {
	f.hub = &served{process: start(b, "serve", "--config", f.config)}
	eventually(b, "the addresses", f.hub.listening)
	for deadline := time.Now().Add(5 * time.Minute); !f.hub.ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("never ready")
		}
	}
}

func (f *bigFleet) stop(b *testing.B) {
	if status := f.hub.end(syscall.SIGTERM); status != 0 {
		b.Errorf("exit status %d", status)
	}
}

// memory returns a line of /proc/PID/status in MiB.
func (f *bigFleet) memory(b *testing.B, name string) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.hub.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); words[0] == name+":" {
			kib, _ := strconv.ParseFloat(words[1], 64)
			return kib / 1024
		}
	}
	b.Fatal("no ", name)
	return 0
}

// settled returns the resident memory once the register is in ClickHouse and
// what loading took was given back.
func (f *bigFleet) settled(b *testing.B) float64 {
	least := f.memory(b, "VmRSS")
	for range 40 {
		time.Sleep(250 * time.Millisecond)
		least = min(least, f.memory(b, "VmRSS"))
	}
	return least
}

// change commits a new key for one host and returns the key.
func (f *bigFleet) change(b *testing.B) (hostID string, key hub.Secret) {
	key = hub.NewKey()
	f.next++
	data, err := f.Host(f.next, key, fmt.Sprintf("changed %d", f.next))
	if err != nil {
		b.Fatal(err)
	}
	f.Commit(b, "one host", fleettest.File{Name: f.HostFile(f.next), Data: data})
	return f.HostID(f.next), key
}

func (f *bigFleet) address() string { return "http://" + f.hub.Listen }

func (f *bigFleet) hint(b *testing.B) {
	body := `{"ref":"refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(bigSecret))
	mac.Write([]byte(body))
	req, err := http.NewRequest(http.MethodPost, f.address()+"/api/v1/fleet/webhook", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		b.Fatalf("the webhook: %d", res.StatusCode)
	}
}

// report posts once and returns the status.
func (f *bigFleet) report(b *testing.B, hostID string, key hub.Secret, n int64) int {
	body := fmt.Sprintf(`{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"b","host":{"uptime_seconds":%d}}`, hostID, n)
	req, err := http.NewRequest(http.MethodPost, f.address()+"/api/v1/host-report", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}

// BenchmarkFleet is the hub with 100,000 hosts of 1,000 customers: each figure of
// a process of its own, from outside it.
func BenchmarkFleet(b *testing.B) {
	b.Run("machine", func(b *testing.B) {
		for b.Loop() {
			fsync, rate, err := bench.Machine(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(fsync.Microseconds())/1000, "fsync-ms")
			b.ReportMetric(rate, "bare-reports/s")
		}
	})
	f := newBigFleet(b)
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			_ = os.RemoveAll(filepath.Join(f.dir, "data"))
			f.serve(b)
			b.ReportMetric(f.memory(b, "VmHWM"), "peak-MiB")
			b.StopTimer()
			b.ReportMetric(f.settled(b), "after-MiB")
			f.stop(b)
			b.StartTimer()
		}
	})
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			f.serve(b)
			b.ReportMetric(f.memory(b, "VmHWM"), "peak-MiB")
			b.StopTimer()
			b.ReportMetric(f.settled(b), "after-MiB")
			f.stop(b)
			b.StartTimer()
		}
	})
	f.serve(b)
	b.Run("webhook", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			time.Sleep(2 * time.Second) // the register of the change before is written
			host, key := f.change(b)
			b.StartTimer()
			f.hint(b)
			for f.report(b, host, key, 0) != http.StatusOK {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	b.Run("reload", f.reload)
	b.Run("validate", f.validate)
	b.Run("plan", f.plan)
	f.stop(b)
}

// reload compares the 99th percentile of posts with and without reloads beside.
func (f *bigFleet) reload(b *testing.B) {
	host, key := f.change(b)
	f.hint(b)
	for f.report(b, host, key, 0) != http.StatusOK {
		time.Sleep(5 * time.Millisecond)
	}
	for b.Loop() {
		quiet := f.p99(b, host, key, func() {})
		busy := f.p99(b, host, key, func() { f.change(b); f.hint(b) })
		b.ReportMetric(float64(quiet.Microseconds())/1000, "quiet-p99-ms")
		b.ReportMetric(float64(busy.Microseconds())/1000, "reload-p99-ms")
		b.ReportMetric(float64(busy)/float64(quiet), "ratio")
	}
}

// p99 posts from a paced client for five seconds and calls beside once a second.
func (f *bigFleet) p99(b *testing.B, host string, key hub.Secret, beside func()) time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var n atomic.Int64
	n.Store(time.Now().UnixNano())
	var posting sync.WaitGroup
	done := time.Now().Add(5 * time.Second)
	for range 4 {
		posting.Go(func() {
			for time.Now().Before(done) {
				began := time.Now()
				status := f.report(b, host, key, n.Add(1))
				d := time.Since(began)
				if status != http.StatusOK && status != http.StatusTooManyRequests {
					b.Errorf("status %d", status)
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	for time.Now().Before(done.Add(-time.Second)) {
		beside()
		time.Sleep(time.Second)
	}
	posting.Wait()
	slices.Sort(took)
	return took[len(took)*99/100]
}

func (f *bigFleet) validate(b *testing.B) {
	clone := filepath.Join(b.TempDir(), "clone")
	if out, err := exec.Command("git", "clone", "-q", f.Dir, clone).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for b.Loop() {
		hubOutput(b, "fleet", "validate", clone)
	}
}

// plan shows what a change of 10,000 hosts will do.
func (f *bigFleet) plan(b *testing.B) {
	var files []fleettest.File
	for h := range 10_000 {
		data, err := f.Host(20_000+h, hub.NewKey(), "planned")
		if err != nil {
			b.Fatal(err)
		}
		files = append(files, fleettest.File{Name: f.HostFile(20_000 + h), Data: data})
	}
	f.Commit(b, "ten thousand hosts", files...)
	for b.Loop() {
		hubOutput(b, "fleet", "plan", "--dir", f.Dir, "--base", "main~1", "--head", "main", "--json")
	}
}
