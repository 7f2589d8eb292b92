package clickhouse

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/hub"
)

// What the register says of a host, a customer, a key; two equal entries need no
// row.

type hostEntry struct {
	Customer, DisplayName, Site, Lifecycle string
	StaleAfter, DownAfter                  float64
	Details                                string // SHA-256 of what may be long; see detailsOf
}

type customerEntry struct {
	DisplayName string
	Blocked     bool
}

type keyEntry struct {
	Owner, Customer, Host, ID string
	NotAfter                  time.Time // as storedTime makes it; zero: does not expire
}

func hostEntryOf(h *hub.Host, t hub.Thresholds) *hostEntry {
	return &hostEntry{
		Customer: h.Customer, DisplayName: h.DisplayName, Site: h.Labels["site"], Lifecycle: string(h.Lifecycle),
		StaleAfter: t.StaleAfter.Seconds(), DownAfter: t.DownAfter.Seconds(),
		Details: detailsOf(h),
	}
}

// hostIn returns the entry of a host as it holds in a fleet; nil for none.
func hostIn(f *hub.Fleet, h *hub.Host, base hub.Thresholds) *hostEntry {
	if h == nil {
		return nil
	}
	return hostEntryOf(h, f.Thresholds(h, base))
}

func customerEntryOf(c *hub.Customer) *customerEntry {
	if c == nil {
		return nil
	}
	return &customerEntry{DisplayName: c.DisplayName, Blocked: c.Blocked}
}

// detailsOf returns the SHA-256 of a host's labels, desired spec and
// disaster-recovery record. The server computes the same (details), so that
// these texts need not be read to be compared; where the two ever differed, the
// host would get a row too many, never one too few.
func detailsOf(h *hub.Host) string {
	sum := sha256.New()
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(h.Labels)) {
		for _, s := range []string{name, h.Labels[name]} {
			text = append(strconv.AppendInt(text, int64(len(s)), 10), ':')
			text = append(text, s...)
		}
	}
	sum.Write(append(text, 0))
	sum.Write(h.Desired)
	sum.Write([]byte{0})
	sum.Write(h.DRRecord)
	return string(sum.Sum(nil))
}

const details = `SHA256(concat(
    arrayStringConcat(arrayMap(l -> concat(toString(length(l.1)), ':', l.1, toString(length(l.2)), ':', l.2), arraySort(arrayZip(mapKeys(labels), mapValues(labels))))),
    char(0), desired, char(0), dr_record))`

// storedTime returns t as the database gives it back, so that == compares.
func storedTime(t time.Time) time.Time {
	return time.UnixMilli(clampTime(t).UnixMilli()).UTC()
}

func hostsByID(f *hub.Fleet) iter.Seq2[string, *hub.Host] {
	return func(yield func(string, *hub.Host) bool) {
		for h := range f.Hosts() {
			if !yield(h.ID, h) {
				return
			}
		}
	}
}

func customersByName(f *hub.Fleet) iter.Seq2[string, *hub.Customer] {
	return func(yield func(string, *hub.Customer) bool) {
		for c := range f.Customers() {
			if !yield(c.Name, c) {
				return
			}
		}
	}
}

func hostEntries(f *hub.Fleet, base hub.Thresholds) iter.Seq2[string, *hostEntry] {
	return func(yield func(string, *hostEntry) bool) {
		for h := range f.Hosts() {
			if !yield(h.ID, hostIn(f, h, base)) {
				return
			}
		}
	}
}

func customerEntries(f *hub.Fleet) iter.Seq2[string, *customerEntry] {
	return func(yield func(string, *customerEntry) bool) {
		for c := range f.Customers() {
			if !yield(c.Name, customerEntryOf(c)) {
				return
			}
		}
	}
}

// keyEntries yields every key in the order of keyName: customer/…, fleet, host/….
func keyEntries(f *hub.Fleet) iter.Seq2[string, *keyEntry] {
	return func(yield func(string, *keyEntry) bool) {
		more := true
		each := func(keys iter.Seq2[string, *keyEntry]) bool {
			for id, k := range keys {
				if more = yield(id, k); !more {
					break
				}
			}
			return more
		}
		for c := range f.Customers() {
			if !each(customerKeys(c)) {
				return
			}
		}
		if !each(globalKeys(f)) {
			return
		}
		for h := range f.Hosts() {
			if !each(hostKeys(h)) {
				return
			}
		}
	}
}

func globalKeys(f *hub.Fleet) iter.Seq2[string, *keyEntry] {
	return ownedKeys(keyEntry{Owner: hub.FleetOwner().String()}, f.Keys())
}

func customerKeys(c *hub.Customer) iter.Seq2[string, *keyEntry] {
	if c == nil {
		return ownedKeys(keyEntry{}, nil)
	}
	return ownedKeys(keyEntry{Owner: hub.CustomerOwner(c.Name).String(), Customer: c.Name}, c.Keys)
}

