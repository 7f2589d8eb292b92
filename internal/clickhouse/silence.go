package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/hub"
)

// Silence is a host that reported, is enrolled and active, and whose state may
// change at the slot time asked for.
type Silence struct {
	HostID    string
	Last      hub.Position // its newest report
	LastAt    time.Time
	State     hub.State // its newest recorded state; empty: none
	DecidedAt time.Time // of that state
}

// Question is what Candidates is asked at a slot time.
type Question struct {
	// Cuts say, for each threshold of a host, up to which instant, itself
	// included, a last report makes a silence that long. Of a threshold that is
	// not among them every silence is long enough.
	Cuts map[time.Duration]time.Time
	// Since adds the hosts whose recorded state was decided after it; zero: none.
	Since time.Time
}

// Answer is what ClickHouse knows at a slot time.
type Answer struct {
	Reported int       // enrolled, active hosts of which it has a report
	Silences []Silence // those whose state may change
	Bad      []error   // rows that cannot be read; their hosts are not among Silences
}

// inOrder has the queries below go through their tables in the order of their
// keys, on one thread, and join what comes out in that order: a third of the time
// and a fraction of the memory of tables of hashes, and no core is taken from the
// way of a report.
var inOrder = ch.Settings{"max_threads": 1, "max_memory_usage": 800 << 20, "join_use_nulls": 0,
	"optimize_aggregation_in_order": 1, "join_algorithm": "full_sorting_merge"}

// activeHosts are the enrolled, active hosts of the register with their
// thresholds in milliseconds.
const activeHosts = `
    SELECT host_id, argMax((lifecycle = 'active' AND removed = 0, toInt64(round(stale_after_seconds * 1000)), toInt64(round(down_after_seconds * 1000))), generation) AS entry
    FROM fleet_hosts GROUP BY host_id
    HAVING entry.1`

// candidatesQuery is one full join: a form that filters first with IN is seven
// times as slow just when all hosts are silent. Its parameters are Since, and
// twice the thresholds and their cuts, in milliseconds.
const candidatesQuery = `
WITH toUnixTimestamp64Milli(l.last_at) AS last_ms
SELECT
    l.host_id AS host_id, l.last_at AS last_at, l.position.1 AS last_spool_id, l.position.2 AS last_spool_seq,
    s.newest.1 AS state, s.newest.3 AS decided_at
FROM
(
    SELECT host_id, max(last_report_at) AS last_at, argMax((toString(spool_id), spool_seq), version) AS position
    FROM host_last GROUP BY host_id
) AS l
INNER JOIN
(` + activeHosts + `
) AS f ON f.host_id = l.host_id
LEFT JOIN
(
    SELECT host_id, argMax((state, last_report_at, decided_at, lifecycle), (decided_at, spool_seq)) AS newest
    FROM switch_state GROUP BY host_id
) AS s ON s.host_id = l.host_id
WHERE state IN ('', 'never_seen') OR toUnixTimestamp64Milli(s.newest.3) > toInt64(?) OR s.newest.4 != 'active'
   OR state = 'ok' AND last_ms <= transform(f.entry.2, CAST(?, 'Array(Int64)'), CAST(?, 'Array(Int64)'), toInt64(9223372036854775807))
   OR state = 'stale' AND last_ms <= transform(f.entry.3, CAST(?, 'Array(Int64)'), CAST(?, 'Array(Int64)'), toInt64(9223372036854775807))
   OR state IN ('stale', 'down') AND l.last_at > s.newest.2`

// Candidates returns the enrolled, active hosts whose state may change: those
// that were never looked at or not watched, that have been silent for their
// threshold, or that spoke again. The clock of the server has no part in it.
func (db *DB) Candidates(ctx context.Context, q Question) (Answer, error) {
	var a Answer
	reported, err := db.countReported(ctx)
	if err != nil {
		return a, err
	}
	a.Reported = reported
	// transform takes no empty list.
	thresholds, cuts := []int64{-1}, []int64{0}
	for _, threshold := range slices.Sorted(maps.Keys(q.Cuts)) {
		thresholds, cuts = append(thresholds, threshold.Milliseconds()), append(cuts, q.Cuts[threshold].UnixMilli())
	}
	since := int64(math.MaxInt64)
	if !q.Since.IsZero() {
		since = q.Since.UnixMilli()
	}
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, candidatesQuery, since, thresholds, cuts, thresholds, cuts)
	if err != nil {
		return a, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			s            Silence
			spoolID, was string
		)
		if err := rows.Scan(&s.HostID, &s.LastAt, &spoolID, &s.Last.Seq, &was, &s.DecidedAt); err != nil {
			return a, err
		}
		if s.Last.SpoolID, err = hub.ParseSpoolID(spoolID); err != nil {
			a.Bad = append(a.Bad, fmt.Errorf("the newest report of host %q: %w", s.HostID, err))
			continue
		}
		s.State = hub.State(was)
		a.Silences = append(a.Silences, s)
	}
	return a, rows.Err()
}

