package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/hub"
)

// deadlinesAbove returns what holds for a customer's hosts that name nothing
// themselves.
func (b *builder) deadlinesAbove(s *side, customer string) hub.Deadlines {
	return customerOf(s.customers[customer]).Deadlines.Or(fleetOf(s.fleet).Deadlines)
}

// deadlineReason is what makes changes of a deadline one: the same cause and values.
type deadlineReason struct {
	setBy, customer string
	deadline        hub.Deadline
	from, to        time.Duration
	paused          bool
}

// compareDeadlines finds the hosts for whose guests other deadlines hold.
func (b *builder) compareDeadlines() {
	groups := map[deadlineReason][]string{}
	b.eachPair(func(before, after *hub.Host) {
		if before.Lifecycle == hub.Retired || after.Lifecycle == hub.Retired {
			return
		}
		from, to := before.Deadlines.Or(b.deadlinesAbove(&b.base, before.Customer)), after.Deadlines.Or(b.deadlinesAbove(&b.head, after.Customer))
		for _, d := range hub.AllDeadlines() {
			r := deadlineReason{deadline: d, from: watched(from[d]), to: watched(to[d]), paused: after.Lifecycle == hub.Paused}
			if r.from != r.to {
				r.setBy, r.customer = b.deadlineCause(d, before, after)
				groups[r] = append(groups[r], after.ID)
			}
		}
	})
	for _, r := range slices.Collect(maps.Keys(groups)) {
		hosts := groups[r]
		slices.Sort(hosts)
		b.Deadlines = append(b.Deadlines, DeadlineChange{
			SetBy: r.setBy, Customer: r.customer, Hosts: hosts, Deadline: r.deadline.String(),
			From: deadlineText(r.from), To: deadlineText(r.to), Effect: deadlineEffect(r.from, r.to, r.paused),
		})
	}
	slices.SortFunc(b.Deadlines, func(x, y DeadlineChange) int {
		return cmp.Or(cmp.Compare(ownerRank(x.SetBy), ownerRank(y.SetBy)), cmp.Compare(x.SetBy, y.SetBy), cmp.Compare(x.Deadline, y.Deadline), cmp.Compare(x.Hosts[0], y.Hosts[0]))
	})
}

// watched is zero for a deadline that is not watched, for whatever reason.
func watched(d time.Duration) time.Duration {
	if d == hub.Unwatched {
		return 0
	}
	return d
}

// deadlineCause tells whose file changed a deadline: the nearest to the host.
func (b *builder) deadlineCause(d hub.Deadline, before, after *hub.Host) (owner, customer string) {
	from, to := b.base.customers[before.Customer], b.head.customers[after.Customer]
	switch {
	case before.Deadlines[d] != after.Deadlines[d] || before.Customer != after.Customer:
		return hub.HostOwner(after.ID).String(), after.Customer
	case customerOf(from).Deadlines[d] != customerOf(to).Deadlines[d]:
		return hub.CustomerOwner(after.Customer).String(), after.Customer
	default:
		return hub.FleetOwner().String(), ""
	}
}

func deadlineEffect(from, to time.Duration, paused bool) string {
	switch {
	case paused:
		return "paused: no alerts until it is active"
	case from == 0:
		return "watched from now on"
	case to == 0:
		return "no longer watched"
	case to < from:
		return fmt.Sprintf("overdue %s earlier", days(from-to))
	default:
		return fmt.Sprintf("overdue %s later", days(to-from))
	}
}

func deadlineText(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return days(d)
}

// days writes a duration as the files do, whole days as such.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return length(d)
}

var deadlineFields = map[hub.Deadline]string{hub.BackupDeadline: "backup", hub.RestoreTestDeadline: "restoreTest", hub.PBSVerifyDeadline: "pbsVerify"}

// deadlineSettings notes deadlines that a customer's file or fleet.yaml names
// otherwise.
func (b *builder) deadlineSettings(prefix string, before, after hub.Deadlines) {
	written := func(d time.Duration) string {
		switch d {
		case 0:
			return ""
		case hub.Unwatched:
			return "off"
		}
		return days(d)
	}
	for _, d := range hub.AllDeadlines() {
		b.setting(prefix+"deadlines."+deadlineFields[d], written(before[d]), written(after[d]))
	}
}

// nextOpenings is how many a WindowChange tells of, and within which time.
const (
	nextOpenings = 3
	nextWithin   = 400 * 24 * time.Hour
)

