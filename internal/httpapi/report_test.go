package httpapi_test

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

func TestGoldenReport(t *testing.T) {
	f := serve(t)
	a := f.send(request{key: "host/" + goldenHost, body: golden(t, "host-report.golden.json")})
	if want := string(golden(t, "envelope.golden.json")); a.status != 200 || a.body != want || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %q %q; want 200 %q", a.status, a.header, a.body, want)
	}
	records := f.records()
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	r := records[0]
	if r.Kind != hub.KindHostReport || r.HostID != goldenHost || r.CustomerID != "acme" || r.KeyID != "k1" || !bytes.Equal(r.Body, golden(t, "host-report.golden.json")) {
		t.Errorf("record %+v", r)
	}
	if a := f.send(request{key: "host/" + goldenHost, body: golden(t, "host-report.full.json")}); a.status != 200 {
		t.Errorf("the full report: %d %s", a.status, a.body)
	}
}

// Every row of the contract that one request shows.
func TestReplies(t *testing.T) {
	f := serve(t)
	own := "host/" + goldenHost
	twoKeys := http.Header{"Authorization": {"Bearer x"}}
	for _, c := range []struct {
		name   string
		q      request
		status int
		reason string
		header [2]string // must be there; an empty value is any
	}{
		{"host key", request{key: own, body: report(goldenHost, 1)}, 200, "accepted", [2]string{}},
		{"no Content-Length", request{key: own, body: report(goldenHost, 2), stream: true}, 200, "accepted", [2]string{}},
		{"global key", request{key: "fleet", body: report(goldenHost, 3)}, 200, "accepted", [2]string{}},
		{"paused host", request{key: "host/acme-2", body: report("acme-2", 4)}, 200, "accepted", [2]string{}},
		{"retry", request{key: own, body: report(goldenHost, 1)}, 200, "retry", [2]string{}},
		{"retry with the global key", request{key: "fleet", body: report(goldenHost, 1)}, 200, "retry", [2]string{}},
		{"a bad guest", request{key: own, body: []byte(strings.Replace(string(report(goldenHost, 5)), `"n"`, `"guests":[7],"n"`, 1))}, 200, "accepted", [2]string{}},
		{"no key", request{body: report(goldenHost, 0)}, 401, "no_key", [2]string{"Www-Authenticate", "Bearer"}},
		{"empty key", request{header: http.Header{"Authorization": {"Bearer "}}}, 401, "malformed_key", [2]string{"Www-Authenticate", "Bearer"}},
		{"malformed key", request{header: http.Header{"Authorization": {"Bearer x"}}}, 401, "malformed_key", [2]string{"Www-Authenticate", "Bearer"}},
		{"unknown key", request{header: http.Header{"Authorization": {"Bearer " + strings.Repeat("a", 64)}}}, 401, "unknown_key", [2]string{"Www-Authenticate", "Bearer"}},
		{"expired key", request{key: "expired", body: report(goldenHost, 0)}, 401, "expired_key", [2]string{"Www-Authenticate", "Bearer"}},
		{"retired host", request{key: "host/acme-3", body: report("acme-3", 0)}, 401, "unknown_key", [2]string{"Www-Authenticate", "Bearer"}},
		{"two keys", request{key: own, header: twoKeys, body: report(goldenHost, 0)}, 400, "two_authorizations", [2]string{}},
		{"key in the address", request{path: "/api/v1/host-report?key=x", key: own, body: report(goldenHost, 0)}, 400, "query", [2]string{}},
		{"empty query", request{path: "/api/v1/host-report?", key: own, body: report(goldenHost, 0)}, 400, "query", [2]string{}},
		{"customer key", request{key: "customer/acme", body: report(goldenHost, 0)}, 403, "customer_key", [2]string{}},
		{"other host", request{key: own, body: report("acme-2", 0)}, 403, "other_host", [2]string{}},
		{"global key, unknown host", request{key: "fleet", body: report("nobody", 0)}, 400, "not_enrolled", [2]string{}},
		{"global key, retired host", request{key: "fleet", body: report("acme-3", 0)}, 400, "not_enrolled", [2]string{}},
		{"empty", request{key: own}, 400, "not_json", [2]string{}},
		{"array", request{key: own, body: []byte("[]")}, 400, "not_object", [2]string{}},
		{"trailing data", request{key: own, body: append(report(goldenHost, 0), "{}"...)}, 400, "not_json", [2]string{}},
		{"folded name", request{key: own, body: []byte(`{"hoſt_id":"x"}`)}, 400, "folded_name", [2]string{}},
		{"GET", request{method: "GET", key: own}, 405, "method", [2]string{"Allow", "POST"}},
		{"HEAD", request{method: "HEAD"}, 405, "method", [2]string{"Allow", "POST"}},
		{"OPTIONS", request{method: "OPTIONS"}, 405, "method", [2]string{"Allow", "POST"}},
		{"PUT", request{method: "PUT", key: own, body: report(goldenHost, 0)}, 405, "method", [2]string{"Allow", "POST"}},
		{"brotli", request{key: own, encoding: "br", body: report(goldenHost, 0)}, 415, "encoding", [2]string{}},
		{"unknown path", request{path: "/api/v1/host-reports", key: own}, 404, "not_found", [2]string{}},
		{"path not clean", request{path: "/api//v1/host-report", key: own}, 404, "not_found", [2]string{}},
		{"path with an escaped letter", request{path: "/api/v1/host%2Dreport", key: own}, 404, "not_found", [2]string{}},
		{"path with an escaped slash", request{path: "/api%2Fv1/host-report", key: own}, 404, "not_found", [2]string{}},
		{"slash at the end", request{path: "/api/v1/host-report/", key: own}, 404, "not_found", [2]string{}},
		{"admin path on the public side", request{method: "GET", path: "/metrics"}, 404, "not_found", [2]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(f.records())
			count := `status="` + strconv.Itoa(c.status) + `"`
			a := f.send(c.q)
			if a.status != c.status {
				t.Fatalf("%d %s; want %d", a.status, a.body, c.status)
			}
			if name := c.header[0]; name != "" && a.header.Get(name) != c.header[1] {
				t.Errorf("%s: %q, want %q", name, a.header.Get(name), c.header[1])
			}
			if c.status != 200 && c.q.method != "HEAD" {
				checkProblem(t, a)
			}
			stored := len(f.records()) - before
			if want := c.reason == "accepted"; (stored == 1) != want || stored > 1 {
				t.Errorf("%d records were stored", stored)
			}
			found := false
			for line := range strings.Lines(f.admin("/metrics").body) {
				found = found || strings.HasPrefix(line, "hub_replies_total{reason=\""+c.reason+"\"") && strings.Contains(line, count)
			}
			if !found {
				t.Errorf("no reply with the reason %s was counted", c.reason)
			}
		})
	}
}

