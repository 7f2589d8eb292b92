package ship_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/logtest"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// counting counts the blocks that are sent.
type counting struct {
	*faulty
	inserts atomic.Int64
}

func (c *counting) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	if b.Rows(table) > 0 && !clickhouse.Repeatable(table) {
		c.inserts.Add(1)
	}
	return c.faulty.Insert(ctx, b, table, token)
}

// appendKinds puts records of every kind into the spool: of an accepted report
// with and without guests and with parts that are left out, of a report and a kind
// that become no rows, of a decision without events, of a notice, and of controllers'
// reports with and without a guest and an event of theirs, and of what became of messages.
func (f *fixture) appendKinds() {
	f.t.Helper()
	at := time.Date(2026, 6, 8, 9, 15, 0, 0, time.UTC)
	decision, err := wire.EncodeDecision(hub.Decision{
		States: []hub.HostState{{HostID: "acme-1", State: hub.Stale, Since: at, LastAt: at, DecidedAt: at}}})
	if err != nil {
		f.t.Fatal(err)
	}
	notice, err := wire.EncodeNotice(hub.Notice{
		Commits: []hub.FleetCommit{{Revision: "r1", Verdict: hub.CommitApplied, CommittedAt: at, DecidedAt: at}},
		Events:  []hub.Event{{ID: fmt.Sprint("e", f.n), Type: hub.FleetHeld, At: at, DetectedAt: at, Source: "fleet"}}})
	if err != nil {
		f.t.Fatal(err)
	}
	report := func(host, guests string) spool.Record {
		return spool.Record{Kind: hub.KindHostReport, HostID: host, CustomerID: "acme", KeyID: "k1", Body: fmt.Appendf(nil,
			`{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"1","host":{},"guests":%s}`, host, guests)}
	}
	controller := func(guest, body string) spool.Record {
		return spool.Record{Kind: hub.KindControllerReport, HostID: guest, CustomerID: "acme", KeyID: "customer/acme/c1", Body: fmt.Appendf(nil,
			`{"customer_id":"acme","reported_at":"2026-06-08T09:15:00Z","controller_version":"1",%s}`, body)}
	}
	if _, err := f.sp.Append(context.Background(),
		controller("acme-9/101", `"guest_id":"acme-9/101","apps":[{"name":"web"},{"name":"mail"},{}],"cpu_percent":101`), controller("", `"apps":[]`),
		spool.Record{Kind: hub.KindControllerReport, HostID: "acme-9/102", CustomerID: "acme", Body: []byte(`{"no":"report"}`)},
		spool.Record{Kind: hub.KindControllerEvent, HostID: "acme-9/101", CustomerID: "acme", KeyID: "customer/acme/c1", Body: []byte(
			`{"type":"backup_failed","severity":"warning","message":"no space left","guest_id":"acme-9/101"}`)},
		report("acme-8", "[]"), report("acme-9", `["private",{"vmid":1},7]`),
		spool.Record{Kind: hub.KindHostReport, HostID: "acme-9", CustomerID: "acme", Body: []byte(`{"no":"report"}`)},
		spool.Record{Kind: 99, Body: []byte("of a newer hub")},
		spool.Record{Kind: hub.KindDecision, Body: decision},
		spool.Record{Kind: hub.KindDelivery, Body: []byte(`{"v":1,"routes":[{"event_id":"e","channels":["fleet/ops"]}]}`)},
		spool.Record{Kind: hub.KindDelivery, Body: []byte(`{"v":1,"at":1780910101000,"deliveries":[{"message_id":"e","channel":"fleet/ops","attempt":1,"status":"sent"}]}`)},
		spool.Record{Kind: hub.KindNotice, Body: notice}); err != nil {
		f.t.Fatal(err)
	}
}

