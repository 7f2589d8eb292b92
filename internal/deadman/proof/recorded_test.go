package proof

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

var update = flag.Bool("update", false, "write testdata/recorded.txt anew; only for a new trace")

// recorded is a trace written down: hosts, what happened when, and the events
// with their ids. Every version of the hub gives the same; ids are never changed.
const recorded = "testdata/recorded.txt"

func TestP26_RecordedTraceGivesTheSameIDs(t *testing.T) {
	data, err := os.ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	script, events, ok := strings.Cut(string(data), "-- events --\n")
	if !ok {
		t.Fatal("the trace has no events")
	}
	got := replay(t, script)
	if *update {
		if err := os.WriteFile(recorded, []byte(script+"-- events --\n"+got), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if got != events {
		t.Errorf("events:\n%swant:\n%s", got, events)
	}
}

// replay runs a script and returns its events, a line each.
func replay(t *testing.T, script string) string {
	t.Helper()
	var list []hub.Event
	once(t, func(w *world) {
		w.run(script)
		for _, e := range w.events {
			list = append(list, e)
		}
	})
	slices.SortFunc(list, func(a, b hub.Event) int {
		return strings.Compare(a.At.Format(time.RFC3339)+a.ID, b.At.Format(time.RFC3339)+b.ID)
	})
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %s %s %s %s\n", e.ID, e.At.Format(time.RFC3339), e.Type, strings.Trim(e.CustomerID+"/"+e.HostID, "/"), strings.Join(e.Hosts, ","))
	}
	return b.String()
}

// once has f do what it likes with a world of six hosts, in which nothing is drawn.
func once(t *testing.T, f func(w *world)) {
	t.Helper()
	done := false
	rapid.Check(t, func(rt *rapid.T) {
		if !done {
			done = true
			w := worldOf(rt, 6)
			for _, h := range w.hosts {
				h.Deadlines = hub.Deadlines{} // the traces are older than they are
			}
			w.apply()
			f(w)
		}
	})
}

// run does what a script says, line by line.
func (w *world) run(script string) {
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			w.do(strings.Fields(line))
		}
	}
}

// do is one line of a script:
//
//	live STEPS HOST…     time passes; these hosts report every 5 min
//	away STEPS           the hub does not run
//	suspend STEPS        it stands still
//	back STEPS           its clock is set back
//	fail                 an evaluation whose query fails
//	host ID LIFECYCLE    a change of the fleet
func (w *world) do(words []string) {
	steps := 0
	if len(words) > 1 {
		_, _ = fmt.Sscan(words[1], &steps)
	}
	switch words[0] {
	case "live":
		w.lives(steps, 20, words[2:])
	case "away":
		w.restart(steps)
	case "suspend":
		w.now += steps
		w.look()
	case "back":
		w.now -= steps
		w.look()
	case "fail":
		w.tick(0, fault{query: true}, false)
	case "host":
		w.hosts[words[1]].Lifecycle = hub.Lifecycle(words[2])
		w.apply()
	default:
		w.t.Fatalf("%q is no word of a trace", words[0])
	}
}

// tell is a switch whose faults are set one by one.
type tell struct {
	answer  clickhouse.Answer
	err     error
	events  []hub.Event
	refuses bool
}

func (s *tell) Log(time.Time) (*blind.Log, error) { return nil, nil }
func (s *tell) Blind() []blind.Interval           { return nil }

func (s *tell) Candidates(context.Context, clickhouse.Question) (clickhouse.Answer, error) {
	return s.answer, s.err
}
func (s *tell) States(context.Context, []string, func(hub.HostState), func(error)) error { return nil }
func (s *tell) DecidedSince(context.Context, time.Time) (map[string]time.Time, error) {
	return nil, nil
}
func (s *tell) Announcements(context.Context, time.Time) (map[string]clickhouse.Announcement, error) {
	return nil, nil
}

func (s *tell) FirstReports(context.Context, map[string]time.Time) (map[string]time.Time, error) {
	return nil, nil
}
func (s *tell) Behind() (time.Time, bool) { return time.Time{}, false }
func (s *tell) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	if s.refuses {
		return nil, errors.New("full")
	}
	for _, r := range records {
		d, err := wire.DecodeDecision(r.Body)
		if err != nil {
			return nil, err
		}
		s.events = append(s.events, d.Events...)
	}
	return nil, nil
}

// P13 by each of P10 to P12: after 10 min the operators are told, once, on a way
// without ClickHouse; also when the hub restarts every few minutes.
func TestP13_OperatorsHearOfAHeldSwitch(t *testing.T) {
	fleet, err := hub.NewFleet(hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}}, Hosts: []*hub.Host{{ID: "h1", Customer: "acme", Lifecycle: hub.Active}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*tell{
		"P10 error":       {err: errors.New("boom")},
		"P11 slow":        {err: context.DeadlineExceeded},
		"P12 implausible": {},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{kept: map[string][]byte{}, m: &model{}}
			s.refuses = true
			var sw *deadman.Switch
			for at := 0; at <= 30; at++ {
				if at%4 == 0 { // a restart
					sw = deadman.New(deadman.Options{Store: s, Backlog: s, Journal: s, Eyes: s, Memory: w, Base: base, Timing: timing,
						Logger: slog.New(slog.DiscardHandler), Fleet: func() *hub.Fleet { return fleet },
						LastSeen: func(string) (hub.Receipt, bool) { return hub.Receipt{ReceivedAt: epoch.Add(-time.Minute)}, true }})
				}
				if sw.Tick(t.Context(), epoch.Add(time.Duration(at)*time.Minute)) == nil {
					t.Fatal("it judged")
				}
				s.refuses = at < 12 // the spool takes it a little later
				if st := sw.Status(); !st.HeldSince.Equal(epoch) || st.HeldBy == "" {
					t.Fatalf("%+v", st)
				}
			}
			if len(s.events) != 1 || s.events[0].Type != hub.HubSwitchHeld || s.events[0].CustomerID != "" || !s.events[0].At.Equal(epoch.Add(10*time.Minute)) {
				t.Errorf("%+v", s.events)
			}
			s.err, s.answer = nil, clickhouse.Answer{Reported: 1}
			if err := sw.Tick(t.Context(), epoch.Add(time.Hour)); err != nil || sw.Status().HeldBy != "" {
				t.Errorf("it does not judge again: %v", err)
			}
		})
	}
}
