package app

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCourse: one trouble is told once, when its signs have lasted; what comes and goes
// is one trouble until it has been well for a while.
func TestCourse(t *testing.T) {
	const after = 10 // minutes, as ailmentCalms
	for name, c := range map[string]struct{ signs, want string }{
		// A letter a minute: x ill, . well. Of the result: T told, - nothing to tell of, o otherwise.
		"never":              {"....", "----"},
		"short":              {"xxxxx....", "ooooo----"},
		"long":               {"xxxxxxxxxxxxxx", "ooooooooooTooo"},
		"with a break":       {"xxxxxxxxx.xxxxxxxxxxxx", "ooooooooo-ooooooooooTo"},
		"told, comes back":   {"xxxxxxxxxxx.....xxxxxxxxxxxxxxx", "ooooooooooToooooooooooooooooooo"},
		"told, over, again":  {"xxxxxxxxxxx............xxxxxxxxxxxx", "ooooooooooToooooooooo--ooooooooooTo"},
		"told, comes and is": {"xxxxxxxxxxx.........x.........x..........x", "ooooooooooTooooooooooooooooooooooooooooooo"},
	} {
		t.Run(name, func(t *testing.T) {
			var course *course
			var got strings.Builder
			start := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
			for minute, sign := range c.signs {
				next, tell := course.next(start.Add(time.Duration(minute)*time.Minute), sign == 'x', after*time.Minute)
				switch {
				case tell:
					next.Told = true
					fmt.Fprint(&got, "T")
				case next == nil:
					fmt.Fprint(&got, "-")
				default:
					fmt.Fprint(&got, "o")
				}
				course = next
			}
			if got.String() != c.want {
				t.Errorf("\n%s gives\n%s, want\n%s", c.signs, got.String(), c.want)
			}
		})
	}
}
