package app_test

import (
	"context"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine/enginetest"
)

// Whole-system faults of the dead-man's switch, in virtual time. Of each: what goes
// wrong, and what is raised. Hosts that are not named raise nothing. All report at
// every full ten minutes, and the switch judges every five.

type raised = map[string]string

// The hub is away for a while. Those that report again when it is back raise
// nothing; of two that do not, one fell silent before and one meanwhile.
func TestHubAway(t *testing.T) {
	for name, d := range map[string]time.Duration{"20 min": 20 * time.Minute, "3 h": 3 * time.Hour, "3 d": 72 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), usual)
			w.start()
			w.pass(10 * time.Minute)
			w.silence("berlin-0")
			w.pass(25 * time.Minute)
			w.stop()
			w.pass(d / 2)
			w.silence("oslo-1")
			w.pass(d / 2)
			w.start()
			w.pass(65 * time.Minute)
			w.raised(raised{"berlin-0": "stale down", "oslo-1": "stale down"}, nil)
		})
	}
}

// The hub is restarted again and again for four hours. That hides nobody's death, and
// makes up none.
func TestHubRestarted(t *testing.T) {
	for name, each := range map[string]struct{ runs, away time.Duration }{
		"every two minutes":     {time.Minute, time.Minute},
		"with outages of 6 min": {14 * time.Minute, 6 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), []place{{"acme", "berlin", 3}, {"globex", "oslo", 3}})
			w.cfg.Monitor.Interval = time.Minute
			w.retry = true
			w.start()
			w.pass(10 * time.Minute)
			w.silence("berlin-0")
			times := int(4 * time.Hour / (each.runs + each.away))
			for i := range times {
				if i == times/2 {
					w.silence("oslo-1")
				}
				w.away(each.away)
				w.pass(each.runs)
			}
			w.raised(raised{"berlin-0": "stale down", "oslo-1": "stale down"}, nil)
		})
	}
}

// The engine is away for three hours: reports wait in the spool, and nothing is
// said, but to the operators. When it is back, the truth is told as it is then.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Shared(t), usual)
	w.start()
	w.pass(10 * time.Minute)
	w.silence("berlin-0") // stale before, and speaks meanwhile
	w.pass(30 * time.Minute)
	held := w.clock.Now().Add(w.cfg.Monitor.Interval)
	w.wire.sever()
	w.blocked, w.unshipped = true, true
	w.silence("berlin-1", "oslo-1") // one dies, and one is silent for 50 min
	w.pass(50 * time.Minute)
	w.speak("berlin-0", "oslo-1")
	w.pass(130 * time.Minute)
	w.wire.mend()
	w.blocked, w.unshipped = false, false
	w.judgeSoon()
	w.pass(20 * time.Minute)
	w.raised(raised{"berlin-0": "stale recovered", "berlin-1": "down"}, heldBack(held))
}

// The engine itself is stopped for an hour, and the hub restarted meanwhile.
func TestEngineStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.New(t), usual)
	w.start()
	w.pass(10 * time.Minute)
	w.silence("berlin-0")
	w.pass(20 * time.Minute)
	held := w.clock.Now().Add(w.cfg.Monitor.Interval)
	if err := w.engine.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.blocked, w.unshipped = true, true
	w.pass(5 * time.Minute)
	w.away(0)
	w.pass(55 * time.Minute)
	if err := w.engine.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.blocked, w.unshipped = false, false
	w.silence("oslo-1")
	w.pass(30 * time.Minute)
	w.raised(raised{"berlin-0": "down", "oslo-1": "stale"}, heldBack(held))
}

