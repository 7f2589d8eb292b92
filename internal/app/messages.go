package app

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbound"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/spool"
)

// openOutbox makes the outbox and gives it what the last run kept; the records of the
// spool come behind.
func (a *App) openOutbox(j outbox.Journal) {
	current := func() *hub.Fleet { return a.roster.Current() }
	a.outbox = outbox.New(outbox.Options{
		Journal: j, Fleet: current, Grace: stopMessages, Now: a.now, Logger: a.log.With("part", "outbox"),
		Sender: func(ch *hub.Channel) (notify.Sender, error) {
			return a.senders.of(current().Outbound()).Parse(ch.URL)
		},
	})
	kept, err := spool.ReadStateIn(filepath.Join(a.cfg.DataDir, spoolFolder), outbox.StateName)
	if err == nil {
		err = a.outbox.Restore(kept)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("messages that waited longer than the spool keeps its records are lost", "error", err)
	}
}

// tell hands events over that are durable.
func (a *App) tell(events []hub.Event) {
	a.late.note(events, a.slot())
	a.outbox.Tell(events...)
}

// senders go by the private networks that the fleet in force allows.
type senders struct {
	mu    sync.Mutex
	allow []netip.Prefix
	made  *notify.Senders
}

func (s *senders) of(allow []netip.Prefix) *notify.Senders {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == nil || !slices.Equal(allow, s.allow) {
		if s.made != nil {
			s.made.Close()
		}
		s.made, s.allow = notify.New(notify.Options{Guard: outbound.New(allow)}), allow
	}
	return s.made
}

func (s *senders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made != nil {
		s.made.Close()
	}
}

// haltMessages stops the outbox and writes down what waits in it.
func (a *App) haltMessages() {
	a.outbox.Stop()
	a.senders.close()
	if err := a.spool.WriteState(outbox.StateName, a.outbox.Snapshot()); err != nil {
		// The spool keeps the same for as long as its volumes stay.
		a.log.Warn("the state of the outbox could not be written", "error", err)
	}
}

// notifications is what hub notify asks.
func (a *App) notifications() *httpapi.Notifications {
	return &httpapi.Notifications{
		List: func(deadOnly bool) any { return a.outbox.List(deadOnly) },
		Retry: func(target string) (any, error) {
			n, err := a.outbox.Retry(target)
			return map[string]int{"retried": n}, err
		},
		Test: func(ctx context.Context, channel string) (any, error) {
			began := time.Now()
			err := a.outbox.Test(ctx, channel)
			return map[string]float64{"seconds": time.Since(began).Seconds()}, err
		},
	}
}

func (a *App) messageMetrics() []httpapi.Metric {
	list := []httpapi.Metric{
		{Name: "hub_messages_queued", Help: "Messages that wait for their channel.", Value: func() float64 { return float64(a.outbox.Status().Queued) }},
		{Name: "hub_messages_dead", Help: "Messages that were given up and are kept for a retry.", Value: func() float64 { return float64(a.outbox.Status().Dead) }},
		{Name: "hub_messages_oldest_seconds", Help: "How long the oldest message waits, in seconds.", Value: func() float64 { return age(a.now(), a.outbox.Status().Oldest) }},
		{Name: "hub_channels_failing", Help: "Channels with messages whose last attempt failed.", Value: func() float64 { return float64(a.outbox.Status().Failing) }},
	}
	for _, status := range []hub.DeliveryStatus{hub.DeliverySent, hub.DeliveryFailed, hub.DeliveryDead, hub.DeliveryCollapsed,
		hub.DeliveryDigested, hub.DeliveryDropped, hub.DeliveryRetried} {
		list = append(list, httpapi.Metric{Name: "hub_deliveries_total", Help: "What became of messages, as in the table notifications.", Counter: true,
			Labels: map[string]string{"status": string(status)}, Value: func() float64 { return float64(a.outbox.Status().Counts[status]) }})
	}
	return list
}
