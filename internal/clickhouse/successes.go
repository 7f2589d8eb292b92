package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Success is a success of a guest, as one report tells of it.
type Success struct {
	HostID   string
	VMID     uint32
	Deadline hub.Deadline

	// Item tells this success from others of the guest; each report that repeats it
	// must give the same.
	Item string

	At         time.Time // the agent's clock
	ReceivedAt time.Time // the hub's, of the report
}

// AddSuccess adds a success to what the guest's deadline is judged by, and returns
// the time for which it counts: its own, but never one later than when the hub first
// heard of it. Successes must be added in the order in which they were received;
// what ahead forgets, or never knew, counts from the report that repeats it.
func (b *Batch) AddSuccess(s Success, ahead *Ahead) time.Time {
	counts, remember := ahead.counts(s)
	if remember {
		b.ahead.add(s, counts)
	}
	b.deadlines.addSuccess(s, counts)
	return counts
}

// Ahead remembers the successes that the hub heard of before the time that they
// give, because the agent's clock is ahead, and when it first did. Without it such
// a success would look newer each time it is repeated. One that the guest's later
// successes have overtaken can do no harm, and is forgotten. The zero value
// remembers nothing. It is not safe for concurrent use.
type Ahead struct{ of map[guestDeadline][]early }

type guestDeadline struct {
	host     string
	vmid     uint32
	deadline hub.Deadline
}

// early is a success with a time of its own that was in the future.
type early struct {
	item       string
	own, first time.Time
}

// counts returns the time for which a success counts, and whether that must be
// remembered.
func (a *Ahead) counts(s Success) (at time.Time, remember bool) {
	key := guestDeadline{s.HostID, s.VMID, s.Deadline}
	known := a.of[key]
	e := early{s.Item, s.At, s.ReceivedAt}
	kept := known[:0]
	for _, k := range known {
		if k.item == s.Item { // the first receipt counts, also where the reports come out of order
			e.first, remember = earlier(k.first, e.first), true
			e.own = later(k.own, e.own)
		} else {
			kept = append(kept, k)
		}
	}
	at = hub.Counts(s.At, e.first)
	remember = remember || s.At.After(e.first)
	if !remember && len(known) == 0 {
		return at, false
	}
	n := 0
	for _, k := range kept {
		if k.own.After(at) {
			kept[n] = k
			n++
		}
	}
	kept = kept[:n]
	if remember && e.own.After(at) {
		e.item = strings.Clone(e.item)
		kept = append(kept, e)
	}
	a.set(key, kept)
	return at, remember
}

func (a *Ahead) set(key guestDeadline, list []early) {
	if len(list) == 0 {
		delete(a.of, key)
		return
	}
	if a.of == nil {
		a.of = map[guestDeadline][]early{}
	}
	key.host = strings.Clone(key.host) // it may lie in the body of a report
	a.of[key] = list
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Ahead returns what ClickHouse knows of successes that were early and that their
// guests have not overtaken.
func (db *DB) Ahead(ctx context.Context) (*Ahead, error) {
	ctx, cancel := db.queryContext(ctx, inOrder)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT a.host_id, a.vmid, toString(a.deadline), a.item, a.own_at, a.received_at
FROM (SELECT * FROM successes_ahead FINAL) AS a
LEFT JOIN
(
    SELECT * FROM guest_deadlines FINAL WHERE (host_id, vmid) IN (SELECT host_id, vmid FROM successes_ahead)
) AS g ON g.host_id = a.host_id AND g.vmid = a.vmid
WHERE a.own_at > multiIf(a.deadline = 'backup', g.backup_at, a.deadline = 'restore_test', g.restore_test_at, g.pbs_verify_at)
SETTINGS join_use_nulls = 0`)
	if err != nil {
		return nil, fmt.Errorf("ask for successes that were ahead of their time: %w", err)
	}
	defer rows.Close()
	a := &Ahead{of: map[guestDeadline][]early{}}
	for rows.Next() {
		var key guestDeadline
		var deadline string
		var e early
		if err := rows.Scan(&key.host, &key.vmid, &deadline, &e.item, &e.own, &e.first); err != nil {
			return nil, err
		}
		for _, key.deadline = range hub.AllDeadlines() {
			if key.deadline.String() == deadline {
				a.of[key] = append(a.of[key], e)
			}
		}
	}
	return a, rows.Err()
}

// successesAhead are rows of what Ahead remembers.
type successesAhead struct {
	hostID, deadline, item values[string]
	vmid                   values[uint32]
	own, receivedAt        values[time.Time]
}

func (c *successesAhead) rows() int { return len(c.vmid) }

func (c *successesAhead) add(s Success, first time.Time) {
	c.hostID = append(c.hostID, s.HostID)
	c.vmid = append(c.vmid, s.VMID)
	c.deadline = append(c.deadline, s.Deadline.String())
	c.item = append(c.item, s.Item)
	c.own = append(c.own, clampTime(s.At))
	c.receivedAt = append(c.receivedAt, first)
}

func (c *successesAhead) columns() []column {
	return []column{
		{"host_id", &c.hostID},
		{"vmid", &c.vmid},
		{"deadline", &c.deadline},
		{"item", &c.item},
		{"own_at", &c.own},
		{"received_at", &c.receivedAt},
	}
}

// guestDeadlines are rows of what deadlines are judged by.
type guestDeadlines struct {
	hostID    values[string]
	vmid      values[uint32]
	firstSeen values[time.Time]
	newest    [3]values[time.Time] // by hub.Deadline
}

// What stands where a row says nothing; ClickHouse takes the least and the greatest.
var (
	notSeen = maxTime
	never   = time.Unix(0, 0).UTC()
)

func (c *guestDeadlines) rows() int { return len(c.vmid) }

func (c *guestDeadlines) addSight(at source, vmid uint32) {
	c.add(at.hostID, vmid, at.receivedAt, [3]time.Time{never, never, never})
}

func (c *guestDeadlines) addSuccess(s Success, counts time.Time) {
	newest := [3]time.Time{never, never, never}
	newest[s.Deadline] = clampTime(counts)
	c.add(s.HostID, s.VMID, notSeen, newest)
}

func (c *guestDeadlines) add(host string, vmid uint32, firstSeen time.Time, newest [3]time.Time) {
	c.hostID = append(c.hostID, host)
	c.vmid = append(c.vmid, vmid)
	c.firstSeen = append(c.firstSeen, firstSeen)
	for d, at := range newest {
		c.newest[d] = append(c.newest[d], at)
	}
}

func (c *guestDeadlines) columns() []column {
	return []column{
		{"host_id", &c.hostID},
		{"vmid", &c.vmid},
		{"first_seen_at", &c.firstSeen},
		{"backup_at", &c.newest[hub.BackupDeadline]},
		{"restore_test_at", &c.newest[hub.RestoreTestDeadline]},
		{"pbs_verify_at", &c.newest[hub.PBSVerifyDeadline]},
	}
}
