package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/selfprobe"
)

const (
	reportPath  = "/api/v1/report"
	eventPath   = "/api/v1/event"
	goldenGuest = goldenHost + "/101"

	reportReply = `{"status":"ok","blocked":false}` + "\n"
	eventReply  = `{"status":"ok"}` + "\n"
)

func controllerReport(customer, guest string, n int) []byte {
	return fmt.Appendf(nil, `{"customer_id":%q,"guest_id":%q,"reported_at":"2026-06-08T09:16:00Z","controller_version":"1.12.0","n":%d}`, customer, guest, n)
}

func event(guest string, n int) []byte {
	return fmt.Appendf(nil, `{"type":"backup_failed","severity":"warning","message":"no space left","guest_id":%q,"n":%d}`, guest, n)
}

func TestGoldenControllerReport(t *testing.T) {
	f := serve(t)
	body := golden(t, "controller-report.golden.json")
	for n := range 2 { // the second is a retry
		if a := f.send(request{path: reportPath, key: "customer/acme", body: body}); a.status != 200 || a.body != reportReply || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%d: %d %q %q", n, a.status, a.header, a.body)
		}
	}
	records := f.records()
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	r := records[0]
	if r.Kind != hub.KindControllerReport || r.HostID != goldenGuest || r.CustomerID != "acme" || r.KeyID != "customer/acme/c1" || !bytes.Equal(r.Body, body) {
		t.Errorf("record %+v", r)
	}
	if seen, ok := f.acceptor.LastSeen(goldenGuest); !ok || seen != r.Receipt {
		t.Errorf("last seen %+v, %v; the record's receipt is %+v", seen, ok, r.Receipt)
	}
}

