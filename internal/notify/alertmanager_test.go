package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// strictAlertmanager is an Alertmanager as far as the hub needs one: it takes
// POST /api/v2/alerts, and only what its OpenAPI names (postableAlerts) in the
// types and formats that it names; what Alertmanager checks beyond that, it
// checks; and it merges alerts of the same labels as Alertmanager's provider does.
type strictAlertmanager struct {
	*httptest.Server
	now func() time.Time

	mu     sync.Mutex
	alerts map[string]*postedAlert // by labels
	posts  int
}

type postedAlert struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
}

func newAlertmanager(t *testing.T, now func() time.Time) *strictAlertmanager {
	a := &strictAlertmanager{now: now, alerts: map[string]*postedAlert{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.take(r); err != nil {
			t.Errorf("the Alertmanager refuses: %v", err)
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func (a *strictAlertmanager) take(r *http.Request) error {
	if r.Method != http.MethodPost || r.URL.Path != "/prefix/api/v2/alerts" || r.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("%s %s of %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	var posted []map[string]json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&posted); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.posts++
	for _, fields := range posted {
		if err := a.takeOne(fields); err != nil {
			return err
		}
	}
	return nil
}

func (a *strictAlertmanager) takeOne(fields map[string]json.RawMessage) error {
	var p postedAlert
	for name, raw := range fields {
		var err error
		switch name {
		case "labels":
			err = json.Unmarshal(raw, &p.Labels)
		case "annotations":
			err = json.Unmarshal(raw, &p.Annotations)
		case "startsAt":
			p.StartsAt, err = dateTime(raw)
		case "endsAt":
			p.EndsAt, err = dateTime(raw)
		case "generatorURL":
			var text string
			if err = json.Unmarshal(raw, &text); err == nil {
				var u *url.URL
				if u, err = url.Parse(text); err == nil && !u.IsAbs() {
					err = fmt.Errorf("not an absolute URI")
				}
			}
		default:
			err = fmt.Errorf("not a field of postableAlert")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(p.Labels) == 0 || p.Labels["alertname"] == "" {
		return fmt.Errorf("no labels, or no alertname: %v", p.Labels)
	}
	for name, value := range p.Labels {
		if !labelName.MatchString(name) || value == "" {
			return fmt.Errorf("label %s=%q", name, value)
		}
	}
	for name := range p.Annotations {
		if !labelName.MatchString(name) {
			return fmt.Errorf("annotation %s", name)
		}
	}
	return a.merge(&p)
}

func dateTime(raw json.RawMessage) (time.Time, error) {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339Nano, text)
}

// merge does as api/v2 and types.Alert.Merge: an end that is missing is a
// timeout, a start that is missing is now or the end, and an end that has passed
// ends what was raised before.
func (a *strictAlertmanager) merge(p *postedAlert) error {
	now := a.now()
	if p.EndsAt.IsZero() {
		return fmt.Errorf("without endsAt it would end by itself after five minutes")
	}
	if p.StartsAt.IsZero() {
		p.StartsAt = p.EndsAt
	}
	if p.EndsAt.Before(p.StartsAt) {
		return fmt.Errorf("it ends before it starts")
	}
	key := labelKey(p.Labels)
	if old := a.alerts[key]; old != nil && old.EndsAt.After(p.StartsAt) {
		if old.StartsAt.Before(p.StartsAt) {
			p.StartsAt = old.StartsAt
		}
		if p.EndsAt.After(now) && old.EndsAt.After(p.EndsAt) {
			p.EndsAt = old.EndsAt
		}
	}
	a.alerts[key] = p
	return nil
}

func labelKey(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return strings.Join(parts, ",")
}

// firing lists the labels of what is not over.
func (a *strictAlertmanager) firing() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []string
	for key, p := range a.alerts {
		if p.EndsAt.After(a.now()) {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// TestDigestRaisesAndEndsEveryAlert: an alarm that was told by itself is ended by a
// digest that holds its end, and what is only in the digest is raised.
func TestDigestRaisesAndEndsEveryAlert(t *testing.T) {
	at := &clock{t: testTime}
	server := newAlertmanager(t, at.now)
	s := New(Options{Guard: loopback, Now: at.now})
	defer s.Close()
	sender := parse(t, s, "alertmanager+http://"+server.Listener.Addr().String()+"/prefix/")
	of := func(kind hub.EventType, host string) Message {
		m := example(kind)
		m.Event.HostID, m.Event.At, m.Event.DetectedAt = host, at.now().Add(-time.Second), at.now()
		return m
	}
	send := func(m Message) {
		if err := sender.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	send(of(hub.HostDown, "first"))
	at.add(time.Hour)
	digest := example(Digest)
	digest.Parts = func() []Message {
		parts := []Message{of(hub.HostRecovered, "first"), of(hub.HostStale, "last")}
		for i := range 2 * maxAlerts {
			parts = append(parts, of(hub.HostDown, fmt.Sprint("short-", i)), of(hub.HostRecovered, fmt.Sprint("short-", i)))
		}
		return parts
	}
	send(digest)
	send(digest) // delivered twice
	if got := server.firing(); !slices.Equal(got, []string{"alertname=host_silent,customer=acme,host=last,severity=warning"}) {
		t.Errorf("firing %q", got)
	}
	if server.posts < 5 {
		t.Errorf("%d requests", server.posts)
	}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestRecoveryEndsItsAlarm(t *testing.T) {
	for _, c := range []struct {
		alarms []hub.EventType
		end    hub.EventType
		firing []string
	}{
		{[]hub.EventType{hub.HostStale}, hub.HostRecovered, []string{"alertname=host_silent,customer=acme,host=acme-5f2c9a1e,severity=warning"}},
		{[]hub.EventType{hub.HostDown}, hub.HostRecovered, []string{"alertname=host_silent,customer=acme,host=acme-5f2c9a1e,severity=critical"}},
		{[]hub.EventType{hub.HostStale, hub.HostDown}, hub.HostRecovered, []string{
			"alertname=host_silent,customer=acme,host=acme-5f2c9a1e,severity=critical", "alertname=host_silent,customer=acme,host=acme-5f2c9a1e,severity=warning"}},
		{[]hub.EventType{hub.ControllerStale}, hub.ControllerRecovered, []string{"alertname=controller_silent,customer=acme,guest=acme-5f2c9a1e/101,host=acme-5f2c9a1e,severity=warning"}},
		{[]hub.EventType{hub.BackupDeadline.Overdue()}, hub.BackupDeadline.Met(), []string{"alertname=backup_overdue,customer=acme,guest=acme-5f2c9a1e/101,host=acme-5f2c9a1e,severity=warning"}},
		{[]hub.EventType{hub.PBSVerifyDeadline.Overdue()}, hub.PBSVerifyDeadline.Met(), []string{"alertname=pbs_verify_overdue,customer=acme,host=acme-5f2c9a1e,severity=warning"}},
		{[]hub.EventType{hub.RestoreTestDeadline.Overdue()}, hub.RestoreTestDeadline.Met(), []string{"alertname=restore_test_overdue,customer=acme,host=acme-5f2c9a1e,severity=warning"}},
	} {
		at := &clock{t: testTime}
		server := newAlertmanager(t, at.now)
		s := New(Options{Guard: loopback, Now: at.now})
		defer s.Close()
		sender := parse(t, s, "alertmanager+http://"+server.Listener.Addr().String()+"/prefix/")
		send := func(kind hub.EventType) {
			m := example(kind)
			m.Event.At, m.Event.DetectedAt = at.now().Add(-time.Minute), at.now()
			if err := sender.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		for _, alarm := range c.alarms {
			send(alarm)
			send(alarm) // delivered twice
			at.add(30 * time.Minute)
		}
		at.add(40 * 24 * time.Hour) // nobody repeats it, and it does not end by itself
		if got := server.firing(); !slices.Equal(got, c.firing) {
			t.Errorf("%v: firing %q, want %q", c.alarms, got, c.firing)
		}
		send(c.end)
		if got := server.firing(); got != nil {
			t.Errorf("%s leaves %q", c.end, got)
		}
		for key, p := range server.alerts {
			if end := at.now().Add(-time.Minute); !p.EndsAt.Equal(end) {
				t.Errorf("it ended at %v, want %v", p.EndsAt, end)
			}
			if slices.Contains(c.firing, key) && !p.StartsAt.Equal(testTime.Add(-time.Minute)) && len(c.alarms) == 1 {
				t.Errorf("the end moved the start to %v", p.StartsAt)
			}
		}
	}
}

// TestNoticesEndByThemselves: what nothing ends is over after an hour, and the next
// of its kind is another alert.
func TestNoticesEndByThemselves(t *testing.T) {
	at := &clock{t: testTime}
	server := newAlertmanager(t, at.now)
	s := New(Options{Guard: loopback, Now: at.now})
	defer s.Close()
	sender := parse(t, s, "alertmanager+http://"+server.Listener.Addr().String()+"/prefix")
	var want int
	for _, kind := range append(hub.SwitchEvents(), hub.FleetRejected, hub.HostFileRejected, "backup_failed", Digest) {
		if _, severities := familyOf(kind); severities != nil {
			continue
		}
		for _, id := range []string{"a", "b"} {
			m := example(kind)
			m.ID = id
			m.Event.At = at.now().Add(-3 * time.Hour) // found, or delivered, late
			if err := sender.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			want++
		}
	}
	if got := server.firing(); len(got) != want {
		t.Errorf("%d are firing, want %d: %q", len(got), want, got)
	}
	at.add(notice)
	if got := server.firing(); got != nil {
		t.Errorf("after an hour %q", got)
	}
}

func TestAlertFields(t *testing.T) {
	with := example(hub.HostDown)
	with.Labels = map[string]string{"team": "ops", "on-call": "yes", "host": "not ours", "empty": ""}
	body, err := encode(alerts(with, testTime))
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&got); err != nil || len(got) != 1 {
		t.Fatal(err, got)
	}
	m := example(hub.HostDown)
	labels := got[0]["labels"].(map[string]any)
	if _, empty := labels["empty"]; labels["team"] != "ops" || labels["on_call"] != "yes" || labels["host"] != m.Event.HostID || empty {
		t.Errorf("labels %v", labels)
	}
	annotations := got[0]["annotations"].(map[string]any)
	if annotations["summary"] != m.Text.Subject || annotations["description"] != m.Text.Render(message.Plain) || annotations["runbook_url"] != "https://wiki.example/silence" {
		t.Errorf("annotations %v", annotations)
	}
	if got[0]["generatorURL"] != "https://grafana.example/d/host" || got[0]["startsAt"] != "2026-11-28T14:02:00Z" {
		t.Errorf("alert %v", got[0])
	}
}
