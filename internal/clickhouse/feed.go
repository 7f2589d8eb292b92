package clickhouse

import (
	"context"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// The aggregates of the latest-state tables, computed in two places: by the
// materialized views of the schema, and by Refeed for a range in doubt.
const (
	hostLastValues = `max(received_at) AS last_report_at,
    argMaxState((toString(spool_id), spool_seq), (received_at, spool_seq)) AS position,
    argMaxState(CAST((reported_at, toString(customer_id), toString(agent_version), cpu_percent, mem_percent, disk_percent, guest_total, guest_running, toString(cloudflared_status)), 'Tuple(reported_at DateTime64(3, \'UTC\'), customer_id String, agent_version String, cpu_percent Nullable(Float64), mem_percent Nullable(Float64), disk_percent Nullable(Float64), guest_total UInt32, guest_running UInt32, cloudflared_status String)'), (received_at, spool_seq)) AS latest`

	guestLastValues = `max((received_at, spool_seq)) AS last_seen_at,
    argMaxState(CAST((name, toString(status), toString(controller_version)), 'Tuple(name String, status String, controller_version String)'), (received_at, spool_seq)) AS latest`

	keyLastValues = `max(received_at) AS last_used_at`
)

// fragments are the texts that the schema shares with the code.
var fragments = strings.NewReplacer(
	"{{host_last_values}}", hostLastValues, "{{guest_last_values}}", guestLastValues, "{{key_last_values}}", keyLastValues,
	"{{key_uses}}", keyUses)

// feed is a latest-state table behind a table of the stream: what it is keyed
// by and how it is computed.
type feed struct{ target, keys, values string }

var feeds = map[string][]feed{
	tableReports: {{"host_last", "host_id", hostLastValues}, {"key_last", "host_id, key_id", keyLastValues}},
	tableGuests:  {{"guest_last", "host_id, vmid", guestLastValues}},
}

// Refeed computes the latest-state rows of a range again and inserts them: a
// crash between a part and its views leaves the views short. Their aggregates
// are idempotent, so it is harmless where nothing was missing.
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
	return db.conn.Exec(ctx, "INSERT INTO "+f.target+" SELECT "+f.keys+", "+f.values+" FROM "+table+
		" WHERE spool_id = ? AND spool_seq BETWEEN ? AND ? GROUP BY "+f.keys, r.SpoolID.String(), r.First, r.Last)
}
