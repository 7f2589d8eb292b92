package demo

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	width       = 79               // of the live line: it must never wrap
	liveEvery   = 10 * time.Second // between two lines of counters where there is no terminal
	clearLine   = "\r\x1b[K"
	plainColour = "\x1b[0m"
)

// colours of what a line is about.
var colours = map[string]string{
	"host_stale": "\x1b[33m", "host_down": "\x1b[1;31m", "host_recovered": "\x1b[32m",
	"rejected": "\x1b[31m", "title": "\x1b[1m",
}

// screen writes lines that stay and, below them, one of counters: in place on a
// terminal, every now and then elsewhere. It is safe for concurrent use.
type screen struct {
	out      io.Writer
	terminal bool
	colour   bool

	mu     sync.Mutex
	live   string
	liveAt time.Time // when a line of counters was last written for good
}

func newScreen(out io.Writer, terminal bool) *screen {
	return &screen{out: out, terminal: terminal, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// print writes text that stays.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		text = clearLine + text + s.live
	}
	_, _ = io.WriteString(s.out, text) // a view that cannot be written is no reason to stop
}

// say writes one line: when, what about, what.
func (s *screen) say(at time.Time, about, format string, args ...any) {
	s.print(at.Local().Format(time.TimeOnly) + "  " + s.paint(about, fmt.Sprintf("%-14s", about)) + "  " + fmt.Sprintf(format, args...) + "\n")
}

// count shows the counters.
func (s *screen) count(now time.Time, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.terminal:
		s.live = cut(text, width)
		_, _ = io.WriteString(s.out, clearLine+s.live)
	case now.Sub(s.liveAt) >= liveEvery:
		s.liveAt = now
		_, _ = fmt.Fprintf(s.out, "%s  %-14s  %s\n", now.Local().Format(time.TimeOnly), "counters", text)
	}
}

// end leaves the last counters where they are.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal && s.live != "" {
		_, _ = io.WriteString(s.out, clearLine+s.live+"\n")
	}
	s.live = ""
}

func (s *screen) paint(about, text string) string {
	if colour := colours[about]; s.colour && colour != "" {
		return colour + text + plainColour
	}
	return text
}

// cut shortens text to so many characters.
func cut(text string, length int) string {
	if utf8.RuneCountInString(text) <= length {
		return text
	}
	return string([]rune(text)[:length-1]) + "…"
}

// number writes 1234567 as 1,234,567.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func plural(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return number(int64(n)) + " " + word
}

// brief writes a duration without zeros at its end: 30m, not 30m0s.
func brief(d time.Duration) string {
	text := d.String()
	if whole, ok := strings.CutSuffix(text, "m0s"); ok {
		text = whole + "m"
	}
	if whole, ok := strings.CutSuffix(text, "h0m"); ok {
		text = whole + "h"
	}
	return text
}

// seconds writes a duration for people to compare: "3.2 s".
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// quote makes a word safe to paste into a shell.
func quote(word string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"
	if word != "" && strings.Trim(word, safe) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// short is what people call a commit by.
func short(revision string) string { return revision[:min(7, len(revision))] }
