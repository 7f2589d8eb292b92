package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// world is all that an outbox has around it, and remembers all that it saw. Its disk
// outlives every crash.
type world struct {
	mu sync.Mutex

	disk     []spool.Entry
	removed  int // of disk, those in volumes that are gone
	snapshot []byte

	fuse   int  // appends until the crash; 0: none is planned
	kept   bool // whether the append that it comes in is kept
	dead   bool // the process
	refuse bool // the spool is full
	life   int

	fleet     *hub.Fleet
	fleets    []*hub.Fleet
	since     map[string]int // by event, the fleet that was in force when it came
	present   map[string]bool
	revision  map[string]int // of a channel's URL
	mode      map[string]mode
	limit     int
	receipts  map[string][]receipt // by channel
	events    []*hub.Event         // durable ones, in order
	crashes   int
	complaint error
	locale    func(*hub.FleetSpec) // nil: the operators have none

	b *outbox.Outbox
}

// receipt is one message that a receiver got.
type receipt struct {
	id     string
	digest bool
	at     time.Time
	life   int
	text   string
	lost   bool // the sender was not told that it arrived
}

type mode int

const (
	up mode = iota
	down
	slow
	busy
	refusing
	mute // takes it, and does not say so
	failing
	choking // has a fault with some messages
	modes
)

var channelIDs = []string{"fleet/ops", "customer/acme/chat", "customer/acme/mail", "customer/bolt/chat"}

func newWorld(limit int) *world {
	w := &world{limit: limit, present: map[string]bool{}, revision: map[string]int{}, since: map[string]int{}, mode: map[string]mode{}, receipts: map[string][]receipt{}}
	for _, id := range channelIDs {
		w.present[id] = true
	}
	w.makeFleet()
	return w
}

func (w *world) makeFleet() {
	spec := hub.FleetSpec{Name: "felhom"}
	for _, name := range []string{"acme", "bolt"} {
		c := &hub.Customer{Name: name, DisplayName: strings.ToUpper(name) + " Ltd", Language: "de", TimeZone: "Europe/Berlin"}
		c.Channels = w.channels(hub.CustomerOwner(name))
		spec.Customers = append(spec.Customers, c)
		for i := range 3 {
			spec.Hosts = append(spec.Hosts, &hub.Host{ID: fmt.Sprintf("%s-%d", name, i), Customer: name, DisplayName: fmt.Sprintf("%s-host-%d", name, i), Lifecycle: hub.Active})
		}
	}
	spec.Channels = w.channels(hub.FleetOwner())
	if w.locale != nil {
		w.locale(&spec)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		panic(err)
	}
	w.fleet, w.fleets = fleet, append(w.fleets, fleet)
}

func (w *world) channels(owner hub.Owner) (channels []*hub.Channel) {
	for _, id := range channelIDs {
		if name, ok := strings.CutPrefix(id, owner.String()+"/"); ok && w.present[id] {
			ch := &hub.Channel{Name: name, Owner: owner, URL: hub.NewSecret(fmt.Sprint(id, w.revision[id]))}
			if name == "mail" {
				ch.MinSeverity = "warning"
			}
			channels = append(channels, ch)
		}
	}
	return channels
}

const windowLength = 5 * time.Minute

var errDead = errors.New("the process is dead")

// Append is the spool's.
func (w *world) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, errDead
	}
	if w.refuse {
		return nil, errors.New("the spool is full")
	}
	if w.fuse > 0 {
		if w.fuse--; w.fuse == 0 {
			w.dead = true
			if !w.kept {
				return nil, errDead
			}
			w.store(records)
			return nil, errDead
		}
	}
	return w.store(records), nil
}

func (w *world) store(records []spool.Record) (receipts []hub.Receipt) {
	for _, r := range records {
		receipt := hub.Receipt{Position: hub.Position{Seq: uint64(len(w.disk) + 1)}, ReceivedAt: time.Now().UTC().Truncate(time.Millisecond)}
		w.disk = append(w.disk, spool.Entry{Record: r, Receipt: receipt})
		receipts = append(receipts, receipt)
		if r.Kind != hub.KindDelivery {
			continue
		}
		d, err := wire.DecodeDispatch(r.Body)
		if err != nil {
			panic(err)
		}
		for _, route := range d.Routes {
			w.check(route)
		}
	}
	return receipts
}

// check holds a route against the fleets that were in force since the event came.
func (w *world) check(route hub.Route) {
	e := w.event(route.EventID)
	if message.Ends(e.Type) {
		return
	}
	for _, fleet := range w.fleets[w.since[e.ID]:] {
		var want []string
		if !e.Muted() && e.FoldedInto == "" {
			for _, ch := range fleet.ChannelsFor(e.CustomerID) {
				if ch.Wants(e) {
					want = append(want, ch.ID())
				}
			}
		}
		if slices.Equal(want, route.Channels) {
			return
		}
	}
	w.complain("event %s is routed to %v, which the fleet never said", e.ID, route.Channels)
}

