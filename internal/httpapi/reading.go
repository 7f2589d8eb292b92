package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Reading answers what customers and operators read on Listen. Its errors are
// *hub.Error.
type Reading interface {
	// Events returns events in the order of their places, of which none will be found
	// before the last later on.
	Events(ctx context.Context, q hub.EventQuery) ([]hub.Event, error)

	// CustomerStatus returns how a customer's hosts are, as JSON: those with an id
	// greater than after, at most limit.
	CustomerStatus(ctx context.Context, customer, after string, limit int) (any, error)
}

const (
	// readerShares are shared by the rule of package fair: two read at one time, of
	// one owner one. The rest of the hub and of ClickHouse is for reports.
	readerShares = 3
	readerWait   = 3 * time.Second // for one's turn
	readTimeout  = 8 * time.Second // of an answer

	defaultEvents, maxEvents = 100, 1000
	defaultHosts, maxHosts   = 500, 1000
)

var (
	errReaders = &hub.Error{Code: hub.Unavailable, Reason: "readers", Message: "too many are reading now", Retry: 2 * time.Second}
	errNotOwn  = &hub.Error{Code: hub.Forbidden, Reason: "other_customer", Message: "the key belongs to another customer"}
	errWhich   = &hub.Error{Code: hub.Invalid, Reason: "parameter", Message: "a global key says which customer: ?customer=<name>"}
	errNone    = &hub.Error{Code: hub.Invalid, Reason: "unknown_customer", Message: "there is no such customer"}
)

// event is an event as readers see it.
type event struct {
	EventID      string    `json:"event_id"`
	Type         string    `json:"type"`
	Severity     string    `json:"severity"`
	CustomerID   string    `json:"customer_id"`
	HostID       string    `json:"host_id"`
	GuestID      string    `json:"guest_id"`
	At           time.Time `json:"at"`
	DetectedAt   time.Time `json:"detected_at"`
	Episode      string    `json:"episode"`
	Reason       string    `json:"reason"`
	Source       string    `json:"source"`
	FoldedInto   string    `json:"folded_into"`
	CausedBy     string    `json:"caused_by"`
	SuppressedBy string    `json:"suppressed_by"`
	Hosts        []string  `json:"hosts"`
}

// events tells events in the order in which they were found. Who asks on with next
// gets each once.
func (s *Server) events(r *http.Request) reply {
	return s.read(r, []string{"customer", "host", "guest", "type", "since", "until", "limit", "cursor"}, func(ctx context.Context, customer string, p *parameters) (any, error) {
		q := hub.EventQuery{
			Everybody: customer == "", Customer: customer,
			Host:  p.text("host", "a host id", hub.ValidHostID),
			Guest: p.text("guest", "<host_id>/<vmid>", hub.ValidGuestID),
			Type:  hub.EventType(p.text("type", "a type of event, as host_down", validType)),
			Since: p.instant("since"), Until: p.instant("until"),
			Limit: p.number("limit", defaultEvents, maxEvents),
		}
		var err error
		if text := p.text("cursor", "what next said", func(text string) bool { q.After, err = hub.ParseEventPlace(text); return err == nil }); text == "" {
			q.After = hub.EventPlace{}
		}
		if p.err != nil {
			return nil, p.err
		}
		found, err := s.o.Reading.Events(ctx, q)
		if err != nil {
			return nil, err
		}
		next, told := q.After, make([]event, len(found))
		for i := range found {
			e := &found[i]
			next = e.Place()
			told[i] = event{e.ID, string(e.Type), e.Severity(), e.CustomerID, e.HostID, e.GuestID, e.At.UTC(), e.DetectedAt.UTC(),
				e.Episode, e.Reason, e.Source, e.FoldedInto, e.CausedBy, e.SuppressedBy, append([]string{}, e.Hosts...)}
		}
		return struct {
			Events []event `json:"events"`
			Next   string  `json:"next"`
		}{told, next.Text()}, nil
	})
}

