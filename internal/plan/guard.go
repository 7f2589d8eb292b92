package plan

import (
	"io/fs"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

const (
	// countAll is up to how many unchanged hosts' files are all looked into to
	// count the hosts; of more only as many as settle the question.
	countAll = 10_000
	// countStep is how many are looked into at a time.
	countStep = 2_000
)

// guard asks whether the head removes so many hosts that it is held. Only where
// that hangs on how many there are, unchanged files are looked into: for a
// "retired", which is rare.
func (b *builder) guard() error {
	g := &b.Guard
	g.Allowed = fleetOf(b.head.fleet).AllowRemoval
	known := 0
	for id, before := range b.base.hosts {
		if before.Host != nil && before.Host.Lifecycle == hub.Retired {
			continue
		}
		known++
		after := b.head.hosts[id]
		if after == nil || !b.bad[after.Name] && after.Host.Lifecycle == hub.Retired {
			g.Removed++
		}
	}
	if !hub.RemovalHeld(g.Removed, g.Removed, 0) {
		return nil // too few, however many there are
	}
	if most := known + len(b.unread); len(b.unread) > countAll && hub.RemovalHeld(most, g.Removed, g.Allowed) {
		g.Enrolled, g.AtMost = most, true
	} else if err := b.count(known); err != nil {
		return err
	}
	if g.Held = hub.RemovalHeld(g.Enrolled, g.Removed, g.Allowed); g.Held {
		g.Need = g.Removed
	}
	return nil
}

// count counts the hosts that are enrolled in the base.
func (b *builder) count(known int) error {
	g := &b.Guard
	g.Enrolled = known
	for rest := b.unread; len(rest) > 0; {
		if len(b.unread) > countAll && !hub.RemovalHeld(g.Enrolled, g.Removed, g.Allowed) {
			g.AtLeast = true
			return nil
		}
		step, err := b.ordered(rest[:min(countStep, len(rest))])
		if err != nil {
			return err
		}
		rest = rest[len(step):]
		enrolled := make([]bool, len(step))
		err = spread(len(b.head.views), len(step), func(worker, i int) error {
			data, err := fs.ReadFile(b.head.views[worker], step[i])
			if err != nil {
				return err
			}
			enrolled[i] = true
			if fleetfile.Mentions(data, string(hub.Retired)) {
				f := fleetfile.ParseSingle(step[i], data, true)
				enrolled[i] = f.Host == nil || f.Host.Lifecycle != hub.Retired
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, is := range enrolled {
			if is {
				g.Enrolled++
			}
		}
	}
	return nil
}
