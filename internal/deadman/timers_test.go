package deadman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

const (
	agentEvery  = 15 * time.Minute
	tickEvery   = time.Minute
	queryTakes  = 400 * time.Millisecond
	shipEvery   = time.Second
	virtualDays = 2
)

// virtual is a hub in a bubble of virtual time: the switch and the sight run by
// their own tickers, its agents, its spool and its ClickHouse by theirs.
type virtual struct {
	fleet  *hub.Fleet
	timing Timing

	mu       sync.Mutex
	running  bool
	broken   bool // ClickHouse does not answer
	kept     map[string][]byte
	seq      uint64
	seen     map[string]hub.Receipt
	accepted map[string][]hub.Receipt
	waiting  []spool.Entry
	rows     map[string]clickhouse.Silence // in ClickHouse
	states   map[string]hub.HostState      // in ClickHouse
	spoken   map[string][]hub.Receipt      // in ClickHouse
	raised   []written
}

// written is an event and when it was out.
type written struct {
	hub.Event
	out time.Time
}

func (v *virtual) ReadState(name string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if data, ok := v.kept[name]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (v *virtual) WriteState(name string, data []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept[name] = data
	return nil
}

func (v *virtual) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range records {
		v.append(r)
		if r.Kind != hub.KindDecision {
			continue
		}
		d, err := wire.DecodeDecision(r.Body)
		if err != nil {
			return nil, err
		}
		for _, e := range d.Events {
			v.raised = append(v.raised, written{e, time.Now()})
		}
	}
	return nil, nil
}

func (v *virtual) append(r spool.Record) hub.Receipt {
	v.seq++
	receipt := hub.Receipt{Position: position(v.seq), ReceivedAt: time.Now().UTC().Truncate(time.Millisecond)}
	v.waiting = append(v.waiting, spool.Entry{Record: r, Receipt: receipt})
	return receipt
}

// ship brings what waits to ClickHouse, in order.
func (v *virtual) ship() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken || !v.running {
		return
	}
	for _, e := range v.waiting {
		switch e.Kind {
		case hub.KindHostReport:
			v.rows[e.HostID] = clickhouse.Silence{HostID: e.HostID, Last: e.Position, LastAt: e.ReceivedAt}
			v.spoken[e.HostID] = append(v.spoken[e.HostID], e.Receipt)
		case hub.KindDecision:
			d, _ := wire.DecodeDecision(e.Body)
			for _, s := range d.States {
				v.states[s.HostID] = s
			}
		}
	}
	v.waiting = nil
}

func (v *virtual) Behind() (oldest time.Time, doubt bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.waiting) > 0 {
		oldest = v.waiting[0].ReceivedAt
	}
	return oldest, false
}

