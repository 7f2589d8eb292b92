package ship_test

import (
	"context"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ship"
	"felhom.eu/hub/internal/simulate"
	"felhom.eu/hub/internal/spool"
)

// BenchmarkShip drains a backlog of realistic reports (12 guests, about 2.6 KB)
// into the engine on the same machine.
func BenchmarkShip(b *testing.B) {
	db, err := clickhouse.Open(clickhouse.Options{DSN: enginetest.DSN(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(b.Context(), time.Now()); err != nil {
		b.Fatal(err)
	}
	sp, err := spool.Open(spool.Options{Dir: b.TempDir(), MaxBytes: 32 << 30, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer sp.Close()
	agent := simulate.NewAgent(1, "acme-1", 12)
	var body []byte
	for range b.N {
		body = agent.AppendReport(body[:0], time.Now())
		if _, err := sp.Append(b.Context(), spool.Record{Kind: hub.KindHostReport, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	s := ship.New(ship.Options{Spool: sp, Store: db, Linger: time.Millisecond, Logger: quiet})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.SetBytes(int64(len(body)))
	b.ResetTimer()
	go s.Run(ctx)
	for sp.Stats().UnshippedRecords > 0 {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reports/s")
}

// BenchmarkShipInherited drains what a hub left that died a hundred times before
// it shipped anything: a hundred volumes of 200 reports.
func BenchmarkShipInherited(b *testing.B) {
	const volumes, reports = 100, 200
	db, err := clickhouse.Open(clickhouse.Options{DSN: enginetest.DSN(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(b.Context(), time.Now()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		open := func() *spool.Spool {
			sp, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 32 << 30, Logger: quiet})
			if err != nil {
				b.Fatal(err)
			}
			return sp
		}
		agent := simulate.NewAgent(1, "acme-1", 12)
		for range volumes {
			sp := open()
			records := make([]spool.Record, reports)
			for i := range records {
				records[i] = spool.Record{Kind: hub.KindHostReport, HostID: "acme-1", CustomerID: "acme", KeyID: "k1", Body: agent.AppendReport(nil, time.Now())}
			}
			if _, err := sp.Append(b.Context(), records...); err != nil {
				b.Fatal(err)
			}
			_ = sp.Close()
		}
		sp := open()
		s := ship.New(ship.Options{Spool: sp, Store: db, Logger: quiet})
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan struct{})
		b.StartTimer()
		go func() { s.Run(ctx); close(ended) }()
		for sp.Stats().UnshippedRecords > 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-ended
		_ = sp.Close()
	}
	b.ReportMetric(float64(b.N*volumes*reports)/b.Elapsed().Seconds(), "reports/s")
}