// customerStatus tells a customer how it is.
func (s *Server) customerStatus(r *http.Request) reply {
	return s.read(r, []string{"customer", "limit", "after"}, func(ctx context.Context, customer string, p *parameters) (any, error) {
		after := p.text("after", "a host id", hub.ValidHostID)
		limit := p.number("limit", defaultHosts, maxHosts)
		if p.err == nil && customer == "" {
			p.err = errWhich
		}
		if p.err != nil {
			return nil, p.err
		}
		return s.o.Reading.CustomerStatus(ctx, customer, after, limit)
	})
}

// read makes the checks of a reader, of which the first that fails answers, and waits
// for its turn. answer is told the one customer to tell of: a customer key's own,
// whatever the parameters say, else that which they name, or "".
func (s *Server) read(r *http.Request, known []string, answer func(ctx context.Context, customer string, p *parameters) (any, error)) reply {
	p := parseParameters(r.URL)
	key, err := s.identify(r, !p.showsKey())
	customer := ""
	if err == nil {
		customer, err = s.o.Reports.AdmitReader(key)
	}
	if err == nil {
		customer, err = p.whose(customer, known)
	}
	if err != nil {
		return s.tell(r, key, err)
	}
	who := key.Owner.String()
	waiting, done := context.WithTimeout(r.Context(), readerWait)
	defer done()
	if s.readers.Wait(waiting, who) != nil {
		return s.tell(r, key, errReaders)
	}
	defer s.readers.Give(who, 1)
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	told, err := answer(ctx, customer, p)
	if err != nil {
		return s.tell(r, key, err)
	}
	return showJSON(told)
}

// parameters are those of a query string; err is the first thing that is wrong.
type parameters struct {
	values url.Values
	err    error
}

func parseParameters(u *url.URL) *parameters {
	values, err := url.ParseQuery(u.RawQuery)
	p := &parameters{values: values}
	if err != nil {
		p.wrong("the query string cannot be read")
	}
	return p
}

// wrong never shows what was sent: it may be a key in a wrong place.
func (p *parameters) wrong(message string) {
	if p.err == nil {
		p.err = &hub.Error{Code: hub.Invalid, Reason: "parameter", Message: message}
	}
}

// showsKey reports whether a key seems to stand in the address, where others may see it.
func (p *parameters) showsKey() bool {
	for name, values := range p.values {
		name = strings.ToLower(name)
		for _, word := range []string{"key", "token", "auth", "secret", "bearer", "passw"} {
			if strings.Contains(name, word) {
				return true
			}
		}
		for _, v := range append(values, name) {
			if _, err := hub.DigestKey(strings.ToLower(v)); err == nil {
				return true
			}
		}
	}
	return false
}

// whose checks the names, and returns the customer to tell of, for a key that may
// read of own alone, or where that is empty of all.
func (p *parameters) whose(own string, known []string) (customer string, err error) {
	for name, values := range p.values {
		switch {
		case !slices.Contains(known, name):
			p.wrong("there is a parameter that this path does not have: it has " + strings.Join(known, ", "))
		case len(values) != 1:
			p.wrong(name + " is there more than once")
		}
	}
	named := p.values.Get("customer")
	switch {
	case p.err != nil:
		return "", p.err
	case !p.values.Has("customer"):
		return own, nil
	case own != "" && named != own:
		return "", errNotOwn
	case !hub.ValidCustomerName(named):
		return "", errNone
	}
	return named, nil
}

// text returns a parameter, or "" where it is not there.
func (p *parameters) text(name, what string, valid func(string) bool) string {
	v := p.values.Get(name)
	if p.values.Has(name) && !valid(v) {
		p.wrong(name + " must be " + what)
		return ""
	}
	return v
}

func (p *parameters) instant(name string) (t time.Time) {
	p.text(name, "an instant, as 2027-06-01T09:00:00Z", func(v string) bool {
		var err error
		t, err = time.Parse(time.RFC3339, v)
		return err == nil && hub.KeptInstant(t)
	})
	return t
}

func (p *parameters) number(name string, or, most int) int {
	n := or
	p.text(name, fmt.Sprintf("a whole number from 1 to %d", most), func(v string) bool {
		var err error
		n, err = strconv.Atoi(v)
		return err == nil && 1 <= n && n <= most && v == strconv.Itoa(n)
	})
	return n
}

const maxTypeName = 64

func validType(t string) bool {
	return t != "" && len(t) <= maxTypeName && strings.Trim(t, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}
