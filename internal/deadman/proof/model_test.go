// Package proof compares the switch with a model of it: single-threaded, slow,
// written from the design page alone. It shares with the switch the domain's
// types and ids, and nothing else. All its times are whole steps.
package proof

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

const (
	step     = 15 * time.Second
	gap      = 2  // steps: 30 s
	long     = 20 // 5 min
	grace    = 40 // 10 min
	together = 20 // 5 min
	holding  = 40 // 10 min
)

var epoch = time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)

func instant(n int) time.Time { return epoch.Add(time.Duration(n) * step) }

// model is what the switch should be.
type model struct {
	looks   []int  // when the hub looked whether it could accept reports
	dark    []bool // steps of blind time
	hosts   map[string]*modelHost
	raise   map[string]int      // event id → when it first held
	untold  map[string]bool     // event id → nobody is told of it
	watched map[*modelHost]bool // at the beginning of the tick
	ops     int                 // mass silences of the fleet that were suspected of the hub
}

// modelHost is a host, or the controller of a guest.
type modelHost struct {
	host    *modelHost // that a guest runs on; nil for a host
	windows [][2]int   // of maintenance
	until   []int      // of each report: of the maintenance that it announces; 0: none
	limits  limits
	heard   int                    // of the newest report that ClickHouse has
	guests  map[string]*modelGuest // of a host: as its reports that ClickHouse has tell
	muted   string                 // why nobody was told of the state: "window" or "host"; empty: it was told

	id, customer, site string
	life               hub.Lifecycle
	stale, down        int // thresholds, in steps
	reports            []int
	positions          []hub.Position

	state   hub.State     // empty: never looked at
	episode int           // the report before the silence, or the newest seen
	silent  bool          // nobody was told
	seen    hub.Lifecycle // what the switch took it for
	watched int           // since when; -1: always
	fell    []int         // when silences began
	flap    int           // the report before the notice; -1: does not flap
	began   int           // of the silence that was told; -1: none goes on
	worse   int           // when it became down after it was stale; -1: did not
	since   int
}

func (m *model) look(t int) {
	if n := len(m.looks); n > 0 {
		m.dark = append(m.dark, make([]bool, max(0, t-len(m.dark)))...)
		for i := m.looks[n-1]; t-m.looks[n-1] > gap && i < t; i++ {
			m.dark[i] = true
		}
	}
	m.looks = append(m.looks, t)
}

// refused tells of a time in which no report was accepted, from the look before it
// to the one after it.
func (m *model) refused(from, to int) {
	m.dark = append(m.dark, make([]bool, max(0, to-len(m.dark)))...)
	for i := from; to-from > gap && i < to; i++ {
		m.dark[i] = true
	}
}

func (m *model) ready(a, b int) (n int) {
	for i := a; i < b; i++ {
		if i >= len(m.dark) || !m.dark[i] {
			n++
		}
	}
	return n
}

// longs returns the ends of the long blind times of a silence.
func (m *model) longs(a, b int) (ends []int) {
	for i := a; i < b; {
		j := i
		for j < b && j < len(m.dark) && m.dark[j] {
			j++
		}
		if j-i > long {
			ends = append(ends, j)
		}
		i = max(j, i+1)
	}
	return ends
}

// holds reports whether a silence since recv, watched since then, is due at t.
func (m *model) holds(recv, watched, t, threshold int) bool {
	if m.ready(recv, t) < threshold || watched > recv && m.ready(watched, t) < grace {
		return false
	}
	ends := m.longs(recv, t)
	return len(ends) == 0 || m.ready(ends[min(len(ends), 2)-1], t) >= grace
}

func (m *model) due(h *modelHost, t, threshold int) (at int, ok bool) {
	recv := h.reports[len(h.reports)-1]
	if !m.holds(recv, h.watched, t, threshold) {
		return 0, false
	}
	for at = recv; !m.holds(recv, h.watched, at, threshold); {
		at++
	}
	return at, true
}

// fresh is a silence that this tick found.
type fresh struct {
	h        *modelHost
	at       int
	down     bool // the host is down by now
	worse    bool // it was stale before
	kind     hub.EventType
	quiet    bool   // nobody is told: it flaps
	struck   bool   // it flapped, and is dead
	muted    string // why it is recorded and not told
	late     bool   // it was recorded before, and is told now
	isNotice bool
}

