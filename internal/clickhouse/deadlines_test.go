package clickhouse_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

func overdue(t *testing.T, db *clickhouse.DB, cuts [3]time.Time, named ...string) string {
	t.Helper()
	found, err := db.Overdue(t.Context(), cuts, named)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(found, func(a, b clickhouse.GuestSuccess) int {
		return cmp.Or(cmp.Compare(a.HostID, b.HostID), cmp.Compare(a.VMID, b.VMID))
	})
	minutes := func(at time.Time) string {
		if at.IsZero() {
			return "-"
		}
		return fmt.Sprint(at.Sub(epoch).Minutes())
	}
	var lines []string
	for _, g := range found {
		lines = append(lines, fmt.Sprintf("%s seen %s: %s %s %s last %s %t", hub.GuestID(g.HostID, g.VMID), minutes(g.FirstSeen),
			minutes(g.Newest[0]), minutes(g.Newest[1]), minutes(g.Newest[2]), minutes(g.HostLastAt), g.Present))
	}
	return strings.Join(lines, "; ")
}

func TestOverdue(t *testing.T) {
	db, _ := open(t)
	at := func(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }
	first := report(1, at(0), "acme-1", hub.Guest{VMID: 101}, hub.Guest{VMID: 102})
	second := report(2, at(50), "acme-1", hub.Guest{VMID: 101}, hub.Guest{VMID: 103})
	second.Report.Backups = []hub.Backup{{VMID: 101, Status: "ok", StartedAt: at(29), FinishedAt: at(30)}, {VMID: 102, Status: "failed", StartedAt: at(29), FinishedAt: at(40)}}
	second.Report.PBSSnapshots = []hub.PBSSnapshot{{VMID: 9, TakenAt: at(10), Verified: true}}
	insert(t, db, "a", first)
	insert(t, db, "b", second)
	insertSections(t, db, &clickhouse.Ahead{}, first, second, first, second)
	const (
		g101 = "acme-1/101 seen 0: 30 - - last 50 true"
		g102 = "acme-1/102 seen 0: - - - last 50 false"
		g103 = "acme-1/103 seen 50: - - - last 50 true"
		g9   = "acme-1/9 seen -: - - 10 last 50 false"
	)
	for _, c := range []struct {
		cuts  [3]time.Time
		named []string
		want  string
	}{
		{[3]time.Time{}, nil, ""},
		{[3]time.Time{at(0)}, nil, g102},
		{[3]time.Time{at(0).Add(-time.Millisecond)}, nil, ""},
		{[3]time.Time{at(29)}, nil, g102},
		{[3]time.Time{at(30)}, nil, g101 + "; " + g102}, // at the cut is overdue
		{[3]time.Time{{}, at(29)}, nil, g101 + "; " + g102},
		{[3]time.Time{at(30), {}, at(50)}, nil, g101 + "; " + g102 + "; " + g103}, // 9 was never listed
		{[3]time.Time{at(0)}, []string{"acme-1/103", "acme-1/102", "acme-1/9", "acme-1/9", "other/1", "no guest"}, g9 + "; " + g102 + "; " + g103},
		{[3]time.Time{}, []string{"acme-1/101"}, g101},
	} {
		if got := overdue(t, db, c.cuts, c.named...); got != c.want {
			t.Errorf("%v %v\ngot  %s\nwant %s", c.cuts, c.named, got, c.want)
		}
	}
}

