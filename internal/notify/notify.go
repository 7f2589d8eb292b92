// Package notify delivers a message to a channel: a webhook, an Alertmanager, a
// chat service or a mailbox.
//
// A channel is one URL, which is a secret as a whole: [Senders.Parse] makes a
// [Sender] of it and says what is wrong with it, without sending anything and
// without repeating any of it. Connections are made by an outbound.Guard. What
// fails is told as an [Error], a class and a status: what a library or a server
// says may hold a token, and goes no further than this package.
//
// Chat services are a POST each, made here. Of nicholas-fedor/shoutrrr, which
// does many more, v0.13.2 was looked at: Send takes no context; the router lets
// a slow service go on in a goroutine and reports a timeout, so that the message
// may arrive twice; Telegram, Teams and half of Slack use http.DefaultClient,
// which has no timeout, follows redirects and obeys proxies; Retry-After is lost;
// and the error of a failed POST holds the address with the bot's token. Mail is
// put together and authenticated by wneessen/go-mail.
package notify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/outbound"
)

// Message is what one channel is told: an event, or a digest of many.
type Message struct {
	ID    string           // the event's id, or one of the digest's own: a repeated delivery has the same
	Event hub.Event        // of a digest: its Type is Digest, and CustomerID, At and DetectedAt are set
	Count int              // events in a digest; else 0
	Parts func() []Message // of a digest, what would have been sent one by one, in order; nil: not known
	Names message.Names    // for receivers that take the parts
	Links message.Links
	Text  message.Text

	Labels map[string]string // the channel's own, for receivers that route by them
}

// Digest is the type of the message in place of many. No event has it.
const Digest hub.EventType = "digest"

// Sender delivers messages to one channel. Send may be called by several
// goroutines. It takes at most 15 s. Receivers recognise a repeated message by its
// ID as far as they can: webhooks do by webhook-id, an Alertmanager by the labels,
// mailboxes by Message-ID; chat services cannot.
//
// Whatever goes wrong is an *Error.
type Sender interface {
	Send(ctx context.Context, m Message) error
}

// Class says in what way a delivery failed.
type Class string

// The classes.
const (
	Refused     Class = "refused"     // the receiver does not want it, now or later
	Busy        Class = "busy"        // the receiver asks to wait
	Failed      Class = "failed"      // the receiver says that it has a fault
	Redirected  Class = "redirected"  // the receiver names another place, where nothing is sent
	Unreachable Class = "unreachable" // no connection, or it broke; it may have been delivered
	Timeout     Class = "timeout"     // no answer in time; it may have been delivered
	TLS         Class = "tls"         // no encryption that can be trusted
	Forbidden   Class = "forbidden"   // the address is one inside
	Canceled    Class = "canceled"    // the caller ended it; it may have been delivered
	Invalid     Class = "invalid"     // the channel or the message cannot be used as it is
)

// Error is a delivery that failed, in words that are safe to keep and to show.
type Error struct {
	Class      Class
	Status     int           // of HTTP or SMTP; 0: none came
	RetryAfter time.Duration // how long the receiver asks to wait, at most 24 h; 0: it does not
}

// Error returns the class, and the status where there is one: "busy (429)".
func (e *Error) Error() string {
	if e.Status == 0 {
		return string(e.Class)
	}
	return fmt.Sprintf("%s (%d)", e.Class, e.Status)
}

// Permanent reports whether trying again is useless until somebody changes
// something.
func (e *Error) Permanent() bool { return e.Class == Refused || e.Class == Invalid }

// timeout bounds one delivery. The Standard Webhooks specification recommends 15
// to 30 s.
const timeout = 15 * time.Second

// Options are what senders share. All may be left out.
type Options struct {
	Guard  *outbound.Guard  // nil: public addresses only
	Source string           // of CloudEvents: a URI of this hub; empty: "felhom-hub"
	Roots  *x509.CertPool   // authorities to trust; nil: the machine's
	Now    func() time.Time // nil: time.Now
}

// Senders makes senders.
type Senders struct {
	o      Options
	client *http.Client
	limit  time.Duration // of one delivery
}

// New returns Senders that have made no connection yet.
func New(o Options) *Senders {
	if o.Guard == nil {
		o.Guard = outbound.New(nil)
	}
	if o.Source == "" {
		o.Source = "felhom-hub"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Senders{o: o, client: o.Guard.Client(o.Roots), limit: timeout}
}

// Close closes the connections that nobody uses.
func (s *Senders) Close() { s.client.CloseIdleConnections() }

// kinds are the schemes of channels, and how a sender is made of the rest.
var kinds = []struct {
	scheme, example string
	parse           func(*Senders, *url.URL) (Sender, error)
}{
	{"webhook+https", "webhook+https://example.com/hook#whsec_…", (*Senders).webhook},
	{"alertmanager+https", "alertmanager+https://user:password@alerts.example.com", (*Senders).alertmanager},
	{"alertmanager+http", "alertmanager+http://10.0.0.9:9093", (*Senders).alertmanager},
	{"slack+https", "slack+https://hooks.slack.com/services/…", (*Senders).slack},
	{"discord+https", "discord+https://discord.com/api/webhooks/…", (*Senders).discord},
	{"teams+https", "teams+https://….logic.azure.com/…", (*Senders).teams},
	{"telegram", "telegram://BOT:TOKEN@CHAT", (*Senders).telegram},
	{"smtp", "smtp://user:password@mail.example.com?from=hub@example.com&to=ops@example.com", (*Senders).mail},
	{"smtps", "smtps://user:password@mail.example.com?from=hub@example.com&to=ops@example.com", (*Senders).mail},
}

// Kinds lists an example of every kind of channel.
func Kinds() []string {
	examples := make([]string, len(kinds))
	for i, k := range kinds {
		examples[i] = k.example
	}
	return examples
}

// Parse makes a sender of a channel's URL. It connects to nothing. The error says
// what is wrong in words that hold nothing of the URL.
func (s *Senders) Parse(channel hub.Secret) (Sender, error) {
	u, err := url.Parse(strings.TrimSpace(channel.Reveal()))
	if err != nil {
		return nil, errors.New("this is not a URL; in a password or token, characters like / and # are written as %2F and %23")
	}
	for _, k := range kinds {
		if u.Scheme == k.scheme {
			if u.Hostname() == "" || u.Opaque != "" {
				return nil, errors.New("the URL names no host: write " + k.example)
			}
			return k.parse(s, u)
		}
	}
	return nil, errors.New("this kind of channel is not known: write one of " + strings.Join(Kinds(), ", "))
}

// Validate returns what is wrong with a channel's URL where allow covers the
// addresses inside that may be used, as Parse does.
func Validate(channel hub.Secret, guard *outbound.Guard) error {
	_, err := New(Options{Guard: guard}).Parse(channel)
	return err
}
