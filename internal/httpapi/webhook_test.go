package httpapi_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

// hookSecret is that of GitHub's own example, to whose signature ours is held.
const hookSecret = "It's a Secret to Everybody"

const hookPath = "/api/v1/fleet/webhook"

// hooked is a fixture with a webhook whose secret can be replaced.
type hooked struct {
	*fixture
	mu     sync.Mutex
	secret hub.Secret
	err    error
	pulls  atomic.Int64
}

func serveHook(t *testing.T, change ...func(*settings)) *hooked {
	h := &hooked{secret: hub.NewSecret(hookSecret)}
	h.fixture = serve(t, append(change, func(s *settings) {
		s.http.Webhook = &httpapi.Webhook{
			Secret: func() (hub.Secret, error) { h.mu.Lock(); defer h.mu.Unlock(); return h.secret, h.err },
			Pull:   func() { h.pulls.Add(1) },
		}
	})...)
	t.Cleanup(func() {
		if strings.Contains(h.log.String(), hookSecret) {
			t.Errorf("the secret is in the log:\n%s", h.log)
		}
	})
	return h
}

func (h *hooked) become(secret string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.secret, h.err = hub.NewSecret(secret), err
}

func signed(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// hint is a request with some headers, one value each.
func hint(body string, headers ...string) request {
	q := request{path: hookPath, body: []byte(body), header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		name := http.CanonicalHeaderKey(headers[i])
		q.header[name] = append(q.header[name], headers[i+1])
	}
	return q
}

func TestSignatureOfGitHubsExample(t *testing.T) {
	h := serveHook(t)
	a := h.send(hint("Hello, World!", "X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"))
	if a.status != 202 || a.body != "{\"status\":\"pulling\"}\n" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What each kind of git server sends, header for header.
func TestWebhookOfEachForge(t *testing.T) {
	deliveries, err := filepath.Glob("testdata/webhook/*.http")
	if err != nil || len(deliveries) != 7 {
		t.Fatal(deliveries, err)
	}
	h := serveHook(t)
	for _, file := range deliveries {
		kind, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".http"), "-")
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
			sent, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			before := h.pulls.Load()
			logged := len(h.log.String())
			if got, err := status(t, h.raw(string(sent))); err != nil || got != 202 {
				t.Fatalf("%d, %v", got, err)
			}
			if h.pulls.Load() != before+1 {
				t.Error("it does not pull")
			}
			if log := h.log.String()[logged:]; !strings.Contains(log, "kind="+kind+" ") || !strings.Contains(log, "from=127.0.0.1") {
				t.Errorf("no audit line of kind %s:\n%s", kind, log)
			}
			// The last byte of the body is not what was signed; GitLab signs nothing.
			sent[len(sent)-1] ^= 1
			want := 401
			if kind == "gitlab" {
				want = 202
			}
			if got, err := status(t, h.raw(string(sent))); err != nil || got != want {
				t.Errorf("changed on the way: %d, %v; want %d", got, err, want)
			}
		})
	}
}

