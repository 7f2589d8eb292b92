package plan

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// readAffected reads the unchanged hosts' files that a changed threshold or
// deadline above them reaches, as far as they may say something of their own. The others are
// active and take what holds above.
func (b *builder) readAffected() error {
	for _, u := range b.unread {
		if b.above(&b.base, u.customer) != b.above(&b.head, u.customer) || b.deadlinesAbove(&b.base, u.customer) != b.deadlinesAbove(&b.head, u.customer) {
			b.affected = append(b.affected, u)
		}
	}
	names, err := b.ordered(b.affected)
	if err != nil {
		return err
	}
	parsed := make([]*fleetfile.Single, len(names))
	err = spread(len(b.head.views), len(names), func(worker, i int) error {
		data, err := fs.ReadFile(b.head.views[worker], names[i])
		if err == nil && fleetfile.Mentions(data, "monitor", "deadlines", "paused", "retired") {
			parsed[i] = fleetfile.ParseSingle(names[i], data, true)
		}
		return err
	})
	for i, f := range parsed {
		if f != nil {
			b.more[names[i]] = f
		}
	}
	return err
}

// ordered puts files that are the same on both sides in the order in which they
// are read fastest.
func (b *builder) ordered(files []unread) ([]string, error) {
	hashes := map[string]string{}
	jobs := make([]job, len(files))
	folder := ""
	for i, u := range files {
		if dir := path.Dir(u.name); dir != folder {
			entries, err := fs.ReadDir(b.head.fsys, dir)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				hashes[path.Join(dir, e.Name())] = contentHash(e)
			}
			folder = dir
		}
		jobs[i] = job{path: u.name, hash: hashes[u.name]}
	}
	sorted := make([]string, len(files))
	for i, j := range b.head.fastest(jobs) {
		sorted[i] = j.path
	}
	return sorted, nil
}

// above returns what holds for a customer's hosts that name nothing themselves.
func (b *builder) above(s *side, customer string) hub.Thresholds {
	return customerOf(s.customers[customer]).Monitor.Or(fleetOf(s.fleet).Monitor)
}

// reason is what makes changes of thresholds one: the same cause and values.
type reason struct {
	setBy, customer string
	from, to        hub.Thresholds
	paused          bool
}

// compareThresholds finds the hosts for which other thresholds hold.
func (b *builder) compareThresholds() {
	groups := map[reason][]string{}
	note := func(before, after *hub.Host) {
		if before.Lifecycle == hub.Retired || after.Lifecycle == hub.Retired {
			return
		}
		r := reason{
			from: before.Monitor.Or(b.above(&b.base, before.Customer)), to: after.Monitor.Or(b.above(&b.head, after.Customer)),
			paused: after.Lifecycle == hub.Paused,
		}
		if r.from == r.to {
			return
		}
		r.setBy, r.customer = b.cause(before, after)
		groups[r] = append(groups[r], after.ID)
	}
	b.eachPair(note)
	for _, r := range slices.Collect(maps.Keys(groups)) {
		hosts := groups[r]
		slices.Sort(hosts)
		b.Thresholds = append(b.Thresholds, ThresholdChange{
			SetBy: r.setBy, Customer: r.customer, Hosts: hosts, Effect: effect(r.from, r.to, r.paused),
			StaleFrom: length(r.from.StaleAfter), StaleTo: length(r.to.StaleAfter),
			DownFrom: length(r.from.DownAfter), DownTo: length(r.to.DownAfter), before: r.from, after: r.to, watched: !r.paused,
		})
	}
	slices.SortFunc(b.Thresholds, func(x, y ThresholdChange) int {
		return cmp.Or(cmp.Compare(ownerRank(x.SetBy), ownerRank(y.SetBy)), cmp.Compare(x.SetBy, y.SetBy), cmp.Compare(x.Hosts[0], y.Hosts[0]))
	})
}

// eachPair calls note with every host of both sides that changed, or above which
// something did, as it is before and after.
func (b *builder) eachPair(note func(before, after *hub.Host)) {
	for id, after := range b.head.hosts {
		before := b.base.hosts[id]
		if before != nil && before.Host != nil && after.Host != nil && !b.bad[after.Name] {
			note(before.Host, after.Host)
		}
	}
	for _, u := range b.affected {
		h := &hub.Host{ID: u.id, Customer: u.customer, Lifecycle: hub.Active}
		if f := b.more[u.name]; f != nil && f.Host != nil {
			h = f.Host
		}
		if !b.bad[u.name] {
			note(h, h)
		}
	}
}

// cause tells whose file changed a host's thresholds: the nearest to the host.
func (b *builder) cause(before, after *hub.Host) (owner, customer string) {
	from, to := b.base.customers[before.Customer], b.head.customers[after.Customer]
	switch {
	case before.Monitor != after.Monitor || before.Customer != after.Customer:
		return hub.HostOwner(after.ID).String(), after.Customer
	case customerOf(from).Monitor != customerOf(to).Monitor:
		return hub.CustomerOwner(after.Customer).String(), after.Customer
	default:
		return hub.FleetOwner().String(), ""
	}
}

// effect says what other thresholds do to alerts.
func effect(from, to hub.Thresholds, paused bool) string {
	if paused {
		return "paused: no alerts until it is active"
	}
	var parts []string
	for _, p := range []struct {
		name     string
		from, to time.Duration
	}{{"stale", from.StaleAfter, to.StaleAfter}, {"down", from.DownAfter, to.DownAfter}} {
		switch {
		case p.from == p.to:
		case p.from == 0 || p.to == 0:
			parts = append(parts, fmt.Sprintf("%s after %s instead of %s", p.name, orConfigured(p.to), orConfigured(p.from)))
		case p.to < p.from:
			parts = append(parts, fmt.Sprintf("%s %s earlier", p.name, length(p.from-p.to)))
		default:
			parts = append(parts, fmt.Sprintf("%s %s later", p.name, length(p.to-p.from)))
		}
	}
	return strings.Join(parts, ", ")
}

func orConfigured(d time.Duration) string {
	if d == 0 {
		return "what the hub is configured with"
	}
	return length(d)
}

// length writes a duration as the files do: 30m, 1h30m; "" for none.
func length(d time.Duration) string {
	if d == 0 {
		return ""
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
