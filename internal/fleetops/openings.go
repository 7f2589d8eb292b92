package fleetops

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// WindowOpening is a time in which a maintenance window is open.
type WindowOpening struct {
	hub.Window
	calendar.Opening
	Zone  *time.Location // in which its file speaks of it
	Hosts int            // that are not retired and lie in it; 1 where a host was asked for
}

// Openings returns when the maintenance windows of the fleet that dir means are
// open in from ≤ t < to, in the order in which they begin: of all windows, or, with
// a host's id, of those that the host lies in. The error of a fleet with mistakes
// says how to see them.
func Openings(dir, hostID string, from, to time.Time) ([]WindowOpening, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return nil, err
	}
	fleet, problems, err := fleetfile.Load(os.DirFS(dir), nil, fleetfile.Options{})
	switch {
	case err != nil:
		return nil, err
	case fleet == nil:
		return nil, fmt.Errorf("the fleet has mistakes, the first is %s; see them all with: hub fleet validate %s", problems[0], dir)
	}
	hosts := map[hub.Owner]int{}
	windows := allWindows(fleet, hosts)
	if hostID != "" {
		h, ok := fleet.Host(hostID)
		if !ok {
			return nil, errors.New("there is no host " + hostID + " in " + dir)
		}
		windows = fleet.Windows(h)
	}
	var list []WindowOpening
	for _, w := range windows {
		schedule, ok := w.Schedule.(calendar.Schedule)
		if !ok {
			continue // the loader makes no other
		}
		reached := hosts[w.Owner]
		if hostID != "" {
			reached = 1
		}
		for _, o := range schedule.Openings(from, to) {
			list = append(list, WindowOpening{Window: w, Opening: o, Zone: schedule.Zone(), Hosts: reached})
		}
	}
	slices.SortStableFunc(list, func(a, b WindowOpening) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Owner.String(), b.Owner.String()), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// allWindows returns the windows of the fleet, its customers and hosts, and notes
// how many hosts each owner has.
func allWindows(fleet *hub.Fleet, hosts map[hub.Owner]int) []hub.Window {
	windows := slices.Clone(fleet.Windows(new(hub.Host))) // of no customer: the fleet's own
	for c := range fleet.Customers() {
		windows = append(windows, c.Maintenance...)
	}
	for h := range fleet.Hosts() {
		if h.Lifecycle == hub.Retired {
			continue
		}
		windows = append(windows, h.Maintenance...)
		for _, owner := range []hub.Owner{hub.FleetOwner(), hub.CustomerOwner(h.Customer), hub.HostOwner(h.ID)} {
			hosts[owner]++
		}
	}
	return windows
}
