package message

import (
	"html"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dialect says how the parts of a text are written down.
type Dialect struct {
	Own     func(string) string              // our own words
	Foreign func(string) string              // somebody else's: no link, no mention, no markup
	Strong  func(string) string              // our own words, emphasized
	Link    func(label, url string) string   // url is of WebURL
	Item    func(label, value string) string // one line of facts
}

// Plain is text without any markup.
var Plain = Dialect{
	Own:     same,
	Foreign: same,
	Strong:  same,
	Link:    func(label, url string) string { return label + ": " + url },
	Item:    func(label, value string) string { return label + ": " + value },
}

// Markdown is CommonMark, as Discord and many others read it. What is foreign
// stands in code spans: in them no dialect of Markdown makes a link or a mention,
// while escaping is undone differently by each.
var Markdown = Dialect{
	Own:     same,
	Foreign: code,
	Strong:  func(s string) string { return "**" + s + "**" },
	Link:    func(label, url string) string { return "[" + label + "](<" + url + ">)" },
	Item:    func(label, value string) string { return "- **" + label + ":** " + value },
}

// Slack is Slack's mrkdwn.
var Slack = Dialect{
	Own:     escapeSlack,
	Foreign: func(s string) string { return code(escapeSlack(s)) },
	Strong:  func(s string) string { return "*" + escapeSlack(s) + "*" },
	Link:    func(label, url string) string { return "<" + escapeSlack(url) + "|" + escapeSlack(label) + ">" },
	Item:    func(label, value string) string { return "• *" + escapeSlack(label) + ":* " + value },
}

// HTML is the little HTML that Telegram takes.
var HTML = Dialect{
	Own:     html.EscapeString,
	Foreign: func(s string) string { return "<code>" + html.EscapeString(s) + "</code>" },
	Strong:  func(s string) string { return "<b>" + html.EscapeString(s) + "</b>" },
	Link: func(label, url string) string {
		return `<a href="` + html.EscapeString(url) + `">` + html.EscapeString(label) + "</a>"
	},
	Item: func(label, value string) string { return "<b>" + html.EscapeString(label) + ":</b> " + value },
}

func same(s string) string { return s }

// code makes a code span. A backtick would end it.
func code(s string) string { return "`" + strings.ReplaceAll(s, "`", "'") + "`" }

func escapeSlack(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// Render writes the text down: the lead, the facts, the links, each on lines of
// its own. The subject is not in it.
func (t Text) Render(d Dialect) string {
	lines := []string{d.spans(t.Lead), ""}
	for _, f := range t.Facts {
		lines = append(lines, d.Item(f.Label, d.spans(f.Value)))
	}
	if len(t.Links) > 0 {
		lines = append(lines, "")
	}
	for _, l := range t.Links {
		lines = append(lines, d.Link(l.Label, l.URL))
	}
	return strings.Join(lines, "\n") + "\n"
}

func (d Dialect) spans(spans []Span) string {
	var b strings.Builder
	for _, s := range spans {
		switch {
		case s.Text == "": // an empty code span would be two backticks
		case s.Foreign:
			b.WriteString(d.Foreign(s.Text))
		default:
			b.WriteString(d.Own(s.Text))
		}
	}
	return b.String()
}

// The longest foreign texts, in characters.
const (
	maxID     = 140
	maxName   = 80
	maxDetail = 600
)

// clean makes foreign text fit for one line: no control or format characters
// (which turn the direction of writing around, or hide), no line breaks, no
// doubled spaces, no broken UTF-8, and at most limit characters.
func clean(s string, limit int) string {
	if len(s) > 16*limit { // so that a long text costs no more than a short one
		s = s[:16*limit]
	}
	var b strings.Builder
	space, n := false, 0
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			space = n > 0
			continue
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs):
			continue
		}
		need := 1
		if space {
			need = 2
		}
		if n+need > limit {
			return strings.TrimRight(cutLast(b.String()), " ") + "…"
		}
		if space {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
		n, space = n+need, false
	}
	return b.String()
}

// cutLast takes the last character away, to make room for an ellipsis.
func cutLast(s string) string {
	_, size := utf8.DecodeLastRuneInString(s)
	return s[:len(s)-size]
}

// RenderWithin is Render in at most limit characters: the longest facts are cut
// short, as often as it takes, but never inside of markup.
func (t Text) RenderWithin(d Dialect, limit int) string {
	text := t.Render(d)
	t.Facts = slices.Clone(t.Facts)
	for utf8.RuneCountInString(text) > limit {
		longest := 0
		for i := range t.Facts {
			if lengthOf(t.Facts[i].Value) > lengthOf(t.Facts[longest].Value) {
				longest = i
			}
		}
		if len(t.Facts) == 0 || lengthOf(t.Facts[longest].Value) <= shortest {
			return text // the rest is bounded by what is written in this package
		}
		t.Facts[longest].Value = halved(t.Facts[longest].Value)
		text = t.Render(d)
	}
	return text
}

func lengthOf(spans []Span) int {
	n := 0
	for _, s := range spans {
		n += utf8.RuneCountInString(s.Text)
	}
	return n
}

const shortest = 8 // characters that are not worth cutting

// halved drops the second half of what is there, and says so by an ellipsis.
func halved(spans []Span) []Span {
	if len(spans) > 2 {
		return append(slices.Clone(spans[:len(spans)/2]), Span{Text: "…"})
	}
	runes := []rune(spans[0].Text)
	return []Span{{string(runes[:len(runes)/2]) + "…", spans[0].Foreign}}
}
