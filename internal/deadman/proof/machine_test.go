package proof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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

// world is a hub around the real switch: its disk, its ClickHouse and its clock
// are the test's, and so is what becomes of them. Beside it runs the model.
type world struct {
	t    *rapid.T
	m    *model
	now  int // steps since the epoch
	last int // received_at of the newest record

	// What survives a crash.
	kept      map[string][]byte
	seq       uint64
	seen      map[string]hub.Receipt   // what the hub itself knows, rebuilt from the spool at each start
	heard     map[string][]hub.Receipt // the newest reports, newest first
	unshipped []record
	reports   map[string][]hub.Receipt // in ClickHouse
	states    map[string]hub.HostState
	events    map[string]hub.Event
	log       map[string][]hub.EventType // of each host and guest, each id once: as it is stored
	told      map[string][]hub.EventType // the same as it is told
	until     map[uint64]time.Time       // of the maintenance that the report of a sequence number announces
	fresh     [2][]string                // guests first heard, for each evaluator
	successes map[string][3][]int        // of each guest, as its host knows them
	absent    map[string]bool            // guests that are gone
	lists     map[string][]told          // in ClickHouse
	overdue   map[string]hub.DeadlineState
	asked     bool      // for deadlines, in this tick
	oldest    time.Time // that ClickHouse did not have then

	hosts map[string]*hub.Host
	fleet *hub.Fleet

	// The process; nil while it does not run.
	sight      *deadman.Sight
	evaluators [2]*deadman.Switch
	refusing   bool // it accepts no reports: the fleet lost its keys

	fault fault
}

type record struct {
	at   int
	put  func()
	body []byte // of a decision
}

// fault is what goes wrong with one evaluation.
type fault struct {
	query    bool
	withheld map[string]bool
	asleep   int    // steps for which it stands still while ClickHouse is asked: more than a gap
	racing   string // host that reports while ClickHouse is asked
	crash    int    // dies at this durable step; 0: does not
	after    bool   // when the step is done, else right before it
}

type crashed struct{}

var base = hub.Thresholds{StaleAfter: 30 * time.Minute, DownAfter: time.Hour}

// The design's lengths, with agents that report every 5 min.
var timing = deadman.TimingFor(base.StaleAfter, 5*time.Minute)

func newWorld(t *rapid.T) *world { return worldOf(t, rapid.IntRange(1, 6).Draw(t, "hosts")) }

// worldOf has n hosts: of more than four, two are of another customer and the
// others at one site.
func worldOf(t *rapid.T, n int) *world {
	w := &world{t: t, now: 1000, kept: map[string][]byte{}, seen: map[string]hub.Receipt{}, heard: map[string][]hub.Receipt{}, reports: map[string][]hub.Receipt{},
		states: map[string]hub.HostState{}, events: map[string]hub.Event{}, log: map[string][]hub.EventType{}, told: map[string][]hub.EventType{},
		until: map[uint64]time.Time{}, successes: map[string][3][]int{}, absent: map[string]bool{}, lists: map[string][]told{}, overdue: map[string]hub.DeadlineState{}, hosts: map[string]*hub.Host{},
		m: &model{hosts: map[string]*modelHost{}, raise: map[string]int{}, untold: map[string]bool{}}}
	for i := range n {
		h := &hub.Host{Deadlines: hub.Deadlines{30 * time.Minute, 90 * time.Minute, 0}, ID: fmt.Sprintf("h%d", i), Lifecycle: hub.Active, Customer: "acme", Labels: map[string]string{}, Monitor: base}
		if i >= 4 {
			h.Customer = "globex"
		} else if n > 4 {
			h.Labels["site"] = "berlin"
		}
		w.hosts[h.ID] = h
		w.m.hosts[h.ID] = &modelHost{id: h.ID, guests: map[string]*modelGuest{}, watched: -1, flap: -1, began: -1, worse: -1, seen: hub.Active}
	}
	w.populate(n)
	w.apply()
	w.start()
	return w
}

// populate gives the first hosts a guest, and one of them two.
func (w *world) populate(n int) {
	for i, guest := range []string{"h0/101", "h0/102", "h1/101", "h2/101"} {
		if host := w.m.hosts[guest[:2]]; host != nil && i < n {
			w.m.hosts[guest] = &modelHost{host: host, id: guest, watched: -1, flap: -1, began: -1, worse: -1, seen: hub.Active}
		}
	}
}

