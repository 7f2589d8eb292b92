package message

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
	"unicode"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

var update = flag.Bool("update", false, "write testdata anew")

// allTypes lists every type that the hub names.
func allTypes() []hub.EventType {
	return append(hub.SwitchEvents(), hub.FleetRejected, hub.FleetRewound, hub.FleetHeld, hub.FleetFrozen, hub.HostFileRejected, hub.ClickHouseAway, hub.SpoolHigh)
}

func zoneOf(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// example is an event of a type as the hub raises it.
func example(t *testing.T, kind hub.EventType, language Language) Input {
	at := time.Date(2026, 11, 28, 13, 2, 5, 0, time.UTC)
	e := hub.Event{
		ID: "0123456789abcdef0123456789abcdef", Type: kind, CustomerID: "acme", HostID: "acme-5f2c9a1e",
		At: at, DetectedAt: at.Add(time.Minute), Source: "switch", Reason: "silence_reached_stale_after: last=… blind=0s",
	}
	in := Input{
		Names:  Names{Customer: "Acme GmbH", Host: "pve-acme-01", Guest: "mail"},
		Reader: Reader{language, zoneOf(t, "Europe/Berlin")},
		Links:  Links{Dashboard: "https://grafana.example/d/host?var-host=acme-5f2c9a1e", Runbook: "https://wiki.example/runbooks/silence"},
	}
	text := string(kind)
	switch {
	case kind == hub.MassSilence:
		e.HostID = ""
		e.Hosts, in.Names.Hosts = manyHosts(23)
	case kind == hub.HubSwitchHeld:
		e.HostID, e.CustomerID, in.Links = "", "", Links{}
		e.Reason = `held_back: since=2026-11-28T12:52:05.000Z by="ClickHouse does not answer"`
	case kind == hub.HostFileRejected:
		e.CustomerID, e.Source = "", "fleet"
		e.Reason = "the host keeps its last good record: fleet/customers/acme/hosts/acme-5f2c9a1e.yaml:7:3: unknown key spec.stat (state?)"
	case strings.HasPrefix(text, "fleet_"):
		e.HostID, e.CustomerID, e.Source, in.Links = "", "", "fleet", Links{}
		e.Reason = "commit 1b52a02: fleet.yaml:3:1: unknown key"
	case kind == hub.ClickHouseAway, kind == hub.SpoolHigh:
		e.HostID, e.CustomerID, e.Source, e.Reason, in.Links = "", "", "hub", "", Links{}
	case !hub.OwnEvent(kind):
		e.GuestID, e.Source, e.Level, e.Reason = "acme-5f2c9a1e/101", "controller", "warning", "exit status 2 of vzdump"
	case aboutDeadline(kind), strings.HasPrefix(text, "controller_"):
		e.GuestID = "acme-5f2c9a1e/101"
	}
	switch kind {
	case hub.HostStale, hub.HostFlapping, hub.ControllerStale, hub.ControllerFlapping:
		e.SilenceSeconds = 1800
	case hub.HostDown, hub.ControllerDown:
		e.SilenceSeconds = 3600
	case hub.HostRecovered, hub.ControllerRecovered:
		e.SilenceSeconds = 7384.5
	}
	if aboutDeadline(kind) {
		e.SilenceSeconds = 51 * 3600
	}
	switch kind {
	case hub.HostStale, hub.HostDown:
		e.LastSeen = lastSeen()
	case hub.ControllerStale, hub.BackupDeadline.Overdue():
		e.LastSeen = &hub.LastSeen{GuestName: "mail", GuestStatus: "running"}
	case hub.ControllerDown:
		e.LastSeen = &hub.LastSeen{GuestName: "mail", GuestStatus: "prelaunch"}
	}
	in.Event = e
	return in
}

func lastSeen() *hub.LastSeen {
	memory, disk := 70.3, 70.3
	return &hub.LastSeen{PVEVersion: "8.4.1", Guests: 3, GuestsRunning: 2, MemPercent: &memory, DiskPercent: &disk}
}

func manyHosts(n int) (ids []string, names map[string]string) {
	names = map[string]string{}
	for i := range n {
		id := fmt.Sprintf("acme-%08d", i)
		ids = append(ids, id)
		if i%2 == 0 {
			names[id] = fmt.Sprintf("pve-%02d", i)
		}
	}
	return ids, names
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it):\n got:\n%s\nwant:\n%s", name, got, want)
	}
}

