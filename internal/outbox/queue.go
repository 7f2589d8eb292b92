package outbox

import (
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
	queue    []*letter   // with those that are gone, until they come to its head
	waiting  int         // of the queue, those that are not gone
	critical int         // of these, the critical ones
	sent     []time.Time // in the window
	over     bool        // it had to wait for room
}

const window = 5 * time.Minute // in which messages are bounded

// head drops what is gone and returns the first letter; nil: there is none.
func (q *lane) head() *letter {
	for len(q.queue) > 0 && q.queue[0].gone {
		q.queue[0] = nil
		q.queue = q.queue[1:]
	}
	if len(q.queue) == 0 {
		return nil
	}
	return q.queue[0]
}

// room returns zero where a message may be sent at now, else how long until then.
func (q *lane) room(now time.Time, limit int) time.Duration {
	if limit < 0 {
		return 0
	}
	for len(q.sent) > 0 && now.Sub(q.sent[0]) >= window {
		q.sent = q.sent[1:]
	}
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

// A turn is what a worker does next.
type turn struct {
	letter *letter       // to be sent; nil: none may be
	gather *lane         // to be gathered into a digest; nil: none is
	wait   time.Duration // where there is neither: until something may be sent; negative: until somebody calls
}

// next chooses. The operators' critical events come first; else the customers take
// turns, so that many events of one do not delay another's.
func (c *channel) next(now time.Time, limit int) turn {
	t := turn{wait: -1}
	chosen := -1
	for i, q := range c.lanes {
		l := q.head()
		if l == nil || !l.ready {
			continue
		}
		room := q.room(now, limit)
		q.over = q.over || room > 0
		switch wait := max(room, c.until.Sub(now)); {
		case wait > 0 && (t.wait < 0 || wait < t.wait):
			t.wait = wait
		case wait <= 0 && (chosen < 0 || q.customer == "" && q.critical > 0):
			chosen = i
		}
	}
	if chosen < 0 {
		return t
	}
	q := c.lanes[chosen]
	copy(c.lanes[chosen:], c.lanes[chosen+1:]) // to the end of the round
	c.lanes[len(c.lanes)-1] = q
	if q.over && len(q.gatherable()) > 1 {
		return turn{gather: q}
	}
	q.over = false
	return turn{letter: q.head()}
}

const maxDigest = 20_000 // events of one digest

// gatherable returns the letters that a digest may count in their place: all from
// the head on that nobody can have seen.
func (q *lane) gatherable() []*letter {
	var letters []*letter
	for _, l := range q.queue {
		if l.gone {
			continue
		}
		if !l.ready || !l.fresh() || l.digest || len(letters) == maxDigest {
			break
		}
		letters = append(letters, l)
	}
	return letters
}
