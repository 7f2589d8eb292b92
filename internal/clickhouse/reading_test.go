package clickhouse_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

func addEvents(t *testing.T, db *clickhouse.DB, token string, seq uint64, events ...hub.Event) {
	t.Helper()
	var b clickhouse.Batch
	b.AddDecision(hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: seq}, ReceivedAt: epoch}, hub.Decision{Events: events})
	insertBatch(t, db, token, &b)
}

func found(n int, customer string, seconds int) hub.Event {
	host := customer + "-1"
	if customer == "" {
		host = ""
	}
	return hub.Event{ID: fmt.Sprintf("%032x", n), Type: hub.HostDown, CustomerID: customer, HostID: host, At: epoch,
		DetectedAt: epoch.Add(time.Duration(seconds) * time.Second), Source: "switch", Reason: "of " + customer, Hosts: []string{}}
}

func ids(events []hub.Event) string {
	var s []string
	for _, e := range events {
		s = append(s, strings.TrimLeft(e.ID, "0"))
	}
	return strings.Join(s, " ")
}

// A poll with the place of the event before misses nothing and tells nothing twice,
// whatever the size of its pages, though events come in between, several were found at
// one instant, and rows were made again by a restore, also with a later place.
func TestPlacesOfEvents(t *testing.T) {
	db, _ := open(t)
	all := []hub.Event{found(9, "acme", 1), found(2, "acme", 2), found(3, "globex", 2), found(4, "acme", 2), found(5, "", 3)}
	addEvents(t, db, "first", 1, all...)
	addEvents(t, db, "again", 1, all[:2]...)
	read := func(q hub.EventQuery) []hub.Event {
		t.Helper()
		events, err := db.Events(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return events
	}
	for limit := 1; limit <= 6; limit++ {
		var told []hub.Event
		q := hub.EventQuery{Everybody: true, Limit: limit}
		for page := read(q); len(page) > 0; page = read(q) {
			told = append(told, page...)
			q.After = page[len(page)-1].Place()
		}
		if got := ids(told); got != "9 2 3 4 5" {
			t.Errorf("pages of %d: %s", limit, got)
		}
	}
	last := all[4]
	late := all[0]
	late.DetectedAt = late.DetectedAt.Add(time.Hour)
	addEvents(t, db, "later", 2, late, found(1, "acme", 60))
	if got := ids(read(hub.EventQuery{Everybody: true, Limit: 9, After: last.Place()})); got != "1" {
		t.Errorf("after a restore: %s", got)
	}
	if got := read(hub.EventQuery{Customer: "globex", Limit: 9}); len(got) != 1 || !slices.Equal(got[0].Hosts, []string{}) || got[0].Reason != "of globex" || got[0].Severity() != "critical" {
		t.Errorf("globex: %+v", got)
	}
	for _, c := range []struct {
		want string
		q    hub.EventQuery
	}{
		{"9 2 4 1", hub.EventQuery{Customer: "acme"}},
		{"3 4 5", hub.EventQuery{Everybody: true, Since: epoch.Add(2 * time.Second), Until: epoch.Add(4 * time.Second), After: all[1].Place()}},
		{"4 1", hub.EventQuery{Customer: "acme", After: all[2].Place()}}, // another's place is only a place
		{"", hub.EventQuery{Customer: `' OR 1 OR '\`}},
		{"9 2 3 4 5 1", hub.EventQuery{Everybody: true, Type: hub.HostDown}},
		{"", hub.EventQuery{Everybody: true, Type: hub.HostStale}},
		{"3", hub.EventQuery{Everybody: true, Host: "globex-1"}},
		{"", hub.EventQuery{Customer: "acme", Host: "globex-1"}},
		{"", hub.EventQuery{Everybody: true, Guest: "globex-1/1"}},
	} {
		c.q.Limit = 9
		if got := ids(read(c.q)); got != c.want {
			t.Errorf("%+v: %s; want %s", c.q, got, c.want)
		}
	}
	if _, err := db.Events(context.Background(), hub.EventQuery{Limit: 1}); err == nil {
		t.Error("nobody may read")
	}
}

// The pages of a customer's status together have each host once, with what belongs to
// it, and nothing of another customer.
func TestStatusOfACustomer(t *testing.T) {
	db, _ := open(t)
	host := func(id, customer string) *hub.Host {
		return &hub.Host{ID: id, Customer: customer, DisplayName: "Name of " + id, Lifecycle: hub.Active}
	}
	f := fleet(t, host("acme-1", "acme"), host("acme-2", "acme"), host("globex-1", "globex"), host("globex-2", "globex"))
	if err := clickhouse.NewRegister(db).Sync(t.Context(), f, epoch, base); err != nil {
		t.Fatal(err)
	}
	var b clickhouse.Batch
	for i, id := range []string{"acme-1", "acme-2", "globex-1"} {
		b.AddReport(report(uint64(10+i), epoch, id, hub.Guest{VMID: 101, Name: "guest of " + id, Status: "running"}))
		b.AddControllerReport(controllerReport(uint64(20+i), epoch, id+"/101"))
		customer, _, _ := strings.Cut(id, "-")
		e := found(i+1, customer, 0)
		e.HostID = id
		b.AddDecision(hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: uint64(30 + i)}, ReceivedAt: epoch}, hub.Decision{
			Events:    []hub.Event{e},
			Deadlines: []hub.DeadlineState{{GuestID: id + "/101", Deadline: hub.BackupDeadline, CustomerID: customer, Overdue: true, Base: epoch, Since: epoch, DecidedAt: epoch}},
		})
	}
	insertBatch(t, db, "all", &b)
	summary := func(s clickhouse.CustomerStatus) string {
		var of []string
		for _, h := range s.Hosts {
			of = append(of, h.DisplayName+" "+h.State)
		}
		for _, g := range s.Guests {
			of = append(of, g.Name)
		}
		for _, c := range s.Controllers {
			of = append(of, c.GuestID)
		}
		for _, e := range s.OpenEvents {
			of = append(of, e.HostID+" "+e.Type)
		}
		for _, d := range s.Overdue {
			of = append(of, d.GuestID+" "+d.Deadline)
		}
		return strings.Join(of, ", ")
	}
	of := func(id string) string {
		return fmt.Sprintf("Name of %[1]s ok, guest of %[1]s, %[1]s/101, %[1]s host_down, %[1]s/101 backup", id)
	}
	for _, c := range []struct{ customer, hosts, want string }{
		{"acme", "acme-1", of("acme-1")},
		{"acme", "acme-2", of("acme-2")},
		{"acme", "", ""},
		{"acme", "globex-1 acme-2 globex-2", of("acme-2")}, // another's are not told, whoever names them
		{"globex", "globex-1 globex-2", "Name of globex-1 ok, Name of globex-2 never_seen, guest of globex-1, globex-1/101, globex-1 host_down, globex-1/101 backup"},
		{"nobody", "acme-1", ""},
	} {
		s, err := db.CustomerStatus(t.Context(), c.customer, strings.Fields(c.hosts))
		if err != nil {
			t.Fatal(err)
		}
		if got := summary(s); got != c.want {
			t.Errorf("%s of %s: %s\nwant %s", c.hosts, c.customer, got, c.want)
		}
	}
}
