package app_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// link is the wire to ClickHouse, and what goes wrong on it.
type link struct {
	listener net.Listener
	server   func() string // host:port of ClickHouse
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
	held  chan struct{} // answers wait until it is closed; nil: they do not
	about []byte        // those to questions that have these words, and what comes after
	waits int           // answers that wait
	table string        // stands for host_last where the newest reports are asked for; empty: nothing does
	bent  int           // questions for which it did
}

func newLink(t *testing.T, server func() string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, server: server, conns: map[net.Conn]bool{}}
	l.running.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.release()
		l.sever()
		l.running.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.DialTimeout("tcp", l.server(), time.Second)
		if err != nil || !l.keep(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		r := &relay{link: l}
		l.running.Go(func() { l.carry(server, client, r.ask) })
		l.running.Go(func() { l.carry(client, server, r.answer) })
	}
}

// keep notes connections, unless the wire is cut.
func (l *link) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.conns[c] = !l.cut
	}
	return !l.cut
}

// carry brings what one side says to the other.
func (l *link) carry(to, from net.Conn, pass func([]byte) []byte) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(pass(buf[:n])); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// relay is one connection.
type relay struct {
	*link
	waits chan struct{} // guarded by mu: until it is closed answers wait here
}

func (r *relay) ask(question []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != nil && bytes.Contains(question, r.about) {
		r.waits = r.held
	}
	latest := []byte("FROM host_last FINAL") // put in its place is as many bytes: the packet tells their number
	if r.table == "" || !bytes.Contains(question, latest) {
		return question
	}
	r.bent++
	return bytes.ReplaceAll(question, latest, []byte("FROM "+r.table+"      "))
}

func (r *relay) answer(answer []byte) []byte {
	r.mu.Lock()
	waits := r.waits
	if waits != nil && waits == r.held {
		r.link.waits++
	}
	r.mu.Unlock()
	if waits != nil {
		<-waits // a closed one is no obstacle
	}
	return answer
}

// sever cuts the wire; nobody gets through until mend.
func (l *link) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Close()
	}
	clear(l.conns)
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// hold has the answers to questions that have some words wait for release; no
// words: all.
func (l *link) hold(about string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.waits, l.about = make(chan struct{}), 0, []byte(about)
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

func (l *link) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits > 0
}

// bend has questions for the newest reports answered from another table, whose
// name is as long as host_last; empty: no more. It returns how many were.
func (l *link) bend(table string) (bent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bent, l.bent, l.table = l.bent, 0, table
	return bent
}
