package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

func switchCommand() *cobra.Command {
	cmd := group("switch", "Ask the dead-man's switch")
	cmd.AddCommand(switchExplainCommand())
	return cmd
}

func switchExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain HOST[/VMID]", Short: "Say what the switch makes of a silence and of deadlines, and why", Args: cobra.ExactArgs(1),
		Long: `Ask the hub that runs on data_dir about one host, or about the controller of one
guest: its last report and who knows of
it, how much of the silence since then counts (time in which the hub itself could
not have heard does not), the thresholds, the grace after the hub's own outages,
what is recorded of the host, the decision with the name of its reason, the maintenance
that mutes it, the deadlines of its guests, and the newest events with their ids.
Nothing is changed.

With --at the same for an earlier instant, by the reports, the blind time and the
recorded states until then; the fleet and its thresholds are those of now. An
instant that an event has as detected_at shows how that event came about.`,
		Example: `  hub switch explain acme-5f2c9a1e
  hub switch explain acme-5f2c9a1e/101
  hub switch explain acme-5f2c9a1e --at 2027-06-01T09:00:00Z
  hub switch explain acme-5f2c9a1e --at -2h`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "everything on one line")
	when := cmd.Flags().String("at", "", "`instant` to explain, as 2027-06-01T09:00:00Z, or how long ago, as -2h; default now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !hub.ValidHostID(args[0]) && !hub.ValidGuestID(args[0]) {
			return wrongUse{fmt.Errorf("%q is neither a host id nor a guest id, which is a host id, / and a vmid", args[0])}
		}
		query := url.Values{"host": {args[0]}}
		if *when != "" {
			at, err := instant(*when, time.Now())
			if err != nil {
				return wrongUse{err}
			}
			query.Set("at", at.Format(time.RFC3339Nano))
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		reply, err := askHub(cmd.Context(), cfg, http.MethodGet, "/switch/explain?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printCompact(cmd.OutOrStdout(), reply)
		}
		var told explainView
		if err := json.Unmarshal(reply, &told); err != nil {
			return fmt.Errorf("the hub's answer: %w", err)
		}
		_, err = io.WriteString(cmd.OutOrStdout(), told.text())
		return err
	}
	return cmd
}

// instant reads one, or how long before now it was.
func instant(text string, now time.Time) (time.Time, error) {
	if ago, back := strings.CutPrefix(text, "-"); back {
		if d, err := yamlfile.ParseDuration(ago); err == nil && d >= 0 {
			return now.Add(-d).UTC(), nil
		}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--at %q: write an instant as 2027-06-01T09:00:00Z, or how long ago as -2h or -1d", text)
	}
	return at.UTC(), nil
}

// explainView is what people are shown of the hub's answer. It reads by name.
type explainView struct {
	HostID     string    `json:"host_id"`
	CustomerID string    `json:"customer_id"`
	Site       string    `json:"site"`
	Enrolled   bool      `json:"enrolled"`
	Lifecycle  string    `json:"lifecycle"`
	EnrollBy   time.Time `json:"enroll_by"`
	At         time.Time `json:"at"`
	StaleAfter seconds   `json:"stale_after_seconds"`
	DownAfter  seconds   `json:"down_after_seconds"`
	LastReport *struct {
		At       time.Time `json:"at"`
		Position string    `json:"position"`
		Source   string    `json:"source"`
	} `json:"last_report"`
	Silence *silenceView `json:"silence"`
	Rule    struct {
		State   string    `json:"state"`
		Since   time.Time `json:"since"`
		StaleAt time.Time `json:"stale_at"`
		DownAt  time.Time `json:"down_at"`
	} `json:"rule"`
	Decision struct {
		Reason string       `json:"reason"`
		HeldBy string       `json:"held_by"`
		State  string       `json:"state"`
		Events []raisedView `json:"events"`
	} `json:"decision"`
	Muted      string    `json:"muted_by"`
	MutedUntil time.Time `json:"muted_until"`
	Host       *struct {
		LastReportAt time.Time `json:"last_report_at"`
		State        string    `json:"state"`
	} `json:"host"`
	Deadlines []deadlineView `json:"deadlines"`
	Recorded  *recordedView  `json:"recorded"`
	Raised    []raisedView   `json:"raised"`
	Unsure    []string       `json:"unsure"`
}

type silenceView struct {
	Elapsed seconds `json:"elapsed_seconds"`
	Blind   []struct {
		From  time.Time `json:"from"`
		To    time.Time `json:"to"`
		Cause string    `json:"cause"`
	} `json:"blind"`
	BlindTotal   seconds   `json:"blind_seconds"`
	Length       seconds   `json:"observed_seconds"`
	Grace        seconds   `json:"grace_seconds"`
	BackSince    time.Time `json:"back_since"`
	Ready        seconds   `json:"ready_since_seconds"`
	WatchedSince time.Time `json:"watched_since"`
}

