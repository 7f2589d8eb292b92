package outbox

import (
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
)

// pool bounds the workers. Those with channels that failed last may be slow; they
// leave most places to the others.
type pool struct {
	limit, busy, suspects int
	waiting               []*channel
}

func (p *pool) take(suspect bool) bool {
	if p.busy == p.limit || suspect && p.suspects >= max(1, p.limit/4) {
		return false
	}
	p.busy++
	if suspect {
		p.suspects++
	}
	return true
}

func (p *pool) give(suspect bool) {
	p.busy--
	if suspect {
		p.suspects--
	}
}

// engage sees to it that a channel with something to do gets a worker, now or when it
// is time. b.mu is held.
func (b *Outbox) engage(c *channel) {
	if !b.running || c.working || c.lined || c.parked {
		return
	}
	wait := c.due(b.now(), b.o.Limit)
	switch {
	case wait < 0:
	case wait > 0:
		c.arm(wait, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.engage(c)
		})
	default:
		b.employ(c)
	}
}

func (b *Outbox) employ(c *channel) {
	suspect := c.failures > 0
	if !b.pool.take(suspect) {
		c.lined = true
		b.pool.waiting = append(b.pool.waiting, c)
		return
	}
	c.working = true
	b.working.Go(func() { b.work(c, suspect) })
}

// shift is how many things are done for a channel while others wait for a worker.
const shift = 8

// work serves a channel as long as there is something to do and no other waits.
func (b *Outbox) work(c *channel, suspect bool) {
	for done := 1; b.workOnce(c, suspect) && (done < shift || !b.wanted()); done++ {
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.working = false
	b.pool.give(suspect)
	if !b.running {
		return
	}
	defer b.engage(c) // behind those that wait
	waiting := b.pool.waiting
	b.pool.waiting = nil
	for _, other := range waiting { // those that still find no place line up again
		other.lined = false
		b.employ(other)
	}
}

func (b *Outbox) wanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pool.waiting) > 0
}

// workOnce does one thing for a channel, and reports whether to go on. A channel that
// begins or ceases to fail needs another place.
func (b *Outbox) workOnce(c *channel, suspect bool) bool {
	fleet := b.o.Fleet()
	b.mu.Lock()
	if fleet == nil {
		c.parked = true
		b.mu.Unlock()
		return false
	}
	if !b.running || suspect != (c.failures > 0) {
		b.mu.Unlock()
		return false
	}
	t := c.next(b.now(), b.o.Limit)
	switch {
	case t.gather != nil:
		return b.gather(c, t.gather) // unlocks
	case t.letter == nil:
		b.mu.Unlock()
		return false
	}
	ch := channelNamed(fleet, c.id)
	if ch == nil {
		c.parked, b.fleet = true, nil
		b.mu.Unlock()
		b.call() // the clerk drops what is for it
		return false
	}
	t.letter.inFlight = true
	sender, err := b.senderOf(c, ch)
	b.mu.Unlock()
	began := b.now()
	if err == nil {
		err = sender.Send(b.sending, compose(t.letter, ch, fleet))
	} else {
		err = &notify.Error{Class: notify.Invalid}
	}
	return b.finish(c, t.letter, began, err)
}

func (b *Outbox) senderOf(c *channel, ch *hub.Channel) (notify.Sender, error) {
	if c.sender == nil || c.url != ch.URL {
		sender, err := b.o.Sender(ch)
		if err != nil {
			return nil, err
		}
		c.url, c.sender = ch.URL, sender
	}
	return c.sender, nil
}

// gather has a digest take the place of a lane's letters. It unlocks b.mu.
func (b *Outbox) gather(c *channel, q *lane) bool {
	now := b.now()
	var ids []string
	for _, l := range q.gatherable(now) {
		ids = append(ids, l.id)
	}
	q.over = false
	d := hub.Delivery{MessageID: digestID(c.id, ids), EventIDs: ids, Channel: c.id, CustomerID: q.customer, Status: hub.DeliveryDigested, At: now}
	l := b.books.digest(c, d)
	entry := b.enter(d)
	b.mu.Unlock()
	if !b.write(entry) {
		return false
	}
	b.mu.Lock()
	l.ready = true
	b.mu.Unlock()
	return true
}

