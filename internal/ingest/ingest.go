// Package ingest decides whether a report is accepted, and makes it durable.
//
// A report passes four steps, each a method of [Acceptor] that the HTTP side
// calls in this order: Ready (is a fleet in force?), Identify (whose key?),
// Admit (may this key report, and so often?), and with the body Accept, which
// returns only after the spool has synced the record: that is the commit point
// of the whole hub. Each step looks at the fleet in force at that moment, so a
// key that was removed stops working with the next request.
//
// A report sent again is recognised by [recent]: it is answered like the first
// and leaves neither a row nor a sign of life.
//
// What controllers send passes the same steps, with its own Admit and Accept.
package ingest

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"felhom.eu/hub/internal/fair"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// Fleets tells the fleet in force; nil while there is none yet. Once there is
// one, there is always one.
type Fleets interface {
	Current() *hub.Fleet
}

// Spool makes records durable: all of them when it returns nil, else none.
type Spool interface {
	Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error)
}

// Options are what an Acceptor needs. Fleets and Spool are required.
type Options struct {
	Fleets       Fleets
	Spool        Spool
	PollInterval time.Duration    // told to agents
	HostRate     float64          // reports of one host per second, bursts of twice that; 0: no limit
	CustomerRate float64          // the same for all hosts of a customer together
	NearlyFull   func() bool      // is the last of the spool left to small reports? nil: never
	MaxTurns     int              // reports decoded and written at one time, a customer's at most half of them; 0: 256
	Told         func(hub.Event)  // called with an event of a controller that is durable; it must not wait, and the texts are the request's; nil: nobody
	Now          func() time.Time // nil: time.Now
	Logger       *slog.Logger     // nil: discard
}

// Acceptor takes reports. It is safe for concurrent use.
type Acceptor struct {
	fleets Fleets
	spool  Spool
	told   func(hub.Event)
	now    func() time.Time
	log    *slog.Logger
	recent *recent
	turns  *fair.Shares // of reports being decoded and written, by customer

	pollInterval time.Duration
	nearlyFull   func() bool
	progress     progress

	hosts     *limiters
	customers *limiters
	readers   *limiters
	failures  *failures
	uses      *uses
	announced *announcements
	refusals  *refusals
	lockouts  *lockouts
	applied   *hub.Fleet // of FleetApplied alone
	open      []byte     // envelope
	blocked   []byte     // envelope for a blocked customer's hosts

	controllers map[bool][]byte // replies to controllers, by whether the customer is blocked
	event       []byte          // reply to an event
}

