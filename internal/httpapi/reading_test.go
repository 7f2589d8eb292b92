package httpapi_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// slowDatabase answers a reader when it is let, and notes how many it has at a time.
type slowDatabase struct {
	came chan string              // the customer of a question; "" of a global key
	let  map[string]chan struct{} // by customer

	mu        sync.Mutex
	now, most int
}

func newSlowDatabase() *slowDatabase {
	return &slowDatabase{came: make(chan string, 100), let: map[string]chan struct{}{"acme": make(chan struct{}), "globex": make(chan struct{}), "": make(chan struct{})}}
}

// open has every question answered at once.
func (d *slowDatabase) open() {
	for _, let := range d.let {
		close(let)
	}
}

func (d *slowDatabase) asked(ctx context.Context, customer string) error {
	d.mu.Lock()
	d.now++
	d.most = max(d.most, d.now)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.now--
		d.mu.Unlock()
	}()
	d.came <- customer
	select {
	case <-d.let[customer]:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *slowDatabase) Events(ctx context.Context, q hub.EventQuery) ([]hub.Event, error) {
	return nil, d.asked(ctx, q.Customer)
}

func (d *slowDatabase) CustomerStatus(ctx context.Context, customer, _ string, _ int) (any, error) {
	return struct{}{}, d.asked(ctx, customer)
}

// next waits for the next question that reaches the database.
func (d *slowDatabase) next(t *testing.T) string {
	t.Helper()
	select {
	case customer := <-d.came:
		return customer
	case <-time.After(10 * time.Second):
		t.Fatal("nobody's turn came")
		return ""
	}
}

// nobody holds that no other question reaches the database.
func (d *slowDatabase) nobody(t *testing.T) {
	t.Helper()
	select {
	case customer := <-d.came:
		t.Errorf("the question of %q is in the database too", customer)
	case <-time.After(50 * time.Millisecond):
	}
}

const eventsPath, customerStatusPath = "/api/v1/events", "/api/v1/customer/status"

// An owner has 20 questions at once, on both routes together, and ten a second; who
// asks more is told when to come again, and no other customer notices.
func TestWhoReadsTooOften(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	database := newSlowDatabase()
	database.open()
	f := serve(t, func(s *settings) {
		s.http.Reading = database
		s.ingest.Now = func() time.Time { return time.Unix(0, now.Load()) }
	})
	ask := func(key, path string, want int) {
		t.Helper()
		a := f.send(request{method: http.MethodGet, path: path, key: key})
		if a.status != want {
			t.Errorf("%s of %s: %d %s; want %d", path, key, a.status, a.body, want)
		}
		if want == http.StatusTooManyRequests && (!saysWhen(a) || !strings.Contains(a.body, "too often")) {
			t.Errorf("%s of %s: Retry-After %q, %s", path, key, a.header.Get("Retry-After"), a.body)
		}
	}
	for n := range 20 {
		ask("customer/acme", []string{eventsPath, customerStatusPath}[n%2], http.StatusOK)
	}
	ask("customer/acme", eventsPath, http.StatusTooManyRequests)
	ask("customer/acme", customerStatusPath, http.StatusTooManyRequests)
	if n := len(database.came); n != 20 {
		t.Errorf("%d questions reached the database", n)
	}
	ask("customer/globex", customerStatusPath, http.StatusOK)
	ask("fleet", eventsPath, http.StatusOK)
	if a := f.send(request{path: "/api/v1/report", key: "customer/acme", body: controllerReport("acme", goldenGuest, 1)}); a.status != http.StatusOK {
		t.Errorf("acme's controllers may not report meanwhile: %d %s", a.status, a.body)
	}
	now.Add(int64(100 * time.Millisecond))
	ask("customer/acme", eventsPath, http.StatusOK)
	ask("customer/acme", eventsPath, http.StatusTooManyRequests)
}

// The database answers two questions at a time, of one owner one. Who waits is served
// in turn, though another asked more before; who goes away leaves the line, and what
// was given up is another's.
func TestTwoReadAtATime(t *testing.T) {
	database := newSlowDatabase()
	f := serve(t, func(s *settings) { s.http.Reading = database })
	var all sync.WaitGroup
	ask := func(key string) {
		all.Go(func() {
			if a, err := f.try(request{method: http.MethodGet, path: eventsPath, key: key}); err != nil || a.status != http.StatusOK {
				t.Errorf("%s: %d %s %v", key, a.status, a.body, err)
			}
		})
	}
	ask("customer/acme")
	if got := database.next(t); got != "acme" {
		t.Fatalf("%q", got)
	}
	ask("customer/acme")
	ask("customer/acme")
	database.nobody(t) // of one owner one
	ask("customer/globex")
	if got := database.next(t); got != "globex" {
		t.Fatalf("%q: who asks little waits for who asks much", got)
	}

	// A client that goes away while it waits takes nobody's turn, and one that goes away
	// while it is answered gives its turn back.
	waits, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- f.abandon(waits, eventsPath, "fleet") }()
	database.nobody(t) // two at a time
	leave()
	if err := <-gone; err == nil {
		t.Error("the fleet's key was answered")
	}
	ask("fleet")
	database.nobody(t)

	// Acme's second question waits longest; its third waits longer than the fleet's
	// first, which is next all the same.
	for _, step := range []struct{ answered, next string }{{"acme", "acme"}, {"acme", ""}, {"globex", "acme"}} {
		database.let[step.answered] <- struct{}{}
		if got := database.next(t); got != step.next {
			t.Fatalf("%q is next after %q; want %q", got, step.answered, step.next)
		}
		database.nobody(t)
	}
	database.let["acme"] <- struct{}{}
	database.let[""] <- struct{}{}
	all.Wait()
	if database.most != 2 {
		t.Errorf("%d questions at a time", database.most)
	}

	answered, leave := context.WithCancel(t.Context())
	go func() { gone <- f.abandon(answered, eventsPath, "customer/acme") }()
	database.next(t)
	leave()
	<-gone
	ask("customer/acme")
	database.next(t)
	database.let["acme"] <- struct{}{}
	all.Wait()
}

// A turn that does not come in time is a 503 that says when to come again.
func TestNoTurnInTime(t *testing.T) {
	t.Parallel()
	database := newSlowDatabase()
	f := serve(t, func(s *settings) { s.http.Reading = database })
	var all sync.WaitGroup
	all.Go(func() { _, _ = f.try(request{method: http.MethodGet, path: eventsPath, key: "customer/acme"}) })
	database.next(t)
	a := f.send(request{method: http.MethodGet, path: customerStatusPath, key: "customer/acme"})
	if a.status != http.StatusServiceUnavailable || !saysWhen(a) || !strings.Contains(a.body, "too many") {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	database.open()
	all.Wait()
}

// saysWhen reports whether an answer has a Retry-After of a few seconds.
func saysWhen(a answer) bool {
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	return err == nil && 1 <= seconds && seconds <= 10
}

// abandon asks until ctx ends.
func (f *fixture) abandon(ctx context.Context, path, key string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.Addr()+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+f.keys[key].Reveal())
	_, err = do(r)
	return err
}
