package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/audit"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

type system struct {
	t    *testing.T
	dir  string
	sp   *spool.Spool
	db   *clickhouse.DB
	conn driver.Conn
	now  time.Time
}

// newSystem returns a spool of several volumes over two hours, 40 reports and a
// record of each other kind in it, all shipped.
func newSystem(t *testing.T) *system {
	t.Helper()
	dsn := enginetest.DSN(t)
	opts, err := ch.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, dir: t.TempDir(), now: time.Now().UTC().Truncate(time.Hour).Add(-90 * time.Minute)}
	if s.conn, err = ch.Open(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	if s.db, err = clickhouse.Open(clickhouse.Options{DSN: dsn}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	if _, err := s.db.Migrate(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	s.sp, err = spool.Open(spool.Options{Dir: s.dir, VolumeBytes: 4 << 10, MaxBytes: 1 << 30,
		Now: func() time.Time { return s.now }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.sp.Close() })
	for i := range 40 {
		if i == 20 {
			s.now = s.now.Add(time.Hour)
		}
		s.report(i)
	}
	s.decision()
	s.append(spool.Record{Kind: hub.KindHostReport, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Body: []byte("no report")})
	s.append(spool.Record{Kind: 77, Body: []byte("of a later hub")})
	s.report(40)
	s.append(spool.Record{Kind: hub.KindControllerReport, HostID: "acme-1/101", CustomerID: "acme", KeyID: "customer/acme/c1", Body: []byte(
		`{"customer_id":"acme","guest_id":"acme-1/101","reported_at":"2026-06-08T09:15:00Z","controller_version":"1","apps":[{"name":"web"},{"name":"mail"},{}]}`)})
	s.append(spool.Record{Kind: hub.KindControllerEvent, CustomerID: "acme", KeyID: "customer/acme/c1", Body: []byte(
		`{"type":"backup_failed","severity":"warning","message":"no space left"}`)})
	s.ship()
	return s
}

func (s *system) append(r spool.Record) {
	s.t.Helper()
	if _, err := s.sp.Append(context.Background(), r); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) report(n int) {
	s.t.Helper()
	host := fmt.Sprintf("acme-%d", n%7)
	s.append(spool.Record{Kind: hub.KindHostReport, HostID: host, CustomerID: "acme", KeyID: "k1", Body: fmt.Appendf(nil,
		`{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{"uptime_seconds":%d},`+
			`"guests":[{"vmid":101,"status":"running"},{"vmid":102,"status":"stopped"},{"vmid":"bad"}]}`, host, n)})
}

func (s *system) decision() {
	s.t.Helper()
	body, err := wire.EncodeDecision(hub.Decision{
		States: []hub.HostState{{HostID: "acme-1", State: hub.Stale, Since: s.now, LastAt: s.now, DecidedAt: s.now}},
		Events: []hub.Event{{ID: "e1", Type: "host_stale", HostID: "acme-1", At: s.now, DetectedAt: s.now}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.append(spool.Record{Kind: hub.KindDecision, Body: body})
}

func (s *system) ship() {
	s.t.Helper()
	shipper := ship.New(ship.Options{Spool: s.sp, Store: s.db, Linger: time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { shipper.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for end := time.Now().Add(time.Minute); s.sp.Stats().UnshippedRecords > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not shipped: %+v", shipper.Status())
		}
	}
}

func (s *system) exec(sql string) {
	s.t.Helper()
	if err := s.conn.Exec(ch.Context(s.t.Context(), ch.WithSettings(ch.Settings{"mutations_sync": 2})), sql); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) audit(retention clickhouse.Retention) audit.Result {
	s.t.Helper()
	r, err := audit.Run(s.t.Context(), audit.Options{Spool: spool.Folder(s.dir), Store: s.db, Now: time.Now(), Retention: retention})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// want checks the counts and the findings' places.
func (s *system) want(gaps, doubles, waiting uint64, findings ...string) audit.Result {
	s.t.Helper()
	r := s.audit(clickhouse.Retention{})
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s %s %d-%d", f.Kind, f.Table, f.First, f.Last))
	}
	if r.Gaps != gaps || r.Doubles != doubles || r.Waiting != waiting || fmt.Sprint(got) != fmt.Sprint(findings) {
		s.t.Errorf("%d gaps, %d doubles, %d waiting, %q\nwant %d, %d, %d, %q", r.Gaps, r.Doubles, r.Waiting, got, gaps, doubles, waiting, findings)
	}
	return r
}

func TestAuditOfAWholeSystem(t *testing.T) {
	s := newSystem(t)
	r := s.want(0, 0, 0)
	if len(r.Hours) != 2 || r.Hours[0].Spool != 20 || r.Hours[1].Spool != 26 || r.Hours[0].ClickHouse != 20 || r.Hours[1].ClickHouse != 26 {
		t.Errorf("hours %+v", r.Hours)
	}
	s.report(50)
	s.report(51)
	s.want(0, 0, 2)
	if r := s.audit(clickhouse.Retention{Reports: time.Minute}); len(r.Hours) != 0 || r.Gaps != 0 {
		t.Errorf("what retention dropped is judged: %+v", r)
	}
}

func TestAuditFindsGaps(t *testing.T) {
	s := newSystem(t)
	s.exec("ALTER TABLE host_reports DELETE WHERE spool_seq IN (3, 4)")
	s.exec("ALTER TABLE host_report_bodies DELETE WHERE spool_seq = 7")
	s.exec("ALTER TABLE guest_reports DELETE WHERE spool_seq = 25 AND vmid = 102")
	s.exec("ALTER TABLE rejected_items DELETE WHERE spool_seq = 26")
	s.exec("TRUNCATE TABLE events")
	s.exec("TRUNCATE TABLE rejected_reports")
	s.exec("ALTER TABLE controller_apps DELETE WHERE name = 'mail'")
	s.want(10, 0, 0, "gap host_reports 3-4", "gap host_report_bodies 7-7", "gap guest_reports 25-25", "gap rejected_items 26-26",
		"gap events 41-41", "gap host_reports 42-42", "gap rejected_reports 43-43", "gap controller_apps 45-45", "gap events 46-46")
	s.exec("TRUNCATE TABLE host_reports")
	s.exec("TRUNCATE TABLE controller_reports")
	s.want(46, 0, 0, "gap host_reports 1-14", "gap host_reports 15-20", "gap host_reports 21-34", "gap host_reports 35-40", // by volume and hour
		"gap events 41-41", "gap host_reports 42-42",
		"gap rejected_reports 43-43", "gap host_reports 44-44", "gap controller_reports 45-45", "gap events 46-46")
}

func TestAuditFindsDoubles(t *testing.T) {
	s := newSystem(t)
	s.exec("INSERT INTO host_reports SELECT * FROM host_reports WHERE spool_seq = 5")
	s.exec("INSERT INTO guest_reports SELECT * FROM guest_reports WHERE spool_seq = 6 AND vmid = 101")
	s.exec("INSERT INTO events SELECT * FROM events")
	s.exec("INSERT INTO rejected_reports SELECT received_at, customer_id, host_id, 1, 'x', 'x', spool_id, spool_seq FROM host_reports WHERE spool_seq IN (9, 10)")
	s.exec("INSERT INTO rejected_reports SELECT received_at, customer_id, host_id, 1, 'x', 'x', spool_id, spool_seq FROM host_reports WHERE spool_seq = 9")
	s.exec("INSERT INTO controller_apps SELECT * FROM controller_apps WHERE name = 'mail'")
	s.want(0, 6, 0, "double host_reports 5-5", "double guest_reports 6-6", "double rejected_reports 9-9", "double events 41-41",
		"double controller_apps 45-45", "double events 46-46")
}

// Where the spool has no volume any more, ClickHouse must do.
func TestAuditOfClickHouseAlone(t *testing.T) {
	s := newSystem(t)
	if err := s.sp.Close(); err != nil {
		t.Fatal(err)
	}
	s.dir = filepath.Join(t.TempDir(), "gone")
	r := s.want(0, 0, 0)
	if len(r.Hours) != 2 || r.Hours[0].Spool != 0 || r.Hours[0].ClickHouse != 20 {
		t.Errorf("hours %+v", r.Hours)
	}
	s.exec("ALTER TABLE host_reports DELETE WHERE spool_seq = 3")
	s.exec("ALTER TABLE host_report_bodies DELETE WHERE spool_seq = 3")
	s.exec("ALTER TABLE guest_reports DELETE WHERE spool_seq = 3")
	s.exec("ALTER TABLE rejected_items DELETE WHERE spool_seq = 3")
	s.exec("INSERT INTO host_reports SELECT * FROM host_reports WHERE spool_seq = 6")
	s.want(1, 1, 0, "gap host_reports 3-3", "double host_reports 6-6")
}

// What damage took before it was shipped is no gap.
func TestAuditBesideDamage(t *testing.T) {
	s := newSystem(t)
	volumes, err := filepath.Glob(filepath.Join(s.dir, "*.vol"))
	if err != nil || len(volumes) < 3 {
		t.Fatal(volumes, err)
	}
	data, err := os.ReadFile(volumes[1])
	if err != nil {
		t.Fatal(err)
	}
	data[128+60] ^= 1
	if err := os.WriteFile(volumes[1], data, 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(0, 0, 0)
}
