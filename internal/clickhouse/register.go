package clickhouse

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/hub"
)

// hostEntry is what the register says of a host; two equal entries need no row.
type hostEntry struct {
	Customer, DisplayName, Site, Labels, Lifecycle string
	StaleAfter, DownAfter                          float64
	Desired, DRRecord                              string
	Removed                                        bool
}

type customerEntry struct {
	DisplayName      string
	Blocked, Removed bool
}

// SyncFleet makes fleet_hosts and fleet_customers say what fleet says, by
// appending one row for each difference: it may be repeated at any time, and
// after any error. base are the thresholds where the fleet names none.
func (db *DB) SyncFleet(ctx context.Context, fleet *hub.Fleet, appliedAt time.Time, base hub.Thresholds) error {
	generation, err := db.nextGeneration(ctx)
	if err != nil {
		return err
	}
	stamp := registerStamp{generation, fleet.Revision(), appliedAt}
	if err := db.syncCustomers(ctx, fleet, stamp); err != nil {
		return err
	}
	return db.syncHosts(ctx, fleet, base, stamp)
}

// appendRegister inserts rows under a token of their own. Without one the server
// goes by their content, and after a kill may take them for a block that it has
// only the mark of. Rows that are there twice do no harm.
func (db *DB) appendRegister(ctx context.Context, table string, rows block) error {
	return db.insertBlock(ctx, table, rows, table+"/"+rand.Text())
}

type registerStamp struct {
	generation uint64
	revision   string
	appliedAt  time.Time
}

func (db *DB) nextGeneration(ctx context.Context) (uint64, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var newest uint64
	err := db.conn.QueryRow(ctx, "SELECT greatest((SELECT max(generation) FROM fleet_hosts), (SELECT max(generation) FROM fleet_customers))").Scan(&newest)
	return newest + 1, err
}

func (db *DB) syncHosts(ctx context.Context, fleet *hub.Fleet, base hub.Thresholds, at registerStamp) error {
	current, err := db.currentHosts(ctx)
	if err != nil {
		return err
	}
	rows := &fleetHosts{registerColumns: registerColumns{stamp: at}}
	for h := range fleet.Hosts() {
		entry := entryOf(h, fleet.Thresholds(h, base))
		if current[h.ID] != entry {
			rows.add(h.ID, entry)
		}
		delete(current, h.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(current)) {
		if entry := current[id]; !entry.Removed {
			entry.Removed = true
			rows.add(id, entry)
		}
	}
	return db.appendRegister(ctx, "fleet_hosts", rows)
}

func entryOf(h *hub.Host, t hub.Thresholds) hostEntry {
	return hostEntry{
		Customer: h.Customer, DisplayName: h.DisplayName, Site: h.Labels["site"], Labels: labelText(h.Labels), Lifecycle: string(h.Lifecycle),
		StaleAfter: t.StaleAfter.Seconds(), DownAfter: t.DownAfter.Seconds(),
		Desired: string(h.Desired), DRRecord: string(h.DRRecord),
	}
}

// labelText writes labels in one comparable form: JSON with sorted names.
func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return "{}"
	}
	text, _ := json.Marshal(labels) // a map of strings always marshals
	return string(text)
}