// whole is a text in plain form and in Markdown, as one golden file.
func whole(text Text) string {
	return "Subject: " + text.Subject + "\n\n" + text.Render(Plain) + "\n--- markdown ---\n" + text.Render(Markdown)
}

func TestGoldenTexts(t *testing.T) {
	for _, language := range []Language{English, German} {
		golden(t, filepath.Join(string(language), "channel_test.txt"), whole(Test("ops-chat", example(t, hub.HostDown, language).Reader, time.Date(2026, 11, 28, 13, 0, 0, 0, time.UTC))))
		for _, kind := range append(allTypes(), "backup_failed", "coffee_empty") {
			golden(t, filepath.Join(string(language), string(kind)+".txt"), whole(Write(example(t, kind, language))))
		}
	}
}

func TestGoldenDialects(t *testing.T) {
	in := example(t, hub.HostDown, German)
	in.Names.Host = "<pve> & `01`"
	text := Write(in)
	golden(t, "slack.txt", text.Render(Slack))
	golden(t, "html.txt", text.Render(HTML))
}

func TestEveryTypeHasItsWords(t *testing.T) {
	for name, l := range languages {
		for _, kind := range allTypes() {
			if p := l.phrases[kind]; p.title == "" || p.subject == "" || p.lead == "" || p.next == "" {
				t.Errorf("%s has no whole phrase in %s", kind, name)
			}
		}
		for _, kind := range hub.DefaultControllerEvents() {
			if l.titles[kind] == "" {
				t.Errorf("%s, which controllers send, has no title in %s", kind, name)
			}
		}
		if len(l.phrases) != len(allTypes()) || len(l.titles) != len(hub.DefaultControllerEvents()) {
			t.Errorf("%s has words for types that are no more", name)
		}
	}
	for _, kind := range allTypes() {
		if !hub.OwnEvent(kind) {
			t.Errorf("%s is not the hub's own", kind)
		}
	}
}

// TestForeignTextIsNothingButText: names and messages that others choose become no
// link, mention, markup or further line in any dialect.
func TestForeignTextIsNothingButText(t *testing.T) {
	evil := "[click](https://evil.example) @everyone <!channel> <@U1> <b>x</b> `code` **bold**\r\nSubject: forged\x00\x1b[31m \u202egnp.exe\u2066 \xff www.evil.example"
	in := example(t, "coffee_empty", English)
	in.Names = Names{Customer: evil, Host: evil, Guest: evil}
	in.Event.Type, in.Event.Reason = hub.EventType(evil), evil
	text := Write(in)
	if strings.ContainsAny(text.Subject, "\r\n\x00\x1b\u202e\u2066") || !utf8.ValidString(text.Subject) {
		t.Errorf("the subject is %q", text.Subject)
	}
	outside := func(rendered, opening, closing string) string {
		var b strings.Builder
		for {
			before, after, found := strings.Cut(rendered, opening)
			b.WriteString(before)
			if !found {
				return b.String()
			}
			_, rendered, _ = strings.Cut(after, closing)
		}
	}
	for _, d := range []struct {
		name             string
		dialect          Dialect
		opening, closing string
	}{{"markdown", Markdown, "`", "`"}, {"slack", Slack, "`", "`"}, {"html", HTML, "<code>", "</code>"}} {
		rendered := text.Render(d.dialect)
		lines := strings.Count(rendered, "\n")
		if plain := strings.Count(text.Render(Plain), "\n"); lines != plain {
			t.Errorf("%s has %d lines, plain text %d", d.name, lines, plain)
		}
		if rest := outside(rendered, d.opening, d.closing); strings.Contains(rest, "evil") || strings.Contains(rest, "everyone") || strings.Contains(rest, "channel") {
			t.Errorf("%s: foreign text stands outside of code:\n%s", d.name, rendered)
		}
		if d.name != "markdown" && (strings.Contains(rendered, "<!channel>") || strings.Contains(rendered, "<b>x</b>") || strings.Contains(rendered, "<@U1>")) {
			t.Errorf("%s: markup is not escaped:\n%s", d.name, rendered)
		}
	}
}

