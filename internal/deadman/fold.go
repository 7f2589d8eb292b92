package deadman

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Many silences are a mass silence from this many hosts and this share on.
const (
	massHosts = 3
	massShare = 55 // per cent
)

// Group is the hosts of a customer at one site, of a customer (no site), or all
// (neither); or the controllers of their guests.
type Group struct{ Customer, Site string }

// Census counts the hosts of each group that are watched: active ones that have
// reported.
type Census map[Group]int

// Count adds n hosts of a customer and a site, which may be empty.
func (c Census) Count(customer, site string, n int) {
	c[Group{}] += n
	c[Group{Customer: customer}] += n
	if site != "" {
		c[Group{customer, site}] += n
	}
}

// Silence is a host whose silence was told of, or is about to be.
type Silence struct {
	HostID         string
	Customer, Site string
	At             time.Time // when it had lasted for the threshold
	Worse          bool      // stale that became down; else a host that fell silent
	Last           hub.Position
	Fold           string // ID of the mass silence that it is part of; empty: none
	New            bool   // of this evaluation
	Late           bool   // it began before, and was not told then

	event *hub.Event
	state *hub.HostState
}

// Hold is a silence of the whole fleet that is taken for the hub's own.
type Hold struct {
	ID    string // of the operators' event
	Until time.Time
}

// massID names a mass silence by the first host of it: no clock enters it.
func massID(worse bool, g Group, first Silence) string {
	what := level(worse)
	if isGuest(first.HostID) {
		what = "controllers " + what
	}
	return hub.FleetEventID(hub.MassSilence, fmt.Sprintf("%s\n%s\n%s\n%s", g.Customer, g.Site, what,
		hub.EventID(hub.MassSilence, first.HostID, first.Last)))
}

func level(worse bool) string {
	if worse {
		return "down"
	}
	return "silent"
}

// masses finds the mass silences of a group: runs of silences that began within
// Mass of the first, enough of them, at least one of them new. It sorts members.
func masses(members []Silence, g Group, census Census, r *Rule) [][]Silence {
	slices.SortFunc(members, bySilence)
	enough := max(massHosts, (census[g]*massShare+99)/100)
	var found [][]Silence
	for i := 0; i+enough <= len(members); {
		j := i + enough
		if members[j-1].At.Sub(members[i].At) > r.Mass {
			i++
			continue
		}
		for j < len(members) && members[j].At.Sub(members[i].At) <= r.Mass {
			j++
		}
		if slices.ContainsFunc(members[i:j], func(s Silence) bool { return s.New }) {
			found = append(found, members[i:j])
		}
		i = j
	}
	return found
}

func bySilence(a, b Silence) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.HostID, b.HostID))
}

// holdBack finds whether the whole fleet fell silent. It returns the hosts whose
// new silences are not decided yet, and the operators' event that tells of it.
func holdBack(all []Silence, census Census, r *Rule, before Hold) (held map[string]bool, event *hub.Event, hold Hold) {
	hold = before
	members := slices.DeleteFunc(slices.Clone(all), func(s Silence) bool { return s.Worse || s.Late })
	for _, run := range masses(members, Group{}, census, r) {
		id, until := massID(false, Group{}, run[0]), run[0].At.Add(r.Hold)
		if r.T.Before(until) {
			for _, s := range run {
				if s.New {
					held = put(held, s.HostID)
				}
			}
		}
		// What began before the last hold ended is what that was told of.
		if hold.ID == "" || run[0].At.After(hold.Until) {
			hold = Hold{id, until}
			e := massEvent(id, false, Group{}, run, census, r)
			e.Reason += " hold_until=" + stamp(until)
			event = &e
		}
	}
	return held, event, hold
}

func put(set map[string]bool, key string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[key] = true
	return set
}

// fold gives the new silences of all that belong to a mass silence its id, by
// site first, then by customer, and returns the mass silences that are new.
func fold(all []Silence, census Census, r *Rule) []hub.Event {
	var events []hub.Event
	for _, worse := range []bool{false, true} {
		for _, bySite := range []bool{true, false} {
			groups := map[Group][]Silence{}
			for _, s := range all {
				g := Group{Customer: s.Customer}
				if bySite {
					g.Site = s.Site
				}
				if s.Worse == worse && (g.Site != "" || !bySite) {
					groups[g] = append(groups[g], s)
				}
			}
			for _, g := range slices.SortedFunc(maps.Keys(groups), byGroup) {
				for _, run := range masses(groups[g], g, census, r) {
					events = append(events, foldRun(run, worse, g, census, r)...)
				}
			}
		}
	}
	return events
}

// foldRun folds the new silences of a run, apart from those of a site that are
// folded already.
func foldRun(run []Silence, worse bool, g Group, census Census, r *Rule) []hub.Event {
	id := massID(worse, g, run[0])
	told := slices.ContainsFunc(run, func(s Silence) bool { return !s.New && s.Fold == id })
	folded := false
	for _, s := range run {
		if s.New && s.state.Fold == "" {
			s.state.Fold, s.event.FoldedInto, folded = id, id, true
		}
	}
	if told || !folded {
		return nil
	}
	run = slices.DeleteFunc(slices.Clone(run), func(s Silence) bool {
		return s.New && s.state.Fold != id || !s.New && s.Fold != ""
	})
	return []hub.Event{massEvent(id, worse, g, run, census, r)}
}

func massEvent(id string, worse bool, g Group, run []Silence, census Census, r *Rule) hub.Event {
	e := hub.Event{ID: id, Type: hub.MassSilence, CustomerID: g.Customer, DetectedAt: r.T, Episode: id, Source: "switch"}
	for _, s := range run {
		e.Hosts = append(e.Hosts, s.HostID)
	}
	enough := max(massHosts, (census[g]*massShare+99)/100)
	e.At = run[min(enough, len(run))-1].At
	slices.Sort(e.Hosts)
	scope := "fleet"
	switch {
	case g.Site != "":
		scope = "site " + g.Site
	case g.Customer != "":
		scope = "customer"
	}
	what := "hosts"
	if isGuest(run[0].HostID) {
		what = "controllers"
	}
	e.Reason = fmt.Sprintf("mass_silence: of=%q level=%s %s=%d watched=%d within=%s", scope, level(worse), what, len(run), census[g], r.Mass)
	return e
}

func byGroup(a, b Group) int {
	return cmp.Or(cmp.Compare(a.Customer, b.Customer), cmp.Compare(a.Site, b.Site))
}
