package wire

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

var decision = hub.Decision{
	States: []hub.HostState{
		{
			HostID: "acme-5f2c9a1e", State: hub.Stale, Since: received.Add(999 * time.Millisecond),
			Last:   hub.Position{SpoolID: hub.SpoolID{1, 2, 15: 255}, Seq: math.MaxUint64},
			LastAt: received.Add(time.Millisecond), Silent: true, DecidedAt: received.Add(time.Minute),
		},
		{HostID: "acme-2", State: hub.OK}, // zero times stay zero
	},
	Events: []hub.Event{{
		ID: "0123456789abcdef0123456789abcdef", Type: hub.HostStale, CustomerID: "acme", HostID: "acme-5f2c9a1e",
		At: received.Add(999 * time.Millisecond), DetectedAt: received.Add(time.Minute),
		SilenceSeconds: 1800.001, Reason: "silent for 30m0s", Source: "switch",
	}},
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
		{`"v":1`, `"v":2`},
		{`"v":1`, `"v":1,"v":1`},
		{`"v":1`, `"v":1,"extra":0`},
		{`"state":"ok"`, `"state":"never_seen"`},
		{`"host_id":"acme-2"`, `"host_id":""`},
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