func TestWebhookSignatures(t *testing.T) {
	const body = `{"ref":"refs/heads/main"}`
	good, bad := signed(hookSecret, []byte(body)), signed("another", []byte(body))
	h := serveHook(t)
	var refused []string
	for _, c := range []struct {
		name   string
		q      request
		status int
	}{
		{"none", hint(body), 401},
		{"empty", hint(body, "X-Gitea-Signature", ""), 401},
		{"wrong", hint(body, "X-Gitea-Signature", bad), 401},
		{"of another body", hint(body+" ", "X-Gitea-Signature", good), 401},
		{"truncated", hint(body, "X-Gitea-Signature", good[:62]), 401},
		{"half a digit", hint(body, "X-Gitea-Signature", good[:63]), 401},
		{"too long", hint(body, "X-Gitea-Signature", good+"00"), 401},
		{"upper case", hint(body, "X-Gitea-Signature", strings.ToUpper(good)), 202},
		{"no prefix", hint(body, "X-Hub-Signature-256", good), 401},
		{"a prefix too many", hint(body, "X-Gitea-Signature", "sha256="+good), 401},
		{"another algorithm", hint(body, "X-Hub-Signature-256", "sha1="+good), 401},
		{"SHA-1 alone", hint(body, "X-Hub-Signature", "sha1=2c1f5b8e0f3fd0b7c1b1a5b9c0d0e0f001020304"), 401},
		{"no hex", hint(body, "X-Gitea-Signature", strings.Repeat("g", 64)), 401},
		{"two that agree", hint(body, "X-Forgejo-Signature", good, "X-Hub-Signature-256", "sha256="+good), 202},
		{"the second wrong", hint(body, "X-Forgejo-Signature", good, "X-Hub-Signature-256", "sha256="+bad), 401},
		{"the first wrong", hint(body, "X-Forgejo-Signature", bad, "X-Hub-Signature-256", "sha256="+good), 401},
		{"one header twice, one wrong", hint(body, "X-Gitea-Signature", good, "X-Gitea-Signature", bad), 401},
		{"token", hint(body, "X-Gitlab-Token", hookSecret), 202},
		{"token wrong", hint(body, "X-Gitlab-Token", hookSecret+"x"), 401},
		{"token empty", hint(body, "X-Gitlab-Token", ""), 401},
		{"token right, signature wrong", hint(body, "X-Gitlab-Token", hookSecret, "X-Gitea-Signature", bad), 401},
		{"token wrong, signature right", hint(body, "X-Gitlab-Token", "x", "X-Gitea-Signature", good), 401},
		{"secret as bearer", hint(body, "Authorization", "Bearer "+strings.ReplaceAll(hookSecret, " ", "")), 401},
		{"chunked", func() request { q := hint(body, "X-Gitea-Signature", good); q.stream = true; return q }(), 202},
		{"no body", hint("", "X-Gitea-Signature", signed(hookSecret, nil)), 202},
		{"never decompressed", func() request { q := hint(body, "X-Gitea-Signature", good); q.encoding = "br"; return q }(), 202},
		{"secret in the address", func() request {
			q := hint(body, "X-Gitea-Signature", good)
			q.path += "?token=x"
			return q
		}(), 400},
		{"GET", func() request { q := hint("", "X-Gitea-Signature", good); q.method = "GET"; return q }(), 405},
		{"PUT", func() request { q := hint(body, "X-Gitea-Signature", good); q.method = "PUT"; return q }(), 405},
		{"slash at the end", func() request { q := hint(body, "X-Gitea-Signature", good); q.path += "/"; return q }(), 404},
	} {
		before := h.pulls.Load()
		a := h.send(c.q)
		if a.status != c.status {
			t.Errorf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
		}
		if pulled := h.pulls.Load() > before; pulled != (c.status == 202) {
			t.Errorf("%s: pulled %t", c.name, pulled)
		}
		if c.status != 202 {
			checkProblem(t, a)
		}
		if a.status == 401 {
			refused = append(refused, a.body)
		}
	}
	for _, body := range refused {
		if body != refused[0] {
			t.Errorf("two replies for a bad signature: %s and %s", body, refused[0])
		}
	}
	for line, want := range map[string]string{
		`hub_replies_total{reason="pulling",route="fleet-webhook",status="202"}`:      "6",
		`hub_replies_total{reason="no_signature",route="fleet-webhook",status="401"}`: "3",
		`hub_replies_total{reason="method",route="fleet-webhook",status="405"}`:       "2",
	} {
		if got := h.metric(line); got != want {
			t.Errorf("%s %s, want %s", line, got, want)
		}
	}
}