// What one request to the two routes shows.
func TestRepliesToControllers(t *testing.T) {
	f := serve(t)
	const own = "customer/acme"
	for _, c := range []struct {
		name   string
		q      request
		status int
		reason string
	}{
		{"a report", request{key: own, body: controllerReport("acme", goldenGuest, 1)}, 200, "accepted"},
		{"without a guest", request{key: own, body: []byte(`{"customer_id":"acme","reported_at":"2026-06-08T09:16:00Z","controller_version":"1"}`)}, 200, "accepted"},
		{"global key", request{key: "fleet", body: controllerReport("acme", goldenGuest, 2)}, 200, "accepted"},
		{"guest of a paused host", request{key: own, body: controllerReport("acme", "acme-2/1", 3)}, 200, "accepted"},
		{"parts left out", request{key: own, body: []byte(strings.Replace(string(controllerReport("acme", goldenGuest, 4)), `"n"`, `"apps":[7],"cpu_percent":101,"n"`, 1))}, 200, "accepted"},
		{"retry", request{key: own, body: controllerReport("acme", goldenGuest, 1)}, 200, "retry"},
		{"retry with the global key", request{key: "fleet", body: controllerReport("acme", goldenGuest, 1)}, 200, "retry"},
		{"the same bytes as an event", request{path: eventPath, key: own, body: controllerReport("acme", goldenGuest, 1)}, 400, "event"},
		{"no key", request{body: controllerReport("acme", goldenGuest, 0)}, 401, "no_key"},
		{"expired key", request{key: "customer/acme, expired", body: controllerReport("acme", goldenGuest, 0)}, 401, "expired_key"},
		{"host key", request{key: "host/" + goldenHost, body: controllerReport("acme", goldenGuest, 0)}, 403, "host_key"},
		{"other customer", request{key: own, body: controllerReport("globex", "globex-1/1", 0)}, 403, "other_customer"},
		{"other customer, unknown", request{key: own, body: controllerReport("nobody", goldenGuest, 0)}, 403, "other_customer"},
		{"global key, unknown customer", request{key: "fleet", body: controllerReport("nobody", goldenGuest, 0)}, 400, "unknown_customer"},
		{"global key, guest of another", request{key: "fleet", body: controllerReport("globex", goldenGuest, 0)}, 400, "other_guest"},
		{"guest of another", request{key: own, body: controllerReport("acme", "globex-1/1", 0)}, 400, "other_guest"},
		{"guest of a retired host", request{key: own, body: controllerReport("acme", "acme-3/1", 0)}, 400, "other_guest"},
		{"guest of no host", request{key: own, body: controllerReport("acme", "nobody/1", 0)}, 400, "other_guest"},
		{"empty", request{key: own}, 400, "not_json"},
		{"query", request{path: reportPath + "?x", key: own, body: controllerReport("acme", goldenGuest, 0)}, 400, "query"},
		{"GET", request{method: "GET", key: own}, 405, "method"},
		{"brotli", request{key: own, encoding: "br", body: controllerReport("acme", goldenGuest, 0)}, 415, "encoding"},

		{"an event", request{path: eventPath, key: own, body: event(goldenGuest, 1)}, 202, "accepted"},
		{"an event again", request{path: eventPath, key: own, body: event(goldenGuest, 1)}, 202, "retry"},
		{"an event about no guest", request{path: eventPath, key: own, body: []byte(`{"type":"update_available","severity":"info","message":"1.13.0"}`)}, 202, "accepted"},
		{"an event, host key", request{path: eventPath, key: "host/" + goldenHost, body: event(goldenGuest, 0)}, 403, "host_key"},
		{"an event, global key", request{path: eventPath, key: "fleet", body: event(goldenGuest, 0)}, 403, "global_key"},
		{"an event of the switch", request{path: eventPath, key: own, body: []byte(`{"type":"host_recovered","severity":"info","message":"x"}`)}, 400, "event_type"},
		{"an event about another's guest", request{path: eventPath, key: own, body: event("globex-1/1", 0)}, 400, "other_guest"},
		{"an event, PUT", request{path: eventPath, method: "PUT", key: own, body: event(goldenGuest, 0)}, 405, "method"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.q.path == "" {
				c.q.path = reportPath
			}
			route, _, _ := strings.Cut(strings.TrimPrefix(c.q.path, "/api/v1/"), "?")
			before := len(f.records())
			a := f.send(c.q)
			want := map[int]string{200: reportReply, 202: eventReply}[c.status]
			if a.status != c.status || want != "" && a.body != want {
				t.Fatalf("%d %s; want %d", a.status, a.body, c.status)
			}
			if want == "" {
				checkProblem(t, a)
			}
			if a.status == 405 && a.header.Get("Allow") != "POST" || a.status == 401 && a.header.Get("Www-Authenticate") != "Bearer" {
				t.Errorf("%q", a.header)
			}
			if stored := len(f.records()) - before; (stored == 1) != (c.reason == "accepted") || stored > 1 {
				t.Errorf("%d records were stored", stored)
			}
			if f.metric(fmt.Sprintf(`hub_replies_total{reason="%s",route="%s",status="%d"}`, c.reason, route, c.status)) == "" {
				t.Errorf("no reply with the reason %s was counted", c.reason)
			}
		})
	}
	// An event is no sign of life, and a report is.
	f.send(request{path: eventPath, key: own, body: event("acme-4/9", 1)})
	if _, seen := f.acceptor.LastSeen("acme-4/9"); seen {
		t.Error("an event was taken for a sign of life")
	}
}

