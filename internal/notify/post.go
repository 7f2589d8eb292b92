package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/outbound"
)

const (
	maxReply = 4 << 10 // bytes read of a reply
	maxWait  = 24 * time.Hour
)

// target is an address to post to. It holds a secret, often in its path.
type target struct {
	senders *Senders
	address hub.Secret
	login   *login // nil: none
}

// login is the part of a URL before the @.
type login struct {
	user     string
	password hub.Secret
}

func loginOf(u *url.URL) *login {
	if u.User == nil {
		return nil
	}
	password, _ := u.User.Password()
	return &login{u.User.Username(), hub.NewSecret(password)}
}

// target makes one of a channel's URL without its kind, login and fragment.
func (s *Senders) target(u *url.URL) (*target, error) {
	address := *u
	address.User, address.Fragment, address.RawFragment = nil, "", ""
	if _, scheme, ok := strings.Cut(u.Scheme, "+"); ok {
		address.Scheme = scheme
	}
	if err := s.checkLiteral(u.Hostname(), address.Scheme == "http"); err != nil {
		return nil, err
	}
	return &target{senders: s, address: hub.NewSecret(address.String()), login: loginOf(u)}, nil
}

// checkLiteral refuses an address inside that is written as one. A name is looked
// at when it is dialed.
func (s *Senders) checkLiteral(host string, plain bool) error {
	addr, err := netip.ParseAddr(host)
	if err == nil && (s.o.Guard.Check(addr) != nil || plain && !s.o.Guard.Allowed(addr)) {
		return outbound.ErrForbidden
	}
	return nil
}

// post sends body and returns the beginning of the reply, or an *Error. A reply
// may come with an error, too.
func (t *target) post(ctx context.Context, header http.Header, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, t.senders.limit)
	defer cancel()
	var noTLS atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { noTLS.Store(err != nil) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.address.Reveal(), bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Class: Invalid}
	}
	req.Header = header
	req.Header.Set("User-Agent", "felhom-hub")
	if t.login != nil {
		req.SetBasicAuth(t.login.user, t.login.password.Reveal())
	}
	res, err := t.senders.client.Do(req)
	if err != nil {
		e := broken(ctx, err)
		if noTLS.Load() {
			e = ofHandshake(e, err)
		}
		return nil, e
	}
	defer res.Body.Close()
	// The status is the answer: a body that does not end, or breaks, changes nothing.
	reply, _ := io.ReadAll(io.LimitReader(res.Body, maxReply))
	return reply, judge(res.StatusCode, retryAfter(res.Header, t.senders.o.Now()))
}

// broken classifies an error before there was a reply.
func broken(ctx context.Context, err error) *Error {
	var badCertificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.Is(err, outbound.ErrForbidden):
		return &Error{Class: Forbidden}
	case errors.Is(ctx.Err(), context.Canceled):
		return &Error{Class: Canceled}
	case ctx.Err() != nil, errors.As(err, &network) && network.Timeout():
		return &Error{Class: Timeout}
	case errors.As(err, &badCertificate):
		return &Error{Class: TLS}
	}
	return &Error{Class: Unreachable}
}

// ofHandshake tells a handshake that was refused, by whichever side, from one that
// the connection did not live to see the end of.
func ofHandshake(e *Error, err error) *Error {
	var system syscall.Errno
	if e.Class == Unreachable && !errors.As(err, &system) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Class: TLS}
	}
	return e
}

// judge classifies a status of HTTP; nil is success.
func judge(status int, wait time.Duration) error {
	e := &Error{Status: status, RetryAfter: wait}
	switch {
	case status/100 == 2:
		return nil
	case status/100 == 3:
		e.Class = Redirected
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		e.Class = Busy
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500, status < 400:
		e.Class = Failed
	default:
		e.Class = Refused
	}
	return e
}

// retryAfter reads the header of this name: seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(text, 64); err == nil { // Discord sends fractions
		return bounded(seconds)
	}
	if date, err := http.ParseTime(text); err == nil {
		return bounded(date.Sub(now).Seconds())
	}
	return 0
}

func bounded(seconds float64) time.Duration {
	if !(seconds > 0) { // also not a number
		return 0
	}
	return time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
}
