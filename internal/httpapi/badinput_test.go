package httpapi_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"felhom.eu/hub/internal/hub"
)

const (
	reportStart     = `{"host_id":"` + goldenHost + `","reported_at":"2026-06-08T09:15:00Z","agent_version":"0.3.0","host":{}`
	controllerStart = `{"customer_id":"acme","guest_id":"` + goldenHost + `/101","reported_at":"2026-06-08T09:16:00Z","controller_version":"1.12.0"`
	eventStart      = `{"type":"backup_failed","severity":"warning","message":"no space left","guest_id":"` + goldenHost + `/101"`
)

// target is a route that takes what is sent, with a key and the beginning of a body
// that it takes.
type target struct {
	path, key, start string
	limit, status    int
	own              map[string]string // further bodies that are refused
}

func targets() map[string]target {
	in := strings.Replace
	return map[string]target{
		"host-report": {"/api/v1/host-report", "host/" + goldenHost, reportStart, 4 << 20, 200, map[string]string{
			"duplicate identity key":                 `{"host_id":"acme-2",` + reportStart[1:] + "}",
			"duplicate identity key, escaped":        `{"host\u005fid":"acme-2",` + reportStart[1:] + "}",
			"duplicate key in host":                  in(reportStart, `"host":{}`, `"host":{"kernel":"a","kernel":"b"}`, 1) + "}",
			"case-folded identity key":               reportStart + `,"HOST_ID":"x"}`,
			"case-folded identity key (hoſt_id)":     reportStart + `,"hoſt_id":"x"}`,
			"case-folded identity key (reported_at)": reportStart + `,"Reported_At":"x"}`,
			"host does not decode":                   in(reportStart, `"host":{}`, `"host":7`, 1) + "}",
		}},
		"report": {"/api/v1/report", "customer/acme", controllerStart, 1 << 20, 200, map[string]string{
			"duplicate identity key":                  `{"customer_id":"globex",` + controllerStart[1:] + "}",
			"duplicate identity key, escaped":         `{"guest\u005fid":"acme-2/1",` + controllerStart[1:] + "}",
			"case-folded identity key":                controllerStart + `,"CUSTOMER_ID":"acme"}`,
			"case-folded identity key (gueſt_id)":     controllerStart + `,"gueſt_id":"acme-2/1"}`,
			"case-folded identity key (reported_at)":  controllerStart + `,"Reported_At":"x"}`,
			"a guest that is none":                    in(controllerStart, "/101", "/0", 1) + "}",
			"a guest of another customer":             in(controllerStart, goldenHost, "globex-1", 1) + "}",
			"a guest of a retired host":               in(controllerStart, goldenHost, "acme-3", 1) + "}",
			"a guest of no host":                      in(controllerStart, goldenHost, "nobody", 1) + "}",
			"a version of the wrong type":             in(controllerStart, `"1.12.0"`, "1", 1) + "}",
			"no customer":                             in(controllerStart, "customer_id", "customer", 1) + "}",
			"a customer whose name is none (control)": in(controllerStart, `"acme"`, `"ac\u0000me"`, 1) + "}",
		}},
		"event": {"/api/v1/event", "customer/acme", eventStart, 64 << 10, 202, map[string]string{
			"duplicate key":               `{"type":"disk_full",` + eventStart[1:] + "}",
			"case-folded key":             eventStart + `,"Type":"x"}`,
			"a type of the switch":        in(eventStart, "backup_failed", "controller_recovered", 1) + "}",
			"a type of the fleet":         in(eventStart, "backup_failed", "fleet_rejected", 1) + "}",
			"a type that is on no list":   in(eventStart, "backup_failed", "hello", 1) + "}",
			"a severity that is none":     in(eventStart, "warning", "error", 1) + "}",
			"a message of the wrong type": in(eventStart, `"no space left"`, "7", 1) + "}",
			"no message":                  in(eventStart, "message", "msg", 1) + "}",
			"a time that is none":         eventStart + `,"at":"now"}`,
			"a guest of another customer": in(eventStart, goldenHost, "globex-1", 1) + "}",
		}},
	}
}

