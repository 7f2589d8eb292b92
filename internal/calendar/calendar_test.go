package calendar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := Zone(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func recurring(t testing.TB, every, start, zoneName string, duration time.Duration) *Recurring {
	t.Helper()
	r, err := NewRecurring(Rule{Every: every, Start: start, Zone: zone(t, zoneName), Duration: duration})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOpeningsAcrossTheChangesOfTheClocks holds openings against dates written by
// hand.
func TestOpeningsAcrossTheChangesOfTheClocks(t *testing.T) {
	const berlin, newYork = "Europe/Berlin", "America/New_York"
	tests := map[string]struct {
		every, start, zone string
		duration           time.Duration
		from, to           string
		want               []string // UTC
	}{
		"the second Tuesday of a month": {"FREQ=MONTHLY;BYDAY=2TU", "2026-01-13T22:00:00", berlin, 4 * time.Hour, "2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z", []string{
			"2026-01-13T21:00:00Z 2026-01-14T01:00:00Z", "2026-02-10T21:00:00Z 2026-02-11T01:00:00Z", "2026-03-10T21:00:00Z 2026-03-11T01:00:00Z",
			"2026-04-14T20:00:00Z 2026-04-15T00:00:00Z", "2026-05-12T20:00:00Z 2026-05-13T00:00:00Z", "2026-06-09T20:00:00Z 2026-06-10T00:00:00Z",
			"2026-07-14T20:00:00Z 2026-07-15T00:00:00Z", "2026-08-11T20:00:00Z 2026-08-12T00:00:00Z", "2026-09-08T20:00:00Z 2026-09-09T00:00:00Z",
			"2026-10-13T20:00:00Z 2026-10-14T00:00:00Z", "2026-11-10T21:00:00Z 2026-11-11T01:00:00Z", "2026-12-08T21:00:00Z 2026-12-09T01:00:00Z"}},
		"Berlin in spring, before the hour that is skipped": {"FREQ=WEEKLY;BYDAY=SU", "2026-03-01T01:30:00", berlin, 2 * time.Hour, "2026-03-20T00:00:00Z", "2026-04-08T00:00:00Z", []string{
			"2026-03-22T00:30:00Z 2026-03-22T02:30:00Z", "2026-03-29T00:30:00Z 2026-03-29T02:30:00Z", "2026-04-04T23:30:00Z 2026-04-05T01:30:00Z"}},
		"Berlin in spring, in it": {"FREQ=WEEKLY;BYDAY=SU", "2026-03-01T02:30:00", berlin, time.Hour, "2026-03-20T00:00:00Z", "2026-04-08T00:00:00Z", []string{
			"2026-03-22T01:30:00Z 2026-03-22T02:30:00Z", "2026-03-29T01:30:00Z 2026-03-29T02:30:00Z", "2026-04-05T00:30:00Z 2026-04-05T01:30:00Z"}},
		"Berlin in autumn, before the hour that is doubled": {"FREQ=DAILY", "2026-10-01T01:30:00", berlin, 2 * time.Hour, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z", []string{
			"2026-10-24T23:30:00Z 2026-10-25T01:30:00Z", "2026-10-26T00:30:00Z 2026-10-26T02:30:00Z"}},
		"Berlin in autumn, in it: the first": {"FREQ=DAILY", "2026-10-01T02:30:00", berlin, time.Hour, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z", []string{
			"2026-10-25T00:30:00Z 2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z 2026-10-26T02:30:00Z"}},
		"New York in spring, in the hour that is skipped": {"FREQ=DAILY", "2026-03-01T02:15:00", newYork, time.Hour, "2026-03-07T00:00:00Z", "2026-03-09T12:00:00Z", []string{
			"2026-03-07T07:15:00Z 2026-03-07T08:15:00Z", "2026-03-08T07:15:00Z 2026-03-08T08:15:00Z", "2026-03-09T06:15:00Z 2026-03-09T07:15:00Z"}},
		"New York in autumn, in the hour that is doubled": {"FREQ=DAILY", "2026-10-01T01:15:00", newYork, time.Hour, "2026-10-31T00:00:00Z", "2026-11-02T12:00:00Z", []string{
			"2026-10-31T05:15:00Z 2026-10-31T06:15:00Z", "2026-11-01T05:15:00Z 2026-11-01T06:15:00Z", "2026-11-02T06:15:00Z 2026-11-02T07:15:00Z"}},
		"a whole day that has 23 hours": {"FREQ=WEEKLY;BYDAY=SA,SU", "2026-03-01T12:00:00", berlin, 24 * time.Hour, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z", []string{
			"2026-03-28T11:00:00Z 2026-03-29T11:00:00Z", "2026-03-29T10:00:00Z 2026-03-30T10:00:00Z"}},
		"half an hour of summer time": {"FREQ=DAILY", "2026-10-01T02:10:00", "Australia/Lord_Howe", time.Hour, "2026-10-02T12:00:00Z", "2026-10-04T18:00:00Z", []string{
			"2026-10-02T15:40:00Z 2026-10-02T16:40:00Z", "2026-10-03T15:40:00Z 2026-10-03T16:40:00Z", "2026-10-04T15:10:00Z 2026-10-04T16:10:00Z"}},
		"the last weekday of a month": {"FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2026-01-01T20:00:00", "UTC", time.Hour, "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z", []string{
			"2026-01-30T20:00:00Z 2026-01-30T21:00:00Z", "2026-02-27T20:00:00Z 2026-02-27T21:00:00Z", "2026-03-31T20:00:00Z 2026-03-31T21:00:00Z",
			"2026-04-30T20:00:00Z 2026-04-30T21:00:00Z", "2026-05-29T20:00:00Z 2026-05-29T21:00:00Z"}},
		"leap days": {"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "2026-01-01T00:00", "UTC", 24 * time.Hour, "2026-01-01T00:00:00Z", "2040-01-01T00:00:00Z", []string{
			"2028-02-29T00:00:00Z 2028-03-01T00:00:00Z", "2032-02-29T00:00:00Z 2032-03-01T00:00:00Z", "2036-02-29T00:00:00Z 2036-03-01T00:00:00Z"}},
		"COUNT": {"FREQ=DAILY;COUNT=2", "2026-01-01T22:00", "UTC", time.Hour, "2025-01-01T00:00:00Z", "2040-01-01T00:00:00Z", []string{
			"2026-01-01T22:00:00Z 2026-01-01T23:00:00Z", "2026-01-02T22:00:00Z 2026-01-02T23:00:00Z"}},
		"UNTIL is the last instant": {"FREQ=DAILY;UNTIL=20260102T210000Z", "2026-01-01T22:00", berlin, time.Hour, "2025-01-01T00:00:00Z", "2040-01-01T00:00:00Z", []string{
			"2026-01-01T21:00:00Z 2026-01-01T22:00:00Z", "2026-01-02T21:00:00Z 2026-01-02T22:00:00Z"}},
		"and no instant later": {"FREQ=DAILY;UNTIL=20260102T205959Z", "2026-01-01T22:00", berlin, time.Hour, "2025-01-01T00:00:00Z", "2040-01-01T00:00:00Z", []string{
			"2026-01-01T21:00:00Z 2026-01-01T22:00:00Z"}},
		"every other week": {"FREQ=WEEKLY;INTERVAL=2;BYDAY=MO", "2026-12-07T03:00", "UTC", time.Hour, "2026-12-01T00:00:00Z", "2027-01-10T00:00:00Z", []string{
			"2026-12-07T03:00:00Z 2026-12-07T04:00:00Z", "2026-12-21T03:00:00Z 2026-12-21T04:00:00Z", "2027-01-04T03:00:00Z 2027-01-04T04:00:00Z"}},
		"across a new year": {"FREQ=YEARLY", "2026-12-31T12:00", "UTC", 48 * time.Hour, "2027-01-01T11:00:00Z", "2027-01-01T11:30:00Z", []string{
			"2026-12-31T12:00:00Z 2027-01-02T12:00:00Z"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := recurring(t, test.every, test.start, test.zone, test.duration)
			var got []string
			for _, o := range r.Openings(at(t, test.from), at(t, test.to)) {
				got = append(got, o.From.Format(time.RFC3339)+" "+o.To.Format(time.RFC3339))
				for _, inside := range []time.Time{o.From, o.To.Add(-1)} {
					if from, to, open := r.At(inside); !open || inside.Before(from) || !inside.Before(to) {
						t.Errorf("At(%s) = %s, %s, %v", inside, from, to, open)
					}
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestOnce(t *testing.T) {
	from, to := at(t, "2026-12-01T22:00:00+01:00"), at(t, "2026-12-02T02:00:00+01:00")
	o, err := NewOnce(from, to)
	if err != nil {
		t.Fatal(err)
	}
	for moment, want := range map[time.Time]bool{from.Add(-1): false, from: true, to.Add(-1): true, to: false} {
		gotFrom, gotTo, open := o.At(moment)
		if open != want || open && (!gotFrom.Equal(from) || !gotTo.Equal(to)) {
			t.Errorf("At(%s) = %s, %s, %v", moment, gotFrom, gotTo, open)
		}
		if got := len(o.Openings(moment, moment.Add(1))); (got == 1) != want {
			t.Errorf("%d openings at %s", got, moment)
		}
	}
	for _, wrong := range []time.Time{from, from.Add(-time.Hour), from.Add(MaxDuration + 1)} {
		if _, err := NewOnce(from, wrong); !errors.As(err, new(*Mistake)) {
			t.Errorf("to %s: %v", wrong, err)
		}
	}
	if got := o.String(); got != "from 2026-12-01T21:00:00Z to 2026-12-02T01:00:00Z" {
		t.Error(got)
	}
}

func TestMistakes(t *testing.T) {
	good := Rule{Every: "FREQ=DAILY", Start: "2026-01-13T22:00:00", Zone: time.UTC, Duration: time.Hour}
	for want, change := range map[string]func(*Rule){
		`start: "2026-01-13" is no local time (as 2026-01-13T22:00:00; without an offset: the zone stands in timeZone)`:           func(r *Rule) { r.Start = "2026-01-13" },
		`start: "2026-01-13T22:00:00Z" is no local time (as 2026-01-13T22:00:00; without an offset: the zone stands in timeZone)`: func(r *Rule) { r.Start = "2026-01-13T22:00:00Z" },
		`start: the year 1999 (2000 to 2100)`:                                                                         func(r *Rule) { r.Start = "1999-12-31T22:00:00" },
		`duration: it is open for 59s (whole seconds, 1 minute to 31 days)`:                                           func(r *Rule) { r.Duration = 59 * time.Second },
		`duration: it is open for 744h0m1s (whole seconds, 1 minute to 31 days)`:                                      func(r *Rule) { r.Duration = MaxDuration + time.Second },
		`duration: it is open for 25h, and opens again after 1d (shorter than the time from one opening to the next)`: func(r *Rule) { r.Duration = 25 * time.Hour },
		`duration: it never closes (to let a host alone for good: state: paused)`:                                     func(r *Rule) { r.Duration = 24 * time.Hour },
	} {
		rule := good
		change(&rule)
		if _, err := NewRecurring(rule); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	for _, name := range []string{"", "Local", "Mars/Olympus", "../../etc/passwd"} {
		if _, err := Zone(name); !errors.As(err, new(*Mistake)) {
			t.Errorf("zone %q: %v", name, err)
		}
	}
}

func TestEnd(t *testing.T) {
	for every, want := range map[string]string{
		"FREQ=DAILY":                         "",
		"FREQ=DAILY;COUNT=3":                 "2026-03-29T02:00:00Z",
		"FREQ=DAILY;UNTIL=20260330T000000Z":  "2026-03-30T01:00:00Z",
		"FREQ=WEEKLY;UNTIL=20260330T000000Z": "2026-03-27T02:00:00Z",
	} {
		end, ok := recurring(t, every, "2026-03-27T01:00", "Europe/Berlin", 2*time.Hour).End()
		if got := end.Format(time.RFC3339); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s, %v", every, got, ok)
		}
	}
}

// someRule draws a rule that is taken, and what it says.
func someRule(t *rapid.T) (Rule, model) {
	m := model{
		freq:     rapid.SampledFrom([]string{"DAILY", "WEEKLY", "MONTHLY"}).Draw(t, "freq"),
		interval: rapid.IntRange(1, 3).Draw(t, "interval"),
		count:    rapid.SampledFrom([]int{0, 0, 1, 2, 9}).Draw(t, "count"),
		start: time.Date(2026, time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 31).Draw(t, "day"),
			rapid.SampledFrom([]int{0, 1, 2, 2, 2, 3, 12, 22, 23}).Draw(t, "hour"), rapid.SampledFrom([]int{0, 15, 30, 59}).Draw(t, "minute"), 0, 0, time.UTC),
	}
	every := fmt.Sprintf("FREQ=%s;INTERVAL=%d", m.freq, m.interval)
	switch rapid.IntRange(0, 3).Draw(t, "by") {
	case 1:
		m.weekdays = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"MO", "TU", "WE", "TH", "FR", "SA", "SU"}), 1, 3, rapid.ID[string]).Draw(t, "weekdays")
		if m.freq == "MONTHLY" {
			m.nth = rapid.SampledFrom([]int{0, 1, 2, 4, -1, -2}).Draw(t, "nth")
		}
		number := ""
		if m.nth != 0 {
			number = fmt.Sprint(m.nth)
		}
		every += ";BYDAY=" + number + strings.Join(m.weekdays, ","+number)
	case 2:
		if m.freq != "WEEKLY" {
			m.monthday = rapid.SampledFrom([]int{1, 15, 28, 29, 31, -1, -3}).Draw(t, "monthday")
			every += fmt.Sprintf(";BYMONTHDAY=%d", m.monthday)
		}
	}
	if m.count > 0 {
		every += fmt.Sprintf(";COUNT=%d", m.count)
	}
	var err error
	if m.zone, err = Zone(rapid.SampledFrom([]string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"}).Draw(t, "zone")); err != nil {
		t.Fatal(err)
	}
	m.duration = time.Duration(rapid.IntRange(1, 30*60).Draw(t, "minutes")) * time.Minute
	return Rule{Every: every, Start: m.start.Format("2006-01-02T15:04:05"), Zone: m.zone, Duration: m.duration}, m
}

// TestAtAgreesWithAClockThatIsReadMinuteByMinute steps through time and reads
// a clock on the wall of the zone: an opening begins where it first shows the
// time of day on a day of the rule.
func TestAtAgreesWithAClockThatIsReadMinuteByMinute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule, m := someRule(t)
		r, err := NewRecurring(rule)
		if err != nil {
			return // as an opening longer than a day
		}
		begin := m.begin()
		for _, b := range begin {
			for _, moment := range []time.Time{b.Add(-1), b, b.Add(rule.Duration - 1), b.Add(rule.Duration)} {
				wantFrom, want := opening(begin, rule.Duration, moment)
				from, to, open := r.At(moment)
				if open != want || open && (!from.Equal(wantFrom) || to.Sub(from) != rule.Duration) {
					t.Fatalf("%s: At(%s) = %s, %v; want %s, %v", r, moment, from, open, wantFrom, want)
				}
			}
		}
		var got []time.Time
		for _, o := range r.Openings(m.start.AddDate(0, 0, -2), m.end()) {
			if !o.From.Before(m.start.AddDate(0, 0, -2)) && o.From.Before(m.end()) {
				got = append(got, o.From)
			}
		}
		if !slices.EqualFunc(got, begin, time.Time.Equal) {
			t.Fatalf("%s: %s, want %s", r, got, begin)
		}
	})
}

