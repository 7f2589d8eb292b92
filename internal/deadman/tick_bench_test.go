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

// fleetOf is a switch over n hosts whose history is generated.
func fleetOf(b *testing.B, n int) *deadman.Switch {
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
	spec := hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}}}
	for i := range n {
		spec.Hosts = append(spec.Hosts, active(fmt.Sprintf("acme-%08d", i)))
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		b.Fatal(err)
	}
	return deadman.New(deadman.Options{
		Store: db, Backlog: shipped{}, Journal: nowhere{}, Eyes: awake(time.UnixMilli(1)), Base: base, Logger: quiet,
		Timing: deadman.TimingFor(base.StaleAfter, 15*time.Minute), Fleet: func() *hub.Fleet { return fleet },
		LastSeen: func(string) (hub.Receipt, bool) { return hub.Receipt{}, false },
	})
}
