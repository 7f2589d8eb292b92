package proof

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// limits are the deadlines of a host, in steps.
type limits [3]int

// item is a success: when it says that it was, and when a report first told of it.
type item struct{ own, received int }

// modelGuest is a guest as the reports that ClickHouse has tell of it.
type modelGuest struct {
	firstSeen int
	present   bool
	items     [3][]item
	deadlines [3]modelDeadline
}

type modelDeadline struct {
	overdue bool
	base    int
	since   int
	muted   string
	closed  int // 0: it was not
}

// told is what a report of a host says of its guests.
type told struct {
	at     int
	guests []string
	items  map[string][3][]int // own times of the successes that it lists
}

// listed has ClickHouse know what a report lists.
func (m *model) listed(host string, r told) {
	h := m.hosts[host]
	h.heard = r.at
	for id, g := range h.guests {
		g.present = slices.Contains(r.guests, id)
	}
	for _, id := range r.guests {
		g, ok := h.guests[id]
		if !ok {
			g = &modelGuest{firstSeen: r.at, present: true}
			h.guests[id] = g
		}
		for d, owns := range r.items[id] {
			for _, own := range owns {
				if !slices.ContainsFunc(g.items[d], func(i item) bool { return i.own == own }) {
					g.items[d] = append(g.items[d], item{own, r.at})
				}
			}
		}
	}
}

// successes returns when they were, oldest first.
func (g *modelGuest) successes(d int) (at []int) {
	for _, i := range g.items[d] {
		at = append(at, min(i.own, i.received))
	}
	sort.Ints(at)
	return at
}

// judgeDeadlines judges at t; silent says of a guest whether its controller, which is
// heard, may tell of a success that came in until then.
func (m *model) judgeDeadlines(t int, waits func(guest string, at int) bool) {
	for _, host := range m.order() {
		h := m.hosts[host]
		for id, g := range h.guests {
			for d := range g.deadlines {
				m.judgeDeadline(h, id, g, d, t, waits)
			}
		}
	}
}

func (m *model) judgeDeadline(h *modelHost, id string, g *modelGuest, d, t int, waits func(guest string, at int) bool) {
	s := &g.deadlines[d]
	all := g.successes(d)
	base := g.firstSeen
	if len(all) > 0 {
		base = max(base, all[len(all)-1])
	}
	name := hub.AllDeadlines()[d]
	event := func(t hub.EventType) string { return hub.DeadlineEventID(t, id, instant(s.base)) }
	gone := h.life == hub.Retired || h.limits[d] == 0 || !g.present
	if s.overdue && gone {
		m.note(hub.FleetEventID(name.Met(), fmt.Sprintf("closed\n%d\n%s", instant(s.since).UnixMilli(), event(name.Met()))), t, true)
		*s = modelDeadline{base: s.base, since: t, closed: t}
		return
	}
	if gone || h.life == hub.Paused {
		return
	}
	alarm := func() string {
		id := event(name.Overdue())
		if s.closed > 0 {
			id = hub.FleetEventID(name.Overdue(), fmt.Sprintf("returned\n%d\n%s", instant(s.closed).UnixMilli(), id))
		}
		return id
	}
	if s.overdue && base > s.base {
		first := all[sort.SearchInts(all, s.base+1)]
		m.note(event(name.Met()), first, s.muted != "")
		*s = modelDeadline{base: base, since: first}
	} else if s.overdue {
		if at, over := m.deadlineOver(h, s, t); over {
			m.note(hub.TellingID(alarm()), at, false)
			s.muted = ""
		}
		return
	}
	if base = max(base, s.base); base > s.base {
		s.closed = 0
	}
	at := max(base+h.limits[d], s.closed)
	blame := m.hostBlame(h, at)
	if at > t || blame == "unknown" || d == 0 && waits(id, at) {
		return
	}
	s.base, s.overdue, s.since = base, true, at
	switch {
	case m.covered(h, at):
		s.muted = "window"
	case blame == "host":
		s.muted = "host"
	}
	m.note(alarm(), at, s.muted != "")
}