// enter notes deliveries that are in the books and must become durable.
func (b *Outbox) enter(deliveries ...hub.Delivery) *hub.Dispatch {
	d := &hub.Dispatch{Deliveries: deliveries}
	b.unwritten = append(b.unwritten, d)
	return d
}

const (
	firstWait  = time.Second
	longestTry = time.Hour      // between two attempts
	patience   = 24 * time.Hour // with one message
)

// finish enters how an attempt went, and reports whether to go on with the channel. It
// returns after that is durable.
func (b *Outbox) finish(c *channel, l *letter, began time.Time, err error) bool {
	if err != nil && b.sending.Err() != nil {
		return false // the outbox gave up: whether it arrived is not known
	}
	b.mu.Lock()
	now := b.now()
	d := l.delivery(c.id, hub.DeliverySent, now)
	d.Attempt, d.Latency = l.attempt+1, max(0, now.Sub(began))
	var more []hub.Delivery
	if err == nil {
		c.failures, c.until = 0, time.Time{}
		b.books.deliver(d)
	} else {
		problem := errorOf(err)
		d.Class, d.HTTPStatus = string(problem.Class), problem.Status
		more = b.failed(c, l, &d, problem, now)
	}
	entry := b.enter(append([]hub.Delivery{d}, more...)...)
	b.mu.Unlock()
	return b.write(entry)
}

// failed decides what a failure means, and enters it with what follows.
func (b *Outbox) failed(c *channel, l *letter, d *hub.Delivery, problem *notify.Error, now time.Time) (more []hub.Delivery) {
	late := func(l *letter) bool { return now.Sub(l.queued) >= patience }
	d.Status = hub.DeliveryFailed
	if problem.Permanent() || late(l) {
		d.Status = hub.DeliveryDead
	}
	b.o.Logger.Debug("a message was not delivered", "channel", c.id, "attempt", d.Attempt, "status", string(d.Status), "error", problem.Error())
	b.books.deliver(*d)
	b.holdBack(c, l, problem, now)
	gone := []*letter{l}
	if !problem.Permanent() && !l.stubborn() { // what waited behind a stubborn one is tried itself
		for _, other := range c.inOrder() {
			if late(other) && other != l && other.ready {
				dead := other.delivery(c.id, hub.DeliveryDead, now)
				dead.Class, dead.HTTPStatus = d.Class, d.HTTPStatus
				b.books.deliver(dead)
				more, gone = append(more, dead), append(gone, other)
			}
		}
	}
	for _, l := range gone {
		for _, e := range l.events {
			if t := b.books.open[e.Episode]; t != nil && t.closing[c.id] != nil && t.closing[c.id] != l {
				more = append(more, b.books.settle(e.Episode, c, now)...)
			}
		}
	}
	return more
}

// holdBack decides what waits after a failure: the channel with all that is for it.
// That a receiver does not want a letter says nothing of the channel, and that it has
// a fault with one again and again may be the letter's: then only this waits, with
// what is behind it about the same hosts, and the next shows how the channel is.
func (b *Outbox) holdBack(c *channel, l *letter, problem *notify.Error, now time.Time) {
	switch {
	case problem.Permanent():
	case l.stubborn():
		l.until = now.Add(b.backoff(l.attempt, problem.RetryAfter))
	default:
		c.failures++
		c.until = now.Add(b.backoff(c.failures, problem.RetryAfter))
	}
}

// backoff returns how long a channel, or a letter, waits after so many failures in a row: at random,
// so that not all call at once, and no shorter than it asks for.
func (b *Outbox) backoff(failures int, asked time.Duration) time.Duration {
	most := longestTry
	if failures <= 12 {
		most = min(longestTry, firstWait<<(failures-1))
	}
	return min(patience, max(asked, time.Duration(b.o.Jitter()*float64(most))))
}

func (c *channel) arm(d time.Duration, f func()) {
	c.disarm()
	c.timer = time.AfterFunc(max(d, time.Millisecond), f)
}

func (c *channel) disarm() {
	if c.timer != nil {
		c.timer.Stop()
	}
}
