package ship_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// send puts a report of acme-5f2c9a1e with these lists into the spool.
func (f *fixture) send(lists string) hub.Receipt {
	f.t.Helper()
	body := fmt.Appendf(nil, `{"host_id":"acme-5f2c9a1e","reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{},%s}`, lists)
	return f.sendBody(body)
}

func (f *fixture) sendBody(body []byte) hub.Receipt {
	f.t.Helper()
	receipts, err := f.sp.Append(context.Background(), spool.Record{Kind: hub.KindHostReport, HostID: "acme-5f2c9a1e", CustomerID: "acme", KeyID: "k1", Body: body})
	if err != nil {
		f.t.Fatal(err)
	}
	return receipts[0]
}

// The contract's full report, sent again and again, is these rows.
func TestFullReportBecomesRows(t *testing.T) {
	f := newFixture(t)
	body, err := os.ReadFile("../../testdata/host-report.full.json")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := f.start(f.db)
	f.sendBody(body)
	f.drained(s)
	f.sendBody(body)
	f.drained(s)
	f.want("SELECT groupArray((host_id, name, type, status, total_bytes, used_bytes)) FROM (SELECT * FROM storage_target_reports ORDER BY spool_seq, name LIMIT 2)",
		"[('acme-5f2c9a1e','local-zfs','zfspool','available',1099511627776,549755813888),('acme-5f2c9a1e','pbs-main','pbs','available',8796093022208,2199023255552)]")
	f.want("SELECT (count(), uniqExact(spool_seq), (SELECT sum(storage_target_total) FROM host_reports)) FROM storage_target_reports", "(4,2,4)")
	f.want("SELECT groupArray((customer_id, guest_id, target, started_at, finished_at, status, size_bytes, error, succeeded_at)) FROM (SELECT * FROM backup_reports ORDER BY vmid)",
		"[('acme','acme-5f2c9a1e/101','pbs-main','2026-06-08 01:00:00.000','2026-06-08 01:07:31.000','ok',4294967296,'','2026-06-08 01:07:31.000'),"+
			"('acme','acme-5f2c9a1e/102','pbs-main','2026-06-08 01:08:00.000','2026-06-08 01:08:04.000','failed',0,'lock timeout',NULL)]")
	f.want("SELECT groupArray((guest_id, tested_at, backup_time, status, duration_seconds, succeeded_at)) FROM restore_test_reports",
		"[('acme-5f2c9a1e/101','2026-06-07 04:00:00.000','2026-06-07 01:00:00.000','ok',311,'2026-06-07 04:00:00.000')]")
	f.want("SELECT groupArray((guest_id, datastore, taken_at, size_bytes, verified, succeeded_at)) FROM (SELECT * FROM pbs_snapshot_reports ORDER BY vmid)",
		"[('acme-5f2c9a1e/101','main','2026-06-08 01:00:00.000',4294967296,true,'2026-06-08 01:00:00.000'),('acme-5f2c9a1e/200','main','2026-06-08 01:20:00.000',68719476736,false,NULL)]")
	f.want("SELECT groupArray((host_id, at, actor, action, detail)) FROM agent_audit", "[('acme-5f2c9a1e','2026-06-08 09:20:11.000','root@pam','guest.pause','vmid=102')]")
	f.want("SELECT groupArray((vmid, backup_at, restore_test_at, pbs_verify_at, first_seen_at = (SELECT min(received_at) FROM host_reports))) FROM (SELECT * FROM guest_deadlines FINAL ORDER BY vmid)",
		"[(101,'2026-06-08 01:07:31.000','2026-06-07 04:00:00.000','2026-06-08 01:00:00.000',1),"+
			"(102,'1970-01-01 00:00:00.000','1970-01-01 00:00:00.000','1970-01-01 00:00:00.000',1),(200,'1970-01-01 00:00:00.000','1970-01-01 00:00:00.000','1970-01-01 00:00:00.000',1)]")
}

// tally counts the rows that are sent to tables that are repeatable.
type tally struct {
	*faulty
	mu   sync.Mutex
	rows map[string]int
}

func (c *tally) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	err := c.faulty.Insert(ctx, b, table, token)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && clickhouse.Repeatable(table) {
		if c.rows == nil {
			c.rows = map[string]int{}
		}
		c.rows[table] += b.Rows(table)
	}
	return err
}

func (c *tally) sent() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.rows["backup_items"], c.rows["audit_items"], c.rows["guest_deadlines"])
}

const backups = `"guests":[{"vmid":101},{"vmid":102}],"backups":[{"vmid":101,"status":"ok","started_at":"2026-06-08T01:00:00Z","finished_at":"2026-06-08T01:07:31Z"}]`

