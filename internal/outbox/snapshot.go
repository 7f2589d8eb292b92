package outbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"felhom.eu/hub/internal/hub"
)

// StateName is the name under which the spool keeps the snapshot.
const StateName = "outbox"

// snapshotVersion is on disk: a change of meaning takes a new number.
const snapshotVersion = 1

// snapshot is the books without what can be made again. Events stand once.
type snapshot struct {
	Version  int              `json:"v"`
	Events   []*hub.Event     `json:"events"`
	Channels []channelKept    `json:"channels"`
	Open     map[string]*kept `json:"open"`
	Unrouted []int            `json:"unrouted"`
	Unsaved  []*hub.Dispatch  `json:"unsaved"`
}

type channelKept struct {
	ID      string                 `json:"id"`
	Letters []letterKept           `json:"letters,omitempty"`
	Dead    []letterKept           `json:"dead,omitempty"`
	Sent    map[string][]time.Time `json:"sent,omitempty"` // in the window, by customer
}

type letterKept struct {
	ID       string    `json:"id"`
	Events   []int     `json:"events"`
	Digest   bool      `json:"digest,omitzero"`
	Customer string    `json:"customer,omitzero"`
	Queued   time.Time `json:"queued"`
	Attempt  int       `json:"attempt,omitzero"`
	Doubt    bool      `json:"doubt,omitzero"`
	Class    string    `json:"class,omitzero"`
	Status   int       `json:"status,omitzero"`
}

type kept struct {
	Host  string    `json:"host"`
	At    time.Time `json:"at"`
	Mass  bool      `json:"mass,omitzero"`
	Folds []string  `json:"folds,omitempty"`
	Told  []string  `json:"told,omitempty"` // channels
}

// Snapshot returns what must be kept of records that go. Give it to Restore.
func (b *Outbox) Snapshot() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := snapshot{Version: snapshotVersion, Open: map[string]*kept{}, Unsaved: b.unwritten}
	places := map[*hub.Event]int{}
	place := func(e *hub.Event) int {
		i, ok := places[e]
		if !ok {
			i = len(s.Events)
			places[e], s.Events = i, append(s.Events, e)
		}
		return i
	}
	keep := func(letters []*letter) (out []letterKept) {
		for _, l := range letters {
			k := letterKept{ID: l.id, Digest: l.digest, Customer: l.customer, Queued: l.queued, Attempt: l.attempt,
				Doubt: l.doubt || l.inFlight, Class: l.class, Status: l.status}
			for _, e := range l.events {
				k.Events = append(k.Events, place(e))
			}
			out = append(out, k)
		}
		return out
	}
	now := b.now()
	for id, c := range b.books.channels {
		if sent := c.sent(now); len(c.letters)+len(c.dead)+len(sent) > 0 {
			s.Channels = append(s.Channels, channelKept{ID: id, Letters: keep(c.inOrder()), Dead: keep(c.dead), Sent: sent})
		}
	}
	for episode, t := range b.books.open {
		k := &kept{Host: t.host, At: t.at, Mass: t.mass, Folds: t.folds}
		for id, r := range t.reach {
			if r.told {
				k.Told = append(k.Told, id)
			}
		}
		s.Open[episode] = k
	}
	for _, id := range b.books.arrivals.all() {
		if e := b.books.unrouted[id]; e != nil {
			s.Unrouted = append(s.Unrouted, place(e))
		}
	}
	data, err := json.Marshal(s)
	if err != nil {
		panic("outbox: " + err.Error()) // texts, numbers and times alone
	}
	return data
}

// Restore enters what Snapshot kept. Call it before Recover.
func (b *Outbox) Restore(data []byte) error {
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("the snapshot of the outbox: %w", err)
	}
	if s.Version != snapshotVersion {
		return fmt.Errorf("the snapshot of the outbox: version %d is not %d: a newer hub wrote it", s.Version, snapshotVersion)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("the snapshot of the outbox: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first, b.unwritten = false, s.Unsaved
	for episode, k := range s.Open {
		t := &trouble{host: k.Host, at: k.At, mass: k.Mass, folds: k.Folds, reach: map[string]*reach{}, closing: map[string]*letter{}}
		for _, id := range k.Told {
			t.reach[id] = &reach{told: true}
		}
		b.books.open[episode] = t
	}
	for _, k := range s.Channels {
		c := b.books.channel(k.ID)
		for _, l := range k.Letters {
			letter := s.letter(l)
			letter.number = b.books.number()
			c.add(letter)
			b.books.follow(c, letter)
		}
		for _, l := range k.Dead {
			c.dead = append(c.dead, s.letter(l))
		}
		for customer, sent := range k.Sent {
			q := c.lane(customer)
			q.sent, q.known = sent, sent[len(sent)-1]
		}
	}
	for _, i := range s.Unrouted {
		b.books.arrive(s.Events[i])
	}
	for _, d := range s.Unsaved { // in the books already: not to be routed again when the spool has the event
		for _, r := range d.Routes {
			b.books.routed[r.EventID] = b.now()
		}
	}
	return nil
}

func (s *snapshot) letter(k letterKept) *letter {
	l := &letter{id: k.ID, digest: k.Digest, customer: k.Customer, queued: k.Queued, attempt: k.Attempt, doubt: k.Doubt, class: k.Class, status: k.Status}
	for _, i := range k.Events {
		l.events = append(l.events, s.Events[i])
	}
	return l
}

// check refuses what Snapshot does not write.
func (s *snapshot) check() error {
	places := slices.Clone(s.Unrouted)
	for _, c := range s.Channels {
		for customer, sent := range c.Sent {
			if len(sent) == 0 {
				return fmt.Errorf("channel %q sent nothing to %q", c.ID, customer)
			}
		}
		for _, l := range slices.Concat(c.Letters, c.Dead) {
			if len(l.Events) == 0 {
				return fmt.Errorf("message %q is about nothing", l.ID)
			}
			places = append(places, l.Events...)
		}
	}
	for _, i := range places {
		if i < 0 || i >= len(s.Events) || s.Events[i] == nil {
			return fmt.Errorf("there is no event %d", i)
		}
	}
	return nil
}
