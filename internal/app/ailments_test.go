package app_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

// TestOperatorsHearOfTheHubsTroubles: a ClickHouse that is away, and a spool that fills
// up because of that, are told by the operators' channel, once, also over a restart.
func TestOperatorsHearOfTheHubsTroubles(t *testing.T) {
	app.Ailing(t, 20*time.Millisecond, time.Second)
	told := newInbox(t)
	s := newSite(t)
	var hosts []fleetops.Enrolled // each may post some two dozen at once
	for range 8 {
		hosts = append(hosts, s.enroll("acme", false))
	}
	s.write("fleet.yaml", strings.Replace(s.read("fleet.yaml"), "spec:\n", "spec:\n"+told.channel(), 1))
	s.push("a channel")
	s.cfg.ClickHouse.DSN = "clickhouse://nobody@127.0.0.1:1/hub"
	s.cfg.Spool.MaxBytes = 64 << 20
	r := s.startReady()
	times := func(text string) int { return strings.Count(told.all(), `"summary":"`+text+`"`) }
	r.eventually("a message about ClickHouse", func() bool { return times("ClickHouse does not answer") == 1 })
	if times("The hub's spool is nearly full") != 0 {
		t.Error("the spool is said to be full, and is not")
	}
	for n, full := 1, false; !full; n++ {
		host := hosts[n%len(hosts)]
		status, reply := r.post("/api/v1/host-report", host.APIKey, largeReport(host.HostID, n))
		if full = strings.Contains(reply, "the spool is nearly full"); !full && status != 200 {
			t.Fatalf("report %d: %d %s", n, status, reply)
		}
	}
	r.eventually("a message about the spool", func() bool { return times("The hub's spool is nearly full") == 1 })
	r.stop()
	s.startReady()
	time.Sleep(2 * time.Second) // longer than it took the first time
	for _, kind := range []hub.EventType{hub.ClickHouseAway, hub.SpoolHigh} {
		if n := strings.Count(told.all(), `"alertname":"`+string(kind)+`"`); n != 1 {
			t.Errorf("%s was told %d times", kind, n)
		}
	}
}

// largeReport has 700 KB that cannot be made smaller.
func largeReport(host string, n int) string {
	var more strings.Builder
	for more.Len() < 700_000 {
		fmt.Fprintf(&more, "%016x", rand.Uint64())
	}
	return strings.Replace(reportBody(host, n), `"host":{`, `"host":{"more":"`+more.String()+`",`, 1)
}
