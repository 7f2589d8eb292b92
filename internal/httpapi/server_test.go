package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

// raw opens a connection and writes text.
func (f *fixture) raw(text string) net.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.Addr())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) head(key string, more ...string) string {
	return f.headOf("/api/v1/host-report", key, more...)
}

func (f *fixture) headOf(path, key string, more ...string) string {
	lines := append([]string{"POST " + path + " HTTP/1.1", "Host: hub"}, more...)
	if key != "" {
		lines = append(lines, "Authorization: Bearer "+f.keys[key].Reveal())
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func status(t *testing.T, c net.Conn) (int, error) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

func TestTheKeyIsCheckedBeforeTheBodyIsRead(t *testing.T) {
	f := serve(t)
	for _, c := range []struct {
		name, text string
		status     int
	}{
		{"no key", f.head("", "Content-Length: 4000000"), 401},
		{"customer key", f.head("customer/acme", "Content-Length: 4000000"), 403},
		{"good key, too large, asks first", f.head("fleet", "Content-Length: 5000000", "Expect: 100-continue"), 413},
		{"good key, encoding, asks first", f.head("fleet", "Content-Length: 5000000", "Expect: 100-continue", "Content-Encoding: br"), 415},
	} {
		// Not one byte of the body is sent.
		if got, err := status(t, f.raw(c.text)); err != nil || got != c.status {
			t.Errorf("%s: %d, %v; want %d", c.name, got, err, c.status)
		}
	}
}

func TestHeadersTooLarge(t *testing.T) {
	f := serve(t)
	if got, err := status(t, f.raw(f.head("fleet", "X: "+strings.Repeat("x", 17<<10), "Content-Length: 0"))); err != nil || got != 431 {
		t.Errorf("17 KiB of headers: %d, %v", got, err)
	}
	if got, err := status(t, f.raw(f.head("fleet", "X: "+strings.Repeat("x", 11<<10), "Content-Length: 0"))); err != nil || got != 400 {
		t.Errorf("11 KiB of headers: %d, %v", got, err)
	}
}

func TestSlowClients(t *testing.T) {
	f := serve(t, func(s *settings) { s.header, s.read = 100*time.Millisecond, 200*time.Millisecond })
	if _, err := status(t, f.raw("POST /api/v1/host-report HTTP/1.1\r\nHost:")); err == nil {
		t.Error("a client that never ends its headers got a reply")
	}
	if got, err := status(t, f.raw(f.head("fleet", "Content-Length: 1000")+"{")); err != nil || got != 408 {
		t.Errorf("a client that never ends its body: %d, %v", got, err)
	}
	c := f.raw(f.head("fleet", "Content-Length: 1000") + "{")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := status(t, c); err != nil || got != 408 {
		t.Errorf("a body cut off: %d, %v", got, err)
	}
	if got, err := status(t, f.raw(f.head("fleet", "Transfer-Encoding: chunked")+"zz\r\n")); err != nil || got != 400 {
		t.Errorf("a chunk that is none: %d, %v", got, err)
	}
}

func TestI18_ConnectionsAreBounded(t *testing.T) {
	f := serve(t, func(s *settings) { s.http.MaxConnections = 2 })
	first, second := f.raw(""), f.raw("")
	eventually(t, "two connections are counted", func() bool { return f.metric("hub_connections") == "2" })
	resp, err := http.ReadResponse(bufio.NewReader(f.raw(f.head("fleet", "Content-Length: 0"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !resp.Close || !strings.Contains(string(body), `"status":503`) {
		t.Errorf("the third connection: %d %q %s, %v", resp.StatusCode, resp.Header, body, err)
	}
	if f.metric(`hub_replies_total{reason="connections",route="-",status="503"}`) != "1" {
		t.Error("the refusal was not counted")
	}
	_, _ = first.Close(), second.Close()
	eventually(t, "it recovers alone", func() bool {
		a, err := f.try(request{key: "fleet", body: report(goldenHost, 1)})
		return err == nil && a.status == 200
	})
}

func TestI18_BodiesInFlightAreBounded(t *testing.T) {
	f := serve(t, func(s *settings) { s.http.MaxInFlightBytes = 256 << 10 })
	slow := f.raw(f.head("fleet", "Content-Length: 60000") + strings.Repeat(" ", 40_000))
	eventually(t, "a slow body is held", func() bool { return f.InFlight() == 64<<10 })
	if a := f.send(request{key: "fleet", body: report(goldenHost, 1)}); a.status != 200 {
		t.Errorf("a small report beside it: %d %s", a.status, a.body)
	}
	a := f.send(request{key: "fleet", body: padded(60_000)})
	if a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("over the bound: %d %s", a.status, a.body)
	}
	_ = slow.Close()
	eventually(t, "it recovers alone", func() bool { return f.send(request{key: "fleet", body: padded(60_000)}).status == 200 })
	if n := f.InFlight(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("never true: " + what)
}

// metric returns the value of a line of /metrics.
func (f *fixture) metric(name string) string {
	f.t.Helper()
	for line := range strings.Lines(f.admin("/metrics").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// panicking stands for a mistake anywhere behind the handler.
type panicking struct {
	httpapi.Reports
	with func(body []byte) any
}

func (panicking) Ready() error                                 { return nil }
func (panicking) Identify(string, netip.Addr) (hub.Key, error) { return hub.Key{ID: "k1"}, nil }
func (panicking) Admit(hub.Key) (string, error)                { return "", nil }
func (panicking) Refused(hub.Key, error)                       {}
func (panicking) Failed(_ netip.Addr, err error) error         { return err }
func (p panicking) Accept(_ context.Context, _ hub.Key, _ string, body []byte) ([]byte, bool, error) {
	panic(p.with(body))
}

func TestI23_PanicsAreContainedAndTellNothing(t *testing.T) {
	for name, with := range map[string]func([]byte) any{
		"text":  func(b []byte) any { return string(b) },
		"error": func(b []byte) any { return errors.New(string(b)) },
		"index": func([]byte) (r any) { defer func() { r = recover() }(); return []int{}[len(name(0))] },
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, func(s *settings) { s.http.Reports = panicking{with: with} })
			a := f.send(request{key: "fleet", body: []byte("private matters")})
			if a.status != 500 {
				t.Errorf("%d %s", a.status, a.body)
			}
			checkProblem(t, a)
			log := f.log.String()
			if !strings.Contains(log, "a request panicked") || strings.Contains(log, "private") || strings.Contains(a.body, "private") {
				t.Errorf("reply %s log %s", a.body, log)
			}
			if name == "index" && !strings.Contains(log, "index out of range") {
				t.Errorf("the runtime's own error is not in the log: %s", log)
			}
			if f.metric(`hub_replies_total{reason="panic",route="host-report",status="500"}`) != "1" {
				t.Error("it was not counted")
			}
		})
	}
}

func name(int) string { return "" }

func TestUnknownErrorsTellNothing(t *testing.T) {
	f := serve(t)
	f.spool.fail(errors.New("inner working"))
	a := f.send(request{key: "fleet", body: report(goldenHost, 1)})
	if a.status != 500 || strings.Contains(a.body, "inner") || !strings.Contains(f.log.String(), "inner working") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestAdmin(t *testing.T) {
	f := serve(t, func(s *settings) {
		s.http.Metrics = []httpapi.Metric{
			{Name: "hub_spool_bytes", Help: "Bytes.", Value: func() float64 { return 7 }},
			{Name: "hub_build_info", Help: "Version.", Labels: map[string]string{"version": "v0"}, Counter: true, Value: func() float64 { return 1 }},
		}
	})
	if a := f.admin("/healthz"); a.status != 200 || a.body != "ok\n" {
		t.Errorf("healthz: %d %q", a.status, a.body)
	}
	if a := f.admin("/readyz"); a.status != 200 || !strings.Contains(a.body, `"ready": true`) || !strings.Contains(a.body, "clickhouse is away") {
		t.Errorf("readyz: %d %s", a.status, a.body)
	}
	f.ready = false
	if a := f.admin("/readyz"); a.status != 503 || !strings.Contains(a.body, `"ready": false`) || !strings.Contains(a.body, "clickhouse is away") {
		t.Errorf("readyz: %d %s", a.status, a.body)
	}
	if a := f.admin("/api/v1/fleet/status"); a.status != 200 || !strings.Contains(a.body, `"revision": "abc"`) {
		t.Errorf("fleet status: %d %s", a.status, a.body)
	}
	if f.metric("hub_spool_bytes") != "7" || f.metric(`hub_build_info{version="v0"}`) != "1" || f.metric("go_goroutines") == "" {
		t.Error("metrics are missing")
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline"} {
		if a := f.admin(path); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	if a := f.admin("/api/v1/host-report"); a.status != 404 {
		t.Errorf("an agent's path on the admin side: %d", a.status)
	}
	resp, err := http.Post("http://"+f.AdminAddr()+"/healthz", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /healthz: %d %q", resp.StatusCode, resp.Header)
	}
}

func TestAMetricThatStandsTwiceIsAMistakeAtStart(t *testing.T) {
	_, err := httpapi.New(httpapi.Options{Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Metrics: []httpapi.Metric{
		{Name: "hub_connections", Help: "Open connections on listen.", Value: func() float64 { return 0 }},
	}})
	if err == nil {
		t.Error("no error")
	}
}

func TestTakenPort(t *testing.T) {
	f := serve(t)
	for _, o := range []httpapi.Options{
		{Listen: f.Addr(), AdminListen: "127.0.0.1:0"},
		{Listen: "127.0.0.1:0", AdminListen: f.Addr()},
	} {
		if _, err := httpapi.New(o); err == nil || !strings.Contains(err.Error(), "listen: ") {
			t.Errorf("%v", err)
		}
	}
}

// waiting is a Reports whose Accept waits until it is let go.
type waiting struct {
	panicking
	entered, leave chan struct{}
}

func (w waiting) Accept(context.Context, hub.Key, string, []byte) ([]byte, bool, error) {
	close(w.entered)
	<-w.leave
	return []byte("{}\n"), false, nil
}

func TestI21_StopFinishesWhatItBegan(t *testing.T) {
	w := waiting{entered: make(chan struct{}), leave: make(chan struct{})}
	f := serve(t, func(s *settings) { s.http.Reports = w })
	reply := make(chan string, 1)
	go func() {
		a, err := f.try(request{key: "fleet", body: report(goldenHost, 1)})
		reply <- fmt.Sprint(a.status, err)
	}()
	<-w.entered
	stopped := make(chan error, 1)
	go func() { stopped <- f.Stop(context.Background()) }()
	eventually(t, "it stops", func() bool { return f.admin("/readyz").status == 503 })
	if a := f.admin("/readyz"); !strings.Contains(a.body, `"stopping": true`) {
		t.Errorf("readyz while stopping: %s", a.body)
	}
	// A request that comes on a connection which is still open.
	for method, want := range map[string]int{"POST": 503, "GET": 405} {
		rec := newRecorder()
		r, err := http.NewRequest(method, "/api/v1/host-report", bytes.NewReader(report(goldenHost, 2)))
		if err != nil {
			t.Fatal(err)
		}
		f.Public().ServeHTTP(rec, r)
		if rec.status != want || want == 503 && rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s while stopping: %d %q; want %d", method, rec.status, rec.Header(), want)
		}
	}
	close(w.leave)
	if got := <-reply; got != "200 <nil>" {
		t.Errorf("the request under way: %s", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := f.Stop(context.Background()); err != nil {
		t.Errorf("stopping again: %v", err)
	}
}

type recorder struct {
	header http.Header
	status int
	bytes.Buffer
}

func newRecorder() *recorder               { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

func TestI21_StopIsBounded(t *testing.T) {
	w := waiting{entered: make(chan struct{}), leave: make(chan struct{})}
	f := serve(t, func(s *settings) { s.http.Reports = w })
	go func() { _, _ = f.try(request{key: "fleet", body: report(goldenHost, 1)}) }()
	<-w.entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := f.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	close(w.leave)
	eventually(t, "the body is released", func() bool { return f.InFlight() == 0 })
}