func (w *world) complain(format string, a ...any) {
	w.complaint = errors.Join(w.complaint, fmt.Errorf(format, a...))
}

func (w *world) event(id string) *hub.Event {
	i := slices.IndexFunc(w.events, func(e *hub.Event) bool { return e.ID == id })
	if i < 0 {
		panic("no event " + id)
	}
	return w.events[i]
}

// receiver is a channel's other end, for one life.
type receiver struct {
	w    *world
	id   string
	life int
}

func (r receiver) Send(ctx context.Context, m notify.Message) error {
	r.w.mu.Lock()
	mode := r.w.mode[r.id]
	gone := r.w.dead || r.life != r.w.life
	r.w.mu.Unlock()
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return &notify.Error{Class: notify.Canceled}
		}
	}
	take := func(lost bool) {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		if r.w.dead || r.life != r.w.life {
			return
		}
		text := m.Text.Subject + m.Text.Render(message.Plain)
		if m.Count > 0 {
			parts := m.Parts()
			if len(parts) != m.Count {
				r.w.complain("a digest of %d events has %d parts", m.Count, len(parts))
			}
			for _, part := range parts {
				text += part.Text.Subject + part.Text.Render(message.Plain)
			}
		}
		r.w.receipts[r.id] = append(r.w.receipts[r.id], receipt{id: m.ID, digest: m.Count > 0, at: time.Now(), life: r.life, text: text, lost: lost})
	}
	if gone {
		return &notify.Error{Class: notify.Canceled}
	}
	switch mode {
	case down:
		return &notify.Error{Class: notify.Unreachable}
	case busy:
		return &notify.Error{Class: notify.Busy, Status: 429, RetryAfter: 90 * time.Second}
	case refusing:
		return &notify.Error{Class: notify.Refused, Status: 400}
	case failing:
		return &notify.Error{Class: notify.Failed, Status: 502}
	case choking:
		if choke(m) {
			return &notify.Error{Class: notify.Failed, Status: 500}
		}
	case mute:
		take(true)
		_ = wait(15 * time.Second)
		return &notify.Error{Class: notify.Timeout}
	case slow:
		if err := wait(10 * time.Second); err != nil {
			return err
		}
	}
	take(false)
	return wait(time.Millisecond)
}

// choke reports whether a message is one that a choking channel has a fault with: that
// of every fourth event, and some digests.
func choke(m notify.Message) bool { return m.ID[3]%4 == 0 }

// boot starts an outbox on what the disk holds.
func (w *world) boot() {
	w.mu.Lock()
	w.life++
	w.dead = false
	life := w.life
	w.mu.Unlock()
	w.b = outbox.New(outbox.Options{
		Journal: w, Limit: w.limit, Workers: 3, Grace: 20 * time.Second, Logger: slog.New(slog.DiscardHandler),
		Jitter: func() float64 { return 0.5 },
		Fleet:  func() *hub.Fleet { w.mu.Lock(); defer w.mu.Unlock(); return w.fleet },
		Sender: func(ch *hub.Channel) (notify.Sender, error) { return receiver{w, ch.ID(), life}, nil },
	})
	if w.snapshot != nil {
		if err := w.b.Restore(w.snapshot); err != nil {
			panic(err)
		}
	}
	for _, e := range w.disk[w.removed:] {
		w.b.Recover(e)
	}
	w.b.Start()
	synctest.Wait()
}

// crash ends the process without its knowing, and what was under way in it.
func (w *world) crash() {
	w.mu.Lock()
	w.dead, w.fuse = true, 0
	w.life++
	w.crashes++
	w.mu.Unlock()
	w.b.Stop()
	synctest.Wait()
}

// restart stops it as SIGTERM does, and starts it again.
func (w *world) restart() {
	w.b.Stop()
	w.mu.Lock()
	if w.dead { // the fuse burnt while it stopped
		w.crashes++
	} else {
		w.snapshot = w.b.Snapshot()
	}
	w.fuse = 0
	w.mu.Unlock()
	w.boot()
}

// remove has the spool drop all volumes that are shipped.
func (w *world) remove(keep int) {
	if w.gone() {
		return
	}
	w.snapshot = w.b.Snapshot()
	w.mu.Lock()
	w.removed = max(w.removed, len(w.disk)-keep)
	w.mu.Unlock()
}

func (w *world) gone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// tell makes events durable, as one decision, and hands them over.
func (w *world) tell(events ...hub.Event) {
	body, err := wire.EncodeDecision(hub.Decision{Events: events})
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	if w.dead {
		w.mu.Unlock()
		return
	}
	for i := range events {
		w.events = append(w.events, &events[i])
		w.since[events[i].ID] = len(w.fleets) - 1
	}
	w.store([]spool.Record{{Kind: hub.KindDecision, Body: body}})
	w.mu.Unlock()
	w.b.Tell(events...)
	synctest.Wait()
}

// op is one thing that happens in a model's run.
type op struct {
	kind string
	a, b int
}

