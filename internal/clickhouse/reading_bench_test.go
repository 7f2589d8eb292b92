package clickhouse_test

import (
	"fmt"
	"testing"
)

// BenchmarkCustomerStatus asks for the status of one customer of ten hosts, of a fleet
// of 100,000 hosts with ten guests each.
func BenchmarkCustomerStatus(b *testing.B) {
	db, conn := openEmpty(b)
	if _, err := db.Migrate(b.Context(), epoch); err != nil {
		b.Fatal(err)
	}
	const at = "fromUnixTimestamp64Milli(toInt64(1790000000000), 'UTC')"
	for _, sql := range []string{
		`INSERT INTO fleet_hosts (generation, host_id, customer_id, lifecycle, applied_at) SELECT 1, concat('host-', toString(number)), concat('c', toString(intDiv(number, 10))), 'active', ` + at + ` FROM numbers(100000)`,
		`INSERT INTO host_last SELECT concat('host-', toString(number)), ` + at + `, ` + at + `, concat('c', toString(intDiv(number, 10))), '1', NULL, NULL, NULL, 10, 10, '', 'x', number, toUInt128(1) FROM numbers(100000)`,
		`INSERT INTO guest_last SELECT concat('host-', toString(intDiv(number, 10))), toUInt32(101 + number % 10), ` + at + `, '', 'running', '', intDiv(number, 10), toUInt128(1) FROM numbers(1000000)`,
		`INSERT INTO switch_state (host_id, state, since, decided_at, spool_seq) SELECT concat('host-', toString(number)), 'ok', ` + at + `, ` + at + `, number FROM numbers(100000)`,
	} {
		if err := conn.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	var hosts []string
	for i := range 10 {
		hosts = append(hosts, fmt.Sprint("host-", 7770+i))
	}
	for b.Loop() {
		s, err := db.CustomerStatus(b.Context(), "c777", hosts)
		if err != nil || len(s.Hosts) != 10 || len(s.Guests) != 100 {
			b.Fatalf("%d hosts, %d guests, %v", len(s.Hosts), len(s.Guests), err)
		}
	}
}
