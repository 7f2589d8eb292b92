package clickhouse

import (
	"context"
	"fmt"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Tally is what one table holds of one spool record.
type Tally struct {
	Rows  uint64
	Again uint64 // of Rows, those that are there more often than once

	// Of host_reports and controller_reports only: the rows that the record has in
	// other tables, of guests or apps, of storage targets and of what was left out.
	Parts, Targets, Items uint64
}

// Span is what the tables of reports and rejected_reports hold of one volume and hour.
type Span struct {
	Range
	Hour   time.Time
	Newest time.Time // received_at of the newest row
}

// again tells, for each table, how rows of one record that are there twice are
// known; elsewhere two rows are twice the same when all columns agree.
var again = map[string]string{
	tableReports:  "1",
	tableBodies:   "1",
	tableRejected: "1",
	tableGuests:   "uniqExact(vmid)",
	tableTargets:  "uniqExact(name)",
	tableEvents:   "uniqExact(event_id)",

	tableControllers:      "1",
	tableControllerBodies: "1",
	tableApps:             "uniqExact(name)",
	tableStates:           "uniqExact(host_id)",
	tableOverdue:          "uniqExact(guest_id, deadline)",
}

// Tallies returns what a table holds of the records of a range, by sequence
// number. Rows were received within from and to, both included; tables without
// a receive time are searched whole.
func (db *DB) Tallies(ctx context.Context, table string, r Range, from, to time.Time) (map[uint64]Tally, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	once, ok := again[table]
	if !ok {
		once = "uniqExact(cityHash64(*))"
	}
	expected := "toUInt64(0), toUInt64(0), toUInt64(0)"
	switch table {
	case tableReports:
		expected = "toUInt64(max(guest_total)), toUInt64(max(storage_target_total)), toUInt64(max(rejected_total))"
	case tableControllers:
		expected = "toUInt64(max(app_total)), toUInt64(0), toUInt64(max(rejected_total))"
	}
	sql := "SELECT spool_seq, count(), count() - " + once + ", " + expected + " FROM " + quoteName(table) +
		" WHERE spool_id = ? AND spool_seq BETWEEN ? AND ?"
	args := []any{r.SpoolID.String(), r.First, r.Last}
	switch table {
	case tableEvents, tableStates, tableOverdue, tableCommits, tableBlind, tableNotifications:
	default:
		sql += " AND received_at BETWEEN fromUnixTimestamp64Milli(toInt64(?)) AND fromUnixTimestamp64Milli(toInt64(?))"
		args = append(args, from.UnixMilli(), to.UnixMilli())
	}
	rows, err := db.conn.Query(ctx, sql+" GROUP BY spool_seq", args...)
	if err != nil {
		return nil, fmt.Errorf("count the rows of %s in %s: %w", r, table, err)
	}
	defer rows.Close()
	tallies := map[uint64]Tally{}
	for rows.Next() {
		var seq uint64
		var t Tally
		var twice int64
		if err := rows.Scan(&seq, &t.Rows, &twice, &t.Parts, &t.Targets, &t.Items); err != nil {
			return nil, err
		}
		t.Again = uint64(twice)
		tallies[seq] = t
	}
	return tallies, rows.Err()
}

// Spans returns what is there of each volume and hour, in that order, of rows
// received at since or later.
func (db *DB) Spans(ctx context.Context, since time.Time) ([]Span, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT id, toStartOfHour(at) AS hour, min(seq), max(seq), max(at)
FROM
(
    SELECT toString(spool_id) AS id, spool_seq AS seq, received_at AS at FROM host_reports
    UNION ALL
    SELECT toString(spool_id) AS id, spool_seq AS seq, received_at AS at FROM controller_reports
    UNION ALL
    SELECT toString(spool_id) AS id, spool_seq AS seq, received_at AS at FROM rejected_reports
)
WHERE at >= fromUnixTimestamp64Milli(toInt64(?))
GROUP BY id, hour ORDER BY id, hour`, since.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("ask for the volumes in ClickHouse: %w", err)
	}
	defer rows.Close()
	var spans []Span
	for rows.Next() {
		var s Span
		var id string
		if err := rows.Scan(&id, &s.Hour, &s.First, &s.Last, &s.Newest); err != nil {
			return nil, err
		}
		if s.SpoolID, err = hub.ParseSpoolID(id); err != nil {
			continue // a row that no hub wrote
		}
		spans = append(spans, s)
	}
	return spans, rows.Err()
}
