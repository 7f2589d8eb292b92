package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// reconnect has the spare hosts connect and report within a second.
func reconnect(s *stand, n int) (time.Duration, error) {
	if err := s.traffic(500*time.Millisecond, time.Second); err != nil {
		return 0, err
	}
	s.killHub()
	if _, err := s.restart(time.Now()); err != nil {
		return 0, err
	}
	crowd := newAgents(s.listen, s.site.keys[len(s.agents.members):], s.ledger, 1, uint64(n))
	defer s.watch("not all who reconnected were acknowledged")()
	began := time.Now()
	for _, a := range crowd.members {
		crowd.running.Go(func() {
			if sleep(s.alive, rand.N(time.Second)) {
				a.report(s.alive, nil)
				a.link.close()
			}
		})
	}
	crowd.running.Wait()
	return since(began, context.Cause(s.alive))
}

const (
	slowHeaders, slowBodies = 2000, 1000
	dribble                 = time.Second      // between two bytes
	dribbleFor              = 13 * time.Second // the hub waits 10 s for a header
)

// slowClients dribbles requests beside the good agents. The hub must end those
// that do not come to the end of their header.
func slowClients(s *stand, _ int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(s.alive, dribbleFor)
	defer cancel()
	var clients sync.WaitGroup
	var connected, ended atomic.Int64
	body := append(s.agents.members[0].head, "2000\r\n\r\n{"...)
	for i := range slowHeaders + slowBodies {
		request, counts := []byte("POST /api/v1/host-report HTTP/1.1\r\nHost: hub\r\nX-Slow: "), true
		if i >= slowHeaders {
			request, counts = body, false
		}
		clients.Go(func() {
			conn, err := net.DialTimeout("tcp", s.listen, exchangeTimeout)
			if err != nil {
				return
			}
			defer conn.Close()
			connected.Add(1)
			if dribbles(ctx, conn, request) && counts {
				ended.Add(1)
			}
		})
	}
	err := s.until("3,000 slow connections", func() bool { return connected.Load() == slowHeaders+slowBodies })
	all := time.Now()
	if err == nil {
		err = s.acknowledges(all)
	}
	took := time.Since(all)
	clients.Wait()
	if n := ended.Load(); err == nil && n < slowHeaders {
		err = fmt.Errorf("the hub ended %d of %d connections whose header did not come to an end", n, slowHeaders)
	}
	return took, err
}

// dribbles sends a request's beginning and then a byte at a time; it returns true
// when the hub has hung up.
func dribbles(ctx context.Context, conn net.Conn, request []byte) bool {
	if _, err := conn.Write(request); err != nil {
		return true
	}
	for {
		var b [512]byte
		_ = conn.SetReadDeadline(time.Now().Add(dribble))
		if _, err := conn.Read(b[:]); err != nil {
			if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
				return true
			}
		}
		if ctx.Err() != nil {
			return false
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			return true
		}
	}
}