func checkProblem(t *testing.T, a answer) {
	t.Helper()
	start := `{"type":"about:blank","title":"` + http.StatusText(a.status) + `","status":` + strconv.Itoa(a.status) + `,"detail":"`
	if a.header.Get("Content-Type") != "application/problem+json" || !strings.HasPrefix(a.body, start) || !strings.HasSuffix(a.body, "\"}\n") {
		t.Errorf("no problem+json: %q %s", a.header.Get("Content-Type"), a.body)
	}
}

func TestAllBadKeysGetTheSameReply(t *testing.T) {
	f := serve(t)
	var bodies []string
	for _, q := range []request{{}, {key: "expired"}, {key: "host/acme-3"}, {header: http.Header{"Authorization": {"Bearer x"}}}} {
		a := f.send(q)
		bodies = append(bodies, a.body)
		if a.status != 401 || a.body != bodies[0] {
			t.Errorf("%d %s; want 401 %s", a.status, a.body, bodies[0])
		}
	}
}

// Each request has every fault from its own to the end of the list, so that
// only the order decides.
func TestOrderOfChecks(t *testing.T) {
	f := serve(t, func(s *settings) { s.ingest.HostRate = 0.01 }) // bursts of 1
	if a := f.send(request{key: "host/acme-2", body: report("acme-2", 1)}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	f.spool.fail(&hub.Error{Code: hub.Unavailable, Reason: "spool_full", Message: "full"})
	big := padded(4<<20 + 1)
	bad := http.Header{"Authorization": {"Bearer x"}}
	two := http.Header{"Authorization": {"Bearer x", "Bearer y"}}
	for _, c := range []struct {
		name   string
		q      request
		status int
	}{
		{"method, then two headers", request{method: "PUT", header: two, encoding: "br", body: big}, 405},
		{"two headers, then bad key", request{header: two, encoding: "br", body: big}, 400},
		{"query, then bad key", request{path: "/api/v1/host-report?a", header: bad, encoding: "br", body: big}, 400},
		{"bad key, then encoding", request{header: bad, encoding: "br", body: big}, 401},
		{"customer key, then encoding", request{key: "customer/acme", encoding: "br", body: big}, 403},
		{"rate, then encoding", request{key: "host/acme-2", encoding: "br", body: big}, 429},
		{"encoding, then size", request{key: "fleet", encoding: "br", body: big}, 415},
		{"size, then body", request{key: "fleet", body: append([]byte("{"), big...)}, 413},
		{"body, then host", request{key: "fleet", body: []byte(`{"host_id":"nobody"}`)}, 400},
		{"other host, then spool", request{key: "host/acme-4", body: report("nobody", 1)}, 403},
		{"unknown host, then spool", request{key: "fleet", body: report("nobody", 1)}, 400},
		{"spool", request{key: "fleet", body: report(goldenHost, 1)}, 503},
	} {
		asking := http.Header{"Expect": {"100-continue"}} // or an early reply would meet a client in the midst of sending
		for name, values := range c.q.header {
			asking[name] = values
		}
		c.q.header = asking
		if a := f.send(c.q); a.status != c.status {
			t.Errorf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
		}
	}
	f.fleet = nil
	if a := f.send(request{header: two}); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("no fleet, then two headers: %d %s", a.status, a.body)
	}
	if a := f.send(request{method: "GET", header: two}); a.status != 405 {
		t.Errorf("method, then no fleet: %d %s", a.status, a.body)
	}
}

