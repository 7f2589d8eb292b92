package blind

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)

func minute(n float64) time.Time { return start.Add(time.Duration(n * float64(time.Minute))) }

func between(from, to float64) Interval { return Interval{minute(from), minute(to), ProcessDown} }

func TestReckoning(t *testing.T) {
	l := New(between(40, 50), between(10, 20), between(20, 25), between(12, 14), between(60, 60))
	for _, c := range []struct{ a, b, want float64 }{
		{0, 10, 0}, {0, 15, 5}, {0, 100, 25}, {11, 12, 1}, {24, 41, 2}, {25, 40, 0}, {50, 60, 0}, {45, 30, 0}, {30, 30, 0},
	} {
		want := minute(c.want).Sub(start)
		if got := l.Blind(minute(c.a), minute(c.b)); got != want {
			t.Errorf("Blind(%g, %g) = %s, want %s", c.a, c.b, got, want)
		}
		if got, want := l.Ready(minute(c.a), minute(c.b)), max(0, minute(c.b).Sub(minute(c.a)))-want; got != want {
			t.Errorf("Ready(%g, %g) = %s, want %s", c.a, c.b, got, want)
		}
	}
	for _, c := range []struct{ a, d, want float64 }{
		{0, 10, 10}, {0, 11, 26}, {12, 1, 26}, {15, 0, 15}, {25, 15, 40}, {25, 16, 51}, {0, 25, 40}, {60, 5, 65},
	} {
		if got := l.Advance(minute(c.a), minute(c.d).Sub(start)); !got.Equal(minute(c.want)) {
			t.Errorf("Advance(%g, %g) = %s, want minute %g", c.a, c.d, got.Sub(start), c.want)
		}
	}
	if long := l.Long(10 * time.Minute); fmt.Sprint(long) != fmt.Sprint([]Interval{{From: minute(10), To: minute(25)}}) {
		t.Errorf("Long: %v", long)
	}
	if cause, ok := l.At(minute(24)); !ok || cause != ProcessDown {
		t.Errorf("At: %q, %v", cause, ok)
	}
	if _, ok := l.At(minute(25)); ok {
		t.Error("the end of an interval belongs to it")
	}
}

func TestNilLogIsEmpty(t *testing.T) {
	var l *Log
	if l.Blind(minute(0), minute(9)) != 0 || l.Ready(minute(0), minute(9)) != 9*time.Minute ||
		!l.Advance(minute(1), time.Minute).Equal(minute(2)) || !l.Back(minute(2), time.Minute).Equal(minute(1)) ||
		len(l.Long(0)) != 0 || len(l.Add(between(1, 2)).Intervals()) != 1 || len(l.Since(minute(3)).Intervals()) != 0 {
		t.Error("a nil log does not reckon as an empty one")
	}
}

func TestAddAndSinceLeaveTheLogAsItWas(t *testing.T) {
	l := New(between(1, 2))
	if more := l.Add(between(1, 2), between(5, 6)); len(more.Intervals()) != 2 || len(l.Intervals()) != 1 {
		t.Errorf("Add: %v from %v", more.Intervals(), l.Intervals())
	}
	if less := l.Since(minute(2)); len(less.Intervals()) != 0 || len(l.Intervals()) != 1 {
		t.Errorf("Since: %v from %v", less.Intervals(), l.Intervals())
	}
}

// The arithmetic is that of a list of milliseconds, each blind or not.
func TestReckoningIsThatOfCounting(t *testing.T) {
	const length = 60
	rapid.Check(t, func(t *rapid.T) {
		instant := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
		number := rapid.IntRange(0, length)
		var dark [length]bool
		l := New()
		for range rapid.IntRange(0, 6).Draw(t, "intervals") {
			from, to := number.Draw(t, "from"), number.Draw(t, "to")
			l = l.Add(Interval{instant(from), instant(to), NotReady})
			for i := from; i < to; i++ {
				dark[i] = true
			}
		}
		ready := func(a, b int) (n int) {
			for i := a; i < b; i++ {
				if i < 0 || i >= length || !dark[i] {
					n++
				}
			}
			return n
		}
		a, b, d := number.Draw(t, "a"), number.Draw(t, "b"), rapid.IntRange(1, 2*length).Draw(t, "d")
		span := time.Duration(d) * time.Millisecond
		if got, want := l.Ready(instant(a), instant(b)), time.Duration(ready(a, b))*time.Millisecond; got != want {
			t.Fatalf("Ready = %s, want %s", got, want)
		}
		if b > a && l.Blind(instant(a), instant(b))+l.Ready(instant(a), instant(b)) != instant(b).Sub(instant(a)) {
			t.Fatal("blind and ready time are not all the time")
		}
		first := a
		for ready(a, first) < d {
			first++
		}
		if got := l.Advance(instant(a), span); !got.Equal(instant(first)) {
			t.Fatalf("Advance = %s, want %s", got.Sub(start), instant(first).Sub(start))
		}
		last := b
		for ready(last, b) < d {
			last--
		}
		if got := l.Back(instant(b), span); !got.Equal(instant(last)) {
			t.Fatalf("Back = %s, want %s", got.Sub(start), instant(last).Sub(start))
		}
	})
}
