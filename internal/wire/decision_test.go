package wire

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

var percent = 70.25

var decision = hub.Decision{
	States: []hub.HostState{
		{
			HostID: "acme-5f2c9a1e", State: hub.Stale, Since: received.Add(999 * time.Millisecond),
			Last:   hub.Position{SpoolID: hub.SpoolID{1, 2, 15: 255}, Seq: math.MaxUint64},
			LastAt: received.Add(time.Millisecond), Silent: true, DecidedAt: received.Add(time.Minute),
		},
		{HostID: "acme-2", State: hub.OK}, // zero times stay zero
		{
			HostID: "acme-3", State: hub.Stale, CustomerID: "acme", Lifecycle: hub.Paused, WatchedFrom: received, Fold: "f1",
			Silences: [hub.FlapMemory]time.Time{4: received, 5: received.Add(time.Minute)},
			Flapping: hub.Position{SpoolID: hub.SpoolID{7}, Seq: 9},
		},
		{HostID: "acme-3/101", State: hub.Down, CustomerID: "acme", Silent: true, MutedBy: "event f1"},
	},
	Deadlines: []hub.DeadlineState{
		{GuestID: "acme-3/101", Deadline: hub.RestoreTestDeadline, CustomerID: "acme", Overdue: true, Base: received, Since: received.Add(time.Hour),
			MutedBy: "maintenance fleet/patch-night", DecidedAt: received.Add(time.Minute)},
		{GuestID: "acme-3/102", Deadline: hub.PBSVerifyDeadline, Closed: received}, // zero times stay zero
	},
	Events: []hub.Event{{
		ID: "0123456789abcdef0123456789abcdef", Type: hub.HostStale, CustomerID: "acme", HostID: "acme-5f2c9a1e",
		At: received.Add(999 * time.Millisecond), DetectedAt: received.Add(time.Minute),
		SilenceSeconds: 1800.001, Reason: "silent for 30m0s", Source: "switch", FoldedInto: "f1", SuppressedBy: "retired",
	}, {
		ID: "f2", Type: hub.ControllerDown, CustomerID: "acme", HostID: "acme-3", GuestID: "acme-3/101", At: received, DetectedAt: received,
		Episode: "e1", CausedBy: "f1", LastSeen: &hub.LastSeen{GuestName: "mail", GuestStatus: "running"},
	}, {
		ID: "f3", Type: hub.HostDown, CustomerID: "acme", HostID: "acme-3", At: received, DetectedAt: received,
		LastSeen: &hub.LastSeen{At: received, PVEVersion: "8.4.1", Guests: 3, GuestsRunning: 2, MemPercent: &percent},
	}, {
		ID: "f1", Type: hub.MassSilence, CustomerID: "acme", At: received, DetectedAt: received, Hosts: []string{"acme-3"},
	}},
}

// What was last seen is for people: where it cannot be encoded, the verdict still is.
func TestLastSeenKeepsNoVerdictBack(t *testing.T) {
	for _, odd := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		body, err := EncodeDecision(hub.Decision{Events: []hub.Event{{ID: "f1", Type: hub.HostDown,
			LastSeen: &hub.LastSeen{PVEVersion: "8.\xff", MemPercent: &odd, DiskPercent: &percent, GuestName: "\xff", GuestStatus: "\xff"}}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeDecision(body)
		if err != nil {
			t.Fatal(err)
		}
		want := &hub.LastSeen{PVEVersion: "8.\uFFFD", DiskPercent: &percent, GuestName: "\uFFFD", GuestStatus: "\uFFFD"}
		if !reflect.DeepEqual(got.Events[0].LastSeen, want) {
			t.Errorf("%v: %+v", odd, got.Events[0].LastSeen)
		}
	}
}

func TestDecisionRoundTrip(t *testing.T) {
	for _, want := range []hub.Decision{decision, {}} {
		body, err := EncodeDecision(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeDecision(body)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestDecisionIsStrict(t *testing.T) {
	body, err := EncodeDecision(decision)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{`"v":3`, `"v":4`},
		{`"v":3`, `"v":0`},
		{`"v":3`, `"v":3,"v":3`},
		{`"v":3`, `"v":3,"extra":0`},
		{`"state":"ok"`, `"state":"gone"`},
		{`"lifecycle":"paused"`, `"lifecycle":"lost"`},
		{`"silences":[`, `"silences":[1,2,3,4,5,`},
		{`"flap_spool_id":"07`, `"flap_spool_id":"x7`},
		{`"host_id":"acme-2"`, `"host_id":""`},
		{`"host_id":"acme-3/101"`, `"host_id":"acme-3/0"`},
		{`"guest_id":"acme-3/102"`, `"guest_id":"acme-3"`},
		{`"deadline":"restore_test"`, `"deadline":"luck"`},
		{`"spool_id":"0102`, `"spool_id":"xx02`},
		{`"type":"host_stale"`, `"type":""`},
		{`"silent":true`, `"silent":1`},
		{`}]}`, `}]`},
	} {
		broken := strings.Replace(string(body), c[0], c[1], 1)
		if broken == string(body) {
			t.Fatalf("%s is not in %s", c[0], body)
		}
		if _, err := DecodeDecision([]byte(broken)); err == nil {
			t.Errorf("%s instead of %s was accepted", c[1], c[0])
		}
	}
	if _, err := DecodeDecision(nil); err == nil {
		t.Error("an empty body was accepted")
	}
	if _, err := EncodeDecision(hub.Decision{Events: []hub.Event{{SilenceSeconds: math.NaN()}}}); err == nil {
		t.Error("a silence that is no number was encoded")
	}
}

// What the first version of the hub wrote is still in the spools of those who upgrade.
func TestDecisionOfVersion1(t *testing.T) {
	got, err := DecodeDecision([]byte(`{"v":1,"states":[{"host_id":"acme-1","state":"stale","since":1800000,"spool_id":"01000000000000000000000000000000",` +
		`"spool_seq":5,"last_at":0,"silent":true,"decided_at":1860000}],"events":[]}`))
	want := hub.Decision{States: []hub.HostState{{HostID: "acme-1", State: hub.Stale, Since: instant(1800000),
		Last: hub.Position{SpoolID: hub.SpoolID{1}, Seq: 5}, LastAt: instant(0), Silent: true, DecidedAt: instant(1860000)}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}
