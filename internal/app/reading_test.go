package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// read asks one of the routes for readers; an empty key shows none.
func (r *running) read(method, path string, query url.Values, key hub.Secret) (int, http.Header, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.Addr()+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.URL.RawQuery = query.Encode()
	if !key.Empty() {
		req.Header.Set("Authorization", "Bearer "+key.Reveal())
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		if res.StatusCode != http.StatusTooManyRequests || time.Now().After(deadline) {
			return res.StatusCode, res.Header, string(body)
		}
	}
}

const eventsPath, statusPath = "/api/v1/events", "/api/v1/customer/status"

// Of two customers with rows of every kind, whoever has the keys of the one reads
// nothing of the other and nothing of the operators': not by naming it, not by odd
// parameters, and not from its place in the events.
func TestReadersSeeTheirOwn(t *testing.T) {
	s := newSite(t)
	var ahead atomic.Int64 // of the hub's clock
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	hostKeys, keys := map[string]hub.Secret{}, map[string]hub.Secret{"": s.global}
	customers := []string{"acme", "globex"}
	for _, c := range customers {
		hostKeys[c] = s.enrollAs(c, c+"-7", nil)
		keys[c] = s.customerKey(c)
	}
	s.push("a host and a key for controllers of each")
	r := s.startReady()
	for n := range 3 {
		for _, c := range customers {
			guest := c + "-7/101"
			host := fmt.Sprintf(`{"host_id":"%s-7","reported_at":"2026-06-08T09:15:00Z","agent_version":"of-%s","host":{"uptime_seconds":%d},"guests":[{"vmid":101,"name":"guest-of-%[2]s","status":"running"}]}`, c, c, n)
			if status, reply := r.post("/api/v1/host-report", hostKeys[c], host); status != http.StatusOK {
				t.Fatalf("%d %s", status, reply)
			}
			report := fmt.Sprintf(`{"customer_id":%q,"guest_id":%q,"reported_at":"2026-06-08T09:16:00Z","controller_version":"of-%s","status":"healthy","uptime_seconds":%d}`, c, guest, c, n)
			if status, reply := r.post("/api/v1/report", keys[c], report); status != http.StatusOK {
				t.Fatalf("%d %s", status, reply)
			}
			event := fmt.Sprintf(`{"type":"backup_failed","severity":"warning","message":"reason-of-%s %d","guest_id":%q}`, c, n, guest)
			if status, reply := r.post("/api/v1/event", keys[c], event); status != http.StatusAccepted {
				t.Fatalf("%d %s", status, reply)
			}
		}
	}
	r.becomes("SELECT count() FROM events WHERE source = 'controller'", "6")
	r.becomes("SELECT (SELECT count() FROM hosts WHERE customer_id = 'globex' AND guest_total = 1), (SELECT count() FROM controllers)", "1\t2")

	// And the operators have an event of their own.
	s.write("fleet.yaml", s.read("fleet.yaml")+"oops: [\n")
	s.push("a mistake")
	r.Reload()
	r.becomes("SELECT type, customer_id FROM events WHERE source = 'fleet'", "fleet_rejected\t")

	// What was found just now may have companions that are on their way.
	if status, _, body := r.read("GET", eventsPath, nil, s.global); status != http.StatusOK || strings.Contains(body, "reason-of") {
		t.Errorf("events are told before they are settled: %d %s", status, body)
	}
	ahead.Store(int64(time.Minute))
	r.eventually("events", func() bool {
		_, _, body := r.read("GET", eventsPath, nil, s.global)
		return strings.Count(body, "reason-of") == 6
	})

	// Each their own, in pages; and the operator all.
	places := map[string]string{}
	for _, c := range append(customers, "") {
		want := map[bool]int{true: 6, false: 3}[c == ""]
		seen, cursor := map[string]int{}, ""
		for range want {
			query := url.Values{"limit": {"1"}, "type": {"backup_failed"}}
			if cursor != "" {
				query.Set("cursor", cursor)
			}
			status, header, body := r.read("GET", eventsPath, query, keys[c])
			var page struct {
				Events []struct{ EventID, Reason string }
				Next   string
			}
			if err := json.Unmarshal([]byte(strings.ReplaceAll(body, "event_id", "EventID")), &page); err != nil || status != http.StatusOK || len(page.Events) != 1 || header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v %v %s", status, header, err, body)
			}
			if !strings.HasPrefix(page.Events[0].Reason, "reason-of-"+c) {
				t.Errorf("%s reads %s", c, body)
			}
			seen[page.Events[0].EventID]++
			if places[c] == "" {
				places[c] = page.Next
			}
			cursor = page.Next
		}
		if len(seen) != want {
			t.Errorf("%q read %v", c, seen)
		}
		if _, _, body := r.read("GET", eventsPath, url.Values{"cursor": {cursor}, "type": {"backup_failed"}}, keys[c]); !strings.Contains(body, `"events": []`) || !strings.Contains(body, cursor) {
			t.Errorf("at the end: %s", body)
		}
		query := url.Values{}
		if c == "" {
			query.Set("customer", "globex")
		}
		of := map[bool]string{true: "globex", false: c}[c == ""]
		status, header, body := r.read("GET", statusPath, query, keys[c])
		for _, part := range []string{of + "-7", "guest-of-" + of, `"controller_version": "of-` + of, `"as_of"`} {
			if status != http.StatusOK || !strings.Contains(body, part) {
				t.Errorf("%q: %d %s: no %s", c, status, body, part)
			}
		}
		if status, head, body := r.read("HEAD", statusPath, query, keys[c]); status != http.StatusOK || body != "" || head.Get("Content-Type") != header.Get("Content-Type") {
			t.Errorf("HEAD: %d %v %q", status, head, body)
		}
	}

	// Acme tries all that it can.
	tries := []url.Values{nil, {"type": {"fleet_rejected"}}, {"customer": {"acme"}, "type": {"fleet_rejected"}, "since": {"2026-01-01T00:00:00Z"}},
		{"customer": {"acme"}, "host": {"globex-7"}, "type": {"backup_failed"}, "since": {"2026-01-01T00:00:00Z"}},
		{"customer": {"acme"}, "host": {"globex-7"}, "type": {"backup_failed"}, "cursor": {places["globex"]}},
		{"host": {""}, "since": {"2026-01-01T00:00:00Z"}, "limit": {"1000"}}, {"cursor": {places["globex"]}}, {"cursor": {places[""]}}, {"cursor": {"0"}}, {"after": {"globex-6"}}, {"after": {"acme-7"}}, {"limit": {"1000"}}}
	for _, name := range []string{"customer", "host", "guest", "type", "since", "until", "limit", "cursor", "after", "source", "", "key"} {
		for _, value := range []string{"globex", "globex-7", "globex-7/101", "backup_failed", "nobody", "", "'", `\' OR 1 OR '`, "acme' OR customer_id='globex", "%", "%25", "acme\x00", "ácmé", "@customer", "?", "{customer:String}", strings.Repeat("a", 10<<10), keys["globex"].Reveal()} {
			tries = append(tries, url.Values{name: {value}}, url.Values{name: {"acme", value}}, url.Values{"customer": {"acme"}, name: {value}})
		}
	}
	for i, query := range tries {
		ahead.Add(int64(time.Second)) // the readers' rate
		for _, path := range []string{eventsPath, statusPath} {
			status, _, body := r.read("GET", path, query, keys["acme"])
			if strings.Contains(body, "globex") || strings.Contains(body, "fleet_rejected") || status >= 500 {
				t.Errorf("%s with %.200q: %d %s", path, query, status, body)
			}
			if i > 0 && status == http.StatusOK && query.Has("customer") && query.Get("customer") != "acme" {
				t.Errorf("%s with %.200q: %d", path, query, status)
			}
			if status, _, _ := r.read("GET", path, query, hostKeys["acme"]); status != http.StatusForbidden && status != http.StatusBadRequest {
				t.Errorf("%s with a host's key: %d", path, status)
			}
		}
	}
	for path, wants := range map[string]map[string]int{
		eventsPath: {"customer=globex": 403, "customer=acme": 200, "host=globex-7": 200, "customer=": 403, "limit=0": 400, "limit=1001": 400, "limit=01": 400, "since=yesterday": 400, "since=1066-10-14T00:00:00Z": 400,
			"cursor=1": 400, "x=1": 400, "host=a&host=b": 400, "api_key=x": 400, "host=" + keys["acme"].Reveal(): 400, "host=%zz": 400, "a;b": 400, "since=2026-01-01T00:00:00Z&until=2100-01-01T00:00:00%2B01:00": 200},
		statusPath: {"customer=globex": 403, "customer=acme": 200, "after=%27": 400, "host=acme-7": 400, "limit=1001": 400},
	} {
		for query, want := range wants {
			ahead.Add(int64(time.Second))
			values, err := url.ParseQuery(query)
			status, _, body := r.read("GET", path, values, keys["acme"])
			if err != nil { // as it stands
				req, _ := http.NewRequest("GET", "http://"+r.Addr()+path, nil)
				req.URL.RawQuery = query
				req.Header.Set("Authorization", "Bearer "+keys["acme"].Reveal())
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				status = res.StatusCode
			}
			if status != want {
				t.Errorf("%s?%s: %d %s; want %d", path, query, status, body, want)
			}
		}
	}
	if _, _, body := r.read("GET", eventsPath, url.Values{"type": {"fleet_rejected"}}, s.global); !strings.Contains(body, `"type": "fleet_rejected"`) {
		t.Errorf("the operator reads %s", body)
	}
	for query, want := range map[string]int{"": 400, "customer=acme": 200, "customer=nobody": 400} {
		values, _ := url.ParseQuery(query)
		if status, _, body := r.read("GET", statusPath, values, s.global); status != want {
			t.Errorf("the operator's %s?%s: %d %s", statusPath, query, status, body)
		}
	}
	if status, _, _ := r.read("GET", eventsPath, nil, hub.Secret{}); status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", status)
	}
}

// While ClickHouse is away readers are told so, and when to come again.
func TestReadersWithoutClickHouse(t *testing.T) {
	s := newSite(t)
	s.cfg.ClickHouse.DSN = "clickhouse://hub@127.0.0.1:1/hub"
	key := s.customerKey("acme")
	s.push("a key for controllers")
	r := s.startReady()
	for _, path := range []string{eventsPath, statusPath} {
		if status, header, body := r.read("GET", path, nil, key); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(body, "ClickHouse does not answer") {
			t.Errorf("%s: %d %v %s", path, status, header, body)
		}
	}
}
