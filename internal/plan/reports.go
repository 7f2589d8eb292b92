package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/clickhouse"
)

// Asked returns the hosts that the plan is about, and those of them that have a
// desired spec to be held against what they last reported; both sorted.
func (p *Plan) Asked() (hosts, bodies []string) {
	hosts = slices.Sorted(maps.Keys(p.desired))
	for _, id := range hosts {
		if len(p.desired[id].json) > 0 {
			bodies = append(bodies, id)
		}
	}
	return hosts, bodies
}

// AddReports adds what the hosts of the plan last reported, and what that makes
// of it: keys that go while they are in use, hosts that go and still report, and
// thresholds that are passed already. now is what ages count from.
func (p *Plan) AddReports(last map[string]clickhouse.LastReport, now time.Time) {
	for _, id := range slices.Sorted(maps.Keys(last)) {
		spec, asked := p.desired[id]
		if !asked {
			continue
		}
		r := last[id]
		p.Reports = append(p.Reports, Report{
			Host: id, Customer: spec.customer, LastAt: r.At.UTC(), AgeSeconds: now.Sub(r.At).Round(time.Second).Seconds(),
			KeyID: r.KeyID, State: r.State, Differs: differences(spec.json, r.Body),
		})
	}
	for _, k := range p.Keys {
		if r, ok := last[hostID(k.Owner)]; ok {
			p.warnOfKey(k, r, now)
		}
	}
	for _, h := range p.Hosts {
		r, ok := last[h.Host]
		if ok && (h.Change == "removed" || h.Change == "retired") && now.Sub(r.At) < 24*time.Hour {
			p.warn("host/"+h.Host, "is %s and reported %s ago: its reports will be refused", h.Change, ago(now, r.At))
		}
	}
	for i := range p.Thresholds {
		p.Thresholds[i].pass(last, now)
	}
	p.sortWarnings()
}

// warnOfKey warns of a key that ends and is the one in use.
func (p *Plan) warnOfKey(k KeyChange, r clickhouse.LastReport, now time.Time) {
	used := fmt.Sprintf("last reported %s ago with key %s", ago(now, r.At), r.KeyID)
	switch {
	case k.Change == "removed" && r.KeyID == k.Key, k.Change == "rotated" && r.KeyID == k.Old && k.OldEnds.IsZero():
		p.warn(k.Owner, "%s, which this removes: it will be refused (401)", used)
	case k.Change == "rotated" && r.KeyID == k.Old:
		p.warn(k.Owner, "%s, which ends %s: give its agent key %s before", used, instant(k.OldEnds, ""), k.Key)
	case (k.Change == "ends" || k.Change == "expiring") && r.KeyID == k.Key && !k.NotAfter.IsZero():
		p.warn(k.Owner, "%s, which ends %s", used, instant(k.NotAfter, ""))
	}
}

// pass notes the hosts that are silent for longer than the new thresholds, and
// not than the old ones.
func (t *ThresholdChange) pass(last map[string]clickhouse.LastReport, now time.Time) {
	if !t.watched {
		return
	}
	for _, id := range t.Hosts {
		r, ok := last[id]
		if !ok {
			continue
		}
		silence := now.Sub(r.At)
		switch {
		case t.after.DownAfter > 0 && silence >= t.after.DownAfter && silence < t.before.DownAfter:
			t.AtOnce = append(t.AtOnce, fmt.Sprintf("%s down (silent for %s)", id, ago(now, r.At)))
		case t.after.StaleAfter > 0 && silence >= t.after.StaleAfter && silence < t.before.StaleAfter:
			t.AtOnce = append(t.AtOnce, fmt.Sprintf("%s stale (silent for %s)", id, ago(now, r.At)))
		}
	}
}

func ago(now, at time.Time) string { return age(max(0, now.Sub(at).Seconds())) }
