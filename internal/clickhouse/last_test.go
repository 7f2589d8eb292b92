package clickhouse_test

import (
	"fmt"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// The latest state is carried over from the aggregates of an older hub, wherever
// the step that does it was cut off before; also what the stream no longer has.
func TestLatestStateIsCarriedOver(t *testing.T) {
	statements := 1
	for n := 0; n <= statements; n++ {
		t.Run(fmt.Sprintf("cut off after %d", n), func(t *testing.T) {
			db, conn := openEmpty(t)
			if err := db.MigrateTo(t.Context(), 6, epoch); err != nil {
				t.Fatal(err)
			}
			insert(t, db, "a", report(1, epoch, "acme-1", hub.Guest{VMID: 101, Name: "old"}), report(2, epoch.Add(time.Minute), "acme-2"))
			insert(t, db, "b", report(3, epoch.AddDate(0, 0, 1), "acme-1", hub.Guest{VMID: 101, Name: "new"}, hub.Guest{VMID: 102}))
			if err := conn.Exec(t.Context(), "ALTER TABLE host_reports DROP PARTITION '"+epoch.Format(time.DateOnly)+"'"); err != nil {
				t.Fatal(err)
			}
			var err error
			if statements, err = db.ApplyPart(t.Context(), 7, n); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Migrate(t.Context(), epoch); err != nil {
				t.Fatal(err)
			}
			insert(t, db, "c", report(4, epoch.AddDate(0, 0, 1).Add(time.Hour), "acme-3", hub.Guest{VMID: 101, Name: "fresh"}))
			last := one[string](t, conn, "SELECT toString(groupArray((host_id, last_report_at, guest_total, spool_seq))) FROM (SELECT * FROM host_last FINAL ORDER BY host_id)")
			want := fmt.Sprintf("[('acme-1','%s',2,3),('acme-2','%s',0,2),('acme-3','%s',1,4)]",
				clock(epoch.AddDate(0, 0, 1)), clock(epoch.Add(time.Minute)), clock(epoch.AddDate(0, 0, 1).Add(time.Hour)))
			if last != want {
				t.Errorf("hosts %s\nwant  %s", last, want)
			}
			guests := one[string](t, conn, "SELECT toString(groupArray((host_id, vmid, name, spool_seq))) FROM (SELECT * FROM guest_last FINAL ORDER BY host_id, vmid)")
			if want := "[('acme-1',101,'new',3),('acme-1',102,'',3),('acme-3',101,'fresh',4)]"; guests != want {
				t.Errorf("guests %s\nwant   %s", guests, want)
			}
		})
	}
}

func clock(t time.Time) string { return t.Format("2006-01-02 15:04:05.000") }

// Two reports of one millisecond: the later in the spool counts, in whatever
// order they arrive.
func TestLatestOfOneMillisecond(t *testing.T) {
	db, conn := open(t)
	insert(t, db, "b", report(2, epoch, "acme-1", hub.Guest{VMID: 101, Name: "second"}))
	insert(t, db, "a", report(1, epoch, "acme-1", hub.Guest{VMID: 101, Name: "first"}))
	if err := db.Refeed(t.Context(), "guest_reports", clickhouse.Range{SpoolID: spoolID, First: 1, Last: 1}); err != nil {
		t.Fatal(err)
	}
	for _, merged := range []bool{false, true} {
		if merged {
			if err := conn.Exec(t.Context(), "OPTIMIZE TABLE guest_last FINAL"); err != nil {
				t.Fatal(err)
			}
		}
		if name := one[string](t, conn, "SELECT argMax(name, version) FROM guest_last"); name != "second" {
			t.Errorf("merged %v: %q", merged, name)
		}
	}
}
