package plan

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// Marker is the first line of Markdown: by it a job finds its earlier comment.
	Marker = "<!-- hub fleet plan -->"

	maxMarkdown = 60_000 // bytes; a comment on GitHub holds 65,536 characters
	foldedOver  = 10     // rows
	maxCell     = 160    // characters of a cell
	maxSentence = 600    // characters of one of a mistake
	moreRoom    = 100    // bytes that a section keeps for its end
)

// Markdown shows the plan as a comment on a pull request: at most 60,000 bytes,
// long tables folded, what does not fit counted. Nothing that stands in the
// files can break out of its cell, mention anybody or become a link.
func (p *Plan) Markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n**%s** %s\n\n%s\n", Marker, verdictWords[p.Verdict], escape(p.Summary), escape(p.commits()))
	sections := p.sections()
	for i, s := range sections {
		// What one section leaves is there for the next.
		s.markdown(&out, (maxMarkdown-out.Len())/(len(sections)-i))
	}
	return out.String()
}

var verdictWords = map[Verdict]string{Nothing: "No change.", Applies: "Will be applied.", Held: "HELD.", Rejected: "REJECTED."}

// markdown writes the section into at most room bytes.
func (s section) markdown(out *strings.Builder, room int) {
	begin := out.Len()
	folded := len(s.rows) > foldedOver
	if folded {
		fmt.Fprintf(out, "\n<details><summary><b>%s</b> (%d)</summary>\n", s.title, len(s.rows))
	} else {
		fmt.Fprintf(out, "\n**%s**\n", s.title)
	}
	if s.note != "" {
		fmt.Fprintf(out, "\n%s\n", s.note)
	}
	out.WriteString("\n|")
	for _, c := range s.columns {
		out.WriteString(" " + c.name + " |")
	}
	out.WriteString("\n|" + strings.Repeat(" --- |", len(s.columns)) + "\n")
	for i, row := range s.rows {
		line := s.line(row)
		if out.Len()-begin+len(line)+moreRoom > room {
			fmt.Fprintf(out, "\n… and %d more\n", len(s.rows)-i)
			break
		}
		out.WriteString(line)
	}
	if folded {
		out.WriteString("\n</details>\n")
	}
}

func (s section) line(row []string) string {
	var b strings.Builder
	b.WriteString("|")
	for i, cell := range row {
		most := maxCell
		if s.whole {
			most = maxSentence
		}
		text := escape(clip(cell, most))
		if s.columns[i].quoted && text != "" {
			text = "<code>" + text + "</code>"
		}
		b.WriteString(" " + text + " |")
	}
	return b.String() + "\n"
}

func clip(text string, characters int) string {
	if utf8.RuneCountInString(text) <= characters {
		return text
	}
	return string([]rune(text)[:characters-1]) + "…"
}

// plainMarkdown are the ASCII characters, beside letters and digits, that mean
// nothing in Markdown or HTML within a line.
const plainMarkdown = " ,;()/+=?%-"

// escape writes text so that it reads as it is. An entity never begins or ends
// anything in Markdown; after @ comes a space of no width, since the look for
// mentions and addresses is made after entities were resolved.
func escape(text string) string {
	var b strings.Builder
	text = printable(text)
	for i, r := range text {
		switch {
		case r == '.' && (i+1 == len(text) || text[i+1] == ' '): // the end of a sentence, and no part of an address
			b.WriteRune(r)
		case r > unicode.MaxASCII, r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', strings.ContainsRune(plainMarkdown, r):
			b.WriteRune(r)
		case r == '@':
			b.WriteString("&#64;\u200b")
		default:
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}

// printable puts a mark for every character that is none a reader can see:
// control characters, line ends, those that turn the direction of text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, strings.ToValidUTF8(text, "\uFFFD"))
}
