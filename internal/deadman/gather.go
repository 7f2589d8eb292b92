package deadman

import (
	"context"
	"fmt"
	"slices"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// survey is what a fleet in force means to the switch: looked up once.
type survey struct {
	thresholds map[time.Duration]bool
	unseen     []*hub.Host // active, and no report of them was ever looked at
	moved      []string    // hosts that the switch takes for active, paused or retired, and are not
	census     Census      // nil: not counted yet
	counted    int         // hosts of which a report was looked at, when it was
}

func (s *Switch) look(fleet *hub.Fleet) survey {
	v := survey{thresholds: map[time.Duration]bool{}}
	for h := range fleet.Hosts() {
		if h.Lifecycle != hub.Active {
			continue
		}
		t := fleet.Thresholds(h, s.o.Base)
		v.thresholds[t.StaleAfter], v.thresholds[t.DownAfter] = true, true
		if !s.memory.reported(h.ID) {
			v.unseen = append(v.unseen, h)
		}
	}
	for i, host := range s.memory.hosts {
		if now, was := lifecycle(fleet, host), lifecycles[s.memory.rows[i].lifecycle]; now != was && (now != hub.Active || was != "") {
			v.moved = append(v.moved, host)
		}
	}
	return v
}

// lifecycle is Retired for a host that the fleet does not name.
func lifecycle(fleet *hub.Fleet, host string) hub.Lifecycle {
	if h, ok := fleet.Host(host); ok {
		return h.Lifecycle
	}
	return hub.Retired
}

// gather collects the evidence of every host that may change.
func (s *Switch) gather(ctx context.Context, rule *Rule) ([]Evidence, error) {
	if err := s.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("the query for recorded states failed: %w", err)
	}
	g := gathering{s: s, rule: rule, cuts: make(map[time.Duration]time.Time, len(s.survey.thresholds)), known: map[string]bool{}}
	q := clickhouse.Question{Cut: time.UnixMilli(0), All: !s.asked}
	for d := range s.survey.thresholds {
		g.cuts[d] = rule.Cut(d)
		q.Cut = latest(q.Cut, g.cuts[d])
	}
	q.Hosts = s.curious()
	answer, err := s.o.Store.Candidates(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("the query for silent hosts failed: %w", err)
	}
	for _, bad := range answer.Bad {
		s.badRow(bad)
	}
	if err := s.plausible(answer, rule.T); err != nil {
		return nil, err
	}
	s.caughtUp = rule.T.Add(-watermark)
	s.asked = true
	for _, c := range answer.Silences {
		g.candidate(c)
	}
	for _, host := range s.survey.moved {
		g.moved(host)
	}
	s.survey.moved = slices.DeleteFunc(s.survey.moved, func(host string) bool { return !g.known[host] })
	for state := range s.memory.restless() {
		g.flapping(state)
	}
	for _, h := range s.survey.unseen {
		g.awaited(h)
	}
	if err := s.addFirstReports(ctx, g.evidence); err != nil {
		return nil, fmt.Errorf("the query for first reports failed: %w", err)
	}
	return g.evidence, nil
}

// curious lists the hosts of which the newest report is of interest, however new
// it is: those that may have spoken again, and those not yet looked at.
func (s *Switch) curious() []string {
	hosts := slices.Clone(s.survey.moved)
	for state := range s.memory.restless() {
		hosts = append(hosts, state.HostID)
	}
	for _, h := range s.survey.unseen {
		if _, ok := s.o.LastSeen(h.ID); ok {
			hosts = append(hosts, h.ID)
		}
	}
	return hosts
}

// An answer is implausible with this share of hosts missing, and this many.
const (
	missingShare = 20 // per cent
	missingHosts = 3
)