// span is a window of maintenance.
type span [2]int

func (s span) At(t time.Time) (from, to time.Time, open bool) {
	from, to = instant(s[0]), instant(s[1])
	return from, to, !t.Before(from) && t.Before(to)
}

func (w *world) guests() []string {
	return slices.DeleteFunc(w.m.order(), func(id string) bool { return !strings.Contains(id, "/") })
}

// hostOf is the host of a guest.
func (w *world) hostOf(id string) *hub.Host { return w.hosts[id[:2]] }

// apply puts the fleet in force as it is now.
func (w *world) apply() {
	spec := hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}, {Name: "globex"}}}
	for id, h := range w.hosts {
		copied := *h
		for _, window := range w.m.hosts[id].windows {
			copied.Maintenance = append(copied.Maintenance, hub.Window{Name: "w", Owner: hub.HostOwner(id), Schedule: span(window)})
		}
		spec.Hosts = append(spec.Hosts, &copied)
	}
	for id, m := range w.m.hosts {
		h := w.hostOf(id)
		m.customer, m.site, m.life = h.Customer, h.Labels["site"], h.Lifecycle
		m.stale, m.down = int(h.Monitor.StaleAfter/step), int(h.Monitor.DownAfter/step)
		for d, limit := range h.Deadlines {
			m.limits[d] = int(limit / step)
		}
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.fleet = fleet
}

func (w *world) clock() time.Time { return instant(w.now) }

func (w *world) start() {
	quiet := slog.New(slog.DiscardHandler)
	w.sight = deadman.NewSight(deadman.SightOptions{Timing: timing, Memory: w, Journal: w, Now: w.clock, Logger: quiet,
		Refusing: func() (blind.Cause, string) {
			if w.refusing {
				return blind.AuthBroken, "the fleet lost its keys"
			}
			return "", ""
		}})
	for i := range w.evaluators {
		recall := deadman.NewRecall()
		for _, r := range w.unshipped {
			if r.body != nil {
				recall.Add(spool.Entry{Record: spool.Record{Kind: hub.KindDecision, Body: r.body}})
			}
		}
		w.evaluators[i] = deadman.New(deadman.Options{Store: w, Deadlines: w, Backlog: w, Journal: w, Eyes: w.sight, Memory: w, Base: base, Timing: timing, Logger: quiet,
			Fleet: func() *hub.Fleet { return w.fleet }, LastSeen: func(h string) (hub.Receipt, bool) { r, ok := w.seen[h]; return r, ok },
			FirstSeen: w.firstSeen, Recall: recall, Announced: w.announced,
			Newcomers: func() (fresh []string) { fresh, w.fresh[i] = w.fresh[i], nil; return fresh }})
		w.fresh[i] = nil
		for id := range w.seen {
			if w.m.hosts[id].host != nil {
				w.fresh[i] = append(w.fresh[i], id)
			}
		}
	}
	w.look()
}

// durableStep dies where the fault says so.
func (w *world) durableStep(done func()) {
	w.fault.crash--
	if w.fault.crash == 0 && !w.fault.after {
		panic(crashed{})
	}
	done()
	if w.fault.crash == 0 {
		panic(crashed{})
	}
}

// surviving runs f, and reports false if the process died in it.
func (w *world) surviving(f func()) (alive bool) {
	defer func() {
		switch p := recover(); p.(type) {
		case nil:
		case crashed:
			w.sight, alive = nil, false
		default:
			panic(p)
		}
	}()
	f()
	return true
}

func (w *world) ReadState(name string) ([]byte, error) {
	if data, ok := w.kept[name]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (w *world) WriteState(name string, data []byte) error {
	w.durableStep(func() {
		w.kept[name] = data
		if name == "alive" && (len(w.m.looks) == 0 || w.m.looks[len(w.m.looks)-1] != w.now) {
			w.m.look(w.now)
		}
	})
	return nil
}

func (w *world) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	w.durableStep(func() {
		w.last = max(w.last, w.now)
		for _, r := range records {
			if r.Kind != hub.KindDecision {
				continue
			}
			d, err := wire.DecodeDecision(r.Body)
			if err != nil {
				w.t.Fatal(err)
			}
			body := r.Body
			w.unshipped = append(w.unshipped, record{w.last, func() { w.shipStates(d) }, body})
			for _, e := range d.Events {
				w.raised(e)
			}
		}
	})
	return nil, nil
}

