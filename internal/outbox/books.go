package outbox

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/notify"
)

// books are the state of the outbox: what the snapshot and the records of the spool
// behind it make, and nothing else. They are changed by two kinds of entries alone,
// routes and deliveries, whether those were just made or are read again.
type books struct {
	channels map[string]*channel
	open     map[string]*trouble   // by episode
	routed   map[string]time.Time  // events of the last day that were routed, but for controllers'
	unrouted map[string]*hub.Event // known, and not routed yet
	arrivals arrivals              // their ids; some may be routed by now
	numbers  uint64
}

func newBooks() *books {
	return &books{channels: map[string]*channel{}, open: map[string]*trouble{}, routed: map[string]time.Time{}, unrouted: map[string]*hub.Event{}}
}

// trouble is an episode of which somebody was told, or is about to be.
type trouble struct {
	host    string
	at      time.Time
	mass    bool
	folds   []string           // mass silences that told of it
	reach   map[string]*reach  // by channel
	closing map[string]*letter // by channel, what tells of its end and is in the queue
}

// reach is how far an episode's alarm came on one channel.
type reach struct {
	told    bool      // an alarm was sent
	letters []*letter // with alarms, in the queue
}

// arrive notes an event that is durable, and reports whether it is new.
func (b *books) arrive(e *hub.Event) bool {
	if _, known := b.routed[e.ID]; known {
		return false
	}
	if _, known := b.unrouted[e.ID]; known {
		return false
	}
	b.unrouted[e.ID] = e
	b.arrivals.push(e.CustomerID, e.ID)
	return true
}

func (b *books) channel(id string) *channel {
	c := b.channels[id]
	if c == nil {
		c = &channel{id: id, letters: map[string]*letter{}}
		b.channels[id] = c
	}
	return c
}

// opens reports whether an event is an alarm that another one ends.
func opens(e *hub.Event) bool {
	return e.Episode != "" && !message.Ends(e.Type) && e.Type != hub.HostFlapping && e.Type != hub.ControllerFlapping
}

// route enters that an event was routed. A recovery ends its episode.
func (b *books) route(r hub.Route, at time.Time) []*letter {
	e := b.unrouted[r.EventID]
	if e == nil {
		return nil // it was in a volume that is gone, and is in the snapshot if it was not done with
	}
	delete(b.unrouted, r.EventID)
	if e.Source != "controller" { // whose ids are drawn anew for each
		b.routed[e.ID] = at
	}
	if opens(e) && !e.Muted() && (e.FoldedInto != "" || len(r.Channels) > 0) {
		t := b.trouble(e)
		if e.FoldedInto != "" && !slices.Contains(t.folds, e.FoldedInto) {
			t.folds = append(t.folds, e.FoldedInto)
		}
	}
	var letters []*letter
	for _, id := range r.Channels {
		c := b.channel(id)
		if c.letters[e.ID] != nil || slices.ContainsFunc(c.dead, func(l *letter) bool { return l.id == e.ID }) {
			continue // the snapshot had it
		}
		l := &letter{id: e.ID, number: b.number(), events: []*hub.Event{e}, customer: e.CustomerID, queued: at}
		c.add(l)
		b.follow(c, l)
		letters = append(letters, l)
	}
	if t := b.open[e.Episode]; t != nil && message.Ends(e.Type) && len(t.closing) == 0 {
		delete(b.open, e.Episode)
	}
	return letters
}

func (b *books) number() uint64 {
	b.numbers++
	return b.numbers
}

func (b *books) trouble(e *hub.Event) *trouble {
	t := b.open[e.Episode]
	if t == nil {
		t = &trouble{host: e.HostID, at: e.DetectedAt, mass: e.Type == hub.MassSilence, reach: map[string]*reach{}, closing: map[string]*letter{}}
		b.open[e.Episode] = t
	}
	return t
}