type deadlineView struct {
	GuestID  string       `json:"guest_id"`
	Deadline string       `json:"deadline"`
	Limit    seconds      `json:"limit_seconds"`
	Last     time.Time    `json:"last_at"`
	Due      time.Time    `json:"due_at"`
	Overdue  bool         `json:"overdue"`
	Muted    string       `json:"muted_by"`
	Reason   string       `json:"reason"`
	Events   []raisedView `json:"events"`
}

type recordedView struct {
	State      string    `json:"state"`
	Since      time.Time `json:"since"`
	DecidedAt  time.Time `json:"decided_at"`
	Lifecycle  string    `json:"lifecycle"`
	Episode    string    `json:"episode"`
	EpisodeAt  time.Time `json:"episode_at"`
	Silent     bool      `json:"silent"`
	Muted      string    `json:"muted_by"`
	FoldedInto string    `json:"folded_into"`
	Flapping   bool      `json:"flapping"`
}

type raisedView struct {
	ID           string    `json:"event_id"`
	Type         string    `json:"type"`
	At           time.Time `json:"at"`
	DetectedAt   time.Time `json:"detected_at"`
	Reason       string    `json:"reason"`
	GuestID      string    `json:"guest_id"`
	FoldedInto   string    `json:"folded_into"`
	CausedBy     string    `json:"caused_by"`
	SuppressedBy string    `json:"suppressed_by"`
}

// seconds is a length that people read as 1h2m3s.
type seconds float64

func (s seconds) String() string {
	return time.Duration(float64(s) * float64(time.Second)).Round(time.Millisecond).String()
}

// reasonWords say what the hub's named reasons mean, where nothing is raised.
var reasonWords = map[string]string{
	"held_back":                "the switch does not judge",
	"retired":                  "the host is retired, or the fleet does not name it: nobody watches it",
	"paused":                   "the host is paused: its reports are taken, its silence is not watched",
	"never_reported":           "the host never reported, and its file says no enrollBy: nothing is due",
	"enroll_by_not_over":       "the host never reported; its first report is due, and the hub waits for it a grace longer",
	"state_unknown":            "what was decided before is not known while ClickHouse does not answer",
	"first_look":               "nothing was decided of the host before: its state is recorded as it is found, and nobody is told",
	"whole_fleet_silent":       "so many hosts fell silent at once that the hub first suspects itself",
	"silence_under_threshold":  "the silence that counts is shorter than stale_after",
	"grace_not_over":           "the silence is long enough, but hosts still have their grace to report",
	"told_before":              "this silence was told of before, and is no worse",
	"recorded_without_telling": "this silence was found at a first look, or is one of a flapping host: nobody is told of it",
	"muted":                    "it is recorded, and told when what mutes it is over, if it still is so then",
	"host_not_heard_since":     "the host has not reported since: whether the trouble is the guest's own or the host's is not known yet",
	"no_deadline":              "nobody set a deadline",
	"within_limit":             "it has not passed",
	"no_report_since":          "it has passed; the report that may tell of a success has not come yet",
	"overdue":                  "it was told of before",
	"guest_gone":               "the host's newest report does not list the guest",
}

func (x explainView) text() string {
	p := &page{now: x.At}
	x.showHost(p)
	x.showSilence(p)
	x.showRule(p)
	x.showRecorded(p)
	x.showMaintenance(p)
	x.showDeadlines(p)
	x.showDecision(p)
	for _, text := range x.Unsure {
		p.line("unsure", "%s", text)
	}
	return p.String()
}

// who is host, or controller where the id is a guest's.
func (x explainView) who() string {
	if strings.Contains(x.HostID, "/") {
		return "controller"
	}
	return "host"
}

func (x explainView) showHost(p *page) {
	about := []string{x.HostID}
	if x.CustomerID != "" {
		about[0] += " of " + x.CustomerID
	}
	if x.Site != "" {
		about = append(about, "site "+x.Site)
	}
	if x.Enrolled {
		about = append(about, x.Lifecycle)
	} else {
		about = append(about, "not in the fleet in force")
	}
	p.line(x.who(), "%s", strings.Join(about, ", "))
	p.line("judged at", "%s", exactly(x.At))
	switch r := x.LastReport; {
	case r == nil && x.EnrollBy.IsZero():
		p.line("last report", "none")
	case r == nil:
		p.line("last report", "none; the first is due by %s (enrollBy)", exactly(x.EnrollBy))
	default:
		who := "ClickHouse has it"
		if r.Source == "hub" {
			who = "by the hub's own index"
		}
		p.line("last report", "received %s, %s", exactly(r.At), who)
		p.line("", "record %s", r.Position)
	}
}

func (x explainView) showSilence(p *page) {
	s := x.Silence
	if s == nil {
		return
	}
	p.line("silence", "%s counts: %s since the last report, less %s in which the hub could not have heard", s.Length, s.Elapsed, s.BlindTotal)
	p.items(len(s.Blind), func(i int) string {
		b := s.Blind[i]
		return fmt.Sprintf("blind from %s to %s, %s: %s", exactly(b.From), exactly(b.To), seconds(b.To.Sub(b.From).Seconds()), b.Cause)
	})
	switch {
	case !s.WatchedSince.IsZero():
		p.line("grace", "%s from %s on, when the host was watched again", s.Grace, exactly(s.WatchedSince))
	case s.BackSince.IsZero():
		p.line("grace", "%s; not needed, the hub was not away for long in this silence", s.Grace)
	default:
		p.line("grace", "%s after a long outage of the hub; it is back since %s and was ready for %s", s.Grace, exactly(s.BackSince), s.Ready)
	}
}

