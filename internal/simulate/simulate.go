// Package simulate is a fleet of made-up agents that post to a hub, to try it
// out and to measure it.
//
// Every host is an [Agent] with a history that moves, and it behaves as the
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
)

// Options are what a simulation needs. URL, Keys and Interval are required.
type Options struct {
	URL  string // the hub's address, as http://127.0.0.1:8080
	Keys []Credential

	Hosts       int           // the first so many of Keys; 0: all
	Interval    time.Duration // between two reports of a host
	Guests      int           // of each host, about
	Rate        float64       // reports a second over all hosts, at most; 0: no limit
	Duration    time.Duration // 0: until the context ends
	Connections int           // at most; 0: 256, or one a host where that is less
	Seed        uint64        // the same seed gives the same hosts
	TLS         *tls.Config   // for https; nil: the machine's authorities

	// Acknowledged, where set, is told of every report that was answered with
	// 200: whose it was and the SHA-256 of its body. It is called concurrently.
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
	byHost  map[string]*poster
	queue   chan *poster // those whose turn it is; holds every poster, each at most once

	mu      sync.Mutex // guards the fields below and every poster's
	tally   tally
	started time.Time
	ended   time.Time
}

// poster is one agent and what it has to send.
type poster struct {
	hostID string
	head   []byte // request line and headers, up to the value of Content-Length
	agent  *Agent // used by whoever took the poster from the queue

	pending  []byte // a report that was not accepted yet
	failures int    // in a row
	busy     bool   // in the queue, with a worker, or waiting for a retry
	paused   bool
	timer    *time.Timer // of the retry
}

// New checks the options and makes the agents. It sends nothing.
func New(o Options) (*Simulation, error) {
	target, err := url.Parse(o.URL)
	if err != nil || target.Host == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return nil, fmt.Errorf("%q is no address of a hub: write it as http://127.0.0.1:8080", o.URL)
	}
	if o.Hosts == 0 {
		o.Hosts = len(o.Keys)
	}
	switch {
	case len(o.Keys) == 0:
		return nil, errors.New("no keys to report with: hub fleet enroll --json prints them")
	case o.Hosts < 0 || o.Hosts > len(o.Keys):
		return nil, fmt.Errorf("%d hosts are wanted, and there are keys for %d: enroll more with hub fleet enroll --count", o.Hosts, len(o.Keys))
	case o.Interval <= 0:
		return nil, errors.New("the interval must be longer than 0")
	case o.Guests < 0 || o.Rate < 0 || o.Duration < 0 || o.Connections < 0:
		return nil, errors.New("guests, rate, duration and connections must not be negative")
	}
	if o.Connections == 0 {
		o.Connections = defaultConnections
	}
	o.Connections = min(o.Connections, o.Hosts)
	s := &Simulation{
		options: o,
		dial:    dialer(target, o.TLS),
		byHost:  make(map[string]*poster, o.Hosts),
		queue:   make(chan *poster, o.Hosts),
		tally:   tally{errors: make(map[string]int64)},
	}
	path := strings.TrimSuffix(target.EscapedPath(), "/") + "/api/v1/host-report"
	for _, c := range o.Keys[:o.Hosts] {
		p := &poster{hostID: c.HostID, agent: NewAgent(o.Seed, c.HostID, o.Guests)}
		p.head = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: hub-simulate\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: ",
			path, target.Host, c.APIKey.Reveal())
		s.posters = append(s.posters, p)
		s.byHost[c.HostID] = p
	}
	return s, nil
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
	r := s.tally.result(len(s.posters), end.Sub(s.started))
	for _, p := range s.posters {
		if p.pending != nil {
			r.Pending++
		}
	}
	return r
}

// Pause silences one host; a report under way is finished.
func (s *Simulation) Pause(hostID string) error {
	p, ok := s.byHost[hostID]
	if !ok {
		return fmt.Errorf("no simulated host is called %s", hostID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.paused = true
	return nil
}

// Resume wakes a host that was silenced; it reports at once.
func (s *Simulation) Resume(hostID string) error {
	p, ok := s.byHost[hostID]
	if !ok {
		return fmt.Errorf("no simulated host is called %s", hostID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.paused {
		p.paused = false
		s.enqueue(p)
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

// schedule gives every host its turn once an interval, evenly spread; with a
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
			report := again
			if report == nil {
				body = p.agent.AppendReport(body[:0], time.Now())
				report = body
			}
			request = append(request[:0], p.head...)
			request = strconv.AppendInt(request, int64(len(report)), 10)
			request = append(request, "\r\n\r\n"...)
			request = append(request, report...)
			begin := time.Now()
			answer, err := l.post(alive, request)
			s.settle(p, report, again != nil, answer, err, time.Since(begin))
		}
	}
}

// take returns the report that p still has to send, if any, and whether p was
// silenced since it was put into the queue.
func (s *Simulation) take(p *poster) (pending []byte, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.paused {
		p.busy = false
		return nil, true
	}
	return p.pending, false
}

// settle notes how an exchange went and decides what becomes of the report.
func (s *Simulation) settle(p *poster, report []byte, again bool, answer reply, err error, took time.Duration) {
	acknowledged := err == nil && answer.status == http.StatusOK
	if acknowledged && s.options.Acknowledged != nil {
		s.options.Acknowledged(p.hostID, sha256.Sum256(report))
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
		t.bytes += int64(len(report))
		t.latency.Add(took)
		p.pending, p.failures, p.busy = nil, 0, false
	case err == nil && !keeps(answer.status):
		t.setAside++
		p.pending, p.failures, p.busy = nil, 0, false
	default:
		if !again {
			p.pending = bytes.Clone(report)
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