// hostBlame is blame by the reports that ClickHouse has.
func (m *model) hostBlame(h *modelHost, at int) string {
	switch {
	case h.heard >= at:
		return "own"
	case h.state == hub.Down:
		return "host"
	}
	return "unknown"
}

func (m *model) deadlineOver(h *modelHost, s *modelDeadline, t int) (at int, over bool) {
	if s.muted == "" || s.muted == "host" && h.state != hub.OK {
		return 0, false
	}
	at = s.since
	if s.muted == "host" {
		back := h.since
		for back <= t && m.ready(h.since, back) < grace {
			back++
		}
		at = max(at, back)
	}
	for at <= t && m.covered(h, at) {
		at++
	}
	return at, at <= t && m.hostBlame(h, at) == "own"
}

// Overdue is what the tables of ClickHouse would say.
func (w *world) Overdue(_ context.Context, cuts [3]time.Time, named []string) (found []clickhouse.GuestSuccess, err error) {
	w.asked = true
	w.oldest, _ = w.Behind()
	for host, reports := range w.lists {
		guests := map[string]*clickhouse.GuestSuccess{}
		first := map[string]time.Time{}
		for _, r := range reports {
			for _, id := range r.guests {
				g := guests[id]
				if g == nil {
					_, vmid, _ := hub.ParseGuestID(id)
					g = &clickhouse.GuestSuccess{HostID: host, VMID: vmid, FirstSeen: instant(r.at)}
					guests[id] = g
				}
				for d, owns := range r.items[id] {
					for _, own := range owns {
						key := fmt.Sprint(id, d, own)
						if first[key].IsZero() {
							first[key] = instant(min(own, r.at))
						}
						if first[key].After(g.Newest[d]) {
							g.Newest[d] = first[key]
						}
					}
				}
			}
		}
		last := reports[len(reports)-1]
		for id, g := range guests {
			g.HostLastAt, g.Present = instant(last.at), slices.Contains(last.guests, id)
			asked := slices.Contains(named, id)
			for d, cut := range cuts {
				base := g.FirstSeen
				if g.Newest[d].After(base) {
					base = g.Newest[d]
				}
				asked = asked || !cut.IsZero() && !base.After(cut)
			}
			if asked {
				found = append(found, *g)
			}
		}
	}
	return found, nil
}

func (w *world) FirstSuccesses(_ context.Context, d hub.Deadline, after map[string]time.Time) (map[string]time.Time, error) {
	first := map[string]time.Time{}
	for id, t := range after {
		for _, at := range w.m.hosts[id[:2]].guests[id].successes(int(d)) {
			if instant(at).After(t) {
				first[id] = instant(at)
				break
			}
		}
	}
	return first, nil
}

func (w *world) DeadlineStates(_ context.Context, t time.Time, f func(hub.DeadlineState), _ func(error)) error {
	for _, s := range w.overdue {
		if s.DecidedAt.After(t) {
			f(s)
		}
	}
	return nil
}

// lists what a report of a host says of its guests: the newest three successes of
// each kind, as agents repeat them.
func (w *world) listing(host string) told {
	r := told{at: w.last, items: map[string][3][]int{}}
	for id := range w.m.hosts {
		if !strings.HasPrefix(id, host+"/") || w.absent[id] {
			continue
		}
		r.guests = append(r.guests, id)
		var items [3][]int
		for d, owns := range w.successes[id] {
			items[d] = slices.Clone(owns[max(0, len(owns)-3):])
		}
		r.items[id] = items
	}
	return r
}

// succeed has a deadline of a guest met, by a clock that may be ahead.
func (w *world) succeed(guest string, d, ahead int) {
	all := w.successes[guest]
	all[d] = append(all[d], w.now+ahead)
	w.successes[guest] = all
}
