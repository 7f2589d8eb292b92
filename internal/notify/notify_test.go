package notify

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/outbound"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// The key of the specification's own vectors, and another one.
	secretOne = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	token     = "s3cr3tt0ken"
)

var (
	loopback  = outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	secretTwo = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	testTime  = time.Date(2026, 11, 28, 14, 3, 0, 0, time.UTC)
)

// newSenders makes senders that may use loopback, and trust server if it is one
// with TLS.
func newSenders(t *testing.T, server *httptest.Server) *Senders {
	t.Helper()
	o := Options{Guard: loopback, Source: "https://hub.example", Now: func() time.Time { return testTime }}
	if server != nil && server.Certificate() != nil {
		o.Roots = x509.NewCertPool()
		o.Roots.AddCert(server.Certificate())
	}
	s := New(o)
	t.Cleanup(s.Close)
	return s
}

func parse(t *testing.T, s *Senders, url string) Sender {
	t.Helper()
	sender, err := s.Parse(hub.NewSecret(url))
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return sender
}

// example is the message of an event.
func example(kind hub.EventType) Message {
	e := hub.Event{
		ID: "0123456789abcdef0123456789abcdef", Type: kind, CustomerID: "acme", HostID: "acme-5f2c9a1e",
		At: testTime.Add(-time.Minute), DetectedAt: testTime, SilenceSeconds: 3600, Source: "switch", Reason: "silence_reached_down_after: last=…",
	}
	if strings.HasPrefix(string(kind), "controller_") || strings.HasPrefix(string(kind), "backup_") {
		e.GuestID = "acme-5f2c9a1e/101"
	}
	m := Message{
		ID: e.ID, Event: e,
		Names: message.Names{Customer: "Acme GmbH", Host: "pve <01> & `@everyone`", Guest: "mail"},
		Links: message.Links{Dashboard: "https://grafana.example/d/host", Runbook: "https://wiki.example/silence"},
	}
	m.Text = message.Write(message.Input{Event: e, Names: m.Names, Links: m.Links, Reader: message.Reader{Language: message.German}})
	return m
}

// recorder is a server that keeps what it gets and answers with reply.
type recorder struct {
	*httptest.Server
	mu     sync.Mutex
	bodies [][]byte
	heads  []*http.Request
}

func record(t *testing.T, tls bool, reply http.HandlerFunc) *recorder {
	t.Helper()
	r := &recorder{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.bodies, r.heads = append(r.bodies, body), append(r.heads, req)
		r.mu.Unlock()
		if reply != nil {
			reply(w, req)
		}
	}))
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	if tls {
		r.EnableHTTP2 = true
		r.StartTLS()
	} else {
		r.Start()
	}
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) last(t *testing.T) (*http.Request, []byte) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bodies) == 0 {
		t.Fatal("nothing arrived")
	}
	return r.heads[len(r.heads)-1], r.bodies[len(r.bodies)-1]
}

// wantError checks the class and status of a failure, and that its text is no more
// than those.
func wantError(t *testing.T, what string, err error, want Error) {
	t.Helper()
	var got *Error
	if !errors.As(err, &got) || *got != want {
		t.Errorf("%s: %v (%+v), want %+v", what, err, got, want)
		return
	}
	if errors.Unwrap(err) != nil || err.Error() != want.Error() || strings.Contains(fmt.Sprintf("%+v %#v", err, err), token) {
		t.Errorf("%s: the error says more than its class: %+v", what, err)
	}
}

var (
	goodSlack    = "slack+https://hooks.slack.com/services/T0/B0/" + token
	goodDiscord  = "discord+https://discord.com/api/webhooks/1/" + token
	goodTeams    = "teams+https://prod-1.westeurope.logic.azure.com/workflows/1/triggers/manual/paths/invoke?sig=" + token
	goodTelegram = "telegram://123456:" + token + "@-1001234"
	goodMail     = "smtp://hub:" + token + "@mail.example.com?from=hub@example.com&to=ops@example.com,chef@example.com"
)

