package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/hub"
)

// Silence is the newest report of a host, or of a guest's controller.
type Silence struct {
	HostID string // or guest id
	Last   hub.Position
	LastAt time.Time
}

// Question is what Candidates is asked at a slot time.
type Question struct {
	Cut   time.Time // hosts and guests whose newest report came then or before
	Hosts []string  // these hosts, and guests, too
	All   bool      // all; Cut and Hosts do not matter
}

// Answer is what ClickHouse knows.
type Answer struct {
	Reported    int       // hosts of which it has a report
	Controllers int       // guests of whose controller it has one
	Silences    []Silence // the newest report of each host asked for that has one
	Bad         []error   // rows that cannot be read; their hosts are not among Silences
}

// Announcement is what the newest report of a host says of maintenance.
type Announcement struct {
	At    time.Time // received_at of the report
	Until time.Time // zero: nothing
}

// inOrder has the queries below go through their tables in the order of their
// keys, on one thread: a third of the time and a fraction of the memory of tables
// of hashes, and no core is taken from the way of a report. FINAL on host_last is
// ten times as fast as argMax over its hosts: it compares only what is not merged.
var inOrder = ch.Settings{"max_threads": 1, "max_memory_usage": 800 << 20, "optimize_aggregation_in_order": 1, "max_query_size": 8 << 20}

// namedAtMost is the number of hosts that one query names; of more, all are read.
const namedAtMost = 20_000

// reporters are the two kinds of those whose silence is watched: what names one, and
// the tables of its latest state and of its reports.
type reporters struct{ id, last, reports string }

var (
	hostReporters  = reporters{"host_id", "host_last", tableReports}
	guestReporters = reporters{"guest_id", "controller_last", tableControllers}
)

// Candidates answers a question from the latest state alone, which takes 0.2 s for
// a million hosts: who is enrolled, what holds for whom and what was decided the
// asker knows. The clock of the server has no part in it.
func (db *DB) Candidates(ctx context.Context, q Question) (a Answer, err error) {
	if a.Reported, err = db.countReported(ctx, hostReporters); err != nil {
		return a, err
	}
	if a.Controllers, err = db.countReported(ctx, guestReporters); err != nil {
		return a, err
	}
	hosts, guests := splitGuests(q.Hosts)
	if err = db.silences(ctx, hostReporters, q, hosts, &a); err == nil {
		err = db.silences(ctx, guestReporters, q, guests, &a)
	}
	return a, err
}

// splitGuests parts the ids of hosts from those of guests, which have a slash.
func splitGuests(ids []string) (hosts, guests []string) {
	for _, id := range ids {
		if strings.Contains(id, "/") {
			guests = append(guests, id)
		} else {
			hosts = append(hosts, id)
		}
	}
	return hosts, guests
}

func (db *DB) silences(ctx context.Context, of reporters, q Question, named []string, a *Answer) error {
	where, args := "", []any(nil)
	if !q.All && len(named) <= namedAtMost {
		// A list that is empty is no list to ClickHouse.
		where, args = "WHERE toUnixTimestamp64Milli(last_report_at) <= toInt64(?) OR "+of.id+" IN (?)", []any{q.Cut.UnixMilli(), append([]string{""}, named...)}
	}
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, "SELECT "+of.id+", last_report_at, toString(spool_id), spool_seq FROM "+of.last+" FINAL "+where, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s Silence
		var spoolID string
		if err := rows.Scan(&s.HostID, &s.LastAt, &spoolID, &s.Last.Seq); err != nil {
			return err
		}
		if s.Last.SpoolID, err = hub.ParseSpoolID(spoolID); err != nil {
			a.Bad = append(a.Bad, fmt.Errorf("the newest report of %q: %w", s.HostID, err))
			continue
		}
		a.Silences = append(a.Silences, s)
	}
	return rows.Err()
}

func (db *DB) countReported(ctx context.Context, of reporters) (int, error) {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	var n uint64
	err := db.conn.QueryRow(ctx, "SELECT count() FROM "+of.last+" FINAL").Scan(&n)
	return int(n), err
}

