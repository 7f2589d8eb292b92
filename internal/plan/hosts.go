package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// compareHosts compares the changed hosts' files, by id: a file that moved to
// another customer's folder is the same host.
func (b *builder) compareHosts() {
	for _, id := range union(b.base.hosts, b.head.hosts) {
		before, after := b.base.hosts[id], b.head.hosts[id]
		switch {
		case after != nil && b.bad[after.Name]:
			// It stays as it is; its mistakes are listed.
		case after == nil:
			b.gone(id, before)
		case before == nil:
			b.come(after)
		case len(before.Problems) > 0:
			b.host(after.Host, "repaired", "", "")
		default:
			b.compareHost(before, after)
		}
	}
}

func (b *builder) host(h *hub.Host, change, from, to string) {
	b.Hosts = append(b.Hosts, HostChange{Host: h.ID, Customer: h.Customer, DisplayName: h.DisplayName, Change: change, From: from, To: to})
}

func (b *builder) gone(id string, before *fleetfile.Single) {
	h := before.Host
	if h == nil {
		customer, _, _ := fleetfile.HostAt(before.Name)
		h = &hub.Host{ID: id, Customer: customer}
	}
	if h.Lifecycle == hub.Retired {
		b.host(h, "forgotten", "", "")
		return
	}
	b.host(h, "removed", string(h.Lifecycle), "")
}

func (b *builder) come(after *fleetfile.Single) {
	if after.Host.Lifecycle == hub.Retired {
		b.host(after.Host, "recorded", "", string(hub.Retired))
		return
	}
	b.host(after.Host, "enrolled", "", string(after.Host.Lifecycle))
	b.expiring(hub.HostOwner(after.Host.ID), after, nil)
	b.compareWindows(hub.HostOwner(after.Host.ID), nil, after.Host.Maintenance)
	b.needsKey(after.Host)
}

func (b *builder) compareHost(before, after *fleetfile.Single) {
	from, to := before.Host, after.Host
	if from.Lifecycle != to.Lifecycle {
		b.host(to, lifecycleChange(from.Lifecycle, to.Lifecycle), string(from.Lifecycle), string(to.Lifecycle))
	}
	if from.Customer != to.Customer {
		b.host(to, "moved", from.Customer, to.Customer)
	}
	if from.DisplayName != to.DisplayName {
		b.host(to, "renamed", from.DisplayName, to.DisplayName)
	}
	for _, label := range union(from.Labels, to.Labels) {
		if from.Labels[label] != to.Labels[label] {
			b.host(to, "labelled", from.Labels[label], to.Labels[label])
			b.Hosts[len(b.Hosts)-1].Label = label
		}
	}
	b.compareSpec(to, "desired", from.Desired, to.Desired)
	b.compareSpec(to, "drRecord", from.DRRecord, to.DRRecord)
	if to.Lifecycle == hub.Retired {
		return // its keys are unknown
	}
	if from.Lifecycle == hub.Retired {
		before = nil
	}
	b.compareWindows(hub.HostOwner(to.ID), from.Maintenance, to.Maintenance)
	b.compareKeys(hub.HostOwner(to.ID), before, after)
	b.needsKey(to)
}

func lifecycleChange(from, to hub.Lifecycle) string {
	switch {
	case to == hub.Retired:
		return "retired"
	case from == hub.Retired:
		return "reinstated"
	case to == hub.Paused:
		return "paused"
	default:
		return "unpaused"
	}
}

// needsKey warns of a host that nobody can report for.
func (b *builder) needsKey(h *hub.Host) {
	if !slices.ContainsFunc(h.Keys, func(k hub.Key) bool { return k.ValidAt(b.now) }) {
		b.warn(hub.HostOwner(h.ID).String(), "has no valid key of its own: its reports are refused, unless they come with a global key")
	}
}

func (p *Plan) warn(owner, format string, args ...any) {
	p.Warnings = append(p.Warnings, Warning{owner, fmt.Sprintf(format, args...)})
}

