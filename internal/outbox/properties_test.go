package outbox_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// modelled runs many traces and holds what came out against one property.
func modelled(t *testing.T, judge func(w *world, h *history)) {
	rapid.Check(t, func(rt *rapid.T) {
		list := ops(rt)
		limit := rapid.SampledFrom([]int{2, 5, -1}).Draw(rt, "limit")
		var complaint error
		synctest.Test(t, func(*testing.T) {
			w := newWorld(limit)
			w.boot()
			w.run(list)
			judge(w, w.history())
			complaint = w.complaint
		})
		if complaint != nil {
			rt.Fatal(complaint)
		}
	})
}

// history is what the records of the spool say, and what the receivers got.
type history struct {
	routes  map[string][]string             // by event, of each route
	times   map[string]int                  // by event, how often it was routed
	last    map[string]hub.Delivery         // by channel and message
	digests map[string][]string             // by digest, the events
	inside  map[string]string               // by channel and event, the digest
	status  map[string][]hub.DeliveryStatus // by channel and message, all
}

func (w *world) history() *history {
	h := &history{map[string][]string{}, map[string]int{}, map[string]hub.Delivery{}, map[string][]string{}, map[string]string{}, map[string][]hub.DeliveryStatus{}}
	for _, e := range w.disk {
		if e.Kind != hub.KindDelivery {
			continue
		}
		d, _ := wire.DecodeDispatch(e.Body)
		for _, r := range d.Routes {
			h.routes[r.EventID] = r.Channels
			h.times[r.EventID]++
		}
		for _, v := range d.Deliveries {
			key := v.Channel + " " + v.MessageID
			h.status[key] = append(h.status[key], v.Status)
			if v.Status == hub.DeliveryDigested {
				h.digests[v.MessageID] = v.EventIDs
				for _, id := range v.EventIDs {
					h.inside[v.Channel+" "+id] = v.MessageID
				}
				continue
			}
			h.last[key] = v
		}
	}
	return h
}

// fate returns what became of an event on a channel, and of the digest it is in.
func (h *history) fate(channel, event string) hub.DeliveryStatus {
	if digest := h.inside[channel+" "+event]; digest != "" {
		event = digest
	}
	return h.last[channel+" "+event].Status
}

// got returns the events that a channel's receiver got, in the order of their first
// coming, and how often each message came.
func (w *world) got(channel string, h *history) (events []string) {
	seen := map[string]bool{}
	for _, r := range w.receipts[channel] {
		if seen[r.id] {
			continue
		}
		seen[r.id] = true
		if r.digest {
			events = append(events, h.digests[r.id]...)
		} else {
			events = append(events, r.id)
		}
	}
	return events
}

// TestP05_EveryMessageEnds: every durable event is routed once, and on every channel
// that it was routed to it ends sent, dead, collapsed, digested or dropped; what is
// said to be sent was received, under the event's id, and more than once only where
// an answer was lost or the hub crashed.
func TestP05_EveryMessageEnds(t *testing.T) {
	modelled(t, func(w *world, h *history) {
		for _, e := range w.events {
			if h.times[e.ID] != 1 {
				w.complain("event %s was routed %d times", e.ID, h.times[e.ID])
			}
			for _, channel := range h.routes[e.ID] {
				switch fate := h.fate(channel, e.ID); fate {
				case hub.DeliverySent:
					if !slices.Contains(w.got(channel, h), e.ID) {
						w.complain("event %s is said to be sent on %s, and nobody got it", e.ID, channel)
					}
				case hub.DeliveryDead, hub.DeliveryCollapsed, hub.DeliveryDropped:
				default:
					w.complain("event %s has not come to an end on %s: %q", e.ID, channel, fate)
				}
			}
		}
		w.judgeDoubles()
	})
}

// judgeDoubles holds that a message comes again only because its sender was not told
// that it came, or crashed: then one a channel does.
func (w *world) judgeDoubles() {
	for channel, receipts := range w.receipts {
		crashed := map[int]int{} // by life, messages that came again for its end
		newest := map[string]receipt{}
		for _, r := range receipts {
			if before, again := newest[r.id]; again && !before.lost {
				if before.life == r.life {
					w.complain("message %s came twice on %s in one life", r.id, channel)
				}
				if crashed[before.life]++; crashed[before.life] > 1 {
					w.complain("two messages came again on %s after one crash", channel)
				}
			}
			newest[r.id] = r
		}
		if len(crashed) > w.crashes {
			w.complain("messages of %d lives came again on %s, and there were %d crashes", len(crashed), channel, w.crashes)
		}
	}
}

