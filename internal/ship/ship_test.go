package ship_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

// fixture is a spool, a database and a plain connection to it.
type fixture struct {
	t    *testing.T
	dir  string
	sp   *spool.Spool
	db   *clickhouse.DB
	conn driver.Conn
	n    int // reports appended

	open      func(*spool.Options) // changes them; may be nil
	retention clickhouse.Retention
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dsn := enginetest.DSN(t)
	opts, err := ch.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return fixtureOn(t, clickhouse.Options{DSN: dsn}, opts)
}

func fixtureOn(t *testing.T, o clickhouse.Options, plain *ch.Options) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir()}
	var err error
	if f.db, err = clickhouse.Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	if _, err := f.db.Migrate(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if f.conn, err = ch.Open(plain); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.conn.Close() })
	f.openSpool()
	t.Cleanup(func() { _ = f.sp.Close() })
	return f
}

func (f *fixture) openSpool() {
	f.t.Helper()
	o := spool.Options{Dir: f.dir, VolumeBytes: 1 << 20, MaxBytes: 1 << 30, Logger: quiet}
	if f.open != nil {
		f.open(&o)
	}
	sp, err := spool.Open(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.sp = sp
}

// reopen is a restart of the hub.
func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.sp.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.openSpool()
}

// append puts n reports of two guests each into the spool.
func (f *fixture) append(n int) {
	f.t.Helper()
	for range n {
		f.n++
		if err := f.appendReport(context.Background(), f.n); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) appendReport(ctx context.Context, n int) error {
	host := fmt.Sprintf("acme-%d", n%7)
	body := fmt.Appendf(nil, `{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{"uptime_seconds":%d},`+
		`"guests":[{"vmid":101,"status":"running"},{"vmid":%d,"status":"stopped"}]}`, host, n, 1000+n)
	_, err := f.sp.Append(ctx, spool.Record{Kind: hub.KindHostReport, HostID: host, CustomerID: "acme", KeyID: "k1", Body: body})
	return err
}

// start runs a shipper until stop is called or the test ends.
func (f *fixture) start(store ship.Store) (s *ship.Shipper, stop func()) {
	f.t.Helper()
	s = ship.New(ship.Options{Spool: f.sp, Store: store, Linger: time.Millisecond, Patience: 50 * time.Millisecond, Retention: f.retention, Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	f.t.Cleanup(stop)
	return s, stop
}

// drained waits until everything is shipped.
func (f *fixture) drained(s *ship.Shipper) {
	f.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for s.Visible(time.Now()) != nil {
		if time.Now().After(deadline) {
			f.t.Fatalf("not drained: %v, %+v", s.Visible(time.Now()), s.Status())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// exactlyOnce checks that n reports are in every table once, whole, and that
// the latest state agrees with the stream.
func (f *fixture) exactlyOnce(n int) {
	f.t.Helper()
	var rows, distinct, bodies, guests, distinctGuests, wrong uint64
	if err := f.conn.QueryRow(f.t.Context(), `SELECT
		(SELECT count() FROM host_reports), (SELECT uniqExact(spool_id, spool_seq) FROM host_reports),
		(SELECT count() FROM host_report_bodies AS b INNER JOIN host_reports AS r USING (spool_id, spool_seq) WHERE SHA256(b.body) = r.body_sha256),
		(SELECT count() FROM guest_reports), (SELECT uniqExact(spool_id, spool_seq, vmid) FROM guest_reports),
		(SELECT count() FROM (SELECT host_id, max(received_at) AS at FROM host_reports GROUP BY host_id) AS s
			FULL JOIN (SELECT host_id, max(last_report_at) AS at FROM host_last GROUP BY host_id) AS l ON s.host_id = l.host_id WHERE s.at != l.at)
		+ (SELECT count() FROM (SELECT host_id, key_id, max(received_at) AS at FROM host_reports GROUP BY host_id, key_id) AS s
			FULL JOIN (SELECT host_id, key_id, max(last_used_at) AS at FROM key_last GROUP BY host_id, key_id) AS l USING (host_id, key_id) WHERE s.at != l.at)`).
		Scan(&rows, &distinct, &bodies, &guests, &distinctGuests, &wrong); err != nil {
		f.t.Fatal(err)
	}
	want := uint64(n)
	if rows != want || distinct != want || bodies != want || guests != 2*want || distinctGuests != 2*want || wrong != 0 {
		f.t.Errorf("reports %d, distinct %d, whole bodies %d (want %d each); guests %d, distinct %d (want %d); hosts and keys whose latest state is wrong: %d",
			rows, distinct, bodies, want, guests, distinctGuests, 2*want, wrong)
	}
}

func TestI02_ShipsEverythingOnce(t *testing.T) {
	f := newFixture(t)
	s, _ := f.start(f.db)
	f.append(3000)
	f.drained(s)
	f.exactlyOnce(3000)
	if st := s.Status(); st.Shipped != 3000 || st.Doubts != 0 || st.LastError != "" {
		t.Errorf("status: %+v", st)
	}
}

func TestRestartShipsTheRestOnce(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		s, stop := f.start(f.db)
		f.append(200)
		for s.Status().Cuts < 2 {
			time.Sleep(time.Millisecond)
		}
		f.append(200)
		stop() // maybe in the middle of a cut
		f.reopen()
	}
	s, _ := f.start(f.db)
	f.drained(s)
	f.exactlyOnce(2000)
}

func TestI06_LostCursorAndCutDoubleNothing(t *testing.T) {
	f := newFixture(t)
	s, stop := f.start(f.db)
	f.append(500)
	f.drained(s)
	stop()
	f.append(300) // never shipped
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cursor", "cut"} {
		matches, _ := filepath.Glob(filepath.Join(f.dir, name+"*"))
		if len(matches) == 0 {
			t.Fatalf("there is no file %s to lose", name)
		}
		for _, m := range matches {
			if err := os.Remove(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.openSpool()
	s, _ = f.start(f.db)
	if err := s.Visible(time.Time{}); err == nil {
		t.Error("visible before what an earlier run left is shipped")
	}
	f.drained(s)
	f.exactlyOnce(800)
	if st := s.Status(); st.Doubts == 0 || st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}

// faulty loses replies and runs.
type faulty struct {
	*clickhouse.DB
	lose  atomic.Int64 // of this many inserts only the last reports that it reached the server; 0: all do
	calls atomic.Int64
	fail  atomic.Bool  // every insert fails before it is sent
	boots atomic.Int64 // added to the id of the server's run
}

var errInjected = errors.New("injected: connection reset")

func (f *faulty) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	if f.fail.Load() {
		return errInjected
	}
	err := f.DB.Insert(ctx, b, table, token)
	if n := f.lose.Load(); err == nil && n > 0 && b.Rows(table) > 0 && f.calls.Add(1)%n != 0 {
		return errInjected
	}
	return err
}

func (f *faulty) Boot(ctx context.Context) (string, error) {
	id, err := f.DB.Boot(ctx)
	return fmt.Sprint(id, f.boots.Load()), err
}

func TestLostReplies(t *testing.T) {
	for name, restarted := range map[string]bool{"same run of the server": false, "restarted server": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			store := &faulty{DB: f.db}
			store.lose.Store(2)
			f.append(400)
			if restarted {
				// Every question answers with another run, as a server does that restarts all the
				// time, until all is shipped: what it has cannot be settled before.
				go func() {
					for f.sp.Stats().UnshippedRecords > 0 {
						store.boots.Add(1)
						time.Sleep(time.Millisecond)
					}
				}()
			}
			s, _ := f.start(store)
			f.drained(s)
			f.exactlyOnce(400)
			if st := s.Status(); st.Failures == 0 || st.Doubts == 0 {
				t.Errorf("no fault was met: %+v", st)
			}
		})
	}
}

// The hub dies after its insert reached the server and before the cursor moved.
func TestKilledBetweenInsertAndCursor(t *testing.T) {
	f := newFixture(t)
	store := &faulty{DB: f.db}
	store.lose.Store(1 << 40)
	s, stop := f.start(store)
	f.append(100)
	for s.Status().Failures < 3 {
		time.Sleep(time.Millisecond)
	}
	stop()
	f.reopen()
	s, _ = f.start(f.db)
	f.append(100)
	f.drained(s)
	f.exactlyOnce(200)
}

func TestI13_ClickHouseAwayKeepsEverything(t *testing.T) {
	f := newFixture(t)
	store := &faulty{DB: f.db}
	store.fail.Store(true)
	s, stop := f.start(store)
	f.append(300)
	if err := s.Visible(time.Now()); err == nil {
		t.Error("visible although nothing was shipped")
	}
	stop() // a stop while ClickHouse is away leaves the spool as it was
	if n := f.sp.Stats().UnshippedRecords; n != 300 {
		t.Errorf("%d records wait, want 300", n)
	}
	f.reopen()
	store.fail.Store(false)
	s, _ = f.start(store)
	f.drained(s)
	f.exactlyOnce(300)
}

func TestUnreadableRecordIsSetAside(t *testing.T) {
	f := newFixture(t)
	f.append(1)
	if _, err := f.sp.Append(t.Context(),
		spool.Record{Kind: hub.KindHostReport, HostID: "acme-9", CustomerID: "acme", Body: []byte(`{"no":"report"}`)},
		spool.Record{Kind: 99, Body: []byte("of a newer hub")}); err != nil {
		t.Fatal(err)
	}
	f.append(1)
	s, _ := f.start(f.db)
	f.drained(s)
	f.exactlyOnce(2)
	var reasons []string
	if err := f.conn.QueryRow(t.Context(), "SELECT groupArray(concat(toString(kind), ' ', body)) FROM (SELECT * FROM rejected_reports ORDER BY spool_seq)").Scan(&reasons); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(reasons); got != `[1 {"no":"report"} 99 of a newer hub]` {
		t.Errorf("rejected_reports: %s", got)
	}
}

func TestRejectedItemsAreCounted(t *testing.T) {
	f := newFixture(t)
	if _, err := f.sp.Append(t.Context(), spool.Record{Kind: hub.KindHostReport, HostID: "acme-9", CustomerID: "acme",
		Body: []byte(`{"host_id":"acme-9","reported_at":"2026-06-08T09:15:00Z","agent_version":"1","host":{},"guests":["private",{"vmid":1},7]}`)}); err != nil {
		t.Fatal(err)
	}
	s, _ := f.start(f.db)
	f.drained(s)
	for deadline := time.Now().Add(10 * time.Second); s.Status().Cuts == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // the cursor moves before the cut is counted
	}
	if st := s.Status(); st.LeftOut != 2 {
		t.Errorf("%d items of 2", st.LeftOut)
	}
}

// Events are partitioned by month of T, and an insert must meet one partition.
func TestDecisionsOfTwoMonths(t *testing.T) {
	f := newFixture(t)
	for _, at := range []time.Time{time.Date(2026, 6, 30, 23, 59, 59, 0, time.UTC), time.Date(2026, 7, 1, 0, 0, 59, 0, time.UTC)} {
		body, err := wire.EncodeDecision(hub.Decision{
			States: []hub.HostState{{HostID: "acme-1", State: hub.Stale, Since: at, LastAt: at, DecidedAt: at}},
			Events: []hub.Event{{ID: at.String(), Type: hub.HostStale, HostID: "acme-1", At: at, DetectedAt: at, Source: "switch"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.sp.Append(t.Context(), spool.Record{Kind: hub.KindDecision, Body: body}); err != nil {
			t.Fatal(err)
		}
		f.append(1)
	}
	s, _ := f.start(f.db)
	f.drained(s)
	f.exactlyOnce(2)
	var events, states uint64
	if err := f.conn.QueryRow(t.Context(), "SELECT (SELECT count() FROM events), (SELECT count() FROM switch_state)").Scan(&events, &states); err != nil {
		t.Fatal(err)
	}
	if events != 2 || states != 2 {
		t.Errorf("%d events, %d states, want 2 and 2", events, states)
	}
}

// A notice's verdicts and events arrive once, whatever happens to the replies;
// its events meet one partition, also beside a decision of another month.
func TestNoticesArriveOnce(t *testing.T) {
	f := newFixture(t)
	june, july := time.Date(2026, 6, 30, 23, 59, 59, 0, time.UTC), time.Date(2026, 7, 1, 0, 0, 59, 0, time.UTC)
	decision, err := wire.EncodeDecision(hub.Decision{
		Events: []hub.Event{{ID: "d", Type: hub.HostStale, HostID: "acme-1", At: june, DetectedAt: june, Source: "switch"}}})
	if err != nil {
		t.Fatal(err)
	}
	records := []spool.Record{{Kind: hub.KindDecision, Body: decision}}
	for _, at := range []time.Time{june, july, july} {
		body, err := wire.EncodeNotice(hub.Notice{
			Commits: []hub.FleetCommit{
				{Revision: "r1", Verdict: hub.CommitApplied, CommittedAt: at, DecidedAt: at, Hosts: 4, Added: 1},
				{Revision: "r2", Verdict: hub.CommitHeld, Reason: string(hub.FleetHeld), Why: "it removes 3 of 4 hosts", DecidedAt: at}},
			Events: []hub.Event{{ID: at.String(), Type: hub.FleetHeld, At: at, DetectedAt: at, Source: "fleet"}}})
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, spool.Record{Kind: hub.KindNotice, Body: body})
	}
	records = append(records, spool.Record{Kind: hub.KindNotice, Body: []byte("{}")}, spool.Record{Kind: hub.KindNotice, Body: []byte(`{"v":1}`)})
	if _, err := f.sp.Append(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	f.append(1)
	store := &faulty{DB: f.db}
	store.lose.Store(2)
	s, _ := f.start(store)
	f.drained(s)
	f.exactlyOnce(1)
	var got string
	if err := f.conn.QueryRow(t.Context(), `SELECT concat(
		(SELECT toString(groupArray((revision, toString(verdict), toString(reason), hosts, added, removed))) FROM (SELECT * FROM fleet_commits ORDER BY spool_seq, revision LIMIT 2)),
		(SELECT concat(' ', toString(count()), ' ', toString(uniqExact(spool_seq, revision))) FROM fleet_commits),
		(SELECT concat(' ', toString(count()), ' ', toString(uniqExact(spool_seq))) FROM events),
		(SELECT toString(groupArray((kind, body))) FROM rejected_reports))`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := `[('r1','applied','',4,1,0),('r2','held','fleet_held',0,0,0)] 6 6 4 4[(3,'{}')]`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What became of messages arrives once, whatever happens to the replies, and meets one
// partition; what failed is told as a class and a status.
func TestDeliveriesArriveOnce(t *testing.T) {
	f := newFixture(t)
	june, july := time.Date(2026, 6, 30, 23, 59, 59, 0, time.UTC), time.Date(2026, 7, 1, 0, 0, 59, 0, time.UTC)
	var records []spool.Record
	for i, at := range []time.Time{june, july, july} {
		body, err := wire.EncodeDispatch(hub.Dispatch{
			Routes: []hub.Route{{EventID: "e", Channels: []string{"fleet/ops"}}},
			Deliveries: []hub.Delivery{
				{MessageID: fmt.Sprint("e", i), EventIDs: []string{fmt.Sprint("e", i)}, Channel: "fleet/ops", CustomerID: "acme", Attempt: 1,
					Status: hub.DeliveryFailed, At: at, Latency: 1500 * time.Millisecond, Class: "busy", HTTPStatus: 429},
				{MessageID: fmt.Sprint("d", i), EventIDs: []string{"x", "y"}, Channel: "fleet/ops", Status: hub.DeliveryDigested, At: at}}})
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, spool.Record{Kind: hub.KindDelivery, Body: body})
	}
	records = append(records, spool.Record{Kind: hub.KindDelivery, Body: []byte("{}")}, spool.Record{Kind: hub.KindDelivery, Body: []byte(`{"v":1}`)})
	if _, err := f.sp.Append(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	f.append(1)
	store := &faulty{DB: f.db}
	store.lose.Store(2)
	s, _ := f.start(store)
	f.drained(s)
	f.exactlyOnce(1)
	var got string
	if err := f.conn.QueryRow(t.Context(), `SELECT concat(
		(SELECT toString(groupArray((message_id, event_ids, toString(status), attempt, latency_seconds, toString(error)))) FROM (SELECT * FROM notifications ORDER BY spool_seq, attempt DESC LIMIT 2)),
		(SELECT concat(' ', toString(count()), ' ', toString(uniqExact(spool_seq, message_id))) FROM notifications),
		(SELECT toString(groupArray((kind, body))) FROM rejected_reports))`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := `[('e0',['e0'],'failed',1,1.5,'busy (429)'),('d0',['x','y'],'digested',0,0,'')] 6 6[(7,'{}')]`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The engine is killed thirty times during inserts: nothing lost, nothing doubled.
func TestEngineKilledDuringInserts(t *testing.T) {
	const kills = 30
	e := enginetest.New(t)
	plain := &ch.Options{Addr: []string{e.Endpoint().TCP}, Auth: ch.Auth{Database: "hub", Username: "hub", Password: e.Password("hub").Reveal()}}
	f := fixtureOn(t, clickhouse.Options{DSN: "clickhouse://hub@engine/hub",
		Resolve: func() (string, hub.Secret) { return e.Endpoint().TCP, e.Password("hub") }}, plain)
	s, _ := f.start(f.db)

	stop := make(chan struct{})
	var agents sync.WaitGroup
	var acknowledged atomic.Int64
	for a := range 4 {
		agents.Go(func() {
			for n := a; ; n += 4 {
				select {
				case <-stop:
					return
				default:
				}
				if err := f.appendReport(context.Background(), n); err != nil {
					t.Error(err)
					return
				}
				acknowledged.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	for range kills {
		before := s.Status().Cuts
		for deadline := time.Now().Add(time.Minute); s.Status().Cuts < before+2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no cut for a minute: %+v", s.Status())
			}
		}
		time.Sleep(rand.N(50 * time.Millisecond)) // somewhere in a cut
		if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	agents.Wait()
	f.drained(s)
	_ = f.conn.Close()
	plain.Addr = []string{e.Endpoint().TCP}
	var err error
	if f.conn, err = ch.Open(plain); err != nil {
		t.Fatal(err)
	}
	f.exactlyOnce(int(acknowledged.Load()))
	st := s.Status()
	t.Logf("%d kills, %d reports, %d cuts, %d doubts, %d sent again", kills, acknowledged.Load(), st.Cuts, st.Doubts, st.Resent)
	if st.Doubts == 0 || st.Doubled != 0 || e.Restarts() < kills/2 {
		t.Errorf("the kills met nothing, or something was doubled: %+v, %d restarts", st, e.Restarts())
	}
}

// The end of a frozen cut rots while the hub is down: what is left of it is
// shipped, and what follows too.
func TestDamageAtTheEndOfAFrozenCut(t *testing.T) {
	for name, sent := range map[string]bool{"never sent": false, "sent, the reply lost": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			store := &faulty{DB: f.db}
			store.fail.Store(!sent)
			store.lose.Store(1 << 40)
			f.append(100)
			s, stop := f.start(store)
			for s.Status().Failures < 2 {
				time.Sleep(time.Millisecond)
			}
			stop()
			if err := f.sp.Close(); err != nil {
				t.Fatal(err)
			}
			volumes, _ := filepath.Glob(filepath.Join(f.dir, "*.vol"))
			if len(volumes) != 1 {
				t.Fatalf("volumes: %v", volumes)
			}
			info, err := os.Stat(volumes[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(volumes[0], info.Size()-10); err != nil { // costs the last report
				t.Fatal(err)
			}
			f.openSpool()
			f.append(50) // their numbers go on where the readable ones ended
			s, _ = f.start(f.db)
			f.drained(s)
			wantBodies := uint64(149)
			if sent { // the bodies alone, with that of the report that is lost now
				wantBodies = 150
			}
			var reports, bodies uint64
			if err := f.conn.QueryRow(t.Context(), "SELECT (SELECT count() FROM host_reports), (SELECT count() FROM host_report_bodies)").Scan(&reports, &bodies); err != nil {
				t.Fatal(err)
			}
			if reports != 149 || bodies != wantBodies {
				t.Errorf("%d reports, %d bodies, want 149 and %d", reports, bodies, wantBodies)
			}
			if st := s.Status(); st.Doubled != 0 {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

// powerless is a server that a power cut took between two tables of a cut: the
// part of the first one is there, its entry in the log of tokens is not.
type powerless struct {
	*clickhouse.DB
	after, refuse string // tables
	run           atomic.Int64
}

func (p *powerless) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	if table == p.refuse {
		return errInjected
	}
	err := p.DB.Insert(ctx, b, table, fmt.Sprint(token, "@", p.run.Load()))
	if err == nil && table == p.after {
		p.run.CompareAndSwap(0, 1)
	}
	return err
}

func (p *powerless) Boot(ctx context.Context) (string, error) {
	return fmt.Sprint("run ", p.run.Load()), ctx.Err()
}

// forgetful is a server whose log of tokens has lost what an earlier run of the
// hub sent: ten thousand other blocks came since, or the spool is an old copy.
type forgetful struct {
	*clickhouse.DB
	run  atomic.Int64
	lose atomic.Bool // replies
}

func (g *forgetful) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	err := g.DB.Insert(ctx, b, table, fmt.Sprint(token, "@", g.run.Load()))
	if err == nil && g.lose.Load() {
		return errInjected
	}
	return err
}

func TestI10_WhatAnEarlierRunSentIsLookedForFirst(t *testing.T) {
	f := newFixture(t)
	store := &forgetful{DB: f.db}
	store.lose.Store(true)
	f.append(100)
	s, stop := f.start(store)
	for s.Status().Failures < 2 {
		time.Sleep(time.Millisecond)
	}
	stop()
	f.reopen()
	store.run.Store(1)
	store.lose.Store(false)
	s, _ = f.start(store)
	f.drained(s)
	f.exactlyOnce(100)
	if st := s.Status(); st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}

// Each table's doubt is about the run of the server that it was sent to, not
// about the one that the cut was sent to last.
func TestServerAndHubRestartWithinOneCut(t *testing.T) {
	f := newFixture(t)
	store := &powerless{DB: f.db, after: "host_report_bodies", refuse: "guest_reports"}
	f.append(100)
	s, stop := f.start(store)
	for s.Status().Failures < 2 {
		time.Sleep(time.Millisecond)
	}
	stop()
	f.reopen()
	store.refuse = ""
	s, _ = f.start(store)
	f.drained(s)
	f.exactlyOnce(100)
	if st := s.Status(); st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}
