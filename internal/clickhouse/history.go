package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// LastReportUntil returns the newest report of a host, or guest, that was received at t or
// before, and whether there is one. Of reports that retention has dropped it knows
// only the newest of all.
func (db *DB) LastReportUntil(ctx context.Context, host string, t time.Time) (Silence, bool, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	of := hostReporters
	if strings.Contains(host, "/") {
		of = guestReporters
	}
	s := Silence{HostID: host}
	var spoolID string
	err := db.conn.QueryRow(ctx, `
SELECT at, spool, seq
FROM
(
    SELECT last_report_at AS at, toString(spool_id) AS spool, spool_seq AS seq FROM `+of.last+` WHERE `+of.id+` = ?
    UNION ALL
    SELECT received_at, toString(spool_id), spool_seq FROM `+of.reports+`
    WHERE `+of.id+` = ? AND received_at <= fromUnixTimestamp64Milli(toInt64(?), 'UTC')
    ORDER BY received_at DESC, spool_seq DESC LIMIT 1
)
WHERE toUnixTimestamp64Milli(at) <= toInt64(?)
ORDER BY at DESC, seq DESC LIMIT 1`, host, host, t.UnixMilli(), t.UnixMilli()).Scan(&s.LastAt, &spoolID, &s.Last.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		return Silence{}, false, nil
	}
	if err == nil {
		s.Last.SpoolID, err = hub.ParseSpoolID(spoolID)
	}
	return s, err == nil, err
}

// StateBefore returns the newest state of a host that was decided before t; nil:
// there is none.
func (db *DB) StateBefore(ctx context.Context, host string, t time.Time) (*hub.HostState, error) {
	var state *hub.HostState
	var problem error
	err := db.states(ctx, "WHERE host_id = ? AND toUnixTimestamp64Milli(decided_at) < toInt64(?)",
		func(s hub.HostState) { state = &s }, func(bad error) { problem = bad }, host, t.UnixMilli())
	return state, errors.Join(err, problem)
}

// EventsOf returns the newest events of a host and its guests, or of a guest, that
// were found at t or before, newest first and at most that many.
func (db *DB) EventsOf(ctx context.Context, host string, t time.Time, most int) ([]hub.Event, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	of := "host_id"
	if strings.Contains(host, "/") {
		of = "guest_id"
	}
	rows, err := db.conn.Query(ctx, `
SELECT event_id, toString(type), toString(customer_id), host_id, guest_id, at, detected_at, episode, silence_seconds, reason, toString(source),
    folded_into, caused_by, suppressed_by
FROM events WHERE `+of+` = ? AND toUnixTimestamp64Milli(detected_at) <= toInt64(?)
ORDER BY detected_at DESC, at DESC, event_id LIMIT 1 BY event_id LIMIT ?`, host, t.UnixMilli(), most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []hub.Event
	for rows.Next() {
		var e hub.Event
		var kind string
		if err := rows.Scan(&e.ID, &kind, &e.CustomerID, &e.HostID, &e.GuestID, &e.At, &e.DetectedAt, &e.Episode, &e.SilenceSeconds, &e.Reason, &e.Source,
			&e.FoldedInto, &e.CausedBy, &e.SuppressedBy); err != nil {
			return nil, err
		}
		e.Type = hub.EventType(kind)
		events = append(events, e)
	}
	return events, rows.Err()
}

// GuestsOf returns the ids of the guests that the newest report of a host lists, in
// the order of their numbers.
func (db *DB) GuestsOf(ctx context.Context, host string) ([]string, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT vmid FROM guest_last FINAL
WHERE host_id = ? AND version = (SELECT max(version) FROM host_last WHERE host_id = ?)
ORDER BY vmid`, host, host)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var guests []string
	for rows.Next() {
		var vmid uint32
		if err := rows.Scan(&vmid); err != nil {
			return nil, err
		}
		guests = append(guests, hub.GuestID(host, vmid))
	}
	return guests, rows.Err()
}
