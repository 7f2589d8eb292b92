package torture

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// line is the outcome of one fault.
type line struct {
	fault, dir string
	rounds     int
	recoveries []time.Duration
	rate       float64
	floor      float64
	verdict    *verdict // nil: it did not come so far
	err        error
}

// judge turns what is wrong into an error.
func (l *line) judge() {
	if v := l.verdict; v != nil && v.lost+v.doubled > 0 {
		l.err = errors.Join(l.err, fmt.Errorf("%d lost, %d doubled", v.lost, v.doubled))
	}
	if l.verdict != nil && l.rate < l.floor {
		l.err = errors.Join(l.err, fmt.Errorf("%.0f reports a second are under the floor of %.0f: this run proves nothing", l.rate, l.floor))
	}
}

const header = "fault           rounds acknowledged   lost doubled  recovery p50/max s   rate/s"

// String is the line of the table; below it, what went wrong and where to look.
func (l *line) String() string {
	if errors.Is(l.err, errSkip) {
		return fmt.Sprintf("%-15s skipped: %v\n", l.fault, l.err)
	}
	v := l.verdict
	if v == nil {
		return fmt.Sprintf("%-15s %6d  failed: %v\n  kept: %s\n", l.fault, l.rounds, l.err, l.dir)
	}
	slices.Sort(l.recoveries)
	var p50, worst float64
	if n := len(l.recoveries); n > 0 {
		p50, worst = l.recoveries[(n-1)/2].Seconds(), l.recoveries[n-1].Seconds()
	}
	text := fmt.Sprintf("%-15s %6d %12d %6d %7d  %8.2f /%8.2f %8.0f", l.fault, l.rounds, v.acknowledged, v.lost, v.doubled, p50, worst, l.rate)
	if v.excused > 0 {
		text += fmt.Sprintf("  (%d destroyed by the harness, and named by the hub)", v.excused)
	}
	text += "\n"
	if l.err == nil {
		return text
	}
	for _, place := range v.places {
		text += "  " + place + "\n"
	}
	return text + fmt.Sprintf("  failed: %v\n  kept: %s (hub.log, data/spool, clickhouse or data/clickhouse)\n", l.err, l.dir)
}