// query takes its time, and fails while ClickHouse does not answer.
func (v *virtual) query(ctx context.Context, answer func()) error {
	select {
	case <-time.After(queryTakes):
	case <-ctx.Done():
		return ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken {
		return errors.New("ClickHouse does not answer")
	}
	answer()
	return nil
}

func (v *virtual) Candidates(ctx context.Context, q clickhouse.Question) (a clickhouse.Answer, err error) {
	err = v.query(ctx, func() {
		a.Reported = len(v.rows)
		for host, s := range v.rows {
			if q.All || !s.LastAt.After(q.Cut) || slices.Contains(q.Hosts, host) {
				a.Silences = append(a.Silences, s)
			}
		}
	})
	return a, err
}

func (v *virtual) States(ctx context.Context, hosts []string, f func(hub.HostState), _ func(error)) error {
	return v.query(ctx, func() {
		for host, s := range v.states {
			if len(hosts) == 0 || slices.Contains(hosts, host) {
				f(s)
			}
		}
	})
}

func (v *virtual) DecidedSince(ctx context.Context, t time.Time) (map[string]time.Time, error) {
	decided := map[string]time.Time{}
	return decided, v.query(ctx, func() {
		for host, s := range v.states {
			if s.DecidedAt.After(t) {
				decided[host] = s.DecidedAt
			}
		}
	})
}

func (v *virtual) FirstReports(ctx context.Context, after map[string]time.Time) (map[string]time.Time, error) {
	first := map[string]time.Time{}
	return first, v.query(ctx, func() {
		for host, t := range after {
			if i := slices.IndexFunc(v.spoken[host], func(r hub.Receipt) bool { return r.ReceivedAt.After(t) }); i >= 0 {
				first[host] = v.spoken[host][i].ReceivedAt
			}
		}
	})
}

func (v *virtual) Announcements(ctx context.Context, _ time.Time) (map[string]clickhouse.Announcement, error) {
	return nil, v.query(ctx, func() {})
}

// run is one process of the hub, until ctx ends.
func (v *virtual) run(ctx context.Context) {
	recall := NewRecall()
	v.mu.Lock()
	v.running = true
	for _, e := range v.waiting {
		recall.Add(e)
	}
	v.mu.Unlock()
	quiet := slog.New(slog.DiscardHandler)
	sight := NewSight(SightOptions{Timing: v.timing, Memory: v, Journal: v, Logger: quiet, Refusing: func() (blind.Cause, string) { return "", "" }})
	sw := New(Options{Store: v, Backlog: v, Journal: v, Eyes: sight, Memory: v, Base: thresholds, Timing: v.timing, Interval: tickEvery, Logger: quiet, Recall: recall,
		Fleet: func() *hub.Fleet { return v.fleet },
		LastSeen: func(host string) (hub.Receipt, bool) {
			v.mu.Lock()
			defer v.mu.Unlock()
			r, ok := v.seen[host]
			return r, ok
		}})
	var working sync.WaitGroup
	working.Go(func() { sight.Run(ctx) })
	working.Go(func() { sw.Run(ctx) })
	working.Wait()
	v.mu.Lock()
	v.running = false
	v.mu.Unlock()
}

// agent reports as agents do, but for the times in which it is away: and tries again
// soon where nobody takes its report.
func (v *virtual) agent(ctx context.Context, host string, phase time.Duration, away []blind.Interval) {
	for wait := phase; sleeping(ctx, wait); {
		wait = agentEvery
		if slices.ContainsFunc(away, func(i blind.Interval) bool { return !time.Now().Before(i.From) && time.Now().Before(i.To) }) {
			continue
		}
		v.mu.Lock()
		if v.running {
			r := v.append(spool.Record{Kind: hub.KindHostReport, HostID: host})
			v.seen[host], v.accepted[host] = r, append(v.accepted[host], r)
		} else {
			wait = 30 * time.Second
		}
		v.mu.Unlock()
	}
}

func sleeping(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// A hundred hosts for two days, by the real timers: now and then one is away, twice
// the hub is, and once ClickHouse. Every silence is told of, as soon as it may be, and
// nothing else is.
func TestP25_ByTheRealTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now().UTC()
		hour := func(n float64) time.Time { return began.Add(time.Duration(n * float64(time.Hour))) }
		random := rand.New(rand.NewPCG(11, 12))
		v := &virtual{timing: TimingFor(30*time.Minute, agentEvery), kept: map[string][]byte{}, seen: map[string]hub.Receipt{},
			accepted: map[string][]hub.Receipt{}, rows: map[string]clickhouse.Silence{}, states: map[string]hub.HostState{}, spoken: map[string][]hub.Receipt{}}
		spec := hub.FleetSpec{}
		for i := range 100 {
			customer := fmt.Sprintf("c%02d", i/10)
			if i%10 == 0 {
				spec.Customers = append(spec.Customers, &hub.Customer{Name: customer})
			}
			spec.Hosts = append(spec.Hosts, &hub.Host{ID: fmt.Sprintf("h%02d", i), Customer: customer, Lifecycle: hub.Active})
		}
		fleet, err := hub.NewFleet(spec)
		if err != nil {
			t.Fatal(err)
		}
		v.fleet = fleet

		ctx, stop := context.WithCancel(context.Background())
		var working sync.WaitGroup
		for h := range fleet.Hosts() {
			var away []blind.Interval
			for range random.IntN(4) {
				from := hour(random.Float64() * 24 * virtualDays)
				away = append(away, blind.Interval{From: from, To: from.Add(time.Duration(10+random.IntN(240)) * time.Minute)})
			}
			phase := time.Duration(random.IntN(int(agentEvery)))
			working.Go(func() { v.agent(ctx, h.ID, phase, away) })
		}
		working.Go(func() {
			for sleeping(ctx, shipEvery) {
				v.ship()
			}
		})
		// The hub stops for 3 min in the seventh hour, and for 50 in the twentieth.
		for _, until := range []struct{ stop, again float64 }{{7, 7.05}, {20, 20 + 50./60}, {24 * virtualDays, 24 * virtualDays}} {
			process, kill := context.WithDeadline(ctx, hour(until.stop))
			v.run(process)
			kill()
			time.Sleep(time.Until(hour(until.again)))
			if until.stop == 20 {
				working.Go(func() { // ClickHouse, for half an hour of the thirtieth
					time.Sleep(time.Until(hour(30)))
					v.setBroken(true)
					time.Sleep(30 * time.Minute)
					v.setBroken(false)
				})
			}
		}
		stop()
		working.Wait()
		v.judge(t, hour(24*virtualDays), blind.Interval{From: hour(30), To: hour(30.5)})
	})
}

