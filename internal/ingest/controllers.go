package ingest

import (
	"context"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// Controllers share a key of their customer. Which guest one runs in stands in the
// body, so a guest's rate is looked at behind it; before it, whether its customer has
// anything left. What a customer's controllers send counts apart from what its hosts
// do: a guest that was taken over cannot have its host refused.
//
// The HostID of their records is the guest's id, empty where they name none: of that
// and the customer the sender is made again when the spool is read.

var (
	errHostKey = &hub.Error{Code: hub.Forbidden, Reason: "host_key",
		Message: "a host's key may not send what controllers send"}
	errGlobalKey = &hub.Error{Code: hub.Forbidden, Reason: "global_key",
		Message: "an event takes a customer's key"}
	errOtherCustomer = &hub.Error{Code: hub.Forbidden, Reason: "other_customer",
		Message: "the key belongs to another customer"}
	errNoCustomer = &hub.Error{Code: hub.Invalid, Reason: "unknown_customer",
		Message: "there is no such customer"}
	errOtherGuest = &hub.Error{Code: hub.Invalid, Reason: "other_guest",
		Message: "the guest is on no enrolled host of this customer"}
	errEventType = &hub.Error{Code: hub.Invalid, Reason: "event_type",
		Message: "events of this type are not taken", Hint: "spec.controllerEvents in fleet.yaml lists them"}
)

// AdmitController is Admit for reports of controllers: a customer's key, or a global
// one.
func (a *Acceptor) AdmitController(key hub.Key) (customer string, err error) {
	switch key.Owner.Kind {
	case hub.OwnerHost:
		return "", errHostKey
	case hub.OwnerFleet:
		return "", nil
	}
	customer = key.Owner.Name
	if _, ok := a.fleets.Current().Customer(customer); !ok {
		return "", unauthorized("unknown_key")
	}
	if wait, ok := a.customers.left(ofCustomer(customer), a.now()); !ok {
		return "", controllersRate(wait)
	}
	return customer, nil
}

// AdmitEvent is Admit for events of controllers: a customer's key.
func (a *Acceptor) AdmitEvent(key hub.Key) (customer string, err error) {
	if key.Owner.Kind == hub.OwnerFleet {
		return "", errGlobalKey
	}
	return a.AdmitController(key)
}

// AcceptController is Accept for the body of a controller's report.
func (a *Acceptor) AcceptController(ctx context.Context, key hub.Key, customer string, body []byte) (reply []byte, retry bool, err error) {
	if err := a.turn(ctx, customer); err != nil {
		return nil, false, err
	}
	defer a.turns.Give(customer, 1)
	named, guestID, err := wire.CheckControllerReport(body)
	if err != nil {
		return nil, false, err
	}
	retry, err = a.take(ctx, key, spool.Record{Kind: hub.KindControllerReport, HostID: guestID, CustomerID: named, Body: body}, nil)
	if err != nil {
		return nil, false, err
	}
	of, ok := a.fleets.Current().Customer(named)
	return a.controllers[ok && of.Blocked], retry, nil
}

// AcceptEvent is Accept for the body of a controller's event.
func (a *Acceptor) AcceptEvent(ctx context.Context, key hub.Key, customer string, body []byte) (reply []byte, retry bool, err error) {
	if err := a.turn(ctx, customer); err != nil {
		return nil, false, err
	}
	defer a.turns.Give(customer, 1)
	event, err := wire.DecodeControllerEvent(body)
	if err != nil {
		return nil, false, err
	}
	if !a.fleets.Current().TakesEvent(event.Type) {
		return nil, false, errEventType
	}
	retry, err = a.take(ctx, key, spool.Record{Kind: hub.KindControllerEvent, HostID: event.GuestID, CustomerID: customer, Body: body},
		func(at hub.Receipt) { a.told(event.Event(customer, at)) })
	if err != nil {
		return nil, false, err
	}
	return a.event, retry, nil
}

// take makes a controller's record durable if the key may send it, unless it is a
// retry, and then calls durable, which may be nil.
func (a *Acceptor) take(ctx context.Context, key hub.Key, record spool.Record, durable func(hub.Receipt)) (retry bool, err error) {
	if err := a.allowed(key, record.CustomerID, record.HostID); err != nil {
		return false, err
	}
	sender, _ := senderOf(record)
	if err := a.admitSender(sender, record.CustomerID); err != nil {
		return false, err
	}
	record.KeyID = keyName(key)
	return a.recent.once(ctx, sender, record.Body, func() (hub.Receipt, error) {
		receipt, err := a.append(ctx, record)
		if err == nil && durable != nil {
			durable(receipt)
		}
		return receipt, err
	})
}

// allowed says, by the fleet in force, whether a key may send for this customer and
// guest.
func (a *Acceptor) allowed(key hub.Key, customer, guestID string) error {
	fleet := a.fleets.Current()
	if key.Owner.Kind == hub.OwnerCustomer && key.Owner.Name != customer {
		return errOtherCustomer
	}
	switch _, ok := fleet.Customer(customer); {
	case ok:
	case key.Owner.Kind == hub.OwnerFleet:
		return errNoCustomer
	default:
		return unauthorized("unknown_key")
	}
	if guestID == "" {
		return nil
	}
	hostID, _, _ := hub.ParseGuestID(guestID)
	if host, ok := fleet.Enrolled(hostID); !ok || host.Customer != customer {
		return errOtherGuest
	}
	return nil
}

// admitSender asks the guest first, as admitHost does the host.
func (a *Acceptor) admitSender(sender, customer string) error {
	now := a.now()
	if wait, ok := a.hosts.allow(sender, now); !ok {
		return &hub.Error{Code: hub.RateLimited, Reason: "controller_rate",
			Message: "too many reports or events of this controller", Retry: wait}
	}
	if wait, ok := a.customers.allow(ofCustomer(customer), now); !ok {
		return controllersRate(wait)
	}
	return nil
}

func controllersRate(wait time.Duration) error {
	return &hub.Error{Code: hub.RateLimited, Reason: "controllers_rate",
		Message: "too many reports and events of this customer's controllers", Retry: wait}
}

// ofCustomer stands for the controllers of a customer, also for those that name no
// guest. No host and no guest has such a name.
func ofCustomer(name string) string { return "@" + name }

// eventsOf stands for the events of a sender.
func eventsOf(sender string) string { return "!" + sender }

// senderOf names whom a record is from: under this name its retries are recognised,
// its rate is counted and, of a host or a guest, its life is seen. false where it is
// from nobody.
func senderOf(r spool.Record) (sender string, ok bool) {
	sender = r.HostID
	if sender == "" {
		sender = ofCustomer(r.CustomerID)
	}
	switch r.Kind {
	case hub.KindHostReport:
		return r.HostID, true
	case hub.KindControllerReport:
		return sender, true
	case hub.KindControllerEvent:
		return eventsOf(sender), true
	}
	return "", false
}

// firstHeard notes a sender that was never heard before, if it is the controller in
// a guest.
func (r *recent) firstHeard(sender string) {
	if !strings.Contains(sender, "/") || strings.HasPrefix(sender, eventsOf("")) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.new = append(r.new, sender)
}

// Newcomers returns the ids of guests whose controller was first heard of since the
// last call, in no order: at first all that Recover and Restore know of.
func (a *Acceptor) Newcomers() []string {
	a.recent.mu.Lock()
	defer a.recent.mu.Unlock()
	guests := a.recent.new
	a.recent.new = nil
	return guests
}
