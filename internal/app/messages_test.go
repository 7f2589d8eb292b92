package app_test

import (
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