// contents is what all tables hold: equal only if every row is there as often as
// before, and the latest state says the same.
func (f *fixture) contents() string {
	f.t.Helper()
	var parts []string
	for _, table := range clickhouse.Counted() {
		parts = append(parts, fmt.Sprintf("SELECT '%s' AS t, count() AS n, toString(sum(cityHash64(formatRow('TSV', *)))) AS h FROM %[1]s", table))
	}
	parts = append(parts,
		"SELECT 'host_last', count(), toString(sum(cityHash64(formatRow('TSV', *)))) FROM host_last FINAL",
		"SELECT 'guest_last', count(), toString(sum(cityHash64(formatRow('TSV', *)))) FROM guest_last FINAL",
		"SELECT 'controller_last', count(), toString(sum(cityHash64(formatRow('TSV', *)))) FROM controller_last FINAL",
		"SELECT 'key_last', count(), toString(sum(cityHash64(*))) FROM (SELECT host_id, key_id, max(last_used_at) FROM key_last GROUP BY host_id, key_id)")
	var text string
	if err := f.conn.QueryRow(f.t.Context(), "SELECT arrayStringConcat(arraySort(groupArray(concat(t, ' ', toString(n), ' ', h))), '\n') FROM ("+
		strings.Join(parts, " UNION ALL ")+")").Scan(&text); err != nil {
		f.t.Fatal(err)
	}
	return text
}

// lose runs statements behind the hub's back.
func (f *fixture) lose(statements ...string) {
	f.t.Helper()
	for _, sql := range statements {
		if err := f.conn.Exec(ch.Context(f.t.Context(), ch.WithSettings(ch.Settings{"mutations_sync": 2})), sql); err != nil {
			f.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// everything loses all rows of all tables.
func everything() []string {
	var statements []string
	for _, table := range append(clickhouse.Tables(), "host_last", "guest_last", "controller_last", "key_last") {
		statements = append(statements, "TRUNCATE TABLE "+table)
	}
	return statements
}

// rechecked waits until everything was looked for n times.
func (f *fixture) rechecked(s *ship.Shipper, n uint64) {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); s.Status().Rechecks < n || s.Status().Rechecking; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("not looked through: %+v", s.Status())
		}
	}
}

// shipVolumes ships reports and records of every kind in several runs of the hub,
// each with a volume of its own, and returns what ClickHouse has then.
func (f *fixture) shipVolumes(store ship.Store, volumes, reports int) string {
	f.t.Helper()
	for range volumes {
		s, stop := f.start(store)
		f.append(reports)
		f.appendKinds()
		f.drained(s)
		stop()
		f.reopen()
	}
	return f.contents()
}

func (f *fixture) same(want string) {
	f.t.Helper()
	if got := f.contents(); got != want {
		f.t.Errorf("ClickHouse has now\n%s\nand had\n%s", got, want)
	}
}

func TestI14_NothingMissingNothingSent(t *testing.T) {
	f := newFixture(t)
	store := &counting{faulty: &faulty{DB: f.db}}
	want := f.shipVolumes(store, 3, 400)
	sent := store.inserts.Load()
	store.boots.Add(1)
	s, _ := f.start(store)
	f.rechecked(s, 1)
	f.same(want)
	if st := s.Status(); store.inserts.Load() != sent || st.Restored != 0 || st.Doubled != 0 || st.Doubts != 0 {
		t.Errorf("%d blocks were sent: %+v", store.inserts.Load()-sent, st)
	}

	// The same run of the server is not asked again, by this hub or the next one.
	time.Sleep(2500 * time.Millisecond)
	if st := s.Status(); st.Rechecks != 1 {
		t.Errorf("looked through again: %+v", st)
	}
	f.reopen()
	s, _ = f.start(store)
	f.drained(s)
	if st := s.Status(); st.Rechecks != 0 {
		t.Errorf("looked through again after a restart of the hub alone: %+v", st)
	}
}

