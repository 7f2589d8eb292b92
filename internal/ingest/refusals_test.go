package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// tell writes the refused hosts as one line each.
func tell(hosts []RefusedHost) string {
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "%s %d:", h.HostID, h.Count)
		for _, r := range h.Reasons {
			fmt.Fprintf(&b, " %s %d", r.Reason, r.Count)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestRefusedHosts(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.HostRate = 0.01 }) // bursts of 1
	send := func(key string, text []byte) {
		t.Helper()
		k, err := f.Identify(f.bearer(key), client)
		if err == nil {
			var customer string
			if customer, err = f.Admit(k); err == nil {
				_, _, err = f.Accept(t.Context(), k, customer, text)
			}
			if err != nil {
				f.Refused(k, err)
			}
		}
	}
	send("host/acme-1", body("acme-2", 1)) // another's report
	send("host/acme-1", body("acme-1", 1)) // over the rate: passes by itself
	send("expired", body("acme-1", 1))
	send("expired", body("acme-1", 1))
	send("customer/acme", body("acme-1", 1))
	send("host/acme-2", []byte("nonsense"))
	send("fleet", []byte("nonsense")) // no host is known
	send("fleet", body("nobody", 1))
	f.Refused(f.key(t, hub.HostOwner("acme-2"), "k1"), fmt.Errorf("wrapped: %w", &hub.Error{Code: hub.TooLarge, Reason: "too_large"}))
	f.Refused(f.key(t, hub.HostOwner("acme-2"), "k1"), &hub.Error{Code: hub.Unavailable, Reason: "spool_full"})
	f.Refused(f.key(t, hub.HostOwner("acme-2"), "k1"), fmt.Errorf("a mistake of the hub"))
	const want = "acme-2 2: too_large 1 not_json 1\nnobody 1: not_enrolled 1\ncustomer/acme 1: customer_key 1\nacme-1 3: expired_key 2 other_host 1\n"
	if got := tell(f.RefusedHosts()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if first := f.RefusedHosts()[3].Reasons[0]; first.Code != hub.Unauthorized || first.Message != badKey || !first.Last.Equal(start) {
		t.Errorf("%+v", first)
	}
}

// An expired key is told of also where its network fails so often that it is
// answered 429.
func TestExpiredKeysBeyondTheLimitOnFailures(t *testing.T) {
	f := newFixture(t)
	for range failuresBurst + 20 {
		f.Identify(f.bearer("expired"), client)
	}
	if got := f.RefusedHosts(); len(got) != 1 || got[0].Count != failuresBurst+20 {
		t.Errorf("%+v", got)
	}
}

func TestRefusalsLastADay(t *testing.T) {
	r := newRefusals(10)
	early, late := &hub.Error{Reason: "early"}, &hub.Error{Reason: "late"}
	r.note("b", late, start)
	r.note("a", early, start)
	r.note("a", early, start.Add(10*time.Hour))
	r.note("a", late, start.Add(20*time.Hour))
	for _, c := range []struct {
		after time.Duration
		want  string
	}{
		{20 * time.Hour, "a 3: late 1 early 2\nb 1: late 1\n"},
		{23 * time.Hour, "a 3: late 1 early 2\nb 1: late 1\n"},
		{24 * time.Hour, "a 2: late 1 early 1\n"},
		{34 * time.Hour, "a 1: late 1\n"},
		{44 * time.Hour, ""},
	} {
		if got := tell(r.list(start.Add(c.after))); got != c.want {
			t.Errorf("after %s: %q, want %q", c.after, got, c.want)
		}
	}
	if len(r.hosts) != 0 || r.order.Len() != 0 {
		t.Errorf("%d hosts are kept", len(r.hosts))
	}
	// The clock may go back, and long silences end.
	r.note("a", late, start)
	r.note("a", late, start.Add(-5*time.Hour))
	r.note("a", late, start.Add(2000*time.Hour))
	if got := tell(r.list(start.Add(2000 * time.Hour))); got != "a 1: late 1\n" {
		t.Errorf("%q", got)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	r := newRefusals(3)
	for i := range 6 {
		r.note(fmt.Sprintf("host-%d", i), &hub.Error{Reason: "x"}, start)
		r.note("host-0", &hub.Error{Reason: "x"}, start) // stays, as it is refused again and again
	}
	if got := tell(r.list(start)); got != "host-0 7: x 7\nhost-5 1: x 1\nhost-4 1: x 1\n" {
		t.Errorf("%s", got)
	}
	for i := range 3 * refusedReasons {
		r.note("host-0", &hub.Error{Reason: fmt.Sprintf("reason-%d", i)}, start)
	}
	got := r.list(start)[0]
	if len(got.Reasons) != refusedReasons || got.Reasons[0].Reason != fmt.Sprintf("reason-%d", 3*refusedReasons-1) {
		t.Errorf("%d reasons, first %s", len(got.Reasons), got.Reasons[0].Reason)
	}
}
