package clickhouse_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

func TestLastSeen(t *testing.T) {
	db, _ := open(t)
	guest := func(vmid uint32, status string) hub.Guest { return hub.Guest{VMID: vmid, Name: "mail", Status: status} }
	insert(t, db, "a",
		report(1, epoch, "acme-1", guest(101, "running")),
		report(2, epoch.Add(time.Hour), "acme-1", guest(101, "stopped"), guest(102, "running")),
		report(3, epoch.Add(time.Hour), "acme-1", guest(101, "paused"), guest(102, "running")), // within the same millisecond
		report(4, epoch, "acme-2"), report(5, epoch, "acme-3", guest(101, "running")),
		report(6, epoch, "acme-4", hub.Guest{VMID: 101, Name: strings.Repeat("ä", 1000), Status: strings.Repeat("s", 1000)}))
	got, err := db.LastSeen(t.Context(), []string{"acme-1", "acme-2", "acme-4", "never"}, []string{"acme-1/101", "acme-2/101", "acme-4/101"})
	if err != nil {
		t.Fatal(err)
	}
	host := func(at time.Time, guests, running uint32) clickhouse.Sight {
		return clickhouse.Sight{CustomerID: "acme", LastSeen: hub.LastSeen{At: at, Guests: guests, GuestsRunning: running, MemPercent: ptr(25.0)}}
	}
	want := map[string]clickhouse.Sight{
		"acme-1": host(epoch.Add(time.Hour), 2, 1), "acme-2": host(epoch, 0, 0), "acme-4": host(epoch, 1, 0),
		"acme-1/101": {LastSeen: hub.LastSeen{At: epoch.Add(time.Hour), GuestName: "mail", GuestStatus: "paused"}},
		"acme-4/101": {LastSeen: hub.LastSeen{At: epoch, GuestName: strings.Repeat("ä", 100), GuestStatus: strings.Repeat("s", 100)}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if none, err := db.LastSeen(t.Context(), nil, nil); err != nil || len(none) > 0 {
		t.Errorf("of nobody: %v, %v", none, err)
	}
}
