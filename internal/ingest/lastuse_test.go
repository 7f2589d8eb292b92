package ingest

import (
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// key returns a key of the fleet in force.
func (f *fixture) key(t *testing.T, owner hub.Owner, id string) hub.Key {
	t.Helper()
	keys, _ := f.fleet.KeysOf(owner)
	for _, k := range keys {
		if k.ID == id {
			return k
		}
	}
	t.Fatalf("%s has no key %s", owner, id)
	return hub.Key{}
}

func TestLastUse(t *testing.T) {
	f := newFixture(t)
	own, old := f.key(t, hub.HostOwner("acme-1"), "k1"), f.key(t, hub.HostOwner("acme-1"), "k0")
	if at, ok := f.LastUse(own); ok {
		t.Errorf("before any request: %s", at)
	}
	f.Identify(f.bearer("expired"), client)
	if at, ok := f.LastUse(old); ok {
		t.Errorf("an expired key was used at %s", at)
	}
	f.now = start.Add(time.Minute)
	if _, _, err := f.report(t.Context(), f.bearer("host/acme-1"), body("acme-2", 1)); hub.CodeOf(err) != hub.Forbidden {
		t.Fatal(err)
	}
	if at, ok := f.LastUse(own); !ok || !at.Equal(f.now) {
		t.Errorf("%s, %t: a key that was shown was used, whatever became of the report", at, ok)
	}

	// What is restored never makes a use younger than it is known to be.
	if !f.RestoreUse(own.Owner, "k1", start) || !f.RestoreUse(hub.FleetOwner(), "g1", start) || !f.RestoreUse(hub.CustomerOwner("acme"), "c1", start) {
		t.Error("a key of the fleet is unknown")
	}
	if at, _ := f.LastUse(own); !at.Equal(f.now) {
		t.Errorf("the later use is forgotten for %s", at)
	}
	if at, _ := f.LastUse(f.key(t, hub.FleetOwner(), "g1")); !at.Equal(start) {
		t.Errorf("restored: %s", at)
	}
	for _, owner := range []hub.Owner{hub.HostOwner("nobody"), hub.HostOwner("beta-1"), hub.HostOwner("acme-2"), hub.CustomerOwner("nobody")} {
		if f.RestoreUse(owner, "k7", start) {
			t.Errorf("%s has no key k7", owner)
		}
	}

	// A key that left the fleet is forgotten.
	f.fleet = f.makeFleet(t, hub.Retired, false)
	f.FleetApplied(f.fleet)
	if _, ok := f.LastUse(own); ok {
		t.Error("the key of a retired host is remembered")
	}
	f.fleet = nil
	if f.RestoreUse(own.Owner, "k1", start) {
		t.Error("restored without a fleet")
	}
	if ages := f.KeyAges(); ages != (KeyAges{}) {
		t.Errorf("ages without a fleet: %+v", ages)
	}
}

func TestKeyAges(t *testing.T) {
	f := newFixture(t)
	const day = 24 * time.Hour
	all := []hub.Key{f.key(t, hub.HostOwner("acme-1"), "k1"), f.key(t, hub.HostOwner("acme-1"), "k0"), f.key(t, hub.HostOwner("acme-2"), "k1"),
		f.key(t, hub.CustomerOwner("acme"), "c1"), f.key(t, hub.FleetOwner(), "g1")}
	if ages := f.KeyAges(); ages != (KeyAges{Never: 5}) {
		t.Errorf("before any use: %+v", ages)
	}
	for i, age := range []time.Duration{time.Hour, time.Hour + time.Millisecond, 7 * day, 30 * day, 31 * day} {
		f.RestoreUse(all[i].Owner, all[i].ID, start.Add(-age))
	}
	if ages := f.KeyAges(); ages != (KeyAges{Hour: 1, Day: 1, Week: 1, Month: 1, Older: 1}) {
		t.Errorf("%+v", ages)
	}
}

func TestNotingAUseDoesNotAllocate(t *testing.T) {
	u := newUses()
	now := start
	digest := hub.Digest{1}
	u.note(digest, now)
	if n := testing.AllocsPerRun(100, func() {
		now = now.Add(time.Second)
		u.note(digest, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkKeyAges100000(b *testing.B) {
	spec := hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}}}
	f := newFixture(b)
	for i := range 100_000 {
		id := "acme-" + string(rune('a'+i%26)) + time.Duration(i).String()
		digest, _ := hub.DigestKey(hub.NewKey().Reveal())
		spec.Hosts = append(spec.Hosts, &hub.Host{ID: id, Customer: "acme", Lifecycle: hub.Active, Keys: []hub.Key{{ID: "k1", Owner: hub.HostOwner(id), Digest: digest}}})
		f.uses.note(digest, start)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		b.Fatal(err)
	}
	f.fleet = fleet
	for b.Loop() {
		if f.KeyAges().Hour != 100_000 {
			b.Fatal("keys are missing")
		}
	}
}
