package clickhouse

import (
	"context"
	"slices"
	"time"
)

// LastReport is the newest report of a host, and what the switch says of it.
type LastReport struct {
	HostID string
	At     time.Time // received_at
	KeyID  string    // as in host_reports: k1, or fleet/k1
	State  string    // ok, stale or down; empty: the switch has not looked yet
	Body   []byte    // as sent; empty where not asked for, or no longer kept
}

// hosts of one look-up of last reports: bounds the query's length.
const lastReportsChunk = 1000

// LastReports returns the newest report of each host that has one, those of
// bodies with what the host sent. It reads only what an analyst may.
func (db *DB) LastReports(ctx context.Context, hosts, bodies []string) (map[string]LastReport, error) {
	last := make(map[string]LastReport, len(hosts))
	for chunk := range slices.Chunk(hosts, lastReportsChunk) {
		if err := db.lastReports(ctx, chunk, last); err != nil {
			return nil, err
		}
	}
	for chunk := range slices.Chunk(bodies, lastReportsChunk) {
		if err := db.lastBodies(ctx, chunk, last); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// newestOf are the places of the newest reports of some hosts: the first columns
// of the key of both tables that are read by it.
const newestOf = `(host_id, received_at) IN
    (SELECT host_id, max(last_report_at) FROM host_last WHERE host_id IN (?) GROUP BY host_id)`

func (db *DB) lastReports(ctx context.Context, hosts []string, last map[string]LastReport) error {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT r.host_id, r.at, r.key_id, ifNull(s.state, '')
FROM
(
    SELECT host_id, max(received_at) AS at, toString(argMax(key_id, (received_at, spool_seq))) AS key_id
    FROM host_reports WHERE `+newestOf+` GROUP BY host_id
) AS r
LEFT JOIN
(
    SELECT host_id, argMax(toString(state), (decided_at, spool_seq)) AS state
    FROM switch_state WHERE host_id IN (?) GROUP BY host_id
) AS s ON s.host_id = r.host_id`, hosts, hosts)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r LastReport
		if err := rows.Scan(&r.HostID, &r.At, &r.KeyID, &r.State); err != nil {
			return err
		}
		last[r.HostID] = r
	}
	return rows.Err()
}

func (db *DB) lastBodies(ctx context.Context, hosts []string, last map[string]LastReport) error {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, argMax(body, (received_at, spool_seq))
FROM host_report_bodies WHERE `+newestOf+` GROUP BY host_id`, hosts)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var host, body string
		if err := rows.Scan(&host, &body); err != nil {
			return err
		}
		if r, ok := last[host]; ok {
			r.Body = []byte(body)
			last[host] = r
		}
	}
	return rows.Err()
}
