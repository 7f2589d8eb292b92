// Package outbound connects to addresses that others chose, and to no place
// inside: what a customer writes into a channel must not become a request to the
// hub's own network.
//
// The check is made on the very address that is dialed, after the name was
// resolved, so a name that resolves differently the second time gains nothing.
// Proxies of the environment are not used: behind one, nobody would check.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// ErrForbidden means that an address is inside, and not allowed. Its text names no
// address: who chose the name would learn what it resolves to within.
var ErrForbidden = errors.New("the address is not a public one, and the configuration does not allow it")

const dialTimeout = 10 * time.Second

// Guard decides which addresses may be connected to.
type Guard struct {
	allow    []netip.Prefix
	resolver *net.Resolver // nil: the machine's; tests have their own
}

// New returns a guard that lets public addresses through, and those that allow
// covers.
func New(allow []netip.Prefix) *Guard { return &Guard{allow: allow} }

// special lists what is not the public internet: the registries of special-purpose
// addresses of IANA, multicast, and every form in which IPv6 carries an IPv4
// address that a router or the kernel may unpack.
var special = prefixes(
	"0.0.0.0/8",       // this network; 0.0.0.0 is this machine
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // carrier-grade NAT
	"127.0.0.0/8",     // this machine
	"169.254.0.0/16",  // link-local; metadata services of clouds
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.31.196.0/24", // AS112
	"192.52.193.0/24", // AMT
	"192.88.99.0/24",  // 6to4 relays
	"192.168.0.0/16",  // private
	"192.175.48.0/24", // AS112
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved; broadcast

	"::/96",           // unspecified, loopback, IPv4-compatible
	"::ffff:0:0/96",   // IPv4-mapped; Check unpacks these first
	"::ffff:0:0:0/96", // IPv4-translated (SIIT)
	"64:ff9b::/96",    // NAT64
	"64:ff9b:1::/48",  // NAT64 of local use
	"100::/64",        // discard
	"100:0:0:1::/64",  // dummy
	"2001::/23",       // protocol assignments; Teredo is 2001::/32
	"2001:db8::/32",   // documentation
	"2002::/16",       // 6to4
	"3fff::/20",       // documentation
	"5f00::/16",       // segment routing
	"fc00::/7",        // unique local
	"fe80::/10",       // link-local
	"fec0::/10",       // site-local, as it was
	"ff00::/8",        // multicast
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// Check returns ErrForbidden unless an address may be connected to.
func (g *Guard) Check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if g.Allowed(addr) {
		return nil
	}
	for _, p := range special {
		if p.Contains(addr) {
			return ErrForbidden
		}
	}
	if !addr.IsValid() {
		return ErrForbidden
	}
	return nil
}

// Allowed reports whether the configuration names an address as one of its own
// that may be connected to, also without encryption.
func (g *Guard) Allowed(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Dial connects to a host and port, as net.Dialer does, if all goes well within
// 10 s. The error is ErrForbidden where the address is inside.
func (g *Guard) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return g.dial(ctx, network, address, g.Check)
}

// DialPlain is Dial for what is sent without encryption: only to addresses that
// the configuration allows.
func (g *Guard) DialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	return g.dial(ctx, network, address, func(addr netip.Addr) error {
		if !g.Allowed(addr) {
			return ErrForbidden
		}
		return nil
	})
}

func (g *Guard) dial(ctx context.Context, network, address string, check func(netip.Addr) error) (net.Conn, error) {
	d := net.Dialer{
		Timeout:  dialTimeout,
		Resolver: g.resolver,
		Control: func(_, address string, _ syscall.RawConn) error {
			target, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: not an address", ErrForbidden)
			}
			return check(target.Addr())
		},
	}
	return d.DialContext(ctx, network, address)
}

// Client returns an HTTP client whose connections this guard makes, those without
// TLS by DialPlain. It follows no redirect: the reply with the 3xx is returned. It
// speaks TLS 1.2 or later and trusts roots, or the machine's authorities where
// that is nil. Requests must bring their own timeout. Close its idle connections
// when it is done with.
func (g *Guard) Client(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport:     byScheme{transport(g.Dial, roots), transport(g.DialPlain, roots)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func transport(dial func(context.Context, string, string) (net.Conn, error), roots *x509.CertPool) *http.Transport {
	return &http.Transport{ // without Proxy: none of the environment
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    128, // many customers have channels with one service; as many as the outbox has workers
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true, // a small body stays small
	}
}

// byScheme keeps what is sent without encryption apart from what is sent with it.
type byScheme struct{ tls, plain *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b byScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		return b.tls.RoundTrip(r)
	}
	return b.plain.RoundTrip(r)
}

// CloseIdleConnections is what http.Client asks of its transport.
func (b byScheme) CloseIdleConnections() {
	b.tls.CloseIdleConnections()
	b.plain.CloseIdleConnections()
}
