package ingest

import (
	"container/list"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Bounds of what is remembered of refusals: a host has few reasons, and hosts
// that were refused longest ago make room for others.
const (
	refusedHosts   = 10_000
	refusedReasons = 8
	refusedHours   = 24
)

// RefusedHost is a host whose posts were refused in the last day, or a customer of
// whose controllers it is true.
type RefusedHost struct {
	HostID  string // of a customer its owner's text, as "customer/acme"
	Count   int
	Last    time.Time
	Reasons []Refusal // latest first, one for each reason
}

// Refusal is one reason for which a host's posts were refused.
type Refusal struct {
	Code    hub.Code
	Reason  string // short fixed word, as "other_host"
	Message string // what the host was told
	Count   int    // in this hour and the 23 before it
	Last    time.Time
}

// refusals counts the refused posts of each host, by reason and by hour.
type refusals struct {
	most int // hosts

	mu    sync.Mutex
	hosts map[string]*list.Element // of *refusedHost
	order *list.List               // latest refusal first
}

type refusedHost struct {
	id      string
	reasons []refusal // latest first, and none twice
}

type refusal struct {
	Refusal                     // without its count
	hour    int64               // of Last, counted from the epoch
	n       [refusedHours]int32 // by hour
}

func newRefusals(most int) *refusals {
	return &refusals{most: most, hosts: make(map[string]*list.Element), order: list.New()}
}

// note counts a refusal. It takes the same time however many hosts there are.
func (r *refusals) note(host string, err *hub.Error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.hosts[host]
	if e == nil {
		if len(r.hosts) == r.most {
			oldest := r.order.Remove(r.order.Back()).(*refusedHost)
			delete(r.hosts, oldest.id)
		}
		id := strings.Clone(host) // host may be a part of something large
		e = r.order.PushFront(&refusedHost{id: id})
		r.hosts[id] = e
	}
	r.order.MoveToFront(e)
	e.Value.(*refusedHost).note(err, now)
}

func (h *refusedHost) note(err *hub.Error, now time.Time) {
	i := slices.IndexFunc(h.reasons, func(r refusal) bool { return r.Reason == err.Reason })
	var latest refusal
	if i >= 0 {
		latest = h.reasons[i]
	} else {
		i = min(len(h.reasons), refusedReasons-1)
		if i == len(h.reasons) {
			h.reasons = append(h.reasons, refusal{})
		}
	}
	latest.note(err, now)
	copy(h.reasons[1:i+1], h.reasons[:i])
	h.reasons[0] = latest
}

func (r *refusal) note(err *hub.Error, now time.Time) {
	hour := now.Unix() / 3600
	for r.hour = max(r.hour, hour-refusedHours); r.hour < hour; {
		r.hour++
		r.n[r.hour%refusedHours] = 0
	}
	r.n[r.hour%refusedHours]++
	r.Code, r.Reason, r.Message, r.Last = err.Code, err.Reason, err.Message, now
}

// within returns the count of the day before now.
func (r *refusal) within(now time.Time) int {
	count := 0
	for hour := max(r.hour, now.Unix()/3600) - refusedHours + 1; hour <= r.hour; hour++ {
		count += int(r.n[hour%refusedHours])
	}
	return count
}

// list returns the hosts that were refused in the day before now, latest first,
// and forgets the others.
func (r *refusals) list(now time.Time) []RefusedHost {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused := []RefusedHost{}
	for e := r.order.Front(); e != nil; {
		h := e.Value.(*refusedHost)
		told := h.told(now)
		following := e.Next()
		if told.Count > 0 {
			refused = append(refused, told)
		} else {
			r.order.Remove(e)
			delete(r.hosts, h.id)
		}
		e = following
	}
	return refused
}

func (h *refusedHost) told(now time.Time) RefusedHost {
	told := RefusedHost{HostID: h.id, Last: h.reasons[0].Last}
	for _, r := range h.reasons {
		if r.Count = r.within(now); r.Count > 0 {
			told.Count += r.Count
			told.Reasons = append(told.Reasons, r.Refusal)
		}
	}
	return told
}

// Refused is told of every request that was refused although its key is valid.
// It counts those of a host's or a customer's own key that do not pass by themselves.
// (What only the steps know is counted by them: an expired key, and the host that a
// global key's body names.)
func (a *Acceptor) Refused(key hub.Key, err error) {
	var e *hub.Error
	if !errors.As(err, &e) {
		return
	}
	switch e.Code {
	case hub.Invalid, hub.Forbidden, hub.TooLarge, hub.Unsupported:
		a.refusals.of(key, e, a.now())
	}
}

// of counts a refusal of a key of a host or a customer. Who shows a global key is not
// known.
func (r *refusals) of(key hub.Key, err *hub.Error, now time.Time) {
	switch key.Owner.Kind {
	case hub.OwnerHost:
		r.note(key.Owner.Name, err, now)
	case hub.OwnerCustomer:
		r.note(key.Owner.String(), err, now)
	}
}

// RefusedHosts returns the hosts, and the customers of controllers, whose posts were
// refused in the last day, latest first: those refused for an expired key, for
// another's report, or for a body that cannot be taken. It says nothing of rates and of the hub's own troubles.
func (a *Acceptor) RefusedHosts() []RefusedHost { return a.refusals.list(a.now()) }