// plausible refuses an answer that knows of far fewer hosts than the hub does.
func (s *Switch) plausible(answer clickhouse.Answer, t time.Time) error {
	s.survey.unseen = slices.DeleteFunc(s.survey.unseen, func(h *hub.Host) bool { return s.memory.reported(h.ID) })
	known := s.memory.looked
	for _, h := range s.survey.unseen {
		if seen, ok := s.o.LastSeen(h.ID); ok && !seen.ReceivedAt.After(t.Add(-watermark)) {
			known++
		}
	}
	missing := known - answer.Reported
	if missing > 0 && answer.Reported == 0 || missing >= missingHosts && missing*100 > known*missingShare {
		return fmt.Errorf("ClickHouse's answer cannot be right: it knows of reports of %d hosts, the hub of %d", answer.Reported, known)
	}
	return nil
}

// catchUp learns what another evaluator decided meanwhile.
func (s *Switch) catchUp(ctx context.Context) error {
	decided, err := s.o.Store.DecidedSince(ctx, s.caughtUp)
	if err != nil {
		return err
	}
	var hosts []string
	for host, at := range decided {
		if i, ok := s.memory.index[host]; !ok || s.memory.rows[i].decidedAt < milli(at) {
			hosts = append(hosts, host)
		}
	}
	for part := range slices.Chunk(hosts, hostsPerRecord) {
		if err := s.o.Store.States(ctx, part, func(state hub.HostState) { s.memory.put(state) }, s.badRow); err != nil {
			return err
		}
	}
	return nil
}

// gathering collects evidence, of each host once.
type gathering struct {
	s        *Switch
	rule     *Rule
	cuts     map[time.Duration]time.Time
	known    map[string]bool
	evidence []Evidence
}

func (g *gathering) add(e Evidence) {
	if g.known[e.HostID] {
		return
	}
	g.known[e.HostID] = true
	e.Lifecycle = hub.Retired
	if h, ok := g.s.fleet.Host(e.HostID); ok {
		e.HostID, e.CustomerID, e.Site, e.Lifecycle, e.EnrollBy = h.ID, h.Customer, h.Labels["site"], h.Lifecycle, h.EnrollBy
		e.Thresholds = g.s.fleet.Thresholds(h, g.s.o.Base)
	}
	g.evidence = append(g.evidence, e)
}

// candidate joins what ClickHouse knows of a host with what only this process
// knows: its own decisions, and reports that are still in the spool.
func (g *gathering) candidate(c clickhouse.Silence) {
	if lifecycle(g.s.fleet, c.HostID) != hub.Active {
		return
	}
	if g.unmoved(c) {
		return
	}
	e := Evidence{HostID: c.HostID, Last: c.Last, LastAt: c.LastAt, Previous: g.s.memory.get(c.HostID)}
	if seen, ok := g.s.o.LastSeen(c.HostID); ok && e.older(seen) {
		if p := e.Previous; p != nil && p.State != hub.OK && p.State != hub.NeverSeen && !c.LastAt.After(p.LastAt) {
			g.known[c.HostID] = true
			return // it spoke again; which report was the first is known when ClickHouse has it
		}
		e.Last, e.LastAt = seen.Position, seen.ReceivedAt
	}
	g.add(e)
}

// unmoved reports whether a host that is watched is as it was, by its newest
// report: most are, and cost no more than this.
func (g *gathering) unmoved(c clickhouse.Silence) bool {
	i, ok := g.s.memory.index[c.HostID]
	if !ok {
		return false
	}
	r := g.s.memory.rows[i]
	h, _ := g.s.fleet.Host(c.HostID)
	t := g.s.fleet.Thresholds(h, g.s.o.Base)
	switch {
	case lifecycles[r.lifecycle] != hub.Active && lifecycles[r.lifecycle] != "":
		return false
	case states[r.state] == hub.OK:
		return c.LastAt.After(g.cuts[t.StaleAfter])
	case states[r.state] == hub.NeverSeen || c.LastAt.UnixMilli() > r.lastAt || g.s.memory.more[i].flapping != hub.Position{}:
		return false
	}
	return states[r.state] == hub.Down || c.LastAt.After(g.cuts[t.DownAfter])
}

