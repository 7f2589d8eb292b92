package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

var epoch = time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)

// open returns a migrated, empty database of its own and a plain connection to it.
func open(t *testing.T) (*clickhouse.DB, driver.Conn) {
	t.Helper()
	db, conn := openEmpty(t)
	if _, err := db.Migrate(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	return db, conn
}

// openEmpty returns a database without tables, and a plain connection to it.
func openEmpty(t testing.TB) (*clickhouse.DB, driver.Conn) {
	t.Helper()
	dsn := enginetest.DSN(t)
	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	opts, err := ch.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ch.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return db, conn
}

func ptr[T any](v T) *T { return &v }

func fleet(t *testing.T, hosts ...*hub.Host) *hub.Fleet {
	t.Helper()
	f, err := hub.NewFleet(hub.FleetSpec{Name: "test", Revision: "r1", Hosts: hosts,
		Customers: []*hub.Customer{{Name: "acme", DisplayName: "Acme"}, {Name: "globex"}}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var base = hub.Thresholds{StaleAfter: 30 * time.Minute, DownAfter: time.Hour}

var spoolID = hub.SpoolID{1, 2, 3}

func report(seq uint64, at time.Time, host string, guests ...hub.Guest) clickhouse.ReportRow {
	return clickhouse.ReportRow{
		Receipt:    hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: seq}, ReceivedAt: at},
		CustomerID: "acme", KeyID: "k1", Body: fmt.Appendf(nil, `{"n":%d}`, seq),
		Report: &hub.Report{HostID: host, ReportedAt: at, AgentVersion: "0.3.0", CPUPercent: ptr(float64(seq)),
			MemoryTotalBytes: ptr(uint64(200)), MemoryUsedBytes: ptr(uint64(50)), Guests: guests},
	}
}

func insert(t *testing.T, db *clickhouse.DB, token string, rows ...clickhouse.ReportRow) {
	t.Helper()
	var b clickhouse.Batch
	for _, r := range rows {
		b.AddReport(r)
	}
	insertBatch(t, db, token, &b)
}

func insertBatch(t *testing.T, db *clickhouse.DB, token string, b *clickhouse.Batch) {
	t.Helper()
	for _, table := range clickhouse.Tables() {
		if err := db.Insert(t.Context(), b, table, token+"/"+table); err != nil {
			t.Fatal(err)
		}
	}
}

func one[T any](t *testing.T, conn driver.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestEveryTableViewAndColumnIsDocumented(t *testing.T) {
	_, conn := open(t)
	if missing := one[[]string](t, conn, "SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase() AND comment = ''"); len(missing) > 0 {
		t.Errorf("without a comment: %v", missing)
	}
	if missing := one[[]string](t, conn, "SELECT groupArray(table || '.' || name) FROM system.columns WHERE database = currentDatabase() AND comment = ''"); len(missing) > 0 {
		t.Errorf("columns without a comment: %v", missing)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM system.tables WHERE database = currentDatabase()"); n < 12 {
		t.Errorf("only %d tables", n)
	}
}

func TestMigrateIsIdempotentAndRefusesOtherSchemas(t *testing.T) {
	db, conn := open(t)
	if again, err := db.Migrate(t.Context(), epoch); err != nil || len(again) > 0 {
		t.Fatalf("second time: %v, %v", again, err)
	}
	if err := conn.Exec(t.Context(), "INSERT INTO schema_migrations VALUES (999, 'future', 'x', now())"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Migrate(t.Context(), epoch); err == nil || !strings.Contains(err.Error(), "newer hub") {
		t.Errorf("newer schema: got %v", err)
	}
	if err := conn.Exec(t.Context(), "TRUNCATE TABLE schema_migrations"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(t.Context(), "INSERT INTO schema_migrations VALUES (1, 'stream', 'x', now())"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Pending(t.Context()); err == nil || !strings.Contains(err.Error(), "another text") {
		t.Errorf("other text: got %v", err)
	}
}

func TestRetentionChangesLiveTables(t *testing.T) {
	db, conn := open(t)
	ttl := func(table string) string {
		return one[string](t, conn, "SELECT extract(engine_full, 'TTL (.*) SETTINGS') FROM system.tables WHERE database = currentDatabase() AND name = ?", table)
	}
	if err := db.SetRetention(t.Context(), clickhouse.Retention{Reports: 90 * 24 * time.Hour, Raw: 14 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if got, want := ttl("host_reports"), "toDateTime(received_at) + toIntervalSecond(7776000)"; got != want {
		t.Errorf("host_reports: TTL %q, want %q", got, want)
	}
	if err := db.SetRetention(t.Context(), clickhouse.Retention{Raw: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if ttl("host_reports") != "" || ttl("host_report_bodies") != "toDateTime(received_at) + toIntervalSecond(3600)" {
		t.Errorf("after the change: %q, %q", ttl("host_reports"), ttl("host_report_bodies"))
	}
	old, young := report(1, epoch.AddDate(0, 0, -3), "acme-1"), report(2, time.Now().UTC(), "acme-1")
	insert(t, db, "old", old)
	insert(t, db, "young", young)
	if err := conn.Exec(t.Context(), "OPTIMIZE TABLE host_report_bodies FINAL"); err != nil {
		t.Fatal(err)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM host_report_bodies"); n != 1 {
		t.Errorf("%d bodies are left, want the young one", n)
	}
}

func TestInsertTwiceUnderOneTokenIsOnce(t *testing.T) {
	db, conn := open(t)
	row := report(1, epoch, "acme-1", hub.Guest{VMID: 101, Status: "running"}, hub.Guest{VMID: 102, Status: "stopped"})
	insert(t, db, "a", row)
	insert(t, db, "a", row)
	for table, want := range map[string]uint64{"host_reports": 1, "host_report_bodies": 1, "guest_reports": 2} {
		if n := one[uint64](t, conn, "SELECT count() FROM "+table); n != want {
			t.Errorf("%s: %d rows, want %d", table, n, want)
		}
	}
	r := clickhouse.Range{SpoolID: spoolID, First: 1, Last: 5}
	if n, err := db.Count(t.Context(), "guest_reports", r); n != 2 || err != nil {
		t.Errorf("Count: %d, %v", n, err)
	}
	if n, err := db.Count(t.Context(), "guest_reports", clickhouse.Range{SpoolID: hub.SpoolID{9}, First: 1, Last: 5}); n != 0 || err != nil {
		t.Errorf("Count of another spool: %d, %v", n, err)
	}
	if p, err := db.Present(t.Context(), "host_reports", r); err != nil || len(p) != 1 || !p[1] {
		t.Errorf("Present: %v, %v", p, err)
	}
}

func TestInsertOverMidnightIsRefused(t *testing.T) {
	db, _ := open(t)
	var b clickhouse.Batch
	b.AddReport(report(1, epoch, "acme-1"))
	b.AddReport(report(2, epoch.AddDate(0, 0, 1), "acme-1"))
	if err := db.Insert(t.Context(), &b, "host_reports", "x"); err == nil {
		t.Error("two partitions in one insert were accepted: it would not be atomic")
	}
}

func TestRefeedRestoresTheLatestState(t *testing.T) {
	db, conn := open(t)
	insert(t, db, "a", report(1, epoch, "acme-1", hub.Guest{VMID: 101}), report(2, epoch.Add(time.Minute), "acme-2"))
	for _, table := range []string{"host_last", "guest_last"} {
		if err := conn.Exec(t.Context(), "TRUNCATE TABLE "+table); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, table := range clickhouse.Tables() {
			if err := db.Refeed(t.Context(), table, clickhouse.Range{SpoolID: spoolID, First: 1, Last: 2}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := one[uint64](t, conn, "SELECT uniqExact(host_id) FROM host_last"); n != 2 {
		t.Errorf("host_last has %d hosts, want 2", n)
	}
	if n := one[uint64](t, conn, "SELECT uniqExact(vmid) FROM guest_last"); n != 1 {
		t.Errorf("guest_last has %d guests, want 1", n)
	}
}

func TestHostsAndGuestsShowTheNewestReport(t *testing.T) {
	db, conn := open(t)
	f := fleet(t,
		&hub.Host{ID: "acme-1", Customer: "acme", DisplayName: "one", Lifecycle: hub.Active, Labels: map[string]string{"site": "berlin"}, Desired: []byte(`{"cores":4}`)},
		&hub.Host{ID: "acme-2", Customer: "acme", Lifecycle: hub.Paused},
		&hub.Host{ID: "acme-3", Customer: "acme", Lifecycle: hub.Retired})
	if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "newer", report(7, epoch.Add(time.Minute), "acme-1", hub.Guest{VMID: 102, Status: "stopped"}), report(8, epoch, "acme-3"))
	insert(t, db, "older", report(6, epoch, "acme-1", hub.Guest{VMID: 101, Status: "running"}, hub.Guest{VMID: 102, Status: "running"}))

	var hosts []struct {
		ID         string     `ch:"host_id"`
		State      string     `ch:"state"`
		Lifecycle  string     `ch:"lifecycle"`
		Site       string     `ch:"site"`
		LastReport *time.Time `ch:"last_report_at"`
		CPU        *float64   `ch:"cpu_percent"`
		Mem        *float64   `ch:"mem_percent"`
		Guests     uint32     `ch:"guest_total"`
	}
	if err := conn.Select(t.Context(), &hosts, "SELECT host_id, state, lifecycle, site, last_report_at, cpu_percent, mem_percent, guest_total FROM hosts ORDER BY host_id"); err != nil {
		t.Fatal(err)
	}
	if len(hosts) != 2 {
		t.Fatalf("hosts has %d rows, want 2: the retired one is out", len(hosts))
	}
	h := hosts[0]
	if h.State != "ok" || h.Site != "berlin" || !h.LastReport.Equal(epoch.Add(time.Minute)) || *h.CPU != 7 || *h.Mem != 25 || h.Guests != 1 {
		t.Errorf("acme-1: %+v", h)
	}
	if h := hosts[1]; h.State != "never_seen" || h.Lifecycle != "paused" || h.LastReport != nil || h.CPU != nil {
		t.Errorf("acme-2: %+v", h)
	}
	var guests []struct {
		ID      string `ch:"guest_id"`
		Status  string `ch:"status"`
		Present bool   `ch:"present"`
	}
	if err := conn.Select(t.Context(), &guests, "SELECT guest_id, status, present FROM guests ORDER BY guest_id"); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(guests), "[{acme-1/101 running false} {acme-1/102 stopped true}]"; got != want {
		t.Errorf("guests: %s, want %s", got, want)
	}
	// A report tells of reality; it never touches the register.
	if got := one[string](t, conn, "SELECT desired FROM fleet_hosts WHERE host_id = 'acme-1'"); got != `{"cores":4}` {
		t.Errorf("desired: %s", got)
	}
}

func TestRegisterWritesOnlyChanges(t *testing.T) {
	db, conn := open(t)
	first := fleet(t, &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active, Labels: map[string]string{"a": "1", "b": "2"}},
		&hub.Host{ID: "acme-2", Customer: "acme", Lifecycle: hub.Active})
	sync := func(f *hub.Fleet) {
		t.Helper()
		if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
			t.Fatal(err)
		}
	}
	count := func() string {
		return fmt.Sprint(one[uint64](t, conn, "SELECT count() FROM fleet_hosts"), one[uint64](t, conn, "SELECT count() FROM fleet_customers"))
	}
	sync(first)
	sync(first)
	if got := count(); got != "2 2" {
		t.Errorf("after the same fleet twice: %s rows, want 2 2", got)
	}
	sync(fleet(t, &hub.Host{ID: "acme-1", Customer: "globex", Lifecycle: hub.Active, Labels: map[string]string{"a": "1", "b": "2"}}))
	if got := count(); got != "4 2" {
		t.Errorf("after a move and a removal: %s rows, want 4 2", got)
	}
	sync(first) // back again: what held before is a change too
	if got := count(); got != "6 2" {
		t.Errorf("after going back: %s rows, want 6 2", got)
	}
	if got := one[[]string](t, conn, "SELECT groupArray(host_id || ' ' || customer_id) FROM (SELECT * FROM hosts ORDER BY host_id)"); fmt.Sprint(got) != "[acme-1 acme acme-2 acme]" {
		t.Errorf("hosts: %v", got)
	}
}

func TestCandidates(t *testing.T) {
	db, _ := open(t)
	f := fleet(t,
		&hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active},
		&hub.Host{ID: "acme-2", Customer: "acme", Lifecycle: hub.Paused},
		&hub.Host{ID: "acme-never", Customer: "acme", Lifecycle: hub.Active})
	if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "a", report(1, epoch, "acme-1"), report(2, epoch, "acme-2"), report(3, epoch, "acme-unknown"))

	look := func(q clickhouse.Question) string {
		t.Helper()
		answer, err := db.Candidates(t.Context(), q)
		if err != nil || answer.Reported != 3 || len(answer.Bad) > 0 {
			t.Fatalf("%d hosts reported, want 3; %v, %v", answer.Reported, answer.Bad, err)
		}
		var words []string
		for _, s := range answer.Silences {
			words = append(words, fmt.Sprintf("%s #%d %s", s.HostID, s.Last.Seq, s.LastAt.Sub(epoch)))
		}
		slices.Sort(words)
		return strings.Join(words, ", ")
	}
	insert(t, db, "b", report(20, epoch.Add(40*time.Minute), "acme-1"), report(21, epoch.Add(45*time.Minute), "acme-1"))
	var b clickhouse.Batch
	for seq, at := range []time.Duration{time.Minute, 30 * time.Minute} {
		b.AddDecision(hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: uint64(10 + seq)}, ReceivedAt: epoch.Add(at)}, hub.Decision{States: []hub.HostState{{
			HostID: "acme-1", State: hub.OK, Since: epoch, Last: hub.Position{SpoolID: spoolID, Seq: 1}, LastAt: epoch, DecidedAt: epoch.Add(at)}}})
	}
	insertBatch(t, db, "states", &b)
	for _, c := range []struct {
		q    clickhouse.Question
		want string
	}{
		{clickhouse.Question{Cut: epoch.Add(-time.Millisecond)}, ""},
		{clickhouse.Question{Cut: epoch}, "acme-2 #2 0s, acme-unknown #3 0s"}, // exactly the cut is silent for long enough
		{clickhouse.Question{Cut: epoch, Hosts: []string{"acme-1", "acme-never"}}, "acme-1 #21 45m0s, acme-2 #2 0s, acme-unknown #3 0s"},
		{clickhouse.Question{All: true}, "acme-1 #21 45m0s, acme-2 #2 0s, acme-unknown #3 0s"},
	} {
		if got := look(c.q); got != c.want {
			t.Errorf("%+v: %s, want %s", c.q, got, c.want)
		}
	}
	for since, want := range map[time.Duration]string{time.Minute: "map[acme-1:2026-06-08 09:30:00 +0000 UTC]", 30 * time.Minute: "map[]"} {
		if got, err := db.DecidedSince(t.Context(), epoch.Add(since)); err != nil || fmt.Sprint(got) != want {
			t.Errorf("decided since %s: %v, %v", since, got, err)
		}
	}
	first, err := db.FirstReports(t.Context(), map[string]time.Time{"acme-1": epoch, "acme-2": epoch})
	if err != nil || len(first) != 1 || !first["acme-1"].Equal(epoch.Add(40*time.Minute)) {
		t.Errorf("FirstReports: %v, %v", first, err)
	}
}

func TestBootIsTheSameUntilTheServerRestarts(t *testing.T) {
	e := enginetest.New(t)
	db, err := clickhouse.Open(clickhouse.Options{
		DSN: "clickhouse://hub@engine/hub", Resolve: func() (string, hub.Secret) { return e.Endpoint().TCP, e.Password("hub") }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	a, errA := db.Boot(t.Context())
	b, errB := db.Boot(t.Context())
	if errA != nil || errB != nil || a != b {
		t.Fatalf("same run: %q, %q, %v, %v", a, b, errA, errB)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if c, err := db.Boot(ctx); err != nil || c == a {
		t.Errorf("after a restart: %q, %v; want another than %q", c, err, a)
	}
}

func TestPermanentTellsAnswersFromFaults(t *testing.T) {
	db, conn := open(t)
	if err := conn.Exec(t.Context(), "DROP TABLE rejected_items"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Count(t.Context(), "rejected_items", clickhouse.Range{}); !clickhouse.Permanent(err) {
		t.Errorf("unknown table: %v is not permanent", err)
	}
	if clickhouse.Permanent(errors.New("connection refused")) {
		t.Error("a refused connection is permanent")
	}
}

// A server that was killed while it wrote may hold the mark of a block that it
// does not have; the register is written all the same.
func TestRegisterIsNotSwallowedByAMarkOfALostBlock(t *testing.T) {
	db, conn := open(t)
	f := fleet(t, &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active})
	for range 2 {
		if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
			t.Fatal(err)
		}
		if n := one[uint64](t, conn, "SELECT count() FROM hosts"); n != 1 {
			t.Fatalf("%d hosts, want 1", n)
		}
		for _, table := range []string{"fleet_hosts", "fleet_customers"} { // the rows go, the mark stays
			if err := conn.Exec(t.Context(), "ALTER TABLE "+table+" DELETE WHERE 1 SETTINGS mutations_sync = 2"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTimesThatAgentsInvent(t *testing.T) {
	db, conn := open(t)
	for i, said := range []string{"0001-01-01T00:00:00Z", "1900-01-01T00:00:00Z", "2262-04-11T00:00:00Z", "2299-12-31T23:59:59Z", "9999-12-31T23:59:59Z"} {
		at, err := time.Parse(time.RFC3339, said)
		if err != nil {
			t.Fatal(err)
		}
		row := report(uint64(i+1), epoch, "acme-1")
		row.Report.ReportedAt = at
		insert(t, db, said, row)
	}
	got := one[[]string](t, conn, "SELECT groupArray(toString(reported_at)) FROM (SELECT * FROM host_reports ORDER BY spool_seq)")
	want := "[1900-01-01 00:00:00.000 1900-01-01 00:00:00.000 2262-04-11 00:00:00.000 2262-04-11 00:00:00.000 2262-04-11 00:00:00.000]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
}

// A session's own setting does not change what the views say.
func TestViewsUnderJoinUseNulls(t *testing.T) {
	db, conn := open(t)
	if err := clickhouse.NewRegister(db).Sync(t.Context(), fleet(t, &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active}), epoch, base); err != nil {
		t.Fatal(err)
	}
	if s := one[string](t, conn, "SELECT state FROM hosts SETTINGS join_use_nulls = 1"); s != "never_seen" {
		t.Errorf("state %q", s)
	}
	one[uint64](t, conn, "SELECT count() FROM guests SETTINGS join_use_nulls = 1")
}

// A retention that reaches over the end of the server's 32-bit times keeps
// rows; it does not drop all of them.
func TestRetentionOfACentury(t *testing.T) {
	db, conn := open(t)
	if err := db.SetRetention(t.Context(), clickhouse.Retention{Reports: 100 * 365 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "a", report(1, time.Now().UTC().Truncate(time.Millisecond), "acme-1"))
	if err := conn.Exec(t.Context(), "OPTIMIZE TABLE host_reports FINAL"); err != nil {
		t.Fatal(err)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM host_reports"); n != 1 {
		t.Errorf("%d reports, want 1", n)
	}
}
