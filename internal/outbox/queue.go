package outbox

import (
	"iter"
	"slices"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
)

// letter is a message for one channel.
type letter struct {
	id       string
	number   uint64 // letters of a channel go by it
	events   []*hub.Event
	digest   bool
	customer string
	queued   time.Time // when it could first have been sent, or was retried

	attempt int    // made so far
	doubt   bool   // one of them may have reached the receiver
	class   string // in what way the last one failed
	status  int
	until   time.Time // others pass it until then; zero: none does

	lane     *lane // nil: it is in no queue
	ready    bool  // its place in the queue is durable
	inFlight bool
	gone     bool // not in the queue any more
}

func (l *letter) critical() bool {
	return slices.ContainsFunc(l.events, func(e *hub.Event) bool { return e.Severity() == "critical" })
}

// fresh reports whether nobody can have seen the letter.
func (l *letter) fresh() bool { return l.attempt == 0 && !l.doubt && !l.inFlight }

// stubborn is how often a receiver may say that it has a fault before other letters
// pass the one that it said so of.
const stubborn = 5

// stubborn reports whether the fault may be with the letter and not with its channel.
func (l *letter) stubborn() bool {
	return l.attempt >= stubborn && notify.Class(l.class) == notify.Failed
}

func (l *letter) eventIDs() []string {
	ids := make([]string, len(l.events))
	for i, e := range l.events {
		ids[i] = e.ID
	}
	return ids
}

// lane is what one customer's events are to one channel: first in, first out, so
// that the order per host is kept.
type lane struct {
	customer string
	queue    []*letter   // with some that are gone
	waiting  int         // of the queue, those that are not gone
	critical int         // of these, the critical ones
	sent     []time.Time // in the window
	known    time.Time   // the last of sent by the snapshot; the records up to it may be read again
	over     bool        // it had to wait for room
}

const window = 5 * time.Minute // in which messages are bounded

// head returns the first letter that may go; nil: there is none.
func (q *lane) head(now time.Time) *letter {
	q.sweep()
	for l := range q.passable(now) {
		return l
	}
	return nil
}

// sweep drops what is gone: from the head on always, and what passed others when it
// is most of the queue.
func (q *lane) sweep() {
	for len(q.queue) > 0 && q.queue[0].gone {
		q.queue[0] = nil
		q.queue = q.queue[1:]
	}
	if len(q.queue) > 2*q.waiting+16 {
		q.queue = slices.DeleteFunc(q.queue, func(l *letter) bool { return l.gone })
	}
}

// oldest returns when the first letter could first have been sent; zero: there is none.
func (q *lane) oldest() time.Time {
	for _, l := range q.queue {
		if !l.gone {
			return l.queued
		}
	}
	return time.Time{}
}

// passable returns the letters that may go, in order: not those that others pass, nor
// what is behind these about the same hosts.
func (q *lane) passable(now time.Time) iter.Seq[*letter] {
	return func(yield func(*letter) bool) {
		var held hosts
		for _, l := range q.queue {
			switch {
			case l.gone:
			case now.Before(l.until) || held.meet(l):
				held.add(l)
			case !yield(l):
				return
			}
		}
	}
}

// underWay returns the letters of which one may have been under way when the hub was
// killed: the stubborn ones, and the first that passes them.
func (q *lane) underWay() (letters []*letter) {
	var held hosts
	for _, l := range q.queue {
		switch {
		case l.gone:
		case held.meet(l):
			held.add(l)
		case l.stubborn():
			letters = append(letters, l)
			held.add(l)
		default:
			return append(letters, l)
		}
	}
	return letters
}

// hosts is a set of those that letters are about. Events that are about none keep
// their order as if they were about one.
type hosts map[string]bool

func (s *hosts) add(l *letter) {
	if *s == nil {
		*s = hosts{}
	}
	for _, e := range l.events {
		(*s)[e.HostID] = true
		for _, id := range e.Hosts {
			(*s)[id] = true
		}
	}
}

func (s hosts) meet(l *letter) bool {
	return len(s) > 0 && slices.ContainsFunc(l.events, func(e *hub.Event) bool {
		return s[e.HostID] || slices.ContainsFunc(e.Hosts, func(id string) bool { return s[id] })
	})
}

// note enters that a message was sent.
func (q *lane) note(at time.Time) {
	if at.After(q.known) {
		q.slide(at)
		q.sent = append(q.sent, at)
	}
}

// slide moves the window on.
func (q *lane) slide(now time.Time) {
	for len(q.sent) > 0 && now.Sub(q.sent[0]) >= window {
		q.sent = q.sent[1:]
	}
}

// room returns zero where a message may be sent at now, else how long until then.
func (q *lane) room(now time.Time, limit int) time.Duration {
	if limit < 0 {
		return 0
	}
	q.slide(now)
	if len(q.sent) < limit {
		return 0
	}
	return window - now.Sub(q.sent[len(q.sent)-limit])
}

