package clickhouse_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
)

func newFleet(t testing.TB, spec hub.FleetSpec) *hub.Fleet {
	t.Helper()
	f, err := hub.NewFleet(spec)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func keyOf(owner hub.Owner, id string, notAfter time.Time) hub.Key {
	digest, _ := hub.DigestKey(hub.NewKey().Reveal())
	return hub.Key{ID: id, Owner: owner, Digest: digest, NotAfter: notAfter}
}

// newestRows is what the register says now, as text: hosts, customers, keys.
func newestRows(t *testing.T, conn driver.Conn) []string {
	t.Helper()
	return one[[]string](t, conn, `SELECT arraySort(groupArray(line)) FROM
(
    SELECT concat(host_id, ' ', (argMax((toString(customer_id), display_name, toString(site), toString(lifecycle), stale_after_seconds, down_after_seconds, desired, removed), generation) AS n).1,
        ' ', n.2, ' ', n.3, ' ', n.4, ' ', toString(n.5), ' ', toString(n.6), ' ', n.7) AS line
    FROM fleet_hosts GROUP BY host_id HAVING n.8 = 0
    UNION ALL
    SELECT concat('customer ', customer_id, ' ', (argMax((display_name, blocked, removed), generation) AS n).1, ' ', toString(n.2)) AS line
    FROM fleet_customers GROUP BY customer_id HAVING n.3 = 0
    UNION ALL
    SELECT concat('key ', owner, ' ', key_id, ' ', customer_id, ' ', host_id, ' ', toString(ifNull(toUnixTimestamp64Milli(not_after), 0))) AS line FROM fleet_keys
)`)
}

// saidOf is what the register must say of a fleet.
func saidOf(f *hub.Fleet) []string {
	var lines []string
	keys := func(owner hub.Owner, customer, host string, keys []hub.Key) {
		for _, k := range keys {
			until := int64(0)
			if !k.NotAfter.IsZero() {
				until = k.NotAfter.UnixMilli()
			}
			lines = append(lines, fmt.Sprintf("key %s %s %s %s %d", owner, k.ID, customer, host, until))
		}
	}
	keys(hub.FleetOwner(), "", "", f.Keys())
	for c := range f.Customers() {
		blocked := 0
		if c.Blocked {
			blocked = 1
		}
		lines = append(lines, fmt.Sprintf("customer %s %s %d", c.Name, c.DisplayName, blocked))
		keys(hub.CustomerOwner(c.Name), c.Name, "", c.Keys)
	}
	for h := range f.Hosts() {
		t := f.Thresholds(h, base)
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s %v %v %s", h.ID, h.Customer, h.DisplayName, h.Labels["site"], h.Lifecycle, t.StaleAfter.Seconds(), t.DownAfter.Seconds(), h.Desired))
		if h.Lifecycle != hub.Retired {
			keys(hub.HostOwner(h.ID), h.Customer, h.ID, h.Keys)
		}
	}
	slices.Sort(lines)
	return lines
}

// model is a fleet that changes a little at a time, as a loader makes it: what
// does not change keeps its pointer.
type model struct {
	rng       *rand.Rand
	revision  int
	monitor   hub.Thresholds
	keys      []hub.Key
	hosts     map[string]*hub.Host
	customers map[string]*hub.Customer
}

func (m *model) fleet(t testing.TB) *hub.Fleet {
	m.revision++
	return newFleet(t, hub.FleetSpec{Name: "test", Revision: fmt.Sprint("r", m.revision), Monitor: m.monitor, Keys: slices.Clone(m.keys),
		Hosts: slices.Collect(maps.Values(m.hosts)), Customers: slices.Collect(maps.Values(m.customers))})
}

func (m *model) step() {
	id, name := fmt.Sprintf("acme%s-%d", []string{"", ".a", "-"}[m.rng.IntN(3)], m.rng.IntN(5)), []string{"acme", "acme-b", "globex"}[m.rng.IntN(3)]
	switch m.rng.IntN(6) {
	case 0:
		delete(m.hosts, id)
	case 1:
		m.monitor.StaleAfter = time.Duration(m.rng.IntN(3)) * time.Minute
	case 2:
		m.keys = m.newKeys(hub.FleetOwner())
	case 3:
		m.customers[name] = &hub.Customer{Name: name, DisplayName: fmt.Sprint(m.rng.IntN(3)), Blocked: m.rng.IntN(2) == 0,
			Monitor: hub.Thresholds{DownAfter: time.Duration(m.rng.IntN(3)) * time.Hour}, Keys: m.newKeys(hub.CustomerOwner(name))}
	default:
		h := &hub.Host{ID: id, Customer: name, DisplayName: fmt.Sprint(m.rng.IntN(3)), Desired: fmt.Append(nil, m.rng.IntN(3)),
			Labels:    map[string]string{"site": fmt.Sprint(m.rng.IntN(3)), "ö\x00\"'": "\\/'\n"},
			Lifecycle: []hub.Lifecycle{hub.Active, hub.Active, hub.Paused, hub.Retired}[m.rng.IntN(4)], Keys: m.newKeys(hub.HostOwner(id))}
		m.hosts[id] = h
	}
}

func (m *model) newKeys(owner hub.Owner) (keys []hub.Key) {
	for i := m.rng.IntN(3); i > 0; i-- { // not in the order of ids
		var until time.Time
		if m.rng.IntN(2) == 0 {
			until = epoch.Add(time.Duration(m.rng.IntN(3)) * time.Hour)
		}
		keys = append(keys, keyOf(owner, fmt.Sprint("k", i), until))
	}
	return keys
}

// For any sequence of fleets, restarts and faults, the register says what the
// fleet written last says, and what did not change got no row.
func TestRegisterFollowsAnySequenceOfFleets(t *testing.T) {
	db, conn := open(t)
	seed := rand.Uint64()
	m := &model{rng: rand.New(rand.NewPCG(seed, 1)), hosts: map[string]*hub.Host{}, customers: map[string]*hub.Customer{"acme": {Name: "acme"}, "acme-b": {Name: "acme-b"}, "globex": {Name: "globex"}}}
	r := clickhouse.NewRegister(db)
	rows := func() uint64 {
		return one[uint64](t, conn, "SELECT (SELECT count() FROM fleet_hosts) + (SELECT count() FROM fleet_customers) + (SELECT count() FROM fleet_key_changes)")
	}
	for i := range 60 {
		for range m.rng.IntN(4) {
			m.step()
		}
		f := m.fleet(t)
		switch m.rng.IntN(6) {
		case 0: // a restart
			r = clickhouse.NewRegister(db)
		case 1: // a fault
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = r.Sync(ctx, f, epoch, base)
		}
		if err := r.Sync(t.Context(), f, epoch, base); err != nil {
			t.Fatal(err)
		}
		if got, want := newestRows(t, conn), saidOf(f); !slices.Equal(got, want) {
			t.Fatalf("seed %d, step %d:\ngot  %s\nwant %s", seed, i, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
		before := rows()
		for _, again := range []*clickhouse.Register{r, clickhouse.NewRegister(db)} {
			if err := again.Sync(t.Context(), m.fleet(t), epoch, base); err != nil {
				t.Fatal(err)
			}
		}
		if after := rows(); after != before {
			t.Fatalf("seed %d, step %d: the same fleet again made %d rows", seed, i, after-before)
		}
	}
}

func TestRegisterTakesOtherThresholdsOfTheConfiguration(t *testing.T) {
	db, conn := open(t)
	f := fleet(t, &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active})
	r := clickhouse.NewRegister(db)
	for _, b := range []hub.Thresholds{base, {StaleAfter: time.Minute, DownAfter: time.Hour}} {
		if err := r.Sync(t.Context(), f, epoch, b); err != nil {
			t.Fatal(err)
		}
		if got := one[float64](t, conn, "SELECT argMax(stale_after_seconds, generation) FROM fleet_hosts"); got != b.StaleAfter.Seconds() {
			t.Errorf("stale_after_seconds %v, want %v", got, b.StaleAfter.Seconds())
		}
	}
}

// A change that the register could not write is written by the next Sync, also
// of another fleet: after an error nothing is taken for known.
func TestRegisterMendsAHalfWrittenChange(t *testing.T) {
	db, conn := open(t)
	r := clickhouse.NewRegister(db)
	sync := func(f *hub.Fleet) error { return r.Sync(t.Context(), f, epoch, base) }
	customers := []*hub.Customer{{Name: "acme"}}
	if err := sync(newFleet(t, hub.FleetSpec{Revision: "r1", Customers: customers})); err != nil {
		t.Fatal(err)
	}
	h := &hub.Host{ID: "acme-1", Customer: "acme", Lifecycle: hub.Active, Keys: []hub.Key{keyOf(hub.HostOwner("acme-1"), "k1", time.Time{})}}
	f := newFleet(t, hub.FleetSpec{Revision: "r2", Customers: customers, Hosts: []*hub.Host{h}})
	if err := conn.Exec(t.Context(), "RENAME TABLE fleet_key_changes TO away"); err != nil {
		t.Fatal(err)
	}
	if err := sync(f); err == nil {
		t.Fatal("no error without the table")
	}
	if err := conn.Exec(t.Context(), "RENAME TABLE away TO fleet_key_changes"); err != nil {
		t.Fatal(err)
	}
	if err := sync(f); err != nil {
		t.Fatal(err)
	}
	if got, want := newestRows(t, conn), saidOf(f); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := one[uint64](t, conn, "SELECT count() FROM fleet_hosts"); n != 1 {
		t.Errorf("%d rows of the host, want 1", n)
	}
}

// fleetOf makes a fleet of n hosts in n/100 customers, each with a key and about
// 1 KB of specs. The hosts' pointers stay its caller's.
func fleetOf(t testing.TB, n int) hub.FleetSpec {
	spec := hub.FleetSpec{Name: "large", Revision: "r1"}
	for i := range n / 100 {
		spec.Customers = append(spec.Customers, &hub.Customer{Name: fmt.Sprintf("customer-%05d", i), DisplayName: fmt.Sprint("Customer ", i)})
	}
	for i := range n {
		id := fmt.Sprintf("host-%08d", i)
		spec.Hosts = append(spec.Hosts, &hub.Host{
			ID: id, Customer: spec.Customers[i/100].Name, DisplayName: fmt.Sprint("pve-", i), Lifecycle: hub.Active,
			Labels: map[string]string{"site": fmt.Sprint("site-", i%50), "rack": fmt.Sprint(i % 7)},
			Keys:   []hub.Key{keyOf(hub.HostOwner(id), "k1", epoch)},
			// Not alike, so that neither side can press it together.
			Desired:  fmt.Appendf(nil, `{"cores":%d,"note":"%0700x"}`, i%64, rand.Uint64()),
			DRRecord: fmt.Appendf(nil, `{"pbs":"pbs-%d","note":"%0200x"}`, i%9, rand.Uint64()),
		})
	}
	return spec
}

// BenchmarkRegister writes a register of 100,000 hosts: into empty tables, into
// tables that say the same, and when one host has changed. live-MB is what the
// heap held at most above the fleet itself; with GODEBUG=gcstoptheworld=2 without
// the garbage that is made while the collector works.
func BenchmarkRegister(b *testing.B) {
	const hosts = 100_000
	spec := fleetOf(b, hosts)
	f := newFleet(b, spec)
	spec.Hosts = slices.Collect(f.Hosts())
	database := func(b *testing.B) *clickhouse.DB {
		db, err := clickhouse.Open(clickhouse.Options{DSN: enginetest.DSN(b)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = db.Close() })
		if _, err := db.Migrate(b.Context(), epoch); err != nil {
			b.Fatal(err)
		}
		return db
	}
	sync := func(b *testing.B, r *clickhouse.Register, f *hub.Fleet) {
		if err := r.Sync(b.Context(), f, epoch, base); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			db := database(b)
			b.StartTimer()
			sync(b, clickhouse.NewRegister(db), f)
		}
	})
	b.Run("same", func(b *testing.B) {
		db := database(b)
		sync(b, clickhouse.NewRegister(db), f)
		for b.Loop() {
			sync(b, clickhouse.NewRegister(db), f)
		}
	})
	b.Run("one host", func(b *testing.B) {
		r := clickhouse.NewRegister(database(b))
		sync(b, r, f)
		for b.Loop() {
			b.StopTimer()
			next := spec
			next.Hosts = slices.Clone(spec.Hosts)
			changed := *next.Hosts[hosts/2]
			changed.DisplayName = fmt.Sprint(rand.Uint64())
			next.Hosts[hosts/2] = &changed
			now := newFleet(b, next)
			b.StartTimer()
			sync(b, r, now)
		}
	})
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			db := database(b)
			for _, what := range []string{"first", "same"} {
				b.ReportMetric(float64(heldBy(func() { sync(b, clickhouse.NewRegister(db), f) }))/1e6, what+"-live-MB")
			}
		}
	})
}

// heldBy returns how many bytes more than before the heap held at most while f
// ran.
func heldBy(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	live := func() uint64 {
		runtime.GC()
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	before, peak, done := live(), uint64(0), make(chan struct{})
	go func() { f(); close(done) }()
	for {
		select {
		case <-done:
			return peak - min(peak, before)
		default:
			peak = max(peak, live())
			time.Sleep(10 * time.Millisecond)
		}
	}
}
