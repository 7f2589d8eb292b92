// Package outbox brings events to the people they are for.
//
// Its disk is the spool. An event that is durable there is a message to be sent; a
// record of kind delivery says by which channels it goes (a route), and then what
// became of it on each. What is in memory, the books, is a snapshot, and the events
// and deliveries that the spool holds, entered one by one. So a crash at any instant
// loses nothing; and since a channel does one thing after the other, sends and then
// has it recorded, at most one message a channel comes twice, under the id that it
// had.
//
// # Order
//
// Of a channel, each customer has a lane of its own: first in, first out, so that the
// order per host is kept. The lanes take turns. One worker serves a channel while
// there is something to do for it; there is none for the others. A channel that fails
// waits, with everything in it, from up to 1 s to up to 1 h, and longer where it asks
// for that; after a day its messages are dead. A message that is refused is dead at
// once; one with which the receiver has a fault five times waits by itself, with what
// is behind it about the same hosts, and others pass it. Dead ones are kept, and go
// again when an operator says so.
//
// # Beginnings and ends
//
// What ends an alarm goes to the channels to which the alarm of its episode went, and
// to no others. Where the alarm was not sent yet, and no attempt was made that may
// have reached somebody, both collapse. A silence that is folded into a mass silence
// was told where that was.
//
// # Bounds
//
// A channel tells at most Limit messages of one customer in 5 minutes. What is over
// it waits, and when there is room goes as one digest: its own message, whose id
// follows from the events in it, and which is durable before it is sent.
package outbox

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// Journal makes records durable. See spool.Spool.
type Journal interface {
	Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error)
}

// Options are the parts of an Outbox. Journal, Fleet and Sender are needed.
type Options struct {
	Journal Journal
	Fleet   func() *hub.Fleet // nil: none in force; then nothing goes out
	// Sender makes a sender for a channel's URL; an error means that it cannot be used.
	Sender func(*hub.Channel) (notify.Sender, error)

	Limit   int           // messages of a customer on a channel in 5 minutes; 0: 20; negative: without bound
	Workers int           // at most at a time; default 128. A quarter of them may be with channels that failed last
	Grace   time.Duration // that a delivery under way has when the outbox stops; default 3 s

	Now    func() time.Time // default time.Now; what waits goes by the machine's clock
	Jitter func() float64   // of [0, 1); default rand.Float64
	Logger *slog.Logger     // default slog.Default
}