// channel is what the outbox knows of one channel that has, or lately had, messages.
type channel struct {
	id      string
	lanes   []*lane // turns go round
	letters map[string]*letter
	dead    []*letter // oldest first

	url      hub.Secret // of which sender was made
	sender   notify.Sender
	failures int       // in a row
	until    time.Time // no attempt before; zero: at once

	working bool        // a worker has it
	lined   bool        // it waits for a worker
	parked  bool        // it waits for the clerk: it is in no fleet
	timer   *time.Timer // nil: none runs
}

// revive has a channel, and every letter for it, tried at once.
func (c *channel) revive() {
	c.failures, c.until = 0, time.Time{}
	for _, l := range c.letters {
		l.until = time.Time{}
	}
}

func (c *channel) lane(customer string) *lane {
	for _, q := range c.lanes {
		if q.customer == customer {
			return q
		}
	}
	q := &lane{customer: customer}
	c.lanes = append(c.lanes, q)
	return q
}

// sent returns what was sent in the window, by customer.
func (c *channel) sent(now time.Time) map[string][]time.Time {
	sent := map[string][]time.Time{}
	for _, q := range c.lanes {
		if q.slide(now); len(q.sent) > 0 {
			sent[q.customer] = q.sent
		}
	}
	return sent
}

func (c *channel) add(l *letter) { c.insert(l, len(c.lane(l.customer).queue)) }

// addFirst puts a letter before the others of its customer.
func (c *channel) addFirst(l *letter) { c.insert(l, 0) }

func (c *channel) insert(l *letter, i int) {
	q := c.lane(l.customer)
	q.queue = slices.Insert(q.queue, i, l)
	q.count(l, 1)
	l.lane, l.gone = q, false
	c.letters[l.id] = l
}

func (c *channel) remove(l *letter) {
	if l.gone {
		return
	}
	l.gone, l.inFlight = true, false
	l.lane.count(l, -1)
	delete(c.letters, l.id)
}

func (q *lane) count(l *letter, n int) {
	q.waiting += n
	if l.critical() {
		q.critical += n
	}
}

// inOrder returns the letters that wait, customer by customer.
func (c *channel) inOrder() []*letter {
	var all []*letter
	for _, q := range c.lanes {
		for _, l := range q.queue {
			if !l.gone {
				all = append(all, l)
			}
		}
	}
	return all
}

// due returns how long it is until there is something to do; negative: until somebody
// calls.
func (c *channel) due(now time.Time, limit int) time.Duration {
	wait := time.Duration(-1)
	for _, q := range c.lanes {
		if w := q.due(now, limit); w >= 0 && (wait < 0 || w < wait) {
			wait = w
		}
	}
	if wait < 0 {
		return wait
	}
	return max(wait, c.until.Sub(now))
}

func (q *lane) due(now time.Time, limit int) time.Duration {
	wait := time.Duration(-1)
	if l := q.head(now); l != nil && l.ready {
		wait = 0
	} else {
		for _, l := range q.queue {
			if w := l.until.Sub(now); !l.gone && w > 0 && (wait < 0 || w < wait) {
				wait = w
			}
		}
	}
	if wait < 0 {
		return wait
	}
	return max(wait, q.waitForRoom(now, limit))
}

// waitForRoom is room, of a lane with something to send.
func (q *lane) waitForRoom(now time.Time, limit int) time.Duration {
	room := q.room(now, limit)
	q.over = q.over || room > 0
	return room
}

// A turn is what a worker does next; neither is set where there is nothing to do.
type turn struct {
	letter *letter // to be sent
	gather *lane   // to be gathered into a digest
}

// next chooses. The operators' critical events come first; else the customers take
// turns, so that many events of one do not delay another's.
func (c *channel) next(now time.Time, limit int) turn {
	if now.Before(c.until) {
		return turn{}
	}
	chosen := -1
	for i, q := range c.lanes {
		if l := q.head(now); l == nil || !l.ready || q.waitForRoom(now, limit) > 0 {
			continue
		}
		if chosen < 0 || q.customer == "" && q.critical > 0 {
			chosen = i
		}
	}
	if chosen < 0 {
		return turn{}
	}
	q := c.lanes[chosen]
	copy(c.lanes[chosen:], c.lanes[chosen+1:]) // to the end of the round
	c.lanes[len(c.lanes)-1] = q
	if q.over && len(q.gatherable(now)) > 1 {
		return turn{gather: q}
	}
	q.over = false
	return turn{letter: q.head(now)}
}

const maxDigest = 20_000 // events of one digest

// gatherable returns the letters that a digest may count in their place: all from
// the head on that nobody can have seen.
func (q *lane) gatherable(now time.Time) []*letter {
	var letters []*letter
	for l := range q.passable(now) {
		if !l.ready || !l.fresh() || l.digest || len(letters) == maxDigest {
			break
		}
		letters = append(letters, l)
	}
	return letters
}
