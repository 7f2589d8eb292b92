package httpapi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

// connectionLimit is a listener that keeps at most max connections open. One
// more is told 503 and closed, without waiting and without a request being
// read, so the limit holds also against clients that send nothing.
type connectionLimit struct {
	net.Listener
	max     int64
	plain   bool   // a reply in the clear would be understood
	refused func() // called for each connection over the limit
	open    atomic.Int64
	telling chan struct{} // bounds how many are being told
}

const (
	maxTelling  = 64
	tellingTime = time.Second
)

func limitConnections(l net.Listener, most int, plain bool) *connectionLimit {
	return &connectionLimit{Listener: l, max: int64(most), plain: plain, refused: func() {}, telling: make(chan struct{}, maxTelling)}
}

// Accept returns the next connection within the limit.
func (l *connectionLimit) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.max {
			return &countedConn{Conn: c, closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		l.refused()
		l.turnAway(c)
	}
}

func (l *connectionLimit) turnAway(c net.Conn) {
	select {
	case l.telling <- struct{}{}:
	default:
		_ = c.Close()
		return
	}
	go func() {
		defer func() { <-l.telling }()
		defer c.Close()
		if !l.plain {
			return
		}
		_ = c.SetDeadline(time.Now().Add(tellingTime))
		if _, err := c.Write(tooManyConnections()); err != nil {
			return
		}
		// Closing with unread bytes would reset the connection, and the client
		// might lose the reply: say that no more comes, and read a little.
		if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, c, firstBuffer)
		}
	}()
}

func tooManyConnections() []byte {
	const status = http.StatusServiceUnavailable
	body := wire.ProblemJSON(&hub.Error{Message: "too many connections"}, status)
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nRetry-After: %s\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), problemType, len(body), retryAfter(retryStopping), body)
}

// countedConn leaves the count when it is first closed.
type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}
