// Package message finds the words for events: a subject and a text, in English or
// German, that say what happened to which host of which customer, since when,
// what was last seen, and what to do next.
//
// A [Text] is kept as parts and becomes plain text, Markdown or a service's own
// markup by a [Dialect]. Names, reasons and what controllers say come from others:
// they are cut, lose their control characters, and stand where the dialect lets
// nothing become a link or a mention. Nothing here does I/O or reads a clock.
package message

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Language is one that the messages are written in.
type Language string

// The languages, by their codes of ISO 639.
const (
	English Language = "en"
	German  Language = "de"
)

// ParseLanguage reads a code; an empty one is English.
func ParseLanguage(code string) (Language, bool) {
	switch l := Language(code); l {
	case "":
		return English, true
	case English, German:
		return l, true
	}
	return "", false
}

// Names are what people call the things of an event. Each may be empty: then the
// id stands alone.
type Names struct {
	Customer, Host, Guest string
	Hosts                 map[string]string // display names of Event.Hosts, by id
}

// Reader is whom a message is for.
type Reader struct {
	Language Language       // empty: English
	Zone     *time.Location // for the times in the text; nil: UTC
}

// zones keeps the locations that were loaded: each is a file.
var zones sync.Map

// ReaderOf makes a reader of a language's code and a zone's IANA name. What is empty or
// not known is English, and UTC.
func ReaderOf(language, zone string) Reader {
	l, _ := ParseLanguage(language)
	if known, ok := zones.Load(zone); ok {
		return Reader{l, known.(*time.Location)}
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return Reader{l, time.UTC}
	}
	zones.Store(zone, location)
	return Reader{l, location}
}

// Input is what a message is made of.
type Input struct {
	Event  hub.Event
	Names  Names
	Detail string // what a controller said; empty: Event.Reason, where that is for people
	Links  Links
	Reader Reader
}

// Links are addresses to go on from. One that is not http or https is left out.
type Links struct{ Dashboard, Runbook string }

// LinksOf takes the links from a host's labels dashboard and runbook.
func LinksOf(labels map[string]string) Links {
	return Links{Dashboard: labels["dashboard"], Runbook: labels["runbook"]}
}

const maxURL = 2000 // characters; longer ones break mail and chat clients

// WebURL returns a URL in its normal form if it may be linked to: http or https, a
// host, no password in it, not overlong. Else it returns "".
func WebURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	// These are legal in places and end a link in one dialect or another.
	text = strings.NewReplacer("|", "%7C", "<", "%3C", ">", "%3E", `"`, "%22", "`", "%60", "(", "%28", ")", "%29", "*", "%2A", "\\", "%5C").Replace(u.String())
	if len(text) > maxURL {
		return ""
	}
	return text
}

// Text is a message before it is put into a dialect.
type Text struct {
	Subject string // one line of plain text, at most 200 characters
	Lead    []Span // one or two sentences
	Facts   []Fact
	Links   []Link
}

// Span is a piece of text; a foreign one was written by somebody else.
type Span struct {
	Text    string
	Foreign bool
}

// Fact is a line "Label: value".
type Fact struct {
	Label string
	Value []Span
}

// Link is an address of [WebURL] and what it is called.
type Link struct{ Label, URL string }

const maxSubject = 200

// Write finds the words for an event.
func Write(in Input) Text {
	w := writerFor(in)
	p := w.lang.phrase(in.Event.Type)
	if p.lead == "" { // a controller's own type
		p = w.lang.controllers
	}
	t := Text{Subject: w.subject(p.subject), Lead: w.fill(p.lead)}
	t.Facts = append(w.facts(), Fact{w.lang.next, own(p.next)})
	for _, l := range []Link{{w.lang.dashboard, in.Links.Dashboard}, {w.lang.runbook, in.Links.Runbook}} {
		if l.URL = WebURL(l.URL); l.URL != "" {
			t.Links = append(t.Links, l)
		}
	}
	return t
}

