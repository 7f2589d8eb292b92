package deadman

import (
	"context"
	"fmt"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// survey is what a fleet in force means to the switch: looked up once.
type survey struct {
	thresholds map[time.Duration]bool
	unseen     []*hub.Host // active, and no report of them was ever looked at
	reported   int         // active, and a report was looked at
	moved      []string    // hosts that the switch takes for active, paused or retired, and are not
}

func (s *Switch) look(fleet *hub.Fleet) survey {
	v := survey{thresholds: map[time.Duration]bool{}}
	for h := range fleet.Hosts() {
		if h.Lifecycle != hub.Active {
			continue
		}
		t := fleet.Thresholds(h, s.o.Base)
		v.thresholds[t.StaleAfter], v.thresholds[t.DownAfter] = true, true
		if i, ok := s.memory.index[h.ID]; ok && states[s.memory.rows[i].state] != hub.NeverSeen {
			v.reported++
		} else {
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

// remember keeps a state that is durable.
func (s *Switch) remember(state hub.HostState) {
	i, known := s.memory.index[state.HostID]
	known = known && states[s.memory.rows[i].state] != hub.NeverSeen
	if s.memory.put(state); !known && state.State != hub.NeverSeen {
		s.survey.reported++
	}
}

// gather collects the evidence of every host that may change.
func (s *Switch) gather(ctx context.Context, rule *Rule) ([]Evidence, error) {
	q := clickhouse.Question{Cuts: make(map[time.Duration]time.Time, len(s.survey.thresholds))}
	for d := range s.survey.thresholds {
		q.Cuts[d] = rule.Cut(d)
	}
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
	if err := s.catchUp(ctx, answer); err != nil {
		return nil, fmt.Errorf("the query for recorded states failed: %w", err)
	}
	g := gathering{s: s, rule: rule, known: make(map[string]bool, len(answer.Silences))}
	for _, c := range answer.Silences {
		g.candidate(c)
	}
	for _, host := range s.survey.moved {
		g.moved(host)
	}
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

// An answer is implausible with this share of hosts missing, and this many.
const (
	missingShare = 20 // per cent
	missingHosts = 3
)

// plausible refuses an answer that knows of far fewer hosts than the hub does.
func (s *Switch) plausible(answer clickhouse.Answer, t time.Time) error {
	known := s.survey.reported
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
func (s *Switch) catchUp(ctx context.Context, answer clickhouse.Answer) error {
	var hosts []string
	for _, c := range answer.Silences {
		if c.State == "" {
			continue
		}
		if i, ok := s.memory.index[c.HostID]; !ok || s.memory.rows[i].decidedAt < milli(c.DecidedAt) {
			hosts = append(hosts, c.HostID)
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	return s.o.Store.States(ctx, hosts, s.remember, s.badRow)
}

// gathering collects evidence, of each host once.
type gathering struct {
	s        *Switch
	rule     *Rule
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
	e := Evidence{HostID: c.HostID, Last: c.Last, LastAt: c.LastAt, Previous: g.s.memory.get(c.HostID)}
	if seen, ok := g.s.o.LastSeen(c.HostID); ok && seen.ReceivedAt.After(e.LastAt) {
		if p := e.Previous; p != nil && p.State != hub.OK && p.State != hub.NeverSeen && !c.LastAt.After(p.LastAt) {
			g.known[c.HostID] = true
			return // it spoke again; which report was the first is known when ClickHouse has it
		}
		e.Last, e.LastAt = seen.Position, seen.ReceivedAt
	}
	g.add(e)
}

// moved is a host whose life cycle changed. ClickHouse does not call it silent,
// so no silence is found here.
func (g *gathering) moved(host string) {
	previous := g.s.memory.get(host)
	now := lifecycle(g.s.fleet, host)
	if now == hub.Active && watched(previous) || now == previous.Lifecycle {
		return // it is decided already
	}
	g.add(g.heard(previous))
}

// flapping is a host that may be calm by now.
func (g *gathering) flapping(previous hub.HostState) {
	if previous.Flapping != (hub.Position{}) && lifecycle(g.s.fleet, previous.HostID) == hub.Active {
		g.add(g.heard(&previous))
	}
}

// heard is the evidence of a host that ClickHouse does not call silent.
func (g *gathering) heard(previous *hub.HostState) Evidence {
	e := Evidence{HostID: previous.HostID, Previous: previous, Last: previous.Last, LastAt: previous.LastAt, Held: true}
	if seen, ok := g.s.o.LastSeen(e.HostID); ok && seen.ReceivedAt.After(e.LastAt) && previous.State == hub.OK {
		e.Last, e.LastAt = seen.Position, seen.ReceivedAt
	}
	return e
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
func (s *Switch) knowledge(rule *Rule) Knowledge {
	k := Knowledge{Census: Census{}}
	var customer, site string
	n := 0
	for h := range s.fleet.Hosts() {
		i, ok := s.memory.index[h.ID]
		if !ok || h.Lifecycle != hub.Active || states[s.memory.rows[i].state] == hub.NeverSeen {
			continue
		}
		// Neighbours by name mostly are of one customer and site.
		if there := h.Labels["site"]; h.Customer != customer || there != site {
			k.Census.Count(customer, site, n)
			customer, site, n = h.Customer, there, 0
		}
		n++
	}
	k.Census.Count(customer, site, n)
	for state := range s.memory.restless() {
		if h, ok := s.fleet.Host(state.HostID); ok && h.Lifecycle == hub.Active {
			k.Recent = append(k.Recent, Told(&state, h.Customer, h.Labels["site"])...)
		}
	}
	return k
}