// TestBadInput has the rows of the contract and of the design's table "HTTP" that
// a well-behaved client would not send, byte for byte over TCP, each body plain
// and in both encodings. Damaged compression is in TestBadInputCompressed, rates
// are in TestRateLimitsHaveJitter, and what a decent client may send wrongly is in
// TestReplies.
func TestBadInput(t *testing.T) {
	for name, to := range targets() {
		t.Run(name, func(t *testing.T) { badInput(t, to) })
	}
}

func badInput(t *testing.T, to target) {
	f := serve(t)
	start := to.start
	bodies := map[string]string{
		"trailing data":         start + "}{}",
		"trailing byte":         start + "}x",
		"depth 65":              start + `,"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "}",
		"bad UTF-8":             start + ",\"x\":\"\xff\"}",
		"bad UTF-8 (surrogate)": start + ",\"x\":\"\xed\xa0\x80\"}",
		"lone surrogate":        start + `,"x":"\ud800"}`,
		"NaN":                   start + `,"x":NaN}`,
		"Infinity":              start + `,"x":-Infinity}`,
		"not JSON":              "host_id=x",
		"empty":                 "",
		"not an object":         "[" + start + "}]",
		"no identity":           `{"host":{}}`,
	}
	deep := min(100_000, to.limit/2-500)
	bodies["depth 100,000, or what there is room for"] = start + `,"x":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "}"
	maps.Copy(bodies, to.own)
	for row, body := range bodies {
		t.Run(row, func(t *testing.T) {
			for encoding, sent := range map[string][]byte{
				"identity": []byte(body), "gzip": gzipped(t, gzip.BestSpeed, []byte(body)), "zstd": zstandard(t, 1<<20, []byte(body)),
			} {
				text := f.headOf(to.path, to.key, fmt.Sprintf("Content-Length: %d", len(sent)), "Content-Encoding: "+encoding) + string(sent)
				f.refused(t, encoding, text, 400)
			}
		})
	}
	key := "Authorization: Bearer " + f.keys[to.key].Reveal()
	body := start + "}"
	length := fmt.Sprintf("Content-Length: %d", len(body))
	post := func(target string, headers ...string) string {
		return "POST " + target + " HTTP/1.1\r\nHost: hub\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n" + body
	}
	path := to.path
	for _, c := range []struct {
		row, text string
		status    int
	}{
		{"two Authorization headers, both good", post(path, key, key, length), 400},
		{"two Authorization headers, one bad", post(path, key, "authorization: Bearer x", length), 400},
		{"a key in the URL", post(path+"?key="+f.keys["fleet"].Reveal(), length), 400},
		{"a key in the URL and in the header", post(path+"?key=x", key, length), 400},
		{"a key as a password in the URL", post("http://hub:"+f.keys["fleet"].Reveal()+"@hub"+path, length), 401},
		{"a key in capitals", post(path, "Authorization: Bearer "+strings.ToUpper(f.keys["fleet"].Reveal()), length), 401},
		{"another scheme", post(path, strings.Replace(key, "Bearer", "Basic", 1), length), 401},
		{"headers too large", post(path, key, "X: "+strings.Repeat("x", 17<<10), length), 431},
		{"headers too many", post(path, key, strings.Repeat("X: x\r\n", 4000)+length), 431},
		{"two lengths", post(path, key, length, "Content-Length: 7"), 400},
		{"no length that is a number", post(path, key, "Content-Length: -1"), 400},
		{"an unknown transfer encoding", post(path, key, "Transfer-Encoding: gzip"), 501},
		{"chunked, said twice", post(path, key, "Transfer-Encoding: chunked, chunked"), 501},
		{"a folded header", post(path, key, "X: a\r\n\tb: c", "Transfer-Encoding:\x00chunked", length), 400},
		{"a space before the colon", post(path, key, "Content-Length : 7"), 400},
		{"stacked encodings", post(path, key, length, "Content-Encoding: gzip, zstd"), 415},
		{"stacked encodings in two headers", post(path, key, length, "Content-Encoding: gzip", "Content-Encoding: zstd"), 415},
		{"no host header", "POST " + path + " HTTP/1.1\r\n" + key + "\r\n" + length + "\r\n\r\n" + body, 400},
		{"another protocol", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"a body announced as over the limit", post(path, key, fmt.Sprintf("Content-Length: %d", to.limit+1), "Expect: 100-continue"), 413},
	} {
		t.Run(c.row, func(t *testing.T) { f.refused(t, "raw", c.text, c.status) })
	}
	if n := len(f.records()); n != 0 {
		t.Errorf("%d records were stored", n)
	}
	if a := f.send(request{path: path, key: to.key, body: []byte(body)}); a.status != to.status || len(f.records()) != 1 {
		t.Errorf("without a fault: %d %s", a.status, a.body)
	}
}

