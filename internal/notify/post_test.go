package notify

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/outbound"
)

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "the body repeats "+token)
	}
}

func TestStatusBecomesAClass(t *testing.T) {
	date := testTime.Add(90 * time.Second).Format(http.TimeFormat)
	for _, c := range []struct {
		reply     http.HandlerFunc
		want      Error
		permanent bool
	}{
		{status(200), Error{}, false}, {status(202), Error{}, false}, {status(204), Error{}, false},
		{status(301, "Location", "https://evil.example/"), Error{Class: Redirected, Status: 301}, false},
		{status(307, "Location", "/"), Error{Class: Redirected, Status: 307}, false}, {status(304), Error{Class: Redirected, Status: 304}, false},
		{status(400), Error{Class: Refused, Status: 400}, true}, {status(401), Error{Class: Refused, Status: 401}, true},
		{status(404), Error{Class: Refused, Status: 404}, true}, {status(410), Error{Class: Refused, Status: 410}, true},
		{status(408), Error{Class: Failed, Status: 408}, false}, {status(425), Error{Class: Failed, Status: 425}, false},
		{status(500), Error{Class: Failed, Status: 500}, false}, {status(502), Error{Class: Failed, Status: 502}, false},
		{status(500, "Retry-After", "7"), Error{Class: Failed, Status: 500, RetryAfter: 7 * time.Second}, false},
		{status(429), Error{Class: Busy, Status: 429}, false},
		{status(429, "Retry-After", "120"), Error{Class: Busy, Status: 429, RetryAfter: 2 * time.Minute}, false},
		{status(429, "Retry-After", "0.25"), Error{Class: Busy, Status: 429, RetryAfter: 250 * time.Millisecond}, false},
		{status(429, "Retry-After", "-5"), Error{Class: Busy, Status: 429}, false}, {status(429, "Retry-After", "NaN"), Error{Class: Busy, Status: 429}, false},
		{status(429, "Retry-After", "1e300"), Error{Class: Busy, Status: 429, RetryAfter: maxWait}, false}, {status(429, "Retry-After", "soon"), Error{Class: Busy, Status: 429}, false},
		{status(503, "Retry-After", date), Error{Class: Busy, Status: 503, RetryAfter: 90 * time.Second}, false},
		{status(503, "Retry-After", testTime.Add(-time.Hour).Format(http.TimeFormat)), Error{Class: Busy, Status: 503}, false},
	} {
		server := record(t, true, c.reply)
		err := parse(t, newSenders(t, server.Server), webhookTo(server)).Send(t.Context(), example(hub.HostDown))
		if c.want == (Error{}) {
			if err != nil {
				t.Errorf("a success: %v", err)
			}
			continue
		}
		wantError(t, c.want.Error(), err, c.want)
		if c.want.Permanent() != c.permanent {
			t.Errorf("%v is permanent: %v", &c.want, !c.permanent)
		}
	}
}

func webhookTo(server *recorder) string {
	return "webhook+https://" + server.Listener.Addr().String() + "/" + token + "#" + secretOne
}

func TestRedirectIsNotFollowed(t *testing.T) {
	target := record(t, true, nil)
	server := record(t, true, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target.URL, http.StatusTemporaryRedirect)
	})
	err := parse(t, newSenders(t, server.Server), webhookTo(server)).Send(t.Context(), example(hub.HostDown))
	wantError(t, "redirect", err, Error{Class: Redirected, Status: 307})
	if len(target.heads) != 0 {
		t.Error("the redirect was followed")
	}
}

func TestBadCertificate(t *testing.T) {
	server := record(t, true, nil)
	sender := parse(t, newSenders(t, nil), webhookTo(server)) // which does not know the server's authority
	wantError(t, "unknown authority", sender.Send(t.Context(), example(hub.HostDown)), Error{Class: TLS})

	plain := record(t, false, nil)
	sender = parse(t, newSenders(t, nil), webhookTo(plain))
	wantError(t, "no TLS at all", sender.Send(t.Context(), example(hub.HostDown)), Error{Class: TLS})

	old := record(t, true, nil)
	old.TLS.MaxVersion = 0x0302 // TLS 1.1
	wantError(t, "TLS 1.1", parse(t, newSenders(t, old.Server), webhookTo(old)).Send(t.Context(), example(hub.HostDown)), Error{Class: TLS})
}

