package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

var start = time.Date(2026, 6, 8, 9, 15, 1, 0, time.UTC)

// fixture is an Acceptor over a fleet of two customers, with a spool that fails
// and waits on demand, and a clock that stands still.
type fixture struct {
	*Acceptor
	spool *fakeSpool
	fleet *hub.Fleet
	now   time.Time
	log   bytes.Buffer
	keys  map[string]hub.Secret // by owner; "expired" is another key of host acme-1
}

type fakeSpool struct {
	mu      sync.Mutex
	records []spool.Record
	err     error
	entered chan struct{} // if set, told of each Append
	gate    chan struct{} // if set, Append waits for it
}

func (s *fakeSpool) Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	if s.gate != nil {
		s.entered <- struct{}{}
		<-s.gate
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	for _, r := range records {
		r.Body = bytes.Clone(r.Body)
		s.records = append(s.records, r)
	}
	return []hub.Receipt{receipt(uint64(len(s.records)))}, nil
}

func (s *fakeSpool) rows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

func receipt(seq uint64) hub.Receipt {
	return hub.Receipt{Position: hub.Position{SpoolID: hub.SpoolID{1}, Seq: seq}, ReceivedAt: start.Add(time.Duration(seq) * time.Millisecond)}
}

func (f *fixture) Current() *hub.Fleet { return f.fleet }

func newFixture(t testing.TB, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{spool: &fakeSpool{}, now: start, keys: map[string]hub.Secret{}}
	f.fleet = f.makeFleet(t, hub.Active, false)
	o := Options{
		Fleets: f, Spool: f.spool, PollInterval: 900 * time.Second,
		Now:    func() time.Time { return f.now },
		Logger: slog.New(slog.NewTextHandler(&f.log, nil)),
	}
	for _, c := range change {
		c(&o)
	}
	f.Acceptor = New(o)
	return f
}