// Each request has every fault from its own to the end of the list.
func TestOrderOfChecksForControllers(t *testing.T) {
	for path, limit := range map[string]int{reportPath: 1 << 20, eventPath: 64 << 10} {
		t.Run(path, func(t *testing.T) {
			f := serve(t, func(s *settings) { s.ingest.CustomerRate = 0.001 }) // bursts of 1
			good := map[string]func(n int) []byte{
				reportPath: func(n int) []byte { return controllerReport("globex", "globex-1/1", n) },
				eventPath:  func(n int) []byte { return event("globex-1/1", n) },
			}[path]
			if a := f.send(request{path: path, key: "customer/globex", body: good(1)}); a.status/100 != 2 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			f.spool.fail(&hub.Error{Code: hub.Unavailable, Reason: "spool_full", Message: "full"})
			big := append([]byte("{"), bytes.Repeat([]byte(" "), limit)...)
			bad := http.Header{"Authorization": {"Bearer x"}}
			two := http.Header{"Authorization": {"Bearer x", "Bearer y"}}
			body, otherCustomer, status := controllerReport("acme", goldenGuest, 1), controllerReport("globex", "nobody/1", 1), 403
			if path == eventPath {
				body, otherCustomer, status = event(goldenGuest, 1), event("nobody/1", 1), 400
			}
			for _, c := range []struct {
				name   string
				q      request
				status int
			}{
				{"method, then two headers", request{method: "PUT", header: two, encoding: "br", body: big}, 405},
				{"two headers, then bad key", request{header: two, encoding: "br", body: big}, 400},
				{"query, then bad key", request{path: path + "?a", header: bad, encoding: "br", body: big}, 400},
				{"bad key, then encoding", request{header: bad, encoding: "br", body: big}, 401},
				{"host key, then encoding", request{key: "host/" + goldenHost, encoding: "br", body: big}, 403},
				{"rate, then encoding", request{key: "customer/globex", encoding: "br", body: big}, 429},
				{"encoding, then size", request{key: "customer/acme", encoding: "br", body: big}, 415},
				{"size, then body", request{key: "customer/acme", body: big}, 413},
				{"body, then customer", request{key: "customer/acme", body: []byte(`{"customer_id":"globex"}`)}, 400},
				{"other customer, then guest", request{key: "customer/acme", body: otherCustomer}, status},
				{"guest, then spool", request{key: "customer/acme", body: bytes.ReplaceAll(body, []byte(goldenHost), []byte("nobody"))}, 400},
			} {
				asking := http.Header{"Expect": {"100-continue"}}
				for name, values := range c.q.header {
					asking[name] = values
				}
				c.q.header = asking
				if c.q.path == "" {
					c.q.path = path
				}
				if a := f.send(c.q); a.status != c.status {
					t.Errorf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
				}
			}
			if a := f.send(request{path: path, key: "customer/acme", body: body}); a.status != 503 || a.header.Get("Retry-After") == "" {
				t.Errorf("spool: %d %s", a.status, a.body)
			}
			f.fleet = nil
			if a := f.send(request{path: path, header: two}); a.status != 503 {
				t.Errorf("no fleet, then two headers: %d %s", a.status, a.body)
			}
		})
	}
}

func TestLimitsForControllers(t *testing.T) {
	for _, to := range targets() {
		f := serve(t)
		for size, status := range map[int]int{to.limit: to.status, to.limit + 1: 413} {
			start := to.start + `,"pad":"`
			body := []byte(start + strings.Repeat("x", size-len(start)-2) + `"}`)
			for encoding, sent := range map[string][]byte{"": body, "gzip": gzipped(t, gzip.BestSpeed, body), "zstd": zstandard(t, 1<<20, body)} {
				if a := f.send(request{path: to.path, key: to.key, encoding: encoding, body: sent}); a.status != status {
					t.Errorf("%s, %d bytes %s: %d %s; want %d", to.path, size, encoding, a.status, a.body, status)
				}
			}
		}
		if n := len(f.records()); n != 1 {
			t.Errorf("%s: %d records; want 1: every encoding of the same bytes is one", to.path, n)
		}
	}
}

func TestABlockedCustomersControllers(t *testing.T) {
	f := serve(t)
	f.fleet = f.makeFleet(true)
	if a := f.send(request{path: reportPath, key: "customer/acme", body: controllerReport("acme", goldenGuest, 1)}); a.status != 200 || a.body != `{"status":"ok","blocked":true}`+"\n" || len(f.records()) != 1 {
		t.Errorf("%d %s, %d records", a.status, a.body, len(f.records()))
	}
}

