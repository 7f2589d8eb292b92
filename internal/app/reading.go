package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// reader answers those who read on listen.
type reader App

// foundToSpool is longer than it takes, from the instant at which an event counts as
// found, until it stands in the spool. Of those that take longer the hub knows: an
// evaluation of the switch that is under way, and those in latecomers.
const foundToSpool = 10 * time.Second

// latecomers are events that stood in the spool long after the instant at which they
// count as found, and may be on their way to ClickHouse.
type latecomers struct {
	mu   sync.Mutex
	list []latecomer
}

type latecomer struct{ found, stored time.Time }

// note enters events that became durable at an instant, just now or in an earlier run.
func (l *latecomers) note(events []hub.Event, stored time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		c := latecomer{events[i].DetectedAt, stored}
		if known := len(l.list) > 0 && l.list[len(l.list)-1] == c; !known && stored.Sub(c.found) >= foundToSpool {
			l.list = append(l.list, c)
		}
	}
}

// bound returns settled, or an earlier instant where events found since then are not in
// ClickHouse, which has all that was stored before oldest.
func (l *latecomers) bound(settled, oldest time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(c latecomer) bool { return c.stored.Before(oldest) })
	for _, c := range l.list {
		if c.found.Before(settled) {
			settled = c.found
		}
	}
	return settled
}

var (
	errAway = &hub.Error{Code: hub.Unavailable, Reason: "clickhouse_away", Retry: 5 * time.Second,
		Message: "ClickHouse does not answer now; nothing is lost, and what is new will be there when it does"}
	errRechecking = &hub.Error{Code: hub.Unavailable, Reason: "rechecking", Retry: 5 * time.Second,
		Message: "the hub is finding out whether ClickHouse has everything"}
	errTooMuch = &hub.Error{Code: hub.Unavailable, Reason: "too_much", Retry: 5 * time.Second,
		Message: "this takes too long or is too much for one answer: ask for less, or later"}
)

// Events returns events that were found before the oldest one that may still be on
// its way to ClickHouse, so that none comes later with an earlier place.
func (r *reader) Events(ctx context.Context, q hub.EventQuery) ([]hub.Event, error) {
	settled, err := r.settled()
	if err != nil {
		return nil, err
	}
	if q.Until.IsZero() || q.Until.After(settled) {
		q.Until = settled
	}
	events, err := r.db.Events(ctx, q)
	return events, r.failure("events", err)
}

// behind returns the instant until which ClickHouse has all that was received.
func (r *reader) behind() (time.Time, error) {
	now := (*App)(r).slot()
	oldest, doubt := (*backlog)(r).Behind()
	switch problem := (*App)(r).databaseError(); {
	case !(*App)(r).prepared(), doubt && problem != "":
		return time.Time{}, errAway
	case doubt:
		return time.Time{}, errRechecking
	case oldest.IsZero() || oldest.After(now):
		return now, nil
	}
	return oldest, nil
}

// settled returns the instant before which ClickHouse has all events.
func (r *reader) settled() (time.Time, error) {
	judging := r.watch.Status().Judging // first: when the evaluation is over, it stands in the others
	oldest, err := r.behind()
	if err != nil {
		return time.Time{}, err
	}
	settled := r.late.bound(oldest.Add(-foundToSpool), oldest)
	if !judging.IsZero() && judging.Before(settled) {
		settled = judging // what the evaluation will find counts as found then
	}
	return settled, nil
}

// customerStatus is the answer to /api/v1/customer/status.
type customerStatus struct {
	CustomerID string    `json:"customer_id"`
	AsOf       time.Time `json:"as_of"` // all that was received until then is in
	clickhouse.CustomerStatus
	Next string `json:"next"` // the after= of the next page; empty: there is none
}

// CustomerStatus returns a page of how a customer's hosts are.
func (r *reader) CustomerStatus(ctx context.Context, customer, after string, limit int) (any, error) {
	asOf, err := r.behind()
	if err != nil {
		return nil, err
	}
	fleet := r.roster.Current()
	if _, ok := fleet.Customer(customer); !ok {
		return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_customer", Message: "there is no such customer"}
	}
	hosts, more := fleet.HostsOf(customer, after, limit)
	s, err := r.db.CustomerStatus(ctx, customer, hosts)
	if err != nil {
		return nil, r.failure("customer status", err)
	}
	status := customerStatus{CustomerID: customer, AsOf: asOf, CustomerStatus: s}
	if more {
		status.Next = hosts[len(hosts)-1]
	}
	return status, nil
}

// failure is what a reader is told of an error of the database.
func (r *reader) failure(what string, err error) error {
	if err == nil {
		return nil
	}
	r.log.Warn("a reader got no answer", "asked", what, "error", err)
	if errors.Is(err, clickhouse.ErrTooMuch) && (*App)(r).databaseError() == "" {
		return errTooMuch
	}
	return errAway
}
