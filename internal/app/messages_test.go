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

// What a controller tells reaches the operators' Alertmanager once, also over a stop of
// the hub while the Alertmanager is away, and is seen in notifications and by hub notify.
func TestEventsReachTheirChannel(t *testing.T) {
	var mu sync.Mutex
	var got []string
	away := false
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		body, _ := io.ReadAll(r.Body)
		got = append(got, string(body))
	}))
	defer receiver.Close()
	count := func(text string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, body := range got {
			n += strings.Count(body, text)
		}
		return n
	}
	set := func(is bool) { mu.Lock(); defer mu.Unlock(); away = is }

	s := newSite(t)
	s.enrollAs("acme", goldenHost, nil)
	key := s.customerKey("acme")
	fleet := s.read("fleet.yaml")
	s.write("fleet.yaml", strings.Replace(fleet, "spec:\n", fmt.Sprintf("spec:\n  notify:\n    - {name: alerts, url: %q, minSeverity: info}\n  outbound: {allow: [127.0.0.0/8]}\n", "alertmanager+"+receiver.URL), 1))
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
	set(true)
	event(r, "second trouble")
	r.becomes("SELECT DISTINCT status, error FROM notifications WHERE status != 'sent'", "failed\tfailed (502)")
	if _, text := s.ask("/notify"); !strings.Contains(text, "failed (502)") || !strings.Contains(text, "fleet/alerts") {
		t.Errorf("hub notify list shows %s", text)
	}
	if _, text := s.ask("/status"); !strings.Contains(text, `"queued": 1,`) || !strings.Contains(text, `"failing": 1`) {
		t.Errorf("hub status shows %s", text)
	}
	r.stop()
	set(false)
	r = s.startReady()
	r.eventually("the second message", func() bool { return count("second trouble") > 0 })
	r.becomes("SELECT count(), uniqExact(message_id) FROM notifications WHERE status = 'sent'", "2\t2")
	if first := count("first trouble"); first != count("second trouble") {
		t.Errorf("the first message came again after the stop: %d times in all", first)
	}
}
