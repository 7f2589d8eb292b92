package clickhouse_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
)

func reportUnder(key string, seq uint64, at time.Time, host string) clickhouse.ReportRow {
	r := report(seq, at, host)
	r.KeyID = key
	return r
}

// uses is KeyUses as text: minutes after epoch by key id.
func uses(t *testing.T, db *clickhouse.DB, owner hub.Owner) string {
	t.Helper()
	got, err := db.KeyUses(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, id := range slices.Sorted(maps.Keys(got)) {
		said = append(said, fmt.Sprint(id, " ", got[id].Sub(epoch).Minutes()))
	}
	return strings.Join(said, ", ")
}

func TestLastUseOfKeys(t *testing.T) {
	db, conn := open(t)
	minute := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }
	insert(t, db, "a",
		reportUnder("k1", 1, minute(1), "acme-1"), reportUnder("k1", 2, minute(2), "acme-1"), reportUnder("k2", 3, minute(3), "acme-1"),
		reportUnder("k1", 4, minute(4), "acme-10"), reportUnder("fleet/k1", 5, minute(5), "acme-1"), reportUnder("fleet/k1", 6, minute(6), "acme-10"))
	check := func(when string) {
		t.Helper()
		for owner, want := range map[hub.Owner]string{
			hub.HostOwner("acme-1"):    "k1 2, k2 3",
			hub.HostOwner("acme-10"):   "k1 4",
			hub.HostOwner("acme-2"):    "",
			hub.CustomerOwner("acme"):  "",
			hub.FleetOwner():           "k1 6",
			hub.CustomerOwner("fleet"): "",
		} {
			if got := uses(t, db, owner); got != want {
				t.Errorf("%s, %s: %q, want %q", when, owner, got, want)
			}
		}
		var all []string
		if err := db.LastKeyUses(t.Context(), func(owner hub.Owner, id string, at time.Time) {
			all = append(all, fmt.Sprint(owner, " ", id, " ", at.Sub(epoch).Minutes()))
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(all)
		if got, want := fmt.Sprint(all), "[fleet k1 6 host/acme-1 k1 2 host/acme-1 k2 3 host/acme-10 k1 4]"; got != want {
			t.Errorf("%s: LastKeyUses %s, want %s", when, got, want)
		}
	}
	check("fed by the view")
	refeed := func() {
		t.Helper()
		if err := db.Refeed(t.Context(), "host_reports", clickhouse.Range{SpoolID: spoolID, First: 1, Last: 6}); err != nil {
			t.Fatal(err)
		}
	}
	refeed()
	check("fed twice")
	if err := conn.Exec(t.Context(), "TRUNCATE TABLE key_last"); err != nil {
		t.Fatal(err)
	}
	refeed()
	check("fed again")
}

// A key that was removed does not lend its uses to a later one of the same id:
// who waits for the successor's first use would otherwise be told of it at once.
func TestKeyThatComesAgainIsUnused(t *testing.T) {
	db, conn := open(t)
	owner := hub.HostOwner("acme-1")
	r := clickhouse.NewRegister(db)
	state := func(minute int, lifecycle hub.Lifecycle, keys ...hub.Key) {
		t.Helper()
		f := fleet(t, &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: lifecycle, Keys: keys})
		if err := r.Sync(t.Context(), f, epoch.Add(time.Duration(minute)*time.Minute), base); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when, api, view string) {
		t.Helper()
		if got := uses(t, db, owner); got != api {
			t.Errorf("%s: KeyUses %q, want %q", when, got, api)
		}
		if got := one[string](t, conn, `SELECT arrayStringConcat(arraySort(groupArray(concat(key_id, ' ', customer_id, ' ', host_id, ' ',
			ifNull(toString(dateDiff('minute', ?, last_used_at)), 'never'), ' ', ifNull(toString(not_after), 'for ever')))), ', ') FROM fleet_keys`, epoch); got != view {
			t.Errorf("%s: fleet_keys %q, want %q", when, got, view)
		}
	}
	k1, k2 := keyOf(owner, "k1", time.Time{}), keyOf(owner, "k2", epoch.AddDate(1, 0, 0))
	insert(t, db, "a", reportUnder("k1", 1, epoch.Add(time.Minute), "acme-1"))
	expect("before the register is written", "k1 1", "")
	state(5, hub.Active, k1, k2)
	expect("used before the register was written", "k1 1", "k1 acme acme-1 1 for ever, k2 acme acme-1 never 2027-06-08 09:00:00.000")
	state(10, hub.Active, k2)
	expect("removed", "", "k2 acme acme-1 never 2027-06-08 09:00:00.000")
	state(15, hub.Active, keyOf(owner, "k1", time.Time{}))
	expect("come again", "", "k1 acme acme-1 never for ever")
	insert(t, db, "b", reportUnder("k1", 2, epoch.Add(20*time.Minute), "acme-1"))
	expect("used again", "k1 20", "k1 acme acme-1 20 for ever")
	state(25, hub.Retired, k1)
	expect("retired", "", "")
}

func TestNoticeTwiceUnderOneTokenIsOnce(t *testing.T) {
	db, conn := open(t)
	var b clickhouse.Batch
	b.AddNotice(hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: 1}, ReceivedAt: epoch}, hub.Notice{
		Commits: []hub.FleetCommit{{Revision: "r1", Author: "Zoë <zoe@example.com>", CommittedAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Subject: "s", Signer: "z",
			Verdict: hub.CommitRejected, Reason: "fleet_rejected", Why: "w", DecidedAt: epoch, Hosts: 1, Added: 2, Removed: 3, Changed: 4, BadFiles: 5}},
		Events: []hub.Event{{ID: "e", Type: hub.FleetRejected, At: epoch, DetectedAt: epoch, Source: "fleet"}},
	})
	for range 2 {
		insertBatch(t, db, "n", &b)
	}
	got := one[[]string](t, conn, "SELECT groupArray(toString(tuple(* EXCEPT spool_id))) FROM fleet_commits")
	want := "[('r1','Zoë <zoe@example.com>','2262-04-11 00:00:00.000','s','z','rejected','fleet_rejected','w','2026-06-08 09:00:00.000',1,2,3,4,5,1)]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := one[[]string](t, conn, "SELECT groupArray(concat(type, ' ', severity, ' ', source)) FROM events"); fmt.Sprint(got) != "[fleet_rejected warning fleet]" {
		t.Errorf("events: %s", got)
	}
}

