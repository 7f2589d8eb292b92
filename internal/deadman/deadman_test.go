package deadman_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var (
	epoch = time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)
	base  = hub.Thresholds{StaleAfter: 30 * time.Minute, DownAfter: time.Hour}
	quiet = slog.New(slog.DiscardHandler)
)

func at(d time.Duration) time.Time { return epoch.Add(d) }

// world is a switch on a real database and a real spool, with times of its own.
type world struct {
	t       *testing.T
	db      *clickhouse.DB
	conn    driver.Conn // as an analyst's
	sp      *spool.Spool
	shipper *ship.Shipper
	fleet   *hub.Fleet
	ready   time.Time
	now     time.Time
	timing  deadman.Timing
	eyes    deadman.Eyes // nil: awake from ready on
	monitor hub.Thresholds
	seen    map[string]hub.Receipt // what only the hub's memory knows
	blurred error                  // of the query for what was last seen
	told    []hub.Event
	sw      *deadman.Switch
	seq     uint64
}

func newWorld(t *testing.T, hosts ...*hub.Host) *world {
	t.Helper()
	dsn := enginetest.DSN(t)
	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(spool.Options{Dir: t.TempDir(), VolumeBytes: 1 << 20, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sp.Close() })
	plain, err := ch.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ch.Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &world{t: t, db: db, conn: conn, sp: sp, ready: epoch, seen: map[string]hub.Receipt{}}
	w.shipper = ship.New(ship.Options{Spool: sp, Store: db, Linger: time.Millisecond, Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.shipper.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	w.setFleet(hosts...)
	w.restart()
	return w
}

func (w *world) setFleet(hosts ...*hub.Host) {
	w.t.Helper()
	f, err := hub.NewFleet(hub.FleetSpec{Monitor: w.monitor, Customers: []*hub.Customer{{Name: "acme"}}, Hosts: hosts})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := clickhouse.NewRegister(w.db).Sync(w.t.Context(), f, epoch, base); err != nil {
		w.t.Fatal(err)
	}
	w.fleet = f
}

// restart gives the switch no memory but what is in ClickHouse.
func (w *world) restart() {
	w.sw = deadman.New(deadman.Options{
		Store: w.db, Records: w.db, Backlog: shipped{}, Journal: w.sp, Base: base, Logger: quiet,
		Now:   func() time.Time { return w.now },
		Fleet: func() *hub.Fleet { return w.fleet },
		Eyes:  w.sees(), Timing: w.timing,
		LastSeen: func(h string) (hub.Receipt, bool) { r, ok := w.seen[h]; return r, ok },
		Told:     func(events []hub.Event) { w.told = append(w.told, events...) },
		Describe: func(ctx context.Context, hosts, guests []string) (map[string]clickhouse.Sight, error) {
			if w.blurred != nil {
				return nil, w.blurred
			}
			return w.db.LastSeen(ctx, hosts, guests)
		},
	})
}

func (w *world) sees() deadman.Eyes {
	if w.eyes != nil {
		return w.eyes
	}
	return awake(w.ready)
}

// fleetOf changes the thresholds of the whole fleet.
func (w *world) fleetOf(t hub.Thresholds) {
	w.monitor = t
	w.setFleet(slices.Collect(w.fleet.Hosts())...)
}

// awake is a hub that could accept reports from that instant on. Its tests leave
// the Timing out: it keeps no grace.
func awake(ready time.Time) deadman.Eyes {
	return eyes{blind.New(blind.Interval{From: time.UnixMilli(0), To: ready, Cause: blind.ProcessDown})}
}

type eyes struct{ log *blind.Log }

func (e eyes) Log(time.Time) (*blind.Log, error) { return e.log, nil }
func (e eyes) Blind() []blind.Interval           { return e.log.Intervals() }

// shipped is a backlog that is empty: tests wait for the real one themselves,
// whose times are not the test's.
type shipped struct{}

func (shipped) Behind() (time.Time, bool) { return time.Time{}, false }

// report puts an accepted report of that instant into ClickHouse.
func (w *world) report(host string, d time.Duration) hub.Receipt {
	w.t.Helper()
	return w.reportOf(&hub.Report{HostID: host}, d)
}

func (w *world) reportOf(report *hub.Report, d time.Duration) hub.Receipt {
	w.t.Helper()
	w.seq++
	r := hub.Receipt{Position: hub.Position{SpoolID: hub.SpoolID{7}, Seq: w.seq}, ReceivedAt: at(d)}
	report.ReportedAt = at(d)
	var b clickhouse.Batch
	b.AddReport(clickhouse.ReportRow{Receipt: r, CustomerID: "acme", Report: report})
	for _, table := range clickhouse.Tables() {
		if err := w.db.Insert(w.t.Context(), &b, table, fmt.Sprint(table, w.seq)); err != nil {
			w.t.Fatal(err)
		}
	}
	return r
}

// tick evaluates at that instant and returns the log of events so far, from
// ClickHouse, as "stale down recovered".
func (w *world) tick(d time.Duration) string {
	w.t.Helper()
	w.now = at(d)
	if err := w.sw.Tick(w.t.Context(), at(d)); err != nil {
		w.t.Fatal(err)
	}
	for w.sp.Stats().UnshippedRecords > 0 {
		time.Sleep(time.Millisecond)
	}
	return w.events()
}

func (w *world) events() string {
	w.t.Helper()
	var list []string
	if err := w.conn.QueryRow(w.t.Context(), "SELECT groupArray(host_id || ':' || type) FROM (SELECT * FROM events ORDER BY at)").Scan(&list); err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func active(id string) *hub.Host { return &hub.Host{ID: id, Customer: "acme", Lifecycle: hub.Active} }

func TestFirstLookIsSilent(t *testing.T) {
	w := newWorld(t, active("acme-1"), active("acme-2"), active("acme-3"), active("acme-never"))
	w.report("acme-1", 0)              // down at the first look
	w.report("acme-2", 50*time.Minute) // stale
	w.report("acme-3", 89*time.Minute) // ok
	if got := w.tick(90 * time.Minute); got != "" {
		t.Errorf("the first look raised %s", got)
	}
	// What was found silent raises no recovery; a recorded stale that goes on is down.
	w.report("acme-1", 100*time.Minute)
	if got := w.tick(115 * time.Minute); got != "acme-2:host_down" {
		t.Errorf("got %s", got)
	}
}

func TestSilenceAndReturnWithARestartAtEveryStep(t *testing.T) {
	w := newWorld(t, active("acme-1"), active("acme-2"))
	want := ""
	for _, step := range []struct {
		do   func()
		at   time.Duration
		adds string
	}{
		{func() { w.report("acme-1", 0); w.report("acme-2", 0) }, time.Minute, ""},
		{func() { w.report("acme-2", 29*time.Minute) }, 30*time.Minute - time.Millisecond, ""},
		{func() {}, 30 * time.Minute, "acme-1:host_stale"},
		{func() { w.report("acme-2", 58*time.Minute) }, 61 * time.Minute, "acme-1:host_down"},
		{func() { w.report("acme-1", 62*time.Minute); w.report("acme-1", 63*time.Minute) }, 64 * time.Minute, "acme-1:host_recovered"},
		{func() { w.report("acme-2", 64*time.Minute) }, 92*time.Minute - time.Millisecond, ""},
		{func() {}, 93 * time.Minute, "acme-1:host_stale"},
	} {
		step.do()
		if step.adds != "" {
			want = strings.TrimSpace(want + " " + step.adds)
		}
		for range 2 { // again, and after a restart: nothing is repeated or forgotten
			if got := w.tick(step.at); got != want {
				t.Fatalf("at %s: %q, want %q", step.at, got, want)
			}
			w.restart()
		}
	}
	var at []time.Time
	if err := w.conn.QueryRow(t.Context(), "SELECT groupArray(at) FROM (SELECT * FROM events ORDER BY at)").Scan(&at); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(at); got != fmt.Sprint([]time.Time{epoch.Add(30 * time.Minute), epoch.Add(time.Hour), epoch.Add(62 * time.Minute), epoch.Add(93 * time.Minute)}) {
		t.Errorf("at: %s", got)
	}
}

func TestSilenceBeforeReadyDoesNotCount(t *testing.T) {
	w := newWorld(t, active("acme-1"))
	w.report("acme-1", 0)
	w.tick(time.Minute)
	w.ready = at(10 * time.Hour) // the hub was away
	w.restart()
	if got := w.tick(10*time.Hour + 29*time.Minute); got != "" {
		t.Errorf("the hub's own outage raised %s", got)
	}
	if got := w.tick(10*time.Hour + 30*time.Minute); got != "acme-1:host_stale" {
		t.Errorf("got %q", got)
	}
}

func TestPausedRetiredAndUnknownHostsRaiseNothing(t *testing.T) {
	paused, retired := active("acme-1"), active("acme-2")
	paused.Lifecycle, retired.Lifecycle = hub.Paused, hub.Retired
	w := newWorld(t, active("acme-1"), active("acme-2"), active("acme-3"))
	for _, h := range []string{"acme-1", "acme-2", "acme-3", "acme-4"} {
		w.report(h, 0)
	}
	w.tick(time.Minute)
	w.setFleet(paused, retired)
	if got := w.tick(2 * time.Hour); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestThresholdsOfTheHostHold(t *testing.T) {
	quick := active("acme-1")
	quick.Monitor = hub.Thresholds{StaleAfter: time.Minute, DownAfter: 2 * time.Minute}
	w := newWorld(t, quick, active("acme-2"))
	w.report("acme-1", 0)
	w.report("acme-2", 0)
	w.tick(time.Second)
	if got := w.tick(time.Minute); got != "acme-1:host_stale" {
		t.Errorf("got %q", got)
	}
}

func TestAReportThatLandsInBetweenWins(t *testing.T) {
	w := newWorld(t, active("acme-1"))
	first := w.report("acme-1", 0)
	w.tick(time.Minute)
	// Accepted and durable, but not in ClickHouse yet.
	w.seen["acme-1"] = hub.Receipt{Position: hub.Position{SpoolID: first.SpoolID, Seq: 99}, ReceivedAt: at(29 * time.Minute)}
	if got := w.tick(31 * time.Minute); got != "" {
		t.Errorf("got %s", got)
	}
}

// A silent host speaks twice before ClickHouse has either report: it does not
// become down, and the event names the first of the two.
func TestReturnThatClickHouseDoesNotHaveYet(t *testing.T) {
	w := newWorld(t, active("acme-1"))
	w.report("acme-1", 0)
	w.tick(time.Minute)
	if got := w.tick(30 * time.Minute); got != "acme-1:host_stale" {
		t.Fatalf("got %q", got)
	}
	w.seen["acme-1"] = hub.Receipt{Position: hub.Position{SpoolID: hub.SpoolID{7}, Seq: 3}, ReceivedAt: at(59 * time.Minute)}
	if got := w.tick(time.Hour); got != "acme-1:host_stale" {
		t.Errorf("got %q", got)
	}
	w.report("acme-1", 58*time.Minute)
	w.report("acme-1", 59*time.Minute)
	if got := w.tick(time.Hour); got != "acme-1:host_stale acme-1:host_recovered" {
		t.Errorf("got %q", got)
	}
	var recovered time.Time
	if err := w.conn.QueryRow(t.Context(), "SELECT at FROM events WHERE type = 'host_recovered'").Scan(&recovered); err != nil {
		t.Fatal(err)
	}
	if !recovered.Equal(at(58 * time.Minute)) {
		t.Errorf("recovered at %s", recovered)
	}
}

// broken fails where it is told to.
type broken struct {
	candidates, states, decided, first, announced, eyes, journal error

	answer  clickhouse.Answer
	state   hub.HostState
	appends int
	log     *blind.Log
}

func (b *broken) Candidates(context.Context, clickhouse.Question) (clickhouse.Answer, error) {
	return b.answer, b.candidates
}

func (b *broken) States(_ context.Context, _ []string, f func(hub.HostState), _ func(error)) error {
	f(b.state)
	return b.states
}

func (b *broken) DecidedSince(context.Context, time.Time) (map[string]time.Time, error) {
	return nil, b.decided
}

func (b *broken) FirstReports(context.Context, map[string]time.Time) (map[string]time.Time, error) {
	return nil, b.first
}

func (b *broken) Announcements(context.Context, time.Time) (map[string]clickhouse.Announcement, error) {
	return nil, b.announced
}

func (b *broken) Log(time.Time) (*blind.Log, error) { return b.log, b.eyes }
func (b *broken) Blind() []blind.Interval           { return b.log.Intervals() }

func (b *broken) Behind() (time.Time, bool) { return time.Time{}, false }

func (b *broken) Append(context.Context, ...spool.Record) ([]hub.Receipt, error) {
	b.appends++
	return nil, b.journal
}

// An error, a missing fleet: no verdict, and the next tick judges.
func TestP10_ErrorsAreNotAbsence(t *testing.T) {
	fleet, err := hub.NewFleet(hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}}, Hosts: []*hub.Host{active("acme-1")}})
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	spoke := clickhouse.Silence{HostID: "acme-1", Last: hub.Position{Seq: 2}, LastAt: epoch.Add(time.Second)}
	stale := hub.HostState{HostID: "acme-1", State: hub.Stale, Last: hub.Position{Seq: 1}, LastAt: epoch, DecidedAt: epoch}
	for name, b := range map[string]*broken{
		"query":         {candidates: boom},
		"states":        {states: boom},
		"decided":       {decided: boom},
		"first reports": {first: boom},
		"announcements": {announced: boom},
		"blind":         {eyes: boom},
		"journal":       {journal: boom},
		"no fleet":      {},
		"empty answer":  {},
	} {
		t.Run(name, func(t *testing.T) {
			whole := clickhouse.Answer{Reported: 1, Silences: []clickhouse.Silence{spoke}}
			if b.state = stale; name != "empty answer" {
				b.answer = whole
			}
			held := true
			var judging time.Time
			var sw *deadman.Switch
			sw = deadman.New(deadman.Options{Store: b, Backlog: b, Journal: b, Eyes: b, Base: base, Logger: quiet,
				Timing: deadman.TimingFor(base.StaleAfter, 0),
				Fleet: func() *hub.Fleet {
					judging = sw.Status().Judging
					if held && name == "no fleet" {
						return nil
					}
					return fleet
				},
				LastSeen: func(string) (hub.Receipt, bool) { return hub.Receipt{}, false },
			})
			if err := sw.Tick(t.Context(), at(time.Minute)); err == nil {
				t.Fatal("it judged")
			}
			if st := sw.Status(); st.HeldBy == "" || st.Held != 1 || len(st.Events) != 0 || !st.HeldSince.Equal(at(time.Minute)) {
				t.Errorf("status: %+v", st)
			}
			held, *b = false, broken{answer: whole, state: stale}
			if err := sw.Tick(t.Context(), at(2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if st := sw.Status(); st.HeldBy != "" || st.Events[hub.HostRecovered] != 1 || !judging.Equal(at(2*time.Minute)) || !st.Judging.IsZero() {
				t.Errorf("afterwards: %+v", st)
			}
			appends := b.appends
			if err := sw.Tick(t.Context(), at(3*time.Minute)); err != nil || b.appends != appends {
				t.Error("what was decided is decided again, before ClickHouse has it")
			}
		})
	}
}

// The clock steps back between two decisions: the newer one holds all the same,
// and nothing is raised twice, with and without the switch's own memory.
func TestClockStepsBack(t *testing.T) {
	w := newWorld(t, active("acme-1"))
	w.report("acme-1", 0)
	w.tick(time.Minute)
	w.tick(40 * time.Minute)
	w.report("acme-1", 45*time.Minute)
	const want = "acme-1:host_stale acme-1:host_recovered"
	for range 2 {
		for _, d := range []time.Duration{35 * time.Minute, 36 * time.Minute} {
			if got := w.tick(d); got != want {
				t.Fatalf("%s: %s, want %s", d, got, want)
			}
		}
		w.restart()
	}
	var state string
	if err := w.conn.QueryRow(t.Context(), "SELECT state FROM hosts").Scan(&state); err != nil || state != "ok" {
		t.Errorf("state %s, %v", state, err)
	}
}
