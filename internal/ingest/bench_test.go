package ingest

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// memory takes records and forgets them: what is measured is the decision.
type memory struct{}

func (memory) Append(context.Context, ...spool.Record) ([]hub.Receipt, error) {
	return []hub.Receipt{receipt(1)}, nil
}

// BenchmarkPost is the way of one report through the four steps, without a disk.
func BenchmarkPost(b *testing.B) {
	f := newFixture(b, func(o *Options) { o.Spool = memory{} })
	header := "Bearer " + f.keys["host/acme-1"].Reveal()
	from := netip.MustParseAddr("192.0.2.1")
	bodies := make([][]byte, 64) // more than are remembered: none is a retry
	for i := range bodies {
		bodies[i] = fmt.Appendf(nil, `{"host_id":"acme-1","reported_at":"2026-06-08T09:15:00Z","agent_version":"1","host":{"uptime_seconds":%d}}`, i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key, err := f.Identify(header, from)
		var customer string
		if err == nil {
			customer, err = f.Admit(key)
		}
		if err == nil {
			_, _, err = f.Accept(b.Context(), key, customer, bodies[i%len(bodies)])
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