func gzipped(t testing.TB, level int, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts { // each a member of its own
		w, err := gzip.NewWriterLevel(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// zstandard writes the parts as one stream each, of unknown size, so that the
// frame names the window.
func zstandard(t testing.TB, window int, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		for half := range bytes.SplitSeq(p, []byte("\x00never\x00")) {
			if _, err := w.Write(half); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestBadInputCompressed(t *testing.T) {
	f := serve(t)
	const limit = 4 << 20
	exact, over := padded(limit), padded(limit+1)
	small := padded(3000)
	noise := make([]byte, limit)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	whole, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zip, zst := gzipped(t, gzip.BestSpeed, small), zstandard(t, 1<<20, small)
	zeros := make([]byte, 64<<20)
	for _, c := range []struct {
		name, encoding string
		body           []byte
		status         int
	}{
		{"exactly 4 MiB", "", exact, 200},
		{"exactly 4 MiB", "identity", exact, 200},
		{"exactly 4 MiB", "gzip", gzipped(t, gzip.BestSpeed, exact), 200},
		{"exactly 4 MiB, of known size", "zstd", whole.EncodeAll(exact, nil), 200},
		{"exactly 4 MiB, a stream", "zstd", zstandard(t, 8<<20, exact), 200},
		{"a byte more", "", over, 413},
		{"a byte more", "gzip", gzipped(t, gzip.BestSpeed, over), 413},
		{"a byte more, of known size", "zstd", whole.EncodeAll(over, nil), 413},
		{"a byte more, a stream", "zstd", zstandard(t, 8<<20, over), 413},
		{"over before, not after", "gzip", gzipped(t, gzip.NoCompression, exact), 413},
		{"over before, not after", "zstd", append(whole.EncodeAll(small, nil), whole.EncodeAll(noise, nil)...), 413},
		{"64 MiB of zeros", "gzip", gzipped(t, gzip.BestSpeed, zeros), 413},
		{"64 MiB of zeros", "zstd", zstandard(t, 8<<20, zeros), 413},
		{"in capitals", "GZip", zip, 200},
		{"two members", "gzip", gzipped(t, gzip.BestSpeed, small[:100], small[100:]), 200},
		{"two frames", "zstd", zstandard(t, 1<<20, small[:100], small[100:]), 200},
		{"a window of 8 MiB", "zstd", zstandard(t, 8<<20, small), 200},
		{"a window of 16 MiB", "zstd", zstandard(t, 16<<20, small), 413},
		{"two members over the limit together", "gzip", gzipped(t, gzip.BestSpeed, exact, []byte(" ")), 413},
		{"two frames over the limit together", "zstd", zstandard(t, 1<<20, exact, []byte(" ")), 413},
		{"cut off", "gzip", zip[:len(zip)-5], 400},
		{"cut off", "zstd", zst[:len(zst)-5], 400},
		{"damaged checksum", "gzip", flipped(zip, len(zip)-6), 400},
		{"damaged checksum", "zstd", flipped(zst, len(zst)-2), 400},
		{"garbage behind", "gzip", append(bytes.Clone(zip), "garbage"...), 400},
		{"garbage behind", "zstd", append(bytes.Clone(zst), "garbage"...), 400},
		{"plain", "gzip", small, 400},
		{"plain", "zstd", small, 400},
		{"nothing", "gzip", nil, 400},
		{"nothing", "zstd", nil, 400},
		{"compressed without saying so", "", zip, 400},
		{"stacked", "gzip, gzip", gzipped(t, gzip.BestSpeed, zip), 415},
		{"stacked", "identity, gzip", zip, 415},
		{"deflate", "deflate", small, 415},
		{"x-gzip", "x-gzip", zip, 415},
	} {
		for _, stream := range []bool{false, true} {
			a := f.send(request{key: "host/" + goldenHost, body: c.body, encoding: c.encoding, stream: stream})
			if a.status != c.status {
				t.Errorf("%s %s (stream %v): %d %s; want %d", c.encoding, c.name, stream, a.status, a.body, c.status)
			}
		}
	}
	if a := f.send(request{key: "host/" + goldenHost, body: zip, header: http.Header{"Content-Encoding": {"gzip", "gzip"}}}); a.status != 415 {
		t.Errorf("two Content-Encoding headers: %d", a.status)
	}
	// What was stored is what was meant, and the same bytes in another encoding
	// are the same report.
	records := f.records()
	if len(records) != 2 || !bytes.Equal(records[0].Body, exact) || !bytes.Equal(records[1].Body, small) {
		t.Errorf("%d records; want 2: every encoding of the same bytes is one report", len(records))
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0xff
	return b
}

func TestBlockedCustomer(t *testing.T) {
	f := serve(t)
	f.fleet = f.makeFleet(true)
	a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)})
	want := strings.Replace(string(golden(t, "envelope.golden.json")), `"blocked":false`, `"blocked":true`, 1)
	if a.status != 200 || a.body != want || len(f.records()) != 1 {
		t.Errorf("%d %s, %d records", a.status, a.body, len(f.records()))
	}
}

func TestI17_ConcurrentRetriesAreOneRow(t *testing.T) {
	f := serve(t)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			a, err := f.try(request{key: "host/" + goldenHost, body: report(goldenHost, 1)})
			if err != nil || a.status != 200 || a.body != string(golden(t, "envelope.golden.json")) {
				t.Errorf("%d %s, %v", a.status, a.body, err)
			}
		})
	}
	all.Wait()
	if n := len(f.records()); n != 1 {
		t.Errorf("%d records of 40 sends of one report", n)
	}
}