// follow has the episodes of a letter's events know of it.
func (b *books) follow(c *channel, l *letter) {
	for _, e := range l.events {
		switch {
		case opens(e):
			t := b.trouble(e)
			if t.reach[c.id] == nil {
				t.reach[c.id] = &reach{}
			}
			t.reach[c.id].letters = append(t.reach[c.id].letters, l)
		case message.Ends(e.Type):
			if t := b.open[e.Episode]; t != nil {
				t.closing[c.id] = l
			}
		}
	}
}

// leave undoes follow. told says that the receiver has it.
func (b *books) leave(c *channel, l *letter, told bool) {
	for _, e := range l.events {
		t := b.open[e.Episode]
		switch {
		case t == nil:
		case opens(e):
			r := t.reach[c.id]
			if r == nil {
				break
			}
			r.letters = slices.DeleteFunc(r.letters, func(other *letter) bool { return other == l })
			r.told = r.told || told
			if !r.told && len(r.letters) == 0 {
				delete(t.reach, c.id)
			}
		case message.Ends(e.Type):
			if t.closing[c.id] != l {
				break // a digest took its place
			}
			if delete(t.closing, c.id); len(t.closing) == 0 {
				delete(b.open, e.Episode)
			}
		}
	}
}

// conveyed reports whether a channel was told of an episode, or will have been before
// what stands behind in its queue.
func (b *books) conveyed(episode, channel string) bool {
	t := b.open[episode]
	if t == nil {
		return false
	}
	return t.reach[channel] != nil || slices.ContainsFunc(t.folds, func(mass string) bool {
		m := b.open[mass]
		return m != nil && m.reach[channel] != nil
	})
}