func TestSlowServerTimesOut(t *testing.T) {
	released := make(chan struct{})
	server := record(t, true, func(http.ResponseWriter, *http.Request) { <-released })
	s := newSenders(t, server.Server)
	s.limit = 100 * time.Millisecond
	wantError(t, "slow", parse(t, s, webhookTo(server)).Send(t.Context(), example(hub.HostDown)), Error{Class: Timeout})

	s.limit = timeout
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	wantError(t, "canceled", parse(t, s, webhookTo(server)).Send(ctx, example(hub.HostDown)), Error{Class: Canceled})
	close(released)
}

// TestSilentPort: a server that takes the connection and says nothing, not even TLS.
func TestSilentPort(t *testing.T) {
	listener := listen(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	s := newSenders(t, nil)
	s.limit = 100 * time.Millisecond
	for _, url := range []string{"webhook+https://" + listener + "/#" + secretOne, "smtp://" + listener + "?from=a@b.de&to=c@d.de", "smtps://" + listener + "?from=a@b.de&to=c@d.de"} {
		wantError(t, url, parse(t, s, url).Send(t.Context(), example(hub.HostDown)), Error{Class: Timeout})
	}
}

// TestEndlessBody: the status is the answer, whatever comes behind it.
func TestEndlessBody(t *testing.T) {
	for _, code := range []int{200, 500} {
		written := make(chan int, 1)
		server := record(t, true, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			n, chunk := 0, []byte(strings.Repeat("x", 32<<10))
			for {
				k, err := w.Write(chunk)
				n += k
				if err != nil || n > 64<<20 {
					written <- n
					return
				}
			}
		})
		err := parse(t, newSenders(t, server.Server), webhookTo(server)).Send(t.Context(), example(hub.HostDown))
		if code == 200 && err != nil {
			t.Errorf("an endless success: %v", err)
		} else if code == 500 {
			wantError(t, "an endless failure", err, Error{Class: Failed, Status: 500})
		}
		if n := <-written; n > 16<<20 {
			t.Errorf("%d bytes were taken", n)
		}
	}
}

func TestBrokenConnections(t *testing.T) {
	reset := listen(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.(*net.TCPConn).SetLinger(0)
	})
	closed := listen(t, func(net.Conn) {})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	s := newSenders(t, nil)
	for what, host := range map[string]string{"reset": reset, "closed": closed, "nobody listens": gone.Addr().String()} {
		for _, url := range []string{"alertmanager+http://" + host + "/" + token, "alertmanager+https://" + host, "smtps://" + host + mailTail, "smtp://" + host + mailTail + "&tls=none"} {
			if what == "reset" && strings.HasPrefix(url, "smtp:") {
				continue // it waits for the client's first byte, and the client for its greeting
			}
			wantError(t, what+": "+url, parse(t, s, url).Send(t.Context(), example(hub.HostDown)), Error{Class: Unreachable})
		}
	}
}

// listen serves connections by handle and closes them.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			handle(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().String()
}

// TestForbidden: names that lead inside are refused when they are dialed.
func TestForbidden(t *testing.T) {
	server := record(t, true, nil)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	s := New(Options{Guard: outbound.New(nil)})
	defer s.Close()
	for _, url := range []string{
		"webhook+https://localhost:%s/#" + secretOne, "alertmanager+https://localhost:%s", "alertmanager+http://localhost:%s",
		"smtp://localhost:%s?from=a@b.de&to=c@d.de", "smtps://localhost:%s?from=a@b.de&to=c@d.de", "smtp://localhost:%s?from=a@b.de&to=c@d.de&tls=none",
	} {
		err := parse(t, s, fmt.Sprintf(url, port)).Send(t.Context(), example(hub.HostDown))
		wantError(t, url, err, Error{Class: Forbidden})
	}
	if len(server.heads) != 0 {
		t.Error("something arrived")
	}
}
