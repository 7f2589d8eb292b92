// Package simulate is a fleet of made-up agents and controllers that post to a hub,
// to try it out and to measure it.
//
// Every host is an [Agent] with a history that moves, and in the first guests of each
// there is a [Controller], where its customer's key is there; both behave as the
// contract says agents do: it keeps a report that was not accepted and sends
// the same bytes again, when the hub says or with backoff, before it makes a
// new one. Hosts take turns evenly over the interval, on a bounded number of
// connections. All is made so cheap that hub and simulator can share two cores.
package simulate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Options are what a simulation needs. URL, Keys and Interval are required.
type Options struct {
	URL  string // the hub's address, as http://127.0.0.1:8080
	Keys []Credential

	Hosts       int           // the first so many of those in Keys; 0: all
	Controllers int           // of each host whose customer's key is in Keys, in its first guests
	Interval    time.Duration // between two reports of a host, and of a controller
	Guests      int           // of each host, about
	Rate        float64       // reports and events a second in all, at most; 0: no limit
	Duration    time.Duration // 0: until the context ends
	Connections int           // at most; 0: 256, or one a sender where that is less
	Seed        uint64        // the same seed gives the same hosts and controllers
	TLS         *tls.Config   // for https; nil: the machine's authorities

	// Acknowledged, where set, is told of every report of a host that was answered
	// with 200: whose it was and the SHA-256 of its body. It is called concurrently.
	Acknowledged func(hostID string, sum [sha256.Size]byte)
}

const (
	defaultConnections = 256
	exchangeTimeout    = 60 * time.Second
	drainTime          = 10 * time.Second // for what is under way at the end
	minBackoff         = time.Second
	maxBackoff         = 30 * time.Second
)

// Simulation is a fleet of agents. Pause, Resume and Result may be called while
// Run runs.
type Simulation struct {
	options Options
	dial    func(context.Context) (net.Conn, error)
	posters []*poster
	byHost  map[string][]*poster // the host's own is the first
	queue   chan *poster         // those whose turn it is; holds every poster, each at most once

	mu      sync.Mutex // guards the fields below and every poster's
	tally   tally
	started time.Time
	ended   time.Time
}

// poster is one agent or controller and what it has to send.
type poster struct {
	hostID string // empty: it is a controller
	sender sender // used by whoever took the poster from the queue

	pending  *message // what was not accepted yet; nil: nothing
	failures int      // in a row
	busy     bool     // in the queue, with a worker, or waiting for a retry
	paused   bool
	timer    *time.Timer // of the retry
}

// message is a body and what goes before it.
type message struct{ head, body []byte }

// sender makes what one agent or controller sends.
type sender interface {
	// next appends a body to dst and returns it, with the request line and headers that
	// go before it, up to the value of Content-Length.
	next(dst []byte, at time.Time) (head, body []byte)
}

type hostSender struct {
	*Agent
	head []byte
}

func (h hostSender) next(dst []byte, at time.Time) (head, body []byte) {
	return h.head, h.AppendReport(dst, at)
}

type controllerSender struct {
	*Controller
	report, event []byte // heads
}

func (c controllerSender) next(dst []byte, at time.Time) (head, body []byte) {
	if body, told := c.AppendEvent(dst, at); told {
		return c.event, body
	}
	return c.report, c.AppendReport(dst, at)
}