func TestParse(t *testing.T) {
	s := newSenders(t, nil)
	for _, good := range []string{
		"webhook+https://hooks.example.com/felhom?x=" + token + "#" + secretOne,
		"webhook+https://user:" + token + "@hooks.example.com:8443/felhom#" + secretOne + "," + secretTwo,
		"alertmanager+https://alerts.example.com", "alertmanager+https://u:" + token + "@alerts.example.com/prefix/",
		"alertmanager+http://alerts.internal:9093", "alertmanager+http://127.0.0.1:9093",
		goodSlack, goodDiscord, goodTeams, goodTelegram, "telegram://123456:" + token + "@felhom_alarms",
		goodMail, "smtps://hub:" + token + "@mail.example.com:465?from=Hub%20%3Chub@example.com%3E&to=ops@example.com",
		"smtp://127.0.0.1:25?tls=none&from=hub@example.com&to=ops%2Balarm@example.com",
	} {
		sender, err := s.Parse(hub.NewSecret(good))
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "sender", sender)
		if printed := fmt.Sprintf("%v %+v %#v", sender, sender, sender) + log.String(); strings.Contains(printed, token) || strings.Contains(printed, "MfKQ9r8G") {
			t.Errorf("a sender prints its secret: %s", printed)
		}
	}
	for _, c := range []struct{ url, says string }{
		{"", "not known"}, {token, "not known"}, {"https://hooks.example.com/" + token, "webhook+https://"},
		{"webhook+http://hooks.example.com/#" + secretOne, "not known"}, {"ntfy://ntfy.sh/" + token, "slack+https://"},
		{"generic://127.0.0.1/" + token, "not known"}, {"://" + token, "not a URL"}, {"webhook+https://%zz" + token, "not a URL"},
		{"webhook+https:///path#" + secretOne, "no host"}, {"webhook+https:" + token, "no host"},
		{"webhook+https://hooks.example.com/" + token, "no secret"},
		{"webhook+https://hooks.example.com/#whsec_" + token, "24 to 64"}, {"webhook+https://hooks.example.com/#whsec_c2hvcnQ=", "24 to 64"},
		{"webhook+https://hooks.example.com/#" + strings.TrimPrefix(secretOne, "whsec_"), "24 to 64"},
		{"webhook+https://hooks.example.com/#" + strings.Repeat(secretOne+",", 2) + secretTwo, "or two"},
		{"webhook+https://10.0.0.1/" + token + "#" + secretOne, "not a public one"}, {"webhook+https://[::1]/#" + secretOne, "not a public one"},
		{"webhook+https://[::ffff:169.254.169.254]/#" + secretOne, "not a public one"},
		{"alertmanager+http://93.184.215.14:9093", "not a public one"}, {"alertmanager+https://192.168.1.1", "not a public one"},
		{"alertmanager+https://alerts.example.com?x=" + token, "no query"},
		{"slack+https://evil.example/services/T0/B0/" + token, "hooks.slack.com"}, {"slack+https://hooks.slack.com.evil.example/services/" + token, "hooks.slack.com"},
		{"slack+https://hooks.slack.com:8080/services/" + token, "hooks.slack.com"}, {"slack+https://hooks.slack.com/" + token, "/services/"},
		{"slack+https://x:" + token + "@hooks.slack.com/services/1", "/services/"},
		{"discord+https://discord.com.evil.example/api/webhooks/1/" + token, "discord.com"}, {"discord+https://discord.com/api/webhooks/", "/api/webhooks/"},
		{"teams+https://logic.azure.com.evil.example/" + token, ".logic.azure.com"}, {"teams+https://.logic.azure.com/" + token, ".logic.azure.com"},
		{"telegram://" + token + "@1", "BOT:TOKEN"}, {"telegram://1:a%2F..%2F" + token + "@1", "BOT:TOKEN"}, {"telegram://1:" + token + "@1/x", "nothing follows"},
		{"telegram://1", "BOT:TOKEN"},
		{"smtp://mail.example.com?from=hub@example.com", "from is one"}, {"smtp://mail.example.com?from=nobody&to=ops@example.com", "from is one"},
		{"smtp://mail.example.com?from=hub@example.com&to=a@example.com%0d%0aBcc:x@example.com", "from is one"},
		{"smtp://mail.example.com?from=hub@example.com&to=ops@example.com&skiptls=yes", "only"},
		{"smtp://10.0.0.1?from=hub@example.com&to=ops@example.com", "not a public one"},
		{"smtp://u:" + token + "@127.0.0.1?tls=none&from=hub@example.com&to=ops@example.com", "without a password"},
		{"smtps://127.0.0.1?tls=none&from=hub@example.com&to=ops@example.com", "without a password"},
		{"smtp://93.184.215.14?tls=none&from=hub@example.com&to=ops@example.com", "not a public one"},
	} {
		_, err := s.Parse(hub.NewSecret(c.url))
		if err == nil {
			t.Errorf("%s is taken", c.url)
			continue
		}
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", c.url, err, c.says)
		}
		if strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "evil") {
			t.Errorf("the error repeats the URL: %v", err)
		}
	}
}

func TestValidateConnectsToNothing(t *testing.T) {
	server := record(t, true, nil)
	url := "webhook" + "+https://" + server.Listener.Addr().String() + "/#" + secretOne
	if err := Validate(hub.NewSecret(url), loopback); err != nil {
		t.Error(err)
	}
	if err := Validate(hub.NewSecret(url), nil); !errors.Is(err, outbound.ErrForbidden) {
		t.Errorf("an address inside: %v", err)
	}
	if len(server.heads) != 0 {
		t.Error("something was sent")
	}
}

// FuzzParse: whatever stands in the file, there is a sender that keeps its secret,
// or an error that repeats nothing of it.
func FuzzParse(f *testing.F) {
	for _, seed := range append(Kinds(), goodSlack, goodDiscord, goodTeams, goodTelegram, goodMail, "webhook+https://h.example/#"+secretOne+","+secretTwo, "smtp://[::1%25lo]:x?from=a", "telegram://:@") {
		f.Add(seed)
	}
	s := New(Options{})
	f.Fuzz(func(t *testing.T, text string) {
		sender, err := s.Parse(hub.NewSecret(text + token))
		if (sender == nil) == (err == nil) {
			t.Errorf("%v, %v", sender, err)
		}
		if err != nil && strings.Contains(err.Error(), token) || strings.Contains(fmt.Sprintf("%+v", sender), token) {
			t.Errorf("the secret is repeated: %v, %+v", err, sender)
		}
	})
}