func (db *DB) countReported(ctx context.Context) (int, error) {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	var n uint64
	err := db.conn.QueryRow(ctx, `
SELECT count() FROM (SELECT host_id FROM host_last GROUP BY host_id) AS l
INNER JOIN (`+activeHosts+`) AS f ON f.host_id = l.host_id`).Scan(&n)
	return int(n), err
}

// States calls f with the newest recorded state of each host, of those named, or
// of all where none are. A row that cannot be read is given to bad instead.
func (db *DB) States(ctx context.Context, hosts []string, f func(hub.HostState), bad func(error)) error {
	where, args := "", []any(nil)
	if len(hosts) > 0 {
		where, args = "WHERE host_id IN (?)", []any{hosts}
	}
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, n.1, n.2, n.3, n.4, n.5, n.6, n.7, n.8, n.9, n.10, n.11, n.12, n.13, n.14
FROM
(
    SELECT host_id, argMax((toString(customer_id), toString(state), since, silent, last_report_at, toString(episode_spool_id), episode_spool_seq,
        decided_at, toString(lifecycle), watched_from, folded_into, silences, toString(flapping_spool_id), flapping_spool_seq), (decided_at, spool_seq)) AS n
    FROM switch_state `+where+` GROUP BY host_id
)`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		s, problem, err := scanState(rows)
		if err != nil {
			return err
		}
		if problem != nil {
			bad(problem)
			continue
		}
		f(s)
	}
	return rows.Err()
}

func scanState(rows driver.Rows) (s hub.HostState, problem, err error) {
	var (
		state, lifecycle, episode, flapping string
		silent                              uint8
		watchedFrom                         *time.Time
		silences                            []time.Time
	)
	if err := rows.Scan(&s.HostID, &s.CustomerID, &state, &s.Since, &silent, &s.LastAt, &episode, &s.Last.Seq, &s.DecidedAt,
		&lifecycle, &watchedFrom, &s.Fold, &silences, &flapping, &s.Flapping.Seq); err != nil {
		return s, nil, err
	}
	s.State, s.Lifecycle, s.Silent = hub.State(state), hub.Lifecycle(lifecycle), silent == 1
	if s.Last.SpoolID, problem = hub.ParseSpoolID(episode); problem != nil {
		return s, fmt.Errorf("the state of host %q: %w", s.HostID, problem), nil
	}
	if flapping != "" {
		if s.Flapping.SpoolID, problem = hub.ParseSpoolID(flapping); problem != nil {
			return s, fmt.Errorf("the state of host %q: %w", s.HostID, problem), nil
		}
	}
	if s.State == hub.NeverSeen {
		s.LastAt = time.Time{}
	}
	if watchedFrom != nil {
		s.WatchedFrom = *watchedFrom
	}
	for i, n := len(s.Silences)-1, len(silences)-1; i >= 0 && n >= 0; i, n = i-1, n-1 {
		s.Silences[i] = silences[n]
	}
	return s, nil, nil
}

// hosts of one look-up of first reports: bounds the query's length.
const firstReportsChunk = 1000

// FirstReports returns, for each host of after, received_at of its first report
// later than the instant given for it. Hosts without one are left out.
func (db *DB) FirstReports(ctx context.Context, after map[string]time.Time) (map[string]time.Time, error) {
	hosts := make([]string, 0, len(after))
	for h := range after {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	first := make(map[string]time.Time, len(after))
	for chunk := range slices.Chunk(hosts, firstReportsChunk) {
		if err := db.firstReports(ctx, chunk, after, first); err != nil {
			return nil, err
		}
	}
	return first, nil
}

func (db *DB) firstReports(ctx context.Context, hosts []string, after, first map[string]time.Time) error {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	instants := make([]int64, len(hosts))
	oldest := int64(math.MaxInt64)
	for i, h := range hosts {
		instants[i] = after[h].UnixMilli()
		oldest = min(oldest, instants[i])
	}
	rows, err := db.conn.Query(ctx, `
SELECT host_id, min(received_at)
FROM host_reports
WHERE host_id IN (?)
  AND received_at > fromUnixTimestamp64Milli(toInt64(?), 'UTC')
  AND toUnixTimestamp64Milli(received_at) > transform(host_id, ?, ?, toInt64(0))
GROUP BY host_id`, hosts, oldest, hosts, instants)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var host string
		var at time.Time
		if err := rows.Scan(&host, &at); err != nil {
			return err
		}
		first[host] = at
	}
	return rows.Err()
}
