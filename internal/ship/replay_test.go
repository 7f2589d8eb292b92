package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/audit"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/spool"
)

// laterKind is a kind of a later hub: its bodies are host reports.
const laterKind hub.RecordKind = 77

// rejects is a fixture whose hub writes rejected records to files.
type rejects struct {
	*fixture
	store *rejected.Store
	into  string
}

func newRejects(t *testing.T) *rejects {
	t.Helper()
	f := &rejects{fixture: newFixture(t), into: filepath.Join(t.TempDir(), "rejected")}
	var err error
	if f.store, err = rejected.Open(f.into); err != nil {
		t.Fatal(err)
	}
	return f
}

// later appends n records of the later kind.
func (f *rejects) later(n int) {
	f.t.Helper()
	for range n {
		f.n++
		body := fmt.Appendf(nil, `{"host_id":"acme-9","reported_at":"2026-06-08T09:15:00Z","agent_version":"t","host":{"uptime_seconds":%d},`+
			`"guests":[{"vmid":101,"status":"running"},{"vmid":%d,"status":"stopped"}]}`, f.n, 1000+f.n)
		f.add(spool.Record{Kind: laterKind, HostID: "acme-9", CustomerID: "acme", KeyID: "k1", Body: body})
	}
}

func (f *rejects) add(r spool.Record) {
	f.t.Helper()
	if _, err := f.sp.Append(context.Background(), r); err != nil {
		f.t.Fatal(err)
	}
}

