package app_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// world is a whole hub in virtual time: agents that post over HTTP, a fleet
// repository, and a real ClickHouse behind a wire that the test can harm. After
// every evaluation it holds that the hub judged where it could, and only there.
type world struct {
	*site
	clock    *virtual
	wire     *link
	engine   *engine.Engine
	database string

	hub    *running // nil: away
	agents []*poster
	*expected

	blocked   bool              // the switch must be held back
	hung      bool              // an evaluation waits for answers
	unshipped bool              // ClickHouse takes nothing: nobody waits for it
	balancer  func(*poster) int // how often a post arrives; nil: once
	retry     bool              // agents try again at each beat
	twice     bool              // an event may have more than one row
	masses    []mass
	also      func() // posts what others than hosts do, with the hosts
	newest    int64  // beat of the newest report
}

const reportEvery = 10 * time.Minute

// poster is a host that reports.
type poster struct {
	key    hub.Secret
	silent bool
	due    bool                    // a report waits to be posted
	again  int                     // number of a report that arrives once more at the next beat; 0: none does
	body   func(number int) string // of its reports; nil: the usual
	posts  int
	*subject
}

// place is some hosts of a customer at a site, or at none: their ids are its name,
// or the customer's, and a number.
type place struct {
	customer, site string
	hosts          int
}

// usual is a fleet of ten.
var usual = []place{{"acme", "berlin", 6}, {"globex", "oslo", 4}}

// newWorld makes a hub with a fleet whose hosts report at every full ten minutes. It
// does not run yet.
func newWorld(t *testing.T, e *engine.Engine, places []place) *world {
	t.Helper()
	w := &world{site: newSite(t), clock: newVirtual(), engine: e, expected: &expected{dark: map[int64]bool{}}}
	w.now, w.every = w.clock.Now, w.clock.Every
	w.cfg.Ingest.PollInterval = reportEvery
	w.cfg.Monitor.Interval = 5 * time.Minute
	for _, p := range places {
		for i := range p.hosts {
			w.enrollAgent(p, i)
		}
	}
	w.push("the fleet of the test")
	dsn := enginetest.DSNOf(t, e)
	address, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	w.database = strings.TrimPrefix(address.Path, "/")
	w.wire = newLink(t, func() string { return e.Endpoint().TCP })
	address.Host = w.wire.listener.Addr().String()
	w.externalAt(address.String())
	return w
}

func (w *world) enrollAgent(p place, i int) {
	id := fmt.Sprintf("%s-%d", cmp.Or(p.site, p.customer), i)
	a := &poster{subject: &subject{id: id}}
	meta := fleetfile.HostMetadata{Name: id, Customer: p.customer}
	if p.site != "" {
		meta.Labels = map[string]string{"site": p.site}
	}
	a.key = w.enrollHost(meta, nil)
	w.agents = append(w.agents, a)
	w.subjects = append(w.subjects, a.subject)
}

// start has a hub run that was away.
func (w *world) start() {
	w.t.Helper()
	w.hub = w.site.startReady()
	w.hub.eventually("the switch", func() bool { return len(w.clock.all()) == 2 })
	w.look()
	if !w.unshipped {
		w.settle()
	}
}

// look has the hub look at itself, beside its usual times.
func (w *world) look() {
	for _, j := range w.clock.all() {
		if !w.isSwitch(j) {
			j.f()
		}
	}
	w.expected.look(w.clock.Now())
}

// evaluate has the hub judge now, beside its usual times.
func (w *world) evaluate() {
	jobs := w.clock.all()
	jobs[slices.IndexFunc(jobs, w.isSwitch)].f()
}

func (w *world) isSwitch(j *job) bool { return j.every == w.cfg.Monitor.Interval }

// stop ends the hub, as a service manager does.
func (w *world) stop() {
	w.hub.stop()
	w.hub = nil
}

// away lets time go by without a hub.
func (w *world) away(d time.Duration) {
	w.t.Helper()
	w.stop()
	w.pass(d)
	w.start()
}

// pass lets time go by: agents post, the hub looks and judges.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.clock.ran + d; w.clock.ran < end; {
		w.clock.pass(beat)
		w.post()
		if w.hub == nil {
			continue
		}
		for _, j := range w.clock.due() {
			switch {
			case !w.isSwitch(j):
				j.f()
				w.expected.look(w.clock.Now())
			case !w.hung:
				w.judge(j.f)
			}
		}
	}
}

// passUnjudged is pass without evaluations.
func (w *world) passUnjudged(d time.Duration) {
	w.t.Helper()
	w.hung = true
	w.pass(d)
	w.hung = false
}

// judgeSoon has the hub evaluate until it judges, whatever is not shipped yet.
func (w *world) judgeSoon() {
	w.t.Helper()
	before := w.hub.Switch().Evaluated
	w.hub.eventually("it judges", func() bool { w.evaluate(); return w.hub.Switch().Evaluated > before })
	w.expected.judge(w.clock.Now())
}

