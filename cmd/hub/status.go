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
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status [OWNER|HOST]", Short: "Say how the running hub is, and what it makes of the fleet", Args: cobra.MaximumNArgs(1),
		Long: `Ask the hub that runs on data_dir how it is: the commit in force and the one that
waits, mistakes in single files, hosts whose posts are refused, when keys were
last used, whether reports reach ClickHouse, and messages their channels. With host/ID or just ID,
customer/NAME or fleet it tells of each of the owner's keys. Nothing is changed.`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "everything on one line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := ""
		if len(args) > 0 {
			owner, err := ownerOrHost(args[0])
			if err != nil {
				return wrongUse{err}
			}
			query = "?owner=" + url.QueryEscape(owner.String())
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		reply, err := askHub(cmd.Context(), cfg, http.MethodGet, "/status"+query, nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printCompact(cmd.OutOrStdout(), reply)
		}
		var status statusView
		if err := json.Unmarshal(reply, &status); err != nil {
			return fmt.Errorf("the hub's answer: %w", err)
		}
		_, err = io.WriteString(cmd.OutOrStdout(), status.text(time.Now()))
		return err
	}
	return cmd
}

// ownerOrHost reads an owner; what is none is the id of a host.
func ownerOrHost(text string) (hub.Owner, error) {
	owner, err := hub.ParseOwner(text)
	if err != nil && hub.ValidHostID(text) {
		return hub.HostOwner(text), nil
	}
	return owner, err
}

// statusView is what people are shown of the hub's answer. It reads by name, so
// a hub of another version is shown as far as it is understood.
type statusView struct {
	Version    string    `json:"version"`
	StartedAt  time.Time `json:"started_at"`
	Ready      bool      `json:"ready"`
	Problems   []string  `json:"problems"`
	Warnings   []string  `json:"warnings"`
	Fleet      fleetView `json:"fleet"`
	Spool      spoolView `json:"spool"`
	ClickHouse struct {
		ShippedAt time.Time `json:"shipped_at"`
		LastError string    `json:"last_error"`
	} `json:"clickhouse"`
	Switch struct {
		LastJudged time.Time `json:"last_judged"`
		HeldBy     string    `json:"held_by"`
		HeldSince  time.Time `json:"held_since"`
	} `json:"switch"`
	Messages *struct { // nil: of a hub that has none
		Queued  int       `json:"queued"`
		Oldest  time.Time `json:"oldest"`
		Dead    int       `json:"dead"`
		Failing int       `json:"failing"`
	} `json:"messages"`
	Owner *ownerView `json:"owner"`
}

type spoolView struct {
	UnshippedRecords int64     `json:"unshipped_records"`
	OldestUnshipped  time.Time `json:"oldest_unshipped"`
	DiskBytes        int64     `json:"disk_bytes"`
	MaxBytes         int64     `json:"max_bytes"`
	Damage           int       `json:"damage"`
}

// fleetView is the fleet in force, and the head where that is another.
type fleetView struct {
	Revision     string        `json:"revision"`
	Subject      string        `json:"subject"`
	Author       string        `json:"author"`
	Signer       string        `json:"signer"`
	AppliedAt    time.Time     `json:"applied_at"`
	Hosts        int           `json:"hosts"`
	HostProblems []hub.Problem `json:"host_problems"`
	Head         string        `json:"head"`
	Verdict      struct {
		Verdict hub.Verdict `json:"verdict"`
		Why     string      `json:"why"`
		Release string      `json:"release"`
		Since   time.Time   `json:"since"`
	} `json:"verdict"`
	Problems     []hub.Problem     `json:"problems"`
	CheckedAt    time.Time         `json:"checked_at"`
	LastError    string            `json:"last_error"`
	Frozen       string            `json:"frozen"`
	RefusedHosts []refusedHostView `json:"refused_hosts"`
	Keys         map[string]int    `json:"keys"`
}

