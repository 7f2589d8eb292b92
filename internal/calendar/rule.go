package calendar

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/teambition/rrule-go"
)

// part is what is taken of one part of a recurrence rule. The library reads more
// and checks less: a number of a weekday that no month has is an index out of
// range to it.
type part struct {
	form *regexp.Regexp
	hint string
}

var parts = map[string]part{
	"FREQ":       {regexp.MustCompile(`^(DAILY|WEEKLY|MONTHLY|YEARLY)$`), "DAILY, WEEKLY, MONTHLY or YEARLY"},
	"INTERVAL":   {regexp.MustCompile(`^[1-9][0-9]{0,2}$`), "1 to 999"},
	"COUNT":      {regexp.MustCompile(`^[1-9][0-9]{0,2}$`), "1 to 999"},
	"UNTIL":      {regexp.MustCompile(`^20[0-9]{6}T[0-9]{6}Z$`), "in UTC, as 20271231T230000Z"},
	"BYDAY":      {list(`([+-]?[1-9][0-9]?)?(MO|TU|WE|TH|FR|SA|SU)`), "as MO,TH or, of a month, 2TU and -1FR"},
	"BYMONTHDAY": {list(`-?[1-9][0-9]?`), "as 1,15 or -1 for a month's last day"},
	"BYMONTH":    {list(`[1-9][0-2]?`), "1 to 12"},
	"BYSETPOS":   {list(`-?[1-9][0-9]{0,2}`), "as 1 or -1"},
	"WKST":       {regexp.MustCompile(`^(MO|TU|WE|TH|FR|SA|SU)$`), "MO to SU"},
}

func list(item string) *regexp.Regexp { return regexp.MustCompile(`^` + item + `(,` + item + `)*$`) }

const maxRule = 256

// parseRule reads an RRULE as far as windows have use for one: they open at most
// once a day, at the time of day that their start has.
func parseRule(text string) (*rrule.ROption, error) {
	wrong := func(message, hint string) error { return mistake("every", message, hint) }
	if len(text) > maxRule {
		return nil, wrong(fmt.Sprintf("a rule of %d characters", len(text)), fmt.Sprintf("at most %d", maxRule))
	}
	given := map[string]string{}
	for _, item := range strings.Split(text, ";") {
		name, value, _ := strings.Cut(item, "=")
		known, ok := parts[name]
		switch {
		case ok && !known.form.MatchString(value):
			return nil, wrong(fmt.Sprintf("%s=%s is not taken", name, value), known.hint)
		case ok && given[name] != "":
			return nil, wrong(name+" stands twice", "")
		case name == "BYHOUR" || name == "BYMINUTE" || name == "BYSECOND":
			return nil, wrong(name+" is not taken", "the time of day is that of start")
		case !ok:
			return nil, wrong(fmt.Sprintf("%q is no part of a rule that is taken", item),
				"as FREQ=MONTHLY;BYDAY=2TU; known here: FREQ, INTERVAL, COUNT, UNTIL, BYDAY, BYMONTHDAY, BYMONTH, BYSETPOS, WKST")
		}
		given[name] = value
	}
	if message, hint := disagree(given); message != "" {
		return nil, wrong(message, hint)
	}
	option, err := rrule.StrToROption(text)
	if err != nil {
		return nil, wrong(err.Error(), "")
	}
	for _, day := range option.Byweekday {
		if n := max(day.N(), -day.N()); n > 5 && (given["FREQ"] == "MONTHLY" || given["BYMONTH"] != "") {
			return nil, wrong(fmt.Sprintf("no month has a %d%s", day.N(), strings.TrimLeft(day.String(), "+-0123456789")), "-5 to 5")
		}
	}
	return option, nil
}

// disagree finds parts that RFC 5545 does not allow together, or of which the
// library makes something else.
func disagree(given map[string]string) (message, hint string) {
	freq := given["FREQ"]
	ofMonths := freq == "MONTHLY" || freq == "YEARLY"
	numbered := strings.ContainsAny(given["BYDAY"], "123456789")
	switch {
	case freq == "":
		return "FREQ is missing", "as FREQ=MONTHLY;BYDAY=2TU"
	case given["COUNT"] != "" && given["UNTIL"] != "":
		return "COUNT and UNTIL do not go together", "take one of them away"
	case numbered && !ofMonths:
		return "a number before a weekday needs FREQ=MONTHLY or YEARLY", "as FREQ=MONTHLY;BYDAY=2TU"
	case numbered && !allNumbered(given["BYDAY"]):
		return "weekdays with and without a number do not go together", "write two windows"
	case given["BYMONTHDAY"] != "" && freq == "WEEKLY":
		return "BYMONTHDAY does not go with FREQ=WEEKLY", "FREQ=MONTHLY"
	case given["BYSETPOS"] != "" && !ofMonths:
		return "BYSETPOS needs FREQ=MONTHLY or YEARLY", ""
	case given["BYSETPOS"] != "" && given["BYDAY"] == "" && given["BYMONTHDAY"] == "" && given["BYMONTH"] == "":
		return "BYSETPOS chooses among days, and the rule names none", "as FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"
	}
	return "", ""
}

func allNumbered(days string) bool {
	for _, day := range strings.Split(days, ",") {
		if len(day) == 2 {
			return false
		}
	}
	return true
}

// parseStart reads a time of the clock on the wall, as Unix time in UTC.
func parseStart(text string) (int64, error) {
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, text); err == nil && len(text) == len(layout) {
			if t.Year() < firstYear || t.Year() > lastYear {
				return 0, mistake("start", fmt.Sprintf("the year %d", t.Year()), fmt.Sprintf("%d to %d", firstYear, lastYear))
			}
			return t.Unix(), nil
		}
	}
	return 0, mistake("start", fmt.Sprintf("%q is no local time", text),
		"as 2026-01-13T22:00:00; without an offset: the zone stands in timeZone")
}