func TestLengthsAreBounded(t *testing.T) {
	in := example(t, hub.MassSilence, German)
	long := strings.Repeat("ä", 1<<20)
	in.Names = Names{Customer: long, Host: long, Guest: long, Hosts: map[string]string{}}
	in.Event.Hosts, _ = manyHosts(100_000)
	for _, id := range in.Event.Hosts {
		in.Names.Hosts[id] = long
	}
	in.Event.HostID, in.Event.GuestID, in.Detail, in.Event.Type = long, long, long, hub.MassSilence
	text := Write(in)
	if n := utf8.RuneCountInString(text.Subject); n > maxSubject {
		t.Errorf("the subject has %d characters", n)
	}
	if n := utf8.RuneCountInString(text.Render(Markdown)); n > 4000 {
		t.Errorf("the text has %d characters", n)
	}
}

func TestOnlyWebAddressesAreLinkedTo(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"https://wiki.example/a?b=c#d", "https://wiki.example/a?b=c#d"},
		{"http://10.0.0.1/", "http://10.0.0.1/"},
		{"https://wiki.example/a)|<x>`*", "https://wiki.example/a%29%7C%3Cx%3E%60%2A"},
		{"javascript:alert(1)", ""}, {"data:text/html,x", ""}, {"//wiki.example", ""}, {"wiki", ""}, {"", ""},
		{"https://user:pw@wiki.example/", ""}, {"https://wiki.example/a\nb", ""}, {"https:///nohost", ""},
		{"https://wiki.example/" + strings.Repeat("a", maxURL), ""},
	} {
		if got := WebURL(c.in); got != c.want {
			t.Errorf("WebURL(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestTimesAreTheReaders(t *testing.T) {
	in := example(t, hub.HostDown, German)
	in.Event.At = time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC) // 02:30 comes twice that night
	first := Write(in).Render(Plain)
	in.Event.At = in.Event.At.Add(time.Hour)
	second := Write(in).Render(Plain)
	for _, c := range []struct{ text, want string }{
		{first, "Alarm seit: So 25.10.2026, 02:30 Uhr CEST"}, {second, "Alarm seit: So 25.10.2026, 02:30 Uhr CET"}, {second, "Letzter Bericht: So 25.10.2026, 02:30 Uhr CEST"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("%q is not in\n%s", c.want, c.text)
		}
	}
	in.Reader = Reader{English, zoneOf(t, "America/Sao_Paulo")}
	if text := Write(in).Render(Plain); !strings.Contains(text, "Alarm since: Sat 24 Oct 2026, 22:30 UTC-03") {
		t.Errorf("a zone without an abbreviation:\n%s", text)
	}
	in.Reader = Reader{}
	if text := Write(in).Render(Plain); !strings.Contains(text, "Alarm since: Sun 25 Oct 2026, 01:30 UTC") {
		t.Errorf("without a zone:\n%s", text)
	}
}

func TestDurations(t *testing.T) {
	for _, c := range []struct {
		d                    time.Duration
		english, seit, dauer string
	}{
		{0, "0 seconds", "0 Sekunden", "0 Sekunden"},
		{1900 * time.Millisecond, "1 second", "1 Sekunde", "1 Sekunde"},
		{30*time.Minute + 59*time.Second, "30 minutes", "30 Minuten", "30 Minuten"},
		{time.Hour, "1 hour", "1 Stunde", "1 Stunde"},
		{2*time.Hour + 3*time.Minute, "2 hours 3 minutes", "2 Stunden und 3 Minuten", "2 Stunden und 3 Minuten"},
		{51 * time.Hour, "2 days 3 hours", "2 Tagen und 3 Stunden", "2 Tage und 3 Stunden"},
		{24*time.Hour + time.Minute, "1 day", "1 Tag", "1 Tag"},
	} {
		if e, s, d := english.duration(c.d, true), german.duration(c.d, true), german.duration(c.d, false); e != c.english || s != c.seit || d != c.dauer {
			t.Errorf("%s: %q, seit %q, Dauer %q", c.d, e, s, d)
		}
	}
}

// TestLateDetectionTellsTheWholeSilence: the hub was blind when the threshold was reached.
func TestLateDetectionTellsTheWholeSilence(t *testing.T) {
	in := example(t, hub.HostDown, English)
	in.Event.DetectedAt = in.Event.At.Add(2 * time.Hour)
	if s := Write(in).Subject; s != "pve-acme-01 is down: no report for 3 hours (Acme GmbH)" {
		t.Errorf("the subject is %q", s)
	}
}

func TestUnknownSilenceLeavesItOut(t *testing.T) {
	for _, kind := range allTypes() {
		for _, language := range []Language{English, German} {
			in := example(t, kind, language)
			in.Event.SilenceSeconds = 0
			text := whole(Write(in))
			for _, bad := range []string{"[", "]", "{", "}", "  ", " .", "seit nicht", "for."} {
				body, _, _ := strings.Cut(text, "--- markdown ---")
				if strings.Contains(body, bad) {
					t.Errorf("%q stands in\n%s", bad, body)
				}
			}
		}
	}
}

func TestDigest(t *testing.T) {
	at := time.Date(2026, 11, 28, 13, 0, 0, 0, time.UTC)
	in := DigestInput{CustomerID: "acme", Customer: "Acme GmbH", From: at, To: at.Add(5 * time.Minute)}
	for i := range 10_000 {
		kind := []hub.EventType{hub.HostStale, hub.HostDown, hub.HostStale, "backup_failed", hub.HostRecovered}[i%5]
		in.Events = append(in.Events, Counted{Type: kind, Severity: kind.Severity(), HostID: fmt.Sprintf("acme-%04d", i%300)})
	}
	for i := range 30 {
		in.Events = append(in.Events, Counted{Type: hub.EventType(fmt.Sprintf("odd_%02d", i)), Severity: "odd"})
	}
	if got := Digest(DigestInput{From: at, To: at, Events: in.Events[:1]}).Subject; got != "1 more event" {
		t.Errorf("the subject of one event is %q", got)
	}
	for _, language := range []Language{English, German} {
		in.Reader = Reader{language, zoneOf(t, "Europe/Berlin")}
		text := Digest(in)
		golden(t, filepath.Join(string(language), "digest.txt"), whole(text))
		slices.Reverse(in.Events)
		if again := Digest(in); whole(again) != whole(text) {
			t.Error("the order of the events changes the digest")
		}
		if n := len(text.Render(Markdown)); n > 3000 {
			t.Errorf("the digest has %d bytes", n)
		}
	}
}

func TestParseLanguage(t *testing.T) {
	for _, c := range []struct {
		code string
		want Language
		ok   bool
	}{{"", English, true}, {"de", German, true}, {"en", English, true}, {"fr", "", false}, {"DE", "", false}} {
		if got, ok := ParseLanguage(c.code); got != c.want || ok != c.ok {
			t.Errorf("ParseLanguage(%q) = %q, %v", c.code, got, ok)
		}
	}
}

func TestRenderWithin(t *testing.T) {
	in := example(t, hub.MassSilence, German)
	in.Detail = strings.Repeat("a b", 300)
	text := Write(in)
	whole := utf8.RuneCountInString(text.Render(Markdown))
	for limit := whole + 10; limit > 0; limit -= 50 {
		got := text.RenderWithin(Markdown, limit)
		if n := utf8.RuneCountInString(got); n > limit && limit > 600 {
			t.Errorf("%d characters, the limit is %d", n, limit)
		}
		if strings.Count(got, "`")%2 != 0 || limit >= whole && got != text.Render(Markdown) {
			t.Errorf("within %d:\n%s", limit, got)
		}
	}
	if again := text.Render(Markdown); utf8.RuneCountInString(again) != whole {
		t.Error("the text itself was cut")
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "pve-01", " a  b\t", "\x1b[31m\u202e", "ä\xff\u0300", strings.Repeat("x ", 50)} {
		f.Add(seed, 10)
	}
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 1 + limit&63
		got := clean(s, limit)
		if n := utf8.RuneCountInString(got); n > limit || !utf8.ValidString(got) || strings.TrimSpace(got) != got || strings.Contains(got, "  ") {
			t.Errorf("clean(%q, %d) = %q", s, limit, got)
		}
		if strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("clean(%q) = %q", s, got)
		}
		if again := clean(got, limit); again != got {
			t.Errorf("cleaned again, %q becomes %q", got, again)
		}
	})
}
