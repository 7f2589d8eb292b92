package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

func controllerBody(guest string, n int) []byte {
	named := ""
	if guest != "" {
		named = fmt.Sprintf(`"guest_id":%q,`, guest)
	}
	return fmt.Appendf(nil, `{"customer_id":"acme",%s"reported_at":"2026-06-08T09:16:00Z","controller_version":"1.12.0","n":%d}`, named, n)
}

func eventBody(guest string, n int) []byte {
	return fmt.Appendf(nil, `{"type":"backup_failed","severity":"warning","message":"no space left","guest_id":%q,"n":%d}`, guest, n)
}

// control goes all the way of a controller's report, tell that of its event.
func (f *fixture) control(ctx context.Context, key string, body []byte) (retry bool, err error) {
	return f.pass(ctx, key, body, f.AdmitController, f.AcceptController)
}

func (f *fixture) tell(ctx context.Context, key string, body []byte) (retry bool, err error) {
	return f.pass(ctx, key, body, f.AdmitEvent, f.AcceptEvent)
}

func (f *fixture) pass(ctx context.Context, owner string, body []byte, admit func(hub.Key) (string, error),
	accept func(context.Context, hub.Key, string, []byte) ([]byte, bool, error)) (retry bool, err error) {
	key, err := f.Identify(f.bearer(owner), client)
	if err != nil {
		return false, err
	}
	customer, err := admit(key)
	if err != nil {
		return false, err
	}
	_, retry, err = accept(ctx, key, customer, body)
	return retry, err
}

// reasonOf is empty where there is no error.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return hub.ReasonOf(err)
}

func TestControllersAreSeen(t *testing.T) {
	f := newFixture(t)
	const guest = "acme-1/101"
	for _, send := range []func() (bool, error){
		func() (bool, error) { return f.tell(t.Context(), "customer/acme", eventBody(guest, 1)) },
		func() (bool, error) { return f.control(t.Context(), "customer/acme", controllerBody("", 1)) },
	} {
		if _, err := send(); err != nil {
			t.Fatal(err)
		}
	}
	if _, seen := f.LastSeen(guest); seen || len(f.Newcomers()) != 0 {
		t.Error("an event, or a report that names no guest, is a sign of a guest's life")
	}
	for n := range 3 { // records 3, 4, 5
		if retry, err := f.control(t.Context(), "customer/acme", controllerBody(guest, n)); retry || err != nil {
			t.Fatal(retry, err)
		}
	}
	if seen, ok := f.LastSeen(guest); !ok || seen != receipt(5) {
		t.Errorf("last seen %+v", seen)
	}
	if first, ok := f.FirstSeen(guest, receipt(3).ReceivedAt); !ok || !first.Equal(receipt(4).ReceivedAt) {
		t.Errorf("first seen %s", first)
	}
	if _, seen := f.LastSeen("acme-1"); seen {
		t.Error("a controller's report is no sign of its host's life")
	}
	if got := f.Newcomers(); !slices.Equal(got, []string{guest}) || f.Newcomers() != nil {
		t.Errorf("newcomers %q", got)
	}
}

// Retries are recognised per guest, per customer's controllers without a guest, and
// per guest's events; also by a hub that reads the spool or a snapshot of another.
func TestI17_RetriesOfControllers(t *testing.T) {
	f := newFixture(t)
	sends := map[string]func(f *fixture, n int) (bool, error){
		"a guest's": func(f *fixture, n int) (bool, error) {
			return f.control(t.Context(), "customer/acme", controllerBody("acme-1/101", n))
		},
		"another guest's": func(f *fixture, n int) (bool, error) {
			return f.control(t.Context(), "fleet", controllerBody("acme-2/101", n))
		},
		"no guest's": func(f *fixture, n int) (bool, error) {
			return f.control(t.Context(), "customer/acme", controllerBody("", n))
		},
		"an event": func(f *fixture, n int) (bool, error) {
			return f.tell(t.Context(), "customer/acme", eventBody("acme-1/101", n))
		},
	}
	check := func(f *fixture, when string, from, to int, want bool) {
		t.Helper()
		for what, send := range sends {
			for n := from; n < to; n++ {
				if retry, err := send(f, n); retry != want || err != nil {
					t.Errorf("%s, %s %d: retry %v, %v", when, what, n, retry, err)
				}
			}
		}
	}
	check(f, "at first", 0, 10, false)
	check(f, "again", 2, 10, true)
	rows := f.spool.rows()
	snapshot, read := newFixture(t), newFixture(t)
	if err := snapshot.Restore(f.Snapshot()); err != nil {
		t.Fatal(err)
	}
	for i, r := range f.spool.records {
		read.Recover(spool.Entry{Record: r, Receipt: receipt(uint64(i + 1))})
	}
	for when, of := range map[string]*fixture{"from a snapshot": snapshot, "from the spool": read} {
		check(of, when, 2, 10, true)
		if n := of.spool.rows(); n != 0 {
			t.Errorf("%s: %d rows", when, n)
		}
		known := of.Newcomers()
		slices.Sort(known)
		if !slices.Equal(known, []string{"acme-1/101", "acme-2/101"}) {
			t.Errorf("%s: newcomers %q", when, known)
		}
		for _, guest := range known {
			if seen, _ := of.LastSeen(guest); seen == (hub.Receipt{}) {
				t.Errorf("%s: %s was not seen", when, guest)
			} else if want, _ := f.LastSeen(guest); seen != want {
				t.Errorf("%s: %s seen %+v, want %+v", when, guest, seen, want)
			}
		}
	}
	if f.spool.rows() != rows {
		t.Errorf("%d rows were added by retries", f.spool.rows()-rows)
	}
}

