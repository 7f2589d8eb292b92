package simulate

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

// Two weeks of a controller: everything that it says keeps the contract, and the same
// seed says the same.
func TestControllersKeepTheContract(t *testing.T) {
	c, same := NewController(1, "acme", "acme-1/101"), NewController(1, "acme", "acme-1/101")
	at := time.Date(2026, 6, 8, 9, 15, 0, 0, time.UTC)
	events, cpus := map[hub.EventType]int{}, map[float64]bool{}
	for range 14 * 24 * 60 {
		at = at.Add(time.Minute)
		body, told := c.AppendEvent(nil, at)
		if again, _ := same.AppendEvent(nil, at); string(again) != string(body) {
			t.Fatalf("%s\n%s", body, again)
		}
		if told {
			e, err := wire.DecodeControllerEvent(body)
			if err != nil || e.GuestID != "acme-1/101" || !e.At.Equal(at) || !slices.Contains(hub.DefaultControllerEvents(), e.Type) {
				t.Fatalf("%s: %+v, %v", body, e, err)
			}
			events[e.Type]++
			continue
		}
		body = c.AppendReport(nil, at)
		if again := same.AppendReport(nil, at); string(again) != string(body) {
			t.Fatalf("%s\n%s", body, again)
		}
		r, err := wire.DecodeControllerReport(body)
		if err != nil || len(r.Rejected) > 0 || r.CustomerID != "acme" || r.GuestID != "acme-1/101" || len(r.Apps) == 0 || r.LastBackupAt == nil || !r.LastBackupAt.Before(at) || r.CPUPercent == nil {
			t.Fatalf("%s: %+v, %v", body, r, err)
		}
		cpus[*r.CPUPercent] = true
	}
	if len(events) < 3 || events["app_stopped"] == 0 || len(cpus) < 100 {
		t.Errorf("events %v, %d figures", events, len(cpus))
	}
}

// Controllers report beside their hosts, with their customer's key, and fall silent
// with them; hosts of customers without a key have none.
func TestControllersReport(t *testing.T) {
	var (
		mu    sync.Mutex
		posts = map[string]int{} // by path, key and sender
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		who, status := "", http.StatusOK
		switch r.URL.Path {
		case "/api/v1/host-report":
			who, _ = wire.CheckReport(body)
		case "/api/v1/report":
			_, who, _ = wire.CheckControllerReport(body)
		case "/api/v1/event":
			who, status = "event", http.StatusAccepted
		}
		mu.Lock()
		posts[fmt.Sprintf("%s %.4s %s", r.URL.Path, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), who)]++
		mu.Unlock()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "{}\n")
	}))
	defer server.Close()
	key := func(c string) hub.Secret { return hub.NewSecret(strings.Repeat(c, 64)) }
	var acknowledged sync.Map
	s, err := New(Options{URL: server.URL, Interval: 20 * time.Millisecond, Guests: 3, Controllers: 2, Keys: []Credential{
		{HostID: "acme-1", APIKey: key("1"), File: "fleet/customers/acme/hosts/acme-1.yaml"},
		{HostID: "acme-2", APIKey: key("2"), File: "customers/acme/hosts/acme-2.yaml"},
		{HostID: "globex-1", APIKey: key("3"), File: "customers/globex/hosts/globex-1.yaml"},
		{Customer: "acme", APIKey: key("a")},
	}, Acknowledged: func(hostID string, _ [32]byte) { acknowledged.Store(hostID, true) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pause("acme-2"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { _ = s.Resume("acme-2") })
	s.options.Duration = time.Second
	r := s.Run(t.Context())
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"/api/v1/host-report 1111 acme-1", "/api/v1/host-report 2222 acme-2", "/api/v1/host-report 3333 globex-1",
		"/api/v1/report aaaa acme-1/101", "/api/v1/report aaaa acme-1/102", "/api/v1/report aaaa acme-2/101", "/api/v1/report aaaa acme-2/102"} {
		if posts[want] == 0 {
			t.Errorf("nothing came as %s: %v", want, posts)
		}
		delete(posts, want)
	}
	delete(posts, "/api/v1/event aaaa event")
	if len(posts) > 0 || r.Hosts != 3 || r.Controllers != 4 || r.SetAside != 0 || r.Acknowledged == 0 {
		t.Errorf("also %v; %+v", posts, r)
	}
	if _, told := acknowledged.Load(""); told {
		t.Error("a controller's report was told of as a host's")
	}
}
