package ingest

import (
	"fmt"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// lots is a fleet of many hosts whose keys come and go.
type lots struct {
	*fixture
	t     *testing.T
	keys  map[string]hub.Secret // what each host has
	seq   uint64
	owned []string
}

// newLots has n hosts that were heard right now, each by a key of its own.
func newLots(t *testing.T, n int) *lots {
	l := &lots{fixture: newFixture(t), t: t, keys: map[string]hub.Secret{}}
	for i := range n {
		host := fmt.Sprintf("h%02d", i)
		l.keys[host], l.owned = hub.NewKey(), append(l.owned, host)
	}
	l.apply(l.keys, nil)
	for _, host := range l.owned {
		l.heard(host)
	}
	return l
}

// apply puts a fleet in force in which the hosts have these keys.
func (l *lots) apply(keys map[string]hub.Secret, change func(*hub.Host)) {
	l.t.Helper()
	spec := hub.FleetSpec{Customers: []*hub.Customer{{Name: "acme"}}}
	for _, host := range l.owned {
		h := &hub.Host{ID: host, Customer: "acme", Lifecycle: hub.Active}
		if key, ok := keys[host]; ok {
			digest, _ := hub.DigestKey(key.Reveal())
			h.Keys = []hub.Key{{ID: "k1", Owner: hub.HostOwner(host), Digest: digest}}
		}
		if change != nil {
			change(h)
		}
		spec.Hosts = append(spec.Hosts, h)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		l.t.Fatal(err)
	}
	l.fleet = fleet
	l.FleetApplied(fleet)
}

func (l *lots) heard(host string) {
	l.seq++
	l.Recover(spool.Entry{Record: spool.Record{Kind: hub.KindHostReport, HostID: host, Body: fmt.Append(nil, l.seq)},
		Receipt: hub.Receipt{Position: hub.Position{Seq: l.seq}, ReceivedAt: l.now}})
}

// knock has a host report as it does: with the key that it has.
func (l *lots) knock(host string) {
	if _, err := l.Identify("Bearer "+l.keys[host].Reveal(), client); err == nil {
		l.heard(host)
	}
}

func (l *lots) want(what string, hosts, heard int, broken bool) {
	l.t.Helper()
	if got := l.LockedOut(); got.Hosts != hosts || got.Broken() != broken || got.Heard != heard {
		l.t.Errorf("%s: %+v, broken %v; want %d of %d, broken %v", what, got, got.Broken(), hosts, hosts+heard, broken)
	}
}

// A fleet loses its keys: as soon as most hosts were refused, the hub knows that it
// is not they who are silent; and that it is over, as soon as the keys are back.
func TestAFleetThatLostItsKeysIsFound(t *testing.T) {
	l := newLots(t, 20)
	l.now = l.now.Add(time.Minute)
	ended := l.now
	l.apply(nil, nil)
	for i, host := range l.owned {
		l.now = l.now.Add(45 * time.Second) // all of them within a reporting interval
		l.knock(host)
		locked := i + 1
		if locked < lockoutHosts {
			l.want("few", locked, 0, false) // the others are not counted yet
			continue
		}
		l.want(fmt.Sprintf("after %d of 20", locked), locked, 20-locked, locked >= 11)
	}
	if got := l.LockedOut(); !got.Since.Equal(ended) {
		t.Errorf("since %s, not %s", got.Since, ended)
	}

	// A restart does not forget whose keys they were.
	again := newLots(t, 0)
	again.keys, again.owned, again.now = l.keys, l.owned, l.now
	again.apply(nil, nil)
	if err := again.RestoreFormerKeys(l.FormerKeys()); err != nil {
		t.Fatal(err)
	}
	for _, host := range l.owned {
		again.now = start
		again.heard(host)
		again.now = l.now
		again.knock(host)
	}
	again.want("after a restart", 20, 0, true)
	if err := again.RestoreFormerKeys([]byte("beef 1 h00\n")); err == nil {
		t.Error("a damaged list is read")
	}

	l.apply(l.keys, nil)
	l.want("the keys are back", 0, 0, false)
}

// Keys that all expired are a fleet that lost its keys, too, also when they are
// taken out and the hosts do not have the new ones yet.
func TestAFleetWhoseKeysExpiredIsFound(t *testing.T) {
	l := newLots(t, 5)
	l.apply(l.keys, func(h *hub.Host) { h.Keys[0].NotAfter = l.now.Add(time.Minute) })
	l.now = l.now.Add(10 * time.Minute)
	for _, host := range l.owned {
		l.knock(host)
	}
	l.want("expired", 5, 0, true)
	fresh := map[string]hub.Secret{}
	for _, host := range l.owned {
		fresh[host] = hub.NewKey()
	}
	l.apply(fresh, nil)
	l.want("replaced in git alone", 5, 0, true)
	l.keys = fresh
	l.now = l.now.Add(time.Minute)
	for _, host := range l.owned[:3] {
		l.knock(host)
	}
	l.want("most hosts have theirs", 2, 0, false)
}

// Nobody can have the hub call itself blind who does not hold the keys of most of
// its fleet.
func TestNobodyCanMakeTheHubCallItselfBlind(t *testing.T) {
	l := newLots(t, 10)
	for range 1000 { // keys that never were
		l.Identify("Bearer "+hub.NewKey().Reveal(), client)
	}
	l.want("wrong keys", 0, 0, false)

	// All keys are replaced because somebody has the old ones, who knocks with them
	// after every report: the hosts themselves are heard.
	old := l.keys
	l.keys = map[string]hub.Secret{}
	for _, host := range l.owned {
		l.keys[host] = hub.NewKey()
	}
	l.now = l.now.Add(time.Minute)
	l.apply(l.keys, nil)
	l.now = l.now.Add(time.Minute)
	for _, host := range l.owned {
		l.knock(host)
		l.Identify("Bearer "+old[host].Reveal(), client)
	}
	l.want("former keys of hosts that are heard", 0, 0, false)

	// One stolen key is one host, however often it knocks.
	l.apply(nil, nil)
	for range 1000 {
		l.knock("h00")
	}
	l.want("one former key", 1, 0, false)
}

func TestWhoDoesNotCountAsLockedOut(t *testing.T) {
	for what, change := range map[string]func(l *lots){
		"retired": func(l *lots) { l.apply(nil, func(h *hub.Host) { h.Lifecycle = hub.Retired }) },
		"paused":  func(l *lots) { l.apply(nil, func(h *hub.Host) { h.Lifecycle = hub.Paused }) },
		"long ago": func(l *lots) {
			l.apply(nil, nil)
			l.now = l.now.Add(formerKept + time.Minute)
		},
		"never heard": func(l *lots) {
			l.recent = newRecent()
			l.apply(nil, nil)
		},
	} {
		l := newLots(t, 5)
		l.now = l.now.Add(time.Minute)
		change(l)
		for _, host := range l.owned {
			l.knock(host)
		}
		l.want(what, 0, 0, false)
	}

	// Who falls silent after it was refused is not held for locked out for ever.
	l := newLots(t, 5)
	l.now = l.now.Add(time.Minute)
	l.apply(nil, nil)
	for _, host := range l.owned {
		l.knock(host)
	}
	l.want("refused", 5, 0, true)
	l.now = l.now.Add(2*15*time.Minute + time.Second)
	l.want("and silent then", 0, 0, false)
}
