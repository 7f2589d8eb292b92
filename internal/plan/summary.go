package plan

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// summary says in one line of plain text what the head does, and whether the hub
// would do it.
func (p *Plan) summary() string {
	what := strings.Join(p.deeds(), ", ")
	if what != "" {
		first, size := utf8.DecodeRuneInString(what)
		what = string(unicode.ToUpper(first)) + what[size:] + "."
	}
	var verdict string
	switch p.Verdict {
	case Nothing:
		return "Changes nothing that the hub looks at."
	case Held:
		verdict = fmt.Sprintf("Held: removes %d of %s hosts; set guards.allowRemoval: %d in fleet.yaml to let it pass.", p.Guard.Removed, p.Guard.of(), p.Guard.Need)
	case Rejected:
		verdict = fmt.Sprintf("Rejected: %s in the structure, so nothing is applied.", count(len(p.Structural), "mistake", "mistakes"))
	}
	return strings.TrimSpace(verdict + " " + what)
}

func (g Guard) of() string {
	switch {
	case g.AtMost:
		return "at most " + strconv.Itoa(g.Enrolled)
	case g.AtLeast:
		return "at least " + strconv.Itoa(g.Enrolled)
	}
	return strconv.Itoa(g.Enrolled)
}

// deeds lists what the head does, with the number of each.
func (p *Plan) deeds() []string {
	var list []string
	say := func(verb string, n int, one, many string) {
		if n > 0 {
			list = append(list, verb+" "+count(n, one, many))
		}
	}
	hosts := map[string]int{}
	for _, h := range p.Hosts {
		hosts[h.Change]++
	}
	for _, w := range []struct{ change, verb string }{
		{"enrolled", "enrolls"}, {"removed", "removes"}, {"retired", "retires"}, {"reinstated", "reinstates"}, {"paused", "pauses"}, {"unpaused", "unpauses"},
		{"moved", "moves"}, {"renamed", "renames"}, {"recorded", "records as retired"}, {"forgotten", "forgets"}, {"repaired", "repairs the file of"},
	} {
		say(w.verb, hosts[w.change], "host", "hosts")
	}
	say("changes", hosts["labelled"], "label", "labels")
	customers := map[string]int{}
	for _, c := range p.Customers {
		customers[c.Change]++
	}
	for _, w := range []struct{ change, verb string }{{"added", "adds"}, {"removed", "removes"}, {"blocked", "blocks"}, {"unblocked", "unblocks"}, {"renamed", "renames"}} {
		say(w.verb, customers[w.change], "customer", "customers")
	}
	keys := map[string]int{}
	for _, k := range p.Keys {
		keys[k.Change]++
	}
	say("rotates", keys["rotated"], "key", "keys")
	say("adds", keys["added"], "key", "keys")
	say("removes", keys["removed"], "key", "keys")
	say("changes the end of", keys["ends"], "key", "keys")
	say("reseals", keys["resealed"], "key", "keys")
	if n := keys["expiring"]; n > 0 {
		list = append(list, "touches "+count(n, "key that expires", "keys that expire")+" within 14 days")
	}
	affected := 0
	for _, t := range p.Thresholds {
		affected += len(t.Hosts)
	}
	say("changes when", affected, "host alarms", "hosts alarm")
	late := map[string]bool{}
	for _, d := range p.Deadlines {
		for _, id := range d.Hosts {
			late[id] = true
		}
	}
	say("changes the deadlines of", len(late), "host", "hosts")
	say("changes", len(p.Windows), "maintenance window", "maintenance windows")
	say("changes whether controllers may send", len(p.Events), "type of event", "types of events")
	say("changes", len(p.Channels), "channel", "channels")
	say("changes", len(p.Settings), "setting", "settings")
	say("changes", len(p.Recipients), "recipient of seals", "recipients of seals")
	say("changes", len(p.Specs), "inert value", "inert values")
	kept, lost := map[string]bool{}, map[string]bool{}
	for _, m := range p.Mistakes {
		if m.Kept {
			kept[m.File] = true
		} else {
			lost[m.File] = true
		}
	}
	if n := len(kept); n > 0 {
		list = append(list, count(n, "host keeps its last good record since its file has mistakes", "hosts keep their last good records since their files have mistakes"))
	}
	if n := len(lost); n > 0 {
		list = append(list, count(n, "host is left out since its file has mistakes", "hosts are left out since their files have mistakes"))
	}
	return list
}

func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}
