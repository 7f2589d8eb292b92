package clickhouse_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/hub"
)

func TestLastReports(t *testing.T) {
	db, _ := open(t)
	second := report(3, epoch.Add(time.Hour), "acme-1")
	second.KeyID = "fleet/k2"
	later := report(4, epoch.Add(time.Hour), "acme-1") // within the same millisecond
	later.KeyID = "k3"
	insert(t, db, "a", report(1, epoch, "acme-1"), report(2, epoch, "acme-2"), second, later)
	var decided clickhouse.Batch
	decided.AddDecision(hub.Receipt{Position: hub.Position{SpoolID: spoolID, Seq: 5}}, hub.Decision{States: []hub.HostState{
		{HostID: "acme-2", State: hub.OK, DecidedAt: epoch}, {HostID: "acme-2", State: hub.Down, DecidedAt: epoch.Add(time.Hour)}}})
	insertBatch(t, db, "b", &decided)

	hosts := []string{"acme-1", "acme-2", "never"}
	for i := range 2500 { // more than one query takes
		hosts = append(hosts, fmt.Sprintf("other-%d", i))
	}
	slices.Reverse(hosts)
	got, err := db.LastReports(t.Context(), hosts, []string{"acme-1", "never"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]clickhouse.LastReport{
		"acme-1": {HostID: "acme-1", At: epoch.Add(time.Hour), KeyID: "k3", Body: []byte(`{"n":4}`)},
		"acme-2": {HostID: "acme-2", At: epoch, KeyID: "k1", State: "down"},
	}
	if len(got) != len(want) {
		t.Errorf("got %d hosts: %v", len(got), got)
	}
	for id, w := range want {
		g := got[id]
		if !g.At.Equal(w.At) || g.KeyID != w.KeyID || g.State != w.State || string(g.Body) != string(w.Body) {
			t.Errorf("%s: got %+v, want %+v", id, g, w)
		}
	}
	if none, err := db.LastReports(t.Context(), nil, nil); err != nil || len(none) > 0 {
		t.Errorf("of no host: %v, %v", none, err)
	}
}

// TestAnalystMayAskForLastReports asks in the role with the fewest rights.
func TestAnalystMayAskForLastReports(t *testing.T) {
	e := enginetest.New(t)
	as := func(role engine.Role) *clickhouse.DB {
		db, err := clickhouse.Open(clickhouse.Options{DSN: e.Describe().NativeURL(role).Reveal()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	owner := as(engine.RoleHub)
	if _, err := owner.Migrate(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	insert(t, owner, "a", report(1, epoch, "acme-1"))
	got, err := as(engine.RoleAnalyst).LastReports(t.Context(), []string{"acme-1"}, []string{"acme-1"})
	if err != nil || got["acme-1"].KeyID != "k1" || len(got["acme-1"].Body) == 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}