// Test finds the words that try a channel out.
func Test(channel string, reader Reader, at time.Time) Text {
	w := writerFor(Input{Reader: reader})
	name := clean(channel, maxName)
	before, after, _ := strings.Cut(w.lang.testLead, "{channel}")
	return Text{
		Subject: strings.ReplaceAll(w.lang.testSubject, "{channel}", name),
		Lead:    []Span{{Text: before}, {name, true}, {Text: after}},
		Facts:   []Fact{{w.lang.when, own(w.lang.date(at.In(w.zone)))}},
	}
}

func own(text string) []Span { return []Span{{Text: text}} }

// writer holds what is needed while one message is written.
type writer struct {
	in      Input
	lang    *language
	zone    *time.Location
	silence time.Duration // 0: the event is about none
}

func writerFor(in Input) *writer {
	w := &writer{in: in, lang: languages[in.Reader.Language], zone: in.Reader.Zone}
	if w.lang == nil {
		w.lang = languages[English]
	}
	if w.zone == nil {
		w.zone = time.UTC
	}
	e := &in.Event
	w.silence = time.Duration(e.SilenceSeconds * float64(time.Second))
	if w.silence > 0 && !Ends(e.Type) {
		// The silence goes on: tell how long it was when it was found, not the threshold.
		w.silence += max(0, e.DetectedAt.Sub(e.At))
	}
	return w
}

// subject fills a pattern in and names the customer.
func (w *writer) subject(pattern string) string {
	var b strings.Builder
	for _, s := range w.fill(pattern) {
		b.WriteString(s.Text)
	}
	if id := w.in.Event.CustomerID; id != "" {
		b.WriteString(" (" + clean(cmp.Or(w.in.Names.Customer, id), maxName) + ")")
	}
	return clean(b.String(), maxSubject)
}

// fill puts values into a pattern: {host} and the like become spans, and what
// stands in [brackets] goes where a value in it is empty.
func (w *writer) fill(pattern string) []Span {
	var spans []Span
	for pattern != "" {
		i := strings.IndexAny(pattern, "{[")
		if i < 0 {
			return append(spans, Span{Text: pattern})
		}
		if i > 0 {
			spans = append(spans, Span{Text: pattern[:i]})
		}
		closing := "}"
		if pattern[i] == '[' {
			closing = "]"
		}
		inner, rest, _ := strings.Cut(pattern[i+1:], closing)
		if pattern[i] == '{' {
			spans = append(spans, w.value(inner))
		} else if part := w.fill(inner); !slices.ContainsFunc(part, func(s Span) bool { return s.Text == "" }) {
			spans = append(spans, part...)
		}
		pattern = rest
	}
	return spans
}

func (w *writer) value(name string) Span {
	e := &w.in.Event
	switch name {
	case "host":
		return Span{clean(cmp.Or(w.in.Names.Host, e.HostID), maxName), true}
	case "it": // the guest, or the host where there is none
		if e.GuestID != "" {
			return Span{w.guest(), true}
		}
		return w.value("host")
	case "type":
		if title := w.lang.title(e.Type); title != "" {
			return Span{Text: title}
		}
		return Span{clean(string(e.Type), maxName), true}
	case "silence":
		if w.silence <= 0 {
			return Span{}
		}
		return Span{Text: w.lang.duration(w.silence, true)}
	case "hosts":
		return Span{Text: w.lang.count(len(e.Hosts))}
	}
	panic("message: no value " + name) // a slip in the tables, which a test walks through
}

func (w *writer) guest() string {
	_, vmid, _ := strings.Cut(w.in.Event.GuestID, "/")
	return clean(cmp.Or(w.in.Names.Guest, w.lang.guest+" "+vmid), maxName)
}

func (w *writer) facts() []Fact {
	e, l := &w.in.Event, w.lang
	facts := []Fact{{l.severity, own(l.severityName(e.Severity()))}}
	add := func(label string, value ...Span) { facts = append(facts, Fact{label, value}) }
	if e.CustomerID != "" {
		add(l.customer, named(w.in.Names.Customer, e.CustomerID)...)
	}
	if e.HostID != "" {
		add(l.host, named(w.in.Names.Host, e.HostID)...)
	}
	if e.GuestID != "" {
		add(l.guest, named(w.in.Names.Guest, e.GuestID)...)
	}
	facts = append(facts, w.times()...)
	if seen := w.seen(); len(seen) > 0 {
		add(l.seen, seen...)
	}
	if detail := clean(w.detail(), maxDetail); detail != "" {
		add(l.detail, Span{detail, true})
	}
	if len(e.Hosts) > 0 {
		add(l.hosts, w.hosts()...)
	}
	return facts
}

