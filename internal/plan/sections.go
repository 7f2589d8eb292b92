package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// section is one table of a plan, for both renderers.
type section struct {
	title   string
	note    string
	columns []column
	rows    [][]string
	whole   bool // long cells are shown, nearly
}

// column is a heading; quoted are values that stand in the files, as against
// words of ours.
type column struct {
	name   string
	quoted bool
}

func columns(names ...string) []column {
	list := make([]column, len(names))
	for i, name := range names {
		list[i].name, list[i].quoted = strings.CutPrefix(name, "'")
	}
	return list
}

// sections returns the tables that have rows, the gravest first.
func (p *Plan) sections() []section {
	all := []section{
		p.structuralSection(),
		p.mistakeSection(), p.warningSection(), p.hostSection(), p.customerSection(), p.keySection(), p.thresholdSection(),
		p.deadlineSection(), p.windowSection(), p.eventSection(), p.channelSection(), p.settingSection(), p.recipientSection(), p.specSection(), p.reportSection(), p.realitySection(),
	}
	var list []section
	for _, s := range all {
		if len(s.rows) > 0 {
			list = append(list, s)
		}
	}
	return list
}

func (p *Plan) structuralSection() section {
	s := section{title: "Mistakes that reject the whole", note: "Nothing of this change is applied before they are gone.",
		columns: columns("'where", "'what", "'hint"), whole: true}
	for _, m := range p.Structural {
		s.rows = append(s.rows, []string{p.place(m), m.Message, m.Hint})
	}
	return s
}

func (p *Plan) place(m hub.Problem) string {
	where := path.Join(p.Path, m.File)
	if m.Line == 0 {
		return where
	}
	return fmt.Sprintf("%s:%d:%d", where, m.Line, m.Column)
}

func (p *Plan) mistakeSection() section {
	s := section{title: "Mistakes in hosts' files", note: "Each costs only its host; everything else is applied.",
		columns: columns("'where", "'what", "'hint", "the host"), whole: true}
	for _, m := range p.Mistakes {
		cost := "stays as it is"
		if !m.Kept {
			cost = "is left out"
		}
		s.rows = append(s.rows, []string{p.place(m.Problem), m.Message, m.Hint, cost})
	}
	return s
}

func (p *Plan) warningSection() section {
	s := section{title: "Look twice", columns: columns("'owner", "why")}
	for _, w := range p.Warnings {
		s.rows = append(s.rows, []string{w.Owner, w.Message})
	}
	return s
}

func (p *Plan) hostSection() section {
	s := section{title: "Hosts", columns: columns("'host", "'customer", "'name", "change", "'from", "'to")}
	for _, h := range p.Hosts {
		change := h.Change
		if h.Label != "" {
			change += " " + h.Label
		}
		s.rows = append(s.rows, []string{h.Host, h.Customer, h.DisplayName, change, h.From, h.To})
	}
	return s
}

func (p *Plan) customerSection() section {
	s := section{title: "Customers", columns: columns("'customer", "change", "'from", "'to")}
	for _, c := range p.Customers {
		s.rows = append(s.rows, []string{c.Customer, c.Change, c.From, c.To})
	}
	return s
}

func (p *Plan) keySection() section {
	s := section{title: "Keys", columns: columns("'owner", "'key", "change", "valid until")}
	for _, k := range p.Keys {
		s.rows = append(s.rows, []string{k.Owner, k.Key, k.words(p.now), instant(k.NotAfter, "no end")})
		if k.Change == "removed" {
			s.rows[len(s.rows)-1][3] = ""
		}
	}
	return s
}

func (k KeyChange) words(now time.Time) string {
	switch k.Change {
	case "rotated":
		if k.OldEnds.IsZero() {
			return fmt.Sprintf("rotated: %s is removed", k.Old)
		}
		return fmt.Sprintf("rotated: %s ends %s", k.Old, instant(k.OldEnds, ""))
	case "ends":
		return "end changed from " + instant(k.Was, "none")
	case "expiring":
		if k.NotAfter.Before(now) {
			return "expired"
		}
		return "expires soon"
	case "resealed":
		return "resealed (other ciphertext, same id)"
	default:
		return k.Change
	}
}

