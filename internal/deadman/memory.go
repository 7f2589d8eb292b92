package deadman

import (
	"iter"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// memory is the newest state of every host and every controller that has one, and of
// every deadline that was missed. It is made for a million of them: what is rare stands apart, names that many share stand once.
// One goroutine puts and reads it; others may only peek.
type memory struct {
	mu sync.Mutex // held by put and peek

	index map[string]int32 // host → row
	hosts []string
	rows  []row
	more  map[int32]rare

	looked family // of which a report was looked at

	deadlines map[deadlineKey]hub.DeadlineState

	customers names[string]
	volumes   names[hub.SpoolID]
}

// family counts hosts and guests apart.
type family struct{ hosts, guests int }

func (f *family) add(id string, n int) {
	if isGuest(id) {
		f.guests += n
	} else {
		f.hosts += n
	}
}

type deadlineKey struct {
	host     string
	vmid     uint32
	deadline hub.Deadline
}

// Recall gathers the decisions that the spool holds when it is opened. ClickHouse may
// not have them yet. Give it to one Switch.
type Recall struct{ memory *memory }

// NewRecall returns an empty one.
func NewRecall() *Recall { return &Recall{newMemory()} }

// Add learns of a record of the spool; entries may come in any order. A decision that
// cannot be read is left out: then ClickHouse's word holds.
func (r *Recall) Add(e spool.Entry) {
	if e.Kind != hub.KindDecision {
		return
	}
	d, err := wire.DecodeDecision(e.Body)
	if err != nil {
		return
	}
	for _, state := range d.States {
		r.memory.put(state)
	}
	for _, state := range d.Deadlines {
		r.memory.putDeadline(state)
	}
}

// row is what every state has: 48 bytes. Times are Unix milliseconds.
type row struct {
	since, lastAt, decidedAt int64
	seq                      uint64
	volume, customer         uint32
	state                    uint8
	lifecycle                uint8
	silent, restless         bool
}

// rare is what few states have.
type rare struct {
	watchedFrom time.Time
	fold, muted string
	silences    [hub.FlapMemory]time.Time
	flapping    hub.Position
}

var (
	states     = [...]hub.State{hub.NeverSeen, hub.OK, hub.Stale, hub.Down}
	lifecycles = [...]hub.Lifecycle{"", hub.Active, hub.Paused, hub.Retired}
)

func newMemory() *memory {
	return &memory{index: map[string]int32{}, more: map[int32]rare{}, deadlines: map[deadlineKey]hub.DeadlineState{}}
}

// get returns a copy of a host's state; nil: there is none.
func (m *memory) get(host string) *hub.HostState {
	i, ok := m.index[host]
	if !ok {
		return nil
	}
	s := m.at(i)
	return &s
}

// peek is get for any goroutine.
func (m *memory) peek(host string) *hub.HostState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(host)
}

// reported reports whether a report of the host was ever looked at.
func (m *memory) reported(host string) bool {
	i, ok := m.index[host]
	return ok && states[m.rows[i].state] != hub.NeverSeen
}

// reportedBefore counts those of which the report last looked at came before t.
func (m *memory) reportedBefore(t time.Time) (n family) {
	ms := milli(t)
	for i := range m.rows {
		if r := &m.rows[i]; states[r.state] != hub.NeverSeen && r.lastAt < ms {
			n.add(m.hosts[i], 1)
		}
	}
	return n
}

// since yields the states of hosts of which the report last looked at came at t or
// later.
func (m *memory) since(t time.Time) iter.Seq[hub.HostState] {
	ms := milli(t)
	return func(yield func(hub.HostState) bool) {
		for i := range m.rows {
			if r := &m.rows[i]; states[r.state] != hub.NeverSeen && r.lastAt >= ms && !yield(m.at(int32(i))) {
				return
			}
		}
	}
}

