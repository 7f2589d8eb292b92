package deadman

import (
	"context"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

const (
	described   = 1000            // alarms of one evaluation that say what was last seen; in more nobody reads it
	describing  = 5 * time.Second // for which verdicts wait for that at most
	sameInstant = 2 * time.Millisecond
)

// describe adds to alarms what was last seen of their hosts and guests. It is only for
// people: where ClickHouse does not tell, soon, alarms go without.
func (s *Switch) describe(ctx context.Context, alarms []*hub.Event) {
	if alarms = alarms[:min(len(alarms), described)]; len(alarms) == 0 || s.o.Describe == nil {
		return
	}
	hosts, guests := map[string]bool{}, map[string]bool{}
	for _, e := range alarms {
		hosts[e.HostID] = true
		if e.GuestID != "" {
			guests[e.GuestID] = true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, describing)
	defer cancel()
	sights, err := s.o.Describe(ctx, slices.Sorted(maps.Keys(hosts)), slices.Sorted(maps.Keys(guests)))
	if err != nil {
		s.o.Logger.Warn("alarms go without what was last seen of their hosts", "error", err)
		return
	}
	for _, e := range alarms {
		e.LastSeen = sightOf(e, sights)
	}
}

// sightOf returns what belongs to an alarm: of the customer that it is for, and of the
// report with which the silence began; of a guest, of the newest report of its host,
// since an older one may be of another customer's guest. Nil: nothing does.
func sightOf(e *hub.Event, sights map[string]clickhouse.Sight) *hub.LastSeen {
	host, ok := sights[e.HostID]
	if !ok || host.CustomerID != e.CustomerID {
		return nil
	}
	if e.GuestID != "" {
		if guest, ok := sights[e.GuestID]; ok && guest.At.Equal(host.At) {
			return &guest.LastSeen
		}
		return nil
	}
	last := e.At.Add(-time.Duration(e.SilenceSeconds * float64(time.Second)))
	if host.At.Sub(last).Abs() > sameInstant {
		return nil // ClickHouse does not have that report yet
	}
	return &host.LastSeen
}

// alarms returns the alarms of an outcome that are told by themselves.
func (o *Outcome) alarms() (alarms []*hub.Event) {
	for i := range o.Hosts {
		alarms = appendAlarms(alarms, o.Hosts[i].Events)
	}
	return alarms
}

func appendAlarms(alarms []*hub.Event, events []hub.Event) []*hub.Event {
	for i := range events {
		if e := &events[i]; alarming(e.Type) && !e.Muted() && e.FoldedInto == "" {
			alarms = append(alarms, e)
		}
	}
	return alarms
}

// alarming reports whether people want to know the last state of what an event is about.
func alarming(t hub.EventType) bool {
	switch t {
	case hub.HostStale, hub.HostDown, hub.ControllerStale, hub.ControllerDown:
		return true
	}
	return slices.ContainsFunc(hub.AllDeadlines(), func(d hub.Deadline) bool { return d.Overdue() == t })
}
