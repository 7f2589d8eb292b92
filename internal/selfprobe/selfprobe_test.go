package selfprobe

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// answering is a listener that answers for a prober that it learns of later.
func answering(t *testing.T, start func(*httptest.Server)) (*httptest.Server, func(*Prober)) {
	t.Helper()
	var p *Prober
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != Path {
			http.NotFound(w, r)
			return
		}
		nonce, _ := io.ReadAll(r.Body)
		_, _ = w.Write(p.Answer(nonce))
	}))
	start(server)
	t.Cleanup(server.Close)
	return server, func(q *Prober) { p = q }
}

func prober(t *testing.T, o Options) *Prober {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProbeReachesItsOwnProcessOnly(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){"http": (*httptest.Server).Start, "https": (*httptest.Server).StartTLS} {
		t.Run(name, func(t *testing.T) {
			server, answersFor := answering(t, start)
			listen := func() string { return server.Listener.Addr().String() }
			p := prober(t, Options{Listen: listen, TLS: name == "https"})
			answersFor(p)
			if err := p.Probe(t.Context()); err != nil {
				t.Error(err)
			}
			answersFor(prober(t, Options{Listen: listen}))
			if err := p.Probe(t.Context()); !errors.Is(err, ErrAnotherAnswered) {
				t.Errorf("another hub answered: %v", err)
			}
			server.Close()
			if err := p.Probe(t.Context()); err == nil {
				t.Error("nobody listens, and it passes")
			}
		})
	}
}

// The outside address is judged as an agent judges it: a certificate that it would
// not trust, a redirect and a proxy's page are failures.
func TestProbeOfTheOutsideAddress(t *testing.T) {
	server, answersFor := answering(t, (*httptest.Server).Start)
	p := prober(t, Options{URL: server.URL})
	answersFor(p)
	if err := p.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	secure, answersFor := answering(t, (*httptest.Server).StartTLS)
	p = prober(t, Options{URL: secure.URL})
	answersFor(p)
	if err := p.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	away := httptest.NewServer(http.RedirectHandler(server.URL+Path, http.StatusTemporaryRedirect))
	defer away.Close()
	p = prober(t, Options{URL: away.URL})
	answersFor(p)
	if err := p.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "307") {
		t.Errorf("a redirect: %v", err)
	}
	for _, bad := range []string{"hub.example", "ftp://hub.example", "https://", "::"} {
		if _, err := New(Options{URL: bad}); err == nil {
			t.Errorf("%q was taken for an address", bad)
		}
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{
		":8080": "127.0.0.1:8080", "0.0.0.0:1": "127.0.0.1:1", "[::]:2": "[::1]:2", "10.0.0.7:3": "10.0.0.7:3", "hub.example:4": "hub.example:4",
	} {
		if got := reachable(listen); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}
