package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
	"felhom.eu/hub/internal/logtest"
	"felhom.eu/hub/internal/spool"
)

const goldenHost = "acme-5f2c9a1e"

// fixture is a served hub, from the socket to the disk: only the fleet, the
// mint and the clock's limits are made up.
type fixture struct {
	*httpapi.Server
	t        testing.TB
	dir      string // of the spool
	fleet    *hub.Fleet
	spool    *faultySpool
	acceptor *ingest.Acceptor
	log      *logtest.Buffer
	keys     map[string]hub.Secret // by owner; "expired" is another of goldenHost
	ready    bool
}

type settings struct {
	http         httpapi.Options
	ingest       ingest.Options
	header, read time.Duration
	dir          string
	keys         map[string]hub.Secret
	maxBytes     int64 // of the spool
	wrap         func(*faultySpool) *slowDisk
}

// faultySpool is the real spool, until it is told to fail.
type faultySpool struct {
	*spool.Spool
	mu  sync.Mutex
	err error
}

func (s *faultySpool) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *faultySpool) Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Spool.Append(ctx, records...)
}

func (f *fixture) Current() *hub.Fleet { return f.fleet }

// Mint knows one customer.
func (f *fixture) Mint(_ context.Context, customer, _ string) (httpapi.Minted, error) {
	switch customer {
	case "acme":
		f.keys["minted"] = hub.NewKey()
		return httpapi.Minted{HostID: "acme-00000001", APIKey: f.keys["minted"], Commit: "c0ffee", Branch: "main"}, nil
	case "away":
		return httpapi.Minted{}, &hub.Error{Code: hub.Unavailable, Reason: "remote_away", Message: "the fleet repository is out of reach"}
	}
	return httpapi.Minted{}, &hub.Error{Code: hub.Invalid, Reason: "unknown_customer", Message: "there is no such customer"}
}