func (w *world) shipStates(d hub.Decision) {
	for _, s := range d.States {
		if old, ok := w.states[s.HostID]; !ok || !s.DecidedAt.Before(old.DecidedAt) {
			w.states[s.HostID] = s
		}
	}
	for _, s := range d.Deadlines {
		key := s.GuestID + s.Deadline.String()
		if old, ok := w.overdue[key]; !ok || !s.DecidedAt.Before(old.DecidedAt) {
			w.overdue[key] = s
		}
	}
}

// raised takes an event that is durable.
func (w *world) raised(e hub.Event) {
	if old, ok := w.events[e.ID]; ok {
		if e.SuppressedBy == "" && e.HostID != "" && !old.At.Equal(e.At) && old.SuppressedBy == "" {
			w.t.Fatalf("P19: %s of %s at %s, and at %s", e.Type, e.HostID, old.At, e.At)
		}
		return
	}
	// A report may come after the clock was set back.
	if e.At.After(e.DetectedAt) && e.Type != hub.HostRecovered && e.Type != hub.ControllerRecovered && !strings.HasSuffix(string(e.Type), "_met") || e.Reason == "" {
		w.t.Fatalf("not whole: %+v", e)
	}
	w.events[e.ID] = e
	if e.HostID == "" {
		return
	}
	id := cmp.Or(e.GuestID, e.HostID)
	if name, _, ok := strings.Cut(string(e.Type), "_overdue"); ok {
		id += " " + name
	} else if name, _, ok := strings.Cut(string(e.Type), "_met"); ok {
		id += " " + name
	}
	if !strings.Contains(e.Reason, "not_told_before_by=") {
		w.log[id] = append(w.log[id], e.Type)
	}
	// What is retired is closed in the log, whether somebody was told or not.
	if n := len(w.told[id]); !e.Muted() || slices.Contains(closings, e.SuppressedBy) && n > 0 && w.told[id][n-1] != e.Type {
		w.told[id] = append(w.told[id], e.Type)
	}
}

// closings are why an episode is closed and nobody is told.
var closings = []string{"retired", "guest_gone", "deadline_removed"}

func (w *world) ship() {
	for _, r := range w.unshipped {
		r.put()
	}
	w.unshipped = nil
}

func (w *world) Behind() (oldest time.Time, doubt bool) {
	if len(w.unshipped) > 0 {
		oldest = instant(w.unshipped[0].at)
	}
	return oldest, false
}

// firstSeen is what the acceptor's index knows.
func (w *world) firstSeen(id string, after time.Time) (time.Time, bool) {
	for i, r := range w.heard[id] {
		if !r.ReceivedAt.After(after) {
			return w.heard[id][max(0, i-1)].ReceivedAt, i > 0
		}
	}
	return time.Time{}, false
}

func (w *world) Candidates(_ context.Context, q clickhouse.Question) (a clickhouse.Answer, err error) {
	if w.fault.query {
		return a, errors.New("query")
	}
	for id, reports := range w.reports {
		if w.fault.withheld[id] {
			continue
		}
		if strings.Contains(id, "/") {
			a.Controllers++
		} else {
			a.Reported++
		}
		last := slices.MaxFunc(reports, func(x, y hub.Receipt) int {
			return cmp.Or(x.ReceivedAt.Compare(y.ReceivedAt), cmp.Compare(x.Seq, y.Seq))
		})
		if q.All || !last.ReceivedAt.After(q.Cut) || slices.Contains(q.Hosts, id) {
			a.Silences = append(a.Silences, clickhouse.Silence{HostID: id, Last: last.Position, LastAt: last.ReceivedAt})
		}
	}
	w.now += w.fault.asleep
	if w.fault.racing != "" {
		w.report(w.fault.racing)
	}
	return a, nil
}

