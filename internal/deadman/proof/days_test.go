package proof

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/hub"
)

var days = flag.Int("days", 0, "virtual days of TestSevenDays; 0: a short form")

// fleetOfDays are hosts that report every 15 min in a world with outages of
// theirs and of the hub's, judged by the pure function alone.
type fleetOfDays struct {
	random *rand.Rand
	log    *blind.Log
	timing deadman.Timing
	hosts  []dayHost
	events map[string]hub.Event
}

type dayHost struct {
	id       string
	state    *hub.HostState
	reports  []time.Time // that the hub accepted
	judged   int         // of them, those that an evaluation knew
	next     time.Time   // report
	away     [][2]time.Time
	customer string
}

const reportEvery = 15 * time.Minute

// Whether a silence was right is known from the reports and the hub's outages:
// every one whose ready time reached the threshold in time to be judged is told
// of, and no other.
func TestSevenDays(t *testing.T) {
	hosts, length := 10_000, time.Duration(*days)*24*time.Hour
	if *days == 0 {
		hosts, length = 2_000, 24*time.Hour
	}
	w := newDays(hosts, length)
	start := time.Now()
	ticks := 0
	for now := epoch; now.Before(epoch.Add(length)); now = now.Add(time.Minute) {
		w.reportUntil(now)
		if _, dark := w.log.At(now); dark || w.random.IntN(20) == 0 {
			continue // blind, or ClickHouse did not answer
		}
		w.tick(now)
		ticks++
	}
	raised, missed, wrong := w.judge(epoch.Add(length))
	t.Logf("%d hosts, %s, %d evaluations, %d blind times: %d silences told of, in %s", hosts, length, ticks, len(w.log.Intervals()), raised, time.Since(start).Round(time.Millisecond))
	if missed > 0 || wrong > 0 || raised == 0 {
		t.Errorf("%d missed, %d wrong, of %d", missed, wrong, raised)
	}
}

func newDays(n int, length time.Duration) *fleetOfDays {
	w := &fleetOfDays{random: rand.New(rand.NewPCG(7, 5)), timing: deadman.TimingFor(30*time.Minute, reportEvery),
		events: map[string]hub.Event{}}
	minutes := int(length / time.Minute)
	var away []blind.Interval
	for range minutes / 200 { // every three hours, mostly short
		from := epoch.Add(time.Duration(w.random.IntN(minutes)) * time.Minute)
		long := []int{1, 2, 4, 6, 20, 45, 200}[w.random.IntN(7)]
		away = append(away, blind.Interval{From: from, To: from.Add(time.Duration(long) * time.Minute), Cause: blind.ProcessDown})
	}
	w.log = blind.New(away...)
	for i := range n {
		h := dayHost{id: fmt.Sprintf("h%05d", i), customer: fmt.Sprintf("c%d", i/20), next: epoch.Add(time.Duration(w.random.IntN(900)) * time.Second)}
		for range w.random.IntN(4) * minutes / (24 * 60) {
			from := epoch.Add(time.Duration(w.random.IntN(minutes)) * time.Minute)
			h.away = append(h.away, [2]time.Time{from, from.Add(time.Duration(10+w.random.IntN(240)) * time.Minute)})
		}
		w.hosts = append(w.hosts, h)
	}
	return w
}

// reportUntil has every host report that is there; one whose report is not
// accepted tries again after a minute, as agents do.
func (w *fleetOfDays) reportUntil(now time.Time) {
	for i := range w.hosts {
		h := &w.hosts[i]
		for !h.next.After(now) {
			at := h.next
			_, dark := w.log.At(at)
			switch {
			case slices.ContainsFunc(h.away, func(a [2]time.Time) bool { return !at.Before(a[0]) && at.Before(a[1]) }):
				h.next = at.Add(reportEvery)
			case dark:
				h.next = at.Add(time.Minute)
			default:
				h.reports = append(h.reports, at)
				h.next = at.Add(reportEvery)
			}
		}
	}
}