// For 34 minutes the newest reports that ClickHouse tells of are not what they are.
// An answer that cannot be right is as good as none; one that is out of date is
// made up for by what the hub knows itself, be it restarted.
func TestWrongAnswers(t *testing.T) {
	for table, answers := range map[string]struct {
		rows  string
		judge bool
	}{
		"host_none": {"SELECT * FROM @host_last FINAL WHERE 0", false},
		"host_half": {"SELECT * FROM @host_last FINAL WHERE match(host_id, '[02468]$')", false},
		"host_fail": {"SELECT * FROM @host_last FINAL WHERE throwIf(host_id != '', 'broken') = 0", false},
		"host_past": {"SELECT * REPLACE (last_report_at - toIntervalHour(2) AS last_report_at) FROM @host_last FINAL", true},
		"host_torn": {"SELECT * REPLACE ('torn' AS spool_id) FROM @host_last FINAL", true},
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), usual)
			w.start()
			w.query("CREATE VIEW @" + table + " AS " + answers.rows)
			w.pass(10 * time.Minute)
			w.silence("berlin-0")
			w.pass(20 * time.Minute)
			held := w.clock.Now().Add(w.cfg.Monitor.Interval)
			w.wire.bend(table)
			w.blocked = !answers.judge
			w.pass(20 * time.Minute)
			w.away(0)
			w.pass(14 * time.Minute)
			if w.wire.bend("") < 6 {
				t.Error("the answers were not bent")
			}
			w.blocked = false
			w.pass(8 * time.Minute)
			also := map[string]event{}
			if !answers.judge {
				also = heldBack(held)
			}
			w.raised(raised{"berlin-0": "stale down"}, also)
		})
	}
}

// ClickHouse takes 15 minutes to answer, and meanwhile a host reports of which it
// says, or has said, that it is silent.
func TestSlowAnswers(t *testing.T) {
	for name, question := range map[string]string{"the first": "", "the last": "min(received_at)"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), usual)
			w.start()
			w.pass(10 * time.Minute)
			w.silence("berlin-1")
			w.pass(30 * time.Minute)
			w.silence("berlin-0", "oslo-0")
			w.pass(29 * time.Minute)
			for range 9 { // more than the hub remembers: which was the first ClickHouse is asked
				w.speak("berlin-1")
			}
			w.passUnjudged(time.Minute)
			w.settle()
			finish := w.hang(question) // at 70 min the other two are silent for 30
			w.pass(10 * time.Minute)
			w.speak("oslo-0")
			w.pass(5 * time.Minute)
			finish(true)
			w.pass(20 * time.Minute)
			w.raised(raised{"berlin-0": "stale down", "berlin-1": "stale recovered"}, nil)
		})
	}
}

// Two evaluators judge over one ClickHouse. One sleeps for twenty minutes, in the
// middle of an evaluation and then between two. The ids are those of one.
func TestTwoEvaluators(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Shared(t), usual)
	w.twice = true
	w.start()
	second, wire := w.secondEvaluator()
	both := func(d time.Duration) {
		for range d / w.cfg.Monitor.Interval {
			w.pass(w.cfg.Monitor.Interval)
			if err := second(); err != nil {
				t.Fatal(err)
			}
		}
	}
	both(10 * time.Minute)
	w.silence("berlin-0", "oslo-1", "oslo-3")
	both(25 * time.Minute)
	w.pass(5*time.Minute - beat)
	w.passUnjudged(beat) // at 40 min they are silent for 30, and nobody has judged since
	w.settle()
	wire.hold("")
	woken := make(chan error)
	go func() { woken <- second() }()
	w.hub.eventually("the second evaluator asks", wire.waiting)
	w.pass(10 * time.Minute)
	w.speak("oslo-1")
	w.pass(10 * time.Minute)
	wire.release()
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	both(5 * time.Minute)
	w.pass(20 * time.Minute)
	both(10 * time.Minute)
	w.raised(raised{"berlin-0": "stale down", "oslo-1": "stale recovered", "oslo-3": "stale down"}, nil)
	if rows := w.query("SELECT count() - uniqExact(event_id) FROM @events WHERE source = 'switch'"); rows[0][0] == "0" {
		t.Error("the second evaluator never told what the first one had: it proves nothing")
	}
}

// secondEvaluator is another switch on the hub, with a wire of its own.
func (w *world) secondEvaluator() (evaluate func() error, wire *link) {
	w.t.Helper()
	dsn, err := url.Parse(w.cfg.ClickHouse.DSN)
	if err != nil {
		w.t.Fatal(err)
	}
	wire = newLink(w.t, func() string { return w.engine.Endpoint().TCP })
	dsn.Host = wire.listener.Addr().String()
	o := clickhouse.Options{DSN: dsn.String(), Password: w.engine.Password("hub")}
	db, err := clickhouse.Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() })
	options := w.hub.SwitchOptions()
	options.Store, options.Memory = db, nil
	second := deadman.New(options)
	return func() error { return second.Tick(context.Background(), w.clock.Now()) }, wire
}