// TestP05_OrderPerHost: what is told of a host on a channel is told in the order in
// which it happened.
func TestP05_OrderPerHost(t *testing.T) {
	modelled(t, func(w *world, h *history) {
		index := map[string]int{}
		for i, e := range w.events {
			index[e.ID] = i
		}
		for _, channel := range channelIDs {
			last := map[string]int{}
			for _, id := range w.got(channel, h) {
				host := w.event(id).HostID + w.event(id).CustomerID
				if before, ok := last[host]; ok && before >= index[id] {
					w.complain("%s: event %s came after one that happened later", channel, id)
				}
				last[host] = index[id]
			}
		}
	})
}

// TestP15_MessagesAreBounded: in no 5 minutes more messages of a customer come on a
// channel than the limit, but those that come again.
func TestP15_MessagesAreBounded(t *testing.T) {
	modelled(t, func(w *world, h *history) {
		for channel, receipts := range w.receipts {
			byCustomer := map[string][]receipt{}
			seen := map[string]bool{}
			for _, r := range receipts {
				if seen[r.id] {
					continue
				}
				seen[r.id] = true
				id := r.id
				if r.digest {
					id = h.digests[r.id][0]
				}
				customer := w.event(id).CustomerID
				byCustomer[customer] = append(byCustomer[customer], r)
			}
			for customer, all := range byCustomer {
				for i, r := range all {
					if w.limit < 0 || i < w.limit {
						continue
					}
					// Of those that were lost with a crash or an answer the sender knows nothing.
					unknown := 0
					for _, other := range all[i-w.limit : i] {
						if other.lost || other.life != r.life {
							unknown++
						}
					}
					if d := r.at.Sub(all[i-w.limit].at); d < windowLength && unknown == 0 {
						w.complain("%d messages of %q came on %s within %s", w.limit+1, customer, channel, d)
					}
				}
			}
		}
	})
}

// What was sent counts against the bound also when the hub was restarted and the records
// that say so are gone, and once only where they are not.
func TestP15_TheWindowOutlivesARestart(t *testing.T) {
	for name, keep := range map[string]int{"records gone": 0, "records kept": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(5)
				w.boot()
				count := func(when string, want int) {
					t.Helper()
					synctest.Wait()
					w.mu.Lock()
					defer w.mu.Unlock()
					if got := len(w.receipts["customer/bolt/chat"]); got != want {
						t.Errorf("%s %d messages came, want %d", when, got, want)
					}
				}
				for i := range 3 {
					w.tellOf(i, "bolt", "bolt-0")
				}
				time.Sleep(time.Second)
				w.remove(keep)
				w.restart()
				for i := range 4 {
					w.tellOf(10+i, "bolt", "bolt-0")
				}
				time.Sleep(time.Minute)
				count("within the window", 5)
				time.Sleep(windowLength)
				count("after it", 6) // the digest of two
				w.b.Stop()
			})
		})
	}
}

// TestP17_RecoveriesGoWhereAlarmsWent: an end is told only where a beginning was, and
// everywhere there.
func TestP17_RecoveriesGoWhereAlarmsWent(t *testing.T) {
	modelled(t, func(w *world, h *history) {
		for _, channel := range channelIDs {
			got := w.got(channel, h)
			for i, id := range got {
				e := w.event(id)
				if message.Ends(e.Type) && !slices.ContainsFunc(got[:i], func(id string) bool { return w.alarms(id, e.Episode) }) {
					w.complain("%s: %s came, and no alarm before it", channel, id)
				}
			}
			for _, e := range w.events {
				if !message.Ends(e.Type) || e.Muted() || !slices.ContainsFunc(got, func(id string) bool { return w.alarms(id, e.Episode) }) {
					continue
				}
				if strings.HasPrefix(channel, "customer/") && !strings.HasPrefix(channel, "customer/"+e.CustomerID+"/") {
					continue
				}
				switch fate := h.fate(channel, e.ID); fate {
				case hub.DeliverySent, hub.DeliveryDead, hub.DeliveryDropped:
				default:
					// An alarm that came and was not known to: then it ended dead, or with its channel.
					if !w.unknown(channel, e.Episode, h) {
						w.complain("%s: the alarm of %s came, and what ends it is %q", channel, e.ID, fate)
					}
				}
			}
		}
	})
}

// alarms reports whether an event tells that an episode began.
func (w *world) alarms(id, episode string) bool {
	e := w.event(id)
	if message.Ends(e.Type) {
		return false
	}
	return e.Episode == episode || slices.ContainsFunc(w.events, func(folded *hub.Event) bool {
		return folded.Episode == episode && folded.FoldedInto == id
	})
}

// unknown reports whether no alarm of an episode is recorded as sent on a channel, or
// the channel left the fleet after that.
func (w *world) unknown(channel, episode string, h *history) bool {
	for _, e := range w.events {
		if w.alarms(e.ID, episode) && h.fate(channel, e.ID) == hub.DeliverySent {
			return false
		}
	}
	return true
}