func (o Options) withDefaults() Options {
	if o.Limit == 0 {
		o.Limit = 20
	}
	if o.Workers == 0 {
		o.Workers = 128
	}
	if o.Grace == 0 {
		o.Grace = 3 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Outbox is one. Its methods may be called by several goroutines; Restore and Recover
// come before Start.
type Outbox struct {
	o Options

	mu        sync.Mutex
	books     *books
	unwritten []*hub.Dispatch // entered in the books, and not durable yet, oldest first
	fleet     *hub.Fleet      // that the queues were last looked through for
	tidied    time.Time
	pool      pool
	counts    map[hub.DeliveryStatus]uint64
	running   bool
	first     bool // neither a snapshot nor a record of an outbox was found

	wake    chan struct{}
	ctx     context.Context // ends when the outbox stops
	stop    context.CancelFunc
	sending context.Context // ends a grace later
	abandon context.CancelFunc
	working sync.WaitGroup
}

// New returns an Outbox that does nothing yet.
func New(o Options) *Outbox {
	b := &Outbox{o: o.withDefaults(), books: newBooks(), counts: map[hub.DeliveryStatus]uint64{}, first: true, wake: make(chan struct{}, 1)}
	b.pool = pool{limit: b.o.Workers}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.sending, b.abandon = context.WithCancel(context.Background())
	return b
}

// Recover enters a record of the spool, and returns the events in it; call it in order
// for all that are kept. What cannot be read is left out: nothing is sent of it.
func (b *Outbox) Recover(e spool.Entry) (events []hub.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.Kind {
	case hub.KindDecision:
		if d, err := wire.DecodeDecision(e.Body); err == nil {
			events = d.Events
		}
	case hub.KindNotice:
		if n, err := wire.DecodeNotice(e.Body); err == nil {
			events = n.Events
		}
	case hub.KindControllerEvent:
		if sent, err := wire.DecodeControllerEvent(e.Body); err == nil {
			events = []hub.Event{sent.Event(e.CustomerID, e.Receipt)}
		}
	case hub.KindDelivery:
		d, err := wire.DecodeDispatch(e.Body)
		if err != nil {
			return nil
		}
		b.first = false
		b.unwritten = slices.DeleteFunc(b.unwritten, func(d *hub.Dispatch) bool { return bytes.Equal(recordsOf(d)[0].Body, e.Body) })
		b.apply(&d, e.ReceivedAt)
	}
	b.arrive(events)
	return events
}

func (b *Outbox) apply(d *hub.Dispatch, at time.Time) {
	for _, r := range d.Routes {
		b.books.route(r, at)
	}
	for _, v := range d.Deliveries {
		b.books.deliver(v)
	}
}

func (b *Outbox) arrive(events []hub.Event) (fresh bool) {
	for i := range events {
		fresh = b.books.arrive(own(events[i])) || fresh
	}
	return fresh
}

// own copies an event: what a controller sent lies in the body of its request.
func own(e hub.Event) *hub.Event {
	if e.Source == "controller" {
		e.Type, e.Level, e.Reason = hub.EventType(strings.Clone(string(e.Type))), strings.Clone(e.Level), strings.Clone(e.Reason)
		e.HostID, e.GuestID, e.CustomerID = strings.Clone(e.HostID), strings.Clone(e.GuestID), strings.Clone(e.CustomerID)
	}
	return &e
}

// Tell hands events over that are durable in the spool. It does not wait.
func (b *Outbox) Tell(events ...hub.Event) {
	b.mu.Lock()
	fresh := b.arrive(events)
	b.mu.Unlock()
	if fresh {
		b.call()
	}
}

// FleetChanged has the outbox go by the fleet in force: channels that left it, and
// such as failed and have another URL now.
func (b *Outbox) FleetChanged() { b.call() }

func (b *Outbox) call() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Start begins to send. On the first start ever what happened before is not told, to
// nobody's surprise; that this was the first is the first thing that is recorded.
func (b *Outbox) Start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.unwritten { // the snapshot has them, and records from before it undid them
		b.apply(d, b.now())
	}
	if b.first {
		b.begin()
	}
	for _, c := range b.books.channels {
		for _, q := range c.lanes {
			for _, l := range q.queue {
				l.ready = true
			}
			for _, l := range q.underWay() {
				l.doubt = true
			}
		}
	}
	b.running = true
	b.working.Go(b.clerk)
	b.call()
}

// begin routes what is there to nobody.
func (b *Outbox) begin() {
	d := &hub.Dispatch{}
	for _, id := range b.books.arrivals.all() {
		if _, ok := b.books.unrouted[id]; ok {
			d.Routes = append(d.Routes, hub.Route{EventID: id})
			b.books.route(hub.Route{EventID: id}, b.now())
		}
	}
	b.books.arrivals, b.first = arrivals{}, false
	b.unwritten = append(b.unwritten, d)
}

// Stop ends everything; what is under way has the grace. Keep the Snapshot after it.
// Calling it again does nothing.
func (b *Outbox) Stop() {
	b.mu.Lock()
	b.running = false
	for _, c := range b.books.channels {
		c.disarm()
	}
	b.mu.Unlock()
	b.stop()
	giveUp := time.AfterFunc(b.o.Grace, b.abandon)
	defer giveUp.Stop()
	b.working.Wait()
	b.abandon()
}

// clerk routes what arrives.
func (b *Outbox) clerk() {
	b.write(b.leftUnwritten()...)
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.wake:
		}
		for b.routeSome() {
		}
	}
}

func (b *Outbox) leftUnwritten() []*hub.Dispatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.unwritten)
}

const routedAtOnce = 1000 // events in one record

// routeSome routes what arrived, and reports whether there is more.
func (b *Outbox) routeSome() (more bool) {
	fleet := b.o.Fleet()
	if fleet == nil || b.ctx.Err() != nil {
		return false
	}
	b.mu.Lock()
	now := b.now()
	d := &hub.Dispatch{}
	if fleet != b.fleet || now.Sub(b.tidied) >= time.Hour {
		b.fleet, b.tidied = fleet, now
		d.Deliveries = b.tidy(fleet, now)
	}
	var letters []*letter
	for len(d.Routes) < routedAtOnce && len(d.Deliveries) < routedAtOnce {
		id, ok := b.books.arrivals.pop()
		if !ok {
			break
		}
		if e := b.books.unrouted[id]; e != nil {
			letters = append(letters, b.routeOne(e, fleet, d, now)...)
		}
	}
	more = len(b.books.arrivals.turns) > 0
	something := len(d.Routes)+len(d.Deliveries) > 0
	if something {
		b.unwritten = append(b.unwritten, d)
	}
	b.mu.Unlock()
	if something && !b.write(d) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range letters {
		l.ready = true
	}
	for _, c := range b.books.channels {
		c.parked = false
		b.engage(c)
	}
	return more
}