// Many fall silent at the same instant. From 55 % of a site or a customer on each has
// its event, folded into one that lists them.
func TestManyFallSilent(t *testing.T) {
	large := []place{{"acme", "berlin", 50}, {"globex", "oslo", 10}}
	for name, scene := range map[string]struct {
		fleet  []place
		silent func(w *world) []string
		masses []mass // besides the hosts' own events
	}{
		"54 % of a site": {large, func(w *world) []string { return w.at("berlin")[:27] }, nil},
		"56 % of a site": {large, func(w *world) []string { return w.at("berlin")[:28] }, []mass{{customer: "acme", site: "berlin"}}},
		"one customer": {
			[]place{{"acme", "berlin", 2}, {"acme", "munich", 2}, {"acme", "", 2}, {"globex", "oslo", 8}},
			func(w *world) []string { return slices.Concat(w.at("berlin"), w.at("munich"), w.at("acme")) },
			[]mass{{customer: "acme"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), scene.fleet)
			w.start()
			w.pass(10 * time.Minute)
			silent := scene.silent(w)
			last := beatOf(w.clock.Now())
			w.silence(silent...)
			w.pass(64 * time.Minute)
			want := raised{}
			for _, id := range silent {
				want[id] = "stale down"
			}
			for _, m := range scene.masses {
				m.hosts = silent
				w.addMass(m, last)
			}
			w.raised(want, nil)
		})
	}
}

// addMass expects a mass silence, and that of the same hosts when they are down.
func (w *world) addMass(m mass, last int64) {
	m.level, m.since = "silent", last+stale
	w.masses = append(w.masses, m)
	m.level, m.since = "down", last+down
	w.masses = append(w.masses, m)
}

// Everything falls silent at once: that is first the hub's own problem. If it is
// over within ten minutes nobody but the operators hears of it; else all is told,
// as of when it was true.
func TestEverythingFallsSilent(t *testing.T) {
	for name, over := range map[string]bool{"for 38 min": true, "for good": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), usual)
			w.start()
			w.pass(10 * time.Minute)
			last := beatOf(w.clock.Now())
			everyone := slices.Concat(w.at("berlin"), w.at("oslo"))
			w.silence(everyone...)
			w.masses = []mass{{level: "silent", hosts: everyone, since: last + stale}}
			w.deaf = true
			w.pass(38 * time.Minute)
			want := raised{}
			if over {
				w.speak(everyone...)
				w.pass(10 * time.Minute)
				w.raised(want, nil)
				return
			}
			w.pass(beat)
			w.deaf = false
			w.pass(25*time.Minute + beat)
			w.speak("oslo-2")
			w.pass(4 * time.Minute)
			for _, id := range everyone {
				want[id] = "stale down"
			}
			want["oslo-2"] = "stale down recovered"
			w.addMass(mass{customer: "acme", site: "berlin", hosts: w.at("berlin")}, last)
			w.addMass(mass{customer: "globex", site: "oslo", hosts: w.at("oslo")}, last)
			w.raised(want, nil)
		})
	}
}

// A balancer drops 30 % of the posts for three hours, and brings some of the others
// once more, 30 s later. Who did not get through for long enough is told of, and nobody else.
func TestBalancerDropsPosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Shared(t), usual)
	w.start()
	w.pass(10 * time.Minute)
	random := rand.New(rand.NewPCG(1, 2))
	w.balancer = func(*poster) int {
		switch draw := random.Float64(); {
		case draw < 0.3:
			return 0
		case draw < 0.5:
			return 2
		}
		return 1
	}
	w.silence("berlin-0")
	w.pass(3 * time.Hour)
	w.balancer = nil
	w.pass(15 * time.Minute)
	w.raisedByTheRule(nil)
	words := w.words()
	if words["berlin-0"] != "stale down" {
		t.Errorf("the dead host: %q", words["berlin-0"])
	}
	delete(words, "berlin-0")
	if len(words) == 0 || len(words) == len(w.agents)-1 {
		t.Errorf("the draw proves nothing: %v", words)
	}
	for id, of := range words {
		if of = strings.ReplaceAll(of, "stale recovered", ""); strings.TrimSpace(of) != "" {
			t.Errorf("%s: %s", id, words[id])
		}
	}
}