// run runs a shipper; learned, it is one of a hub that knows the later kind.
func (f *rejects) run(store ship.Store, keep ship.Rejected, learned bool) (s *ship.Shipper, stop func()) {
	f.t.Helper()
	s = ship.New(ship.Options{Spool: f.sp, Store: store, Linger: time.Millisecond, Logger: quiet, Rejected: keep})
	if learned {
		s.Learn(laterKind)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	f.t.Cleanup(stop)
	return s, stop
}

// kept returns what the files hold, whole.
func (f *rejects) kept() (whole []rejected.Record, replayed int) {
	f.t.Helper()
	c, err := rejected.Read(f.into)
	if err != nil || len(c.Damage) > 0 {
		f.t.Fatal(c.Damage, err)
	}
	for _, e := range c.Entries {
		r, err := e.Load()
		if err != nil {
			f.t.Fatal(err)
		}
		if whole = append(whole, r); !e.ReplayedAt.IsZero() {
			replayed++
		}
	}
	return whole, replayed
}

// count asks ClickHouse for a number.
func (f *rejects) count(sql string) (n uint64) {
	f.t.Helper()
	if err := f.conn.QueryRow(f.t.Context(), sql).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// clean checks that an audit finds nothing.
func (f *rejects) clean() {
	f.t.Helper()
	r, err := audit.Run(f.t.Context(), audit.Options{Spool: spool.Folder(f.dir), Store: f.db, Now: time.Now()})
	if err != nil || r.Gaps+r.Doubles > 0 {
		f.t.Errorf("the audit says %v %v", r.Findings, err)
	}
}

func (f *rejects) replay(s *ship.Shipper, dry bool) []ship.Replayed {
	f.t.Helper()
	records, _ := f.kept()
	done, err := s.Replay(f.t.Context(), records, dry)
	if err != nil {
		f.t.Fatal(err)
	}
	return done
}

// A record that cannot become rows goes to the file and to the table, whole and
// with its reason, and holds up nothing.
func TestRejectedRecordsAreKept(t *testing.T) {
	f := newRejects(t)
	f.append(10)
	f.later(2)
	f.add(spool.Record{Kind: hub.KindHostReport, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Body: []byte("no report")})
	f.append(10)
	s, _ := f.run(f.db, f.store, false)
	f.drained(s)
	if n := f.count("SELECT count() FROM host_reports"); n != 20 {
		t.Errorf("%d reports, want 20", n)
	}
	records, replayed := f.kept()
	if len(records) != 3 || replayed != 0 || s.Status().Rejected != 3 || s.Status().Unkept != 0 {
		t.Fatalf("%d records, %d replayed, %+v", len(records), replayed, s.Status())
	}
	for _, r := range records {
		n := f.count(fmt.Sprintf("SELECT count() FROM rejected_reports WHERE spool_id = '%s' AND spool_seq = %d AND hex(body) = '%X' AND reason = '%s' AND host_id = '%s' AND kind = %d AND received_at = fromUnixTimestamp64Milli(%d)",
			r.SpoolID, r.Seq, r.Body, strings.ReplaceAll(r.Reason, "'", "\\'"), r.HostID, r.Kind, r.ReceivedAt.UnixMilli()))
		if n != 1 || r.Reason == "" || r.CustomerID != "acme" || r.KeyID != "k1" || time.Since(r.RejectedAt) > time.Minute {
			t.Errorf("%d rows as %+v", n, r)
		}
	}
	if !bytes.Equal(records[2].Body, []byte("no report")) {
		t.Errorf("body %q", records[2].Body)
	}
	f.clean()
}

// A file that cannot be written holds nothing up: the table has the record.
func TestRejectedWithoutTheFile(t *testing.T) {
	f := newRejects(t)
	f.later(2)
	f.append(1)
	s, _ := f.run(f.db, broken{f.store}, false)
	f.drained(s)
	if st := s.Status(); st.Rejected != 2 || st.Unkept != 2 || f.count("SELECT count() FROM rejected_reports") != 2 {
		t.Errorf("%+v", st)
	}
}

type broken struct{ ship.Rejected }

func (broken) Append(...rejected.Record) error { return rejected.ErrFull }

func TestReplay(t *testing.T) {
	f := newRejects(t)
	f.append(5)
	f.later(3)
	f.add(spool.Record{Kind: hub.KindHostReport, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Body: []byte("no report")})
	s, stop := f.run(f.db, f.store, false)
	f.drained(s)

	// This hub cannot read them either: it says why, and changes nothing.
	for _, d := range f.replay(s, false) {
		if d.Inserted || d.Reason == "" {
			t.Errorf("%+v", d)
		}
	}
	if _, replayed := f.kept(); replayed != 0 || f.count("SELECT count() FROM rejected_reports") != 4 {
		t.Error("a replay that could not be changed something")
	}

	stop()
	f.reopen()
	s, _ = f.run(f.db, f.store, true)
	for i, d := range f.replay(s, true) {
		if d.Inserted != (i < 3) || (d.Reason == "") != (i < 3) {
			t.Errorf("it would: %+v", d)
		}
	}
	if n := f.count("SELECT count() FROM host_reports"); n != 5 || s.Status().Replayed != 0 {
		t.Errorf("a dry run inserted %d", n-5)
	}
	for i, d := range f.replay(s, false) {
		if d.Inserted != (i < 3) || (d.Reason == "") != (i < 3) {
			t.Errorf("it did: %+v", d)
		}
	}
	f.exactlyOnce(8)
	f.clean()
	records, replayed := f.kept()
	if n := f.count("SELECT count() FROM rejected_reports"); replayed != 3 || n != 1 || s.Status().Replayed != 3 {
		t.Errorf("%d marked, %d still in rejected_reports, %+v", replayed, n, s.Status())
	}
	for _, r := range records[:3] {
		if n := f.count(fmt.Sprintf("SELECT count() FROM host_reports WHERE spool_id = '%s' AND spool_seq = %d AND customer_id = 'acme' AND key_id = 'k1' AND received_at = fromUnixTimestamp64Milli(%d)",
			r.SpoolID, r.Seq, r.ReceivedAt.UnixMilli())); n != 1 {
			t.Errorf("%d rows at the position of %+v", n, r)
		}
	}

	// Once more: nothing happens.
	for i, d := range f.replay(s, false) {
		if d.Inserted || (d.Reason == "") != (i < 3) {
			t.Errorf("again: %+v", d)
		}
	}
	f.exactlyOnce(8)
	f.clean()
}

// Beside reports that are being shipped.
func TestReplayUnderLoad(t *testing.T) {
	f := newRejects(t)
	f.later(5)
	s, stop := f.run(f.db, f.store, false)
	f.drained(s)
	stop()
	f.reopen()
	s, _ = f.run(f.db, f.store, true)
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := range 1000 {
			if err := f.appendReport(context.Background(), 10_000+n); err != nil {
				f.t.Error(err)
			}
		}
	})
	for range 2 {
		f.replay(s, false)
	}
	sending.Wait()
	f.drained(s)
	f.exactlyOnce(1005)
	f.clean()
}

// interrupted is a ClickHouse and a folder that fail once, at the step-th call: each
// fault in two twins, what the call did is lost or kept.
type interrupted struct {
	*clickhouse.DB
	ship.Rejected
	step int
	kept bool
}

var errFault = errors.New("killed here")

func (f *interrupted) do(call func() error) error {
	f.step--
	if f.step != 0 {
		return call()
	}
	if f.kept {
		if err := call(); err != nil {
			return err
		}
	}
	return errFault
}

func (f *interrupted) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	return f.do(func() error { return f.DB.Insert(ctx, b, table, token) })
}

func (f *interrupted) Count(ctx context.Context, table string, r clickhouse.Range) (n uint64, err error) {
	err = f.do(func() error { n, err = f.DB.Count(ctx, table, r); return err })
	return n, err
}

func (f *interrupted) TakeRejected(ctx context.Context, positions []hub.Position) error {
	return f.do(func() error { return f.DB.TakeRejected(ctx, positions) })
}

func (f *interrupted) MarkReplayed(positions ...hub.Position) error {
	return f.do(func() error { return f.Rejected.MarkReplayed(positions...) })
}