func seq(host, n int) hub.Position { return hub.Position{Seq: uint64(host)<<32 | uint64(n)} }

func (w *fleetOfDays) tick(now time.Time) {
	rule := deadman.NewRule(now, w.log, w.timing)
	cut := rule.Cut(base.StaleAfter)
	var evidence []deadman.Evidence
	for i := range w.hosts {
		h := &w.hosts[i]
		if len(h.reports) == 0 {
			continue
		}
		n := len(h.reports) - 1
		if h.state != nil && h.state.State == hub.OK && h.state.Flapping == (hub.Position{}) && h.reports[n].After(cut) {
			h.judged = n
			continue // what ClickHouse's query leaves out
		}
		e := deadman.Evidence{HostID: h.id, CustomerID: h.customer, Lifecycle: hub.Active, Thresholds: base, Last: seq(i, n), LastAt: h.reports[n], Previous: h.state}
		if h.state != nil && h.state.State != hub.OK {
			if k, _ := slices.BinarySearchFunc(h.reports, h.state.LastAt.Add(1), time.Time.Compare); k <= n {
				e.FirstAfter = h.reports[k]
			}
		}
		h.judged = n
		evidence = append(evidence, e)
	}
	out := deadman.Decide(deadman.Input{Rule: rule, Evidence: evidence, Known: func(bool) deadman.Knowledge { return deadman.Knowledge{Census: deadman.Census{{}: len(w.hosts)}} }})
	for k := range out.Hosts {
		d := &out.Hosts[k]
		i, _ := slices.BinarySearchFunc(w.hosts, d.State.HostID, func(h dayHost, id string) int { return cmp.Compare(h.id, id) })
		w.hosts[i].state = &d.State
		for _, e := range d.Events {
			w.events[e.ID] = e
		}
	}
}

// judge counts the silences that were told of, those that were not and should
// have been, and the other way round. It goes minute by minute.
func (w *fleetOfDays) judge(end time.Time) (raised, missed, wrong int) {
	dark := make([]int, int(end.Sub(epoch)/time.Minute)+1) // ready minutes before each
	for i := 1; i < len(dark); i++ {
		dark[i] = dark[i-1]
		if _, is := w.log.At(epoch.Add(time.Duration(i-1) * time.Minute)); !is {
			dark[i]++
		}
	}
	// ready is exact: intervals begin and end at whole minutes.
	ready := func(a, b time.Time) time.Duration {
		at := func(t time.Time) time.Duration {
			i := int(t.Sub(epoch) / time.Minute)
			part := t.Sub(epoch) % time.Minute
			if i+1 < len(dark) && dark[i+1] == dark[i] {
				part = 0
			}
			return time.Duration(dark[i])*time.Minute + part
		}
		return at(b) - at(a)
	}
	for i := range w.hosts {
		h := &w.hosts[i]
		flapping := false
		for n, last := range h.reports {
			until := end
			if n+1 < len(h.reports) {
				until = h.reports[n+1]
			}
			silent := ready(last, until)
			told := false
			for _, kind := range []hub.EventType{hub.HostStale, hub.HostDown, hub.HostFlapping} {
				e, ok := w.events[hub.EventID(kind, h.id, seq(i, n))]
				told = told || ok
				flapping = flapping || ok && kind == hub.HostFlapping
				if ok && (ready(last, e.At) < base.StaleAfter || e.At.After(until)) {
					wrong++
				}
			}
			switch {
			case told && silent < base.StaleAfter:
				wrong++
			case told:
				raised++
			// Two graces, and some evaluations that did not come about.
			case silent > base.StaleAfter+2*w.timing.Grace+10*time.Minute && !flapping:
				missed++
			}
			if _, ok := w.events[hub.EventID(hub.HostRecovered, h.id, seq(i, n))]; ok != (told && !flapping && n+1 < len(h.reports)) && !flapping && until.Before(end.Add(-w.timing.Grace)) {
				missed++
			}
		}
	}
	return raised, missed, wrong
}