// hostKeys yields none for a retired host: its keys are unknown to the hub.
func hostKeys(h *hub.Host) iter.Seq2[string, *keyEntry] {
	if h == nil || h.Lifecycle == hub.Retired {
		return ownedKeys(keyEntry{}, nil)
	}
	return ownedKeys(keyEntry{Owner: hub.HostOwner(h.ID).String(), Customer: h.Customer, Host: h.ID}, h.Keys)
}

func ownedKeys(owner keyEntry, keys []hub.Key) iter.Seq2[string, *keyEntry] {
	return func(yield func(string, *keyEntry) bool) {
		sorted := slices.SortedFunc(slices.Values(keys), func(a, b hub.Key) int { return cmp.Compare(a.ID, b.ID) })
		for _, k := range slices.CompactFunc(sorted, func(a, b hub.Key) bool { return a.ID == b.ID }) {
			e := owner
			e.ID = k.ID
			if !k.NotAfter.IsZero() {
				e.NotAfter = storedTime(k.NotAfter)
			}
			if !yield(keyName(e.Owner, e.ID), &e) {
				return
			}
		}
	}
}

// keyName orders keys as (owner, key_id) does: no character of an owner or an id
// comes before the space.
func keyName(owner, id string) string { return owner + " " + id }

// newestGeneration returns the greatest generation in the register; 0: none.
func (db *DB) newestGeneration(ctx context.Context) (uint64, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var newest uint64
	err := db.conn.QueryRow(ctx, `SELECT greatest((SELECT max(generation) FROM fleet_hosts),
    (SELECT max(generation) FROM fleet_customers), (SELECT max(generation) FROM fleet_key_changes))`).Scan(&newest)
	return newest, err
}

// streamRows is the size of the blocks in which long answers are read: the
// driver holds up to four of them.
const streamRows = 1000

// storedRows reads the newest row of each name from a table of the register, in
// the order of names. The table is sorted by them, so the server holds one name
// at a time.
type storedRows[E any] struct {
	query string
	scan  func(driver.Rows) (id string, row *newest[E], err error)
}

// read yields the rows up to the end or the first error, which it puts into
// failed.
func (s storedRows[E]) read(ctx context.Context, db *DB, failed *error) iter.Seq2[string, *newest[E]] {
	return func(yield func(string, *newest[E]) bool) {
		ctx, cancel := db.queryContext(ctx, ch.Settings{
			"max_block_size": streamRows, "max_threads": 1, "optimize_aggregation_in_order": 1})
		defer cancel()
		rows, err := db.conn.Query(ctx, s.query)
		if err != nil {
			*failed = err
			return
		}
		defer rows.Close()
		last := ""
		for rows.Next() {
			id, row, err := s.scan(rows)
			if err == nil && id <= last {
				err = fmt.Errorf("the server gave %q after %q", id, last) // what is there would be taken for gone
			}
			if err != nil {
				*failed = err
				return
			}
			last = id
			if !yield(id, row) {
				return
			}
		}
		*failed = rows.Err()
	}
}

var hostRows = storedRows[hostEntry]{
	query: `
SELECT
    host_id,
    (argMax((toString(customer_id), display_name, toString(site), toString(lifecycle), stale_after_seconds, down_after_seconds, ` + details + `, removed), generation) AS newest).1,
    newest.2, newest.3, newest.4, newest.5, newest.6, newest.7, newest.8
FROM fleet_hosts GROUP BY host_id ORDER BY host_id`,
	scan: func(rows driver.Rows) (id string, row *newest[hostEntry], err error) {
		row = &newest[hostEntry]{}
		e := &row.entry
		var removed uint8
		err = rows.Scan(&id, &e.Customer, &e.DisplayName, &e.Site, &e.Lifecycle, &e.StaleAfter, &e.DownAfter, &e.Details, &removed)
		row.removed = removed == 1
		return id, row, err
	},
}

var customerRows = storedRows[customerEntry]{
	query: `
SELECT customer_id, (argMax((display_name, blocked, removed), generation) AS newest).1, newest.2, newest.3
FROM fleet_customers GROUP BY customer_id ORDER BY customer_id`,
	scan: func(rows driver.Rows) (id string, row *newest[customerEntry], err error) {
		row = &newest[customerEntry]{}
		var blocked, removed uint8
		err = rows.Scan(&id, &row.entry.DisplayName, &blocked, &removed)
		row.entry.Blocked, row.removed = blocked == 1, removed == 1
		return id, row, err
	},
}

