package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// inbox is the operators' Alertmanager.
type inbox struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	status int // that it answers; zero: 200, and it keeps what it is told
}

func newInbox(t *testing.T) *inbox {
	i := &inbox{}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status != 0 {
		w.WriteHeader(i.status)
		return
	}
	body, _ := io.ReadAll(r.Body)
	i.bodies = append(i.bodies, string(body))
}

// answer has it refuse what it is told, by a status; zero: no more.
func (i *inbox) answer(status int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status = status
}

// all returns everything that it was told.
func (i *inbox) all() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.bodies, "\n")
}

// channel are the lines of fleet.yaml that name it fleet/alerts.
func (i *inbox) channel() string {
	return fmt.Sprintf("  notify:\n    - {name: alerts, url: %q, minSeverity: info}\n  outbound: {allow: [127.0.0.0/8]}\n", "alertmanager+"+i.URL)
}

// What a controller tells reaches the operators' Alertmanager once, also over a stop of
// the hub while the Alertmanager is away, and is seen in notifications and by hub notify.
func TestEventsReachTheirChannel(t *testing.T) {
	told := newInbox(t)
	count := func(text string) int { return strings.Count(told.all(), text) }
	s := newSite(t)
	s.enrollAs("acme", goldenHost, nil)
	key := s.customerKey("acme")
	fleet := s.read("fleet.yaml")
	s.write("fleet.yaml", strings.Replace(fleet, "spec:\n", "spec:\n"+told.channel(), 1))
	s.push("a channel")
	event := func(r *running, text string) {
		t.Helper()
		if status, reply := r.post("/api/v1/event", key, `{"type":"backup_failed","severity":"critical","message":"`+text+`","guest_id":"`+goldenHost+`/101"}`); status != http.StatusAccepted {
			t.Fatalf("event: %d %s", status, reply)
		}
	}
	r := s.startReady()
	event(r, "first trouble")
	r.eventually("the first message", func() bool { return count("first trouble") > 0 })
	r.becomes("SELECT channel, customer_id, status, attempt, error FROM notifications", "fleet/alerts\tacme\tsent\t1\t")
	if status, _ := s.ask("/notify"); status != http.StatusOK {
		t.Errorf("hub notify list: %d", status)
	}
	told.answer(http.StatusBadGateway)
	event(r, "second trouble")
	r.becomes("SELECT DISTINCT status, error FROM notifications WHERE status != 'sent'", "failed\tfailed (502)")
	if _, text := s.ask("/notify"); !strings.Contains(text, "failed (502)") || !strings.Contains(text, "fleet/alerts") {
		t.Errorf("hub notify list shows %s", text)
	}
	if _, text := s.ask("/status"); !strings.Contains(text, `"queued": 1,`) || !strings.Contains(text, `"failing": 1`) {
		t.Errorf("hub status shows %s", text)
	}
	r.stop()
	told.answer(0)
	r = s.startReady()
	r.eventually("the second message", func() bool { return count("second trouble") > 0 })
	r.becomes("SELECT count(), uniqExact(message_id) FROM notifications WHERE status = 'sent'", "2\t2")
	if first := count("first trouble"); first != count("second trouble") {
		t.Errorf("the first message came again after the stop: %d times in all", first)
	}
}

// TestMessagesByHand: what a receiver refused is kept, and goes again by hand, by the
// name of its message, of its channel, or with all; and a channel can be tried out.
func TestMessagesByHand(t *testing.T) {
	told := newInbox(t)
	s := newSite(t)
	s.enrollAs("acme", goldenHost, nil)
	key := s.customerKey("acme")
	s.write("fleet.yaml", strings.Replace(s.read("fleet.yaml"), "spec:\n", "spec:\n  language: de\n"+told.channel(), 1))
	s.push("a channel")
	r := s.startReady()
	expect := func(what string, want int, text string, status int, reply string) {
		t.Helper()
		if status != want || !strings.Contains(reply, text) {
			t.Errorf("%s: %d %s; want %d %s", what, status, reply, want, text)
		}
	}
	for i, name := range []string{"its id", "its channel", "all"} {
		told.answer(http.StatusNotFound)
		trouble := fmt.Sprint("trouble ", i)
		if status, reply := r.post("/api/v1/event", key, `{"type":"backup_failed","severity":"critical","message":"`+trouble+`","guest_id":"`+goldenHost+`/101"}`); status != http.StatusAccepted {
			t.Fatal(status, reply)
		}
		var dead []struct {
			MessageID string `json:"message_id"`
			Error     string
		}
		r.eventually("a dead message", func() bool {
			_, text := s.ask("/notify?dead=true")
			return json.Unmarshal([]byte(text), &dead) == nil && len(dead) == 1
		})
		if dead[0].Error != "refused (404)" {
			t.Errorf("it died of %q", dead[0].Error)
		}
		_, status := s.ask("/status")
		expect("hub status", 200, "messages were given up", 200, status)
		told.answer(0)
		target := map[string]string{"its id": dead[0].MessageID, "its channel": "fleet/alerts", "all": ""}[name]
		code, reply := s.tell("/notify/retry", `{"target":"`+target+`"}`)
		expect("retry by "+name, 200, `"retried": 1`, code, reply)
		r.eventually("the message after all", func() bool { return strings.Contains(told.all(), trouble) })
	}
	r.becomes("SELECT status, count() FROM notifications GROUP BY status ORDER BY status", "dead\t3", "retried\t3", "sent\t3")
	code, reply := s.tell("/notify/retry", `{"target":"nonsense"}`)
	expect("retry of nothing", 400, "neither a dead message nor a channel with messages", code, reply)

	code, reply = s.tell("/notify/test", `{"target":"fleet/alerts"}`)
	expect("a test", 200, "seconds", code, reply)
	if !strings.Contains(told.all(), "Test des Kanals alerts") {
		t.Errorf("the test says %s", told.all())
	}
	told.answer(http.StatusInternalServerError)
	code, reply = s.tell("/notify/test", `{"target":"fleet/alerts"}`)
	expect("a test that fails", 400, "the test was not delivered: failed (500)", code, reply)
	code, reply = s.tell("/notify/test", `{"target":"customer/acme/nobody"}`)
	expect("a test of nothing", 400, "has no channel", code, reply)
	r.becomes("SELECT channel, status, error FROM notifications WHERE message_id LIKE 'test-%' ORDER BY at", "fleet/alerts\tsent\t", "fleet/alerts\tdead\tfailed (500)")
}
