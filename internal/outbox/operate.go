package outbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/notify"
)

// Item is a message that waits for its channel, or is dead.
type Item struct {
	MessageID  string        `json:"message_id"`
	Channel    string        `json:"channel"`
	CustomerID string        `json:"customer_id"` // empty: the operators'
	Type       hub.EventType `json:"type"`        // of the event; of many "digest"
	HostID     string        `json:"host_id,omitempty"`
	Events     int           `json:"events"`
	QueuedAt   time.Time     `json:"queued_at"`
	Attempts   int           `json:"attempts"`
	Error      string        `json:"error,omitempty"` // class and status of the last failure
	Dead       bool          `json:"dead"`
}

// maxListed bounds a list.
const maxListed = 10_000

// List returns the messages that wait, and those that are dead or these alone, channel
// by channel, in the order in which they go. It is never nil.
func (b *Outbox) List(deadOnly bool) []Item {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := []Item{}
	ids := make([]string, 0, len(b.books.channels))
	for id := range b.books.channels {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		c := b.books.channels[id]
		for _, l := range c.dead {
			items = append(items, l.item(id, true))
		}
		if deadOnly {
			continue
		}
		for _, l := range c.inOrder() {
			if len(items) < maxListed {
				items = append(items, l.item(id, false))
			}
		}
	}
	return items
}

func (l *letter) item(channel string, dead bool) Item {
	i := Item{MessageID: l.id, Channel: channel, CustomerID: l.customer, Type: l.events[0].Type, HostID: l.events[0].HostID,
		Events: len(l.events), QueuedAt: l.queued, Attempts: l.attempt, Dead: dead}
	if l.digest {
		i.Type, i.HostID = notify.Digest, ""
	}
	if l.class != "" {
		i.Error = (&notify.Error{Class: notify.Class(l.class), Status: l.status}).Error()
	}
	return i
}

// Retry puts dead messages back into the queue, and tries channels that wait after
// failures at once: target is the id of a message or of a channel; empty means all.
// It returns how many messages were dead.
func (b *Outbox) Retry(target string) (retried int, err error) {
	b.mu.Lock()
	now := b.now()
	var deliveries []hub.Delivery
	var letters []*letter
	known := target == ""
	for id, c := range b.books.channels {
		if target == "" || target == id {
			known = true
			c.revive()
		}
		for _, l := range slices.Clone(c.dead) {
			if target == "" || target == id || target == l.id {
				known = true
				d := l.delivery(id, hub.DeliveryRetried, now)
				b.books.deliver(d)
				again := c.letters[l.id]
				again.ready = false
				deliveries, letters = append(deliveries, d), append(letters, again)
			}
		}
	}
	var entry *hub.Dispatch
	if len(deliveries) > 0 {
		entry = b.enter(deliveries...)
	}
	b.mu.Unlock()
	if !known {
		return 0, &hub.Error{Code: hub.Invalid, Reason: "unknown_message", Message: fmt.Sprintf("%q is neither a dead message nor a channel with messages", target), Hint: "hub notify list shows both"}
	}
	if entry != nil && !b.write(entry) {
		return 0, &hub.Error{Code: hub.Internal, Reason: "stopping", Message: "the hub stops"}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range letters {
		l.ready = true
	}
	for _, c := range b.books.channels {
		b.engage(c)
	}
	return len(letters), nil
}

// Test sends a message to a channel of the fleet that says that it is a test, past
// every queue, and records how that went.
func (b *Outbox) Test(ctx context.Context, channel string) error {
	fleet := b.o.Fleet()
	if fleet == nil {
		return &hub.Error{Code: hub.Invalid, Reason: "no_fleet", Message: "no fleet is in force yet"}
	}
	ch := channelNamed(fleet, channel)
	if ch == nil {
		return &hub.Error{Code: hub.Invalid, Reason: "unknown_channel", Message: fmt.Sprintf("the fleet in force has no channel %q", channel),
			Hint: "write fleet/<name> or customer/<customer>/<name>"}
	}
	m := testMessage(ch, fleet, b.now())
	began := b.now()
	sender, err := b.o.Sender(ch)
	if err == nil {
		err = sender.Send(ctx, m)
	} else {
		err = &notify.Error{Class: notify.Invalid}
	}
	d := hub.Delivery{MessageID: m.ID, EventIDs: []string{m.ID}, Channel: channel, CustomerID: m.Event.CustomerID, Attempt: 1,
		Status: hub.DeliverySent, At: b.now(), Latency: max(0, b.now().Sub(began))}
	var failed error
	if err != nil {
		problem := errorOf(err)
		d.Status, d.Class, d.HTTPStatus = hub.DeliveryDead, string(problem.Class), problem.Status
		failed = &hub.Error{Code: hub.Invalid, Reason: "not_delivered", Message: "the test was not delivered: " + problem.Error()}
	}
	b.mu.Lock()
	entry := b.enter(d)
	b.mu.Unlock()
	b.write(entry)
	return failed
}

// testMessage is recognised by its type and its id.
func testMessage(ch *hub.Channel, fleet *hub.Fleet, now time.Time) notify.Message {
	id := "test-" + strings.ToLower(rand.Text())
	e := hub.Event{ID: id, Type: "channel_test", At: now, DetectedAt: now, Source: "hub", Reason: "hub notify test"}
	if ch.Owner.Kind == hub.OwnerCustomer {
		e.CustomerID = ch.Owner.Name
	}
	return notify.Message{ID: id, Event: e, Text: message.Test(ch.Name, readerOf(ch, fleet), now), Labels: ch.Labels}
}

// Status is a glance at the outbox.
type Status struct {
	Queued   int                           // messages that wait, counted once for each channel
	Dead     int                           // of those that are kept
	Oldest   time.Time                     // when the oldest of those that wait could first have been sent; zero: none waits
	Unrouted int                           // events for which no channels were chosen yet
	Failing  int                           // channels whose last attempt failed
	Counts   map[hub.DeliveryStatus]uint64 // since the start
}

// Status takes one.
func (b *Outbox) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{Unrouted: len(b.books.unrouted), Counts: map[hub.DeliveryStatus]uint64{}}
	for status, n := range b.counts {
		s.Counts[status] = n
	}
	for _, c := range b.books.channels {
		s.Queued, s.Dead = s.Queued+len(c.letters), s.Dead+len(c.dead)
		if c.failures > 0 && len(c.letters) > 0 {
			s.Failing++
		}
		for _, q := range c.lanes {
			if at := q.oldest(); s.Oldest.IsZero() || !at.IsZero() && at.Before(s.Oldest) {
				s.Oldest = at
			}
		}
	}
	return s
}