// New checks the options and makes the agents. It sends nothing.
func New(o Options) (*Simulation, error) {
	target, err := url.Parse(o.URL)
	if err != nil || target.Host == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return nil, fmt.Errorf("%q is no address of a hub: write it as http://127.0.0.1:8080", o.URL)
	}
	hosts, customers := split(o.Keys)
	if o.Hosts == 0 {
		o.Hosts = len(hosts)
	}
	switch {
	case len(hosts) == 0:
		return nil, errors.New("no keys to report with: hub fleet enroll --json prints them")
	case o.Hosts < 0 || o.Hosts > len(hosts):
		return nil, fmt.Errorf("%d hosts are wanted, and there are keys for %d: enroll more with hub fleet enroll --count", o.Hosts, len(hosts))
	case o.Interval <= 0:
		return nil, errors.New("the interval must be longer than 0")
	case o.Guests < 0 || o.Controllers < 0 || o.Rate < 0 || o.Duration < 0 || o.Connections < 0:
		return nil, errors.New("guests, controllers, rate, duration and connections must not be negative")
	}
	s := &Simulation{
		dial:   dialer(target, o.TLS),
		byHost: make(map[string][]*poster, o.Hosts),
		tally:  tally{errors: make(map[string]int64)},
	}
	head := func(path string, c Credential) []byte {
		return fmt.Appendf(nil, "POST %s/api/v1/%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: hub-simulate\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: ",
			strings.TrimSuffix(target.EscapedPath(), "/"), path, target.Host, c.APIKey.Reveal())
	}
	for _, c := range hosts[:o.Hosts] {
		s.add(c.HostID, &poster{hostID: c.HostID, sender: hostSender{NewAgent(o.Seed, c.HostID, o.Guests), head("host-report", c)}})
		key, ok := customers[c.customer()]
		for n := range min(o.Controllers, o.Guests) {
			if ok {
				made := NewController(o.Seed, key.Customer, hub.GuestID(c.HostID, firstVMID+uint32(n)))
				s.add(c.HostID, &poster{sender: controllerSender{made, head("report", key), head("event", key)}})
			}
		}
	}
	if o.Connections == 0 {
		o.Connections = defaultConnections
	}
	o.Connections = min(o.Connections, len(s.posters))
	s.options, s.queue = o, make(chan *poster, len(s.posters))
	return s, nil
}

// split tells the keys of hosts from those of customers.
func split(keys []Credential) (hosts []Credential, customers map[string]Credential) {
	customers = map[string]Credential{}
	for _, c := range keys {
		if c.Customer != "" {
			customers[c.Customer] = c
		} else {
			hosts = append(hosts, c)
		}
	}
	return hosts, customers
}

func (s *Simulation) add(hostID string, p *poster) {
	s.posters = append(s.posters, p)
	s.byHost[hostID] = append(s.byHost[hostID], p)
}

// Run runs a simulation to its end: New and its Run.
func Run(ctx context.Context, o Options) (Result, error) {
	s, err := New(o)
	if err != nil {
		return Result{}, err
	}
	return s.Run(ctx), nil
}

// Run lets the agents report until ctx ends or the duration is over, which is
// no error. What is under way then is finished, within 10 s. Call it once.
func (s *Simulation) Run(ctx context.Context) Result {
	if s.options.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.options.Duration)
		defer cancel()
	}
	// Exchanges outlive ctx for as long as the drain may take.
	alive, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cancel) })

	s.mu.Lock()
	s.started = time.Now()
	s.mu.Unlock()
	var workers sync.WaitGroup
	for range s.options.Connections {
		workers.Go(func() { s.work(ctx, alive) })
	}
	s.schedule(ctx)
	workers.Wait()

	s.mu.Lock()
	s.ended = time.Now()
	for _, p := range s.posters {
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	s.mu.Unlock()
	return s.Result()
}

// Result returns the numbers up to now.
func (s *Simulation) Result() Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.ended
	if end.IsZero() {
		end = time.Now()
	}
	if s.started.IsZero() {
		end = s.started
	}
	r := s.tally.result(len(s.byHost), end.Sub(s.started))
	r.Controllers = len(s.posters) - len(s.byHost)
	for _, p := range s.posters {
		if p.pending != nil {
			r.Pending++
		}
	}
	return r
}

// Pause silences one host, and the controllers in its guests; what is under way is
// finished.
func (s *Simulation) Pause(hostID string) error {
	return s.each(hostID, func(p *poster) { p.paused = true })
}

// Resume wakes a host that was silenced, and the controllers in its guests; they
// report at once.
func (s *Simulation) Resume(hostID string) error {
	return s.each(hostID, func(p *poster) {
		if p.paused {
			p.paused = false
			s.enqueue(p)
		}
	})
}