func opening(begin []time.Time, duration time.Duration, t time.Time) (from time.Time, open bool) {
	for _, b := range begin {
		if !t.Before(b) && t.Before(b.Add(duration)) {
			from, open = b, true
		}
	}
	return from, open
}

// model is a rule as the reference understands it.
type model struct {
	freq            string
	interval, count int
	weekdays        []string
	nth, monthday   int
	start           time.Time // the wall's clock
	zone            *time.Location
	duration        time.Duration
}

func (m model) end() time.Time { return m.start.AddDate(0, 7, 0) }

// begin steps minute by minute. A skipped time of day is told by a step of the
// clock over it: the opening begins as much later as the clock was put forward.
func (m model) begin() (begin []time.Time) {
	seen := map[string]bool{}
	wall := func(t time.Time) time.Time {
		_, offset := t.In(m.zone).Zone()
		return t.Add(time.Duration(offset) * time.Second)
	}
	moment := m.start.AddDate(0, 0, -2)
	shown := wall(moment)
	for ; moment.Before(m.end()); moment = moment.Add(time.Minute) {
		now := wall(moment)
		if now.Sub(shown) == time.Minute && now.Minute() != m.start.Minute() {
			shown = now
			continue
		}
		due := time.Date(now.Year(), now.Month(), now.Day(), m.start.Hour(), m.start.Minute(), 0, 0, time.UTC)
		skipped := shown.Before(due) && now.After(due) && now.Sub(shown) > time.Minute
		if day := due.Format(time.DateOnly); (now.Equal(due) || skipped) && !seen[day] && !due.Before(m.start) && m.on(due) && (m.count == 0 || len(seen) < m.count) {
			seen[day] = true
			from := moment
			if skipped {
				from = moment.Add(due.Sub(shown) - time.Minute)
			}
			begin = append(begin, from)
		}
		shown = now
	}
	return begin
}