// reached returns the channels on which an episode's alarm is or was.
func (b *books) reached(episode string) []string {
	t := b.open[episode]
	if t == nil {
		return nil
	}
	set := map[string]bool{}
	for id := range t.reach {
		set[id] = true
	}
	for _, mass := range t.folds {
		if m := b.open[mass]; m != nil {
			for id := range m.reach {
				set[id] = true
			}
		}
	}
	ids := make([]string, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// mayTell reports whether a channel may be told of a customer's events, or of the
// operators' where customer is empty.
func mayTell(channelID, customer string) bool {
	fleet := hub.FleetOwner().String() + "/"
	if customer == "" {
		return strings.HasPrefix(channelID, fleet)
	}
	return strings.HasPrefix(channelID, fleet) || strings.HasPrefix(channelID, hub.CustomerOwner(customer).String()+"/")
}

// maxDead is how many dead letters of a channel are kept for retries.
const maxDead = 1000

// deliver enters what became of a message on a channel. What it does not know was
// done with before.
func (b *books) deliver(d hub.Delivery) {
	c := b.channels[d.Channel]
	if c == nil {
		return
	}
	switch d.Status {
	case hub.DeliveryDigested:
		b.digest(c, d)
		return
	case hub.DeliveryRetried:
		b.retry(c, d)
		return
	}
	l := c.letters[d.MessageID]
	if l == nil {
		return
	}
	if d.Attempt > 0 {
		l.attempt, l.class, l.status = d.Attempt, d.Class, d.HTTPStatus
	}
	switch d.Status {
	case hub.DeliverySent:
		c.lane(l.customer).note(d.At)
		c.remove(l)
		b.leave(c, l, true)
	case hub.DeliveryFailed:
		l.inFlight = false
		l.doubt = l.doubt || doubtful(d.Class)
	case hub.DeliveryDead:
		c.remove(l)
		b.leave(c, l, false)
		l.doubt = l.doubt || doubtful(d.Class)
		c.dead = append(c.dead, l)
		c.dead = c.dead[max(0, len(c.dead)-maxDead):]
	default: // collapsed, dropped
		c.remove(l)
		b.leave(c, l, false)
	}
}

// doubtful reports whether what failed in this way may have been delivered.
func doubtful(class string) bool {
	switch notify.Class(class) {
	case notify.Unreachable, notify.Timeout, notify.Canceled:
		return true
	}
	return false
}

// digest puts one letter in the place of many.
func (b *books) digest(c *channel, d hub.Delivery) *letter {
	var ones []*letter
	for _, id := range d.EventIDs {
		if one := c.letters[id]; one != nil && !one.digest {
			ones = append(ones, one)
		}
	}
	if len(ones) == 0 {
		return nil
	}
	if known := c.letters[d.MessageID]; known != nil { // the snapshot had it
		for _, one := range ones {
			c.remove(one)
			b.leave(c, one, false)
		}
		return known
	}
	l := &letter{id: d.MessageID, number: ones[0].number, digest: true, customer: d.CustomerID, queued: ones[0].queued}
	for _, one := range ones {
		l.events = append(l.events, one.events...)
		c.remove(one)
	}
	c.addFirst(l)
	b.follow(c, l)
	for _, one := range ones {
		b.leave(c, one, false)
	}
	return l
}

// digestID names a digest by what it tells of.
func digestID(channel string, eventIDs []string) string {
	sum := sha256.Sum256([]byte("felhom-digest/1\n" + channel + "\n" + strings.Join(eventIDs, "\n")))
	return hex.EncodeToString(sum[:])[:32]
}

// retry puts a dead letter back into the queue, behind what waits there.
func (b *books) retry(c *channel, d hub.Delivery) {
	i := slices.IndexFunc(c.dead, func(l *letter) bool { return l.id == d.MessageID })
	if i < 0 {
		return
	}
	l := *c.dead[i] // a new one: in the queue its old place may still be there
	c.dead = slices.Delete(c.dead, i, i+1)
	l.number, l.queued, l.ready = b.number(), d.At, true
	c.add(&l)
	b.follow(c, &l)
}

// settle returns the deliveries that follow when an episode is over on a channel:
// alarms that nobody can have seen collapse, and so does what tells of the end where
// nobody was, or will be, told of the beginning.
func (b *books) settle(episode string, c *channel, now time.Time) []hub.Delivery {
	var out []hub.Delivery
	enter := func(l *letter) {
		d := l.delivery(c.id, hub.DeliveryCollapsed, now)
		b.deliver(d)
		out = append(out, d)
	}
	t := b.open[episode]
	if t != nil && t.reach[c.id] != nil {
		for _, l := range slices.Clone(t.reach[c.id].letters) {
			if !l.digest && !l.doubt && !l.inFlight {
				enter(l)
			}
		}
	}
	if b.conveyed(episode, c.id) {
		return out
	}
	if t == nil {
		return out
	}
	if l := t.closing[c.id]; l != nil && !l.digest && !l.doubt && !l.inFlight {
		enter(l)
	}
	return out
}

// delivery says what became of a letter that was not attempted now.
func (l *letter) delivery(channel string, status hub.DeliveryStatus, at time.Time) hub.Delivery {
	d := hub.Delivery{MessageID: l.id, Channel: channel, CustomerID: l.customer, Status: status, At: at}
	if !l.digest {
		d.EventIDs = l.eventIDs()
	}
	return d
}

// The longest that an episode is remembered: of a host that is still enrolled, and of
// a mass silence of which no host's episode is open.
const (
	maxTrouble = 400 * 24 * time.Hour
	maxMass    = 24 * time.Hour
)

// forget drops what nobody will ask for again: episodes whose end was never told, and
// ids of events that came long ago.
func (b *books) forget(fleet *hub.Fleet, now time.Time) {
	folds := map[string]bool{}
	for id, t := range b.open {
		_, enrolled := fleet.Enrolled(t.host)
		if t.unsent() || t.mass || enrolled && now.Sub(t.at) < maxTrouble {
			for _, mass := range t.folds {
				folds[mass] = true
			}
			continue
		}
		delete(b.open, id)
	}
	for id, t := range b.open {
		if t.mass && !folds[id] && !t.unsent() && now.Sub(t.at) >= maxMass {
			delete(b.open, id)
		}
	}
	for id, at := range b.routed {
		if now.Sub(at) >= 24*time.Hour {
			delete(b.routed, id)
		}
	}
}

func (t *trouble) unsent() bool {
	for _, r := range t.reach {
		if len(r.letters) > 0 {
			return true
		}
	}
	return len(t.closing) > 0
}