// What did not change makes no rows, and what the hub cannot be sure of makes them
// again.
func TestRepeatedListsMakeNoRows(t *testing.T) {
	f := newFixture(t)
	store := &tally{faulty: &faulty{DB: f.db}}
	s, stop := f.start(store)
	ship := func(lists string, times int) {
		t.Helper()
		for range times {
			f.send(lists)
			f.drained(s)
		}
	}
	want := func(what, rows string) {
		t.Helper()
		if got := store.sent(); got != rows {
			t.Errorf("%s: %s rows were sent, want %s", what, got, rows)
		}
	}
	const entry = `,"audit_tail":[{"at":"2026-06-08T09:20:11Z","actor":"root@pam"}]`
	ship(backups, 20)
	want("one list, repeated", "1 0 3")
	ship(backups+entry, 5)
	want("one more", "1 1 3")
	ship(`"guests":[{"vmid":101},{"vmid":103}]`, 5)
	want("another guest, no lists", "1 1 5")
	ship(backups+entry, 5)
	want("the lists are back, and the guest", "1 1 7")
	stop()
	f.reopen()
	for range 30 { // in few cuts
		f.send(backups + entry)
	}
	s, _ = f.start(store)
	f.drained(s)
	want("a restart of the hub", "2 2 10")
	f.want("SELECT ((SELECT count() FROM backup_reports), (SELECT count() FROM agent_audit))", "(1,1)")
}

// A server that lost the items has them again, also those of lists that no later
// report repeats.
func TestLostItemsComeBack(t *testing.T) {
	f := newFixture(t)
	store := &faulty{DB: f.db}
	s, _ := f.start(store)
	f.send(backups)
	for range 3 {
		f.send(`"guests":[{"vmid":7}],"pbs_snapshots":[{"vmid":7,"taken_at":"2150-06-08T01:00:00Z","verified":true}]`)
	}
	f.drained(s)
	f.rechecked(s, 1)
	items := func() string {
		return f.text("SELECT ((SELECT groupArray((vmid, received_at, succeeded_at)) FROM backup_reports), (SELECT groupArray((vmid, received_at, succeeded_at)) FROM pbs_snapshot_reports), " +
			"(SELECT groupArray((vmid, first_seen_at, backup_at, pbs_verify_at)) FROM (SELECT * FROM guest_deadlines FINAL ORDER BY vmid)), (SELECT groupArray((item, received_at)) FROM (SELECT * FROM successes_ahead FINAL)))")
	}
	had := items()
	f.lose("TRUNCATE TABLE backup_items", "TRUNCATE TABLE pbs_snapshot_items", "TRUNCATE TABLE guest_deadlines", "TRUNCATE TABLE successes_ahead")
	if items() == had {
		t.Fatal("nothing was lost")
	}
	store.boots.Add(1)
	f.rechecked(s, 2)
	if got := items(); got != had {
		t.Errorf("after the restart\n%s\nbefore\n%s", got, had)
	}
}

// A row that ClickHouse does not take costs its record, and holds nothing up.
func TestRefusedItemsAreSetAside(t *testing.T) {
	f := newFixture(t)
	f.exec("ALTER TABLE backup_items ADD CONSTRAINT bad CHECK vmid != 7")
	for i := range 20 {
		f.send(fmt.Sprintf(`"guests":[{"vmid":%d}],"backups":[{"vmid":%[1]d,"started_at":"2026-06-08T01:00:00Z"}]`, 1+i))
	}
	s, _ := f.start(f.db)
	f.drained(s)
	f.want("SELECT count() FROM backup_reports", "19")
	f.want("SELECT count() FROM host_reports", "20")
	f.want("SELECT groupArray(reason LIKE '%backup_items%') FROM rejected_reports", "[1]")
	if st := s.Status(); st.SetAside != 1 {
		t.Errorf("status: %+v", st)
	}
}

// An agent's clock that is years ahead does not push a deadline away by repeating,
// in whatever cuts, nor over a restart of the hub.
func TestClockAheadOverRestarts(t *testing.T) {
	for _, lead := range []time.Duration{48 * time.Hour, 10 * 365 * 24 * time.Hour} {
		f := newFixture(t)
		own := time.Now().Add(lead).UTC().Format(time.RFC3339)
		list := fmt.Sprintf(`"guests":[{"vmid":7}],"backups":[{"vmid":7,"status":"ok","started_at":%q,"finished_at":%[1]q}]`, own)
		var first hub.Receipt
		for i := range 50 {
			if i%17 == 0 && i > 0 {
				f.reopen()
			}
			s, stop := f.start(f.db)
			// Another entry each time: the list is new, and its success is not.
			r := f.send(list[:len(list)-1] + fmt.Sprintf(`,{"vmid":7,"status":"failed","started_at":"2026-06-08T01:%02d:00Z"}]`, i))
			if i == 0 {
				first = r
			}
			f.drained(s)
			stop()
		}
		f.want("SELECT max(backup_at) FROM guest_deadlines", first.ReceivedAt.UTC().Format("2006-01-02 15:04:05.000"))
		f.want("SELECT max(succeeded_at) FROM backup_reports", first.ReceivedAt.UTC().Format("2006-01-02 15:04:05.000"))
	}
}