type refusedHostView struct {
	HostID  string `json:"host_id"`
	Reasons []struct {
		Status  int       `json:"status"`
		Reason  string    `json:"reason"`
		Message string    `json:"message"`
		Count   int       `json:"count"`
		Last    time.Time `json:"last"`
	} `json:"reasons"`
}

type ownerView struct {
	Owner      string    `json:"owner"`
	Customer   string    `json:"customer_id"`
	State      string    `json:"state"`
	LastReport time.Time `json:"last_report"`
	Keys       []struct {
		ID       string    `json:"id"`
		Valid    bool      `json:"valid"`
		NotAfter time.Time `json:"not_after"`
		LastUse  time.Time `json:"last_use"`
	} `json:"keys"`
}

// maxShown bounds each list of a status; --json has all.
const maxShown = 20

// page collects lines with a word in front.
type page struct {
	strings.Builder
	now time.Time
}

// line writes one line. What comes out of a repository may hold anything: what a
// terminal might obey is left out.
func (p *page) line(word, format string, args ...any) {
	fmt.Fprintf(p, "%-11s %s\n", word, plain(fmt.Sprintf(format, args...)))
}

// items shows a list under its first line.
func (p *page) items(n int, show func(i int) string) {
	for i := range min(n, maxShown) {
		p.line("", "%s", show(i))
	}
	if n > maxShown {
		p.line("", "and %d more, which --json shows", n-maxShown)
	}
}

// ago tells an age with the one unit that fits.
func (p *page) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return roughly(max(0, p.now.Sub(t))) + " ago"
}

