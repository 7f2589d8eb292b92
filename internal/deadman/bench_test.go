package deadman

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
)

// BenchmarkDecide is the pure part of an evaluation: of a million hosts of which
// a thousand may change, and of a mass silence of 100,000, of a thousand customers.
func BenchmarkDecide(b *testing.B) {
	var dark []blind.Interval
	for i := range 500 {
		from := start.Add(-time.Duration(i+1) * time.Hour)
		dark = append(dark, blind.Interval{From: from, To: from.Add(time.Minute), Cause: blind.ProcessDown})
	}
	log := blind.New(dark...)
	for _, silent := range []int{1_000, 100_000} {
		evidence := make([]Evidence, silent)
		census := Census{}
		for i := range evidence {
			prev := &hub.HostState{HostID: fmt.Sprintf("host-%07d", i), State: hub.OK, Lifecycle: hub.Active, Last: position(1), LastAt: at(-time.Hour)}
			evidence[i] = Evidence{HostID: prev.HostID, CustomerID: fmt.Sprintf("c%d", i/100), Lifecycle: hub.Active, Thresholds: thresholds,
				Last: position(2), LastAt: at(time.Duration(i%300) * time.Second), Previous: prev}
			census.Count(evidence[i].CustomerID, "", 1)
		}
		b.Run(fmt.Sprint(silent), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in := Input{Rule: NewRule(at(50*time.Minute), log, designed), Evidence: evidence,
					Known: func(bool) Knowledge { return Knowledge{Census: census} }}
				if out := Decide(in); len(out.Hosts) != silent {
					b.Fatal(len(out.Hosts))
				}
			}
		})
	}
}

// A million states take less than 200 MB, names of the hosts apart, which the
// fleet has anyway.
func TestMemoryIsSmall(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("acme-%08x", i)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	m := newMemory()
	for i, id := range ids {
		s := hub.HostState{HostID: id, CustomerID: fmt.Sprint("c", i%5000), State: hub.OK, Since: at(0), LastAt: at(0), DecidedAt: at(0),
			Last: hub.Position{SpoolID: hub.SpoolID{byte(i % 90)}, Seq: uint64(i)}, Lifecycle: hub.Active}
		if i%100 == 0 { // these fell silent before
			s.Silences[hub.FlapMemory-1] = at(0)
		}
		m.put(s)
	}
	per := float64(heap()-before) / float64(n)
	runtime.KeepAlive(m)
	runtime.KeepAlive(ids)
	t.Logf("%.0f bytes a host", per)
	if per > 200 {
		t.Errorf("%.0f bytes a host: more than 200 MB for a million", per)
	}
}