func (f fresh) told() bool { return !f.quiet && f.muted == "" }

// tick judges the hosts at t, and then the guests. Those withheld were not in the
// answer.
func (m *model) tick(t int, withheld map[string]bool) {
	m.watched = map[*modelHost]bool{}
	for _, h := range m.hosts {
		m.watched[h] = h.life == hub.Active && h.state != ""
	}
	m.judge(t, withheld, false)
	m.judge(t, withheld, true)
}

func (m *model) judge(t int, withheld map[string]bool, guests bool) {
	var found []fresh
	for _, id := range m.order() {
		h := m.hosts[id]
		newest := len(h.reports) - 1
		switch {
		case newest < 0 || (h.host != nil) != guests:
		case h.state == "":
			if h.life == hub.Active && !withheld[id] {
				m.firstLook(h, t)
			}
		case h.life != h.seen:
			found = append(found, m.moved(h, t, withheld[id])...)
		case h.life == hub.Active:
			if !withheld[id] {
				m.recovered(h)
				found = append(found, m.silence(h, t)...)
			}
			if h.state == hub.OK && !slices.ContainsFunc(found, func(f fresh) bool { return f.h == h }) {
				m.calm(h, t)
			}
		}
	}
	if !guests {
		found = m.holdBack(found, t)
	}
	for _, f := range found {
		m.apply(f)
	}
	m.fold(found, guests)
}

// covered reports whether a maintenance lies over a step.
func (m *model) covered(h *modelHost, at int) bool {
	if h.host != nil {
		h = h.host
	}
	if n := len(h.reports) - 1; n >= 0 && h.reports[n] <= at && at < h.until[n] {
		return true
	}
	return slices.ContainsFunc(h.windows, func(w [2]int) bool { return w[0] <= at && at < w[1] })
}

// blame tells whose trouble it is that began at a step.
func (m *model) blame(h *modelHost, at int) string {
	if h.host == nil || len(h.host.reports) == 0 || h.host.reports[len(h.host.reports)-1] >= at {
		return "own"
	}
	if h.host.state == hub.Down {
		return "host"
	}
	return "unknown"
}

func (m *model) mute(h *modelHost, at int) string {
	if m.covered(h, at) {
		return "window"
	}
	if m.blame(h, at) == "host" {
		return "host"
	}
	return ""
}

// afterAll finds whether the time has come to tell of what was not told.
func (m *model) afterAll(h *modelHost, t int) []fresh {
	if h.state == hub.OK || h.muted == "" {
		return nil
	}
	from := h.since
	if h.muted == "host" {
		if h.host.state != hub.OK {
			return nil
		}
		back := h.host.since
		for back <= t && m.ready(h.host.since, back) < grace {
			back++
		}
		from = max(from, back)
	}
	for from <= t && m.covered(h, from) {
		from++
	}
	if from > t || m.blame(h, from) != "own" {
		return nil
	}
	return []fresh{{h: h, at: from, late: true}}
}

// name is what an event of a host is called for a guest.
func (h *modelHost) name(t hub.EventType) hub.EventType {
	if h.host == nil {
		return t
	}
	return hub.EventType(strings.Replace(string(t), "host_", "controller_", 1))
}