// refused writes text to a new connection and wants this status, without a word
// of what was sent.
func (f *fixture) refused(t *testing.T, what, text string, want int) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(f.raw(text)), nil)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // net/http's own refusals may cut the connection behind the reply
	if resp.StatusCode != want {
		t.Errorf("%s: %d %s; want %d", what, resp.StatusCode, body, want)
	}
	if bytes.Contains(body, []byte(goldenHost)) || bytes.Contains(body, []byte(f.keys["fleet"].Reveal())) {
		t.Errorf("%s: the reply repeats what was sent: %s", what, body)
	}
}

// The row "client gone before the reply".
func TestAClientThatWentAwayMayComeAgain(t *testing.T) {
	f := serve(t)
	body := report(goldenHost, 1)
	c := f.raw(f.head("fleet", fmt.Sprintf("Content-Length: %d", len(body))) + string(body))
	_ = c.Close()
	for range 3 {
		if a := f.send(request{key: "fleet", body: body}); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if n := len(f.records()); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestLargeReportsWaitWhenTheSpoolIsNearlyFull(t *testing.T) {
	nearly := false
	f := serve(t, func(s *settings) { s.ingest.NearlyFull = func() bool { return nearly } })
	large, small := padded(256<<10+1), padded(256<<10)
	early := padded(300 << 10)
	if a := f.send(request{key: "fleet", body: early}); a.status != 200 {
		t.Fatalf("a large report at first: %d %s", a.status, a.body)
	}
	nearly = true
	for _, c := range []struct {
		name   string
		body   []byte
		status int
	}{{"large", large, 503}, {"small", small, 200}, {"a large one again that was accepted", early, 200}} {
		a := f.send(request{key: "fleet", body: c.body})
		if a.status != c.status || a.status == 503 && a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %q %s; want %d", c.name, a.status, a.header, a.body, c.status)
		}
	}
	if f.metric(`hub_replies_total{reason="spool_nearly_full",route="host-report",status="503"}`) != "1" {
		t.Error("the refusal was not counted")
	}
	nearly = false
	if a := f.send(request{key: "fleet", body: large}); a.status != 200 {
		t.Errorf("with room again: %d %s", a.status, a.body)
	}
}

// I23: keys and headers are in no reply, metric, profile, log (close looks there)
// and spool file, whatever happens to the request.
func TestI23_NoKeyAnywhere(t *testing.T) {
	f := serve(t)
	own := "host/" + goldenHost
	f.send(request{key: own, body: report(goldenHost, 1)})
	f.send(request{key: "fleet", body: report(goldenHost, 2)})
	f.send(request{key: own, body: []byte("x")})
	f.send(request{key: own, body: report("acme-2", 3)})
	f.send(request{key: "expired", body: report(goldenHost, 4)})
	f.send(request{key: "customer/acme", body: report(goldenHost, 5)})
	f.send(request{key: own, path: "/api/v1/host-report?key=" + f.keys["fleet"].Reveal()})
	f.send(request{path: "/" + f.keys["fleet"].Reveal()})
	f.send(request{method: f.keys["fleet"].Reveal()})
	f.send(request{header: http.Header{"Authorization": {"Bearer " + hub.NewKey().Reveal()}}})
	slow := f.raw(f.head(own, "Content-Length: 1000") + "{") // under way while profiles are taken
	defer slow.Close()
	places := map[string]string{"log": f.log.String()}
	for _, path := range []string{"/metrics", "/api/v1/fleet/status", "/readyz", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
		places[path] = f.admin(path).body
	}
	for _, e := range f.records() {
		places["a record"] += e.HostID + e.CustomerID + e.KeyID + string(e.Body)
	}
	f.searchSpool(places)
	for owner, key := range f.keys {
		for place, text := range places {
			if strings.Contains(text, key.Reveal()[:16]) {
				t.Errorf("the key of %s is in %s", owner, place)
			}
		}
	}
}
