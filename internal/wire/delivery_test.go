package wire

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

var dispatch = hub.Dispatch{
	Routes: []hub.Route{{EventID: "e1", Channels: []string{"customer/acme/chat", "fleet/ops"}}, {EventID: "e2"}},
	Deliveries: []hub.Delivery{
		{MessageID: "e1", EventIDs: []string{"e1"}, Channel: "fleet/ops", CustomerID: "acme", Attempt: 3, Status: hub.DeliveryFailed,
			At: received, Latency: 1500 * time.Millisecond, Class: "busy", HTTPStatus: 429},
		{MessageID: "d1", EventIDs: []string{"e3", "e4"}, Channel: "fleet/ops", Status: hub.DeliveryDigested, At: received},
		{MessageID: "d1", Channel: "fleet/ops", Attempt: 1, Status: hub.DeliverySent, At: received, Latency: time.Millisecond},
	},
}

// goldenDispatch is on disks: it stays readable.
const goldenDispatch = `{"v":1,"routes":[{"event_id":"e1","channels":["customer/acme/chat","fleet/ops"]},{"event_id":"e2"}],"at":1780910101000,"deliveries":[` +
	`{"message_id":"e1","channel":"fleet/ops","customer_id":"acme","attempt":3,"status":"failed","latency_ms":1500,"class":"busy","http_status":429},` +
	`{"message_id":"d1","event_ids":["e3","e4"],"channel":"fleet/ops","status":"digested"},` +
	`{"message_id":"d1","digest":true,"channel":"fleet/ops","attempt":1,"status":"sent","latency_ms":1}]}`

func TestDispatchRoundTrip(t *testing.T) {
	for _, c := range []struct {
		dispatch hub.Dispatch
		body     string
	}{
		{dispatch, goldenDispatch},
		{hub.Dispatch{}, `{"v":1}`},
	} {
		body, err := EncodeDispatch(c.dispatch)
		if err != nil {
			t.Fatal(err)
		}
		if string(body) != c.body {
			t.Errorf("encoded\n%s, want\n%s", body, c.body)
		}
		got, err := DecodeDispatch([]byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c.dispatch) {
			t.Errorf("got %+v, want %+v", got, c.dispatch)
		}
	}
}

func TestDispatchRefuses(t *testing.T) {
	for _, c := range []struct{ in, what string }{
		{`{"v":2}`, "newer hub"},
		{`{}`, "version 0"},
		{`{"v":1,"more":1}`, "more"},
		{`{"v":1,"routes":[{}]}`, "lacks its event"},
		{`{"v":1,"deliveries":[{"message_id":"e","status":"sent"}]}`, "channel"},
		{`{"v":1,"deliveries":[{"message_id":"e","channel":"c","status":"lost"}]}`, "no status"},
		{`{"v":1,"deliveries":[{"message_id":"e","channel":"c","status":"sent","attempt":-1}]}`, "attempt"},
		{`{"v":1,"deliveries":[{"message_id":"e","channel":"c","status":"sent","http_status":40000}]}`, "no status"},
		{`{"v":1,"deliveries":[{"message_id":"e","channel":"c","status":"sent","customer_id":"../x"}]}`, "not a customer"},
	} {
		if _, err := DecodeDispatch([]byte(c.in)); err == nil || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%s: %v, want an error about %q", c.in, err, c.what)
		}
	}
	two := hub.Dispatch{Deliveries: []hub.Delivery{dispatch.Deliveries[0], dispatch.Deliveries[1]}}
	two.Deliveries[1].At = received.Add(time.Hour)
	if _, err := EncodeDispatch(two); err == nil {
		t.Error("deliveries of two instants were encoded: they may be of two months")
	}
}
