package notify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// TestStandardWebhooksVector is the vector of the specification's own libraries.
func TestStandardWebhooksVector(t *testing.T) {
	w := parse(t, newSenders(t, nil), "webhook+https://example.com/#"+secretOne).(*webhook)
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := sign(w.secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

// verify is a receiver by the text of the specification: it accepts if one of the
// signatures is that of its secret.
func verify(t *testing.T, secret string, h http.Header, body []byte) bool {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", h.Get("webhook-id"), h.Get("webhook-timestamp"), body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return slices.Contains(strings.Split(h.Get("webhook-signature"), " "), want)
}

func TestWebhookIsSignedWithEverySecret(t *testing.T) {
	server := record(t, true, nil)
	s := newSenders(t, server.Server)
	both := parse(t, s, "webhook+https://user:pass@"+server.Listener.Addr().String()+"/a%2Fb?x=y#"+secretTwo+","+secretOne)
	m := example(hub.HostDown)
	if err := both.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	req, body := server.last(t)
	if !verify(t, secretOne, req.Header, body) || !verify(t, secretTwo, req.Header, body) || verify(t, "whsec_AAAA", req.Header, body) {
		t.Errorf("signatures %q", req.Header.Get("webhook-signature"))
	}
	if req.Header.Get("webhook-id") != m.ID || req.Header.Get("webhook-timestamp") != strconv.FormatInt(testTime.Unix(), 10) {
		t.Errorf("headers %v", req.Header)
	}
	if user, password, _ := req.BasicAuth(); req.RequestURI != "/a%2Fb?x=y" || user != "user" || password != "pass" || req.ProtoMajor != 2 {
		t.Errorf("%s of %s by %s", req.RequestURI, user, req.Proto)
	}
	if got := req.Header.Get("Content-Type"); got != "application/cloudevents+json; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
	if bytes.Contains(body, []byte("whsec_")) || strings.Contains(req.RequestURI, "whsec_") {
		t.Error("the secret was sent")
	}
}

func TestWebhookBodyIsACloudEvent(t *testing.T) {
	server := record(t, true, nil)
	sender := parse(t, newSenders(t, server.Server), webhookTo(server))
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("testdata/cloudevent.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	kinds := append(hub.SwitchEvents(), hub.FleetRejected, hub.ClickHouseAway, "backup_failed", Digest)
	for _, kind := range kinds {
		m := example(kind)
		switch kind {
		case hub.FleetRejected, hub.ClickHouseAway:
			m.Event.CustomerID, m.Event.HostID = "", ""
		case Digest:
			m.Event = hub.Event{Type: Digest, CustomerID: "acme", At: testTime, DetectedAt: testTime}
			m.Count, m.Text = 12, message.Digest(message.DigestInput{CustomerID: "acme", From: testTime, To: testTime})
		case hub.MassSilence:
			m.Event.HostID = ""
			for i := range 5000 {
				m.Event.Hosts = append(m.Event.Hosts, fmt.Sprintf("acme-%08d", i))
			}
		}
		if err := sender.Send(t.Context(), m); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		_, body := server.last(t)
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance); err != nil {
			t.Errorf("%s: %v\n%s", kind, err, body)
		}
		if len(body) > 20_000 {
			t.Errorf("%s: %d bytes", kind, len(body))
		}
		event := instance.(map[string]any)
		if event["id"] != m.ID || event["type"] != "eu.felhom."+string(kind) || event["source"] != "https://hub.example" {
			t.Errorf("%s: %v", kind, event)
		}
	}
	// The schema can say no.
	for _, bad := range []string{`{"id":"1","source":"x","type":"t"}`, `{"id":"","source":"x","type":"t","specversion":"1.0"}`, `{"id":"1","source":"x","type":"t","specversion":"1.0","time":"now"}`, `{"id":"1","source":"x","type":"t","specversion":"1.0","customerId":"acme"}`} {
		instance, _ := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if schema.Validate(instance) == nil {
			t.Errorf("the schema takes %s", bad)
		}
	}
}

func TestWebhookData(t *testing.T) {
	body, err := cloudEvent(example(hub.ControllerDown), "felhom-hub")
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Subject, Time string
		Data          map[string]any
	}
	if err := json.Unmarshal(body, &event); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "controller_down", "severity": "critical", "customer_id": "acme", "customer_name": "Acme GmbH",
		"host_id": "acme-5f2c9a1e", "host_name": "pve <01> & `@everyone`", "guest_id": "acme-5f2c9a1e/101", "guest_name": "mail",
		"at": "2026-11-28T14:02:00Z", "detected_at": "2026-11-28T14:03:00Z", "silence_seconds": 3600.0, "reason": "silence_reached_down_after: last=…",
		"dashboard_url": "https://grafana.example/d/host", "runbook_url": "https://wiki.example/silence",
	}
	title, text := event.Data["title"], event.Data["text"]
	delete(event.Data, "title")
	delete(event.Data, "text")
	if !maps.Equal(event.Data, want) || event.Subject != "guest/acme-5f2c9a1e/101" || event.Time != "2026-11-28T14:02:00Z" {
		t.Errorf("got %v\nwant %v", event, want)
	}
	if title == "" || !strings.Contains(fmt.Sprint(text), "Kunde: Acme GmbH (acme)") {
		t.Errorf("title %q, text %q", title, text)
	}
}

// TestWebhookIDCannotMoveTheBounds: the id is followed by a dot in what is signed.
func TestWebhookIDCannotMoveTheBounds(t *testing.T) {
	server := record(t, true, nil)
	sender := parse(t, newSenders(t, server.Server), webhookTo(server))
	for _, id := range []string{"", "a.b", "a\r\nX: y"} {
		m := example(hub.HostDown)
		m.ID = id
		wantError(t, id, sender.Send(t.Context(), m), Error{Class: Invalid})
	}
}