func (w *world) DecidedSince(_ context.Context, t time.Time) (map[string]time.Time, error) {
	decided := map[string]time.Time{}
	for id, s := range w.states {
		if s.DecidedAt.After(t) {
			decided[id] = s.DecidedAt
		}
	}
	return decided, nil
}

func (w *world) States(_ context.Context, hosts []string, f func(hub.HostState), _ func(error)) error {
	for id, s := range w.states {
		if hosts == nil || slices.Contains(hosts, id) {
			f(s)
		}
	}
	return nil
}

func (w *world) FirstReports(_ context.Context, after map[string]time.Time) (map[string]time.Time, error) {
	first := map[string]time.Time{}
	for id, t := range after {
		for _, r := range w.reports[id] {
			if r.ReceivedAt.After(t) && (first[id].IsZero() || r.ReceivedAt.Before(first[id])) {
				first[id] = r.ReceivedAt
			}
		}
	}
	return first, nil
}

func (w *world) Announcements(_ context.Context, since time.Time) (map[string]clickhouse.Announcement, error) {
	announced := map[string]clickhouse.Announcement{}
	for id, reports := range w.reports {
		for _, r := range reports {
			if a := announced[id]; !r.ReceivedAt.Before(since) && !r.ReceivedAt.Before(a.At) {
				announced[id] = clickhouse.Announcement{At: r.ReceivedAt, Until: w.until[r.Seq]}
			}
		}
	}
	return announced, nil
}

func (w *world) announced(host string) (at, until time.Time, ok bool) {
	r, ok := w.seen[host]
	return r.ReceivedAt, w.until[r.Seq], ok
}

func (w *world) look() {
	if w.sight != nil {
		w.surviving(w.sight.Look)
	}
}

// report is accepted if the hub runs.
func (w *world) report(id string) { w.announce(id, 0) }

// announce is a report that announces maintenance for some steps.
func (w *world) announce(id string, steps int) {
	if w.sight == nil || w.refusing || w.hostOf(id).Lifecycle == hub.Retired {
		return
	}
	w.last = max(w.last, w.now) // received_at never goes back
	w.seq++
	r := hub.Receipt{Position: hub.Position{SpoolID: hub.SpoolID{1}, Seq: w.seq}, ReceivedAt: instant(w.last)}
	until := 0
	if steps > 0 {
		until = w.last + steps
		w.until[r.Seq] = instant(until)
	}
	if _, known := w.seen[id]; !known && strings.Contains(id, "/") {
		w.fresh[0], w.fresh[1] = append(w.fresh[0], id), append(w.fresh[1], id)
	}
	w.seen[id] = r
	w.heard[id] = append([]hub.Receipt{r}, w.heard[id][:min(7, len(w.heard[id]))]...)
	listing := w.listing(id)
	w.unshipped = append(w.unshipped, record{w.last, func() {
		w.reports[id] = append(w.reports[id], r)
		if !strings.Contains(id, "/") {
			w.lists[id] = append(w.lists[id], listing)
			w.m.listed(id, listing)
		}
	}, nil})
	m := w.m.hosts[id]
	m.reports, m.positions, m.until = append(m.reports, w.last), append(m.positions, r.Position), append(m.until, until)
}

// tick has an evaluator judge, and the model if it may.
func (w *world) tick(which int, f fault, lag bool) {
	if w.sight == nil {
		return
	}
	if !lag {
		w.ship()
	}
	withheld := map[string]bool{}
	for id := range f.withheld {
		withheld[id] = true
	}
	// That a host spoke is known from a report that ClickHouse has.
	if m := w.m.hosts[f.racing]; m != nil && (len(m.reports) == 0 || m.state != "" && m.state != hub.OK && m.episode == len(m.reports)-1) {
		withheld[f.racing] = true
	}
	var held error
	w.asked = false
	before := len(w.unshipped)
	w.fault = f
	alive := w.surviving(func() { held = w.evaluators[which].Tick(context.Background(), w.clock()) })
	w.fault = fault{}
	decided := slices.ContainsFunc(w.unshipped[before:], func(record) bool { return true })
	switch mayJudge := !w.refusing && !f.query && f.asleep == 0 && w.plausible(f); {
	case alive && (held == nil) != mayJudge:
		w.t.Fatalf("held back by %v, and may judge: %v", held, mayJudge)
	case mayJudge && (alive || decided):
		w.m.tick(w.now, withheld)
		if w.asked && (alive || w.decidedDeadlines(before)) {
			w.m.judgeDeadlines(w.now, w.controllerMayTell)
		}
	}
	w.compare()
}

