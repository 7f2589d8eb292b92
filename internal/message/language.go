package message

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"time"

	"felhom.eu/hub/internal/hub"
)

// phrase is what is said of one type. {host}, {it} (the guest, or the host where
// there is none), {type}, {silence} and {hosts} stand for values; a
// part in [brackets] is left out where a value in it is not known.
type phrase struct {
	title   string // a few words, for lists
	subject string
	lead    string
	next    string // what to do
}

// language is all that is said in one language.
type language struct {
	phrases     map[hub.EventType]phrase
	controllers phrase                   // for what controllers say
	titles      map[hub.EventType]string // of the types that controllers send by default
	severities  map[string]string
	statuses    map[string]string // of guests, as Proxmox says them

	severity, customer, host, guest, hosts, alarm, since, when, before, again, lasted string
	lastReport, lastSuccess, seen, memory, disk, detail, next, dashboard, runbook     string
	digestLead, digestRest, digestNext, andMore                                       string
	testSubject, testLead                                                             string // {channel} stands for its name

	and     string       // between two units of time
	units   [4][3]string // day, hour, minute, second: one, several, several after "for"
	date    func(time.Time) string
	count   func(hosts int) string
	more    func(events int) string
	running func(running, all int) string
	percent func(float64) string
}

var languages = map[Language]*language{English: &english, German: &german}

func (l *language) phrase(t hub.EventType) phrase { return l.phrases[t] }

// title is what a type is called; empty: it is a controller's own.
func (l *language) title(t hub.EventType) string {
	return cmp.Or(l.phrases[t].title, l.titles[t])
}

func (l *language) severityName(severity string) string {
	return cmp.Or(l.severities[severity], l.severities["info"])
}

// duration says a length of time in its two largest units, rounded down. German
// needs to know whether it stands after "seit" or "nach".
func (l *language) duration(d time.Duration, dative bool) string {
	sizes := [...]time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}
	form := 1
	if dative {
		form = 2
	}
	say := func(i int, n time.Duration) string {
		if n == 1 {
			return "1 " + l.units[i][0]
		}
		return strconv.Itoa(int(n)) + " " + l.units[i][form]
	}
	for i, size := range sizes {
		n := d / size
		if n == 0 && i < len(sizes)-1 {
			continue
		}
		text := say(i, n)
		if i < 2 { // seconds beside minutes say nothing
			if more := d % size / sizes[i+1]; more > 0 {
				text += l.and + say(i+1, more)
			}
		}
		return text
	}
	return ""
}

// list is names, of all of which only some may be given.
func (l *language) list(names []string, all int) []Span {
	var spans []Span
	for i, name := range names {
		if i > 0 {
			spans = append(spans, Span{Text: ", "})
		}
		spans = append(spans, Span{name, true})
	}
	if rest := all - len(names); rest > 0 {
		spans = append(spans, Span{Text: fmt.Sprintf(l.andMore, rest)})
	}
	return spans
}

// zone is the abbreviation of t's zone; those that have none are given as an offset.
func zone(t time.Time) string {
	name, _ := t.Zone()
	if name != "" && (name[0] == '+' || name[0] == '-') {
		return "UTC" + name
	}
	return name
}

var english = language{
	phrases: englishPhrases, controllers: englishControllers, titles: englishTitles,
	severities: map[string]string{"critical": "critical", "warning": "warning", "info": "information"},
	statuses:   map[string]string{"running": "running", "stopped": "stopped", "paused": "paused"},

	severity: "Severity", customer: "Customer", host: "Host", guest: "Guest", hosts: "Hosts",
	alarm: "Alarm since", since: "Since", when: "When", before: "Last before that", again: "Again since", lasted: "Lasted",
	lastReport: "Last report", lastSuccess: "Last success", seen: "Last state", memory: "memory", disk: "disk",
	detail: "Message", next: "What to do", dashboard: "Dashboard", runbook: "Runbook",

	digestLead: "Not told one by one between %s and %s: %s.",
	digestRest: "And more", digestNext: "Look at the dashboard, or ask the hub for the events: all of them are there.",
	andMore: " and %d more",

	testSubject: "Test of the channel {channel}",
	testLead:    "This is a test of the channel {channel}. Nothing has happened, and there is nothing to do.",

	units: [4][3]string{{"day", "days", "days"}, {"hour", "hours", "hours"}, {"minute", "minutes", "minutes"}, {"second", "seconds", "seconds"}},
	and:   " ",
	date:  func(t time.Time) string { return t.Format("Mon 2 Jan 2006, 15:04 ") + zone(t) },
	count: func(n int) string { return plural(n, "1 host", "%d hosts") },
	more:  func(n int) string { return plural(n, "1 more event", "%d more events") },
	running: func(running, all int) string {
		return fmt.Sprintf("%d of %s running", running, plural(all, "1 guest", "%d guests"))
	},
	percent: func(p float64) string { return fmt.Sprintf("%.0f%%", math.Floor(p)) },
}

var germanDays = [...]string{"So", "Mo", "Di", "Mi", "Do", "Fr", "Sa"}

var german = language{
	phrases: germanPhrases, controllers: germanControllers, titles: germanTitles,
	severities: map[string]string{"critical": "kritisch", "warning": "Warnung", "info": "Information"},
	statuses:   map[string]string{"running": "in Betrieb", "stopped": "gestoppt", "paused": "angehalten"},

	severity: "Einstufung", customer: "Kunde", host: "Host", guest: "Gast", hosts: "Hosts",
	alarm: "Alarm seit", since: "Seit", when: "Wann", before: "Zuletzt davor", again: "Wieder seit", lasted: "Dauer",
	lastReport: "Letzter Bericht", lastSuccess: "Letzter Erfolg", seen: "Letzter Stand", memory: "Arbeitsspeicher", disk: "Festplatte",
	detail: "Meldung", next: "Was zu tun ist", dashboard: "Dashboard", runbook: "Anleitung",

	digestLead: "Nicht einzeln gemeldet zwischen %s und %s: %s.",
	digestRest: "Außerdem", digestNext: "Sehen Sie im Dashboard nach oder fragen Sie den Hub nach den Ereignissen: Dort stehen alle.",
	andMore: " und %d weitere",

	testSubject: "Test des Kanals {channel}",
	testLead:    "Dies ist ein Test des Kanals {channel}. Es ist nichts geschehen, und es ist nichts zu tun.",

	units: [4][3]string{{"Tag", "Tage", "Tagen"}, {"Stunde", "Stunden", "Stunden"}, {"Minute", "Minuten", "Minuten"}, {"Sekunde", "Sekunden", "Sekunden"}},
	and:   " und ",
	date: func(t time.Time) string {
		return germanDays[t.Weekday()] + " " + t.Format("02.01.2006, 15:04") + " Uhr " + zone(t)
	},
	count: func(n int) string { return plural(n, "1 Host", "%d Hosts") },
	more:  func(n int) string { return plural(n, "1 weiteres Ereignis", "%d weitere Ereignisse") },
	running: func(running, all int) string {
		return fmt.Sprintf("%d von %s in Betrieb", running, plural(all, "1 Gast", "%d Gästen"))
	},
	percent: func(p float64) string { return fmt.Sprintf("%.0f %%", math.Floor(p)) },
}

func plural(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(several, n)
}