// named is "name (id)", or the id alone.
func named(name, id string) []Span {
	name, id = clean(name, maxName), clean(id, maxID)
	if name == "" || name == id {
		return []Span{{id, true}}
	}
	return []Span{{name, true}, {Text: " ("}, {id, true}, {Text: ")"}}
}

// times says since when, and when it was last heard of before.
func (w *writer) times() []Fact {
	e, l := &w.in.Event, w.lang
	fact := func(label string, t time.Time) Fact { return Fact{label, own(l.date(t.In(w.zone)))} }
	last := e.At.Add(-time.Duration(e.SilenceSeconds * float64(time.Second)))
	switch {
	case !hub.OwnEvent(e.Type):
		return []Fact{fact(l.when, e.At)}
	case e.SilenceSeconds <= 0 && Ends(e.Type):
		return []Fact{fact(l.again, e.At)}
	case e.SilenceSeconds <= 0:
		return []Fact{fact(l.since, e.At)}
	case Ends(e.Type):
		return []Fact{fact(l.before, last), fact(l.again, e.At), {l.lasted, own(l.duration(w.silence, false))}}
	case aboutDeadline(e.Type):
		return []Fact{fact(l.alarm, e.At), fact(l.lastSuccess, last)}
	}
	return []Fact{fact(l.alarm, e.At), fact(l.lastReport, last)}
}

// detail is what somebody wrote for people: a controller, or the hub for its
// operators. The switch's own reasons are figures for analysts and stay out.
func (w *writer) detail() string {
	if w.in.Detail != "" {
		return w.in.Detail
	}
	if w.in.Event.Source == "switch" && w.in.Event.Type != hub.HubSwitchHeld {
		return ""
	}
	return w.in.Event.Reason
}

// seen says what was last known of the host, or of the guest that it is about.
func (w *writer) seen() []Span {
	r := w.in.Event.LastSeen
	if r == nil {
		return nil
	}
	var parts [][]Span
	part := func(spans ...Span) { parts = append(parts, spans) }
	switch {
	case r.GuestStatus == "":
	case w.lang.statuses[r.GuestStatus] != "":
		part(Span{Text: w.lang.statuses[r.GuestStatus]})
	default:
		part(Span{clean(r.GuestStatus, maxID), true})
	}
	if r.PVEVersion != "" {
		part(Span{Text: "Proxmox VE "}, Span{clean(r.PVEVersion, maxID), true})
	}
	if n := int(r.Guests); n > 0 {
		part(Span{Text: w.lang.running(int(r.GuestsRunning), n)})
	}
	if p := r.MemPercent; p != nil {
		part(Span{Text: w.lang.memory + " " + w.lang.percent(*p)})
	}
	if p := r.DiskPercent; p != nil {
		part(Span{Text: w.lang.disk + " " + w.lang.percent(*p)})
	}
	var spans []Span
	for i, p := range parts {
		if i > 0 {
			spans = append(spans, Span{Text: ", "})
		}
		spans = append(spans, p...)
	}
	return spans
}

const maxHosts = 20 // of a mass silence; the event in ClickHouse has them all

func (w *writer) hosts() []Span {
	ids := w.in.Event.Hosts
	names := make([]string, 0, maxHosts)
	for _, id := range ids[:min(len(ids), maxHosts)] {
		names = append(names, cmp.Or(clean(w.in.Names.Hosts[id], maxName), clean(id, maxID)))
	}
	return w.lang.list(names, len(ids))
}

// Ends reports whether a type says that something is over.
func Ends(t hub.EventType) bool {
	switch t {
	case hub.HostRecovered, hub.ControllerRecovered:
		return true
	}
	return slices.ContainsFunc(hub.AllDeadlines(), func(d hub.Deadline) bool { return d.Met() == t })
}

func aboutDeadline(t hub.EventType) bool {
	return slices.ContainsFunc(hub.AllDeadlines(), func(d hub.Deadline) bool { return d.Overdue() == t || d.Met() == t })
}
