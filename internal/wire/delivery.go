package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"felhom.eu/hub/internal/hub"
)

// dispatchVersion is the version of the encoding; see decisionVersion.
const dispatchVersion = 1

type dispatchV1 struct {
	Version    int          `json:"v"`
	Routes     []routeV1    `json:"routes,omitempty"`
	At         int64        `json:"at,omitzero"` // of all deliveries, Unix milliseconds
	Deliveries []deliveryV1 `json:"deliveries,omitempty"`
}

type routeV1 struct {
	EventID  string   `json:"event_id"`
	Channels []string `json:"channels,omitempty"`
}

type deliveryV1 struct {
	MessageID  string             `json:"message_id"`
	EventIDs   []string           `json:"event_ids,omitempty"` // absent: the message's id alone, but on an attempt of a digest
	Digest     bool               `json:"digest,omitzero"`
	Channel    string             `json:"channel"`
	CustomerID string             `json:"customer_id,omitzero"`
	Attempt    int                `json:"attempt,omitzero"`
	Status     hub.DeliveryStatus `json:"status"`
	Latency    int64              `json:"latency_ms,omitzero"`
	Class      string             `json:"class,omitzero"`
	HTTPStatus int                `json:"http_status,omitzero"`
}

// EncodeDispatch returns the body of a spool record of kind KindDelivery. Times and
// latencies keep their millisecond and lose what is finer. It fails on what
// DecodeDispatch would refuse, and on deliveries of more than one instant.
func EncodeDispatch(d hub.Dispatch) ([]byte, error) {
	out := dispatchV1{Version: dispatchVersion}
	for _, r := range d.Routes {
		out.Routes = append(out.Routes, routeV1(r))
	}
	for _, v := range d.Deliveries {
		if !v.At.Equal(d.Deliveries[0].At) {
			return nil, errors.New("encode dispatch: its deliveries are of more than one instant")
		}
		out.At = v.At.UnixMilli()
		out.Deliveries = append(out.Deliveries, encodeDelivery(v))
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("encode dispatch: %w", err)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode dispatch: %w", err)
	}
	return body, nil
}

// DecodeDispatch reads what EncodeDispatch wrote; times are UTC. It refuses another
// version, an unknown field or status, and anything that is not whole.
func DecodeDispatch(body []byte) (hub.Dispatch, error) {
	var in dispatchV1
	if err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true)); err != nil {
		return hub.Dispatch{}, fmt.Errorf("decode dispatch: %w", err)
	}
	if in.Version != dispatchVersion {
		return hub.Dispatch{}, fmt.Errorf("decode dispatch: version %d is not %d: a newer hub wrote it", in.Version, dispatchVersion)
	}
	if err := in.check(); err != nil {
		return hub.Dispatch{}, fmt.Errorf("decode dispatch: %w", err)
	}
	var d hub.Dispatch
	for _, r := range in.Routes {
		d.Routes = append(d.Routes, hub.Route(r))
	}
	for _, v := range in.Deliveries {
		d.Deliveries = append(d.Deliveries, v.delivery(instant(in.At)))
	}
	return d, nil
}

func encodeDelivery(v hub.Delivery) deliveryV1 {
	out := deliveryV1{
		MessageID: v.MessageID, EventIDs: v.EventIDs, Channel: v.Channel, CustomerID: v.CustomerID, Attempt: v.Attempt,
		Status: v.Status, Latency: v.Latency.Milliseconds(), Class: v.Class, HTTPStatus: v.HTTPStatus,
	}
	switch {
	case len(v.EventIDs) == 0:
		out.Digest = true
	case len(v.EventIDs) == 1 && v.EventIDs[0] == v.MessageID:
		out.EventIDs = nil
	}
	return out
}

func (v deliveryV1) delivery(at time.Time) hub.Delivery {
	out := hub.Delivery{
		MessageID: v.MessageID, EventIDs: v.EventIDs, Channel: v.Channel, CustomerID: v.CustomerID, Attempt: v.Attempt,
		Status: v.Status, At: at, Latency: time.Duration(v.Latency) * time.Millisecond, Class: v.Class, HTTPStatus: v.HTTPStatus,
	}
	if len(v.EventIDs) == 0 && !v.Digest {
		out.EventIDs = []string{v.MessageID}
	}
	return out
}

// check says what is wrong with a dispatch, if anything is.
func (d dispatchV1) check() error {
	for _, r := range d.Routes {
		if r.EventID == "" {
			return errors.New("a route lacks its event")
		}
	}
	for _, v := range d.Deliveries {
		if err := v.check(); err != nil {
			return fmt.Errorf("message %q: %w", v.MessageID, err)
		}
	}
	return nil
}

// maxAttempt and maxHTTPStatus are what the columns hold.
const (
	maxAttempt    = 1<<31 - 1
	maxHTTPStatus = 1<<15 - 1
)

func (v deliveryV1) check() error {
	switch {
	case v.MessageID == "" || v.Channel == "":
		return errors.New("it lacks its id or channel")
	case v.CustomerID != "" && !hub.ValidCustomerName(v.CustomerID):
		return fmt.Errorf("%q is not a customer", v.CustomerID)
	case v.Attempt < 0 || v.Attempt > maxAttempt:
		return fmt.Errorf("%d is no number of an attempt", v.Attempt)
	case v.HTTPStatus < 0 || v.HTTPStatus > maxHTTPStatus:
		return fmt.Errorf("%d is no status", v.HTTPStatus)
	case v.Latency < 0:
		return fmt.Errorf("%d ms is no latency", v.Latency)
	}
	switch v.Status {
	case hub.DeliverySent, hub.DeliveryFailed, hub.DeliveryDead, hub.DeliveryCollapsed, hub.DeliveryDigested,
		hub.DeliveryDropped, hub.DeliveryRetried:
		return nil
	}
	return fmt.Errorf("%q is no status", v.Status)
}