// settle waits until ClickHouse has what was acknowledged.
func (w *world) settle() {
	w.t.Helper()
	t := w.clock.Now().Add(-5 * time.Second)
	w.hub.eventually("what was acknowledged is visible", func() bool { return w.hub.Visible(t) })
}

// judge makes an evaluation, and holds that it judges exactly if it may.
func (w *world) judge(evaluate func()) {
	w.t.Helper()
	t := w.clock.Now()
	if !w.unshipped {
		w.settle()
	}
	before := w.hub.Switch().Evaluated
	evaluate()
	after := w.hub.Switch()
	if judged := after.Evaluated > before; judged == w.blocked {
		w.t.Fatalf("%s: judged: %v; held back by %q", t, judged, after.HeldBy)
	}
	if !w.blocked {
		w.expected.judge(t)
	}
}

// hang begins an evaluation, and has the answers to questions with some words wait,
// or all. What it returns lets them come, and holds that the evaluation judges, or
// that it does not.
func (w *world) hang(about string) (finish func(judges bool)) {
	w.t.Helper()
	t, before, done := w.clock.Now(), w.hub.Switch().Evaluated, make(chan struct{})
	w.wire.hold(about)
	w.hung = true
	w.expected.look(t) // an evaluation looks first, and last
	go func() { w.evaluate(); close(done) }()
	w.hub.eventually("a question waits", w.wire.waiting)
	return func(judges bool) {
		w.t.Helper()
		w.wire.release()
		<-done
		w.hung = false
		w.expected.look(w.clock.Now())
		if after := w.hub.Switch(); (after.Evaluated > before) != judges {
			w.t.Fatalf("the slow evaluation judged: %v; held back by %q", !judges, after.HeldBy)
		}
		if judges {
			w.expected.judge(t)
		}
	}
}

// post has the agents report whose turn it is.
func (w *world) post() {
	w.t.Helper()
	now := w.clock.Now()
	var posting sync.WaitGroup
	for _, a := range w.agents {
		if a.again > 0 && w.hub != nil {
			w.postOnce(a, a.again)
			a.again = 0
		}
		a.due = !a.silent && (a.due && w.retry || w.clock.ran%reportEvery == 0)
		if !a.due {
			continue
		}
		times := 1
		if w.balancer != nil {
			times = w.balancer(a)
		}
		if w.hub == nil || times == 0 {
			continue
		}
		a.due = false
		a.posts++
		if times > 1 {
			a.again = a.posts
		}
		w.newest = max(w.newest, beatOf(now)) // received_at never goes back
		a.subject.reports = append(a.subject.reports, w.newest)
		posting.Go(func() {
			w.postOnce(a, a.posts)
		})
	}
	posting.Wait()
	if w.also != nil && w.hub != nil {
		w.also()
	}
}

func (w *world) postOnce(a *poster, number int) {
	body := reportBody(a.id, number)
	if a.body != nil {
		body = a.body(number)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+w.hub.Addr()+"/api/v1/host-report", strings.NewReader(body))
	if err != nil {
		w.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+a.key.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Errorf("%s posts: %v", a.id, err)
		return
	}
	defer res.Body.Close()
	if reply, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		w.t.Errorf("%s posts: %d %s", a.id, res.StatusCode, reply)
	}
}

// agent finds one by its id.
func (w *world) agent(id string) *poster {
	w.t.Helper()
	for _, a := range w.agents {
		if a.id == id {
			return a
		}
	}
	w.t.Fatalf("no host %s", id)
	return nil
}

// silence has hosts report no more; speak has them report again, at once.
func (w *world) silence(ids ...string) {
	for _, id := range ids {
		w.agent(id).silent = true
	}
}

func (w *world) speak(ids ...string) {
	for _, id := range ids {
		a := w.agent(id)
		a.silent = false
		w.newest = max(w.newest, beatOf(w.clock.Now()))
		a.posts++
		a.subject.reports = append(a.subject.reports, w.newest)
		w.postOnce(a, a.posts)
	}
}

// at lists the hosts of a site.
func (w *world) at(site string) (ids []string) {
	for _, a := range w.agents {
		if strings.HasPrefix(a.id, site+"-") {
			ids = append(ids, a.id)
		}
	}
	return ids
}

// query asks ClickHouse past the wire.
func (w *world) query(sql string) (rows [][]string) {
	w.t.Helper()
	out, err := w.engine.Query(context.Background(), engine.RoleHub, strings.ReplaceAll(sql, "@", w.database+"."))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Split(strings.TrimRight(line, "\n"), "\t"))
	}
	return rows
}

// event is a row of events, in short.
type event struct {
	kind   hub.EventType
	host   string // or the customer, of an event about no host
	at     time.Time
	folded string
}

func (e event) String() string {
	return fmt.Sprintf("%s of %q at %s, folded into %q", e.kind, e.host, e.at.Format(time.TimeOnly), e.folded)
}

