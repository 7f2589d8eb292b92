package httpapi_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

// serveControl is a fixture with a control socket in a data directory.
func serveControl(t *testing.T, change ...func(*settings)) (f *fixture, dataDir string) {
	t.Helper()
	dataDir = t.TempDir()
	if err := os.Chmod(dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return serve(t, append([]func(*settings){func(s *settings) {
		s.http.ControlSocket = control.Path(dataDir)
		s.http.Status = func(owner string) (any, error) {
			if owner == "host/nobody" {
				return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_owner", Message: "nobody is unknown", Hint: "look it up"}
			}
			return map[string]string{"version": "v1", "owner": owner}, nil
		}
		s.http.Accept = func(_ context.Context, revision string) (any, error) {
			switch revision {
			case "held":
				return map[string]string{"revision": revision}, nil
			case "away":
				return nil, errors.New("the remote is away")
			}
			return nil, &hub.Error{Code: hub.Invalid, Reason: "not_held", Message: "it is not held", Hint: "hub status shows what is"}
		}
		s.http.Explain = func(_ context.Context, host string, at time.Time) (any, error) {
			if host == "nobody" {
				return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_host", Message: "nobody is unknown", Hint: "look it up"}
			}
			return map[string]any{"host_id": host, "now": at.IsZero(), "at": at.UTC()}, nil
		}
		known := func(name, did string) (any, error) {
			if name == "nobody" {
				return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_channel", Message: "nobody is unknown", Hint: "look it up"}
			}
			return map[string]string{did: name}, nil
		}
		s.http.Notifications = &httpapi.Notifications{
			List:  func(deadOnly bool) any { return map[string]bool{"dead_only": deadOnly} },
			Retry: func(target string) (any, error) { return known(target, "retried") },
			Test:  func(_ context.Context, channel string) (any, error) { return known(channel, "tested") },
		}
		s.http.Replay = func(_ context.Context, positions []hub.Position, dryRun bool) (any, error) {
			if positions[0].Seq == 0 {
				return nil, &hub.Error{Code: hub.Unavailable, Reason: "busy", Message: "ClickHouse is away", Hint: "hub status says why"}
			}
			return map[string]any{"last": positions[len(positions)-1].Text(), "dry": dryRun}, nil
		}
	}}, change...)...), dataDir
}

// ask sends a request over the control socket.
func ask(t *testing.T, dataDir, method, path, body string) answer {
	t.Helper()
	r, err := http.NewRequest(method, "http://hub"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	c := control.Client(dataDir)
	defer c.CloseIdleConnections()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(text)}
}

const spoolID = "000102030405060708090a0b0c0d0e0f"

func TestControl(t *testing.T) {
	f, dir := serveControl(t)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"status", "GET", "/status", "", 200, `"version": "v1"`},
		{"status of an owner", "GET", "/status?owner=host%2Facme-1", "", 200, `"owner": "host/acme-1"`},
		{"status of nobody", "GET", "/status?owner=host/nobody", "", 400, `"detail":"nobody is unknown","hint":"look it up"}`},
		{"explain", "GET", "/switch/explain?host=acme-1", "", 200, `"now": true`},
		{"explain an instant", "GET", "/switch/explain?host=acme-1&at=2027-06-01T11:00:00.25%2B02:00", "", 200, `"at": "2027-06-01T09:00:00.25Z"`},
		{"explain nobody", "GET", "/switch/explain?host=nobody", "", 400, `"detail":"nobody is unknown","hint":"look it up"}`},
		{"explain no host", "GET", "/switch/explain", "", 400, "neither a host id nor a guest id"},
		{"explain no instant", "GET", "/switch/explain?host=acme-1&at=-2h", "", 400, "is no instant"},
		{"explain by POST", "POST", "/switch/explain?host=acme-1", "", 405, ""},
		{"accept", "POST", "/fleet/accept", `{"revision":"held"}`, 200, `"revision": "held"`},
		{"accept what is not held", "POST", "/fleet/accept", `{"revision":"other"}`, 400, `"detail":"it is not held","hint":"hub status shows what is"}`},
		{"accept fails", "POST", "/fleet/accept", `{"revision":"away"}`, 500, `"detail":"the remote is away"}`},
		{"accept nothing", "POST", "/fleet/accept", `{"revision":""}`, 400, "revision"},
		{"accept more", "POST", "/fleet/accept", `{"revision":"held","force":true}`, 400, "revision"},
		{"accept no JSON", "POST", "/fleet/accept", `held`, 400, "revision"},
		{"accept too much", "POST", "/fleet/accept", `{"revision":"` + strings.Repeat("x", 5000) + `"}`, 413, "limit"},
		{"replay", "POST", "/spool/replay", `{"positions":["` + spoolID + `/1","` + spoolID + `/27"]}`, 200, `"last": "` + spoolID + `/27"`},
		{"replay dry", "POST", "/spool/replay", `{"positions":["` + spoolID + `/1"],"dry_run":true}`, 200, `"dry": true`},
		{"replay fails", "POST", "/spool/replay", `{"positions":["` + spoolID + `/0"]}`, 503, `"detail":"ClickHouse is away","hint":"hub status says why"}`},
		{"replay nothing", "POST", "/spool/replay", `{"positions":[]}`, 400, "positions"},
		{"replay what is no position", "POST", "/spool/replay", `{"positions":["` + spoolID + `/1","27"]}`, 400, "positions"},
		{"replay more", "POST", "/spool/replay", `{"positions":["` + spoolID + `/1"],"force":true}`, 400, "positions"},
		{"replay no JSON", "POST", "/spool/replay", `all`, 400, "positions"},
		{"replay by GET", "GET", "/spool/replay", "", 405, ""},
		{"messages", "GET", "/notify", "", 200, `"dead_only": false`},
		{"dead messages", "GET", "/notify?dead=true", "", 200, `"dead_only": true`},
		{"retry", "POST", "/notify/retry", `{"target":"fleet/ops"}`, 200, `"retried": "fleet/ops"`},
		{"retry all", "POST", "/notify/retry", `{"target":""}`, 200, `"retried": ""`},
		{"retry nothing", "POST", "/notify/retry", `{"target":"nobody"}`, 400, `"detail":"nobody is unknown","hint":"look it up"}`},
		{"retry without a target", "POST", "/notify/retry", `{}`, 400, "target"},
		{"retry more", "POST", "/notify/retry", `{"target":"fleet/ops","force":true}`, 400, "target"},
		{"retry by GET", "GET", "/notify/retry", "", 405, ""},
		{"test", "POST", "/notify/test", `{"target":"fleet/ops"}`, 200, `"tested": "fleet/ops"`},
		{"test of nobody", "POST", "/notify/test", `{"target":"nobody"}`, 400, `"detail":"nobody is unknown","hint":"look it up"}`},
		{"test too much", "POST", "/notify/test", `{"target":"` + strings.Repeat("x", 5000) + `"}`, 413, "limit"},
		{"accept by GET", "GET", "/fleet/accept", "", 405, ""},
		{"status by POST", "POST", "/status", "", 405, ""},
		{"elsewhere", "GET", "/metrics", "", 404, ""},
	} {
		a := ask(t, dir, c.method, c.path, c.body)
		if a.status != c.status || !strings.Contains(a.body, c.want) {
			t.Errorf("%s: %d %s; want %d %s", c.name, a.status, a.body, c.status, c.want)
		}
		if c.status != 200 {
			checkProblem(t, a)
		}
	}
	if log := f.log.String(); !strings.Contains(log, "audit: a revision was accepted by hand") || !strings.Contains(log, "audit: a revision was not accepted") ||
		strings.Count(log, "audit: messages were retried by hand") != 2 || strings.Count(log, "audit: rejected records were replayed by hand") != 1 || !strings.Contains(log, "audit: rejected records were not all replayed") {
		t.Errorf("no audit lines:\n%s", log)
	}
	if f.metric(`hub_replies_total{reason="ok",route="control-status",status="200"}`) != "2" {
		t.Error("the replies are not counted")
	}
}

