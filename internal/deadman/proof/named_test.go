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

// A query lags behind: what was acknowledged counts, and until it does nothing is
// said.
func TestP11_Watermark(t *testing.T) {
	once(t, func(w *world) {
		w.run(about)
		w.report("h0")
		for range 60 { // a quarter of an hour in which nothing is shipped
			w.now++
			w.look()
			w.tick(0, fault{}, true)
		}
		w.run("live 8 h0 " + most)
		if got := w.raisedOf("h0"); got != "" || len(w.events) > 1 {
			w.t.Errorf("a backlog raised %q, and %d events in all", got, len(w.events))
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