// A report whose guests are not there yet, because it is just being inserted, does
// not make them absent; one that lists none does.
func TestPresenceWhileAReportIsInserted(t *testing.T) {
	db, _ := open(t)
	guests := []hub.Guest{{VMID: 101}, {VMID: 102}}
	first, second, third := report(1, epoch, "acme-1", guests...), report(2, epoch.Add(time.Minute), "acme-1", guests[:1]...), report(3, epoch.Add(2*time.Minute), "acme-1")
	insert(t, db, "a", first)
	insertSections(t, db, &clickhouse.Ahead{}, first)
	want := func(want string) {
		t.Helper()
		if got := overdue(t, db, [3]time.Time{}, "acme-1/101", "acme-1/102"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	var b clickhouse.Batch
	b.AddReport(second)
	for _, table := range []string{"host_report_bodies", "host_reports"} {
		if err := db.Insert(t.Context(), &b, table, "b/"+table); err != nil {
			t.Fatal(err)
		}
	}
	want("acme-1/101 seen 0: - - - last 0 true; acme-1/102 seen 0: - - - last 0 true")
	insertBatch(t, db, "b", &b)
	want("acme-1/101 seen 0: - - - last 1 true; acme-1/102 seen 0: - - - last 1 false")
	insert(t, db, "c", third)
	want("acme-1/101 seen 0: - - - last 2 false; acme-1/102 seen 0: - - - last 2 false")
}

func TestFirstSuccesses(t *testing.T) {
	db, _ := open(t)
	at := func(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }
	r := report(1, at(100), "acme-1")
	for _, m := range []int{10, 20, 30, 200} { // the last one is ahead of its time
		r.Report.Backups = append(r.Report.Backups, hub.Backup{VMID: 101, Status: "ok", StartedAt: at(m - 1), FinishedAt: at(m)})
		r.Report.RestoreTests = append(r.Report.RestoreTests, hub.RestoreTest{VMID: 101, Status: "failed", TestedAt: at(m)})
	}
	again := r
	again.Seq, again.ReceivedAt = 2, at(150)
	insertSections(t, db, &clickhouse.Ahead{}, r)
	insertSections(t, db, &clickhouse.Ahead{}, again) // a hub that forgot: the first row counts all the same
	for _, c := range []struct{ after, want int }{{-5, 10}, {10, 20}, {29, 30}, {30, 100}, {100, -1}, {140, -1}} {
		got, err := db.FirstSuccesses(t.Context(), hub.BackupDeadline, map[string]time.Time{"acme-1/101": at(c.after), "acme-1/102": at(0), "x": at(0)})
		if err != nil {
			t.Fatal(err)
		}
		if first, ok := got["acme-1/101"]; ok != (c.want >= 0) || ok && !first.Equal(at(c.want)) || len(got) > 1 {
			t.Errorf("after %d: %v, want %v", c.after, got, at(c.want))
		}
	}
	if got, err := db.FirstSuccesses(t.Context(), hub.RestoreTestDeadline, map[string]time.Time{"acme-1/101": {}}); len(got) > 0 || err != nil {
		t.Errorf("restore tests: %v, %v", got, err)
	}
	if got, err := db.FirstSuccesses(t.Context(), hub.BackupDeadline, map[string]time.Time{"acme-1/101": {}}); len(got) != 1 || err != nil {
		t.Errorf("after the zero time: %v, %v", got, err)
	}
}

// No SQL of the hub asks the server for the time: it has no part in what is judged.
func TestNoQueryReadsTheServersClock(t *testing.T) {
	clock := regexp.MustCompile(`(?i)\b(now|now64|today|yesterday|utc_?timestamp|current_timestamp|nowInBlock)\b\s*\(`)
	var files []string
	for _, pattern := range []string{"*.go", "schema/*.sql"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			code, _, _ := strings.Cut(strings.TrimSpace(line), "//")
			if clock.MatchString(code) && !strings.HasPrefix(code, "--") && !strings.Contains(code, "time.Now") {
				t.Errorf("%s:%d: %s", name, i+1, line)
			}
		}
	}
}

// BenchmarkOverdue asks for the overdue among a million guests of a hundred thousand
// hosts: one in a hundred, and all of them.
func BenchmarkOverdue(b *testing.B) {
	db, conn := openEmpty(b)
	if _, err := db.Migrate(b.Context(), epoch); err != nil {
		b.Fatal(err)
	}
	for _, sql := range []string{
		`INSERT INTO guest_deadlines SELECT concat('host-', toString(intDiv(number, 10))), toUInt32(101 + number % 10), fromUnixTimestamp64Milli(toInt64(1780000000000), 'UTC'),
			fromUnixTimestamp64Milli(toInt64(1790000000000 - if(number % 100 = 0, 200000000, 0)), 'UTC'), toDateTime64(0, 3, 'UTC'), toDateTime64(0, 3, 'UTC') FROM numbers(1000000)`,
		`INSERT INTO guest_deadlines SELECT concat('host-', toString(intDiv(number, 10))), toUInt32(101 + number % 10), toDateTime64('2262-04-11', 3, 'UTC'),
			fromUnixTimestamp64Milli(toInt64(1780000000000), 'UTC'), toDateTime64(0, 3, 'UTC'), toDateTime64(0, 3, 'UTC') FROM numbers(1000000) WHERE number % 20 = 0`,
		`INSERT INTO host_last SELECT concat('host-', toString(number)), fromUnixTimestamp64Milli(toInt64(1790000000000), 'UTC'), fromUnixTimestamp64Milli(toInt64(1790000000000), 'UTC'),
			'acme', '1', NULL, NULL, NULL, 10, 10, '', 'x', number, toUInt128(1) FROM numbers(100000)`,
		`INSERT INTO guest_last SELECT concat('host-', toString(intDiv(number, 10))), toUInt32(101 + number % 10), fromUnixTimestamp64Milli(toInt64(1790000000000), 'UTC'),
			'', 'running', '', intDiv(number, 10), toUInt128(1) FROM numbers(1000000)`,
	} {
		if err := conn.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		cut  int64
		want int
	}{"one in a hundred": {1789900000000, 10_000}, "all": {1790000000000, 1_000_000}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				found, err := db.Overdue(b.Context(), [3]time.Time{time.UnixMilli(c.cut)}, nil)
				if err != nil || len(found) != c.want || !found[0].Present {
					b.Fatalf("%d guests, %v", len(found), err)
				}
			}
		})
	}
}