func TestWithoutAcceptThereIsNoSuchPath(t *testing.T) {
	_, dir := serveControl(t, func(s *settings) { s.http.Accept, s.http.Replay = nil, nil })
	for _, path := range []string{"/fleet/accept", "/spool/replay"} {
		if a := ask(t, dir, "POST", path, `{"revision":"held"}`); a.status != 404 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// What is the operator's is on the socket alone: whoever can open it is the
// operator, and others have no way to it.
func TestControlIsForItsOwnerAlone(t *testing.T) {
	f, dir := serveControl(t)
	info, err := os.Stat(filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %s", info.Mode())
	}
	for _, path := range []string{"/status", "/fleet/accept", "/spool/replay", "/metrics", "/healthz", "/readyz", "/api/v1/fleet/status", "/debug/pprof/"} {
		for _, method := range []string{"GET", "POST"} {
			if a := f.send(request{method: method, path: path, key: "fleet"}); a.status != 404 {
				t.Errorf("%s %s on listen: %d", method, path, a.status)
			}
		}
	}
	for _, path := range []string{"/status", "/fleet/accept", "/spool/replay"} {
		if a := f.admin(path); a.status != 404 {
			t.Errorf("%s on admin_listen: %d", path, a.status)
		}
	}
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "control.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket stays behind: %v", err)
	}

	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	_, err = httpapi.New(httpapi.Options{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", ControlSocket: control.Path(dir)})
	if err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("in an open folder: %v", err)
	}
}

// The final error of a request is told to whoever counts, once, with the key.
func TestRefusalsAreTold(t *testing.T) {
	f := serve(t)
	own := "host/" + goldenHost
	for _, q := range []request{
		{key: own, body: report("acme-2", 1)},
		{key: own, body: padded(4<<20 + 1), header: http.Header{"Expect": {"100-continue"}}},
		{key: own, encoding: "br", body: report(goldenHost, 1)},
		{key: own, body: []byte("x")},
		{key: own, path: "/api/v1/admin/hosts", body: []byte("{}")},
		{key: "expired", body: report(goldenHost, 1)},
		{key: "fleet", body: report("nobody", 1)},
		{key: "customer/acme", body: report(goldenHost, 1)},
		{key: own, body: report(goldenHost, 1)},
		{body: report(goldenHost, 1)},
	} {
		f.send(q)
	}
	var told []string
	for _, h := range f.acceptor.RefusedHosts() {
		for _, r := range h.Reasons {
			told = append(told, h.HostID+" "+r.Reason)
		}
	}
	want := []string{"customer/acme customer_key", "nobody not_enrolled", goldenHost + " expired_key", goldenHost + " not_global", goldenHost + " not_json",
		goldenHost + " encoding", goldenHost + " too_large", goldenHost + " other_host"}
	if strings.Join(told, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q\nwant %q", told, want)
	}
}
