package clickhouse

import (
	"context"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/hub"
)

// Sight is what was last seen of a host or a guest.
type Sight struct {
	CustomerID string // that the host belonged to in that report; empty of a guest
	hub.LastSeen
}

// LastSeen returns what the newest reports in ClickHouse say of hosts and guests, by
// their ids; those of which there is none are left out. Each list may have 1,000. Of a
// guest it is the newest report that lists it, which need not be the host's newest. A
// text is cut to 100 characters: an agent may make one as long as a report.
func (db *DB) LastSeen(ctx context.Context, hosts, guests []string) (map[string]Sight, error) {
	sights := make(map[string]Sight, len(hosts)+len(guests))
	if err := db.hostSights(ctx, hosts, sights); err != nil || len(guests) == 0 {
		return sights, err
	}
	return sights, db.guestSights(ctx, hosts, guests, sights)
}

func (db *DB) hostSights(ctx context.Context, hosts []string, sights map[string]Sight) error {
	return db.sights(ctx, sights, `
SELECT host_id, customer_id, received_at, leftUTF8(pve_version, 100), guest_total, guest_running, mem_percent, disk_percent
FROM host_reports WHERE `+newestOf+` ORDER BY host_id, spool_seq DESC LIMIT 1 BY host_id`, func(rows driver.Rows, id *string, s *Sight) error {
		return rows.Scan(id, &s.CustomerID, &s.At, &s.PVEVersion, &s.Guests, &s.GuestsRunning, &s.MemPercent, &s.DiskPercent)
	}, hosts)
}

// guestSights reads guests by the names of their hosts, which the key begins with.
func (db *DB) guestSights(ctx context.Context, hosts, guests []string, sights map[string]Sight) error {
	return db.sights(ctx, sights, `
SELECT concat(host_id, '/', toString(vmid)) AS guest, last_seen_at, leftUTF8(name, 100), leftUTF8(status, 100)
FROM guest_last FINAL WHERE host_id IN (?) AND guest IN (?)`, func(rows driver.Rows, id *string, s *Sight) error {
		return rows.Scan(id, &s.At, &s.GuestName, &s.GuestStatus)
	}, hosts, guests)
}

// sights adds what a query finds; next scans a row.
func (db *DB) sights(ctx context.Context, sights map[string]Sight, sql string, next func(driver.Rows, *string, *Sight) error, args ...any) error {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	rows, err := db.conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var s Sight
		if err := next(rows, &id, &s); err != nil {
			return err
		}
		sights[id] = s
	}
	return rows.Err()
}