// ownKey is a key with the digest of its ciphertext.
type ownKey struct {
	hub.Key
	seal [32]byte
}

func keysOf(f *fleetfile.Single) []ownKey {
	if f == nil {
		return nil
	}
	var list []ownKey
	for i, k := range f.Keys() {
		list = append(list, ownKey{k, f.Seal(i)})
	}
	return list
}

func findKey(list []ownKey, id string) (ownKey, bool) {
	if i := slices.IndexFunc(list, func(k ownKey) bool { return k.ID == id }); i >= 0 {
		return list[i], true
	}
	return ownKey{}, false
}

// compareKeys compares the keys of an owner; a nil file has none. A key that
// comes while another goes, or is given an end, is a rotation.
func (b *builder) compareKeys(owner hub.Owner, before, after *fleetfile.Single) {
	old, now := keysOf(before), keysOf(after)
	var added []ownKey
	var ending []KeyChange
	told := map[string]bool{}
	add := func(k KeyChange) {
		k.Owner = owner.String()
		b.Keys = append(b.Keys, k)
		told[k.Key] = true
		told[k.Old] = true
	}
	for _, k := range old {
		to, stays := findKey(now, k.ID)
		switch {
		case !stays:
			ending = append(ending, KeyChange{Change: "removed", Key: k.ID, Was: k.NotAfter})
		case endsEarlier(k.NotAfter, to.NotAfter):
			ending = append(ending, KeyChange{Change: "ends", Key: k.ID, Was: k.NotAfter, NotAfter: to.NotAfter})
		}
	}
	for _, k := range now {
		if _, there := findKey(old, k.ID); !there {
			added = append(added, k)
		}
	}
	for i, k := range added {
		if i < len(ending) {
			add(KeyChange{Change: "rotated", Key: k.ID, NotAfter: k.NotAfter, Old: ending[i].Key, OldEnds: ending[i].NotAfter})
			b.overlap(owner, k.ID, ending[i])
		} else {
			add(KeyChange{Change: "added", Key: k.ID, NotAfter: k.NotAfter})
		}
	}
	for _, k := range ending[min(len(added), len(ending)):] {
		add(k)
	}
	for _, k := range old {
		to, stays := findKey(now, k.ID)
		if stays && !k.NotAfter.Equal(to.NotAfter) && !endsEarlier(k.NotAfter, to.NotAfter) {
			add(KeyChange{Change: "ends", Key: k.ID, Was: k.NotAfter, NotAfter: to.NotAfter})
		}
		if stays && k.seal != to.seal {
			add(KeyChange{Change: "resealed", Key: k.ID, NotAfter: to.NotAfter})
		}
	}
	b.expiring(owner, after, told)
}

func endsEarlier(before, after time.Time) bool {
	return !after.IsZero() && (before.IsZero() || after.Before(before))
}

// overlap warns of a rotation that leaves the agent no time.
func (b *builder) overlap(owner hub.Owner, key string, old KeyChange) {
	if old.Change == "removed" && (old.Was.IsZero() || !old.Was.Before(b.now)) {
		b.warn(owner.String(), "key %s goes in the same commit as key %s comes: whoever still uses %s is refused (401); give it a notAfter instead", old.Key, key, old.Key)
	}
}

// expiring notes keys that end soon, or have, and were not told of already.
func (b *builder) expiring(owner hub.Owner, f *fleetfile.Single, told map[string]bool) {
	for _, k := range keysOf(f) {
		if !told[k.ID] && !k.NotAfter.IsZero() && k.NotAfter.Before(b.now.Add(soon)) {
			b.Keys = append(b.Keys, KeyChange{Owner: owner.String(), Change: "expiring", Key: k.ID, NotAfter: k.NotAfter})
		}
	}
}

// hostID returns the host that an owner's text names, or "".
func hostID(owner string) string {
	id, ok := strings.CutPrefix(owner, "host/")
	if !ok {
		return ""
	}
	return id
}