// decidedDeadlines reports whether a record from then on is of deadlines.
func (w *world) decidedDeadlines(from int) bool {
	return slices.ContainsFunc(w.unshipped[from:], func(r record) bool {
		d, err := wire.DecodeDecision(r.body)
		return err == nil && len(d.Deadlines) > 0
	})
}

// controllerMayTell reports whether a guest's controller is heard, and no report of it
// that ClickHouse has came at an instant or later.
func (w *world) controllerMayTell(guest string, at int) bool {
	c := w.m.hosts[guest]
	if c == nil || c.state != hub.OK || len(c.reports) == 0 {
		return false
	}
	newest := c.reports[len(c.reports)-1]
	return newest < at || !w.oldest.IsZero() && !instant(newest).Before(w.oldest)
}

func (w *world) plausible(f fault) bool {
	return w.enough(f, false) && w.enough(f, true)
}

func (w *world) enough(f fault, guests bool) bool {
	known, told := 0, 0
	for id, m := range w.m.hosts {
		if (m.host != nil) != guests {
			continue
		}
		if m.state != "" || w.expected(id, guests) && len(m.reports) > 0 && m.reports[0] < w.now {
			known++
		}
		if len(m.reports) > 0 && !f.withheld[id] {
			told++
		}
	}
	missing := known - told
	return missing <= 0 || told > 0 && (missing < 3 || missing*5 <= known)
}

// expected reports whether the hub asks for it before it was looked at.
func (w *world) expected(id string, guest bool) bool {
	return guest || w.hosts[id].Lifecycle == hub.Active
}

// compare holds the durable events against the model's.
func (w *world) compare() {
	for id, e := range w.events {
		if e.Type == hub.HubSwitchHeld || e.Type == hub.MassSilence && e.CustomerID == "" {
			continue
		}
		at, ok := w.m.raise[id]
		if !ok {
			w.t.Fatalf("raised and should not be: %+v\nat step %d\n%s", e, w.now, w.describe())
		}
		if e.Muted() != w.m.untold[id] {
			w.t.Fatalf("told, and should not be, or the other way round: %+v\nat step %d\n%s", e, w.now, w.describe())
		}
		if at >= 0 && !e.At.Equal(instant(at)) {
			w.t.Fatalf("%s of %s at %s, the model says %s", e.Type, e.HostID, e.At.Sub(epoch), instant(at).Sub(epoch))
		}
	}
	for id, at := range w.m.raise {
		if _, ok := w.events[id]; !ok {
			w.t.Fatalf("not raised: %s that held at step %d; it is step %d\n%s", w.name(id), at, w.now, w.describe())
		}
	}
	for _, logs := range []map[string][]hub.EventType{w.log, w.told} {
		for id, log := range logs {
			if err := grammar(log); err != nil {
				w.t.Fatalf("P2: %s: %v in %v\n%s", id, err, log, w.describe())
			}
		}
	}
}

func (w *world) name(eventID string) string {
	for _, h := range w.m.hosts {
		for i, p := range h.positions {
			for _, t := range hub.SwitchEvents() {
				if hub.EventID(t, h.id, p) == eventID {
					return fmt.Sprintf("%s of %s after its report %d at step %d", t, h.id, i, h.reports[i])
				}
			}
		}
	}
	return "mass silence " + eventID
}

func (w *world) describe() string {
	var b strings.Builder
	for _, id := range w.m.order() {
		m, s := w.m.hosts[id], w.states[id]
		fmt.Fprintf(&b, "%s %s/%s: %s, reports at %d; windows %d until %d; model %s (took for %s) since %d silent %v muted %q watched %d fell %d flap %d; recorded %s (took for %s) since %d silent %v muted %q decided %d flaps %v\n",
			id, m.customer, m.site, m.life, m.reports, m.windows, m.until, m.state, m.seen, m.since, m.silent, m.muted, m.watched, m.fell, m.flap,
			s.State, s.Lifecycle, s.Since.Sub(epoch)/step, s.Silent, s.MutedBy, s.DecidedAt.Sub(epoch)/step, s.Flapping != hub.Position{})
	}
	return b.String()
}