// on reports whether the rule names the day.
func (m model) on(day time.Time) bool {
	midnight := func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC) }
	monday := func(t time.Time) time.Time { return midnight(t).AddDate(0, 0, -(int(t.Weekday())+6)%7) }
	lastOfMonth := time.Date(day.Year(), day.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	periods := 0
	switch m.freq {
	case "DAILY":
		periods = int(midnight(day).Sub(midnight(m.start)).Hours()) / 24
	case "WEEKLY":
		periods = int(monday(day).Sub(monday(m.start)).Hours()) / (7 * 24)
	case "MONTHLY":
		periods = (day.Year()-m.start.Year())*12 + int(day.Month()-m.start.Month())
	}
	if periods%m.interval != 0 {
		return false
	}
	weekday := strings.ToUpper(day.Weekday().String()[:2])
	switch {
	case m.monthday > 0:
		return day.Day() == m.monthday
	case m.monthday < 0:
		return day.Day() == lastOfMonth+1+m.monthday
	case m.nth > 0:
		return slices.Contains(m.weekdays, weekday) && (day.Day()-1)/7+1 == m.nth
	case m.nth < 0:
		return slices.Contains(m.weekdays, weekday) && (lastOfMonth-day.Day())/7+1 == -m.nth
	case len(m.weekdays) > 0:
		return slices.Contains(m.weekdays, weekday)
	case m.freq == "WEEKLY":
		return day.Weekday() == m.start.Weekday()
	case m.freq == "MONTHLY":
		return day.Day() == m.start.Day()
	}
	return true
}