func TestI17_ARetryIsRecognisedAfterARestart(t *testing.T) {
	dir, keys := t.TempDir(), map[string]hub.Secret{}
	same := func(s *settings) { s.dir, s.keys = dir, keys }
	var seen hub.Receipt
	t.Run("before", func(t *testing.T) {
		f := serve(t, same)
		if a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		seen, _ = f.acceptor.LastSeen(goldenHost)
	})
	t.Run("after", func(t *testing.T) {
		f := serve(t, same)
		if a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if again, ok := f.acceptor.LastSeen(goldenHost); !ok || again != seen || len(f.records()) != 1 {
			t.Errorf("last seen %+v, was %+v; %d records", again, seen, len(f.records()))
		}
	})
}

func TestSpoolFaultsAndRecovery(t *testing.T) {
	f := serve(t)
	for _, reason := range []string{"spool_full", "disk_failed", "stopping"} {
		f.spool.fail(&hub.Error{Code: hub.Unavailable, Reason: reason, Message: "not now"})
		a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)})
		if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != 503 || err != nil || seconds < 1 {
			t.Errorf("%s: %d %q %s", reason, a.status, a.header, a.body)
		}
		checkProblem(t, a)
	}
	f.spool.fail(nil)
	if a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)}); a.status != 200 || len(f.records()) != 1 {
		t.Errorf("afterwards: %d %s, %d records", a.status, a.body, len(f.records()))
	}
}