// grammar checks ((stale down? | down | flapping down?) recovered)*, cut off anywhere.
func grammar(log []hub.EventType) error {
	before := hub.HostRecovered
	for _, t := range log {
		switch {
		case strings.HasSuffix(string(t), "_overdue"):
			t = hub.HostStale
		case strings.HasSuffix(string(t), "_met"):
			t = hub.HostRecovered
		}
		t = hub.EventType(strings.Replace(string(t), "controller_", "host_", 1))
		allowed := map[hub.EventType][]hub.EventType{
			hub.HostRecovered: {hub.HostStale, hub.HostDown, hub.HostFlapping},
			hub.HostStale:     {hub.HostDown, hub.HostRecovered},
			hub.HostFlapping:  {hub.HostDown, hub.HostRecovered},
			hub.HostDown:      {hub.HostRecovered},
		}[before]
		if !slices.Contains(allowed, t) {
			return fmt.Errorf("%s after %s", t, before)
		}
		before = t
	}
	return nil
}

// lives passes time: the hub looks each step and judges each minute, and some
// hosts report.
func (w *world) lives(steps, every int, talking []string) { w.passes(steps, every, talking, false) }

// passes is lives, and with lag ClickHouse is given nothing.
func (w *world) passes(steps, every int, talking []string, lag bool) {
	for i := range steps {
		w.now++
		w.look()
		if i%every == 0 {
			for _, id := range talking {
				w.report(id)
			}
		}
		if i%4 == 0 {
			w.tick(0, fault{}, lag)
		}
	}
}

// refuses has the hub refuse everybody for a while, and then not any more.
func (w *world) refuses(steps, every int, talking []string) {
	from := min(w.m.looks[len(w.m.looks)-1], w.now+1)
	w.refusing = true
	w.lives(steps, every, talking)
	w.refusing = false
	w.now++
	w.look()
	w.m.refused(from, w.now)
}

// trace draws what happens, and makes it happen.
func trace(t *rapid.T) {
	w := newWorld(t)
	ids := w.m.order()
	some := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(ids), func(string) bool { return !rapid.Bool().Draw(t, name) })
	}
	host := func() string { return rapid.SampledFrom(ids).Draw(t, "host") }
	guest := func() string { return rapid.SampledFrom(w.guests()).Draw(t, "guest") }
	length := func() int {
		return rapid.SampledFrom([]int{1, 3, 4, 20, 21, 39, 40, 41, 79, 80, 119, 120, 121, 200, 239, 240, 300}).Draw(t, "steps")
	}
	w.lives(rapid.IntRange(1, 20).Draw(t, "beginning"), 20, ids)
	for range rapid.IntRange(1, 25).Draw(t, "actions") {
		action := rapid.SampledFrom([]string{
			"live", "live", "live", "live", "flap", "report", "duplicate", "tick", "missed ticks", "query error", "lag",
			"partial", "race", "asleep in a query", "crash", "crash in a look", "restart", "outage", "keys lost", "suspend", "clock back", "fleet", "fleet", "second", "second asleep",
			"window", "window", "announce", "success", "success", "success", "guest goes",
		}).Draw(t, "action")
		switch action {
		case "live":
			w.lives(length(), 20, some("talks"))
		case "flap":
			for range rapid.IntRange(1, 8).Draw(t, "times") {
				w.lives(124, 124, []string{host()})
			}
		case "report":
			w.report(host())
		case "duplicate": // a row of ClickHouse stands there twice; the acceptor knows a retry
			id := host()
			w.ship()
			w.reports[id] = append(w.reports[id], w.reports[id]...)
		case "tick":
			w.tick(0, fault{}, false)
		case "missed ticks":
			for range length() {
				w.now++
				w.look()
			}
		case "query error":
			w.tick(0, fault{query: true}, false)
		case "lag":
			w.ship() // what the second decided is known from ClickHouse alone
			w.passes(length(), 20, some("talks"), true)
			if rapid.Bool().Draw(t, "restart") {
				w.restart(rapid.IntRange(0, 3).Draw(t, "away"))
				w.passes(length(), rapid.SampledFrom([]int{20, 61}).Draw(t, "every"), some("talks"), true)
			}
		case "partial":
			w.partial()
		case "asleep in a query":
			w.tick(rapid.IntRange(0, 1).Draw(t, "evaluator"), fault{asleep: max(gap+1, length()), racing: host()}, false)
		case "race":
			w.tick(0, fault{racing: host()}, false)
		case "crash":
			w.tick(0, fault{crash: rapid.IntRange(1, 4).Draw(t, "step"), after: rapid.Bool().Draw(t, "after")}, false)
			w.restart(rapid.IntRange(0, 3).Draw(t, "away"))
		case "crash in a look":
			w.now++
			w.fault = fault{crash: rapid.IntRange(1, 3).Draw(t, "step"), after: rapid.Bool().Draw(t, "after")}
			w.look()
			w.fault = fault{}
			w.restart(rapid.IntRange(0, 3).Draw(t, "away"))
		case "restart":
			w.restart(rapid.IntRange(0, 3).Draw(t, "away"))
		case "outage":
			w.restart(length())
		case "keys lost":
			w.refuses(length(), 20, some("talks"))
		case "suspend":
			w.now += length()
			if rapid.Bool().Draw(t, "judged before a look") {
				w.tick(0, fault{}, false)
			}
			w.look()
		case "clock back":
			w.now = max(900, w.now-length())
			w.look()
		case "fleet":
			w.change(host())
		case "window":
			m := w.m.hosts[host()[:2]]
			from := w.now + rapid.IntRange(-40, 240).Draw(t, "from")
			m.windows = append(m.windows, [2]int{from, from + length()})
			w.apply()
		case "success":
			w.succeed(guest(), rapid.IntRange(0, 2).Draw(t, "deadline"), rapid.SampledFrom([]int{-3, 0, 0, 0, 50, 10000}).Draw(t, "ahead"))
		case "guest goes":
			id := guest()
			w.absent[id] = !w.absent[id]
		case "announce":
			w.announce(host()[:2], length())
		case "second":
			w.tick(1, fault{}, false)
		case "second asleep":
			w.lives(length(), 20, some("talks"))
			w.tick(1, fault{}, false)
		}
	}
	w.lives(8, 20, nil)
}

