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
	moved      []string    // hosts and guests that the switch takes for active, paused or retired, and are not
	census     [2]Census   // of hosts, and of controllers; nil: not counted yet
	counted    family      // of which a report was looked at, when it was

	shortest hub.Deadlines // of all that are watched
}

func (s *Switch) look(fleet *hub.Fleet) survey {
	v := survey{thresholds: map[time.Duration]bool{}, shortest: shortestLimits(fleet)}
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

// lifecycle is that of a host, or of the host of a guest; Retired where the fleet
// does not name it.
func lifecycle(fleet *hub.Fleet, id string) hub.Lifecycle {
	if h, ok := fleet.Host(hostOf(id)); ok {
		return h.Lifecycle
	}
	return hub.Retired
}

// gather collects the evidence of every host that may change.
func (s *Switch) gather(ctx context.Context, rule *Rule) ([]Evidence, error) {
	if err := s.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("the query for recorded states failed: %w", err)
	}
	oldest, doubt := s.o.Backlog.Behind() // before the question: the answer may know more
	s.unseen = append(s.unseen, s.o.Newcomers()...)
	g := gathering{s: s, rule: rule, oldest: oldest, doubt: doubt, cuts: make(map[time.Duration]time.Time, len(s.survey.thresholds)), known: map[string]bool{}}
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
	if err := s.plausible(answer, rule.T, oldest); err != nil {
		return nil, err
	}
	s.caughtUp = rule.T.Add(-watermark)
	s.asked = true
	for _, c := range answer.Silences {
		g.candidate(c)
	}
	if !oldest.IsZero() {
		for state := range s.memory.since(oldest) { // of these the answer may know nothing
			g.candidate(clickhouse.Silence{HostID: state.HostID, Last: state.Last, LastAt: state.LastAt})
		}
	}
	for _, host := range s.survey.moved {
		g.moved(host)
	}
	s.survey.moved = slices.DeleteFunc(s.survey.moved, func(host string) bool { return !g.known[host] })
	for state := range s.memory.restless() {
		g.flapping(state)
		g.returned(state)
	}
	for _, h := range s.survey.unseen {
		g.newcomer(h.ID)
		g.awaited(h)
	}
	for _, guest := range s.unseen {
		g.newcomer(guest)
	}
	evidence, err := s.addFirstReports(ctx, g.evidence, doubt)
	if err != nil {
		return nil, fmt.Errorf("the query for first reports failed: %w", err)
	}
	if err := s.addAnnouncements(ctx, evidence, rule.T); err != nil {
		return nil, fmt.Errorf("the query for announced maintenance failed: %w", err)
	}
	return evidence, nil
}

// announcedAtMost is how long ago a host may have announced a maintenance that the
// switch still goes by: it lasts a day at most, and an evaluation may come late.
const announcedAtMost = 8 * 24 * time.Hour

// addAnnouncements looks up what the hosts' agents said of maintenance, each in its
// newest report.
func (s *Switch) addAnnouncements(ctx context.Context, evidence []Evidence, t time.Time) error {
	oldest, reported := t, false
	for i := range evidence {
		if at := evidence[i].LastAt; !at.IsZero() {
			oldest, reported = earlier(oldest, at), true
		}
	}
	if !reported {
		return nil // nobody who never reported announced anything
	}
	announced, err := s.announcements(ctx, oldest, t)
	for i := range evidence {
		evidence[i].Quiet.announce(announced(hostOf(evidence[i].HostID)))
	}
	return err
}

// announcements looks up a host's among what ClickHouse knows of reports since an
// instant, and what only this process knows.
func (s *Switch) announcements(ctx context.Context, since, t time.Time) (of func(host string) clickhouse.Announcement, err error) {
	stored, err := s.o.Store.Announcements(ctx, latest(since, t.Add(-announcedAtMost)))
	return func(host string) clickhouse.Announcement {
		a := stored[host]
		if at, until, ok := s.o.Announced(host); ok && (at.After(a.At) || at.Equal(a.At) && !until.IsZero()) {
			a = clickhouse.Announcement{At: at, Until: until}
		}
		return a
	}, err
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
	return append(hosts, s.unseen...)
}

// An answer is implausible with this share of hosts missing, and this many.
const (
	missingShare = 20 // per cent
	missingHosts = 3
)

