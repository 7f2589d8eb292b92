package ingest

import (
	"context"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

func TestI16_ADiskThatDoesNotAnswerIsNoticed(t *testing.T) {
	now := time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)
	f := newFixture(t, func(o *Options) { o.Now = func() time.Time { return now } })
	if d := f.Stalled(); d != 0 {
		t.Errorf("an idle hub is stalled for %s", d)
	}
	f.spool.entered, f.spool.gate = make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		_, _, err := f.report(t.Context(), f.bearer("host/acme-1"), body("acme-1", 0))
		done <- err
	}()
	<-f.spool.entered
	if d := f.Stalled(); d != 0 {
		t.Errorf("stalled for %s at once", d)
	}
	now = now.Add(11 * time.Second)
	if d := f.Stalled(); d != 11*time.Second {
		t.Errorf("stalled for %s, want 11s", d)
	}
	close(f.spool.gate)
	if err := <-done; err != nil || f.Stalled() != 0 {
		t.Errorf("%v; afterwards stalled for %s", err, f.Stalled())
	}
}

// A customer whose reports all hang has half of the turns; its next report waits
// until its client goes, and another customer's is not held up.
func TestI22_ACustomerWaitsInItsOwnLine(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.MaxTurns = 4 })
	for range 2 {
		if !f.turns.Take("acme", 1) {
			t.Fatal("no turn at first")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := f.report(ctx, f.bearer("host/acme-1"), body("acme-1", 0)); hub.ReasonOf(err) != "client_gone" {
		t.Errorf("more than half of the turns: %v", err)
	}
	if _, _, err := f.report(t.Context(), f.bearer("fleet"), body("acme-1", 1)); err != nil {
		t.Errorf("a global key beside it: %v", err)
	}
	f.turns.Give("acme", 2)
	if _, _, err := f.report(t.Context(), f.bearer("host/acme-1"), body("acme-1", 2)); err != nil || f.turns.Used() != 0 {
		t.Errorf("afterwards: %v, %d turns in use", err, f.turns.Used())
	}
}
