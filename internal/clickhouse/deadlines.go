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

	"felhom.eu/hub/internal/hub"
)

// GuestSuccess is what ClickHouse knows of a guest's successes.
type GuestSuccess struct {
	HostID     string
	VMID       uint32
	FirstSeen  time.Time    // received_at of the first report that listed it; zero: none did
	Newest     [3]time.Time // by hub.Deadline: when its newest success counts; zero: none
	HostLastAt time.Time    // received_at of the host's newest report that ClickHouse has whole; zero: none
	Present    bool         // that report lists the guest
}

// Overdue returns the guests of which a deadline may have passed: the later of its
// first sight and its newest success lies at the cut, or before, for a deadline whose
// cut is not zero. Guests that no report lists are not among them. It returns those
// named too, by their ids, whatever is known of them. The clock of the server has no
// part in it.
//
// It goes through all guests, half a second for a million, and asks which of
// those found are still there.
func (db *DB) Overdue(ctx context.Context, cuts [3]time.Time, named []string) ([]GuestSuccess, error) {
	where, args := []string{"FALSE"}, []any(nil)
	for d, cut := range cuts {
		if !cut.IsZero() {
			where = append(where, "toUnixTimestamp64Milli(greatest(first_seen_at, "+successColumns[d]+")) <= toInt64(?)")
			args = append(args, cut.UnixMilli())
		}
	}
	found, err := db.guestSuccesses(ctx, strings.Join(where, " OR "), args...)
	if err != nil {
		return nil, err
	}
	known := make(map[guest]bool, len(named))
	if len(named) > 0 {
		for _, g := range found {
			known[guest{g.HostID, g.VMID}] = true
		}
	}
	var missing []guest
	for _, id := range named {
		host, vmid, ok := hub.ParseGuestID(id)
		if g := (guest{host, vmid}); ok && !known[g] {
			known[g] = true
			missing = append(missing, g)
		}
	}
	for chunk := range slices.Chunk(missing, namedAtMost) {
		more, err := db.guestSuccesses(ctx, "(host_id, vmid) IN (?)", tuples(chunk))
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, db.addPresence(ctx, found)
}

// guest names a guest as the keys of tables do.
type guest struct {
	host string
	vmid uint32
}

func tuples(guests []guest) []ch.GroupSet {
	sets := make([]ch.GroupSet, len(guests))
	for i, g := range guests {
		sets[i] = ch.GroupSet{Value: []any{g.host, g.vmid}}
	}
	return sets
}

// successColumns are those of guest_deadlines, by hub.Deadline.
var successColumns = [3]string{"backup_at", "restore_test_at", "pbs_verify_at"}

func (db *DB) guestSuccesses(ctx context.Context, where string, args ...any) (found []GuestSuccess, err error) {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, vmid, first_seen_at, backup_at, restore_test_at, pbs_verify_at
FROM guest_deadlines FINAL WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("ask for overdue guests: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var g GuestSuccess
		if err := rows.Scan(&g.HostID, &g.VMID, &g.FirstSeen, &g.Newest[0], &g.Newest[1], &g.Newest[2]); err != nil {
			return nil, err
		}
		if !g.FirstSeen.Before(notSeen) {
			g.FirstSeen = time.Time{}
		}
		for d := range g.Newest {
			if !g.Newest[d].After(never) {
				g.Newest[d] = time.Time{}
			}
		}
		found = append(found, g)
	}
	return found, rows.Err()
}

// addPresence says of guests whether they are in their host's newest report: of few
// hosts, which are named; else all are read. A report comes before its guests, so one
// that should have some and has none there yet does not count.
func (db *DB) addPresence(ctx context.Context, found []GuestSuccess) error {
	if len(found) == 0 {
		return nil
	}
	hosts := make(map[string]*hostPlaces, len(found))
	for _, g := range found {
		hosts[g.HostID] = &hostPlaces{}
	}
	where, args := "", []any(nil)
	if len(hosts) <= namedAtMost {
		where, args = " WHERE host_id IN (?)", []any{slices.Collect(maps.Keys(hosts))}
	}
	own := make(map[guest]place, len(found))
	for _, g := range found {
		own[guest{g.HostID, g.VMID}] = place{}
	}
	err := db.places(ctx, "SELECT host_id, guest_total, last_report_at, spool_seq FROM host_last FINAL"+where, args, func(host string, guests uint32, p place) {
		if h, ok := hosts[host]; ok {
			h.report, h.guests = p, guests
		}
	})
	if err == nil {
		err = db.places(ctx, "SELECT host_id, vmid, last_seen_at, spool_seq FROM guest_last FINAL"+where, args, func(host string, vmid uint32, p place) {
			if h, ok := hosts[host]; ok && p.after(h.listed) {
				h.listed = p
			}
			if _, ok := own[guest{host, vmid}]; ok {
				own[guest{host, vmid}] = p
			}
		})
	}
	if err != nil {
		return fmt.Errorf("ask which guests are still there: %w", err)
	}
	for i := range found {
		g := &found[i]
		last := hosts[g.HostID].last()
		g.HostLastAt, g.Present = last.at, last != place{} && own[guest{g.HostID, g.VMID}] == last
	}
	return nil
}

// place tells a report from the others of a host.
type place struct {
	at  time.Time
	seq uint64
}

func (p place) after(q place) bool { return p.at.After(q.at) || p.at.Equal(q.at) && p.seq > q.seq }

// hostPlaces are those of a host's newest report, with the number of its guests, and
// of the newest one of which guests are there.
type hostPlaces struct {
	report, listed place
	guests         uint32
}

// last returns the newest report of which all is there.
func (h *hostPlaces) last() place {
	if h.guests == 0 && h.report.after(h.listed) {
		return h.report
	}
	return h.listed
}

func (db *DB) places(ctx context.Context, sql string, args []any, f func(host string, number uint32, p place)) error {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var host string
		var number uint32
		var p place
		if err := rows.Scan(&host, &number, &p.at, &p.seq); err != nil {
			return err
		}
		f(host, number, p)
	}
	return rows.Err()
}

