package outbox_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbound"
	"felhom.eu/hub/internal/outbox"
	"felhom.eu/hub/internal/spool"
)

const (
	crowdCustomers = 50
	crowdEvents    = 10_000
)

// crowd is 50 customers and one more, with three webhooks each, on a real server. One
// in ten of the 50's is dead: it refuses connections, or takes them and never answers.
type crowd struct {
	fleet *hub.Fleet
	live  map[string]bool // of the 50's channels
	guard *outbound.Guard
	roots *x509.CertPool

	mu     sync.Mutex
	told   map[string]int // by channel, events that came by themselves or were counted
	asked  map[string]int // by channel, requests
	single time.Time
}

// ServeHTTP receives a webhook: the path names the channel.
func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		ID   string `json:"id"`
		Data struct {
			Events int `json:"events"`
		} `json:"data"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	channel := strings.TrimPrefix(r.URL.Path, "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told[channel] += max(1, body.Data.Events)
	c.asked[channel]++
	if body.ID == "single" {
		c.single = time.Now()
	}
}

func newCrowd(b *testing.B) *crowd {
	c := &crowd{live: map[string]bool{}, guard: outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
		told: map[string]int{}, asked: map[string]int{}, roots: x509.NewCertPool()}
	server := httptest.NewTLSServer(c)
	b.Cleanup(server.Close)
	c.roots.AddCert(server.Certificate())
	silent, closed := deadAddress(b, true), deadAddress(b, false)
	secret := "#whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	spec := hub.FleetSpec{Name: "felhom"}
	for i := range crowdCustomers + 1 {
		customer := &hub.Customer{Name: fmt.Sprintf("c%d", i)}
		for k := range 3 {
			ch := &hub.Channel{Name: fmt.Sprintf("ch%d", k), Owner: hub.CustomerOwner(customer.Name), MinSeverity: "info"}
			address := server.Listener.Addr().String()
			if n := 3*i + k; i < crowdCustomers && n%10 == 0 {
				address = []string{silent, closed}[n/10%2]
			} else if i < crowdCustomers {
				c.live[ch.ID()] = true
			}
			ch.URL = hub.NewSecret("webhook+https://" + address + "/" + ch.ID() + secret)
			customer.Channels = append(customer.Channels, ch)
		}
		spec.Customers = append(spec.Customers, customer)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		b.Fatal(err)
	}
	c.fleet = fleet
	return c
}

// deadAddress is one that refuses connections, or takes them and never answers.
func deadAddress(b *testing.B, silent bool) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	if !silent {
		_ = l.Close()
	}
	return l.Addr().String() // the kernel completes connections that nobody accepts
}

// done reports whether every live channel was told of every event, or had it counted.
func (c *crowd) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.live {
		if c.told[id] < crowdEvents/crowdCustomers {
			return false
		}
	}
	return !c.single.IsZero()
}

func (c *crowd) requests() (most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.live {
		most = max(most, c.asked[id])
	}
	return most
}

// BenchmarkCrowd is 10,000 events of 50 customers at once, with three channels each, one
// in ten of which is dead, by TLS to a real server in the same process, on a real spool.
// free has no bound on messages; bound has the usual one, and takes its 5 minutes.
// single-ms is how soon another customer's only event is out meanwhile; held-MB is the
// most memory above what was there before, and left-MB what is still held when the live
// channels are done; requests are those to the busiest channel.
func BenchmarkCrowd(b *testing.B) {
	for name, limit := range map[string]int{"free": -1, "bound": 0} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				crowded(b, limit)
			}
		})
	}
}

func crowded(b *testing.B, limit int) {
	c := newCrowd(b)
	sp, err := spool.Open(spool.Options{Dir: b.TempDir(), MaxBytes: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer sp.Close()
	senders := notify.New(notify.Options{Guard: c.guard, Roots: c.roots})
	defer senders.Close()
	box := outbox.New(outbox.Options{Journal: sp, Limit: limit, Fleet: func() *hub.Fleet { return c.fleet }, Logger: slog.New(slog.DiscardHandler),
		Sender: func(ch *hub.Channel) (notify.Sender, error) { return senders.Parse(ch.URL) }})
	box.Start()
	defer box.Stop()
	before := heap(true)
	began := time.Now()
	event := func(id, customer string) hub.Event {
		return hub.Event{ID: id, Type: "backup_failed", Level: "warning", CustomerID: customer, At: began, DetectedAt: began, Source: "controller"}
	}
	for i := range crowdEvents {
		box.Tell(event(fmt.Sprint("e", i), fmt.Sprintf("c%d", i%crowdCustomers)))
	}
	asked := time.Now()
	box.Tell(event("single", fmt.Sprintf("c%d", crowdCustomers)))
	var held uint64
	for !c.done() {
		if time.Since(began) > 10*time.Minute {
			b.Fatal("the live channels are not done")
		}
		held = max(held, heap(false))
		time.Sleep(10 * time.Millisecond)
	}
	b.ReportMetric(float64(c.single.Sub(asked).Milliseconds()), "single-ms")
	b.ReportMetric(float64(int64(held-before))/1e6, "held-MB")
	b.ReportMetric(float64(int64(heap(true)-before))/1e6, "left-MB")
	b.ReportMetric(float64(c.requests()), "requests")
}

// heap returns the bytes of the live objects and of those that nobody collected yet.
func heap(collected bool) uint64 {
	if collected {
		runtime.GC()
	}
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
