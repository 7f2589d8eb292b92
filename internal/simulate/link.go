package simulate

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// link is one keep-alive connection to the hub, used by one goroutine. It is
// written by hand because the simulator shares its processors with the hub that
// it measures: net/http's client costs three times as much per report.
type link struct {
	dial    func(context.Context) (net.Conn, error)
	timeout time.Duration // of one exchange
	conn    net.Conn
	reader  *bufio.Reader
	unwatch func() bool
}

// reply is what an agent reads of an answer.
type reply struct {
	status int
	after  time.Duration // Retry-After; 0: none named
}

// post sends one whole request and reads the answer. A connection that was used
// before may have been closed meanwhile, so a failure there is tried once more
// on a new one.
func (l *link) post(ctx context.Context, request []byte) (answer reply, err error) {
	used := l.conn != nil
	if used {
		answer, err = l.exchange(request)
	}
	if !used || (err != nil && ctx.Err() == nil) {
		if err = l.open(ctx); err == nil {
			answer, err = l.exchange(request)
		}
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // why the connection was closed under our hands
	}
	return answer, err
}

func (l *link) open(ctx context.Context) error {
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	l.conn = conn
	if l.reader == nil {
		l.reader = bufio.NewReader(conn)
	} else {
		l.reader.Reset(conn)
	}
	l.unwatch = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return nil
}

func (l *link) close() {
	if l.conn != nil {
		l.unwatch()
		_ = l.conn.Close()
		l.conn = nil
	}
}

func (l *link) exchange(request []byte) (answer reply, err error) {
	keep := false
	defer func() {
		if !keep {
			l.close()
		}
	}()
	if err := l.conn.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return reply{}, err
	}
	if _, err := l.conn.Write(request); err != nil {
		return reply{}, err
	}
	response, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return reply{}, err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return reply{}, err
	}
	keep = !response.Close
	return reply{response.StatusCode, retryAfter(response.Header)}, response.Body.Close()
}

// retryAfter reads the header as seconds, the only form that the hub sends.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// dialer returns how to connect to the hub at u.
func dialer(u *url.URL, config *tls.Config) func(context.Context) (net.Conn, error) {
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), u.Scheme)
	}
	plain := &net.Dialer{Timeout: 10 * time.Second}
	if u.Scheme == "http" {
		return func(ctx context.Context) (net.Conn, error) { return plain.DialContext(ctx, "tcp", address) }
	}
	secure := &tls.Dialer{NetDialer: plain, Config: config}
	return func(ctx context.Context) (net.Conn, error) { return secure.DialContext(ctx, "tcp", address) }
}
