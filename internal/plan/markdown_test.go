package plan

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var markup = regexp.MustCompile(`<code>|</code>|&#[0-9]+;`)

// TestNothingBreaksOutOfACell writes any text into a table: what is left without
// the tags and entities of ours holds nothing that Markdown or HTML would take
// for its own.
func TestNothingBreaksOutOfACell(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("|`@<>&#*_[]()!\\\n\r\t.:/~$w\u202e\u200b\x1b")), 0, 30, -1)).Draw(t, "text")
		p := &Plan{Hosts: []HostChange{{Host: "h", Change: "renamed", From: text, To: text}}}
		lines := strings.Split(strings.TrimSpace(p.Markdown()), "\n")
		row := lines[len(lines)-1]
		if n := strings.Count(row, "|"); n != 7 {
			t.Fatalf("%d bars in %q", n, row)
		}
		rest := markup.ReplaceAllString(strings.ReplaceAll(row, "|", ""), "")
		if i := strings.IndexAny(rest, "|`@<>&#*_[]!\\~$:\x1b\u202e"); i >= 0 {
			t.Fatalf("%q is left of %q", rest[i:], row)
		}
		if strings.Contains(p.Text(), "\x1b") {
			t.Fatal("a terminal would be steered")
		}
	})
}
