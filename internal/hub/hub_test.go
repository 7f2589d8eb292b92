package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func digest(t *testing.T, s Secret) Digest {
	t.Helper()
	d, err := DigestKey(s.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestFleetFindsByKeyAndByID(t *testing.T) {
	host, retired, customer, global := NewKey(), NewKey(), NewKey(), NewKey()
	f, err := NewFleet(FleetSpec{
		Keys:      []Key{{ID: "g1", Digest: digest(t, global)}},
		Customers: []*Customer{{Name: "acme", Keys: []Key{{ID: "c1", Owner: CustomerOwner("acme"), Digest: digest(t, customer)}}}},
		Hosts: []*Host{
			{ID: "acme-2", Customer: "acme", Lifecycle: Retired, Keys: []Key{{ID: "k1", Owner: HostOwner("acme-2"), Digest: digest(t, retired)}}},
			{ID: "acme-1", Customer: "acme", Lifecycle: Active, Keys: []Key{{ID: "k1", Owner: HostOwner("acme-1"), Digest: digest(t, host)}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  Secret
		want string
	}{{host, "host/acme-1"}, {customer, "customer/acme"}, {global, "fleet"}} {
		if k, ok := f.Key(digest(t, c.key)); !ok || k.Owner.String() != c.want {
			t.Errorf("%v, %v; want the key of %s", k.Owner, ok, c.want)
		}
	}
	for name, key := range map[string]Secret{"of a retired host": retired, "unknown": NewKey()} {
		if k, ok := f.Key(digest(t, key)); ok {
			t.Errorf("a key %s was found: %v", name, k)
		}
	}
	if h, ok := f.Host("acme-2"); !ok || h.Lifecycle != Retired {
		t.Error("Host does not find a retired host")
	}
	if _, ok := f.Enrolled("acme-2"); ok {
		t.Error("Enrolled finds a retired host")
	}
	if _, ok := f.Enrolled("nobody"); ok {
		t.Error("Enrolled finds nobody")
	}
	var order []string
	for h := range f.Hosts() {
		order = append(order, h.ID)
	}
	if got := strings.Join(order, " "); got != "acme-1 acme-2" || f.Len() != 1 {
		t.Errorf("hosts %q, Len %d", got, f.Len())
	}
}

func TestNewFleetRefusesWhatStandsTwice(t *testing.T) {
	key := Key{ID: "k1", Digest: Digest{1}}
	acme := []*Customer{{Name: "acme"}}
	for name, spec := range map[string]FleetSpec{
		"host":        {Customers: acme, Hosts: []*Host{{ID: "h", Customer: "acme"}, {ID: "h", Customer: "acme"}}},
		"customer":    {Customers: []*Customer{{Name: "acme"}, {Name: "acme"}}},
		"key":         {Keys: []Key{key}, Customers: []*Customer{{Name: "acme", Keys: []Key{key}}}},
		"no customer": {Hosts: []*Host{{ID: "h", Customer: "acme"}}},
	} {
		if _, err := NewFleet(spec); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestThresholdsFallBackFieldByField(t *testing.T) {
	h := &Host{ID: "h", Customer: "acme", Monitor: Thresholds{StaleAfter: time.Minute}}
	f, err := NewFleet(FleetSpec{Monitor: Thresholds{StaleAfter: 3 * time.Minute, DownAfter: 4 * time.Minute},
		Customers: []*Customer{{Name: "acme", Monitor: Thresholds{DownAfter: 2 * time.Minute}}, {Name: "globex"}},
		Hosts:     []*Host{h, {ID: "g", Customer: "globex"}}})
	if err != nil {
		t.Fatal(err)
	}
	base := Thresholds{StaleAfter: time.Hour, DownAfter: 2 * time.Hour}
	if got, want := f.Thresholds(h, base), (Thresholds{time.Minute, 2 * time.Minute}); got != want {
		t.Errorf("host and customer: %v, want %v", got, want)
	}
	g, _ := f.Host("g")
	if got, want := f.Thresholds(g, base), (Thresholds{3 * time.Minute, 4 * time.Minute}); got != want {
		t.Errorf("fleet: %v, want %v", got, want)
	}
}

func TestSecretIsNeverSeen(t *testing.T) {
	s := NewKey()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", s, "in", struct{ S Secret }{s})
	marshalled, _ := json.Marshal(map[string]any{"s": s})
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%s %q %x %v %+v %#v %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%+v %#v", struct{ S Secret }{s}, &struct{ S Secret }{s}), string(marshalled), log.String()} {
		if strings.Contains(text, s.Reveal()) || strings.Contains(text, fmt.Sprintf("%x", s.Reveal())) {
			t.Errorf("the secret is in %q", text)
		}
	}
}

func TestKeys(t *testing.T) {
	if a, b := NewKey(), NewKey(); a == b || len(a.Reveal()) != 64 {
		t.Error("keys are not random, or not 64 characters")
	}
	good := strings.Repeat("0a", 32)
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), good[:63] + "g", good[:63] + "\n"} {
		if _, err := DigestKey(bad); !errors.Is(err, ErrMalformedKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	end := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	k := Key{NotAfter: end}
	if !k.ValidAt(end) || k.ValidAt(end.Add(1)) || !(Key{}).ValidAt(end) {
		t.Error("NotAfter is the last instant of validity, and zero is for ever")
	}
}

func TestOwners(t *testing.T) {
	for _, text := range []string{"fleet", "host/acme-1", "customer/acme"} {
		if o, err := ParseOwner(text); err != nil || o.String() != text {
			t.Errorf("%s: %v, %v", text, o, err)
		}
	}
	for _, text := range []string{"", "host/", "host/A", "customer/-a", "fleet/x", "guest/1"} {
		if _, err := ParseOwner(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestNames(t *testing.T) {
	for id, want := range map[string]bool{"a": true, "acme-5f2c9a1e": true, "0.a-": true, "": false, "-a": false, ".a": false,
		"A": false, "a_b": false, strings.Repeat("a", 128): true, strings.Repeat("a", 129): false, "hoſt": false} {
		if ValidHostID(id) != want {
			t.Errorf("ValidHostID(%q) is %v", id, !want)
		}
	}
	for name, want := range map[string]bool{"a": true, "a-b": true, "a-": false, "-a": false, "a.b": false, "": false,
		strings.Repeat("a", 63): true, strings.Repeat("a", 64): false} {
		if ValidCustomerName(name) != want {
			t.Errorf("ValidCustomerName(%q) is %v", name, !want)
		}
	}
}

// The id is a contract: the value was computed with sha256sum.
func TestEventID(t *testing.T) {
	id, err := ParseSpoolID("000102030405060708090a0b0c0d0e0f")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := EventID(HostStale, "acme-5f2c9a1e", Position{id, 42}), "d556216f876c683c1c1366ecd4e00b3e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestPercent(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	r := &Report{MemoryUsedBytes: n(3), MemoryTotalBytes: n(8), DiskUsedBytes: n(1), DiskTotalBytes: n(0)}
	if p := r.MemPercent(); p == nil || *p != 37.5 {
		t.Errorf("MemPercent: %v", p)
	}
	if r.DiskPercent() != nil || (&Report{MemoryTotalBytes: n(8)}).MemPercent() != nil || (&Report{MemoryUsedBytes: n(8)}).MemPercent() != nil {
		t.Error("a percentage of nothing")
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("around: %w", &Error{Code: Forbidden, Reason: "other_host", Message: "no", Cause: errors.New("why")})
	if CodeOf(err) != Forbidden || ReasonOf(err) != "other_host" || err.Error() != "around: no: why" {
		t.Errorf("%v, %v, %s", CodeOf(err), ReasonOf(err), err)
	}
	if CodeOf(errors.New("x")) != Internal || ReasonOf(errors.New("x")) != "internal" {
		t.Error("an error without a code is internal")
	}
	p := Problem{File: "a.yaml", Line: 3, Column: 7, Message: "wrong", Hint: "do this"}
	if p.String() != "a.yaml:3:7: wrong (do this)" || (Problem{File: "a", Message: "b"}).String() != "a: b" {
		t.Errorf("%s", p)
	}
}

func TestPositionText(t *testing.T) {
	p := Position{SpoolID: SpoolID{0xab, 15: 1}, Seq: 1<<64 - 1}
	if got, err := ParsePosition(p.Text()); err != nil || got != p {
		t.Errorf("%s: %v, %v", p.Text(), got, err)
	}
	id := p.SpoolID.String()
	for _, text := range []string{"", "7", id, id + "/", id + "/-1", id + "/x", id + "/1/2", id[1:] + "/1", "/1", id + "/18446744073709551616"} {
		if got, err := ParsePosition(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestHostsOfACustomerInPages(t *testing.T) {
	host := func(id, customer string, l Lifecycle) *Host {
		return &Host{ID: id, Customer: customer, Lifecycle: l}
	}
	f, err := NewFleet(FleetSpec{Customers: []*Customer{{Name: "acme"}, {Name: "globex"}}, Hosts: []*Host{
		host("a-3", "acme", Active), host("a-1", "acme", Paused), host("a-2", "acme", Retired), host("a-4", "globex", Active), host("a-5", "acme", Active)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		customer, after string
		limit           int
		want            []string
		more            bool
	}{
		{"acme", "", 2, []string{"a-1", "a-3"}, true},
		{"acme", "a-3", 2, []string{"a-5"}, false},
		{"acme", "", 3, []string{"a-1", "a-3", "a-5"}, false},
		{"acme", "a-5", 3, nil, false},
		{"nobody", "", 3, nil, false},
	} {
		if ids, more := f.HostsOf(c.customer, c.after, c.limit); !slices.Equal(ids, c.want) || more != c.more {
			t.Errorf("%d of %s after %q: %v, %v", c.limit, c.customer, c.after, ids, more)
		}
	}
}