// New makes an Acceptor.
func New(o Options) *Acceptor {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxTurns == 0 {
		o.MaxTurns = defaultTurns
	}
	if o.NearlyFull == nil {
		o.NearlyFull = func() bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Told == nil {
		o.Told = func(hub.Event) {}
	}
	return &Acceptor{
		fleets: o.Fleets, spool: o.Spool, told: o.Told, now: o.Now, log: o.Logger,
		recent: newRecent(),
		turns:  fair.New(int64(o.MaxTurns)), nearlyFull: o.NearlyFull, pollInterval: o.PollInterval,
		hosts:     newLimiters(o.HostRate),
		customers: newLimiters(o.CustomerRate),
		readers:   newLimiters(readerRate),
		failures:  newFailures(),
		uses:      newUses(),
		announced: newAnnouncements(),
		refusals:  newRefusals(refusedHosts),
		lockouts:  newLockouts(),
		open:      wire.Envelope(o.PollInterval, false),
		blocked:   wire.Envelope(o.PollInterval, true),

		controllers: map[bool][]byte{false: wire.ControllerReply(false), true: wire.ControllerReply(true)},
		event:       wire.EventReply(),
	}
}

// Errors that reach agents. All failures of a key share one message, so that
// the reply tells nothing about which keys exist; the reason is for the log.
const badKey = "no valid key: send Authorization: Bearer <key>"

func unauthorized(reason string) *hub.Error {
	return &hub.Error{Code: hub.Unauthorized, Reason: reason, Message: badKey}
}

var (
	errNoFleet = &hub.Error{Code: hub.Unavailable, Reason: "no_fleet",
		Message: "the hub has no fleet yet", Hint: "see problems in /api/v1/fleet/status", Retry: 5 * time.Second}
	errCustomerKey = &hub.Error{Code: hub.Forbidden, Reason: "customer_key",
		Message: "a customer's key may not send host reports"}
	errOtherHost = &hub.Error{Code: hub.Forbidden, Reason: "other_host",
		Message: "the key belongs to another host"}
	errNotEnrolled = &hub.Error{Code: hub.Invalid, Reason: "not_enrolled",
		Message: "the host is not enrolled", Hint: "enroll it in the fleet repository"}
	errNotWaited = &hub.Error{Code: hub.Unavailable, Reason: "client_gone",
		Message: "the request ended before the report was durable", Retry: time.Second}
)

// Ready returns nil, or Unavailable while no fleet is in force.
func (a *Acceptor) Ready() error {
	if a.fleets.Current() == nil {
		return errNoFleet
	}
	return nil
}

// Identify finds the key that an Authorization header carries and that is valid
// now. from is the client's address: too many failures from its neighbourhood
// turn Unauthorized into RateLimited, and never touch a good key. With an
// error, the key returned is the one refused, where it is known.
func (a *Acceptor) Identify(authorization string, from netip.Addr) (hub.Key, error) {
	fleet := a.fleets.Current()
	if fleet == nil {
		return hub.Key{}, errNoFleet
	}
	now := a.now()
	key, digest, err := findKey(fleet, authorization, now)
	if err == nil {
		a.uses.note(key.Digest, now)
		return key, nil
	}
	if digest != (hub.Digest{}) {
		a.lockouts.refused(digest, key, now)
	}
	a.refusals.of(key, err, now)
	return key, a.Failed(from, err)
}

// Failed counts a request that did not show the secret which it should, and
// returns err, or RateLimited where there were too many from the client's
// neighbourhood. It is asked only of failures.
func (a *Acceptor) Failed(from netip.Addr, err error) error {
	if wait, ok := a.failures.allow(from, a.now()); !ok {
		return &hub.Error{Code: hub.RateLimited, Reason: "failures",
			Message: "too many requests without a valid key from this network", Retry: wait}
	}
	return err
}

// findKey returns the key that is shown, and of one that is refused the digest, where
// it has one.
func findKey(fleet *hub.Fleet, authorization string, now time.Time) (hub.Key, hub.Digest, *hub.Error) {
	if authorization == "" {
		return hub.Key{}, hub.Digest{}, unauthorized("no_key")
	}
	scheme, text, _ := strings.Cut(authorization, " ")
	digest, err := hub.DigestKey(text)
	if err != nil || !strings.EqualFold(scheme, "Bearer") {
		return hub.Key{}, hub.Digest{}, unauthorized("malformed_key")
	}
	key, ok := fleet.Key(digest)
	if !ok {
		return hub.Key{}, digest, unauthorized("unknown_key")
	}
	if !key.ValidAt(now) {
		return key, digest, unauthorized("expired_key")
	}
	return key, digest, nil
}

// Admit decides, before a body is read, whether the key may report at all and
// whether its host and customer keep to their rates. A global key's host is
// known only from the body; Accept looks at its rates. It returns the host's
// customer, whose share of the hub the report takes; "" for a global key.
func (a *Acceptor) Admit(key hub.Key) (customer string, err error) {
	switch key.Owner.Kind {
	case hub.OwnerCustomer:
		return "", errCustomerKey
	case hub.OwnerFleet:
		return "", nil
	}
	host, err := a.host(key, key.Owner.Name)
	if err != nil {
		return "", err
	}
	return host.Customer, a.admitHost(host)
}

// host finds the host in the fleet in force. Both keys of a host that is gone
// answer as if it had never been.
func (a *Acceptor) host(key hub.Key, id string) (*hub.Host, error) {
	host, ok := a.fleets.Current().Enrolled(id)
	switch {
	case ok:
		return host, nil
	case key.Owner.Kind == hub.OwnerFleet:
		a.refusals.note(id, errNotEnrolled, a.now())
		return nil, errNotEnrolled
	}
	return nil, unauthorized("unknown_key")
}

// admitHost asks the host first: what a noisy host is refused does not count
// against its customer.
func (a *Acceptor) admitHost(host *hub.Host) error {
	now := a.now()
	if wait, ok := a.hosts.allow(host.ID, now); !ok {
		return &hub.Error{Code: hub.RateLimited, Reason: "host_rate",
			Message: "too many reports of this host", Retry: wait}
	}
	if wait, ok := a.customers.allow(host.Customer, now); !ok {
		return &hub.Error{Code: hub.RateLimited, Reason: "customer_rate",
			Message: "too many reports of this customer's hosts", Retry: wait}
	}
	return nil
}

// Accept takes the body of a report of a key that was admitted, for the customer
// that Admit named, and returns the reply. When it returns nil the report is
// durable, by this call or, where retry is true, by an earlier one with the same
// bytes. body is not used after Accept has returned, whatever becomes of ctx: a
// client that goes away while its report is written will find it accepted when it
// comes again.
func (a *Acceptor) Accept(ctx context.Context, key hub.Key, customer string, body []byte) (envelope []byte, retry bool, err error) {
	if err := a.turn(ctx, customer); err != nil {
		return nil, false, err
	}
	defer a.turns.Give(customer, 1)
	hostID, err := wire.CheckReport(body)
	if err != nil {
		return nil, false, err
	}
	if key.Owner.Kind == hub.OwnerHost && key.Owner.Name != hostID {
		return nil, false, errOtherHost
	}
	host, err := a.host(key, hostID)
	if err != nil {
		return nil, false, err
	}
	if key.Owner.Kind == hub.OwnerFleet {
		if err := a.admitHost(host); err != nil {
			return nil, false, err
		}
	}
	retry, err = a.recent.once(ctx, host.ID, body, func() (hub.Receipt, error) {
		record := spool.Record{Kind: hub.KindHostReport, HostID: host.ID, CustomerID: host.Customer, KeyID: keyName(key), Body: body}
		receipt, err := a.append(ctx, record)
		if err == nil {
			a.announced.note(record, receipt)
		}
		return receipt, err
	})
	if err != nil {
		return nil, false, err
	}
	envelope = a.open
	if customer, ok := a.fleets.Current().Customer(host.Customer); ok && customer.Blocked {
		envelope = a.blocked
	}
	return envelope, retry, nil
}

// append writes the record. It does not end with the request: others may wait
// for the same bytes, and body must stay untouched until the spool is done.
func (a *Acceptor) append(ctx context.Context, record spool.Record) (hub.Receipt, error) {
	if len(record.Body) > largeBody && a.nearlyFull() {
		return hub.Receipt{}, errNearlyFull
	}
	a.progress.begin(a.now)
	defer a.progress.end(a.now)
	receipts, err := a.spool.Append(context.WithoutCancel(ctx), record)
	if err != nil {
		return hub.Receipt{}, err
	}
	return receipts[0], nil
}

// keyName is what rows say about the key: of a host's the id, which is unique within
// its host; customers' and global keys are told apart by their owner before it.
func keyName(key hub.Key) string {
	if key.Owner.Kind == hub.OwnerHost {
		return key.ID
	}
	return key.Owner.String() + "/" + key.ID
}

// LastSeen returns the receipt of the newest report of a host, or of the controller
// in a guest by the guest's id, that was accepted, is in the spool, or stands in a
// restored snapshot. Retries do not count, and neither do events.
func (a *Acceptor) LastSeen(hostID string) (hub.Receipt, bool) { return a.recent.last(hostID) }

// FirstSeen returns received_at of the first report after an instant of a host or, by
// the guest's id, a controller; false where there is none, or where so many came since
// that it is not known which was first.
func (a *Acceptor) FirstSeen(hostID string, after time.Time) (time.Time, bool) {
	return a.recent.first(hostID, after)
}

// Recover learns of a record that the spool holds. Entries may come in any
// order, more than once, and before or after Restore.
func (a *Acceptor) Recover(e spool.Entry) {
	if sender, ok := senderOf(e.Record); ok {
		a.recent.insert(sender, sumOf(e.Body), e.Receipt)
	}
	if e.Kind == hub.KindHostReport {
		a.announced.note(e.Record, e.Receipt)
	}
}

// Snapshot returns what Restore needs to recognise retries of reports that the
// spool no longer holds. Take it before the spool removes volumes.
func (a *Acceptor) Snapshot() []byte { return a.recent.snapshot() }

// Restore adds what a snapshot knows. A snapshot that cannot be read changes
// nothing; the price is that retries of reports older than the spool's oldest
// volume are taken for new ones.
func (a *Acceptor) Restore(snapshot []byte) error { return a.recent.restore(snapshot) }
