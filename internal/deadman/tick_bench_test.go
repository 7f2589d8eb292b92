package deadman_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/deadman"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// nowhere is a journal that takes everything.
type nowhere struct{}

func (nowhere) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	return make([]hub.Receipt, len(records)), nil
}

// BenchmarkTick is one evaluation, the engine included, of a fleet that reports
// every 15 min and of which one host in a thousand is down.
func BenchmarkTick(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sw := fleetOf(b, n)
			now := epoch
			tick := func() {
				now = now.Add(time.Second)
				if err := sw.Tick(b.Context(), now); err != nil {
					b.Fatal(err)
				}
			}
			tick() // loads the states
			for b.Loop() {
				tick()
			}
		})
	}
}

// addNews has some of the hosts report a second later, in parts that are not merged
// yet: that is how the server finds the table in use.
func addNews(b *testing.B, conn ch.Conn, n int) {
	for part := range 8 {
		if err := conn.Exec(b.Context(), `
INSERT INTO host_last (host_id, last_report_at, spool_id, spool_seq, version)
SELECT host_id, last_report_at + INTERVAL 1 SECOND, spool_id, spool_seq + ?, 2 FROM host_last WHERE version = 1 AND cityHash64(host_id) % 20 = ?`, n, part); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTickDeadlines is one evaluation of 100,000 hosts with ten guests each, all
// of which have three deadlines; one in a hundred is overdue, and was told of.
func BenchmarkTickDeadlines(b *testing.B) {
	sw := fleetOf(b, 100_000, addGuests)
	now := epoch
	tick := func() {
		now = now.Add(time.Second)
		if err := sw.Tick(b.Context(), now); err != nil {
			b.Fatal(err)
		}
	}
	tick() // loads the states, and tells of what is overdue
	if st := sw.Status(); st.Events[hub.BackupDeadline.Overdue()] != 10_000 {
		b.Fatalf("%d backups are overdue", st.Events[hub.BackupDeadline.Overdue()])
	}
	for b.Loop() {
		tick()
	}
}

// addGuests gives every host ten guests, listed in its newest report.
func addGuests(b *testing.B, conn ch.Conn, n int) {
	const guest = "concat('acme-', leftPad(toString(intDiv(number, 10)), 8, '0')) AS host_id, toUInt32(101 + number % 10) AS vmid"
	success := func(ago string) string {
		return fmt.Sprintf("fromUnixTimestamp64Milli(toInt64(%d - %s), 'UTC')", epoch.UnixMilli(), ago)
	}
	for _, sql := range []string{
		"INSERT INTO guest_deadlines (host_id, vmid, first_seen_at, backup_at, restore_test_at, pbs_verify_at) SELECT " + guest + ", " + success("86400000 * 60") + ", " +
			success("if(number % 100 = 0, 86400000 * 2, number % 80000000)") + ", " + success("86400000 * (number % 30)") + ", " + success("86400000 * (number % 7)") + " FROM numbers(?)",
		"INSERT INTO guest_last (host_id, vmid, last_seen_at, spool_seq, version) SELECT g.host_id, g.vmid, h.last_report_at, h.spool_seq, h.version FROM (SELECT " + guest + " FROM numbers(?)) AS g " +
			"JOIN (SELECT * FROM host_last FINAL) AS h ON h.host_id = g.host_id",
	} {
		if err := conn.Exec(b.Context(), sql, n*10); err != nil {
			b.Fatal(err)
		}
	}
}

// fleetOf is a switch over n hosts whose history is generated, and what more adds.
func fleetOf(b *testing.B, n int, more ...func(b *testing.B, conn ch.Conn, n int)) *deadman.Switch {
	dsn := enginetest.DSN(b)
	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(b.Context(), epoch); err != nil {
		b.Fatal(err)
	}
	options, err := ch.ParseDSN(dsn)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := ch.Open(options)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	const host = "concat('acme-', leftPad(toString(number), 8, '0'))"
	at := fmt.Sprintf("fromUnixTimestamp64Milli(toInt64(%d - if(number %% 1000 = 0, 86400000, number %% 900000)), 'UTC')", epoch.UnixMilli())
	id := hub.SpoolID{1}.String()
	for _, sql := range []string{
		"INSERT INTO fleet_hosts (generation, host_id, customer_id, lifecycle, stale_after_seconds, down_after_seconds) SELECT 1, " + host + ", 'acme', 'active', 1800, 3600 FROM numbers(?)",
		"INSERT INTO host_last (host_id, last_report_at, spool_id, spool_seq, version) SELECT " + host + ", " + at + ", '" + id + "', number, 1 FROM numbers(?)",
		"INSERT INTO switch_state (host_id, customer_id, state, since, last_report_at, episode_spool_id, episode_spool_seq, decided_at) SELECT " + host +
			", 'acme', if(number % 1000 = 0, 'down', 'ok'), " + at + ", " + at + ", '" + id + "', number, " + at + " FROM numbers(?)",
	} {
		if err := conn.Exec(b.Context(), sql, n); err != nil {
			b.Fatal(err)
		}
	}
	addNews(b, conn, n)
	for _, add := range more {
		add(b, conn, n)
	}
	spec := hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}}, Deadlines: hub.Deadlines{26 * time.Hour, 35 * 24 * time.Hour, 8 * 24 * time.Hour}}
	for i := range n {
		spec.Hosts = append(spec.Hosts, active(fmt.Sprintf("acme-%08d", i)))
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		b.Fatal(err)
	}
	return deadman.New(deadman.Options{
		Store: db, Deadlines: db, Backlog: shipped{}, Journal: nowhere{}, Eyes: awake(time.UnixMilli(1)), Base: base, Logger: quiet,
		Timing: deadman.TimingFor(base.StaleAfter, 15*time.Minute), Fleet: func() *hub.Fleet { return fleet },
		LastSeen: func(string) (hub.Receipt, bool) { return hub.Receipt{}, false },
	})
}