// The clock of the hub's machine is set by a day, or the machine is suspended. Who
// goes on reporting raises nothing. One host died 20 min before, and is found when
// the time in which the hub could have heard of it is long enough by the clock.
func TestClockIsSet(t *testing.T) {
	const day = 24 * time.Hour
	for name, scene := range map[string]struct {
		jump, back time.Duration // back after half an hour
		want       raised
	}{
		"ahead":          {day, 0, raised{"berlin-0": "stale down"}},
		"back":           {-day, 0, raised{}}, // as of yesterday it has reported
		"ahead and back": {day, -day, raised{"berlin-0": "stale"}},
		"back and ahead": {-day, day, raised{"berlin-0": "stale"}},
		"suspended":      {2 * time.Hour, 0, raised{"berlin-0": "stale down"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), usual)
			w.start()
			w.pass(10 * time.Minute)
			w.silence("berlin-0")
			w.pass(20 * time.Minute)
			w.clock.jump(scene.jump)
			w.pass(30 * time.Minute)
			w.clock.jump(scene.back)
			w.pass(36 * time.Minute)
			w.raised(scene.want, nil)
		})
	}
}

// The machine is suspended for two hours while the switch waits for ClickHouse.
// What it asked before does not count.
func TestSuspendedWhileClickHouseIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Shared(t), usual)
	w.start()
	w.pass(10 * time.Minute)
	w.silence("berlin-0", "oslo-0")
	w.pass(29*time.Minute + beat)
	w.passUnjudged(beat)
	w.settle()
	finish := w.hang("")
	w.clock.jump(2 * time.Hour)
	finish(false)
	w.speak("oslo-0")
	w.pass(29 * time.Minute)
	w.raised(raised{"berlin-0": "stale"}, nil)
}

// The fleet repository goes wrong, and the hub is restarted. The fleet stays in
// force, and who dies is found.
func TestGitGoesWrong(t *testing.T) {
	for name, scene := range map[string]struct {
		harm func(w *world, bare string)
		want string // types of the fleet's events
	}{
		"unreachable": {func(w *world, bare string) { w.must(os.Rename(bare, bare+".away")) }, "fleet_frozen"},
		"emptied": {func(w *world, bare string) {
			w.must(os.Rename(bare, bare+".away"))
			w.git(w.dir, "init", "-q", "--bare", "-b", "main", bare)
		}, "fleet_frozen"},
		"all files removed": {func(w *world, bare string) {
			w.must(os.RemoveAll(filepath.Join(w.clone, "fleet")))
			w.push("an accident")
		}, "fleet_frozen"},
		"all hosts removed": {func(w *world, bare string) {
			w.must(os.RemoveAll(filepath.Join(w.clone, "fleet", "customers", "acme", "hosts")))
			w.push("an accident")
		}, "fleet_held"},
		"rolled back": {func(w *world, bare string) { w.git(bare, "update-ref", "refs/heads/main", "refs/heads/main~1") }, "fleet_rewound"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, enginetest.Shared(t), usual)
			w.start()
			revision := w.hub.fleetStatus().Revision
			w.pass(10 * time.Minute)
			w.silence("berlin-0")
			w.pass(2 * time.Minute)
			scene.harm(w, filepath.Join(w.dir, "fleet.git"))
			w.hub.Reload()
			w.hub.eventually("the hub noticed", func() bool { return w.hub.fleetStatus().LastError != "" })
			w.pass(18 * time.Minute)
			w.away(0)
			w.pass(14 * time.Minute)
			w.raised(raised{"berlin-0": "stale"}, nil)
			if now := w.hub.fleetStatus().Revision; now != revision {
				t.Errorf("%s is in force in place of %s", now, revision)
			}
			rows := w.query("SELECT arrayStringConcat(groupUniqArray(type), ' ') FROM @events WHERE source = 'fleet'")
			if rows[0][0] != scene.want {
				t.Errorf("told of the fleet: %q, want %q", rows[0][0], scene.want)
			}
		})
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
