package fleetfile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// Deadlines holds the longest times from one success to the next.
type Deadlines struct {
	Backup      Deadline `yaml:"backup,omitempty" pattern:"^(off|([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*)$" doc:"From one backup of a guest to the next: 26h. off: not watched."`
	RestoreTest Deadline `yaml:"restoreTest,omitempty" pattern:"^(off|([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*)$" doc:"From one restore test of a guest that succeeded to the next: 35d. off: not watched."`
	PBSVerify   Deadline `yaml:"pbsVerify,omitempty" pattern:"^(off|([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*)$" doc:"From one verified snapshot of a guest on a Proxmox Backup Server to the next: 8d. off: not watched."`
}

// Deadline is a duration or off; left out it is as above.
type Deadline time.Duration

const off = "off"

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Deadline) UnmarshalText(text []byte) error {
	if string(text) == off {
		*d = Deadline(hub.Unwatched)
		return nil
	}
	length, err := yamlfile.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%w; off: not watched", err)
	}
	*d = Deadline(length)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Deadline) MarshalText() ([]byte, error) {
	if time.Duration(d) == hub.Unwatched {
		return []byte(off), nil
	}
	return []byte(time.Duration(d).String()), nil
}

const (
	minDeadline = time.Hour
	maxDeadline = 400 * 24 * time.Hour
)

func (r *reader) deadlines(d *Deadlines) (out hub.Deadlines) {
	if d == nil {
		return out
	}
	defer r.mark("deadline", len(r.problems))
	for _, field := range []struct {
		name  string
		what  hub.Deadline
		value Deadline
	}{{"backup", hub.BackupDeadline, d.Backup}, {"restoreTest", hub.RestoreTestDeadline, d.RestoreTest}, {"pbsVerify", hub.PBSVerifyDeadline, d.PBSVerify}} {
		length, path := time.Duration(field.value), "spec.deadlines."+field.name
		switch {
		case length == hub.Unwatched || !r.doc.Has(path) || r.reported(path):
		case length == 0:
			r.report(path, path+" is 0, which says nothing", "off: not watched; left out: as above")
		case length < minDeadline || length > maxDeadline:
			r.report(path, fmt.Sprintf("%s is %s", path, length), "1h to 400d")
		}
		out[field.what] = length
	}
	return out
}

// Window is a time in which nobody wants to be told: once (from, to), or again
// and again (every, start, timeZone, duration).
type Window struct {
	Name     string        `yaml:"name" required:"true" pattern:"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" doc:"Unique among the windows of this file; events that it swallowed name it."`
	Reason   string        `yaml:"reason,omitempty" doc:"Why, in one line of at most 256 characters."`
	From     *time.Time    `yaml:"from,omitempty" doc:"Of a window that opens once: when it opens, with the offset: 2026-12-01T22:00:00+01:00."`
	To       *time.Time    `yaml:"to,omitempty" doc:"And when it closes: at most 31 days later."`
	Every    string        `yaml:"every,omitempty" doc:"Of a window that opens again and again: an RRULE of RFC 5545, FREQ=DAILY or longer: FREQ=MONTHLY;BYDAY=2TU. hub fleet windows shows what it means."`
	Start    string        `yaml:"start,omitempty" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$" doc:"The first day on which it may open and the time of day at which it does, as a clock in timeZone shows it: 2026-01-13T22:00:00. In the night in which clocks skip that time it opens as much later, where they show it twice it opens the first time."`
	TimeZone string        `yaml:"timeZone,omitempty" doc:"The zone of start, by its IANA name: Europe/Berlin."`
	Duration time.Duration `yaml:"duration,omitempty" doc:"How long it stays open, whatever the clocks do: 4h. At most 31d, and at most until it opens again."`
}

const maxWindows = 32

// readWindows reads the maintenance windows of a file.
func (r *reader) readWindows(owner hub.Owner, windows []Window) []hub.Window {
	defer r.mark("window", len(r.problems))
	if len(windows) > maxWindows {
		r.report("spec.maintenance", fmt.Sprintf("%d maintenance windows; at most %d", len(windows), maxWindows), "")
		return nil
	}
	var out []hub.Window
	first := make(map[string]int, len(windows))
	for i, w := range windows {
		at := fmt.Sprintf("spec.maintenance[%d]", i)
		if w.Name != "" && !hub.ValidCustomerName(w.Name) {
			r.report(at+".name", fmt.Sprintf("%q is no name of a window", w.Name), nameRule)
		}
		if j, twice := first[w.Name]; twice && w.Name != "" {
			r.report(at+".name", fmt.Sprintf("window %q stands twice", w.Name),
				fmt.Sprintf("first in line %d", r.doc.Position(fmt.Sprintf("spec.maintenance[%d].name", j)).Line))
			r.mark("duplicate", len(r.problems)-1)
		}
		first[w.Name] = i
		r.checkText(at+".reason", w.Reason)
		if schedule := r.schedule(at, w); schedule != nil {
			out = append(out, hub.Window{Name: w.Name, Reason: w.Reason, Owner: owner, Schedule: schedule})
		}
	}
	return out
}