var opKinds = []string{"host", "host", "host", "host", "news", "news", "flood", "mass", "operators", "wait", "wait", "wait", "long",
	"mode", "mode", "mode", "mode", "crash", "fuse", "fuse", "restart", "remove", "channel", "url", "full"}

func ops(t *rapid.T) []op {
	one := rapid.Custom(func(t *rapid.T) op {
		return op{rapid.SampledFrom(opKinds).Draw(t, "kind"), rapid.IntRange(0, 11).Draw(t, "a"), rapid.IntRange(0, 11).Draw(t, "b")}
	})
	return rapid.SliceOfN(one, 1, 60).Draw(t, "ops")
}

// hosts is a small switch.
type hostModel struct {
	state   hub.State
	fold    string
	episode string
}

func (w *world) run(list []op) {
	hosts := map[string]*hostModel{}
	n := 0
	next := func(host, customer string, t hub.EventType) hub.Event {
		n++
		now := time.Now().UTC().Truncate(time.Millisecond)
		return hub.Event{ID: fmt.Sprintf("%04d-%s", n, t), Type: t, CustomerID: customer, HostID: host, At: now, DetectedAt: now, Source: "switch"}
	}
	host := func(i int) (*hostModel, string, string) {
		customer := []string{"acme", "bolt"}[i%2]
		id := fmt.Sprintf("%s-%d", customer, i/2%3)
		if hosts[id] == nil {
			hosts[id] = &hostModel{state: hub.OK}
		}
		return hosts[id], id, customer
	}
	step := func(i, how int) {
		h, id, customer := host(i)
		var e hub.Event
		switch {
		case h.state == hub.OK:
			e = next(id, customer, hub.HostStale)
			h.state, h.episode, h.fold = hub.Stale, "episode-"+e.ID, ""
		case h.state == hub.Stale && how%2 == 0:
			e = next(id, customer, hub.HostDown)
			h.state = hub.Down
		default:
			e = next(id, customer, hub.HostRecovered)
			h.state = hub.OK
		}
		e.Episode = h.episode
		if how == 11 {
			e.SuppressedBy = "maintenance"
		}
		w.tell(e)
	}
	for _, o := range list {
		if w.gone() { // the fuse was burnt
			w.crash()
			w.boot()
		}
		switch o.kind {
		case "host":
			step(o.a, o.b)
		case "news":
			_, id, customer := host(o.a)
			w.tell(next(id, customer, []hub.EventType{hub.BackupDeadline.Overdue(), "backup_failed"}[o.b%2]))
		case "flood":
			for i := range o.b {
				step(o.a+i%3*2, i)
			}
		case "mass":
			var folded []hub.Event
			customer := []string{"acme", "bolt"}[o.a%2]
			mass := next("", customer, hub.MassSilence)
			mass.Episode = mass.ID
			for i := range 3 {
				h, id, _ := host(o.a%2 + 2*i)
				if h.state == hub.OK {
					e := next(id, customer, hub.HostStale)
					h.state, h.episode = hub.Stale, "episode-"+e.ID
					e.Episode, e.FoldedInto = h.episode, mass.ID
					folded, mass.Hosts = append(folded, e), append(mass.Hosts, id)
				}
			}
			if len(folded) > 0 {
				w.tell(append([]hub.Event{mass}, folded...)...)
			}
		case "operators":
			w.tell(next("", "", []hub.EventType{hub.FleetRejected, hub.MassSilence}[o.b%2]))
		case "wait":
			time.Sleep(time.Duration(1+o.a*o.a) * time.Second)
		case "long":
			time.Sleep(time.Duration(1+o.a) * time.Hour)
		case "mode":
			w.set(channelIDs[o.a%len(channelIDs)], mode(o.b%int(modes)))
		case "crash":
			w.crash()
			w.boot()
		case "fuse":
			w.mu.Lock()
			w.fuse, w.kept = 1+o.a/2, o.b%2 == 0
			w.mu.Unlock()
		case "restart":
			w.restart()
		case "remove":
			w.remove(o.a)
		case "channel":
			id := channelIDs[o.a%len(channelIDs)]
			w.refleet(func() { w.present[id] = !w.present[id] })
		case "url":
			id := channelIDs[o.a%len(channelIDs)]
			w.refleet(func() { w.revision[id]++ })
		case "full":
			w.full(o.b%2 == 0)
		}
		synctest.Wait()
	}
	w.finish()
}

func (w *world) set(id string, m mode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode[id] = m
}

func (w *world) full(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = is
}

func (w *world) refleet(f func()) {
	w.mu.Lock()
	f()
	w.makeFleet()
	w.mu.Unlock()
	w.b.FleetChanged()
}

// finish makes everything well and waits for the end.
func (w *world) finish() {
	w.full(false)
	w.mu.Lock()
	w.fuse = 0
	w.mu.Unlock()
	if w.gone() {
		w.crash()
		w.boot()
	}
	for _, id := range channelIDs {
		w.set(id, up)
	}
	time.Sleep(49 * time.Hour)
	synctest.Wait()
	w.b.Stop()
}
