package ship_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func (f *fixture) exec(sql string) {
	f.t.Helper()
	if err := f.conn.Exec(f.t.Context(), sql); err != nil {
		f.t.Fatal(err)
	}
}

// text returns one value as text.
func (f *fixture) text(sql string) (v string) {
	f.t.Helper()
	if err := f.conn.QueryRow(f.t.Context(), "SELECT toString(("+sql+"))").Scan(&v); err != nil {
		f.t.Fatal(err)
	}
	return v
}

// want compares values as text.
func (f *fixture) want(sql, want string) {
	f.t.Helper()
	if got := f.text(sql); got != want {
		f.t.Errorf("%s\ngot  %s\nwant %s", sql, got, want)
	}
}

const refusedUptimes = "SELECT arraySort(groupArray(JSONExtractUInt(body, 'host', 'uptime_seconds'))) FROM rejected_reports"

func TestI12_RefusedRecordsDoNotBlockLaterOnes(t *testing.T) {
	f := newFixture(t)
	f.exec("ALTER TABLE host_reports ADD CONSTRAINT bad CHECK uptime_seconds NOT IN (7, 8, 140)")
	f.exec("ALTER TABLE guest_reports ADD CONSTRAINT bad CHECK vmid NOT IN (1008, 1009)")
	f.append(300)
	s, _ := f.start(f.db)
	f.drained(s)
	f.want("SELECT (count(), uniqExact(spool_seq)) FROM host_reports", "(297,297)")
	f.want("SELECT (count(), uniqExact(spool_seq, vmid)) FROM guest_reports", "(596,596)") // of 8 and 9 neither guest: a record is taken whole or not
	f.want("SELECT count() FROM host_report_bodies", "300")
	f.want(refusedUptimes, "[7,8,9,140]")
	f.want("SELECT countIf(reason LIKE '%host_reports%' AND reason LIKE '%guest_reports%') FROM rejected_reports", "1") // 8
	if st := s.Status(); st.SetAside != 4 || st.LastError != "" {
		t.Errorf("status: %+v", st)
	}
	began := time.Now()
	f.append(50)
	f.drained(s)
	f.want("SELECT count() FROM host_reports", "347")
	t.Logf("fifty later ones after %s", time.Since(began))
}

// The hub stops at any moment while it looks for the bad records, and replies of
// ClickHouse are lost.
func TestI12_RestartsWhileBadRecordsAreLookedFor(t *testing.T) {
	f := newFixture(t)
	f.exec("ALTER TABLE host_reports ADD CONSTRAINT bad CHECK uptime_seconds NOT IN (7, 99, 150)")
	store := &faulty{DB: f.db}
	store.lose.Store(2)
	f.append(200)
	for range 12 {
		_, stop := f.start(store)
		time.Sleep(50*time.Millisecond + rand.N(250*time.Millisecond))
		stop()
		f.reopen()
	}
	s, _ := f.start(f.db)
	f.drained(s)
	f.want("SELECT (count(), uniqExact(spool_seq)) FROM host_reports", "(197,197)")
	f.want("SELECT (count(), uniqExact(spool_seq, vmid)) FROM guest_reports", "(400,400)")
	f.want(refusedUptimes, "[7,99,150]")
	if st := s.Status(); st.Doubled != 0 {
		t.Errorf("status: %+v", st)
	}
}

// A table that takes nothing is not a thousand bad records: nothing is set aside,
// and everything arrives when the table is mended.
func TestI12_TableThatRefusesEverythingIsWaitedFor(t *testing.T) {
	for name, sql := range map[string][2]string{
		"constraint": {"ALTER TABLE host_reports ADD CONSTRAINT never CHECK 0", "ALTER TABLE host_reports DROP CONSTRAINT never"},
		"type":       {"ALTER TABLE host_reports MODIFY COLUMN rejected_total UInt8", "ALTER TABLE host_reports MODIFY COLUMN rejected_total UInt32"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.exec(sql[0])
			f.append(150)
			s, _ := f.start(f.db)
			for deadline := time.Now().Add(time.Minute); s.Status().LastError == "" || s.Status().LastError[:len(everyRecord)] != everyRecord; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("no alarm: %+v", s.Status())
				}
			}
			f.want("SELECT count() FROM host_reports", "0")
			f.exec(sql[1])
			f.drained(s)
			f.exactlyOnce(150)
			f.want("SELECT count() FROM rejected_reports", "0")
			if st := s.Status(); st.SetAside != 0 {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

const everyRecord = "ClickHouse refuses every record"

// What a retry may mend is waited for, and the block is the same each time.
func TestI12_RetriableErrorsNeverGrowTheBatch(t *testing.T) {
	f := newFixture(t)
	store := &recorder{faulty: &faulty{DB: f.db}}
	store.fail.Store(true)
	f.append(50)
	s, _ := f.start(store)
	for s.Status().Failures < 3 {
		time.Sleep(time.Millisecond)
	}
	f.append(500)
	for s.Status().Failures < 5 {
		time.Sleep(time.Millisecond)
	}
	store.fail.Store(false)
	f.drained(s)
	f.exactlyOnce(550)
	store.sameBytes(t)
	if n := store.rows(fmt.Sprintf("%s/host_report_bodies", f.text("SELECT any(spool_id) FROM host_reports"))); n != 50 {
		t.Errorf("the first block had %d rows when it was taken, want 50", n)
	}
}
