package message

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Counted is one event that a digest only counts.
type Counted struct {
	Type     hub.EventType
	Severity string // of hub.Event.Severity
	HostID   string // empty: it is about no host
	Host     string // its display name; may be empty
}

// DigestInput is what a digest is made of: the message in place of many that a
// customer's bound on messages holds back.
type DigestInput struct {
	CustomerID, Customer string // empty: the operators'
	From, To             time.Time
	Events               []Counted
	Reader               Reader
}

// The longest digest: so many types with so many hosts each.
const (
	maxDigestTypes = 12
	maxDigestHosts = 8
)

// Digest finds the words for many events at once: "and N more", by type, the
// gravest first, and host. However many there are, it is bounded in length.
func Digest(in DigestInput) Text {
	w := writerFor(Input{Event: hub.Event{CustomerID: in.CustomerID}, Names: Names{Customer: in.Customer}, Reader: in.Reader})
	l := w.lang
	n := len(in.Events)
	lead := fmt.Sprintf(l.digestLead, l.date(in.From.In(w.zone)), l.date(in.To.In(w.zone)), l.more(n))
	t := Text{Subject: w.subject(l.more(n)), Lead: own(lead)}
	groups := groupByType(in.Events)
	for _, g := range groups[:min(len(groups), maxDigestTypes)] {
		t.Facts = append(t.Facts, g.fact(l))
	}
	if len(groups) > maxDigestTypes {
		rest := 0
		for _, g := range groups[maxDigestTypes:] {
			rest += g.count
		}
		t.Facts = append(t.Facts, Fact{l.digestRest, own(fmt.Sprint(rest))})
	}
	t.Facts = append(t.Facts, Fact{l.next, own(l.digestNext)})
	return t
}

// group is the events of one type and severity.
type group struct {
	kind     hub.EventType
	severity string
	count    int
	hosts    map[string]*hostCount
}

type hostCount struct {
	name  string
	count int
}

func groupByType(events []Counted) []*group {
	type key struct {
		kind     hub.EventType
		severity string
	}
	byKey := map[key]*group{}
	var groups []*group
	for _, e := range events {
		k := key{e.Type, e.Severity}
		g := byKey[k]
		if g == nil {
			g = &group{kind: e.Type, severity: e.Severity, hosts: map[string]*hostCount{}}
			byKey[k], groups = g, append(groups, g)
		}
		g.count++
		if e.HostID == "" {
			continue
		}
		if g.hosts[e.HostID] == nil {
			g.hosts[e.HostID] = &hostCount{name: cmp.Or(clean(e.Host, maxName), clean(e.HostID, maxID))}
		}
		g.hosts[e.HostID].count++
	}
	rank := func(severity string) int { return slices.Index([]string{"info", "warning", "critical"}, severity) }
	slices.SortFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(rank(b.severity), rank(a.severity)), cmp.Compare(b.count, a.count), cmp.Compare(a.kind, b.kind))
	})
	return groups
}

func (g *group) fact(l *language) Fact {
	value := []Span{{Text: fmt.Sprintf("%d × ", g.count)}}
	if title := l.title(g.kind); title != "" {
		value = append(value, Span{Text: title})
	} else {
		value = append(value, Span{clean(string(g.kind), maxName), true})
	}
	if len(g.hosts) > 0 {
		value = append(value, Span{Text: ": "})
		value = append(value, g.names(l)...)
	}
	severity := l.severityName(g.severity)
	return Fact{strings.ToUpper(severity[:1]) + severity[1:], value}
}

// names lists the hosts with the most events first.
func (g *group) names(l *language) []Span {
	hosts := make([]*hostCount, 0, len(g.hosts))
	for _, h := range g.hosts {
		hosts = append(hosts, h)
	}
	slices.SortFunc(hosts, func(a, b *hostCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.name, b.name))
	})
	var spans []Span
	for i, h := range hosts[:min(len(hosts), maxDigestHosts)] {
		if i > 0 {
			spans = append(spans, Span{Text: ", "})
		}
		spans = append(spans, Span{h.name, true})
		if h.count > 1 {
			spans = append(spans, Span{Text: fmt.Sprintf(" (%d)", h.count)})
		}
	}
	if rest := len(hosts) - maxDigestHosts; rest > 0 {
		spans = append(spans, Span{Text: fmt.Sprintf(l.andMore, rest)})
	}
	return spans
}