// compareWindows compares the maintenance windows of an owner.
func (b *builder) compareWindows(owner hub.Owner, before, after []hub.Window) {
	if len(before)+len(after) == 0 {
		return
	}
	old, now := windowsByName(before), windowsByName(after)
	for _, name := range union(old, now) {
		from, was := old[name]
		to, is := now[name]
		c := WindowChange{Owner: owner.String(), Window: name, From: windowText(from), To: windowText(to)}
		switch {
		case !was:
			c.Change = "added"
		case !is:
			c.Change = "removed"
		case c.From == c.To:
			continue
		default:
			c.Change = "changed"
		}
		c.Hosts, c.AtMost = b.reachOf(owner)
		c.Next = b.next(to)
		c.Effect = b.windowEffect(from, to)
		b.Windows = append(b.Windows, c)
	}
}

func windowsByName(list []hub.Window) map[string]hub.Window {
	byName := make(map[string]hub.Window, len(list))
	for _, w := range list {
		byName[w.Name] = w
	}
	return byName
}

func windowText(w hub.Window) string {
	switch {
	case w.Schedule == nil:
		return ""
	case w.Reason != "":
		return fmt.Sprintf("%s: %s", w.Schedule, w.Reason)
	}
	return fmt.Sprint(w.Schedule)
}

// reach is how many hosts of a customer are not retired; atMost where some of
// them were not looked into, and may be.
type reach struct {
	hosts  int
	atMost bool
}

// reachOf counts the hosts that a window of an owner holds for.
func (b *builder) reachOf(owner hub.Owner) (hosts int, atMost bool) {
	if owner.Kind == hub.OwnerHost {
		return 1, false
	}
	if b.reached == nil {
		b.reached = b.countHosts()
	}
	for customer, r := range b.reached {
		if owner.Kind == hub.OwnerFleet || customer == owner.Name {
			hosts, atMost = hosts+r.hosts, atMost || r.atMost
		}
	}
	return hosts, atMost
}

func (b *builder) countHosts() map[string]reach {
	reached := map[string]reach{}
	for _, u := range b.unread {
		f := b.more[u.name]
		if f == nil || f.Host == nil || f.Host.Lifecycle != hub.Retired {
			r := reached[u.customer]
			reached[u.customer] = reach{r.hosts + 1, r.atMost || f == nil}
		}
	}
	for _, f := range b.head.hosts {
		if f.Host != nil && f.Host.Lifecycle != hub.Retired {
			r := reached[f.Host.Customer]
			reached[f.Host.Customer] = reach{r.hosts + 1, r.atMost}
		}
	}
	return reached
}

// next returns when a window opens, the one that is open included, in its own zone.
func (b *builder) next(w hub.Window) []time.Time {
	schedule, ok := w.Schedule.(calendar.Schedule)
	if !ok {
		return nil
	}
	var next []time.Time
	for _, o := range schedule.Openings(b.now, b.now.Add(nextWithin)) {
		if next = append(next, o.From.In(schedule.Zone())); len(next) == nextOpenings {
			break
		}
	}
	return next
}

// windowEffect says what happens at the time of the merge.
func (b *builder) windowEffect(before, after hub.Window) string {
	openAt := func(w hub.Window) (until time.Time, open bool) {
		if w.Schedule == nil {
			return time.Time{}, false
		}
		_, until, open = w.Schedule.At(b.now)
		return until, open
	}
	until, isOpen := openAt(after)
	switch _, wasOpen := openAt(before); {
	case isOpen && !wasOpen:
		return "open at once, until " + instant(until, "")
	case wasOpen && !isOpen:
		return "shut at once: what is wrong is told"
	case after.Schedule != nil && len(b.next(after)) == 0:
		return "does not open within 400 days"
	}
	return ""
}

// compareEvents compares what controllers may send.
func (b *builder) compareEvents(before, after hub.FleetSpec) {
	list := func(s hub.FleetSpec) map[string]bool {
		types := s.ControllerEvents
		if types == nil {
			types = hub.DefaultControllerEvents()
		}
		set := make(map[string]bool, len(types))
		for _, t := range types {
			set[string(t)] = true
		}
		return set
	}
	if b.base.fleet == nil {
		return // all is new
	}
	old, now := list(before), list(after)
	for _, t := range union(old, now) {
		switch {
		case !old[t]:
			b.Events = append(b.Events, EventChange{t, "taken"})
		case !now[t]:
			b.Events = append(b.Events, EventChange{t, "refused"})
		}
	}
}