func instant(t time.Time, none string) string {
	if t.IsZero() {
		return none
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func (p *Plan) thresholdSection() section {
	s := section{title: "When hosts alarm", columns: columns("hosts", "set by", "stale after", "down after", "effect")}
	for _, t := range p.Thresholds {
		effect := t.Effect
		if n := len(t.AtOnce); n > 0 {
			effect += "; at once: " + listed(t.AtOnce)
		}
		s.rows = append(s.rows, []string{hostsText(t.Hosts), t.SetBy, fromTo(t.StaleFrom, t.StaleTo), fromTo(t.DownFrom, t.DownTo), effect})
	}
	return s
}

func hostsText(hosts []string) string {
	if len(hosts) == 1 {
		return hosts[0]
	}
	return fmt.Sprintf("%d hosts, as %s", len(hosts), hosts[0])
}

func (p *Plan) deadlineSection() section {
	s := section{title: "Deadlines of guests", columns: columns("hosts", "set by", "deadline", "longest time", "effect")}
	for _, d := range p.Deadlines {
		s.rows = append(s.rows, []string{hostsText(d.Hosts), d.SetBy, d.Deadline, d.From + " → " + d.To, d.Effect})
	}
	return s
}

func (p *Plan) windowSection() section {
	s := section{title: "Maintenance windows", note: "While one is open nobody is told of its hosts; what is still wrong when it closes is told then.",
		columns: columns("'set by", "'window", "change", "hosts", "'when", "opens next"), whole: true}
	for _, w := range p.Windows {
		change, hosts := w.Change, count(w.Hosts, "host", "hosts")
		if w.Effect != "" {
			change += ", " + w.Effect
		}
		if w.AtMost {
			hosts = "at most " + hosts
		}
		when := w.From + w.To
		if w.Change == "changed" {
			when = w.From + " → " + w.To
		}
		next := make([]string, len(w.Next))
		for i, t := range w.Next {
			next[i] = t.Format("2006-01-02 15:04 MST")
		}
		s.rows = append(s.rows, []string{w.Owner, w.Window, change, hosts, when, strings.Join(next, ", ")})
	}
	return s
}

func (p *Plan) eventSection() section {
	s := section{title: "What controllers may send", columns: columns("'type", "from now on")}
	for _, e := range p.Events {
		s.rows = append(s.rows, []string{e.Type, e.Change})
	}
	return s
}

func (p *Plan) channelSection() section {
	s := section{title: "Who is told", note: "What ends an alarm goes where the alarm went. Where a channel leads to is not told here.",
		columns: columns("'owner", "'channel", "kind", "change", "'is told of"), whole: true}
	for _, c := range p.Channels {
		change, kind, what := c.Change, c.Kind, c.From+c.To
		if kind == "" {
			kind = "sealed"
		}
		if c.Change == "changed" {
			what = fromTo(c.From, c.To)
		}
		if c.Address != "" {
			change += ": " + c.Address
		}
		s.rows = append(s.rows, []string{c.Owner, c.Channel, kind, change, what})
	}
	return s
}

// listed names the first few.
func listed(list []string) string {
	const shown = 5
	if len(list) <= shown {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:shown], ", "), len(list)-shown)
}

func fromTo(from, to string) string {
	if from == to {
		return to
	}
	for _, side := range []*string{&from, &to} {
		if *side == "" {
			*side = "(the hub's)"
		}
	}
	return from + " → " + to
}

func (p *Plan) settingSection() section {
	s := section{title: "Settings", columns: columns("setting", "'from", "'to")}
	for _, v := range p.Settings {
		s.rows = append(s.rows, []string{v.Name, v.From, v.To})
	}
	return s
}

func (p *Plan) recipientSection() section {
	s := section{title: "Who can open the seals", columns: columns("change", "'recipient", "'fingerprint"),
		note: "A recipient that is added opens what is sealed from then on (hub fleet reseal); one that is removed still opens every seal in the history."}
	for _, r := range p.Recipients {
		s.rows = append(s.rows, []string{r.Change, r.Recipient, r.Fingerprint})
	}
	return s
}

func (p *Plan) specSection() section {
	s := section{title: "Desired specs and recovery records", columns: columns("'host", "'path", "'from", "'to"), note: "Inert: kept for analysts, never sent to an agent."}
	for _, c := range p.Specs {
		s.rows = append(s.rows, []string{c.Host, c.Path, jsonText(c.From), jsonText(c.To)})
	}
	return s
}

func jsonText(v json.RawMessage) string { return string(v) }

func (p *Plan) reportSection() section {
	s := section{title: "Last reports", columns: columns("'host", "'customer", "last report", "'key", "state")}
	for _, r := range p.Reports {
		s.rows = append(s.rows, []string{r.Host, r.Customer, age(r.AgeSeconds) + " ago", r.KeyID, r.State})
	}
	return s
}

func (p *Plan) realitySection() section {
	s := section{title: "Desired, and as last reported", columns: columns("'host", "'path", "'desired", "'reported")}
	for _, r := range p.Reports {
		for _, d := range r.Differs {
			s.rows = append(s.rows, []string{r.Host, d.Path, jsonText(d.Desired), jsonText(d.Reported)})
		}
	}
	return s
}

// age writes seconds for people, in one unit: 41 min.
func age(seconds float64) string {
	switch {
	case seconds < 90:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 90*60:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.0f h", seconds/3600)
	default:
		return fmt.Sprintf("%.0f days", seconds/86400)
	}
}

// commits says what was compared.
func (p *Plan) commits() string {
	text := fmt.Sprintf("%s … %s", short(p.Base), short(p.Head))
	if p.Path != "" && p.Path != "." {
		text += ", folder " + p.Path
	}
	text += ", " + count(p.FilesChanged, "file differs", "files differ")
	if p.Onto != "" {
		text += fmt.Sprintf("; %s has moved on since, and its newer commits are not part of this", short(p.Onto))
	}
	return text
}

func short(commit string) string {
	if commit == "" {
		return "nothing"
	}
	return commit[:min(len(commit), 12)]
}