func (v *virtual) setBroken(is bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken = is
}

// judge compares what was raised with what the reports and the blind log say. While
// ClickHouse was away nothing could be out.
func (v *virtual) judge(t *testing.T, end time.Time, away blind.Interval) {
	t.Helper()
	sight := NewSight(SightOptions{Timing: v.timing, Memory: v, Journal: v, Logger: slog.New(slog.DiscardHandler), Refusing: func() (blind.Cause, string) { return "", "" }})
	sight.Look()
	log := sight.Blind()
	if len(log) != 3 || log[1].Cause != blind.ProcessDown || log[1].To.Sub(log[1].From) < 3*time.Minute || log[2].To.Sub(log[2].From) < 50*time.Minute {
		t.Fatalf("blind times: %+v", log)
	}
	raised := map[string]written{}
	count, slowest := map[hub.EventType]int{}, time.Duration(0)
	for _, w := range v.raised {
		count[w.Type]++
		if _, twice := raised[w.ID]; twice || w.HostID == "" && w.Type != hub.HubSwitchHeld {
			t.Errorf("twice, or of nobody: %+v", w)
		}
		raised[w.ID] = w
		if w.At.Before(away.From.Add(-tickEvery)) || w.At.After(away.To) {
			slowest = max(slowest, w.out.Sub(w.At))
			if late := w.out.Sub(w.At); late > tickEvery+30*time.Second {
				t.Errorf("P25: %s of %s at %s was out only %s later", w.Type, w.HostID, w.At, late)
			}
		}
	}
	told := 0
	for host, reports := range v.accepted {
		for i, r := range reports {
			until := end
			if i+1 < len(reports) {
				until = reports[i+1].ReceivedAt
			}
			spoke := false
			for kind, d := range map[hub.EventType]time.Duration{hub.HostStale: thresholds.StaleAfter, hub.HostDown: thresholds.DownAfter} {
				e, ok := raised[hub.EventID(kind, host, r.Position)]
				judged := until
				if ok { // an outage that came later would have held it back
					judged = e.DetectedAt
				}
				at, due := NewRule(judged, blind.New(log...), v.timing).due(silence{lastAt: r.ReceivedAt}, d)
				delete(raised, hub.EventID(kind, host, r.Position))
				spoke = spoke || ok
				switch {
				case ok && (!due || !e.At.Equal(at)):
					t.Errorf("false: %s of %s at %s; due %v at %s", kind, host, e.At, due, at)
				case !ok && due && until.Sub(at) > tickEvery+30*time.Second && (at.After(away.To) || until.Before(away.From)):
					t.Errorf("missed: %s of %s at %s, which went on until %s", kind, host, at, until)
				}
			}
			e, ok := raised[hub.EventID(hub.HostRecovered, host, r.Position)]
			delete(raised, hub.EventID(hub.HostRecovered, host, r.Position))
			if ok && (!spoke || !e.At.Equal(until)) || !ok && spoke && end.Sub(until) > 2*tickEvery {
				t.Errorf("recovered %v of %s after %s, told %v, back at %s", ok, host, r.ReceivedAt, spoke, until)
			}
			if spoke {
				told++
			}
		}
	}
	delete(raised, hub.FleetEventID(hub.HubSwitchHeld, stamp(v.heldSince())))
	if len(raised) > 0 || told < 50 || count[hub.HubSwitchHeld] != 1 {
		t.Errorf("%d silences; nobody can tell what these are: %+v", told, raised)
	}
	t.Logf("%d silences told of: %v; the slowest event was out after %s", told, count, slowest)
}

// heldSince is when the switch was first held back for long.
func (v *virtual) heldSince() (since time.Time) {
	for _, w := range v.raised {
		if w.Type == hub.HubSwitchHeld {
			since = w.At.Add(-v.timing.Hold)
		}
	}
	return since
}