// However far a replay came before the hub died, the next one completes it.
func TestReplayInterruptedAtEachStep(t *testing.T) {
	f := newRejects(t)
	rows := 0
	for step := 1; ; step++ {
		var err error
		for _, kept := range []bool{false, true} {
			f.later(1)
			rows++
			s, stop := f.run(f.db, f.store, false)
			f.drained(s)
			stop()
			records, _ := f.kept()
			records = records[len(records)-1:]

			f.reopen()
			fault := &interrupted{DB: f.db, Rejected: f.store, step: step, kept: kept}
			s, stop = f.run(fault, fault, true)
			if _, err = s.Replay(t.Context(), records, false); err != nil && !errors.Is(err, errFault) {
				t.Fatal(err)
			}
			stop()

			f.reopen()
			s, stop = f.run(f.db, f.store, true)
			done, err := s.Replay(t.Context(), records, false)
			if err != nil || len(done) != 1 || done[0].Reason != "" {
				t.Fatalf("step %d, kept %v: %+v, %v", step, kept, done, err)
			}
			stop()
			f.exactlyOnce(rows)
			f.clean()
			if all, replayed := f.kept(); replayed != len(all) || f.count("SELECT count() FROM rejected_reports") != 0 {
				t.Errorf("step %d, kept %v: %d of %d marked", step, kept, replayed, len(all))
			}
			f.reopen()
		}
		if t.Failed() {
			return
		}
		if err == nil {
			if step != 3*3+1+2+1 { // look, insert and look, in three tables; insert into guest_deadlines; then the row and the mark
				t.Errorf("%d steps", step-1)
			}
			return
		}
	}
}

// What ClickHouse acknowledged and lost is sent again, under another token.
func TestReplayOfALostPart(t *testing.T) {
	f := newRejects(t)
	f.later(1)
	s, stop := f.run(f.db, f.store, false)
	f.drained(s)
	stop()
	f.reopen()
	s, _ = f.run(f.db, f.store, true)
	f.replay(s, false)
	for _, table := range []string{"host_reports", "guest_reports"} {
		if err := f.conn.Exec(t.Context(), "ALTER TABLE "+table+" DELETE WHERE 1 SETTINGS mutations_sync = 2"); err != nil {
			t.Fatal(err)
		}
	}
	if d := f.replay(s, false); !d[0].Inserted {
		t.Errorf("%+v", d)
	}
	f.exactlyOnce(1)
	f.clean()
}

// While ClickHouse is away there is no time between two cuts.
func TestReplayWithoutClickHouse(t *testing.T) {
	f := newRejects(t)
	f.later(1)
	s, _ := f.run(away{f.db}, f.store, true)
	for s.Status().Failures == 0 {
		time.Sleep(time.Millisecond)
	}
	s.WaitForReplay(20 * time.Millisecond)
	records, _ := f.kept()
	if _, err := s.Replay(t.Context(), records, false); hub.CodeOf(err) != hub.Unavailable {
		t.Errorf("%v", err)
	}
}

type away struct{ ship.Store }

func (away) Boot(context.Context) (string, error) { return "", errors.New("away") }

// What ClickHouse refused, in one table or in all, becomes rows when the tables are
// mended; until then the replay says why it does not.
func TestReplayOfRefusedRecords(t *testing.T) {
	f := newRejects(t)
	f.exec("ALTER TABLE host_reports ADD CONSTRAINT bad CHECK uptime_seconds NOT IN (7, 8)")
	f.exec("ALTER TABLE guest_reports ADD CONSTRAINT bad CHECK vmid NOT IN (1008, 1009)")
	f.append(20)
	s := ship.New(ship.Options{Spool: f.sp, Store: f.db, Linger: time.Millisecond, Patience: time.Millisecond, Logger: quiet, Rejected: f.store})
	go s.Run(t.Context())
	f.drained(s)
	records, _ := f.kept()
	if st := s.Status(); len(records) != 3 || st.SetAside != 3 || st.Rejected != 3 || !strings.Contains(records[0].Reason, "host_reports") {
		t.Fatalf("%d records, %+v", len(records), st)
	}
	f.clean()
	for i, d := range f.replay(s, false) {
		if d.Reason == "" || (i == 2) != strings.Contains(d.Reason, "guest_reports") {
			t.Errorf("%+v", d)
		}
	}
	f.want("SELECT count() FROM rejected_reports", "3")
	f.clean()
	f.exec("ALTER TABLE host_reports DROP CONSTRAINT bad")
	f.exec("ALTER TABLE guest_reports DROP CONSTRAINT bad")
	for _, d := range f.replay(s, false) {
		if d.Reason != "" || !d.Inserted {
			t.Errorf("mended: %+v", d)
		}
	}
	f.exactlyOnce(20)
	f.want("SELECT count() FROM rejected_reports", "0")
	f.clean()
}