func TestI14_LostRowsComeBackOnce(t *testing.T) {
	middle := "spool_seq BETWEEN 300 AND 700"
	for name, lost := range map[string][]string{
		"everything":          everything(),
		"one table":           {"TRUNCATE TABLE host_reports"},
		"bodies in the midst": {"DELETE FROM host_report_bodies WHERE " + middle},
		"guests of some":      {"ALTER TABLE guest_reports DELETE WHERE spool_seq % 50 < 7"},
		"scattered":           {"ALTER TABLE host_reports DELETE WHERE spool_seq % 97 = 0", "ALTER TABLE host_report_bodies DELETE WHERE spool_seq % 89 = 0"},
		"states and events":   {"TRUNCATE TABLE events", "TRUNCATE TABLE switch_state", "TRUNCATE TABLE fleet_commits"},
		"what was left out":   {"TRUNCATE TABLE rejected_items", "TRUNCATE TABLE rejected_reports"},
		"the newest":          {"ALTER TABLE host_reports DELETE WHERE spool_seq > 1000", "ALTER TABLE guest_reports DELETE WHERE spool_seq > 1100"},
		"the latest state":    {"TRUNCATE TABLE host_last", "TRUNCATE TABLE guest_last", "TRUNCATE TABLE controller_last", "TRUNCATE TABLE key_last"},
		"a part of it":        {"ALTER TABLE host_last DELETE WHERE host_id = 'acme-3'", "ALTER TABLE guest_last DELETE WHERE vmid > 1500"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			store := &faulty{DB: f.db}
			want := f.shipVolumes(store, 3, 400)
			f.lose(lost...)
			if f.contents() == want {
				t.Fatal("nothing was lost")
			}
			store.boots.Add(1)
			s, _ := f.start(store)
			if s.Visible(time.Time{}) == nil {
				t.Error("visible before what was lost is back")
			}
			f.drained(s)
			f.same(want)
			st := s.Status()
			if st.Doubled != 0 || st.Rechecks != 1 || (st.Restored == 0) != strings.Contains(lost[0], "_last") {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

// The server restarts while the hub runs, and reports go on coming.
func TestI14_RestartOfTheServerAlone(t *testing.T) {
	f := newFixture(t)
	store := &faulty{DB: f.db}
	var log logtest.Buffer
	s := ship.New(ship.Options{Spool: f.sp, Store: store, Linger: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer cancel()
	f.append(1000)
	f.drained(s)
	f.rechecked(s, 1)

	f.lose("DELETE FROM host_reports WHERE spool_seq BETWEEN 101 AND 200", "DELETE FROM guest_reports WHERE spool_seq BETWEEN 151 AND 200")
	store.boots.Add(1)
	for s.Status().Rechecks < 2 {
		f.append(5)
		if time.Sleep(20 * time.Millisecond); f.n > 5000 {
			t.Fatalf("the restart was not noticed: %+v", s.Status())
		}
	}
	f.drained(s)
	f.exactlyOnce(f.n)
	if st := s.Status(); st.Restored != 200 || st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
	if text := log.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, `rows=200 tables="map[guest_reports:100 host_reports:100]"`) {
		t.Errorf("the log says\n%s", text)
	}
}

// A real engine, killed; what its disk lost is deleted while it is down for the
// hub.
func TestI14_EngineRestart(t *testing.T) {
	e := enginetest.New(t)
	plain := &ch.Options{Addr: []string{e.Endpoint().TCP}, Auth: ch.Auth{Database: "hub", Username: "hub", Password: e.Password("hub").Reveal()}}
	f := fixtureOn(t, clickhouse.Options{DSN: "clickhouse://hub@engine/hub",
		Resolve: func() (string, hub.Secret) { return e.Endpoint().TCP, e.Password("hub") }}, plain)
	want := f.shipVolumes(f.db, 2, 400)
	s, _ := f.start(f.db)
	f.drained(s)
	f.lose("ALTER TABLE host_reports DROP PARTITION '"+time.Now().UTC().Format(time.DateOnly)+"'", "TRUNCATE TABLE guest_last")
	if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.rechecked(s, 1)
	_ = f.conn.Close()
	plain.Addr = []string{e.Endpoint().TCP}
	var err error
	if f.conn, err = ch.Open(plain); err != nil {
		t.Fatal(err)
	}
	f.same(want)
	if st := s.Status(); st.Restored == 0 || st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}

// The hub dies again and again in the middle of it, and replies are lost.
func TestI14_CrashOfTheHubMeanwhile(t *testing.T) {
	f := newFixture(t)
	store := &faulty{DB: f.db}
	want := f.shipVolumes(store, 4, 400)
	f.lose(everything()...)
	store.boots.Add(1)
	store.lose.Store(3)
	restored := uint64(0)
	for deaths := 0; ; deaths++ {
		s, stop := f.start(store)
		time.Sleep(time.Duration(deaths) * 10 * time.Millisecond)
		rechecked := s.Status().Rechecks > 0
		stop()
		restored += s.Status().Restored
		if rechecked {
			t.Logf("%d deaths, %d rows, %+v", deaths, restored, s.Status())
			break
		}
		f.reopen()
	}
	f.same(want)
}

// late is a server in which the insert of a hub that died goes on for a while: it
// is there only when somebody sends the next one.
type late struct {
	*faulty
	hold    atomic.Bool
	running func() error
}

func (l *late) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	if b.Rows(table) == 0 || clickhouse.Repeatable(table) {
		return l.faulty.Insert(ctx, b, table, token)
	}
	if l.hold.Load() {
		if l.running == nil {
			l.running = func() error { return l.faulty.Insert(context.Background(), b, table, token) }
		}
		return errInjected
	}
	if first := l.running; first != nil {
		l.running = nil
		if err := first(); err != nil {
			return err
		}
	}
	return l.faulty.Insert(ctx, b, table, token)
}

func TestI14_WhatADeadHubStillSendsIsNotDoubled(t *testing.T) {
	f := newFixture(t)
	store := &late{faulty: &faulty{DB: f.db}}
	want := f.shipVolumes(store, 1, 400)
	f.lose("TRUNCATE TABLE host_reports")
	store.boots.Add(1)
	store.hold.Store(true)
	s, stop := f.start(store)
	for s.Status().Resent == 0 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if store.running == nil {
		t.Fatal("nothing was sent")
	}
	f.reopen()
	store.hold.Store(false)
	s, _ = f.start(store)
	f.drained(s)
	f.same(want)
	if st := s.Status(); st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}

func TestI14_LostCursorAsWell(t *testing.T) {
	f := newFixture(t)
	store := &faulty{DB: f.db}
	want := f.shipVolumes(store, 3, 400)
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cursor", "cut", "verified"} {
		if err := os.Remove(filepath.Join(f.dir, name+".state")); err != nil {
			t.Fatal(err)
		}
	}
	f.openSpool()
	f.lose("DELETE FROM host_reports WHERE spool_seq BETWEEN 300 AND 700", "TRUNCATE TABLE guest_reports")
	store.boots.Add(1)
	s, _ := f.start(store)
	f.drained(s)
	f.same(want)
	if st := s.Status(); st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}

// Rows that retention took, or may have taken, do not come back.
func TestI14_RetentionIsNoLoss(t *testing.T) {
	f := newFixture(t)
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	var ago atomic.Int64 // hours
	ago.Store(50)
	clock := func() time.Time { return time.Now().Add(-time.Duration(ago.Load()) * time.Hour) }
	f.open = func(o *spool.Options) { o.Now, o.Keep = clock, 1000*time.Hour }
	f.openSpool()
	store := &counting{faulty: &faulty{DB: f.db}}
	f.shipVolumes(store, 1, 300)
	ago.Store(25)
	f.shipVolumes(store, 1, 300)
	ago.Store(0)
	f.shipVolumes(store, 1, 300)
	f.retention = clickhouse.Retention{Raw: 24 * time.Hour, Guests: 48 * time.Hour}
	if err := f.db.SetRetention(t.Context(), f.retention); err != nil {
		t.Fatal(err)
	}
	f.lose("OPTIMIZE TABLE host_report_bodies FINAL", "OPTIMIZE TABLE guest_reports FINAL")
	var bodies, guests uint64
	if err := f.conn.QueryRow(t.Context(), "SELECT (SELECT count() FROM host_report_bodies), (SELECT count() FROM guest_reports)").Scan(&bodies, &guests); err != nil {
		t.Fatal(err)
	}
	if bodies != 302 || guests != 1202 {
		t.Fatalf("retention left %d bodies and %d guests", bodies, guests)
	}
	sent, want := store.inserts.Load(), f.contents()
	store.boots.Add(1)
	s, stop := f.start(store)
	f.drained(s)
	stop()
	if store.inserts.Load() != sent || s.Status().Restored != 0 {
		t.Errorf("%d blocks were sent: %+v", store.inserts.Load()-sent, s.Status())
	}

	// What is younger is a loss all the same.
	f.lose("TRUNCATE TABLE host_report_bodies", "TRUNCATE TABLE guest_reports", "TRUNCATE TABLE host_reports")
	store.boots.Add(1)
	f.reopen()
	s, _ = f.start(store)
	f.drained(s)
	f.same(want)
}

// A backlog that is older than its retention does not hold up what comes behind it.
func TestBacklogOlderThanRetention(t *testing.T) {
	f := newFixture(t)
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	var ago atomic.Int64 // hours
	ago.Store(50)
	clock := func() time.Time { return time.Now().Add(-time.Duration(ago.Load()) * time.Hour) }
	f.open = func(o *spool.Options) { o.Now = clock }
	f.openSpool()
	f.append(100)
	f.reopen() // inherited: it may have been sent before
	ago.Store(0)
	f.append(100)
	f.retention = clickhouse.Retention{Raw: 24 * time.Hour}
	if err := f.db.SetRetention(t.Context(), f.retention); err != nil {
		t.Fatal(err)
	}
	store := &expiring{DB: f.db, f: f}
	s, _ := f.start(store)
	f.drained(s)
	if store.dropped.Load() == 0 {
		t.Error("no body was dropped")
	}
	var reports, bodies uint64
	if err := f.conn.QueryRow(t.Context(), "SELECT (SELECT count() FROM host_reports), (SELECT count() FROM host_report_bodies)").Scan(&reports, &bodies); err != nil {
		t.Fatal(err)
	}
	if reports != 200 || bodies != 100 {
		t.Errorf("%d reports, %d bodies", reports, bodies)
	}
}

// expiring has retention at work as soon as bodies are there.
type expiring struct {
	*clickhouse.DB
	f       *fixture
	dropped atomic.Int64
}

func (e *expiring) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	err := e.DB.Insert(ctx, b, table, token)
	if err == nil && table == "host_report_bodies" {
		e.dropped.Add(1)
		err = e.f.conn.Exec(ctx, "ALTER TABLE host_report_bodies DELETE WHERE received_at < now() - INTERVAL 24 HOUR SETTINGS mutations_sync = 2")
	}
	return err
}

// Volumes go while they are being looked through, and damage is passed over.
func TestI14_VolumesThatGoMeanwhile(t *testing.T) {
	f := newFixture(t)
	store := &removing{faulty: &faulty{DB: f.db}}
	f.shipVolumes(store, 4, 400)
	f.lose(everything()...)
	store.boots.Add(1)
	volumes, err := filepath.Glob(filepath.Join(f.dir, "*.vol"))
	if err != nil || len(volumes) < 4 {
		t.Fatal(volumes, err)
	}
	slices.Sort(volumes)
	store.at, store.file = 2, volumes[1] // the second is gone between the question and its answer
	s, _ := f.start(store)
	f.drained(s)
	var reports, distinct, guests uint64
	if err := f.conn.QueryRow(t.Context(), "SELECT (SELECT count() FROM host_reports), (SELECT uniqExact(spool_id, spool_seq) FROM host_reports), (SELECT count() FROM guest_reports)").
		Scan(&reports, &distinct, &guests); err != nil {
		t.Fatal(err)
	}
	if reports != 3*402 || distinct != 3*402 || guests != 3*801 {
		t.Errorf("%d reports, %d of them distinct, %d guests of the three volumes that are left", reports, distinct, guests)
	}
	if st := s.Status(); st.Doubled != 0 || st.Restored == 0 {
		t.Errorf("status: %+v", st)
	}
}

// removing removes a file when it is asked for the at-th time.
type removing struct {
	*faulty
	at   int
	file string
	n    int
}

func (r *removing) Held(ctx context.Context, span clickhouse.Range) (map[uint64]clickhouse.Held, error) {
	if r.n++; r.n == r.at && r.file != "" {
		if err := os.Remove(r.file); err != nil {
			return nil, err
		}
	}
	return r.faulty.DB.Held(ctx, span)
}
