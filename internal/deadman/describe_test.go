package deadman

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

func TestAlarmsSayWhatWasLastSeen(t *testing.T) {
	last := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	alarm := func(kind hub.EventType, guest string) hub.Event {
		return hub.Event{Type: kind, CustomerID: "acme", HostID: "acme-1", GuestID: guest, At: last.Add(30 * time.Minute), SilenceSeconds: 1800}
	}
	changed := func(e hub.Event, f func(*hub.Event)) hub.Event { f(&e); return e }
	sights := map[string]clickhouse.Sight{
		"acme-1":     {CustomerID: "acme", LastSeen: hub.LastSeen{At: last, PVEVersion: "8.4.1"}},
		"acme-1/101": {LastSeen: hub.LastSeen{At: last, GuestStatus: "running"}},
		"acme-1/103": {LastSeen: hub.LastSeen{At: last.Add(-time.Hour), GuestStatus: "running"}},
	}
	for name, c := range map[string]struct {
		event hub.Event
		err   error
		want  string // of the version or the status; empty: nothing
	}{
		"a host":           {event: alarm(hub.HostStale, ""), want: "8.4.1"},
		"a guest":          {event: alarm(hub.ControllerDown, "acme-1/101"), want: "running"},
		"a deadline":       {event: alarm(hub.BackupDeadline.Overdue(), "acme-1/101"), want: "running"},
		"an unknown guest": {event: alarm(hub.ControllerDown, "acme-1/102")},
		"a guest that the newest report does not list": {event: alarm(hub.ControllerDown, "acme-1/103")},
		"an end":                      {event: alarm(hub.HostRecovered, "")},
		"muted":                       {event: changed(alarm(hub.HostDown, ""), func(e *hub.Event) { e.SuppressedBy = "maintenance" })},
		"folded":                      {event: changed(alarm(hub.HostDown, ""), func(e *hub.Event) { e.FoldedInto = "f" })},
		"another's report":            {event: changed(alarm(hub.HostDown, ""), func(e *hub.Event) { e.CustomerID = "globex" })},
		"another's report of a guest": {event: changed(alarm(hub.ControllerDown, "acme-1/101"), func(e *hub.Event) { e.CustomerID = "globex" })},
		"ClickHouse is behind":        {event: changed(alarm(hub.HostDown, ""), func(e *hub.Event) { e.SilenceSeconds = 1700 })},
		"ClickHouse fails":            {event: alarm(hub.HostDown, ""), err: errors.New("away")},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Logger: slog.New(slog.DiscardHandler), Describe: func(context.Context, []string, []string) (map[string]clickhouse.Sight, error) {
				return sights, c.err
			}})
			out := Outcome{Hosts: []Decided{{Events: []hub.Event{c.event}}}}
			s.describe(t.Context(), out.alarms())
			got := ""
			if seen := out.Hosts[0].Events[0].LastSeen; seen != nil {
				got = seen.PVEVersion + seen.GuestStatus
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A ClickHouse that does not answer delays an alarm by a few seconds, and many alarms
// ask for some alone.
func TestDescribingIsBounded(t *testing.T) {
	var asked int
	var within time.Duration
	s := New(Options{Logger: slog.New(slog.DiscardHandler), Describe: func(ctx context.Context, hosts, _ []string) (map[string]clickhouse.Sight, error) {
		asked = len(hosts)
		if end, ok := ctx.Deadline(); ok {
			within = time.Until(end)
		}
		return nil, nil
	}})
	var events []hub.Event
	for i := range 5 * described {
		events = append(events, hub.Event{Type: hub.HostDown, HostID: hub.GuestID("acme", uint32(i))})
	}
	s.describe(t.Context(), appendAlarms(nil, events))
	if asked != described || within <= 0 || within > describing {
		t.Errorf("%d hosts were asked for within %s", asked, within)
	}
}