// Who has a customer's keys, or had them, or makes them up, can change nothing of
// another customer and learns nothing of it, by whatever route and method: what they
// are told of a customer, host or guest that is there they are told of one that is
// not. A route that is added fails this test until it is in the list.
func TestIsolation(t *testing.T) {
	reading := &readings{t: t}
	f := serve(t, func(s *settings) {
		s.http.Webhook = &httpapi.Webhook{Secret: func() (hub.Secret, error) { return hub.NewSecret("the webhook's"), nil }, Pull: func() { t.Error("pulled") }}
		s.http.Probe = func(nonce []byte) []byte { return nonce }
		s.http.Reading = reading
	})
	named := func(customer, host string) map[string][][]byte {
		guest := host + "/101"
		return map[string][][]byte{
			"/api/v1/host-report": {report(host, 1)},
			reportPath:            {controllerReport(customer, guest, 1), controllerReport("acme", guest, 1), controllerReport(customer, goldenGuest, 1)},
			eventPath:             {event(guest, 1)},
			"/api/v1/admin/hosts": {fmt.Appendf(nil, `{"customer_id":%q}`, customer)},
			// These two take nothing of any customer and say nothing of one.
			"/api/v1/fleet/webhook": {fmt.Appendf(nil, `{"ref":%q}`, customer)},
			selfprobe.Path:          nil,
			// Whose rows these two read is looked at below, and in package app with rows.
			"/api/v1/events":          nil,
			"/api/v1/customer/status": nil,
		}
	}
	there, nowhere := named("globex", "globex-1"), named("nobody", "nobody-1")
	paths := f.PublicPaths()
	if len(paths) < 8 {
		t.Fatalf("routes %q", paths)
	}
	// globex's own life, before and after.
	f.send(request{key: "host/globex-1", body: report("globex-1", 9)})
	f.send(request{path: reportPath, key: "customer/globex", body: controllerReport("globex", "globex-1/101", 9)})
	before := len(f.records())
	hostSeen, _ := f.acceptor.LastSeen("globex-1")
	guestSeen, _ := f.acceptor.LastSeen("globex-1/101")
	if before != 2 || hostSeen.ReceivedAt.IsZero() || guestSeen.ReceivedAt.IsZero() {
		t.Fatalf("%d records: globex cannot report for itself", before)
	}
	f.keys["unknown"] = hub.NewKey()
	for _, path := range paths {
		bodies, known := there[path]
		if !known {
			t.Errorf("route %s: say here what can be tried on it", path)
		}
		for i, body := range bodies {
			for _, key := range []string{"customer/acme", "host/" + goldenHost, "host/acme-3", "customer/acme, expired", "unknown", ""} {
				for _, method := range []string{"POST", "GET", "HEAD", "PUT", "PATCH", "DELETE"} {
					a := f.send(request{method: method, path: path, key: key, body: body})
					none := f.send(request{method: method, path: path, key: key, body: nowhere[path][i]})
					if a.status/100 == 2 || a.status != none.status || a.body != none.body {
						t.Errorf("%s %s with the key %q: %d %s of one that is there, %d %s of one that is not", method, path, key, a.status, a.body, none.status, none.body)
					}
					if strings.Contains(a.body, "globex") {
						t.Errorf("%s %s with the key %q tells of globex: %s", method, path, key, a.body)
					}
				}
			}
		}
	}
	if n := len(f.records()); n != before {
		t.Errorf("%d records were stored", n-before)
	}
	for _, path := range []string{"/api/v1/events", "/api/v1/customer/status"} {
		for query, status := range map[string]int{"": 200, "?customer=acme": 200, "?customer=globex": 403, "?customer=nobody": 403, "?customer=": 403, "?customer=acme&customer=globex": 400, "?api_key=x": 400} {
			if a := f.send(request{method: "GET", path: path + query, key: "customer/acme"}); a.status != status || status != 200 && strings.Contains(a.body, "globex") {
				t.Errorf("%s%s: %d %s; want %d", path, query, a.status, a.body, status)
			}
		}
		for key, status := range map[string]int{"host/" + goldenHost: 403, "host/acme-3": 401, "customer/acme, expired": 401, "unknown": 401, "": 401} {
			if a := f.send(request{method: "GET", path: path, key: key}); a.status != status {
				t.Errorf("%s with the key %q: %d %s; want %d", path, key, a.status, a.body, status)
			}
		}
	}
	if reading.asked != 4 {
		t.Errorf("%d questions of the 4 that acme may ask", reading.asked)
	}
	host, _ := f.acceptor.LastSeen("globex-1")
	guest, _ := f.acceptor.LastSeen("globex-1/101")
	if host != hostSeen || guest != guestSeen || f.keys["minted"] != (hub.Secret{}) {
		t.Errorf("seen %+v, %+v; were %+v, %+v", host, guest, hostSeen, guestSeen)
	}
}

// readings has no rows, and finds it a mistake to be asked for others than acme's.
type readings struct {
	t     *testing.T
	asked int
}

func (r *readings) Events(_ context.Context, q hub.EventQuery) ([]hub.Event, error) {
	r.asked++
	if q.Everybody || q.Customer != "acme" {
		r.t.Errorf("events of %+v", q)
	}
	return nil, nil
}

func (r *readings) CustomerStatus(_ context.Context, customer, _ string, _ int) (any, error) {
	r.asked++
	if customer != "acme" {
		r.t.Errorf("the status of %q", customer)
	}
	return nil, nil
}