// What was reported before the step that knows of last uses is not forgotten.
func TestUsesOfOlderReportsAreFoundAtTheMigration(t *testing.T) {
	db, err := clickhouse.Open(clickhouse.Options{DSN: enginetest.DSN(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.MigrateTo(t.Context(), 5, epoch); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "a", reportUnder("k1", 1, epoch, "acme-1"), reportUnder("fleet/g", 2, epoch.Add(time.Minute), "acme-2"))
	insert(t, db, "b", reportUnder("k1", 3, epoch.AddDate(0, 0, 1), "acme-1"))
	steps, err := db.Migrate(t.Context(), epoch)
	if err != nil || len(steps) == 0 || steps[0].Version != 6 {
		t.Fatalf("%v, %v", steps, err)
	}
	insert(t, db, "c", reportUnder("k2", 4, epoch.Add(2*time.Minute), "acme-1"))
	if got, want := uses(t, db, hub.HostOwner("acme-1")), "k1 1440, k2 2"; got != want {
		t.Errorf("host: %q, want %q", got, want)
	}
	if got, want := uses(t, db, hub.FleetOwner()), "g 1"; got != want {
		t.Errorf("fleet: %q, want %q", got, want)
	}
}

// Analysts may read the whole schema but what is for operators only, by whatever
// name it can be reached.
func TestWhatAnalystsMayRead(t *testing.T) {
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
	tables, err := e.Query(t.Context(), engine.RoleHub, "SELECT name FROM system.tables WHERE database = 'hub' ORDER BY name FORMAT TSV")
	if err != nil {
		t.Fatal(err)
	}
	var denied []string
	for _, table := range strings.Fields(string(tables)) {
		_, err := e.Query(t.Context(), engine.RoleAnalyst, "SELECT count() FROM hub."+table+" WHERE NOT ignore(*)")
		switch {
		case err == nil:
		case strings.Contains(err.Error(), "ACCESS_DENIED"):
			denied = append(denied, table)
		default:
			t.Errorf("%s: %v", table, err)
		}
	}
	if got, want := fmt.Sprint(denied), "[controller_key_last_feed fleet_key_changes fleet_keys hub_heartbeats key_last key_last_feed rejected_reports]"; got != want {
		t.Errorf("denied %s, want %s", got, want)
	}
}