// TestP27_NothingOfOthers: a customer's channel hears of its own events alone, and
// reads no other's name.
func TestP27_NothingOfOthers(t *testing.T) {
	modelled(t, func(w *world, h *history) {
		for channel, receipts := range w.receipts {
			owner, ok := strings.CutPrefix(channel, "customer/")
			if !ok {
				continue
			}
			owner, _, _ = strings.Cut(owner, "/")
			for _, id := range w.got(channel, h) {
				if w.event(id).CustomerID != owner {
					w.complain("%s was told of %s of %q", channel, id, w.event(id).CustomerID)
				}
			}
			other := map[string]string{"acme": "bolt", "bolt": "acme"}[owner]
			for _, r := range receipts {
				if strings.Contains(strings.ToLower(r.text), other) {
					w.complain("%s was told: %s", channel, r.text)
				}
			}
		}
	})
}

// TestP27_AHostThatMoved: what ends the alarm of a host that has another customer by
// then is not told to the old one, though the alarm was.
func TestP27_AHostThatMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(-1)
		w.boot()
		at := time.Now().UTC()
		w.tell(hub.Event{ID: "alarm", Type: hub.HostDown, CustomerID: "acme", HostID: "acme-0", At: at, DetectedAt: at, Episode: "e", Source: "switch"})
		time.Sleep(time.Second)
		w.tell(hub.Event{ID: "end", Type: hub.HostRecovered, CustomerID: "bolt", HostID: "acme-0", At: at, DetectedAt: at, Episode: "e", Source: "switch"})
		time.Sleep(time.Second)
		w.b.Stop()
		h := w.history()
		for channel, want := range map[string][]string{"fleet/ops": {"alarm", "end"}, "customer/acme/chat": {"alarm"}, "customer/bolt/chat": nil} {
			if got := w.got(channel, h); !slices.Equal(got, want) {
				t.Errorf("%s got %v, want %v", channel, got, want)
			}
		}
	})
}

// tellOf makes an event of a controller durable, whose id begins with a number: those of
// a multiple of four choke.
func (w *world) tellOf(number int, customer, host string) {
	at := time.Now().UTC()
	w.tell(hub.Event{ID: fmt.Sprintf("%04d", number), Type: "backup_failed", Level: "warning", CustomerID: customer, HostID: host, At: at, DetectedAt: at, Source: "controller"})
}

// A message with which the receiver has a fault for ever holds up what is behind it
// about the same host, and nothing else: not what waits with it, not what comes hours
// later, and not another customer's.
func TestAFaultWithOneMessageHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(-1)
		w.boot()
		for _, id := range channelIDs {
			w.set(id, choking)
		}
		w.tellOf(4, "acme", "acme-0")
		w.tellOf(5, "acme", "acme-0")
		w.tellOf(6, "acme", "acme-1")
		w.tellOf(7, "bolt", "bolt-0")
		got := func(when, channel string, want ...string) {
			t.Helper()
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if got := w.got(channel, w.history()); !slices.Equal(got, want) {
				t.Errorf("%s, %s got %v, want %v", when, channel, got, want)
			}
		}
		time.Sleep(30 * time.Second)
		got("after 30 s", "customer/acme/chat", "0006")
		got("after 30 s", "fleet/ops", "0007", "0006")
		time.Sleep(10 * time.Hour)
		w.tellOf(9, "acme", "acme-2")
		time.Sleep(time.Second)
		got("at once", "customer/acme/chat", "0006", "0009")
		got("at once", "fleet/ops", "0007", "0006", "0009")
		if oldest := time.Since(w.b.Status().Oldest); oldest < 10*time.Hour {
			t.Errorf("the oldest is said to wait for %s", oldest)
		}
		time.Sleep(16 * time.Hour)
		got("when it was given up", "customer/acme/chat", "0006", "0009", "0005")
		for _, id := range channelIDs {
			w.set(id, up)
		}
		if n, err := w.b.Retry("0004"); n != 3 || err != nil {
			t.Errorf("%d were retried, %v", n, err)
		}
		time.Sleep(time.Hour)
		got("when all is well", "customer/acme/chat", "0006", "0009", "0005", "0004")
		w.b.Stop()
	})
}

// What is wrong with the channel is not taken for a fault with a letter: a receiver that
// has a fault with all of many messages is tried no more often for that.
func TestAFaultWithAllIsTheChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(-1)
		w.boot()
		w.set("customer/bolt/chat", failing)
		for i := range 200 {
			w.tellOf(i, "bolt", fmt.Sprint("host-", i))
		}
		time.Sleep(20 * time.Hour)
		w.b.Stop()
		attempts := 0
		for key, all := range w.history().status {
			if strings.HasPrefix(key, "customer/bolt/chat ") {
				attempts += len(all)
			}
		}
		// By half an hour, the mean of the longest wait: 40 of the channel, and of the few
		// letters that were put aside as many each.
		if attempts < 40 || attempts > 600 {
			t.Errorf("%d attempts in 20 hours", attempts)
		}
	})
}

