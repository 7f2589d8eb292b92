package calendar

import (
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/teambition/rrule-go"
)

// A start lies between these years, and no rule is followed for more than
// horizon years from its start.
const (
	firstYear, lastYear = 2000, 2100
	horizon             = 200
)

// The library looks for a rule's next day until the year 9999, which takes it
// seconds where there is none (30 February). The calendar is the same every 400
// years, weekdays included: it is let count in the last of them before 9999.
const (
	shiftYears   = 19 * 400
	shiftSeconds = 19 * 146_097 * 24 * 60 * 60
)

// Rule says when a window opens again and again.
type Rule struct {
	Every    string         // RRULE of RFC 5545, by the day or longer: FREQ=MONTHLY;BYDAY=2TU
	Start    string         // local: the first day on which it may open, and the time of day
	Zone     *time.Location // of Start
	Duration time.Duration  // for which it stays open
}

// Recurring is the schedule of a Rule. It is safe for concurrent use.
type Recurring struct {
	rule     Rule
	walls    rrule.RRule // counts in the clock on the wall, shifted
	start    int64       // on the wall
	first    int64       // the instant of start: nothing is before it
	until    int64       // instant after which it does not open; 0: none
	lastYear int         // after which the rule is not followed
	page     atomic.Pointer[page]
}

// page holds when the openings begin that are of interest in one year: Unix
// time, rising.
type page struct {
	year  int
	begin []int64
}

// NewRecurring makes the schedule of a rule. It refuses one whose openings
// overlap, one that never closes, and one that does not open within ten years of
// its start. Every error is a *Mistake.
func NewRecurring(rule Rule) (*Recurring, error) {
	option, err := parseRule(rule.Every)
	if err != nil {
		return nil, err
	}
	r := &Recurring{rule: rule}
	if r.start, err = parseStart(rule.Start); err != nil {
		return nil, err
	}
	if rule.Duration < time.Minute || rule.Duration > MaxDuration || rule.Duration%time.Second != 0 {
		return nil, mistake("duration", fmt.Sprintf("it is open for %s", short(rule.Duration)), "whole seconds, 1 minute to 31 days")
	}
	if !option.Until.IsZero() {
		r.until = option.Until.Unix()
	}
	r.first = instant(r.start, rule.Zone)
	start := time.Unix(r.start, 0).UTC()
	r.lastYear = start.Year() + horizon
	option.Dtstart = start.AddDate(shiftYears, 0, 0)
	option.Until = option.Dtstart.AddDate(horizon, 0, 0)
	walls, err := rrule.NewRRule(*option)
	if err != nil {
		return nil, mistake("every", err.Error(), "")
	}
	r.walls = *walls
	return r, r.checkDistances()
}

// checkDistances looks at the first openings: a later one is no nearer to the
// next, but for a rule so odd that At's choice of the later one is good enough.
func (r *Recurring) checkDistances() error {
	const looked = 64
	const never = 10 * 366 * 24 * 60 * 60
	last, n, closes := int64(0), 0, false
	for wall := range r.onTheWall() {
		if n == 0 && wall-r.start > never || r.until != 0 && instant(wall, r.rule.Zone) > r.until {
			break
		}
		if n > 0 {
			distance := time.Duration(wall-last) * time.Second
			if distance < r.rule.Duration {
				return mistake("duration", fmt.Sprintf("it is open for %s, and opens again after %s", short(r.rule.Duration), short(distance)),
					"shorter than the time from one opening to the next")
			}
			closes = closes || distance > r.rule.Duration
		}
		last = wall
		if n++; n == looked {
			break
		}
	}
	switch {
	case n == 0:
		return mistake("every", "it does not open within ten years of its start", "is there such a day?")
	case n == looked && !closes:
		return mistake("duration", "it never closes", "to let a host alone for good: state: paused")
	}
	return nil
}

// onTheWall yields the times of the clock on the wall at which the rule has an
// opening, rising. A zone's summer time and UNTIL are not looked at.
func (r *Recurring) onTheWall() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		walls := r.walls // an iterator writes to its rule
		next := walls.Iterator()
		for wall, ok := next(); ok && yield(wall.Unix()-shiftSeconds); wall, ok = next() {
		}
	}
}

// begin returns the beginnings of the openings that begin in from ≤ t < to.
func (r *Recurring) begin(from, to int64) []int64 {
	const farthest = 2 * 24 * 60 * 60 // of the wall's clock from UTC, and more
	var begin []int64
	for wall := range r.onTheWall() {
		if wall < from-farthest {
			continue
		}
		if wall >= to+farthest {
			break
		}
		at := instant(wall, r.rule.Zone)
		if r.until != 0 && at > r.until {
			break
		}
		if from <= at && at < to {
			begin = append(begin, at)
		}
	}
	return begin
}

// At implements hub.Schedule. Of two openings that overlap, which the hour that
// is skipped in spring may make of two that touch, it is the later one. Calls for
// times of one year are cheap, the first of a year costs a walk from the rule's
// start.
func (r *Recurring) At(t time.Time) (from, to time.Time, open bool) {
	year := t.UTC().Year()
	if t.Unix() < r.first || year > r.lastYear {
		return time.Time{}, time.Time{}, false
	}
	p := r.page.Load()
	if p == nil || p.year != year {
		p = r.turnTo(year)
		r.page.Store(p)
	}
	i, found := slices.BinarySearch(p.begin, t.Unix())
	if !found {
		i--
	}
	if i < 0 {
		return time.Time{}, time.Time{}, false
	}
	o := r.opening(p.begin[i])
	if !t.Before(o.To) {
		return time.Time{}, time.Time{}, false
	}
	return o.From, o.To, true
}

func (r *Recurring) turnTo(year int) *page {
	newYear := func(year int) int64 { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Unix() }
	open := int64(MaxDuration / time.Second)
	return &page{year: year, begin: r.begin(newYear(year)-open, newYear(year+1))}
}

func (r *Recurring) opening(begin int64) Opening {
	from := time.Unix(begin, 0).UTC()
	return Opening{From: from, To: from.Add(r.rule.Duration)}
}

// Openings implements Schedule.
func (r *Recurring) Openings(from, to time.Time) []Opening {
	var openings []Opening
	for _, begin := range r.begin(from.Add(-r.rule.Duration).Unix(), to.Unix()+1) {
		if o := r.opening(begin); o.From.Before(to) && from.Before(o.To) {
			openings = append(openings, o)
		}
	}
	return openings
}

// End implements Schedule.
func (r *Recurring) End() (time.Time, bool) {
	if r.until == 0 && r.walls.Options.Count == 0 {
		return time.Time{}, false
	}
	last := r.first
	for wall := range r.onTheWall() {
		at := instant(wall, r.rule.Zone)
		if r.until != 0 && at > r.until {
			break
		}
		last = at
	}
	return r.opening(last).To, true
}

// Zone implements Schedule.
func (r *Recurring) Zone() *time.Location { return r.rule.Zone }

// String returns "FREQ=MONTHLY;BYDAY=2TU from 2026-01-13T22:00:00 Europe/Berlin,
// for 4h".
func (r *Recurring) String() string {
	start := time.Unix(r.start, 0).UTC().Format("2006-01-02T15:04:05")
	return fmt.Sprintf("%s from %s %s, for %s", r.rule.Every, start, r.rule.Zone, short(r.rule.Duration))
}