func (db *DB) currentHosts(ctx context.Context) (map[string]hostEntry, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	rows, err := db.conn.Query(ctx, `
SELECT host_id, newest.1, newest.2, newest.3, newest.4, newest.5, newest.6, newest.7, newest.8, newest.9, newest.10
FROM
(
    SELECT host_id, argMax((toString(customer_id), display_name, toString(site), labels, toString(lifecycle), stale_after_seconds, down_after_seconds, desired, dr_record, removed), generation) AS newest
    FROM fleet_hosts GROUP BY host_id
)`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	current := map[string]hostEntry{}
	for rows.Next() {
		var id string
		var e hostEntry
		var labels map[string]string
		var removed uint8
		if err := rows.Scan(&id, &e.Customer, &e.DisplayName, &e.Site, &labels, &e.Lifecycle, &e.StaleAfter, &e.DownAfter, &e.Desired, &e.DRRecord, &removed); err != nil {
			return nil, err
		}
		e.Labels, e.Removed = labelText(labels), removed == 1
		current[id] = e
	}
	return current, rows.Err()
}

func (db *DB) syncCustomers(ctx context.Context, fleet *hub.Fleet, at registerStamp) error {
	current, err := db.currentCustomers(ctx)
	if err != nil {
		return err
	}
	rows := &fleetCustomers{registerColumns: registerColumns{stamp: at}}
	for c := range fleet.Customers() {
		entry := customerEntry{DisplayName: c.DisplayName, Blocked: c.Blocked}
		if old, ok := current[c.Name]; !ok || old != entry {
			rows.add(c.Name, entry)
		}
		delete(current, c.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(current)) {
		if entry := current[name]; !entry.Removed {
			entry.Removed = true
			rows.add(name, entry)
		}
	}
	return db.appendRegister(ctx, "fleet_customers", rows)
}

func (db *DB) currentCustomers(ctx context.Context) (map[string]customerEntry, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var list []struct {
		Name        string `ch:"customer_id"`
		DisplayName string `ch:"name"`
		Blocked     uint8  `ch:"is_blocked"`
		Removed     uint8  `ch:"is_removed"`
	}
	err := db.conn.Select(ctx, &list, `
SELECT customer_id, argMax(display_name, generation) AS name, argMax(blocked, generation) AS is_blocked, argMax(removed, generation) AS is_removed
FROM fleet_customers GROUP BY customer_id`)
	current := make(map[string]customerEntry, len(list))
	for _, c := range list {
		current[c.Name] = customerEntry{c.DisplayName, c.Blocked == 1, c.Removed == 1}
	}
	return current, err
}

// registerColumns are common to both register tables.
type registerColumns struct {
	stamp      registerStamp
	generation []uint64
	revision   []string
	appliedAt  []time.Time
	removed    []uint8
}

func (c *registerColumns) rows() int { return len(c.generation) }

func (c *registerColumns) add(removed bool) {
	c.generation = append(c.generation, c.stamp.generation)
	c.revision = append(c.revision, c.stamp.revision)
	c.appliedAt = append(c.appliedAt, c.stamp.appliedAt)
	c.removed = append(c.removed, flag(removed))
}

func (c *registerColumns) with(more ...column) []column {
	return append([]column{
		{"generation", c.generation},
		{"revision", c.revision},
		{"applied_at", c.appliedAt},
		{"removed", c.removed},
	}, more...)
}

type fleetHosts struct {
	registerColumns
	id, customer, name, site, lifecycle, desired, drRecord []string
	labels                                                 []map[string]string
	staleAfter, downAfter                                  []float64
}

func (c *fleetHosts) add(id string, e hostEntry) {
	labels := map[string]string{}
	_ = json.Unmarshal([]byte(e.Labels), &labels) // labelText wrote it
	c.registerColumns.add(e.Removed)
	c.id = append(c.id, id)
	c.customer = append(c.customer, e.Customer)
	c.name = append(c.name, e.DisplayName)
	c.site = append(c.site, e.Site)
	c.labels = append(c.labels, labels)
	c.lifecycle = append(c.lifecycle, e.Lifecycle)
	c.staleAfter = append(c.staleAfter, e.StaleAfter)
	c.downAfter = append(c.downAfter, e.DownAfter)
	c.desired = append(c.desired, e.Desired)
	c.drRecord = append(c.drRecord, e.DRRecord)
}

func (c *fleetHosts) columns() []column {
	return c.with(
		column{"host_id", c.id},
		column{"customer_id", c.customer},
		column{"display_name", c.name},
		column{"site", c.site},
		column{"labels", c.labels},
		column{"lifecycle", c.lifecycle},
		column{"stale_after_seconds", c.staleAfter},
		column{"down_after_seconds", c.downAfter},
		column{"desired", c.desired},
		column{"dr_record", c.drRecord},
	)
}

type fleetCustomers struct {
	registerColumns
	name, displayName []string
	blocked           []uint8
}

func (c *fleetCustomers) add(name string, e customerEntry) {
	c.registerColumns.add(e.Removed)
	c.name = append(c.name, name)
	c.displayName = append(c.displayName, e.DisplayName)
	c.blocked = append(c.blocked, flag(e.Blocked))
}

func (c *fleetCustomers) columns() []column {
	return c.with(column{"customer_id", c.name}, column{"display_name", c.displayName}, column{"blocked", c.blocked})
}
