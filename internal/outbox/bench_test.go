package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/spool"
)

// crowd is receivers by channel: the first of every ten channels does not answer.
type crowd struct {
	mu     sync.Mutex
	told   map[string]int // events that the receivers were told of
	single time.Time
}

type member struct {
	c    *crowd
	id   string
	dead bool
}

func (m member) Send(_ context.Context, n notify.Message) error {
	if m.dead {
		return &notify.Error{Class: notify.Unreachable}
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.told[m.id] += max(1, n.Count)
	if n.ID == "single" {
		m.c.single = time.Now()
	}
	return nil
}

func (c *crowd) sum() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, told := range c.told {
		n += told
	}
	return n
}

// BenchmarkCrowd is 10,000 events of 50 customers with 3 channels each, one in ten of
// which is dead, without a bound, on a real spool; single-ms is how soon another
// customer's only event is out meanwhile.
func BenchmarkCrowd(b *testing.B) {
	var single time.Duration
	for b.Loop() {
		single += crowded(b)
	}
	b.ReportMetric(float64(single.Milliseconds())/float64(b.N), "single-ms")
}

func crowded(t *testing.B) (single time.Duration) {
	const customers, events = 50, 10_000
	spec := hub.FleetSpec{Name: "felhom"}
	dead := map[string]bool{}
	for i := range customers + 1 {
		c := &hub.Customer{Name: fmt.Sprintf("c%d", i)}
		for k := range 3 {
			ch := &hub.Channel{Name: fmt.Sprintf("ch%d", k), Owner: hub.CustomerOwner(c.Name), MinSeverity: "info", URL: hub.NewSecret("x")}
			dead[ch.ID()] = i < customers && (3*i+k)%10 == 0
			c.Channels = append(c.Channels, ch)
		}
		spec.Customers = append(spec.Customers, c)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(spool.Options{Dir: t.TempDir(), MaxBytes: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	c := &crowd{told: map[string]int{}}
	b := outbox.New(outbox.Options{Journal: sp, Limit: -1, Fleet: func() *hub.Fleet { return fleet }, Logger: slog.New(slog.DiscardHandler),
		Sender: func(ch *hub.Channel) (notify.Sender, error) { return member{c, ch.ID(), dead[ch.ID()]}, nil }})
	b.Start()
	defer b.Stop()
	live := 0
	for id, is := range dead {
		if !is && id[:len("customer/c50")] != "customer/c50" {
			live++
		}
	}
	began := time.Now()
	event := func(id, customer string) hub.Event {
		return hub.Event{ID: id, Type: "backup_failed", Level: "warning", CustomerID: customer, At: began, DetectedAt: began, Source: "controller"}
	}
	for i := range events {
		b.Tell(event(fmt.Sprint("e", i), fmt.Sprintf("c%d", i%customers)))
	}
	asked := time.Now()
	b.Tell(event("single", "c50"))
	want := live*events/customers + 3
	for c.sum() < want {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("%d of %d are told", c.sum(), want)
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.single.Sub(asked)
}
