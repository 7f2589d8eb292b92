package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

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
    ` + version + ` AS version`

	guestLastValues = `host_id,
    vmid,
    received_at AS last_seen_at,
    name,
    status,
    controller_version,
    spool_seq,
    ` + version + ` AS version`

	controllerLastValues = `guest_id,
    host_id,
    customer_id,
    received_at AS last_report_at,
    reported_at,
    controller_version,
    status,
    cpu_percent,
    memory_percent,
    disk_percent,
    uptime_seconds,
    last_backup_at,
    spool_id,
    spool_seq,
    ` + version + ` AS version`

	keyLastValues = `max(received_at) AS last_used_at`

	// version is greater the newer a row of the stream is.
	version = `bitShiftLeft(toUInt128(toUnixTimestamp64Milli(received_at)), 64) + spool_seq`
)

// fragments are the texts that the schema shares with the code.
var fragments = strings.NewReplacer(
	"{{host_last}}", hostLastValues, "{{guest_last}}", guestLastValues, "{{controller_last}}", controllerLastValues,
	"{{key_last_values}}", keyLastValues, "{{key_uses}}", hostKeyUses, "{{all_key_uses}}", keyUses, "{{version}}", version)

// feed is a latest-state table behind a table of the stream.
type feed struct {
	target string
	values string // how its rows are computed
	where  string // which rows of the stream count; empty: all
	group  string // empty where each row of the stream makes one
	keys   string // of its rows

	// What is greatest in the newest row of a key: in the stream, and in the target.
	newest, last string
}

var feeds = map[string][]feed{
	tableReports: {
		{"host_last", hostLastValues, "", "", "host_id", version, "version"},
		keyFeed,
	},
	tableGuests: {{"guest_last", guestLastValues, "", "", "host_id, vmid", version, "version"}},
	tableControllers: {
		{"controller_last", controllerLastValues, " AND guest_id != ''", "", "guest_id", version, "version"},
		keyFeed,
	},
}

// keyFeed tells the uses of keys, of both kinds of reports.
var keyFeed = feed{"key_last", "host_id, key_id, " + keyLastValues, "", " GROUP BY host_id, key_id", "host_id, key_id", "received_at", "last_used_at"}

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
		" WHERE spool_id = ? AND spool_seq BETWEEN ? AND ?"+f.where+f.group, r.SpoolID.String(), r.First, r.Last)
}

// RefeedSince computes the latest-state rows again of what was received at since
// or later, where they do not tell the newest: a server that dies can lose them
// while it keeps what they were computed from.
func (db *DB) RefeedSince(ctx context.Context, since time.Time) error {
	for table, list := range feeds {
		for _, f := range list {
			if err := db.refeedSince(ctx, table, f, since); err != nil {
				return fmt.Errorf("feed %s again: %w", f.target, err)
			}
		}
	}
	return nil
}

func (db *DB) refeedSince(ctx context.Context, table string, f feed, since time.Time) error {
	ctx, cancel := db.queryContext(ctx, ch.Settings{"async_insert": 0, "insert_deduplicate": 0})
	defer cancel()
	received := " FROM " + table + " WHERE received_at >= fromUnixTimestamp64Milli(toInt64(@since))" + f.where
	newest := "SELECT " + f.keys + ", max(" + f.newest + ") AS newest" + received + " GROUP BY " + f.keys
	told := "SELECT " + f.keys + ", max(" + f.last + ") FROM " + f.target + " GROUP BY " + f.keys
	untold := "SELECT * FROM (" + newest + ") WHERE (" + f.keys + ", newest) NOT IN (" + told + ")"
	return db.conn.Exec(ctx, "INSERT INTO "+f.target+" SELECT "+f.values+received+
		" AND ("+f.keys+", "+f.newest+") IN ("+untold+")"+f.group, ch.Named("since", since.UnixMilli()))
}