// DecidedSince returns when the newest state of a host was decided, for those of
// which that was after t.
func (db *DB) DecidedSince(ctx context.Context, t time.Time) (map[string]time.Time, error) {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, max(decided_at) FROM switch_state
WHERE toUnixTimestamp64Milli(decided_at) > toInt64(?) GROUP BY host_id`, t.UnixMilli())
	if err != nil {
		return nil, err
	}
	decided := map[string]time.Time{}
	return decided, scanInstants(rows, decided)
}

// States calls f with the newest recorded state of each host, of those named, or
// of all where none are. A row that cannot be read is given to bad instead.
func (db *DB) States(ctx context.Context, hosts []string, f func(hub.HostState), bad func(error)) error {
	if len(hosts) == 0 {
		return db.states(ctx, "", f, bad)
	}
	return db.states(ctx, "WHERE host_id IN (?)", f, bad, hosts)
}

func (db *DB) states(ctx context.Context, where string, f func(hub.HostState), bad func(error), args ...any) error {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, n.1, n.2, n.3, n.4, n.5, n.6, n.7, n.8, n.9, n.10, n.11, n.12, n.13, n.14, n.15
FROM
(
    SELECT host_id, argMax((toString(customer_id), toString(state), since, silent, last_report_at, toString(episode_spool_id), episode_spool_seq,
        decided_at, toString(lifecycle), watched_from, folded_into, silences, toString(flapping_spool_id), flapping_spool_seq, muted_by), (decided_at, spool_seq)) AS n
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
		&lifecycle, &watchedFrom, &s.Fold, &silences, &flapping, &s.Flapping.Seq, &s.MutedBy); err != nil {
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

// DeadlineStates calls f with the newest recorded state of each deadline of which
// that was decided after t. A row that cannot be read is given to bad instead.
func (db *DB) DeadlineStates(ctx context.Context, t time.Time, f func(hub.DeadlineState), bad func(error)) error {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	after := int64(math.MinInt64)
	if !t.IsZero() {
		after = t.UnixMilli()
	}
	rows, err := db.conn.Query(ctx, `
SELECT guest_id, deadline, n.1, n.2, n.3, n.4, n.5, n.6, n.7
FROM
(
    SELECT guest_id, toString(deadline) AS deadline, argMax((toString(customer_id), overdue, base_at, since, muted_by, closed_at, decided_at), (decided_at, spool_seq)) AS n
    FROM deadline_state
    WHERE toUnixTimestamp64Milli(decided_at) > toInt64(?)
    GROUP BY guest_id, deadline
)`, after)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s hub.DeadlineState
		var word string
		var overdue uint8
		var closed *time.Time
		if err := rows.Scan(&s.GuestID, &word, &s.CustomerID, &overdue, &s.Base, &s.Since, &s.MutedBy, &closed, &s.DecidedAt); err != nil {
			return err
		}
		var ok bool
		if s.Deadline, ok = hub.ParseDeadline(word); !ok || !hub.ValidGuestID(s.GuestID) {
			bad(fmt.Errorf("the state of deadline %q of %q cannot be read", word, s.GuestID))
			continue
		}
		s.Overdue = overdue == 1
		if closed != nil {
			s.Closed = *closed
		}
		f(s)
	}
	return rows.Err()
}

// Announcements returns what the newest report of a host says of maintenance, of the
// hosts that have announced any since an instant.
func (db *DB) Announcements(ctx context.Context, since time.Time) (map[string]Announcement, error) {
	ctx, cancel := db.queryContext(ctx, ch.Settings{"max_threads": 1, "max_memory_usage": 800 << 20})
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, max(received_at), argMax(tuple(maintenance_until), (received_at, spool_seq)).1
FROM host_reports
WHERE received_at >= fromUnixTimestamp64Milli(toInt64(@since), 'UTC') AND host_id IN
(
    SELECT host_id FROM host_reports
    WHERE received_at >= fromUnixTimestamp64Milli(toInt64(@since), 'UTC') AND maintenance_until IS NOT NULL
)
GROUP BY host_id`, ch.Named("since", since.UnixMilli()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	announced := map[string]Announcement{}
	for rows.Next() {
		var host string
		var a Announcement
		var until *time.Time
		if err := rows.Scan(&host, &a.At, &until); err != nil {
			return nil, err
		}
		if until != nil {
			a.Until = *until
		}
		announced[host] = a
	}
	return announced, rows.Err()
}

// hosts of one look-up of first reports: bounds the query's length.
const firstReportsChunk = 1000

// FirstReports returns, for each host or guest of after, received_at of its first
// report later than the instant given for it. Those without one are left out.
func (db *DB) FirstReports(ctx context.Context, after map[string]time.Time) (map[string]time.Time, error) {
	ids := slices.Sorted(maps.Keys(after))
	hosts, guests := splitGuests(ids)
	first := make(map[string]time.Time, len(after))
	for _, part := range []struct {
		of  reporters
		ids []string
	}{{hostReporters, hosts}, {guestReporters, guests}} {
		for chunk := range slices.Chunk(part.ids, firstReportsChunk) {
			if err := db.firstReports(ctx, part.of, chunk, after, first); err != nil {
				return nil, err
			}
		}
	}
	return first, nil
}

func (db *DB) firstReports(ctx context.Context, of reporters, ids []string, after, first map[string]time.Time) error {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	instants := make([]int64, len(ids))
	oldest := int64(math.MaxInt64)
	for i, id := range ids {
		instants[i] = after[id].UnixMilli()
		oldest = min(oldest, instants[i])
	}
	rows, err := db.conn.Query(ctx, `
SELECT `+of.id+`, min(received_at)
FROM `+of.reports+`
WHERE `+of.id+` IN (?)
  AND received_at > fromUnixTimestamp64Milli(toInt64(?), 'UTC')
  AND toUnixTimestamp64Milli(received_at) > transform(`+of.id+`, ?, ?, toInt64(0))
GROUP BY `+of.id, ids, oldest, ids, instants)
	if err != nil {
		return err
	}
	return scanInstants(rows, first)
}

// scanInstants reads rows of an id and an instant, and closes them.
func scanInstants(rows driver.Rows, into map[string]time.Time) error {
	defer rows.Close()
	for rows.Next() {
		var id string
		var at time.Time
		if err := rows.Scan(&id, &at); err != nil {
			return err
		}
		into[id] = at
	}
	return rows.Err()
}