func (m *model) order() (ids []string) {
	for id := range m.hosts {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids
}

func (m *model) tell(t hub.EventType, h *modelHost, report, at int, muted bool) {
	m.note(hub.EventID(h.name(t), h.id, h.positions[report]), at, muted)
}

func (m *model) note(id string, at int, muted bool) {
	if _, told := m.raise[id]; !told {
		m.raise[id], m.untold[id] = at, muted
	}
}

func (m *model) retired(h *modelHost, what string, report, at int) {
	over := h.name(hub.HostRecovered)
	m.note(hub.FleetEventID(over, "retired\n"+what+"\n"+hub.EventID(over, h.id, h.positions[report])), at, true)
}

func (m *model) firstLook(h *modelHost, t int) {
	h.state, h.seen, h.episode, h.watched = hub.OK, hub.Active, len(h.reports)-1, -1
	for _, state := range []hub.State{hub.Stale, hub.Down} {
		if at, ok := m.due(h, t, map[hub.State]int{hub.Stale: h.stale, hub.Down: h.down}[state]); ok {
			h.state, h.since, h.silent = state, at, true
		}
	}
}

// moved follows a change of the life cycle.
func (m *model) moved(h *modelHost, t int, withheld bool) (found []fresh) {
	was := h.seen
	switch h.seen = h.life; {
	case h.life == hub.Retired:
		if h.state != hub.OK && (!h.silent || h.muted != "") {
			m.retired(h, string(h.state), h.episode, t)
		}
		if h.flap >= 0 {
			m.retired(h, "flapping", h.flap, t)
		}
		h.silent, h.flap, h.began, h.worse, h.fell, h.muted = h.state != hub.OK, -1, -1, -1, nil, ""
	case h.life == hub.Active && was != hub.Active:
		h.watched = t
		if !withheld {
			m.recovered(h)
			found = m.afterAll(h, t)
		}
		m.calm(h, t)
	}
	return found
}

func (m *model) recovered(h *modelHost) {
	if h.state == hub.OK || h.episode == len(h.reports)-1 {
		return
	}
	if !h.silent || h.muted != "" {
		m.tell(hub.HostRecovered, h, h.episode, h.reports[h.episode+1], h.silent)
	}
	h.state, h.silent, h.began, h.worse, h.muted, h.since = hub.OK, false, -1, -1, "", h.reports[h.episode+1]
}

// silence finds what became due of a host.
func (m *model) silence(h *modelHost, t int) []fresh {
	if h.state == hub.Down && h.flap < 0 {
		return m.afterAll(h, t)
	}
	due := func(threshold int) (int, bool) {
		at, ok := m.due(h, t, threshold)
		return at, ok && m.blame(h, at) != "unknown"
	}
	at, stale := due(h.stale)
	since, down := due(h.down)
	dead, struck := due(h.down + 2*grace)
	f := fresh{h: h, at: at, down: down, kind: hub.HostStale, worse: h.state == hub.Stale}
	if down {
		f.at, f.kind = since, hub.HostDown
	}
	switch {
	case h.flap >= 0 && struck:
		f.at, f.kind, f.struck, f.worse = dead, hub.HostDown, true, h.state != hub.OK
		f.muted = m.mute(h, dead)
	case h.state == hub.OK && (stale || down):
		fell := append(slices.Clone(h.fell), f.at)
		if h.flap >= 0 {
			f.quiet = true
		} else if f.muted = m.mute(h, f.at); f.muted == "" && !down && len(fell) >= 6 && f.at-fell[len(fell)-6] < 20*h.stale {
			f.kind, f.isNotice = hub.HostFlapping, true
		}
	case h.state == hub.Stale && down:
		f.quiet = h.flap >= 0
		if !f.quiet {
			f.muted = m.mute(h, f.at)
		}
	case h.state == hub.Stale && h.flap < 0:
		return m.afterAll(h, t)
	default:
		return nil
	}
	return []fresh{f}
}

func (m *model) apply(f fresh) {
	h := f.h
	if f.late {
		alarm := map[hub.State]hub.EventType{hub.Stale: hub.HostStale, hub.Down: hub.HostDown}[h.state]
		m.note(hub.TellingID(hub.EventID(h.name(alarm), h.id, h.positions[h.episode])), f.at, false)
		h.muted, h.silent, h.began = "", false, f.at
		h.fell = append(h.fell, f.at)
		return
	}
	was := h.state
	h.episode, h.since = len(h.reports)-1, f.at
	if h.state = hub.Stale; f.down || f.struck {
		h.state = hub.Down
	}
	if was == hub.OK && (f.muted == "" || h.flap >= 0) {
		h.fell = append(h.fell, f.at)
	}
	if f.muted == "" || was == hub.OK || f.struck {
		h.silent = f.quiet || f.isNotice || f.muted != ""
	}
	if f.quiet {
		return
	}
	h.muted = f.muted
	m.tell(f.kind, h, h.episode, f.at, f.muted != "")
	switch {
	case f.struck:
		h.flap, h.fell, h.began, h.worse = -1, nil, -1, f.at
		if f.muted != "" {
			h.worse = -1
		}
	case f.muted != "":
	case f.isNotice:
		h.flap = h.episode
	case f.worse:
		h.worse = f.at
	default:
		h.began = f.at
	}
}

// calm ends flapping.
func (m *model) calm(h *modelHost, t int) {
	if h.flap < 0 || h.state != hub.OK {
		return
	}
	over := max(h.fell[len(h.fell)-5]+20*h.stale, h.since)
	if over <= t {
		m.tell(hub.HostRecovered, h, h.flap, over, false)
		h.flap, h.fell = -1, nil
	}
}

// member is a silence of a group, found now or before.
type member struct {
	h     *modelHost
	at    int
	fresh bool
}

// runs lists the mass silences of the hosts that are in a group.
func (m *model) runs(found []fresh, worse, guests bool, in func(*modelHost) bool) (list [][]member) {
	var all []member
	oldest := 1 << 30
	for _, f := range found {
		if !f.told() {
			continue
		}
		oldest = min(oldest, f.at)
		if f.worse == worse && in(f.h) {
			all = append(all, member{f.h, f.at, true})
		}
	}
	size := 0
	for _, id := range m.order() {
		h := m.hosts[id]
		if !m.watched[h] || !in(h) || (h.host != nil) != guests {
			continue
		}
		size++
		at := h.began
		if worse {
			at = h.worse
		}
		if at >= 0 && at >= oldest-together && !slices.ContainsFunc(all, func(o member) bool { return o.h == h }) {
			all = append(all, member{h, at, false})
		}
	}
	sort.Slice(all, func(i, j int) bool {
		return all[i].at < all[j].at || all[i].at == all[j].at && all[i].h.id < all[j].h.id
	})
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].at <= all[i].at+together {
			j++
		}
		if run := all[i:j]; len(run) >= 3 && 100*len(run) >= 55*size {
			if slices.ContainsFunc(run, func(o member) bool { return o.fresh }) {
				list = append(list, run)
			}
			i = j
		} else {
			i++
		}
	}
	return list
}