func TestWebhookBodyLimit(t *testing.T) {
	const limit = 25 << 20
	h := serveHook(t)
	body := bytes.Repeat([]byte("x"), limit+1)
	for _, c := range []struct {
		name   string
		body   []byte
		stream bool
		status int
	}{
		{"25 MiB", body[:limit], false, 202},
		{"25 MiB, chunked", body[:limit], true, 202},
		{"25 MiB + 1", body, false, 413},
		{"25 MiB + 1, chunked", body, true, 413},
	} {
		q := hint("", "X-Hub-Signature-256", "sha256="+signed(hookSecret, c.body))
		q.body, q.stream = c.body, c.stream
		a := h.send(q)
		if a.status != c.status {
			t.Errorf("%s: %d %s; want %d", c.name, a.status, a.body, c.status)
		}
		if n := h.InFlight(); n != 0 {
			t.Errorf("%s: %d bytes are held", c.name, n)
		}
	}
	// Without a signature, or with one that cannot be right, no body is waited for.
	for name, header := range map[string]string{"none": "X: y", "malformed": "X-Gitea-Signature: x", "token": "X-Gitlab-Token: x"} {
		text := "POST " + hookPath + " HTTP/1.1\r\nHost: hub\r\nContent-Length: 30000000\r\n" + header + "\r\n\r\n"
		if got, err := status(t, h.raw(text)); err != nil || got != 401 {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	cut := "POST " + hookPath + " HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\nX-Gitea-Signature: " + signed(hookSecret, nil) + "\r\n\r\nzz\r\n"
	if got, err := status(t, h.raw(cut)); err != nil || got != 400 {
		t.Errorf("a chunk that is none: %d, %v", got, err)
	}
}

func TestWebhookSecretIsReplacedAndSwitchedOff(t *testing.T) {
	h := serveHook(t)
	const body = "x"
	old, renewed := hint(body, "X-Gitea-Signature", signed(hookSecret, []byte(body))), hint(body, "X-Gitea-Signature", signed("renewed", []byte(body)))
	for _, step := range []struct {
		name        string
		secret      string
		err         error
		old, renews int
	}{
		{"first", hookSecret, nil, 202, 401},
		{"renewed", "renewed", nil, 401, 202},
		{"switched off", "", nil, 404, 404},
		{"unreadable", "", errors.New("webhook.secret may be read by others"), 503, 503},
		{"first again", hookSecret, nil, 202, 401},
	} {
		h.become(step.secret, step.err)
		if a, b := h.send(old), h.send(renewed); a.status != step.old || b.status != step.renews {
			t.Errorf("%s: %d and %d, want %d and %d", step.name, a.status, b.status, step.old, step.renews)
		}
	}
	if n := strings.Count(h.log.String(), "may be read by others"); n != 1 {
		t.Errorf("the unreadable secret is logged %d times", n)
	}

	// Switched off, or not there at all, it is a path like any other.
	h.become("", nil)
	for _, f := range []*fixture{h.fixture, serve(t)} {
		for _, method := range []string{"GET", "POST"} {
			a := f.send(request{method: method, path: hookPath})
			other := f.send(request{method: method, path: "/api/v1/nothing"})
			if a.status != 404 || a.body != other.body {
				t.Errorf("%s: %d %s; want as %d %s", method, a.status, a.body, other.status, other.body)
			}
		}
	}
}

// Hints beyond the rate are refused, and one late pull makes up for them: git
// servers do not come again.
func TestWebhookRate(t *testing.T) {
	h := serveHook(t)
	q := hint("x", "X-Gitea-Signature", signed(hookSecret, []byte("x")))
	pulled, limited := 0, 0
	for range 30 {
		switch a := h.send(q); a.status {
		case 202:
			pulled++
		case 429:
			limited++
			if a.header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %s", a.body)
			}
		default:
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if pulled < 10 || pulled > 15 || limited != 30-pulled {
		t.Errorf("%d pulled, %d limited; want a burst of 10", pulled, limited)
	}
	eventually(t, "the late pull", func() bool { return h.pulls.Load() > int64(pulled) })
	if h.metric(`hub_replies_total{reason="hint_rate",route="fleet-webhook",status="429"}`) == "" {
		t.Error("the refusals are not counted")
	}
}

// Bad signatures fill the limit on failures of their network, and never stop a
// good one, not even from the same address.
func TestBadSignaturesDoNotStopGoodOnes(t *testing.T) {
	h := serveHook(t)
	limited := 0
	for range 130 {
		if a := h.send(hint("x", "X-Gitea-Signature", "00")); a.status == 429 && a.header.Get("Retry-After") != "" {
			limited++
		} else if a.status != 401 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if limited == 0 {
		t.Error("failures are not limited")
	}
	if a := h.send(hint("x", "X-Gitea-Signature", signed(hookSecret, []byte("x")))); a.status != 202 {
		t.Errorf("a good one: %d %s", a.status, a.body)
	}
	if a := h.send(request{key: "host/" + goldenHost, body: report(goldenHost, 1)}); a.status != 200 {
		t.Errorf("a report: %d %s", a.status, a.body)
	}
}

func TestWebhookWithoutFleetAndWhileStopping(t *testing.T) {
	h := serveHook(t)
	h.fleet = nil
	good := hint("x", "X-Gitea-Signature", signed(hookSecret, []byte("x")))
	if a := h.send(good); a.status != 202 {
		t.Errorf("without a fleet: %d %s", a.status, a.body)
	}
	h.fleet = h.makeFleet(false)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]int{"POST": 503, "GET": 405} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + hookPath + " HTTP/1.1\r\nHost: hub\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		rec := newRecorder()
		h.Public().ServeHTTP(rec, r)
		if rec.status != want {
			t.Errorf("%s while stopping: %d, want %d", method, rec.status, want)
		}
	}
	if n := h.pulls.Load(); n != 1 {
		t.Errorf("%d pulls", n)
	}
}
