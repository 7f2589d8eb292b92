package app_test

import (
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// expected is what the events should be, by a rule of the test's own: it knows
// when the hub looked and which reports it took, walks from beat to beat, and
// shares nothing with the switch. Masses are not its business: the tests name
// them.
type expected struct {
	looked   int64          // beat of the last look
	dark     map[int64]bool // beats in which the hub could not have taken a report
	subjects []*subject
	told     []told
	deaf     bool // the silence of the whole fleet is first taken for the hub's own: none is told
}

// subject is a host as the rule knows it.
type subject struct {
	id      string
	reports []int64   // beats in which one was taken
	state   hub.State // empty: never looked at
	episode int       // the report before the silence that goes on
	quiet   bool      // nobody was told of it
}

// told is an event about a host.
type told struct {
	host   string
	kind   hub.EventType
	report int   // the one before the silence
	at     int64 // beat
}

// The lengths of the design page, in beats.
const (
	stale = int64(30 * time.Minute / beat)
	down  = int64(60 * time.Minute / beat)
	grace = int64(20 * time.Minute / beat)
	long  = int64(5 * time.Minute / beat)
)

func beatOf(t time.Time) int64     { return t.Unix() / int64(beat/time.Second) }
func timeOf(beats int64) time.Time { return time.Unix(beats*int64(beat/time.Second), 0).UTC() }

func (x *expected) look(t time.Time) {
	now := beatOf(t)
	if x.looked != 0 && now-x.looked > 1 {
		for b := x.looked; b < now; b++ {
			x.dark[b] = true
		}
	}
	x.looked = now
}

// ready counts the beats from a to b in which the hub could have taken a report.
func (x *expected) ready(a, b int64) (n int64) {
	for ; a < b; a++ {
		if !x.dark[a] {
			n++
		}
	}
	return n
}

// holds reports whether a silence since a report is as long as d at t, and no
// grace goes on.
func (x *expected) holds(report, t, d int64) bool {
	if x.ready(report, t) < d {
		return false
	}
	outages := 0
	for from := report; from < t && outages < 2; from++ {
		to := from
		for to < t && x.dark[to] {
			to++
		}
		if to-from > long {
			outages++
			if outages == 2 || !x.outageIn(to, t) {
				return x.ready(to, t) >= grace
			}
		}
		from = max(from, to)
	}
	return true
}

// outageIn reports whether there is a long blind time from a to b.
func (x *expected) outageIn(a, b int64) bool {
	for n := int64(0); a < b; a++ {
		if n++; !x.dark[a] {
			n = 0
		}
		if n > long {
			return true
		}
	}
	return false
}

// judge is an evaluation at t.
func (x *expected) judge(t time.Time) {
	now := beatOf(t)
	for _, s := range x.subjects {
		newest := len(s.reports) - 1
		if newest < 0 {
			continue
		}
		first := s.state == ""
		if s.state != hub.OK && !first && newest > s.episode {
			if !s.quiet {
				x.told = append(x.told, told{s.id, hub.HostRecovered, s.episode, s.reports[s.episode+1]})
			}
			s.state, s.quiet = hub.OK, false
		}
		if first {
			s.state, s.quiet = hub.OK, true
		}
		for _, level := range []struct {
			state  hub.State
			kind   hub.EventType
			length int64
			from   []hub.State
		}{{hub.Down, hub.HostDown, down, []hub.State{hub.OK, hub.Stale}}, {hub.Stale, hub.HostStale, stale, []hub.State{hub.OK}}} {
			if x.deaf || !slices.Contains(level.from, s.state) || !x.holds(s.reports[newest], now, level.length) {
				continue
			}
			s.state, s.episode = level.state, newest
			if !first {
				s.quiet = false
				x.told = append(x.told, told{s.id, level.kind, newest, x.since(s.reports[newest], level.length)})
			}
		}
	}
}

// since is the first beat at which a silence was as long as d.
func (x *expected) since(report, d int64) int64 {
	for t := report; ; t++ {
		if x.holds(report, t, d) {
			return t
		}
	}
}

// words are the events of each host in short, as "stale down recovered".
func (x *expected) words() map[string]string {
	words := map[string]string{}
	for _, e := range x.told {
		words[e.host] = strings.TrimSpace(words[e.host] + " " + strings.TrimPrefix(string(e.kind), "host_"))
	}
	return words
}