var keyRows = storedRows[keyEntry]{
	query: `
SELECT owner, key_id, (argMax((toString(customer_id), host_id, not_after, removed), generation) AS newest).1, newest.2, newest.3, newest.4
FROM fleet_key_changes GROUP BY owner, key_id ORDER BY owner, key_id`,
	scan: func(rows driver.Rows) (id string, row *newest[keyEntry], err error) {
		row = &newest[keyEntry]{}
		e := &row.entry
		var notAfter *time.Time
		var removed uint8
		err = rows.Scan(&e.Owner, &e.ID, &e.Customer, &e.Host, &notAfter, &removed)
		if notAfter != nil {
			e.NotAfter = storedTime(*notAfter)
		}
		row.removed = removed == 1
		return keyName(e.Owner, e.ID), row, err
	},
}

// registerColumns are common to the tables of the register.
type registerColumns struct {
	generation values[uint64]
	revision   values[string]
	appliedAt  values[time.Time]
	removed    values[uint8]
	bytes      int // of the long texts
}

func (c *registerColumns) rows() int { return len(c.generation) }

// full reports whether the block is as large as one may be.
func (c *registerColumns) full() bool { return c.rows() >= registerRows || c.bytes >= registerBytes }

func (c *registerColumns) add(at registerStamp, removed bool) {
	c.generation = append(c.generation, at.generation)
	c.revision = append(c.revision, at.revision)
	c.appliedAt = append(c.appliedAt, at.appliedAt)
	c.removed = append(c.removed, flag(removed))
}

func (c *registerColumns) with(more ...column) []column {
	return append([]column{
		{"generation", &c.generation},
		{"revision", &c.revision},
		{"applied_at", &c.appliedAt},
		{"removed", &c.removed},
	}, more...)
}

type fleetHosts struct {
	registerColumns
	id, customer, name, site, lifecycle values[string]
	desired, drRecord                   values[[]byte]
	labels                              values[map[string]string]
	staleAfter, downAfter               values[float64]
}

// add adds a row; h has the texts, and is nil where the host is gone: its last
// row but one has them.
func (c *fleetHosts) add(at registerStamp, id string, e *hostEntry, h *hub.Host) {
	removed := h == nil
	if removed {
		h = &hub.Host{}
	}
	c.registerColumns.add(at, removed)
	c.bytes += len(h.Desired) + len(h.DRRecord)
	c.id = append(c.id, id)
	c.customer = append(c.customer, e.Customer)
	c.name = append(c.name, e.DisplayName)
	c.site = append(c.site, e.Site)
	c.labels = append(c.labels, h.Labels)
	c.lifecycle = append(c.lifecycle, e.Lifecycle)
	c.staleAfter = append(c.staleAfter, e.StaleAfter)
	c.downAfter = append(c.downAfter, e.DownAfter)
	c.desired = append(c.desired, h.Desired)
	c.drRecord = append(c.drRecord, h.DRRecord)
}

func (c *fleetHosts) columns() []column {
	return c.with(
		column{"host_id", &c.id},
		column{"customer_id", &c.customer},
		column{"display_name", &c.name},
		column{"site", &c.site},
		column{"labels", &c.labels},
		column{"lifecycle", &c.lifecycle},
		column{"stale_after_seconds", &c.staleAfter},
		column{"down_after_seconds", &c.downAfter},
		column{"desired", &c.desired},
		column{"dr_record", &c.drRecord},
	)
}

type fleetCustomers struct {
	registerColumns
	name, displayName values[string]
	blocked           values[uint8]
}

func (c *fleetCustomers) add(at registerStamp, name string, e *customerEntry, removed bool) {
	c.registerColumns.add(at, removed)
	c.name = append(c.name, name)
	c.displayName = append(c.displayName, e.DisplayName)
	c.blocked = append(c.blocked, flag(e.Blocked))
}

func (c *fleetCustomers) columns() []column {
	return c.with(column{"customer_id", &c.name}, column{"display_name", &c.displayName}, column{"blocked", &c.blocked})
}

type fleetKeys struct {
	registerColumns
	owner, customer, host, id values[string]
	notAfter                  values[*time.Time]
}

func (c *fleetKeys) add(at registerStamp, e *keyEntry, removed bool) {
	c.registerColumns.add(at, removed)
	c.owner = append(c.owner, e.Owner)
	c.customer = append(c.customer, e.Customer)
	c.host = append(c.host, e.Host)
	c.id = append(c.id, e.ID)
	var notAfter *time.Time
	if !e.NotAfter.IsZero() {
		notAfter = &e.NotAfter
	}
	c.notAfter = append(c.notAfter, notAfter)
}

func (c *fleetKeys) columns() []column {
	return c.with(
		column{"owner", &c.owner},
		column{"customer_id", &c.customer},
		column{"host_id", &c.host},
		column{"key_id", &c.id},
		column{"not_after", &c.notAfter},
	)
}