func TestRateLimitsHaveJitter(t *testing.T) {
	f := serve(t, func(s *settings) { s.ingest.HostRate = 0.01 })
	const least = 100 // seconds until the bucket has one more
	waits := map[string]bool{}
	for n := range 30 {
		a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, n)})
		if n == 0 {
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			continue
		}
		if a.status != 429 {
			t.Fatalf("report %d: %d", n, a.status)
		}
		after := a.header.Get("Retry-After")
		if seconds, err := strconv.Atoi(after); err != nil || seconds < least-5 || seconds > 2*least+4 {
			t.Errorf("Retry-After %q is not between %d s and twice that", after, least)
		}
		waits[after] = true
	}
	if len(waits) < 3 {
		t.Errorf("Retry-After was one of %v", waits)
	}
}

func TestFailuresBecome429AndGoodKeysStillWork(t *testing.T) {
	f := serve(t)
	limited := false
	for range 300 {
		a := f.send(request{header: http.Header{"Authorization": {"Bearer " + strings.Repeat("b", 64)}}})
		if limited = a.status == 429; limited {
			if a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			break
		}
		if a.status != 401 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if !limited {
		t.Error("300 failures in a row were not limited")
	}
	if a := f.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)}); a.status != 200 {
		t.Errorf("a good key from the same address: %d %s", a.status, a.body)
	}
}

func TestEveryRefusedKeyIsAudited(t *testing.T) {
	f := serve(t)
	for _, c := range []struct {
		q    request
		want string
	}{
		{request{key: "expired"}, "reason=expired_key path=/api/v1/host-report from=127.0.0.1 key_id=k0 key_owner=host/" + goldenHost},
		{request{key: "customer/acme"}, "reason=customer_key path=/api/v1/host-report from=127.0.0.1 key_id=c1 key_owner=customer/acme"},
		{request{key: "host/" + goldenHost, body: report("acme-2", 1)}, "reason=other_host path=/api/v1/host-report from=127.0.0.1 key_id=k1 key_owner=host/" + goldenHost},
		{request{header: http.Header{"Authorization": {"Bearer " + strings.Repeat("c", 64)}}}, "reason=unknown_key path=/api/v1/host-report from=127.0.0.1\n"},
		{request{path: "/api/v1/admin/hosts", key: "host/" + goldenHost}, "reason=not_global path=/api/v1/admin/hosts from=127.0.0.1 key_id=k1"},
	} {
		f.send(c.q)
		if log := f.log.String(); !strings.Contains(log, `msg="audit: key refused" `+c.want) {
			t.Errorf("no audit line %s in:\n%s", c.want, log)
		}
	}
	if strings.Contains(f.log.String(), strings.Repeat("c", 16)) {
		t.Error("an unknown key is in the log")
	}
}

func TestMint(t *testing.T) {
	const path = "/api/v1/admin/hosts"
	f := serve(t)
	off := serve(t, func(s *settings) { s.http.Minter = nil })
	acme := []byte(`{"customer_id":"acme","display_name":"pve 1"}`)
	for _, c := range []struct {
		name   string
		f      *fixture
		q      request
		status int
	}{
		{"minted", f, request{key: "fleet", body: acme}, 201},
		{"no key", f, request{body: acme}, 401},
		{"host key", f, request{key: "host/" + goldenHost, body: []byte("x")}, 403},
		{"customer key", f, request{key: "customer/acme", body: []byte("x")}, 403},
		{"switched off, no key", off, request{body: acme}, 401},
		{"switched off", off, request{key: "fleet", body: []byte("x")}, 403},
		{"unknown customer", f, request{key: "fleet", body: []byte(`{"customer_id":"nobody"}`)}, 400},
		{"not JSON", f, request{key: "fleet", body: []byte("x")}, 400},
		{"too large", f, request{key: "fleet", body: padded(64<<10 + 1)}, 413},
		{"remote away", f, request{key: "fleet", body: []byte(`{"customer_id":"away"}`)}, 503},
		{"GET", f, request{key: "fleet", method: "GET"}, 405},
		{"query", f, request{key: "fleet", path: path + "?customer_id=acme"}, 400},
	} {
		if c.q.path == "" {
			c.q.path = path
		}
		a := c.f.send(c.q)
		if a.status != c.status {
			t.Errorf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
		} else if a.status != 201 {
			checkProblem(t, a)
		}
		if a.status == 503 && a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.name)
		}
		want := `{"host_id":"acme-00000001","api_key":"` + f.keys["minted"].Reveal() + `","commit":"c0ffee","branch":"main"}` + "\n"
		if a.status == 201 && (a.body != want || a.header.Get("Cache-Control") != "no-store") {
			t.Errorf("%s: %q %s", c.name, a.header, a.body)
		}
	}
}

var _ httpapi.Minter = (*fixture)(nil)
