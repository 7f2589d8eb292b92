package deadman

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
)

var (
	start      = time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)
	thresholds = hub.Thresholds{StaleAfter: 30 * time.Minute, DownAfter: time.Hour}
)

func at(d time.Duration) time.Time { return start.Add(d) }

func position(seq uint64) hub.Position { return hub.Position{SpoolID: hub.SpoolID{1}, Seq: seq} }

// readySince is the rule of a hub that ran from ready on, and keeps no grace.
func readySince(ready, t time.Duration) *Rule {
	return NewRule(at(t), blind.New(blind.Interval{From: start.AddDate(-1, 0, 0), To: at(ready), Cause: blind.ProcessDown}), Timing{})
}

func previous(s hub.State, seq uint64, lastAt time.Time, silent bool) *hub.HostState {
	return &hub.HostState{HostID: "h", State: s, Last: position(seq), LastAt: lastAt, Since: lastAt, Silent: silent}
}

// describe writes an outcome in one line: "down 1h0m0s: host_down@1h0m0s(3600s)#1".
func describe(s *hub.HostState, events []hub.Event) string {
	if s == nil {
		return "nothing"
	}
	text := fmt.Sprintf("%s %s", s.State, s.Since.Sub(start))
	if s.Silent {
		text += " silent"
	}
	for _, e := range events {
		seq := 0
		for n := range 10 {
			if e.ID == hub.EventID(e.Type, "h", position(uint64(n))) {
				seq = n
			}
		}
		text += fmt.Sprintf(" %s@%s(%gs)#%d", e.Type, e.At.Sub(start), e.SilenceSeconds, seq)
	}
	return text
}

func TestStep(t *testing.T) {
	const minute = time.Minute
	for name, c := range map[string]struct {
		previous   *hub.HostState
		lastAt     time.Duration // received_at of the newest report, which has number 2
		firstAfter time.Duration
		ready, t   time.Duration
		want       string
	}{
		"first look, ok":                  {nil, 0, 0, 0, minute, "ok 0s"},
		"first look, stale":               {nil, 0, 0, 0, 31 * minute, "stale 30m0s silent"},
		"first look, down":                {nil, 0, 0, 0, 61 * minute, "down 1h0m0s silent"},
		"first look, silence before us":   {nil, 0, 0, 5 * time.Hour, 5*time.Hour + minute, "ok 0s"},
		"ok stays ok":                     {previous(hub.OK, 1, at(0), false), 0, 0, 0, 30*minute - 1, "nothing"},
		"30:00.000 is stale":              {previous(hub.OK, 1, at(0), false), 0, 0, 0, 30 * minute, "stale 30m0s host_stale@30m0s(1800s)#2"},
		"at is when it held, not T":       {previous(hub.OK, 1, at(0), false), 0, 0, 0, 47 * minute, "stale 30m0s host_stale@30m0s(1800s)#2"},
		"silence counts from ready":       {previous(hub.OK, 1, at(0), false), 0, 0, 20 * minute, 49 * minute, "nothing"},
		"silence reached after ready":     {previous(hub.OK, 1, at(0), false), 0, 0, 20 * minute, 50 * minute, "stale 50m0s host_stale@50m0s(3000s)#2"},
		"ok found over an hour":           {previous(hub.OK, 1, at(0), false), 0, 0, 0, 90 * minute, "down 1h0m0s host_down@1h0m0s(3600s)#2"},
		"stale stays stale":               {previous(hub.Stale, 2, at(0), false), 0, 0, 0, 59 * minute, "nothing"},
		"stale, a restart is no change":   {previous(hub.Stale, 2, at(0), false), 0, 0, 40 * minute, 41 * minute, "nothing"},
		"stale becomes down":              {previous(hub.Stale, 2, at(0), false), 0, 0, 0, time.Hour, "down 1h0m0s host_down@1h0m0s(3600s)#2"},
		"silent stale becomes down":       {previous(hub.Stale, 2, at(0), true), 0, 0, 0, time.Hour, "down 1h0m0s host_down@1h0m0s(3600s)#2"},
		"down stays down":                 {previous(hub.Down, 2, at(0), false), 0, 0, 0, 9 * time.Hour, "nothing"},
		"stale, then a report":            {previous(hub.Stale, 1, at(0), false), 40 * minute, 0, 0, 41 * minute, "ok 40m0s host_recovered@40m0s(2400s)#1"},
		"down, then reports":              {previous(hub.Down, 1, at(0), false), 80 * minute, 70 * minute, 0, 81 * minute, "ok 1h10m0s host_recovered@1h10m0s(4200s)#1"},
		"silent down, then a report":      {previous(hub.Down, 1, at(0), true), 70 * minute, 0, 0, 71 * minute, "ok 1h10m0s"},
		"down, a report, silent again":    {previous(hub.Down, 1, at(0), false), 70 * minute, 0, 0, 105 * minute, "stale 1h40m0s host_recovered@1h10m0s(4200s)#1 host_stale@1h40m0s(1800s)#2"},
		"silent stale, silent again":      {previous(hub.Stale, 1, at(0), true), 70 * minute, 0, 0, 135 * minute, "down 2h10m0s host_down@2h10m0s(3600s)#2"},
		"evidence behind what was judged": {previous(hub.Down, 1, at(10*minute), false), 0, 0, 0, 2 * time.Hour, "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			e := Evidence{HostID: "h", CustomerID: "acme", Lifecycle: hub.Active, Thresholds: thresholds, Last: position(2), LastAt: at(c.lastAt), Previous: c.previous}
			if c.firstAfter != 0 {
				e.FirstAfter = at(c.firstAfter)
			}
			state, events := Step(e, readySince(c.ready, c.t))
			if got := describe(state, events); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for _, ev := range events {
				if ev.CustomerID != "acme" || ev.Source != "switch" || ev.Reason == "" || !ev.DetectedAt.Equal(at(c.t)) {
					t.Errorf("event is not whole: %+v", ev)
				}
			}
		})
	}
}

// Whatever the reports and the times of evaluation, a host's log reads
// ((stale down? | down) recovered)* (stale down? | down)?, with ids once each.
func TestP02_GrammarOfEvents(t *testing.T) {
	for seed := range uint64(200) {
		var prev *hub.HostState
		var log []string
		ids := map[string]bool{}
		last, seq, now := at(0), uint64(1), at(0)
		x := seed*2654435761 + 1
		next := func(n uint64) uint64 { x = x*6364136223846793005 + 1442695040888963407; return x >> 33 % n }
		for range 200 {
			now = now.Add(time.Duration(next(20)) * time.Minute)
			if next(3) == 0 {
				last, seq = now, seq+1
			}
			state, events := Step(Evidence{HostID: "h", Lifecycle: hub.Active, Thresholds: thresholds, Last: position(seq), LastAt: last, Previous: prev}, readySince(0, now.Sub(start)))
			for _, e := range events {
				if ids[e.ID] {
					t.Fatalf("seed %d: event %s twice", seed, e.ID)
				}
				ids[e.ID] = true
				log = append(log, strings.TrimPrefix(string(e.Type), "host_"))
			}
			if state != nil {
				prev = state
			}
		}
		word := "recovered"
		for i, w := range log {
			allowed := map[string]string{"recovered": "stale down flapping", "stale": "down recovered", "down": "recovered", "flapping": "down recovered"}[word]
			if !strings.Contains(allowed, w) {
				t.Fatalf("seed %d: %s after %s at %d in %v", seed, w, word, i, log)
			}
			word = w
		}
	}
}