// plausible refuses an answer that knows of far fewer hosts than the hub does, or of
// far fewer guests. Of those whose reports may all be among the ones that wait, from
// oldest on, it need not know.
func (s *Switch) plausible(answer clickhouse.Answer, t, oldest time.Time) error {
	s.survey.unseen = slices.DeleteFunc(s.survey.unseen, func(h *hub.Host) bool { return s.memory.reported(h.ID) })
	s.unseen = slices.DeleteFunc(s.unseen, s.memory.reported)
	known := s.memory.looked
	if !oldest.IsZero() {
		known = s.memory.reportedBefore(oldest)
	}
	count := func(id string) {
		if seen, ok := s.o.LastSeen(id); ok && !seen.ReceivedAt.After(t.Add(-watermark)) && (oldest.IsZero() || seen.ReceivedAt.Before(oldest)) {
			known.add(id, 1)
		}
	}
	for _, h := range s.survey.unseen {
		count(h.ID)
	}
	for _, guest := range s.unseen {
		count(guest)
	}
	if err := tooFew("hosts", answer.Reported, known.hosts); err != nil {
		return err
	}
	return tooFew("controllers", answer.Controllers, known.guests)
}

func tooFew(of string, told, known int) error {
	missing := known - told
	if missing > 0 && told == 0 || missing >= missingHosts && missing*100 > known*missingShare {
		return fmt.Errorf("ClickHouse's answer cannot be right: it knows of reports of %d %s, the hub of %d", told, of, known)
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
	if s.o.Deadlines == nil {
		return nil
	}
	return s.o.Deadlines.DeadlineStates(ctx, s.caughtUp, s.memory.putDeadline, s.badRow)
}

// gathering collects evidence, of each host once.
type gathering struct {
	s        *Switch
	rule     *Rule
	oldest   time.Time // ClickHouse does not have what was acknowledged from then on; zero: it has all
	doubt    bool      // it may have lost some of the rest
	cuts     map[time.Duration]time.Time
	known    map[string]bool
	evidence []Evidence
}

func (g *gathering) add(e Evidence) {
	if g.known[e.HostID] {
		return
	}
	g.known[e.HostID] = true
	e.enrolled(g.s.fleet, g.s.o.Base)
	g.evidence = append(g.evidence, e)
}

// enrolled adds what the fleet says of a host, or of the host of a guest; false where
// it does not name it.
func (e *Evidence) enrolled(fleet *hub.Fleet, base hub.Thresholds) bool {
	e.Lifecycle = hub.Retired
	h, ok := fleet.Host(hostOf(e.HostID))
	if !ok {
		return false
	}
	e.CustomerID, e.Site, e.Lifecycle = h.Customer, h.Labels["site"], h.Lifecycle
	e.Thresholds, e.Quiet.Windows = fleet.Thresholds(h, base), fleet.Windows(h)
	if !e.guest() {
		e.HostID, e.EnrollBy = h.ID, h.EnrollBy
	}
	return true
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
	p := e.Previous
	if p != nil && e.older(hub.Receipt{Position: p.Last, ReceivedAt: p.LastAt}) {
		e.Last, e.LastAt = p.Last, p.LastAt // which ClickHouse does not have yet
	}
	if seen, ok := g.s.o.LastSeen(c.HostID); ok && e.older(seen) {
		if p != nil && fellSilent(p) && !c.LastAt.After(p.LastAt) {
			g.spoke(e, seen)
			return
		}
		if c.Last, c.LastAt = seen.Position, seen.ReceivedAt; g.unmoved(c) {
			return // while ClickHouse is behind it takes many hosts for silent
		}
		e.Last, e.LastAt = c.Last, c.LastAt
	}
	g.add(e)
}

// fellSilent reports whether a silence is recorded that goes on.
func fellSilent(s *hub.HostState) bool { return s.State != hub.OK && s.State != hub.NeverSeen }

// spoke is a silent host that was heard again, of which ClickHouse does not know.
// Which report ended the silence the hub knows itself, or ClickHouse when it has it.
func (g *gathering) spoke(e Evidence, seen hub.Receipt) {
	first, ok := time.Time{}, false
	if g.waits(seen) {
		first, ok = g.s.o.FirstSeen(e.HostID, e.Previous.LastAt)
	}
	if !ok {
		g.known[e.HostID] = true // it is not silent either
		return
	}
	e.Last, e.LastAt, e.FirstAfter = seen.Position, seen.ReceivedAt, first
	g.add(e)
}

// waits reports whether a report may still be on its way to ClickHouse. One that
// came while it was asked is left to the next evaluation.
func (g *gathering) waits(seen hub.Receipt) bool {
	return g.doubt || !g.oldest.IsZero() && !seen.ReceivedAt.Before(g.oldest)
}

// returned is a silent host that only the hub has heard again.
func (g *gathering) returned(previous hub.HostState) {
	if g.oldest.IsZero() && !g.doubt || !fellSilent(&previous) {
		return
	}
	seen, ok := g.s.o.LastSeen(previous.HostID)
	if ok && seen.ReceivedAt.After(previous.LastAt) && g.waits(seen) && lifecycle(g.s.fleet, previous.HostID) == hub.Active {
		g.spoke(Evidence{HostID: previous.HostID, Previous: &previous}, seen)
	}
}

// newcomer is a host, or a guest, whose first report is still on its way to ClickHouse.
func (g *gathering) newcomer(id string) {
	if seen, ok := g.s.o.LastSeen(id); ok && g.waits(seen) && lifecycle(g.s.fleet, id) == hub.Active {
		g.add(Evidence{HostID: id, Previous: g.s.memory.get(id), Last: seen.Position, LastAt: seen.ReceivedAt})
	}
}

// unmoved reports whether a host that is watched is as it was, by its newest
// report: most are, and cost no more than this.
func (g *gathering) unmoved(c clickhouse.Silence) bool {
	i, ok := g.s.memory.index[c.HostID]
	if !ok {
		return false
	}
	r := g.s.memory.rows[i]
	more := g.s.memory.more[i]
	h, _ := g.s.fleet.Host(hostOf(c.HostID))
	t := g.s.fleet.Thresholds(h, g.s.o.Base)
	switch {
	case lifecycles[r.lifecycle] != hub.Active && lifecycles[r.lifecycle] != "":
		return false
	case states[r.state] == hub.OK:
		return c.LastAt.After(g.cuts[t.StaleAfter])
	case states[r.state] == hub.NeverSeen || c.LastAt.UnixMilli() > r.lastAt || more.flapping != hub.Position{} || more.muted != "":
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
	seen, ok := g.s.o.LastSeen(e.HostID)
	if !ok || !e.older(seen) {
		return e
	}
	if previous.State != hub.OK {
		if e.FirstAfter, ok = g.s.o.FirstSeen(e.HostID, previous.LastAt); !ok || !g.waits(seen) {
			e.FirstAfter = time.Time{}
			return e
		}
	}
	e.Last, e.LastAt = seen.Position, seen.ReceivedAt
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
// silence: the newest one may have come later. Where that is in doubt, the host is
// left to a later evaluation.
func (s *Switch) addFirstReports(ctx context.Context, evidence []Evidence, doubt bool) ([]Evidence, error) {
	after := map[string]time.Time{}
	for i := range evidence {
		e := &evidence[i]
		p := e.Previous
		if p == nil || !fellSilent(p) || !e.LastAt.After(p.LastAt) || !e.FirstAfter.IsZero() {
			continue
		}
		var known bool
		if e.FirstAfter, known = s.o.FirstSeen(e.HostID, p.LastAt); !known {
			e.FirstAfter, after[e.HostID] = time.Time{}, p.LastAt
		}
	}
	if len(after) == 0 {
		return evidence, nil
	}
	if doubt {
		return slices.DeleteFunc(evidence, func(e Evidence) bool { _, ask := after[e.HostID]; return ask }), nil
	}
	first, err := s.o.Store.FirstReports(ctx, after)
	if err != nil {
		return nil, err
	}
	for i := range evidence {
		if at, ok := first[evidence[i].HostID]; ok {
			evidence[i].FirstAfter = at
		}
	}
	return evidence, nil
}

// knowledge counts the watched hosts, or controllers, of every group, and lists the
// silences that may be part of one that is beginning.
func (s *Switch) knowledge(guests bool) Knowledge {
	if s.survey.counted != s.memory.looked {
		s.survey.census, s.survey.counted = [2]Census{}, s.memory.looked
	}
	census := &s.survey.census[0]
	if guests {
		census = &s.survey.census[1]
	}
	if *census == nil {
		*census = s.count(guests)
	}
	k := Knowledge{Census: *census}
	for state := range s.memory.restless() {
		if h, ok := s.fleet.Host(hostOf(state.HostID)); ok && h.Lifecycle == hub.Active && isGuest(state.HostID) == guests {
			k.Recent = append(k.Recent, Told(&state, h.Customer, h.Labels["site"])...)
		}
	}
	return k
}

func (s *Switch) count(guests bool) Census {
	census := Census{}
	var customer, site string
	n := 0
	watched := func(h *hub.Host) {
		// Neighbours by name mostly are of one customer and site.
		if there := h.Labels["site"]; h.Customer != customer || there != site {
			census.Count(customer, site, n)
			customer, site, n = h.Customer, there, 0
		}
		n++
	}
	if guests {
		for i, id := range s.memory.hosts {
			if h, ok := s.fleet.Host(hostOf(id)); ok && isGuest(id) && h.Lifecycle == hub.Active && states[s.memory.rows[i].state] != hub.NeverSeen {
				watched(h)
			}
		}
	} else {
		for h := range s.fleet.Hosts() {
			if h.Lifecycle == hub.Active && s.memory.reported(h.ID) {
				watched(h)
			}
		}
	}
	census.Count(customer, site, n)
	return census
}
