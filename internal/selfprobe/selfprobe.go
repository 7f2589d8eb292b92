// Package selfprobe knocks at the hub's own public address as an agent would: on a
// new connection each time, through whatever stands before it. What it cannot
// reach, agents cannot either: while it fails, their silence says nothing.
//
// The answer must come from this very process. The probe sends a random nonce,
// and the listener answers with its HMAC under a key that was drawn at the start;
// so neither a proxy's page nor another hub at the same name passes for it.
package selfprobe

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Path is where the listener answers.
const Path = "/api/v1/probe"

const (
	timeout  = 5 * time.Second
	nonceLen = 16
	// MaxNonce bounds what an answer is made for, in bytes.
	MaxNonce = 64
)

// ErrAnotherAnswered means that something answers at the address, and it is not
// this hub.
var ErrAnotherAnswered = errors.New("what answers there is not this hub")

// Prober probes one address.
type Prober struct {
	key    []byte
	url    string
	client *http.Client
}

// Options says where to knock.
type Options struct {
	// URL is the hub's address as agents have it, such as https://hub.example; its
	// certificate is verified. Empty: the listener itself at Listen, whatever its
	// certificate says.
	URL    string
	Listen func() string // host:port of the listener, asked at each probe
	TLS    bool          // the listener speaks TLS
}

// New returns a prober with a key of its own.
func New(o Options) (*Prober, error) {
	p := &Prober{key: make([]byte, sha256.Size), client: &http.Client{
		Timeout: timeout,
		// An address that sends elsewhere is not where agents post to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	_, _ = rand.Read(p.key) // never fails
	transport := &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	p.client.Transport = transport
	if o.URL != "" {
		u, err := url.Parse(o.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%q is not the address of a hub: write https://hub.example", o.URL)
		}
		p.url = u.JoinPath(Path).String()
		return p, nil
	}
	scheme := "http"
	if o.TLS {
		scheme = "https"
	}
	p.url = scheme + "://listener" + Path
	transport.Proxy = nil
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the listener's name is not known here
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, reachable(o.Listen()))
	}
	return p, nil
}

// reachable makes an address to dial of one to listen on.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	switch ip := net.ParseIP(host); {
	case host == "" || ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.Equal(net.IPv6unspecified):
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// Answer is what the listener says to a nonce of at most MaxNonce bytes.
func (p *Prober) Answer(nonce []byte) []byte {
	mac := hmac.New(sha256.New, p.key)
	mac.Write(nonce)
	return fmt.Appendf(nil, "%x\n", mac.Sum(nil))
}

// Probe knocks once and returns nil when this process answered within 5 s.
func (p *Prober) Probe(ctx context.Context) error {
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce)
	nonce = hex.AppendEncode(nil, nonce)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(nonce))
	if err != nil {
		return err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	want := p.Answer(nonce)
	got, err := io.ReadAll(io.LimitReader(res.Body, int64(len(want)+1)))
	switch {
	case err != nil:
		return fmt.Errorf("POST %s: %w", p.url, err)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("POST %s: %s", p.url, res.Status)
	case !hmac.Equal(got, want):
		return fmt.Errorf("POST %s: %w", p.url, ErrAnotherAnswered)
	}
	return nil
}