// each does something to a host and to the controllers in its guests.
func (s *Simulation) each(hostID string, do func(*poster)) error {
	posters, ok := s.byHost[hostID]
	if !ok {
		return fmt.Errorf("no simulated host is called %s", hostID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range posters {
		do(p)
	}
	return nil
}

// enqueue gives p its turn unless it is busy. The caller holds the lock. The
// queue has room for every poster, so this never blocks.
func (s *Simulation) enqueue(p *poster) bool {
	if p.busy {
		return false
	}
	p.busy = true
	s.queue <- p
	return true
}

// schedule gives every sender its turn once an interval, evenly spread; with a
// rate that is too small for that, less often.
func (s *Simulation) schedule(ctx context.Context) {
	step := s.options.Interval / time.Duration(len(s.posters))
	if s.options.Rate > 0 {
		step = max(step, time.Duration(float64(time.Second)/s.options.Rate))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	begin := time.Now()
	for turn := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		if late := now.Sub(begin.Add(time.Duration(turn) * step)); late > s.options.Interval {
			begin = begin.Add(late) // the machine slept: those turns are over
		}
		s.mu.Lock()
		for ; !begin.Add(time.Duration(turn) * step).After(now); turn++ {
			p := s.posters[turn%len(s.posters)]
			if !p.paused && !s.enqueue(p) {
				s.tally.skipped++
			}
		}
		s.mu.Unlock()
		// Waking up for every report costs more than making it.
		timer.Reset(max(time.Millisecond, time.Until(begin.Add(time.Duration(turn)*step))))
	}
}

// work sends reports on one connection until ctx ends; exchanges end with alive.
func (s *Simulation) work(ctx, alive context.Context) {
	l := &link{dial: s.dial, timeout: exchangeTimeout}
	defer l.close()
	var body, request []byte
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-s.queue:
			if ctx.Err() != nil {
				return
			}
			again, silent := s.take(p)
			if silent {
				continue
			}
			var m message
			if again != nil {
				m = *again
			} else {
				m.head, m.body = p.sender.next(body[:0], time.Now())
				body = m.body
			}
			request = append(request[:0], m.head...)
			request = strconv.AppendInt(request, int64(len(m.body)), 10)
			request = append(request, "\r\n\r\n"...)
			request = append(request, m.body...)
			begin := time.Now()
			answer, err := l.post(alive, request)
			s.settle(p, m, again != nil, answer, err, time.Since(begin))
		}
	}
}

// take returns what p still has to send, if anything, and whether p was
// silenced since it was put into the queue.
func (s *Simulation) take(p *poster) (pending *message, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.paused {
		p.busy = false
		return nil, true
	}
	return p.pending, false
}

// settle notes how an exchange went and decides what becomes of what was sent.
func (s *Simulation) settle(p *poster, m message, again bool, answer reply, err error, took time.Duration) {
	acknowledged := err == nil && (answer.status == http.StatusOK || answer.status == http.StatusAccepted)
	if acknowledged && p.hostID != "" && s.options.Acknowledged != nil {
		s.options.Acknowledged(p.hostID, sha256.Sum256(m.body))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tally
	t.sent++
	if again {
		t.retried++
	}
	if err != nil {
		t.errors[kind(err)]++
	} else {
		t.statuses[min(answer.status, len(t.statuses)-1)]++
	}
	switch {
	case acknowledged:
		t.acknowledged++
		t.bytes += int64(len(m.body))
		t.latency.Add(took)
		p.pending, p.failures, p.busy = nil, 0, false
	case err == nil && !keeps(answer.status):
		t.setAside++
		p.pending, p.failures, p.busy = nil, 0, false
	default:
		if !again {
			p.pending = &message{m.head, bytes.Clone(m.body)}
		}
		p.failures++
		p.timer = time.AfterFunc(s.wait(p, answer.after), func() { s.queue <- p })
	}
}

// keeps reports whether an agent keeps a report that got this status.
func keeps(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// wait returns how long p waits until it tries again: what the hub said, else a
// doubling time with jitter.
func (s *Simulation) wait(p *poster, said time.Duration) time.Duration {
	if said > 0 {
		return said
	}
	backoff := min(minBackoff<<min(p.failures-1, 10), maxBackoff)
	return backoff/2 + rand.N(backoff/2)
}