// schedule makes the schedule of a window, or says why it cannot.
func (r *reader) schedule(at string, w Window) hub.Schedule {
	const hint = "from and to for once; every, start, timeZone and duration for again and again"
	once := r.doc.Has(at+".from") || r.doc.Has(at+".to")
	for _, field := range []struct {
		name string
		once bool
	}{{"from", true}, {"to", true}, {"every", false}, {"start", false}, {"timeZone", false}, {"duration", false}} {
		path := at + "." + field.name
		switch given := r.doc.Has(path); {
		case given && r.reported(path):
			return nil
		case given && field.once != once:
			r.report(path, path+" does not go with from and to", hint)
			return nil
		case !given && field.once == once:
			if !r.reported(at) { // it is none at all
				r.report(path, path+" is missing", hint)
			}
			return nil
		}
	}
	schedule, err := r.schedules.of(w)
	if mistake := (*calendar.Mistake)(nil); errors.As(err, &mistake) {
		r.report(at+"."+mistake.Field, fmt.Sprintf("%s.%s: %s", at, mistake.Field, mistake.Message), mistake.Hint)
		return nil
	}
	return schedule
}

// reported reports whether a problem with the value at path is known already.
func (r *reader) reported(path string) bool {
	place := r.doc.Position(path)
	return slices.ContainsFunc(r.problems, func(p hub.Problem) bool { return p.Line == place.Line && p.Column == place.Column })
}

// schedules shares equal schedules between files: 100,000 hosts have windows by a
// few rules, and each remembers the openings of a year.
type schedules struct {
	mu    sync.Mutex
	known map[scheduleText]calendar.Schedule
	zones map[string]*time.Location
}

// scheduleText is what a schedule is made of.
type scheduleText struct {
	once                   bool
	from, to               time.Time
	every, start, timeZone string
	duration               time.Duration
}

const maxSchedules = 10_000

// of returns the schedule of a window that has from and to, or every; the error
// is a *calendar.Mistake.
func (s *schedules) of(w Window) (calendar.Schedule, error) {
	key := scheduleText{every: w.Every, start: w.Start, timeZone: w.TimeZone, duration: w.Duration}
	if w.From != nil {
		key.once, key.from, key.to = true, *w.From, *w.To
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.known[key]; ok {
		return known, nil
	}
	if s.known == nil || len(s.known) >= maxSchedules {
		s.known = map[scheduleText]calendar.Schedule{}
	}
	made, err := s.make(key)
	if err != nil {
		return nil, err
	}
	s.known[key] = made
	return made, nil
}

func (s *schedules) make(key scheduleText) (calendar.Schedule, error) {
	if key.once {
		return calendar.NewOnce(key.from, key.to)
	}
	zone, err := s.zoneOf(key.timeZone)
	if err != nil {
		return nil, err
	}
	return calendar.NewRecurring(calendar.Rule{Every: key.every, Start: key.start, Zone: zone, Duration: key.duration})
}

// zone returns the zone of this name; the error is a *calendar.Mistake.
func (s *schedules) zone(name string) (*time.Location, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zoneOf(name)
}

func (s *schedules) zoneOf(name string) (*time.Location, error) {
	zone, known := s.zones[name]
	if !known {
		var err error
		if zone, err = calendar.Zone(name); err != nil {
			return nil, err
		}
		if s.zones == nil {
			s.zones = map[string]*time.Location{}
		}
		s.zones[name] = zone
	}
	return zone, nil
}

const maxControllerEvents = 256

var eventType = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// readControllerEvents reads the list of what controllers may send; nil where
// there is none.
func (r *reader) readControllerEvents(names []string) []hub.EventType {
	const list = "spec.controllerEvents"
	if names == nil {
		return nil
	}
	if len(names) > maxControllerEvents {
		r.report(list, fmt.Sprintf("%d types of events; at most %d", len(names), maxControllerEvents), "")
		return nil
	}
	types := make([]hub.EventType, 0, len(names))
	for i, name := range names {
		at, t := fmt.Sprintf("%s[%d]", list, i), hub.EventType(name)
		switch {
		case name == "": // empty items are reported
		case !eventType.MatchString(name):
			r.report(at, fmt.Sprintf("%q is no type of an event", name), "lowercase letters, digits and underscores; at most 64, a letter first")
		case hub.OwnEvent(t):
			r.report(at, fmt.Sprintf("%s is the hub's own: nobody may send it", name), "take it away")
		case slices.Contains(types, t):
			r.report(at, fmt.Sprintf("%s stands twice", name), "")
			r.mark("duplicate", len(r.problems)-1)
		}
		types = append(types, t)
	}
	return types
}
