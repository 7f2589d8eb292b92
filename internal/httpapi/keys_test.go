package httpapi_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// inForce is a fleet that a test swaps, as a roster does.
type inForce struct{ atomic.Pointer[hub.Fleet] }

func (f *inForce) Current() *hub.Fleet { return f.Load() }

// TestNotAfterIsHonouredToTheSecond rotates a key and posts with both on one
// connection that stays open, around the last instant of the old one.
func TestNotAfterIsHonouredToTheSecond(t *testing.T) {
	began := time.Now().UTC().Truncate(time.Second)
	end := began.Add(time.Hour)
	dir := filepath.Join(t.TempDir(), "fleet")
	identity := filepath.Join(t.TempDir(), "hub.key")
	if _, err := fleetops.Init(dir, fleetops.InitOptions{IdentityFile: identity}); err != nil {
		t.Fatal(err)
	}
	hosts, err := fleetops.Enroll(dir, fleetops.EnrollOptions{Customer: "acme", NewCustomer: true})
	if err != nil {
		t.Fatal(err)
	}
	host, old := hosts[0].HostID, hosts[0].APIKey
	rotated, err := fleetops.Rotate(dir, hub.HostOwner(host), began, end.Add(999*time.Millisecond)) // whole seconds
	if err != nil {
		t.Fatal(err)
	}
	ids, err := seal.ReadIdentities(identity)
	if err != nil {
		t.Fatal(err)
	}
	fleet, problems, err := fleetfile.Load(os.DirFS(dir), seal.NewOpener(ids), fleetfile.Options{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	var fleets inForce
	fleets.Store(fleet)
	var now atomic.Pointer[time.Time]
	f := serve(t, func(s *settings) {
		s.ingest.Fleets = &fleets
		s.ingest.Now = func() time.Time { return *now.Load() }
	})
	f.keys["old"], f.keys["new"] = old, rotated.APIKey // close looks for them in the log

	connections := 0
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	n := 0
	post := func(at time.Time, key hub.Secret) int {
		t.Helper()
		n++
		now.Store(&at)
		trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
			if !c.Reused {
				connections++
			}
		}}
		r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodPost,
			"http://"+f.Addr()+"/api/v1/host-report", bytes.NewReader(report(host, n)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key.Reveal())
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	for _, c := range []struct {
		after time.Duration // end
		old   int
	}{
		{-time.Hour, 200}, {-time.Second, 200}, {-time.Millisecond, 200}, {0, 200},
		{time.Nanosecond, 401}, {time.Millisecond, 401}, {time.Second, 401}, {time.Hour, 401},
	} {
		if got := post(end.Add(c.after), old); got != c.old {
			t.Errorf("the old key %s after its end: %d, want %d", c.after, got, c.old)
		}
		if got := post(end.Add(c.after), rotated.APIKey); got != 200 {
			t.Errorf("the new key %s after the old one's end: %d", c.after, got)
		}
	}
	if connections != 1 {
		t.Errorf("%d connections were used, not one", connections)
	}
}