// positions returns where each report of each host stands, in their order. It
// holds that there is a row for each report that was acknowledged, and no other.
func (w *world) positions() map[string][]hub.Position {
	w.t.Helper()
	w.hub.eventually("all is shipped", func() bool { return w.hub.Unshipped() == 0 })
	positions := map[string][]hub.Position{}
	for _, row := range w.query("SELECT host_id, spool_id, spool_seq FROM @host_reports ORDER BY received_at, spool_seq") {
		id, err := hub.ParseSpoolID(row[1])
		seq, err2 := strconv.ParseUint(row[2], 10, 64)
		if err = cmp.Or(err, err2); err != nil {
			w.t.Fatal(err)
		}
		positions[row[0]] = append(positions[row[0]], hub.Position{SpoolID: id, Seq: seq})
	}
	for _, a := range w.agents {
		if got, want := len(positions[a.id]), len(a.subject.reports); got != want {
			w.t.Fatalf("%s: %d reports were acknowledged, %d rows are there", a.id, want, got)
		}
	}
	return positions
}

// raised holds that the switch raised what it should: of each host these events,
// in short, and no others; with the ids and instants that the rule of the test
// gives them, and beside them those events of also.
func (w *world) raised(want map[string]string, also map[string]event) {
	w.t.Helper()
	if got := w.words(); !maps.Equal(got, want) {
		w.t.Fatalf("by the rule of the test there should be %v; the test wants %v", got, want)
	}
	w.raisedByTheRule(also)
}

func (w *world) raisedByTheRule(also map[string]event) {
	w.t.Helper()
	positions := w.positions()
	should := maps.Clone(also)
	if should == nil {
		should = map[string]event{}
	}
	for _, e := range w.told {
		id := hub.EventID(e.kind, e.host, positions[e.host][e.report])
		should[id] = event{e.kind, e.host, timeOf(e.at), should[id].folded}
	}
	for _, m := range w.masses {
		w.foldInto(m, should, positions)
	}
	is := map[string]event{}
	for _, row := range w.query(`SELECT event_id, type, if(host_id = '', customer_id, host_id), toUnixTimestamp64Milli(at), folded_into
		FROM @events WHERE source = 'switch' ORDER BY spool_seq`) {
		ms, err := strconv.ParseInt(row[3], 10, 64)
		if err != nil {
			w.t.Fatal(err)
		}
		e := event{hub.EventType(row[1]), row[2], time.UnixMilli(ms).UTC(), row[4]}
		if before, ok := is[row[0]]; ok && (!w.twice || before != e) {
			w.t.Errorf("raised twice: %s as %s, and as %s", row[0], before, e)
		}
		is[row[0]] = e
	}
	for _, id := range slices.Sorted(maps.Keys(is)) {
		if e, ok := should[id]; !ok {
			w.t.Errorf("raised, and should not be: %s %s", id, is[id])
		} else if e != is[id] {
			w.t.Errorf("raised %s\nwant   %s", is[id], e)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(should)) {
		if _, ok := is[id]; !ok {
			w.t.Errorf("not raised: %s %s", id, should[id])
		}
	}
}

// heldBack is the operators' event of a switch that was held back first at t.
func heldBack(t time.Time) map[string]event {
	since := t.UTC().Format("2006-01-02T15:04:05.000Z")
	return map[string]event{hub.FleetEventID(hub.HubSwitchHeld, since): {kind: hub.HubSwitchHeld, at: t.Add(10 * time.Minute)}}
}

// mass is a mass silence of hosts that fell silent at one instant.
type mass struct {
	customer, site string // both empty: of the whole fleet, told to the operators
	level          string // silent or down
	hosts          []string
	since          int64 // beat
}

// foldInto adds a mass silence to the events that should be, and has those of its
// hosts folded into it.
func (w *world) foldInto(m mass, should map[string]event, positions map[string][]hub.Position) {
	w.t.Helper()
	slices.Sort(m.hosts)
	last := func(id string) hub.Position {
		for report, beat := range w.agent(id).subject.reports {
			if next := report + 1; beat < m.since && (next == len(positions[id]) || w.agent(id).subject.reports[next] > m.since) {
				return positions[id][report]
			}
		}
		w.t.Fatalf("%s did not report before %s", id, timeOf(m.since))
		return hub.Position{}
	}
	id := hub.FleetEventID(hub.MassSilence, fmt.Sprintf("%s\n%s\n%s\n%s", m.customer, m.site, m.level,
		hub.EventID(hub.MassSilence, m.hosts[0], last(m.hosts[0]))))
	should[id] = event{kind: hub.MassSilence, host: m.customer, at: timeOf(m.since)}
	if m.customer == "" {
		return
	}
	kind := map[string]hub.EventType{"silent": hub.HostStale, "down": hub.HostDown}[m.level]
	for _, host := range m.hosts {
		own := hub.EventID(kind, host, last(host))
		e, ok := should[own]
		if !ok {
			w.t.Fatalf("%s of %s is not among those that should be", kind, host)
		}
		e.folded = id
		should[own] = e
	}
}