// routeOne decides who is told of an event, and enters it.
func (b *Outbox) routeOne(e *hub.Event, fleet *hub.Fleet, d *hub.Dispatch, now time.Time) []*letter {
	route := hub.Route{EventID: e.ID}
	switch ends := message.Ends(e.Type) && e.Episode != ""; {
	case ends:
		for _, id := range b.books.reached(e.Episode) {
			c := b.books.channel(id)
			collapsed := b.books.settle(e.Episode, c, now)
			d.Deliveries = append(d.Deliveries, collapsed...)
			switch {
			case e.Muted() || e.FoldedInto != "" || !mayTell(id, e.CustomerID):
			case b.books.conveyed(e.Episode, id):
				route.Channels = append(route.Channels, id)
			case len(collapsed) > 0:
				d.Deliveries = append(d.Deliveries, hub.Delivery{MessageID: e.ID, EventIDs: []string{e.ID}, Channel: id,
					CustomerID: e.CustomerID, Status: hub.DeliveryCollapsed, At: now})
			}
		}
	case e.Muted() || e.FoldedInto != "":
	default:
		for _, ch := range fleet.ChannelsFor(e.CustomerID) {
			if ch.Wants(e) {
				route.Channels = append(route.Channels, ch.ID())
			}
		}
	}
	d.Routes = append(d.Routes, route)
	return b.books.route(route, now)
}

// tidy looks the queues through for a fleet that is new: what is for a channel that
// left it is dropped, a channel with another URL is tried at once, and episodes of
// hosts that are gone are forgotten.
func (b *Outbox) tidy(fleet *hub.Fleet, now time.Time) (dropped []hub.Delivery) {
	for id, c := range b.books.channels {
		ch := channelNamed(fleet, id)
		if ch == nil {
			for _, l := range c.inOrder() {
				if !l.inFlight {
					dropped = append(dropped, l.delivery(id, hub.DeliveryDropped, now))
				}
			}
			c.dead = nil
		} else if c.url != ch.URL {
			c.revive()
		}
		c.sender = nil // where it may connect to may have changed as well
		c.lanes = slices.DeleteFunc(c.lanes, func(q *lane) bool { q.slide(now); return q.waiting+len(q.sent) == 0 })
	}
	for _, d := range dropped {
		b.books.deliver(d)
	}
	for id, c := range b.books.channels {
		if len(c.letters) == 0 && !c.working && !c.lined && channelNamed(fleet, id) == nil {
			c.disarm()
			delete(b.books.channels, id)
		}
	}
	b.books.forget(fleet, now)
	return dropped
}

// now is in whole milliseconds, as records are.
func (b *Outbox) now() time.Time { return b.o.Now().UTC().Truncate(time.Millisecond) }

// The most that stands in one record.
const (
	maxRoutes     = 10_000
	maxDeliveries = 2_000
)

// write makes dispatches durable that are in unwritten, however long that takes; false
// means that the outbox stopped before it did.
func (b *Outbox) write(dispatches ...*hub.Dispatch) bool {
	for _, d := range dispatches {
		records := recordsOf(d)
		for told := false; len(records) > 0; {
			_, err := b.o.Journal.Append(b.sending, records...)
			if err == nil {
				break
			}
			if b.ctx.Err() != nil {
				return false
			}
			if !told {
				b.o.Logger.Warn("what became of messages could not be recorded: nothing more is sent on their channels until it is", "error", err)
				told = true
			}
			if !b.sleep(time.Second) {
				return false
			}
		}
		b.written(d)
	}
	return true
}

// recordsOf encodes a dispatch, in records that are not too long.
func recordsOf(d *hub.Dispatch) (records []spool.Record) {
	routes, deliveries := d.Routes, d.Deliveries
	for first := true; first || len(routes) > 0 || len(deliveries) > 0; first = false {
		n, m := min(len(routes), maxRoutes), min(len(deliveries), maxDeliveries)
		part := hub.Dispatch{Routes: routes[:n], Deliveries: deliveries[:m]}
		routes, deliveries = routes[n:], deliveries[m:]
		body, err := wire.EncodeDispatch(part)
		if err != nil {
			panic("outbox: " + err.Error()) // a slip in this package: all of it is made here
		}
		records = append(records, spool.Record{Kind: hub.KindDelivery, Body: body})
	}
	return records
}

func (b *Outbox) written(d *hub.Dispatch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.unwritten {
		if other == d {
			b.unwritten = append(b.unwritten[:i:i], b.unwritten[i+1:]...)
			break
		}
	}
	for _, v := range d.Deliveries {
		b.counts[v.Status]++
	}
}

func (b *Outbox) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// errorOf returns what went wrong in words that may be kept.
func errorOf(err error) *notify.Error {
	var known *notify.Error
	if errors.As(err, &known) {
		return known
	}
	return &notify.Error{Class: notify.Failed}
}