// TestAtFromManySides is for the race detector.
func TestAtFromManySides(t *testing.T) {
	r := recurring(t, "FREQ=DAILY", "2026-01-01T22:00", "Europe/Berlin", time.Hour)
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for year := range 20 {
				moment := time.Date(2026+(year+i)%3, 7, 1, 20, 30, 0, 0, time.UTC)
				if _, _, open := r.At(moment); !open {
					t.Errorf("shut at %s", moment)
				}
			}
		})
	}
	readers.Wait()
}

func BenchmarkAt(b *testing.B) {
	r := recurring(b, "FREQ=DAILY", "2020-01-01T22:00", "Europe/Berlin", time.Hour)
	moment := time.Date(2026, 7, 1, 20, 30, 0, 0, time.UTC)
	for b.Loop() {
		r.At(moment)
	}
}

// BenchmarkAtOfAnotherYear is the first call of a year, six years from the start.
func BenchmarkAtOfAnotherYear(b *testing.B) {
	r := recurring(b, "FREQ=DAILY", "2020-01-01T22:00", "Europe/Berlin", time.Hour)
	for b.Loop() {
		r.turnTo(2026)
	}
}

// FuzzRule: whatever is taken answers at once, and At agrees with Openings.
func FuzzRule(f *testing.F) {
	for _, every := range nasty {
		f.Add(every, "2026-01-13T22:00:00", "Europe/Berlin", int64(3600), int64(1_800_000_000))
	}
	f.Add("FREQ=MONTHLY;BYDAY=2TU", "2026-01-13T22:00:00", "America/New_York", int64(4*3600), int64(1_773_000_000))
	f.Add("FREQ=DAILY", "2011-12-01T10:00:00", "Pacific/Apia", int64(3600), int64(1_325_200_000))
	f.Fuzz(func(t *testing.T, every, start, zoneName string, seconds, unix int64) {
		z, err := Zone(zoneName)
		if err != nil {
			return
		}
		r, err := NewRecurring(Rule{Every: every, Start: start, Zone: z, Duration: time.Duration(seconds) * time.Second})
		if err != nil {
			if !errors.As(err, new(*Mistake)) {
				t.Fatal(err)
			}
			return
		}
		moment := time.Unix(unix%(1<<33), 0)
		from, to, open := r.At(moment)
		openings := r.Openings(moment, moment.Add(1))
		if open != (len(openings) > 0) {
			t.Fatalf("%s: At(%s) is %v, openings %v", r, moment, open, openings)
		}
		if open && (openings[len(openings)-1] != Opening{from, to} || moment.Before(from) || !moment.Before(to)) {
			t.Fatalf("%s: At(%s) = %s, %s, openings %v", r, moment, from, to, openings)
		}
		r.End()
	})
}
