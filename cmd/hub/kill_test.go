package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/simulate"
)

// oracle remembers, outside the hub, what the hub acknowledged.
type oracle struct {
	mu   sync.Mutex
	sums map[string]int // SHA-256 of the body, upper-case hex, to how often
}

func (o *oracle) acknowledged(_ string, sum [sha256.Size]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sums[strings.ToUpper(hex.EncodeToString(sum[:]))]++
}

// The hub is killed with -9 again and again while agents report, its engine
// with it: every acknowledged report is in ClickHouse, and none is there twice.
func TestKilledHubLosesNothing(t *testing.T) {
	enginetest.Need(t)
	const kills = 6
	s := newSite(t)
	keys, err := simulate.ReadKeys(strings.NewReader(
		hubOutput(t, "fleet", "enroll", "--dir", s.clone, "--customer", "acme", "--new-customer", "--count", "100", "--json")))
	if err != nil {
		t.Fatal(err)
	}
	s.git(s.clone, "add", "-A")
	s.git(s.clone, "commit", "-q", "-m", "a hundred hosts")
	s.git(s.clone, "push", "-q", "origin", "main")
	listen := freeAddress(t)
	t.Setenv("HUB_LISTEN", listen)

	o := &oracle{sums: map[string]int{}}
	agents, err := simulate.New(simulate.Options{URL: "http://" + listen, Keys: keys, Interval: 200 * time.Millisecond, Guests: 2, Acknowledged: o.acknowledged})
	if err != nil {
		t.Fatal(err)
	}
	h := s.serve()
	reporting, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { agents.Run(reporting) })
	defer func() { stop(); running.Wait() }()
	for range kills {
		before := agents.Result().Acknowledged
		eventually(t, "reports between two kills", func() bool { return agents.Result().Acknowledged > before+200 })
		time.Sleep(rand.N(200 * time.Millisecond))
		h.end(syscall.SIGKILL)
		eventually(t, "the engine's end", func() bool { return !alive(h.enginePID) })
		h = s.serve()
	}
	stop()
	running.Wait()

	// A report that was stored and not acknowledged can stand for one that still waits.
	eventually(t, "everything in ClickHouse", func() bool {
		var status struct {
			Spool struct {
				Unshipped int64 `json:"unshipped_records"`
			}
		}
		err := json.Unmarshal([]byte(hubOutput(t, "status", "--json", "--config", s.config)), &status)
		return err == nil && status.Spool.Unshipped == 0
	})
	s.becomes("SELECT count() = uniqExact(spool_id, spool_seq) AND count() = uniqExact(body_sha256) AND count() >= "+strconv.Itoa(len(o.sums))+" FROM host_reports", "1")
	_, reply := ask(t, s.analystURL(), "SELECT hex(body_sha256) FROM host_reports")
	stored := map[string]int{}
	for sum := range strings.FieldsSeq(reply) {
		stored[sum]++
	}
	lost, doubled := 0, 0
	for sum := range o.sums {
		if stored[sum] == 0 {
			lost++
		}
	}
	for _, n := range stored {
		if n > 1 {
			doubled++
		}
	}
	t.Logf("%d kills, %d acknowledged, %d stored, %d lost, %d doubled", kills, len(o.sums), len(stored), lost, doubled)
	if lost > 0 || doubled > 0 || len(o.sums) < 200*kills {
		t.Errorf("%d acknowledged, %d lost, %d doubled", len(o.sums), lost, doubled)
	}
	if status := h.end(syscall.SIGTERM); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	if strings.Contains(h.stderr.String(), keys[0].APIKey.Reveal()) {
		t.Error("a key is in the log")
	}
}
