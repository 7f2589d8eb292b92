package torture

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// trouble is what the proxy does to inserts.
type trouble struct {
	what  harm
	code  int           // of the exception, for refuseQuery and refuseData
	delay time.Duration // for slow and late
}

type harm int

const (
	none        harm = iota
	away             // nobody answers at all
	cut              // the connection breaks after the last byte of an insert went through
	late             // the connection breaks at the hub's side; the last bytes arrive after a delay
	loseReply        // the server's reply to an insert is lost, and the connection with it
	refuseQuery      // an exception answers an insert before its data
	refuseData       // an exception answers an insert's data
	slow             // the reply to an insert comes after a delay
)

// proxy stands between hub and ClickHouse on the native protocol. It knows as
// much of it as its troubles need (native.go).
type proxy struct {
	listener net.Listener
	target   func() string // host:port of the engine
	trouble  atomic.Pointer[trouble]
	done     atomic.Int64 // troubles that happened
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newProxy(target func() string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, conns: make(map[net.Conn]bool)}
	p.trouble.Store(&trouble{})
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// make sets the trouble for what comes from now on.
func (p *proxy) make(t trouble) {
	p.trouble.Store(&t)
	if t.what == away {
		p.hangUp()
	}
}

func (p *proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.hangUp()
	p.running.Wait()
}

// happened waits until the trouble took place n times more than before.
func (p *proxy) happened(ctx context.Context, before, n int64) bool {
	for p.done.Load() < before+n {
		if !sleep(ctx, time.Millisecond) {
			return false
		}
	}
	return true
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.trouble.Load().what == away {
			_ = c.Close()
			continue
		}
		server, err := net.DialTimeout("tcp", p.target(), time.Second)
		if err != nil {
			_ = c.Close()
			continue
		}
		p.keep(c, true)
		p.keep(server, true)
		r := &relay{proxy: p, client: c, server: server}
		p.running.Go(func() { r.run() })
	}
}

func (p *proxy) keep(c net.Conn, yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if yes {
		p.conns[c] = true
	} else {
		delete(p.conns, c)
	}
}

// relay is one connection through the proxy.
type relay struct {
	*proxy
	client, server net.Conn
	asked          insertWatch
	swallow        bool         // of an insert that is refused, no data goes through
	ended          atomic.Value // trouble of an insert whose data are through and whose reply is not
}

func (r *relay) run() {
	r.ended.Store(trouble{})
	var both sync.WaitGroup
	both.Go(r.forth)
	both.Go(r.back)
	both.Wait()
	for _, c := range []net.Conn{r.client, r.server} {
		_ = c.Close()
		r.keep(c, false)
	}
}

// forth carries what the hub says to the server.
func (r *relay) forth() {
	defer r.server.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := r.client.Read(buf)
		if n > 0 && !r.pass(buf[:n]) {
			return
		}
		if err != nil {
			return
		}
	}
}

// pass carries one piece to the server, or does the trouble instead.
func (r *relay) pass(b []byte) bool {
	t := *r.trouble.Load()
	data := r.asked.data
	begun, ended := r.asked.see(b)
	switch {
	case begun && t.what == refuseQuery:
		r.asked = insertWatch{} // the server has not heard of it
		r.done.Add(1)
		_, err := r.client.Write(exception(t.code))
		return err == nil
	case data && t.what == refuseData:
		r.swallow = true
	}
	if r.swallow {
		if !ended {
			return true
		}
		r.done.Add(1)
		_, _ = r.client.Write(exception(t.code))
		return false
	}
	if ended {
		return r.last(b, t)
	}
	_, err := r.server.Write(b)
	return err == nil
}

// last carries the last bytes of an insert to the server.
func (r *relay) last(b []byte, t trouble) bool {
	switch t.what {
	case loseReply, slow:
		r.ended.Store(t)
	case late:
		r.done.Add(1)
		rest := bytes.Clone(b)
		_ = r.client.Close()
		time.Sleep(t.delay)
		_, _ = r.server.Write(rest)
		time.Sleep(t.delay) // a connection that is reset at once could take the bytes along
		return false
	}
	if _, err := r.server.Write(b); err != nil {
		return false
	}
	if t.what == cut {
		r.done.Add(1)
		_ = r.client.Close()
		return false
	}
	return true
}

// back carries what the server says to the hub.
func (r *relay) back() {
	defer r.client.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.server.Read(buf)
		if err != nil && n == 0 {
			return
		}
		switch t := r.ended.Swap(trouble{}).(trouble); t.what {
		case loseReply:
			r.done.Add(1)
			return
		case slow:
			r.done.Add(1)
			time.Sleep(t.delay)
		}
		if _, err := r.client.Write(buf[:n]); err != nil {
			return
		}
	}
}
