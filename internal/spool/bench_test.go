package spool

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

var benchRecord = Record{
	Kind: hub.KindHostReport, HostID: "acme-5f2c9a1e", CustomerID: "acme", KeyID: "k1",
	Body: bytes.Repeat([]byte("0123456789abcdef0123456789"), 100), // 2.6 KB
}

// BenchmarkAppend measures durable appends from 64 goroutines on a real disk
// (GOTMPDIR or TMPDIR must not be a tmpfs).
func BenchmarkAppend(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir(), MaxBytes: 64 << 30, VolumeBytes: 256 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(benchRecord.Body)))
	b.SetParallelism(32) // times GOMAXPROCS
	b.ReportAllocs()
	start := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Append(context.Background(), benchRecord); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "appends/s")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead measures what a shipper reads at most, from the page cache.
func BenchmarkRead(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir(), MaxBytes: 64 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const records = 50_000
	batch := make([]Record, 1000)
	for i := range batch {
		batch[i] = benchRecord
	}
	for range records / len(batch) {
		if _, err := s.Append(context.Background(), batch...); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(benchRecord.Body)))
	b.ReportAllocs()
	r := s.Reader(Cursor{})
	for b.Loop() {
		_, ok, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			_ = r.Close()
			r = s.Reader(Cursor{})
		}
	}
	_ = r.Close()
}

// BenchmarkOpen measures recovery: what a start costs with 1 GiB of records of
// 2.6 KB, read from the page cache.
func BenchmarkOpen(b *testing.B) {
	o := Options{Dir: b.TempDir(), MaxBytes: 64 << 30, Logger: slog.New(slog.DiscardHandler)}
	s, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	batch := make([]Record, 1000)
	for i := range batch {
		batch[i] = benchRecord
	}
	for s.Stats().UnshippedBytes < 1<<30 {
		if _, err := s.Append(context.Background(), batch...); err != nil {
			b.Fatal(err)
		}
	}
	size := s.Stats().UnshippedBytes
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	records := 0
	o.Recovered = func(Entry) { records++ }
	for b.Loop() {
		s, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(records)/float64(b.N), "records")
}