// itemTables have the successes in reports of hosts, by hub.Deadline.
var itemTables = [3]string{tableBackups, tableRestoreTests, tableSnapshots}

// FirstSuccesses returns, for each guest id of after, the first success in the reports
// of its host, or its controller, that counts for a time later than the instant given
// for it. Guests without one are left out.
func (db *DB) FirstSuccesses(ctx context.Context, d hub.Deadline, after map[string]time.Time) (map[string]time.Time, error) {
	ids := make([]string, 0, len(after))
	for id := range after {
		if hub.ValidGuestID(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	first := make(map[string]time.Time, len(after))
	for chunk := range slices.Chunk(ids, firstReportsChunk) {
		if err := db.firstSuccesses(ctx, d, chunk, after, first); err != nil {
			return nil, fmt.Errorf("ask for the first success: %w", err)
		}
	}
	return first, nil
}

func (db *DB) firstSuccesses(ctx context.Context, d hub.Deadline, ids []string, after, first map[string]time.Time) error {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	guests, instants := make([]guest, len(ids)), make([]int64, len(ids))
	for i, id := range ids {
		guests[i].host, guests[i].vmid, _ = hub.ParseGuestID(id)
		instants[i] = int64(math.MinInt64)
		if t := after[id]; t.After(minTime) {
			instants[i] = t.UnixMilli()
		}
	}
	// FINAL comes first: a row that was repeated later would count for a later time.
	successes := "SELECT guest_id AS id, assumeNotNull(succeeded_at) AS at FROM " + itemTables[d] + " FINAL WHERE (host_id, vmid) IN (?) AND succeeded_at IS NOT NULL"
	args := []any{tuples(guests)}
	if d == hub.BackupDeadline {
		successes += ` UNION ALL
    SELECT guest_id, least(assumeNotNull(last_backup_at), min(received_at)) FROM controller_reports
    WHERE guest_id IN (?) AND last_backup_at IS NOT NULL GROUP BY guest_id, last_backup_at`
		args = append(args, ids)
	}
	rows, err := db.conn.Query(ctx, "SELECT id, min(at) FROM ("+successes+") WHERE toUnixTimestamp64Milli(at) > transform(id, ?, ?, toInt64(0)) GROUP BY id",
		append(args, ids, instants)...)
	if err != nil {
		return err
	}
	return scanInstants(rows, first)
}