// Nobody can name itself so that it is taken for another sender.
func TestSendersAreTold(t *testing.T) {
	senders := map[string]spool.Record{}
	for _, r := range []spool.Record{
		{Kind: hub.KindHostReport, HostID: "acme"},
		{Kind: hub.KindHostReport, HostID: "101"},
		{Kind: hub.KindControllerReport, HostID: "customer/101", CustomerID: "acme"},
		{Kind: hub.KindControllerReport, CustomerID: "acme"},
		{Kind: hub.KindControllerReport, CustomerID: "101"},
		{Kind: hub.KindControllerEvent, HostID: "customer/101", CustomerID: "acme"},
		{Kind: hub.KindControllerEvent, CustomerID: "acme"},
	} {
		sender, ok := senderOf(r)
		if other, twice := senders[sender]; !ok || twice {
			t.Errorf("%+v and %+v are both %q", r, other, sender)
		}
		senders[sender] = r
	}
	for _, kind := range []hub.RecordKind{hub.KindDecision, hub.KindNotice, hub.KindBlind, 99} {
		if sender, ok := senderOf(spool.Record{Kind: kind}); ok {
			t.Errorf("kind %d is from %q", kind, sender)
		}
	}
}

func TestRatesOfControllers(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.HostRate, o.CustomerRate = 1, 2.5 }) // bursts of 2 and 5
	n := 0
	send := func(guest string) string {
		n++
		_, err := f.control(t.Context(), "customer/acme", controllerBody(guest, n))
		return reasonOf(err)
	}
	var got []string
	for _, guest := range []string{"acme-1/101", "acme-1/101", "acme-1/101", "acme-1/101", "", "", "", "acme-1/102", "acme-1/102"} {
		got = append(got, send(guest))
	}
	want := []string{"", "", "controller_rate", "controller_rate", "", "", "controller_rate", "", "controllers_rate"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// What is left of the customer is looked at before the body; its hosts have their own.
	key := f.key(t, hub.CustomerOwner("acme"), "c1")
	if _, err := f.AdmitController(key); hub.ReasonOf(err) != "controllers_rate" {
		t.Errorf("%v", err)
	}
	var e *hub.Error
	if _, err := f.tell(t.Context(), "customer/acme", eventBody("acme-1/101", 1)); !errors.As(err, &e) || e.Code != hub.RateLimited || e.Retry <= 0 {
		t.Errorf("%v", err)
	}
	if _, _, err := f.report(t.Context(), f.bearer("host/acme-1"), body("acme-1", 1)); err != nil {
		t.Errorf("a host is refused for its guests: %v", err)
	}
	f.now = f.now.Add(time.Minute)
	if got := send("acme-1/101"); got != "" {
		t.Errorf("later: %s", got)
	}
}

// A key that left the fleet, and a host that moved, decide with the next step.
func TestTheFleetInForceDecidesForControllers(t *testing.T) {
	f := newFixture(t)
	key := f.key(t, hub.CustomerOwner("acme"), "c1")
	f.fleet = f.makeFleet(t, hub.Retired, true)
	reply, _, err := f.AcceptController(t.Context(), key, "acme", controllerBody("acme-2/1", 1))
	if err != nil || !strings.Contains(string(reply), `"blocked":true`) {
		t.Errorf("a blocked customer's: %s, %v", reply, err)
	}
	if _, _, err := f.AcceptController(t.Context(), key, "acme", controllerBody("acme-1/1", 1)); hub.ReasonOf(err) != "other_guest" {
		t.Errorf("its host was retired: %v", err)
	}
	empty, err := hub.NewFleet(hub.FleetSpec{})
	if err != nil {
		t.Fatal(err)
	}
	f.fleet = empty
	if _, err := f.AdmitController(key); hub.CodeOf(err) != hub.Unauthorized {
		t.Errorf("its customer is gone: %v", err)
	}
	if _, _, err := f.AcceptController(t.Context(), key, "acme", controllerBody("", 1)); hub.CodeOf(err) != hub.Unauthorized {
		t.Errorf("its customer is gone: %v", err)
	}
}

func TestEventTypesOfTheFleet(t *testing.T) {
	f := newFixture(t)
	spec := hub.FleetSpec{ControllerEvents: []hub.EventType{"backup_done", "host_recovered"}}
	for c := range f.fleet.Customers() {
		spec.Customers = append(spec.Customers, c)
	}
	for h := range f.fleet.Hosts() {
		spec.Hosts = append(spec.Hosts, h)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		t.Fatal(err)
	}
	f.fleet = fleet
	for typ, want := range map[string]string{"backup_done": "", "backup_failed": "event_type", "host_recovered": "event_type"} {
		_, err := f.tell(t.Context(), "customer/acme", []byte(strings.Replace(string(eventBody("acme-1/101", 1)), "backup_failed", typ, 1)))
		if reasonOf(err) != want {
			t.Errorf("%s: %v", typ, err)
		}
	}
}