// holdBack takes out what is first the hub's own problem.
func (m *model) holdBack(found []fresh, t int) []fresh {
	if count(found) == 0 {
		return found
	}
	var held []*modelHost
	inTime := slices.DeleteFunc(slices.Clone(found), func(f fresh) bool { return f.late })
	for _, run := range m.runs(inTime, false, false, func(*modelHost) bool { return true }) {
		m.ops++
		for _, o := range run {
			if o.fresh && t < run[0].at+holding {
				held = append(held, o.h)
			}
		}
	}
	return slices.DeleteFunc(found, func(f fresh) bool { return slices.Contains(held, f.h) })
}

func count(found []fresh) (n int) {
	for _, f := range found {
		if f.told() {
			n++
		}
	}
	return n
}

// fold raises the mass silences of sites, and then of customers.
func (m *model) fold(found []fresh, guests bool) {
	if count(found) == 0 {
		return
	}
	for _, worse := range []bool{false, true} {
		folded := map[*modelHost]bool{}
		for _, bySite := range []bool{true, false} {
			groups := map[[2]string]bool{}
			for _, h := range m.hosts {
				if g := [2]string{h.customer, ""}; !bySite {
					groups[g] = true
				} else if h.site != "" {
					groups[[2]string{h.customer, h.site}] = true
				}
			}
			for g := range groups {
				in := func(h *modelHost) bool { return h.customer == g[0] && (!bySite || h.site == g[1]) }
				for _, run := range m.runs(found, worse, guests, in) {
					some := false
					for _, o := range run {
						if o.fresh && !folded[o.h] {
							folded[o.h], some = true, true
						}
					}
					if some {
						m.mass(g, worse, run[0])
					}
				}
			}
		}
	}
}

func (m *model) mass(g [2]string, worse bool, first member) {
	level := map[bool]string{false: "silent", true: "down"}[worse]
	if first.h.host != nil {
		level = "controllers " + level
	}
	id := hub.FleetEventID(hub.MassSilence, fmt.Sprintf("%s\n%s\n%s\n%s", g[0], g[1], level,
		hub.EventID(hub.MassSilence, first.h.id, first.h.positions[first.h.episode])))
	m.note(id, -1, false)
}