func roughly(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// text is the status for people, as of now.
func (s statusView) text(now time.Time) string {
	p := &page{now: now}
	state := "ready"
	if !s.Ready {
		state = "NOT READY"
	}
	p.line("hub", "%s, started %s (%s), %s", s.Version, p.ago(s.StartedAt), s.StartedAt.UTC().Format(time.RFC3339), state)
	for _, problem := range s.Problems {
		p.line("problem", "%s", problem)
	}
	for _, warning := range s.Warnings {
		p.line("warning", "%s", warning)
	}
	s.Fleet.show(p)
	s.Fleet.showRefused(p)
	s.Fleet.showKeys(p)
	s.showParts(p)
	if s.Owner != nil {
		s.Owner.show(p)
	}
	return p.String()
}

func (f fleetView) commit() string {
	text := short(f.Revision)
	if f.Subject != "" {
		text += fmt.Sprintf(" %q", f.Subject)
	}
	if f.Author != "" {
		text += " by " + f.Author
	}
	if f.Signer != "" {
		text += ", signed by " + f.Signer
	}
	return text
}

// short is a revision as git abbreviates it.
func short(revision string) string { return revision[:min(len(revision), 12)] }

func (f fleetView) show(p *page) {
	if f.Revision == "" {
		p.line("fleet", "none is in force")
	} else {
		p.line("fleet", "%s", f.commit())
		p.line("", "%s, applied %s; the repository last answered %s", count(f.Hosts, "host", "hosts"), p.ago(f.AppliedAt), p.ago(f.CheckedAt))
	}
	if f.Head != "" && f.Head != f.Revision {
		verdict := string(f.Verdict.Verdict)
		if verdict == "" {
			verdict = "not in force"
		}
		p.line("head", "%s is %s", short(f.Head), verdict)
		for _, text := range []string{f.Verdict.Why, f.Verdict.Release} {
			if text != "" {
				p.line("", "%s", text)
			}
		}
		p.items(len(f.Problems), func(i int) string { return f.Problems[i].String() })
	}
	if n := len(f.HostProblems); n > 0 {
		p.line("bad files", "%s; these hosts keep their last good record", count(n, "mistake", "mistakes"))
		p.items(n, func(i int) string { return f.HostProblems[i].String() })
	}
	if f.Frozen != "" {
		p.line("frozen", "%s", f.Frozen)
	}
	if f.LastError != "" {
		p.line("last pull", "%s", f.LastError)
	}
}

func (f fleetView) showRefused(p *page) {
	if n := len(f.RefusedHosts); n > 0 {
		p.line("refused", "%s in the last day", count(n, "host", "hosts"))
		p.items(n, func(i int) string { return f.RefusedHosts[i].told(p) })
	}
}

// told is a refused host on one line.
func (h refusedHostView) told(p *page) string {
	var reasons []string
	for _, r := range h.Reasons {
		reasons = append(reasons, fmt.Sprintf("%d x %d %s, last %s", r.Count, r.Status, r.Reason, p.ago(r.Last)))
	}
	return h.HostID + ": " + strings.Join(reasons, "; ")
}

func (f fleetView) showKeys(p *page) {
	var parts []string
	for _, age := range []struct{ name, words string }{
		{"1h", "used in the last hour"}, {"1d", "in the last day"}, {"7d", "in the last week"},
		{"30d", "in the last 30 days"}, {"older", "longer ago"}, {"never", "never"},
	} {
		parts = append(parts, fmt.Sprintf("%d %s", f.Keys[age.name], age.words))
	}
	p.line("keys", "%s", strings.Join(parts, ", "))
}

func (s statusView) showParts(p *page) {
	const mebi = 1 << 20
	waiting := "every report is in ClickHouse"
	if s.Spool.UnshippedRecords > 0 {
		waiting = fmt.Sprintf("%d records wait for ClickHouse, the oldest came %s", s.Spool.UnshippedRecords, p.ago(s.Spool.OldestUnshipped))
	}
	if s.Spool.Damage > 0 {
		waiting += fmt.Sprintf("; %d damaged places", s.Spool.Damage)
	}
	p.line("spool", "%s; %d of %d MiB", waiting, s.Spool.DiskBytes/mebi, s.Spool.MaxBytes/mebi)
	if s.ClickHouse.LastError != "" {
		p.line("ClickHouse", "%s", s.ClickHouse.LastError)
	} else {
		p.line("ClickHouse", "last took reports %s", p.ago(s.ClickHouse.ShippedAt))
	}
	if s.Switch.HeldBy != "" {
		p.line("switch", "held back (first %s): %s", p.ago(s.Switch.HeldSince), s.Switch.HeldBy)
	} else {
		p.line("switch", "last judged %s", p.ago(s.Switch.LastJudged))
	}
	if m := s.Messages; m != nil {
		text := "none waits"
		if m.Queued > 0 {
			text = fmt.Sprintf("%d wait, the first came %s", m.Queued, p.ago(m.Oldest))
		}
		if m.Failing > 0 {
			text += "; " + count(m.Failing, "channel fails", "channels fail")
		}
		if m.Dead > 0 {
			text += fmt.Sprintf("; %d given up", m.Dead)
		}
		p.line("messages", "%s", text)
	}
}

func (o ownerView) show(p *page) {
	fmt.Fprintln(p)
	about := []string{o.Owner}
	if o.Customer != "" {
		about = append(about, "of "+o.Customer)
	}
	if o.State != "" {
		about = append(about, o.State, "last report "+p.ago(o.LastReport))
	}
	p.line("owner", "%s", strings.Join(about, ", "))
	if len(o.Keys) == 0 {
		p.line("", "it has no key")
	}
	for _, k := range o.Keys {
		text := "key " + k.ID + ", last used " + p.ago(k.LastUse)
		switch {
		case !k.Valid && !k.NotAfter.IsZero() && k.NotAfter.Before(p.now):
			text += ", expired since " + k.NotAfter.UTC().Format(time.RFC3339)
		case !k.Valid:
			text += ", not valid"
		case !k.NotAfter.IsZero():
			text += ", valid until " + k.NotAfter.UTC().Format(time.RFC3339)
		}
		p.line("", "%s", text)
	}
}