// An alarm that was under way when the hub was killed may have been seen: what ends it
// does not collapse with it, be it the first in its queue or one that passed another.
func TestP17_AnAlarmUnderWayAtTheEndMayHaveBeenSeen(t *testing.T) {
	for name, before := range map[string]func(*world){
		"first": func(*world) {},
		"passing another": func(w *world) {
			w.set("customer/acme/chat", choking)
			w.tellOf(4, "acme", "acme-1")
			time.Sleep(time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(-1)
				w.boot()
				before(w)
				w.set("customer/acme/chat", mute)
				event := func(id string, kind hub.EventType) hub.Event {
					at := time.Now().UTC()
					return hub.Event{ID: id, Type: kind, CustomerID: "acme", HostID: "acme-0", At: at, DetectedAt: at, Episode: "e", Source: "switch"}
				}
				w.tell(event("alarm", hub.HostDown))
				time.Sleep(time.Millisecond)
				w.crash()
				w.set("customer/acme/chat", failing)
				w.boot()
				w.tell(event("end", hub.HostRecovered))
				w.set("customer/acme/chat", up)
				time.Sleep(time.Hour)
				w.b.Stop()
				got := slices.DeleteFunc(w.got("customer/acme/chat", w.history()), func(id string) bool { return id == "0004" })
				if !slices.Equal(got, []string{"alarm", "end"}) {
					t.Errorf("the channel got %v", got)
				}
			})
		})
	}
}

// TestRetryByHand: a dead message goes again, also when the hub is killed right after it
// was asked to, and a channel that waits is tried at once.
func TestRetryByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channel = "customer/bolt/chat"
		w := newWorld(-1)
		w.boot()
		retry := func(target string, want int) {
			t.Helper()
			if n, err := w.b.Retry(target); err != nil || n != want {
				t.Errorf("retry of %q: %d, %v; want %d", target, n, err, want)
			}
		}
		got := func(when string, want ...string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if got := w.got(channel, w.history()); !slices.Equal(got, want) {
				t.Errorf("%s the channel got %v, want %v", when, got, want)
			}
		}
		w.set(channel, refusing)
		w.tellOf(1, "bolt", "bolt-0")
		time.Sleep(time.Second)
		w.set(channel, failing)
		retry("0001", 1) // it waits behind this failure
		time.Sleep(time.Second)
		w.crash()
		w.boot()
		if items := w.b.List(false); len(items) != 1 || items[0].Dead {
			t.Errorf("after a crash there are %+v", items)
		}
		time.Sleep(3 * time.Hour)
		w.set(channel, up)
		got("before its time")
		retry(channel, 0)
		got("when the channel was retried", "0001")
		before := len(w.b.Snapshot())
		retry("", 0)
		if after := len(w.b.Snapshot()); after != before {
			t.Errorf("a retry of nothing leaves %d bytes in the snapshot", after-before)
		}
		if _, err := w.b.Retry("0001"); err == nil {
			t.Error("a message that was sent was retried")
		}
		w.b.Stop()
	})
}

// TestRecoverReturnsWhatItRead: the events of a record are for others, too.
func TestRecoverReturnsWhatItRead(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	event := hub.Event{ID: "f1", Type: hub.HubSwitchHeld, At: at, DetectedAt: at, Source: "switch"}
	decision, err := wire.EncodeDecision(hub.Decision{Events: []hub.Event{event}})
	if err != nil {
		t.Fatal(err)
	}
	notice, err := wire.EncodeNotice(hub.Notice{Events: []hub.Event{event}})
	if err != nil {
		t.Fatal(err)
	}
	b := outbox.New(outbox.Options{})
	for name, c := range map[string]struct {
		record spool.Record
		want   int
	}{
		"decision": {spool.Record{Kind: hub.KindDecision, Body: decision}, 1},
		"notice":   {spool.Record{Kind: hub.KindNotice, Body: notice}, 1},
		"unread":   {spool.Record{Kind: hub.KindNotice, Body: []byte("{")}, 0},
		"report":   {spool.Record{Kind: hub.KindHostReport, Body: notice}, 0},
	} {
		got := b.Recover(spool.Entry{Record: c.record, Receipt: hub.Receipt{ReceivedAt: at}})
		if len(got) != c.want || c.want > 0 && (got[0].ID != "f1" || !got[0].DetectedAt.Equal(at)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