// partial withholds one host, or more than can be right.
func (w *world) partial() {
	var there []string
	for _, id := range w.m.order() {
		if m := w.m.hosts[id]; w.hostOf(id).Lifecycle == hub.Active && len(m.reports) > 0 && m.reports[0] < w.now {
			there = append(there, id)
		}
	}
	if len(there) == 0 {
		return
	}
	n := len(there)
	if n > 1 {
		n = rapid.SampledFrom([]int{1, min(n, 3), n}).Draw(w.t, "withheld")
	}
	f := fault{withheld: map[string]bool{}}
	for _, id := range there[:n] {
		f.withheld[id] = true
	}
	w.tick(0, f, false)
}

func (w *world) restart(away int) {
	w.sight = nil
	w.now += away
	w.start()
}

func (w *world) change(id string) {
	h := w.hostOf(id)
	switch rapid.SampledFrom([]string{"active", "active", "paused", "retired", "quick", "slow", "moved", "deadlines", "deadlines", "no deadlines"}).Draw(w.t, "change") {
	case "active":
		h.Lifecycle = hub.Active
	case "paused":
		h.Lifecycle = hub.Paused
	case "retired":
		h.Lifecycle = hub.Retired
	case "quick":
		h.Monitor = hub.Thresholds{StaleAfter: 15 * time.Minute, DownAfter: 45 * time.Minute}
	case "slow":
		h.Monitor = hub.Thresholds{StaleAfter: 50 * time.Minute, DownAfter: 100 * time.Minute}
	case "deadlines":
		h.Deadlines = hub.Deadlines{25 * time.Minute, 65 * time.Minute, 40 * time.Minute}
	case "no deadlines":
		h.Deadlines = hub.Deadlines{}
	case "moved":
		h.Customer = map[string]string{"acme": "globex", "globex": "acme"}[h.Customer]
	}
	w.apply()
}

// Whatever happens, the events are those of the model.
func TestP01_EventsAreThoseOfTheModel(t *testing.T) { rapid.Check(t, trace) }