func serve(t testing.TB, change ...func(*settings)) *fixture {
	t.Helper()
	f := &fixture{t: t, log: new(logtest.Buffer), ready: true}
	logger := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := settings{
		http: httpapi.Options{
			Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Logger: logger, Minter: f,
			Ready:       func() (bool, any) { return f.ready, map[string]any{"warnings": []string{"clickhouse is away"}} },
			FleetStatus: func() any { return map[string]any{"revision": "abc", "hosts": 3} },
		},
		ingest: ingest.Options{Fleets: f, PollInterval: 900 * time.Second, Logger: logger},
		header: 5 * time.Second, read: 5 * time.Second,
		dir: t.TempDir(), keys: map[string]hub.Secret{}, maxBytes: 64 << 20,
	}
	for _, c := range change {
		c(&s)
	}
	f.keys, f.dir = s.keys, s.dir
	f.fleet = f.makeFleet(false)

	var recovered []spool.Entry
	disk, err := spool.Open(spool.Options{Dir: s.dir, MaxBytes: s.maxBytes, VolumeBytes: s.maxBytes / 8, Logger: logger, Recovered: func(e spool.Entry) {
		e.Body = bytes.Clone(e.Body)
		recovered = append(recovered, e)
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.spool = &faultySpool{Spool: disk}
	s.ingest.Spool = f.spool
	if s.wrap != nil {
		s.ingest.Spool = s.wrap(f.spool)
	}
	f.acceptor = ingest.New(s.ingest)
	for _, e := range recovered {
		f.acceptor.Recover(e)
	}
	if s.http.Reports == nil {
		s.http.Reports = f.acceptor
	}
	if f.Server, err = httpapi.NewWithTimeouts(s.http, s.header, s.read); err != nil {
		t.Fatal(err)
	}
	f.Start()
	t.Cleanup(f.close)
	return f
}

// close also holds every test to I23: no key in any log line.
func (f *fixture) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(f.Stop(ctx), f.spool.Close()); err != nil {
		f.t.Error(err)
	}
	if n := f.InFlight(); n != 0 {
		f.t.Errorf("%d bytes of bodies were never released", n)
	}
	log := f.log.String()
	for owner, key := range f.keys {
		if strings.Contains(log, key.Reveal()) || strings.Contains(log, key.Reveal()[:16]) {
			f.t.Errorf("the key of %s is in the log:\n%s", owner, log)
		}
	}
	if strings.Contains(strings.ToLower(log), "bearer ") {
		f.t.Errorf("an Authorization header is in the log:\n%s", log)
	}
}

func (f *fixture) makeFleet(blocked bool) *hub.Fleet {
	f.t.Helper()
	key := func(name string, owner hub.Owner, id string, notAfter time.Time) hub.Key {
		if _, ok := f.keys[name]; !ok {
			f.keys[name] = hub.NewKey()
		}
		digest, err := hub.DigestKey(f.keys[name].Reveal())
		if err != nil {
			f.t.Fatal(err)
		}
		return hub.Key{ID: id, Owner: owner, Digest: digest, NotAfter: notAfter}
	}
	host := func(id, customer string, state hub.Lifecycle) *hub.Host {
		return &hub.Host{ID: id, Customer: customer, Lifecycle: state, Keys: []hub.Key{key("host/"+id, hub.HostOwner(id), "k1", time.Time{})}}
	}
	golden := host(goldenHost, "acme", hub.Active)
	golden.Keys = append(golden.Keys, key("expired", hub.HostOwner(goldenHost), "k0", time.Now().Add(-time.Hour)))
	fleet, err := hub.NewFleet(hub.FleetSpec{
		Keys:      []hub.Key{key("fleet", hub.FleetOwner(), "g1", time.Time{})},
		Customers: []*hub.Customer{{Name: "globex", Keys: []hub.Key{key("customer/globex", hub.CustomerOwner("globex"), "c1", time.Time{})}}, {Name: "acme", Blocked: blocked, Keys: []hub.Key{key("customer/acme", hub.CustomerOwner("acme"), "c1", time.Time{}), key("customer/acme, expired", hub.CustomerOwner("acme"), "c0", time.Now().Add(-time.Hour))}}},
		Hosts:     []*hub.Host{golden, host("acme-2", "acme", hub.Paused), host("acme-3", "acme", hub.Retired), host("acme-4", "acme", hub.Active), host("globex-1", "globex", hub.Active)},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return fleet
}

// records returns what the spool holds, as a shipper would read it.
func (f *fixture) records() []spool.Entry {
	f.t.Helper()
	var all []spool.Entry
	r := f.spool.Reader(spool.Cursor{})
	defer r.Close()
	for {
		e, ok, err := r.Next()
		if err != nil {
			f.t.Fatal(err)
		}
		if !ok {
			return all
		}
		e.Body = bytes.Clone(e.Body)
		all = append(all, e)
	}
}

type request struct {
	method   string // "" is POST
	path     string // "" is the report's
	key      string // an owner of fixture.keys; "" sends none
	body     []byte
	encoding string
	stream   bool // no Content-Length
	header   http.Header
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (f *fixture) send(q request) answer {
	f.t.Helper()
	a, err := f.try(q)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fixture) try(q request) (answer, error) {
	method, path := q.method, q.path
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = "/api/v1/host-report"
	}
	var body io.Reader = bytes.NewReader(q.body)
	if q.stream {
		body = io.MultiReader(body)
	}
	r, err := http.NewRequest(method, "http://"+f.Addr()+path, body)
	if err != nil {
		return answer{}, err
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	if q.key != "" {
		r.Header.Add("Authorization", "Bearer "+f.keys[q.key].Reveal())
	}
	if q.encoding != "" {
		r.Header.Set("Content-Encoding", q.encoding)
	}
	return do(r)
}

func (f *fixture) admin(path string) answer {
	f.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+f.AdminAddr()+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	a, err := do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, ExpectContinueTimeout: 10 * time.Second}}

func do(r *http.Request) (answer, error) {
	resp, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func report(host string, n int) []byte {
	return fmt.Appendf(nil, `{"host_id":%q,"reported_at":"2026-06-08T09:15:00Z","agent_version":"0.3.0","host":{},"n":%d}`, host, n)
}

// padded is a report of exactly size bytes.
func padded(size int) []byte {
	b := []byte(`{"host_id":"` + goldenHost + `","reported_at":"2026-06-08T09:15:00Z","agent_version":"0.3.0","host":{},"pad":"`)
	b = append(b, bytes.Repeat([]byte("x"), size-len(b)-2)...)
	return append(b, `"}`...)
}