// moved is a host whose life cycle changed. What is silent is found elsewhere.
func (g *gathering) moved(host string) {
	previous := g.s.memory.get(host)
	now := lifecycle(g.s.fleet, host)
	if now == hub.Active && watched(previous) || now == previous.Lifecycle {
		return // it is decided already
	}
	g.add(g.heard(previous))
}

// flapping is a host that may be calm by now. Of one that is silent only ClickHouse
// can say that it still is.
func (g *gathering) flapping(previous hub.HostState) {
	if previous.State == hub.OK && previous.Flapping != (hub.Position{}) && lifecycle(g.s.fleet, previous.HostID) == hub.Active {
		g.add(g.heard(&previous))
	}
}

// heard is the evidence of a host that ClickHouse does not call silent.
func (g *gathering) heard(previous *hub.HostState) Evidence {
	e := Evidence{HostID: previous.HostID, Previous: previous, Last: previous.Last, LastAt: previous.LastAt, Held: true}
	if seen, ok := g.s.o.LastSeen(e.HostID); ok && e.older(seen) && previous.State == hub.OK {
		e.Last, e.LastAt = seen.Position, seen.ReceivedAt
	}
	return e
}

// older reports whether a report came after the newest one of the evidence. While
// the clock is behind, received_at stands still, and the sequence goes on.
func (e Evidence) older(than hub.Receipt) bool {
	return than.ReceivedAt.After(e.LastAt) || than.ReceivedAt.Equal(e.LastAt) && than.SpoolID == e.Last.SpoolID && than.Seq > e.Last.Seq
}

// awaited is a host whose first report may be overdue.
func (g *gathering) awaited(h *hub.Host) {
	if h.EnrollBy.IsZero() || g.rule.T.Before(h.EnrollBy) {
		return
	}
	if _, seen := g.s.o.LastSeen(h.ID); !seen {
		g.add(Evidence{HostID: h.ID, Previous: g.s.memory.get(h.ID)})
	}
}

// addFirstReports looks up, for hosts that spoke again, which report ended the
// silence: the newest one may have come later.
func (s *Switch) addFirstReports(ctx context.Context, evidence []Evidence) error {
	after := map[string]time.Time{}
	for _, e := range evidence {
		if p := e.Previous; p != nil && p.State != hub.OK && p.State != hub.NeverSeen && e.LastAt.After(p.LastAt) {
			after[e.HostID] = p.LastAt
		}
	}
	if len(after) == 0 {
		return nil
	}
	first, err := s.o.Store.FirstReports(ctx, after)
	if err != nil {
		return err
	}
	for i := range evidence {
		evidence[i].FirstAfter = first[evidence[i].HostID]
	}
	return nil
}

// knowledge counts the watched hosts of every group, and lists the silences that
// may be part of one that is beginning.
func (s *Switch) knowledge() Knowledge {
	if s.survey.census == nil || s.survey.counted != s.memory.looked {
		s.survey.census, s.survey.counted = s.count(), s.memory.looked
	}
	k := Knowledge{Census: s.survey.census}
	for state := range s.memory.restless() {
		if h, ok := s.fleet.Host(state.HostID); ok && h.Lifecycle == hub.Active {
			k.Recent = append(k.Recent, Told(&state, h.Customer, h.Labels["site"])...)
		}
	}
	return k
}

func (s *Switch) count() Census {
	census := Census{}
	var customer, site string
	n := 0
	for h := range s.fleet.Hosts() {
		if h.Lifecycle != hub.Active || !s.memory.reported(h.ID) {
			continue
		}
		// Neighbours by name mostly are of one customer and site.
		if there := h.Labels["site"]; h.Customer != customer || there != site {
			census.Count(customer, site, n)
			customer, site, n = h.Customer, there, 0
		}
		n++
	}
	census.Count(customer, site, n)
	return census
}