func (x explainView) showRule(p *page) {
	if x.Silence == nil || !x.Enrolled {
		return
	}
	p.line("thresholds", "stale after %s, down after %s", x.StaleAfter, x.DownAfter)
	text := "by these figures the " + x.who() + " is " + x.Rule.State
	if x.Rule.State != string(hub.OK) {
		text += " since " + exactly(x.Rule.Since)
	}
	p.line("verdict", "%s", text)
	if x.Lifecycle != string(hub.Active) {
		return
	}
	if x.Rule.State == string(hub.OK) {
		p.line("", "if nothing comes and the hub stays ready: stale at %s", exactly(x.Rule.StaleAt))
	}
	if x.Rule.State != string(hub.Down) {
		p.line("", "if nothing comes and the hub stays ready: down at %s", exactly(x.Rule.DownAt))
	}
}

func (x explainView) showRecorded(p *page) {
	r := x.Recorded
	if r == nil {
		p.line("recorded", "nothing is recorded of the host until then")
		return
	}
	p.line("recorded", "%s since %s, decided at %s", r.State, exactly(r.Since), exactly(r.DecidedAt))
	if r.Episode != "" {
		word := "newest report looked at: "
		if r.State != string(hub.OK) {
			word = "episode: silent after "
		}
		p.line("", "%s%s, record %s", word, exactly(r.EpisodeAt), r.Episode)
	}
	for _, more := range []struct {
		is   bool
		text string
	}{
		{r.Muted != "", "not told because of " + r.Muted},
		{r.Silent && r.Muted == "", "nobody was told of this silence, and nobody will be told that it ended"},
		{r.Flapping, "the host flaps: single silences are not told"},
		{r.FoldedInto != "", "part of the mass_silence " + r.FoldedInto},
		{r.Lifecycle != "" && r.Lifecycle != string(hub.Active), "taken for " + r.Lifecycle},
	} {
		if more.is {
			p.line("", "%s", more.text)
		}
	}
}

func (x explainView) showMaintenance(p *page) {
	if x.Host != nil {
		p.line("its host", "%s, last report received %s", x.Host.State, exactly(x.Host.LastReportAt))
	}
	if x.Muted != "" {
		p.line("muted", "by %s, until %s", x.Muted, exactly(x.MutedUntil))
	}
}

func (x explainView) showDeadlines(p *page) {
	word := "deadlines"
	for _, d := range x.Deadlines {
		if d.Limit == 0 {
			continue
		}
		text := fmt.Sprintf("%s %s within %s: last %s, due %s: %s", d.GuestID, d.Deadline, d.Limit, exactly(d.Last), exactly(d.Due), d.Reason)
		if words := reasonWords[d.Reason]; words != "" {
			text += " (" + words + ")"
		}
		if d.Muted != "" {
			text += ", not told because of " + d.Muted
		}
		p.line(word, "%s", text)
		word = ""
	}
	if word != "" && len(x.Deadlines) > 0 {
		p.line(word, "none are set: deadlines in the file of the host, its customer or the fleet")
	}
}

func (x explainView) showDecision(p *page) {
	d := x.Decision
	if len(d.Events) == 0 {
		p.line("decision", "raise nothing: %s", d.Reason)
		if words := reasonWords[d.Reason]; words != "" {
			p.line("", "%s", words)
		}
		if d.HeldBy != "" {
			p.line("", "%s", d.HeldBy)
		}
	}
	for i, e := range d.Events {
		word := ""
		if i == 0 {
			word = "decision"
		}
		p.line(word, "raise %s, which holds since %s", e.Type, exactly(e.At))
		p.line("", "id %s, %s", e.ID, e.Reason)
	}
	if len(x.Raised) == 0 {
		p.line("raised", "no event of the host is in ClickHouse until then")
	}
	for i, e := range x.Raised {
		word := ""
		if i == 0 {
			word = "raised"
		}
		what := e.Type
		if e.GuestID != "" && e.GuestID != x.HostID {
			what += " of " + e.GuestID
		}
		p.line(word, "%s at %s, found at %s", what, exactly(e.At), exactly(e.DetectedAt))
		text := "id " + e.ID + ", " + e.Reason
		if e.FoldedInto != "" {
			text += ", folded into " + e.FoldedInto
		}
		if e.CausedBy != "" {
			text += ", caused by " + e.CausedBy
		}
		if e.SuppressedBy != "" {
			text += ", suppressed by " + e.SuppressedBy
		}
		p.line("", "%s", text)
	}
}

// exactly is an instant as --at takes it, with the milliseconds that decide.
func exactly(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