func (f *fixture) makeFleet(t testing.TB, acme1 hub.Lifecycle, blocked bool) *hub.Fleet {
	t.Helper()
	key := func(name string, owner hub.Owner, id string, notAfter time.Time) hub.Key {
		if _, ok := f.keys[name]; !ok {
			f.keys[name] = hub.NewKey()
		}
		digest, err := hub.DigestKey(f.keys[name].Reveal())
		if err != nil {
			t.Fatal(err)
		}
		return hub.Key{ID: id, Owner: owner, Digest: digest, NotAfter: notAfter}
	}
	hostKey := func(id string) hub.Key { return key("host/"+id, hub.HostOwner(id), "k1", time.Time{}) }
	fleet, err := hub.NewFleet(hub.FleetSpec{
		Keys: []hub.Key{key("fleet", hub.FleetOwner(), "g1", time.Time{})},
		Customers: []*hub.Customer{
			{Name: "acme", Blocked: blocked, Keys: []hub.Key{key("customer/acme", hub.CustomerOwner("acme"), "c1", time.Time{})}},
			{Name: "beta"},
		},
		Hosts: []*hub.Host{
			{ID: "acme-1", Customer: "acme", Lifecycle: acme1, Keys: []hub.Key{
				hostKey("acme-1"), key("expired", hub.HostOwner("acme-1"), "k0", start.Add(-time.Millisecond)),
			}},
			{ID: "acme-2", Customer: "acme", Lifecycle: hub.Paused, Keys: []hub.Key{hostKey("acme-2")}},
			{ID: "beta-1", Customer: "beta", Lifecycle: hub.Retired, Keys: []hub.Key{hostKey("beta-1")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fleet
}

func body(host string, n int) []byte {
	return fmt.Appendf(nil, `{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"0.3.0","host":{},"n":%d}`, host, n)
}

var client = netip.MustParseAddr("192.0.2.7")

// report goes all the way of a request.
func (f *fixture) report(ctx context.Context, authorization string, body []byte) (string, bool, error) {
	if err := f.Ready(); err != nil {
		return "", false, err
	}
	key, err := f.Identify(authorization, client)
	if err != nil {
		return "", false, err
	}
	customer, err := f.Admit(key)
	if err != nil {
		return "", false, err
	}
	envelope, retry, err := f.Accept(ctx, key, customer, body)
	return string(envelope), retry, err
}

func (f *fixture) bearer(name string) string { return "Bearer " + f.keys[name].Reveal() }

func TestVerdicts(t *testing.T) {
	f := newFixture(t)
	const open = `{"status":"ok","poll_interval_seconds":900,"blocked":false,"desired_generation":0,"has_signed_ops":false}` + "\n"
	for _, c := range []struct {
		name, authorization, host string
		code                      hub.Code
		reason                    string
		keyID                     string // of the row
	}{
		{"host key", f.bearer("host/acme-1"), "acme-1", 0, "", "k1"},
		{"scheme in another case", "bearer " + f.keys["host/acme-1"].Reveal(), "acme-1", 0, "", "k1"},
		{"paused host", f.bearer("host/acme-2"), "acme-2", 0, "", "k1"},
		{"global key", f.bearer("fleet"), "acme-1", 0, "", "fleet/g1"},
		{"other host", f.bearer("host/acme-1"), "acme-2", hub.Forbidden, "other_host", ""},
		{"unknown other host", f.bearer("host/acme-1"), "nobody", hub.Forbidden, "other_host", ""},
		{"global key, unknown host", f.bearer("fleet"), "nobody", hub.Invalid, "not_enrolled", ""},
		{"global key, retired host", f.bearer("fleet"), "beta-1", hub.Invalid, "not_enrolled", ""},
		{"retired host", f.bearer("host/beta-1"), "beta-1", hub.Unauthorized, "unknown_key", ""},
		{"customer key", f.bearer("customer/acme"), "acme-1", hub.Forbidden, "customer_key", ""},
		{"expired", f.bearer("expired"), "acme-1", hub.Unauthorized, "expired_key", ""},
		{"none", "", "acme-1", hub.Unauthorized, "no_key", ""},
		{"unknown", "Bearer " + strings.Repeat("0", 64), "acme-1", hub.Unauthorized, "unknown_key", ""},
		{"upper case", "Bearer " + strings.ToUpper(f.keys["host/acme-1"].Reveal()), "acme-1", hub.Unauthorized, "malformed_key", ""},
		{"basic", "Basic " + f.keys["host/acme-1"].Reveal(), "acme-1", hub.Unauthorized, "malformed_key", ""},
		{"two in one", f.bearer("host/acme-1") + ", " + f.bearer("host/acme-1"), "acme-1", hub.Unauthorized, "malformed_key", ""},
		{"body", f.bearer("host/acme-1"), `"`, hub.Invalid, "identity", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.spool.records = nil
			envelope, retry, err := f.report(t.Context(), c.authorization, body(c.host, len(c.name)))
			if c.reason != "" {
				if err == nil || hub.CodeOf(err) != c.code || hub.ReasonOf(err) != c.reason || f.spool.rows() != 0 {
					t.Errorf("%v (%s), %d rows; want %s and none", err, hub.ReasonOf(err), f.spool.rows(), c.reason)
				}
				return
			}
			if err != nil || retry || envelope != open {
				t.Fatalf("%q, retry %v, %v", envelope, retry, err)
			}
			r := f.spool.records[0]
			if r.Kind != hub.KindHostReport || r.HostID != c.host || r.CustomerID != "acme" || r.KeyID != c.keyID || !bytes.Equal(r.Body, body(c.host, len(c.name))) {
				t.Errorf("record %+v", r)
			}
		})
	}
}

func TestEveryBadKeyGetsTheSameMessage(t *testing.T) {
	f := newFixture(t)
	for _, authorization := range []string{"", "Bearer x", "Bearer " + strings.Repeat("0", 64), f.bearer("expired"), f.bearer("host/beta-1")} {
		_, err := f.Identify(authorization, client)
		var e *hub.Error
		if !errors.As(err, &e) || e.Message != badKey {
			t.Errorf("%v", err)
		}
	}
	if key, _ := f.Identify(f.bearer("expired"), client); key.ID != "k0" || key.Owner.String() != "host/acme-1" {
		t.Errorf("the expired key is not named for the audit: %+v", key)
	}
}

func TestNoFleetYet(t *testing.T) {
	f := newFixture(t)
	f.fleet = nil
	if _, _, err := f.report(t.Context(), f.bearer("fleet"), body("acme-1", 0)); hub.CodeOf(err) != hub.Unavailable || hub.ReasonOf(err) != "no_fleet" {
		t.Error(err)
	}
	if _, err := f.Identify(f.bearer("fleet"), client); hub.ReasonOf(err) != "no_fleet" {
		t.Error(err)
	}
}

func TestTheFleetInForceDecides(t *testing.T) {
	f := newFixture(t)
	key, err := f.Identify(f.bearer("host/acme-1"), client)
	if err != nil {
		t.Fatal(err)
	}
	f.fleet = f.makeFleet(t, hub.Active, true)
	if envelope, _, err := f.Accept(t.Context(), key, "acme", body("acme-1", 0)); err != nil || !strings.Contains(string(envelope), `"blocked":true`) || f.spool.rows() != 1 {
		t.Errorf("a blocked customer's report: %s, %v, %d rows", envelope, err, f.spool.rows())
	}
	f.fleet = f.makeFleet(t, hub.Retired, false)
	if _, err := f.Admit(key); hub.CodeOf(err) != hub.Unauthorized {
		t.Errorf("retired between two steps: %v", err)
	}
	if _, _, err := f.Accept(t.Context(), key, "acme", body("acme-1", 1)); hub.CodeOf(err) != hub.Unauthorized {
		t.Errorf("retired between two steps: %v", err)
	}
}

func TestI17_EightReportsOfAHostAreRemembered(t *testing.T) {
	f := newFixture(t)
	send := func(host string, n int) bool {
		t.Helper()
		_, retry, err := f.report(t.Context(), f.bearer("fleet"), body(host, n))
		if err != nil {
			t.Fatal(err)
		}
		return retry
	}
	for n := range 8 {
		if send("acme-1", n) {
			t.Fatalf("report %d is taken for a retry", n)
		}
	}
	newest, ok := f.LastSeen("acme-1")
	if !ok || newest != receipt(8) {
		t.Errorf("last seen %+v, %v", newest, ok)
	}
	for n := range 8 {
		if !send("acme-1", n) {
			t.Errorf("retry of report %d was not recognised", n)
		}
	}
	if again, _ := f.LastSeen("acme-1"); again != newest || f.spool.rows() != 8 {
		t.Errorf("a retry left a sign of life: %+v, %d rows", again, f.spool.rows())
	}
	if send("acme-2", 0) {
		t.Error("another host's report is no retry")
	}
	if send("acme-1", 8) || send("acme-1", 0) {
		t.Error("report 0 is no longer among the last 8")
	}
	if !send("acme-1", 2) {
		t.Error("report 2 is still among the last 8")
	}
}

func TestI17_ConcurrentDuplicatesShareTheFirstsFate(t *testing.T) {
	for _, failure := range []error{nil, &hub.Error{Code: hub.Unavailable, Reason: "disk_failed", Message: "no"}} {
		t.Run(fmt.Sprint(failure), func(t *testing.T) {
			f := newFixture(t)
			f.spool.entered, f.spool.gate, f.spool.err = make(chan struct{}), make(chan struct{}), failure
			const clients = 20
			type outcome struct {
				retry bool
				err   error
			}
			outcomes := make(chan outcome, clients)
			send := func() {
				_, retry, err := f.report(t.Context(), f.bearer("host/acme-1"), body("acme-1", 0))
				outcomes <- outcome{retry, err}
			}
			go send()
			<-f.spool.entered
			for range clients - 1 {
				go send()
			}
			// One who stops waiting does not disturb the others.
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := f.report(gone, f.bearer("host/acme-1"), body("acme-1", 0)); hub.ReasonOf(err) != "client_gone" {
				t.Errorf("a client that went away: %v", err)
			}
			close(f.spool.gate)
			go func() { // those that come after the first has failed write themselves
				for range f.spool.entered {
				}
			}()
			retries := 0
			for range clients {
				o := <-outcomes
				if !errors.Is(o.err, failure) {
					t.Errorf("outcome %v, want %v", o.err, failure)
				}
				if o.retry {
					retries++
				}
			}
			if failure == nil && (retries != clients-1 || f.spool.rows() != 1) {
				t.Errorf("%d retries, %d rows; want %d and 1", retries, f.spool.rows(), clients-1)
			}
			f.spool.err = nil
			if _, _, err := f.report(t.Context(), f.bearer("host/acme-1"), body("acme-1", 0)); err != nil || f.spool.rows() != 1 {
				t.Errorf("afterwards: %v, %d rows", err, f.spool.rows())
			}
			close(f.spool.entered)
		})
	}
}

func TestAClientThatGoesAwayDoesNotUndoItsReport(t *testing.T) {
	f := newFixture(t)
	f.spool.entered, f.spool.gate = make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, _, err := f.report(ctx, f.bearer("host/acme-1"), body("acme-1", 0))
		result <- err
	}()
	<-f.spool.entered
	cancel()
	close(f.spool.gate)
	if err := <-result; err != nil || f.spool.rows() != 1 {
		t.Errorf("%v, %d rows", err, f.spool.rows())
	}
}

func TestRates(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.HostRate, o.CustomerRate = 10, 15 })
	admit := func(name string) error {
		t.Helper()
		key, err := f.Identify(f.bearer(name), client)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Admit(key)
		return err
	}
	for n := range 20 {
		if err := admit("host/acme-1"); err != nil {
			t.Fatalf("report %d of a burst of 20: %v", n, err)
		}
	}
	err := admit("host/acme-1")
	var e *hub.Error
	if !errors.As(err, &e) || e.Code != hub.RateLimited || e.Reason != "host_rate" || e.Retry <= 0 || e.Retry > 100*time.Millisecond {
		t.Fatalf("report 21: %#v", err)
	}
	for n := range 10 {
		if err := admit("host/acme-2"); err != nil {
			t.Fatalf("report %d of another host, customer at %d of 30: %v", n, 20+n, err)
		}
	}
	if err := admit("host/acme-2"); hub.ReasonOf(err) != "customer_rate" {
		t.Errorf("report 31 of the customer: %v", err)
	}
	if _, _, err := f.report(t.Context(), f.bearer("fleet"), body("acme-2", 1)); hub.ReasonOf(err) != "customer_rate" {
		t.Errorf("a global key does not get around the rates: %v", err)
	}
	f.now = f.now.Add(100 * time.Millisecond)
	if err := admit("host/acme-1"); err != nil {
		t.Errorf("after a tenth of a second: %v", err)
	}
}

func TestLimitersForgetOnlyFullBuckets(t *testing.T) {
	l := newLimiters(0.01) // a bucket of one takes 100 s to fill
	now := start
	if _, ok := l.allow("a", now); !ok {
		t.Fatal("the first event")
	}
	for range 9 { // across turns of the generations
		now = now.Add(10 * time.Second)
		if _, ok := l.allow("a", now); ok {
			t.Fatalf("allowed again after %v", now.Sub(start))
		}
	}
	now = now.Add(10 * time.Second)
	if _, ok := l.allow("a", now); !ok {
		t.Error("refused after 100 s")
	}
	for i := range 1000 {
		l.allow(fmt.Sprint(i), now)
	}
	for range 2 {
		now = now.Add(l.span)
		l.allow("b", now)
	}
	if n := len(l.young) + len(l.old); n > 2 {
		t.Errorf("%d buckets are kept of names long idle", n)
	}
	if _, ok := newLimiters(0).allow("a", now); !ok {
		t.Error("0 is no limit")
	}
}

func TestFailuresAreLimitedAndGoodKeysAreNot(t *testing.T) {
	f := newFixture(t)
	limited := 0
	for range failuresBurst + 50 {
		switch _, err := f.Identify("Bearer x", client); hub.CodeOf(err) {
		case hub.RateLimited:
			limited++
		case hub.Unauthorized:
		default:
			t.Fatal(err)
		}
	}
	if limited != 50 {
		t.Errorf("%d of %d failures were limited", limited, failuresBurst+50)
	}
	if _, err := f.Identify("Bearer x", netip.MustParseAddr("::ffff:192.0.2.200")); hub.CodeOf(err) != hub.RateLimited {
		t.Errorf("an address of the same /24: %v", err)
	}
	if _, err := f.Identify(f.bearer("host/acme-1"), client); err != nil {
		t.Errorf("a good key from the same address: %v", err)
	}
	f.now = f.now.Add(time.Second)
	if _, err := f.Identify("Bearer x", client); hub.CodeOf(err) != hub.Unauthorized {
		t.Errorf("a second later: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"192.0.2.1", "192.0.2.255"},
		{"192.0.2.1", "::ffff:192.0.2.9"},
		{"2001:db8::1", "2001:db8::ffff:1:2:3"},
		{"fe80::1%eth0", "fe80::1%eth1"},
	} {
		if network(netip.MustParseAddr(c.a)) != network(netip.MustParseAddr(c.b)) {
			t.Errorf("%s and %s are not of one network", c.a, c.b)
		}
	}
	if network(netip.MustParseAddr("192.0.2.1")) == network(netip.MustParseAddr("192.0.3.1")) {
		t.Error("two /24 are one network")
	}
	network(netip.Addr{}) // must not panic
}
