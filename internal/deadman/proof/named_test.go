package proof

import (
	"fmt"
	"strings"
	"testing"

	"felhom.eu/hub/internal/hub"
)

// raisedOf are the events of a host, as "stale recovered".
func (w *world) raisedOf(host string) string {
	var words []string
	for _, t := range w.log[host] {
		words = append(words, strings.TrimPrefix(string(t), "host_"))
	}
	return strings.Join(words, " ")
}

const most = "h1 h2 h3 h4 h5"

// h0 is about to be stale: with the next step it is due.
const about = "live 1 h0 " + most + "\nlive 116 " + most

// The process dies at every durable step of an evaluation, before and after it:
// state and event are there together, once, whatever is tried again.
func TestP04_StateAndEventAreOneWrite(t *testing.T) {
	died := 0
	for point := 1; point <= 4; point++ {
		for _, after := range []bool{false, true} {
			once(t, func(w *world) {
				w.run(about)
				w.now += 4
				if w.tick(0, fault{crash: point, after: after}, false); w.sight == nil {
					died++
					w.restart(1)
				}
				w.ship()
				if state, told := w.states["h0"].State == hub.Stale, w.raisedOf("h0") == "stale"; state != told {
					w.t.Errorf("died at %d, after: %v: recorded %v, told %v", point, after, state, told)
				}
				w.run("live 8 " + most)
				if got := w.raisedOf("h0"); got != "stale" {
					w.t.Errorf("died at %d, after: %v: %q", point, after, got)
				}
			})
		}
	}
	if died < 4 {
		t.Errorf("it died only %d times", died)
	}
}

func TestP06_AReportThatLandsInBetweenWins(t *testing.T) {
	once(t, func(w *world) {
		w.run(about)
		w.now += 4
		w.tick(0, fault{racing: "h0"}, false)
		w.run("live 40 h0 " + most)
		if got := w.raisedOf("h0"); got != "" {
			w.t.Errorf("it spoke while ClickHouse was asked, and raised %q", got)
		}
	})
}

// ClickHouse is given nothing for hours: what was acknowledged counts all the same,
// also over a restart, and every step is held against the model. Before it is given
// anything the log is complete.
func TestP11_Watermark(t *testing.T) {
	for _, restart := range []bool{false, true} {
		once(t, func(w *world) {
			w.run(about)
			lags := func(steps int, talking string) {
				if restart {
					w.restart(1)
				}
				held := w.evaluators[0].Status().Held
				w.passes(steps, 20, strings.Fields(talking), true)
				if n := w.evaluators[0].Status().Held; n > held {
					w.t.Errorf("held back %d times", n-held)
				}
			}
			w.report("h0")
			lags(60, "h0 h2 h3 h4 h5") // h1 falls silent
			lags(100, "h0 h2 h3 h4 h5")
			lags(121, "h0 h2 h3 h4 h5")
			first := w.m.hosts["h1"].reports
			w.report("h1") // and is back; of its next reports ClickHouse has none either
			back := w.now
			lags(60, "h0 "+most)
			lags(250, "h0 h2 h3 h4 h5") // and falls silent again
			for host, want := range map[string]string{"h0": "", "h1": "stale down recovered stale down"} {
				if got := w.raisedOf(host); got != want {
					w.t.Errorf("restarts %v: of %s %q, want %q", restart, host, got, want)
				}
			}
			recovered := w.events[hub.EventID(hub.HostRecovered, "h1", w.m.hosts["h1"].positions[len(first)-1])]
			if !recovered.At.Equal(instant(back)) {
				w.t.Errorf("back at %s, not at %s", recovered.At, instant(back))
			}
			if len(w.reports["h1"])+2 >= len(w.m.hosts["h1"].reports) {
				w.t.Error("ClickHouse was not behind")
			}
			before := len(w.events)
			w.run("live 8 h0 h2 h3 h4 h5")
			if len(w.events) != before {
				w.t.Errorf("what was shipped raised %d events", len(w.events)-before)
			}
		})
	}
}

// A host whose first report still waits is looked at, and is silent when it is.
func TestP11_ANewcomerThatWaits(t *testing.T) {
	once(t, func(w *world) {
		w.run("live 20 " + most)
		w.passes(20, 10, []string{"h0"}, true)
		if w.passes(260, 20, strings.Fields(most), true); w.raisedOf("h0") != "stale down" || w.evaluators[0].Status().HeldBy != "" {
			w.t.Errorf("%q, held by %q", w.raisedOf("h0"), w.evaluators[0].Status().HeldBy)
		}
	})
}

func TestP12_AnImplausibleAnswerIsAnError(t *testing.T) {
	for missing, judged := range map[int]bool{1: true, 3: false, 6: false} {
		once(t, func(w *world) {
			w.run("live 20 h0 " + most)
			f := fault{withheld: map[string]bool{}}
			for i := range missing {
				f.withheld[fmt.Sprintf("h%d", i)] = true
			}
			before := w.evaluators[0].Status().Evaluated
			w.now++
			w.tick(0, f, false) // which also holds it against the model
			if got := w.evaluators[0].Status().Evaluated > before; got != judged {
				w.t.Errorf("%d of 6 hosts withheld: judged %v", missing, got)
			}
		})
	}
}

// The rows of ClickHouse come twice, and late: a report never counts as newer than
// it was received.
func TestP21_ReplaysAndBackfill(t *testing.T) {
	once(t, func(w *world) {
		w.run(about)
		w.ship()
		w.reports["h0"] = append(w.reports["h0"], w.reports["h0"]...)
		w.run("live 8 " + most)
		w.reports["h0"] = append(w.reports["h0"], w.reports["h0"][0])
		w.run("live 200 " + most)
		if got := w.raisedOf("h0"); got != "stale down" {
			w.t.Errorf("got %q", got)
		}
	})
}

// A fleet that lost its keys is the hub's own outage, however long it lasts: its
// hosts are refused, are heard again within their grace, and nothing is said.
func TestP07_LostKeysAreSilent(t *testing.T) {
	for _, steps := range []int{1, 19, 21, 119, 241, 2000} {
		once(t, func(w *world) {
			all := strings.Fields("h0 " + most)
			w.run("live 60 h0 " + most)
			w.refuses(steps, 20, all)
			w.lives(19, 30, nil)
			w.run("live 60 h0 " + most)
			if len(w.log) > 0 { // the operators are told that the switch is held
				w.t.Errorf("refused for %d steps: %v", steps, w.log)
			}
			w.run("live 400 " + most)
			if got := w.raisedOf("h0"); got != "stale down" {
				w.t.Errorf("and then silence is noticed: %q", got)
			}
		})
	}
}