func (m *memory) at(i int32) hub.HostState {
	r, more := m.rows[i], m.more[i]
	return hub.HostState{
		HostID: m.hosts[i], CustomerID: m.customers.of(r.customer), State: states[r.state], Lifecycle: lifecycles[r.lifecycle],
		Since: moment(r.since), LastAt: moment(r.lastAt), DecidedAt: moment(r.decidedAt), Silent: r.silent,
		Last:        hub.Position{SpoolID: m.volumes.of(r.volume), Seq: r.seq},
		WatchedFrom: more.watchedFrom, Fold: more.fold, MutedBy: more.muted, Silences: more.silences, Flapping: more.flapping,
	}
}

// put keeps a state unless a newer one of the host is known, and reports whether
// it did.
func (m *memory) put(s hub.HostState) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.index[s.HostID]
	if !ok {
		i = int32(len(m.rows))
		m.index[s.HostID] = i
		m.hosts, m.rows = append(m.hosts, s.HostID), append(m.rows, row{decidedAt: instantless})
	}
	if ms := milli(s.DecidedAt); ms < m.rows[i].decidedAt {
		return false
	}
	if s.State != hub.NeverSeen && states[m.rows[i].state] == hub.NeverSeen { // also a row that was just made
		m.looked.add(s.HostID, 1)
	}
	m.rows[i] = row{
		since: milli(s.Since), lastAt: milli(s.LastAt), decidedAt: milli(s.DecidedAt), seq: s.Last.Seq,
		volume: m.volumes.number(s.Last.SpoolID), customer: m.customers.number(s.CustomerID),
		state: place(states[:], s.State), lifecycle: place(lifecycles[:], s.Lifecycle), silent: s.Silent,
		restless: s.State != hub.OK || s.Flapping != hub.Position{},
	}
	more := rare{s.WatchedFrom, s.Fold, s.MutedBy, s.Silences, s.Flapping}
	if more == (rare{}) {
		delete(m.more, i)
	} else {
		m.more[i] = more
	}
	return true
}

// putDeadline keeps a state unless a newer one of the deadline is known.
func (m *memory) putDeadline(s hub.DeadlineState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host, vmid, _ := hub.ParseGuestID(s.GuestID)
	key := deadlineKey{host, vmid, s.Deadline}
	if old, ok := m.deadlines[key]; !ok || !s.DecidedAt.Before(old.DecidedAt) {
		m.deadlines[key] = s
	}
}

// deadline returns a copy of a deadline's state, for any goroutine; nil: there is none.
func (m *memory) deadline(host string, vmid uint32, d hub.Deadline) *hub.DeadlineState {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.deadlines[deadlineKey{host, vmid, d}]; ok {
		return &s
	}
	return nil
}

// restless yields the states of hosts that a report or the clock alone may
// change: those that are silent or flap.
func (m *memory) restless() iter.Seq[hub.HostState] {
	return func(yield func(hub.HostState) bool) {
		for i := range m.rows {
			if m.rows[i].restless && !yield(m.at(int32(i))) {
				return
			}
		}
	}
}

// names numbers values that many rows share.
type names[T comparable] struct {
	list    []T
	numbers map[T]uint32
}

func (n *names[T]) of(i uint32) T { return n.list[i] }

func (n *names[T]) number(v T) uint32 {
	if i, ok := n.numbers[v]; ok {
		return i
	}
	if n.numbers == nil {
		n.numbers = map[T]uint32{}
	}
	i := uint32(len(n.list))
	n.list, n.numbers[v] = append(n.list, v), i
	return i
}

// place returns the place of v in list; 0 where it is not in it.
func place[T comparable](list []T, v T) uint8 {
	for i := range list {
		if list[i] == v {
			return uint8(i)
		}
	}
	return 0
}

// instantless stands for the zero time, which has no milliseconds of its own.
const instantless = -1 << 62

func milli(t time.Time) int64 {
	if t.IsZero() {
		return instantless
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == instantless {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
