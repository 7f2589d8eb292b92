package spool

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a wall clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// small are options under which a volume takes about four records.
func small(d *disk) Options {
	return Options{FS: d, MaxBytes: 1 << 30, VolumeBytes: 480, Logger: slog.New(slog.DiscardHandler), tend: time.Millisecond}
}

func open(t testing.TB, o Options) *Spool {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func report(body string) Record {
	return Record{Kind: hub.KindHostReport, HostID: "h-" + body[:min(len(body), 10)], CustomerID: "acme", KeyID: "k1", Body: []byte(body)}
}

func mustAppend(t testing.TB, s *Spool, bodies ...string) []hub.Receipt {
	t.Helper()
	receipts, err := appendAll(s, bodies...)
	if err != nil {
		t.Fatal(err)
	}
	return receipts
}

func appendAll(s *Spool, bodies ...string) ([]hub.Receipt, error) {
	var records []Record
	for _, b := range bodies {
		records = append(records, report(b))
	}
	return s.Append(context.Background(), records...)
}

// fillTo appends one record a time: "1", "2" and so on up to n.
func fillTo(t testing.TB, s *Spool, n int) (bodies []string) {
	t.Helper()
	for i := 1; i <= n; i++ {
		bodies = append(bodies, fmt.Sprint(i))
		mustAppend(t, s, bodies[i-1])
	}
	return bodies
}

// readAll returns all that lies behind from.
func readAll(t testing.TB, s *Spool, from Cursor) (entries []Entry) {
	t.Helper()
	r := s.Reader(from)
	defer r.Close()
	for {
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return entries
		}
		if want := report(string(e.Body)); e.HostID != want.HostID || e.CustomerID != want.CustomerID || e.KeyID != want.KeyID || e.Kind != want.Kind {
			t.Fatalf("read %+v, want the names of %+v", e, want)
		}
		entries = append(entries, e)
	}
}

func bodiesOf(entries []Entry) (bodies []string) {
	for _, e := range entries {
		bodies = append(bodies, string(e.Body))
	}
	return bodies
}

func wantBodies(t testing.TB, s *Spool, from Cursor, want []string) {
	t.Helper()
	got := bodiesOf(readAll(t, s, from))
	if slices.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("record %d of %d reads %.40q, want %.40q of %d", i, len(got), got[i], want[i], len(want))
		}
	}
	t.Fatalf("read %d records, want %d", len(got), len(want))
}

// recount compares the gauges with what a reader finds.
func recount(t testing.TB, s *Spool) {
	t.Helper()
	st, behind := s.Stats(), readAll(t, s, s.Cursor())
	if st.UnshippedRecords != int64(len(behind)) {
		t.Fatalf("UnshippedRecords is %d, a recount gives %d", st.UnshippedRecords, len(behind))
	}
	var oldest time.Time
	if len(behind) > 0 {
		oldest = behind[0].ReceivedAt
	}
	if !st.OldestUnshipped.Equal(oldest) {
		t.Fatalf("OldestUnshipped is %v, a recount gives %v", st.OldestUnshipped, oldest)
	}
	var disk int64
	volumes := 0
	names, _ := s.fs.List()
	for _, name := range names {
		if _, ok := parseVolumeName(name); !ok {
			continue
		}
		f, err := s.fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		_ = f.Close()
		disk += size
		if size > 0 { // of 0: a volume whose making failed
			volumes++
		}
	}
	if st.DiskBytes != disk || st.Volumes != volumes {
		t.Fatalf("the gauges say %d bytes in %d volumes, a recount gives %d in %d", st.DiskBytes, st.Volumes, disk, volumes)
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// logs collects what a spool logs.
type logs struct{ logtest.Buffer }

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logs) contain(text string) bool { return strings.Contains(l.String(), text) }
