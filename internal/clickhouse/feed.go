package clickhouse

import (
	"context"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// The rows of the latest-state tables, computed in two places: by the
// materialized views of the schema, and by Refeed for a range in doubt. The
// columns stand in the order of the table's.
const (
	hostLastValues = `host_id,
    received_at AS last_report_at,
    reported_at,
    customer_id,
    agent_version,
    cpu_percent,
    mem_percent,
    disk_percent,
    guest_total,
    guest_running,
    cloudflared_status,
    spool_id,
    spool_seq,
    bitShiftLeft(toUInt128(toUnixTimestamp64Milli(received_at)), 64) + spool_seq AS version`

	guestLastValues = `host_id,
    vmid,
    received_at AS last_seen_at,
    name,
    status,
    controller_version,
    spool_seq,
    bitShiftLeft(toUInt128(toUnixTimestamp64Milli(received_at)), 64) + spool_seq AS version`

	keyLastValues = `max(received_at) AS last_used_at`
)

// fragments are the texts that the schema shares with the code.
var fragments = strings.NewReplacer(
	"{{host_last}}", hostLastValues, "{{guest_last}}", guestLastValues, "{{key_last_values}}", keyLastValues,
	"{{key_uses}}", keyUses)

// feed is a latest-state table behind a table of the stream, and how its rows are
// computed; group is empty where each row of the stream makes one.
type feed struct{ target, values, group string }

var feeds = map[string][]feed{
	tableReports: {{"host_last", hostLastValues, ""}, {"key_last", "host_id, key_id, " + keyLastValues, " GROUP BY host_id, key_id"}},
	tableGuests:  {{"guest_last", guestLastValues, ""}},
}

// Refeed computes the latest-state rows of a range again and inserts them: a
// crash between a part and its views leaves the views short. The newest row of a
// key replaces the others, so it is harmless where nothing was missing.
func (db *DB) Refeed(ctx context.Context, table string, r Range) error {
	for _, f := range feeds[table] {
		if err := db.refeed(ctx, table, f, r); err != nil {
			return fmt.Errorf("feed %s again with %s: %w", f.target, r, err)
		}
	}
	return nil
}

func (db *DB) refeed(ctx context.Context, table string, f feed, r Range) error {
	ctx, cancel := db.queryContext(ctx, ch.Settings{"async_insert": 0, "insert_deduplicate": 0})
	defer cancel()
	return db.conn.Exec(ctx, "INSERT INTO "+f.target+" SELECT "+f.values+" FROM "+table+
		" WHERE spool_id = ? AND spool_seq BETWEEN ? AND ?"+f.group, r.SpoolID.String(), r.First, r.Last)
}
