// Package httpapi is what the hub says over HTTP: routes, limits, and which
// error becomes which reply.
//
// There are three servers. The public one takes what agents send; every request
// passes the same checks in the order that the contract fixes, the first that
// fails answers, and nothing is read of a body before its key is known. The
// admin one only reads: health, metrics, profiles and the state of the fleet. The
// one on the control socket is for the operator's commands.
//
// What is decided about a report is not decided here but behind [Reports].
package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/control"
	"felhom.eu/hub/internal/fair"
	"felhom.eu/hub/internal/hub"
)

// Reports decides about what hosts and controllers send; the methods are called in
// this order.
type Reports interface {
	// Ready returns nil, or Unavailable while no fleet is in force.
	Ready() error
	// Identify finds the key of an Authorization header. With an error, the key
	// is the one refused, where it is known.
	Identify(authorization string, from netip.Addr) (hub.Key, error)
	// Admit says whether the key may report, and so often, and for which customer;
	// "" for a global key.
	Admit(key hub.Key) (customer string, err error)
	// Accept returns the reply once the report is durable; customer is Admit's
	// answer, and body the caller's again after the return.
	Accept(ctx context.Context, key hub.Key, customer string, body []byte) (envelope []byte, retry bool, err error)

	// AdmitController and AcceptController are Admit and Accept for reports of
	// controllers, AdmitEvent and AcceptEvent for their events.
	AdmitController(key hub.Key) (customer string, err error)
	AcceptController(ctx context.Context, key hub.Key, customer string, body []byte) (reply []byte, retry bool, err error)
	AdmitEvent(key hub.Key) (customer string, err error)
	AcceptEvent(ctx context.Context, key hub.Key, customer string, body []byte) (reply []byte, retry bool, err error)

	// AdmitReader says whether the key may read, and so often, and of which customer
	// alone; "" for a global key.
	AdmitReader(key hub.Key) (customer string, err error)

	// Refused is told, at any point, of a request that is refused and whose key
	// is known.
	Refused(key hub.Key, err error)
	// Failed counts a request without the secret that it should show. It returns
	// err, or RateLimited after too many from the client's network.
	Failed(from netip.Addr, err error) error
}

// Minter makes new hosts. Its errors are *hub.Error: Invalid for an unknown
// customer, Unavailable where nothing was left behind and a retry may work.
type Minter interface {
	Mint(ctx context.Context, customerID, displayName string) (Minted, error)
}

// Minted is a new host and where it was committed.
type Minted struct {
	HostID string
	APIKey hub.Secret
	Commit string
	Branch string
}

// Options are what a Server needs. Reports, Ready and FleetStatus are required,
// and Status where there is a ControlSocket.
type Options struct {
	Listen      string      // for agents; ":0" picks a port
	AdminListen string      // for operators; never public
	TLS         *tls.Config // nil: Listen is plain HTTP

	ControlSocket string // path, in a folder that is the hub's alone; empty: none

	Reports     Reports
	Minter      Minter                       // nil: minting is switched off
	Reading     Reading                      // nil: nothing can be read on Listen
	Ready       func() (ok bool, detail any) // would a report sent now be acknowledged? detail becomes JSON
	FleetStatus func() any                   // becomes JSON
	Webhook     *Webhook                     // nil: there is none
	Probe       func(nonce []byte) []byte    // the answer to a probe of Listen; nil: there is none

	// Status is what hub status shows, as JSON; owner is empty or names one whose
	// keys are wanted. Accept brings a held revision in force and returns what
	// happened, as JSON; nil: that cannot be done.
	Status func(owner string) (any, error)
	Accept func(ctx context.Context, revision string) (any, error)

	// Explain tells, as JSON, what the switch knows of a host at an instant, zero for
	// now, and decides; nil: that cannot be asked.
	Explain func(ctx context.Context, host string, at time.Time) (any, error)

	// Replay makes rows of rejected records, or with dryRun says whether it could,
	// and returns what became of each, as JSON; nil: that cannot be done.
	Replay func(ctx context.Context, positions []hub.Position, dryRun bool) (any, error)

	Notifications *Notifications // nil: there are none

	MaxConnections   int      // on Listen; 0: 4096
	MaxInFlightBytes int64    // of bodies in memory; 0: 256 MiB
	Metrics          []Metric // shown with the server's own

	Logger *slog.Logger // nil: discard
}

// Limits that are not for an operator to choose.
const (
	maxReportBytes     = 4 << 20
	maxControllerBytes = 1 << 20
	maxEventBytes      = 64 << 10
	maxMintBytes       = 64 << 10

	// net/http reads up to 4 KiB beyond MaxHeaderBytes before it answers 431:
	// together they are 16 KiB.
	maxHeaderBytes = 12 << 10

	// bufferedHTTP2 is what a connection may send before anyone reads it, and
	// before its key is known: the least that HTTP/2 allows.
	bufferedHTTP2 = 64 << 10

	defaultConnections = 4096
	defaultInFlight    = 256 << 20
)

// timeouts of the public server; tests have shorter ones.
type timeouts struct{ header, read, write, idle time.Duration }

var publicTimeouts = timeouts{header: 10 * time.Second, read: 30 * time.Second, write: 60 * time.Second, idle: 60 * time.Second}

// Server is the three servers. New binds their addresses, Start serves.
type Server struct {
	o        Options
	log      *slog.Logger
	metrics  *metrics
	bodies   *bodies
	hints    *hints
	readers  *fair.Shares
	stopping atomic.Bool
	public   endpoint
	control  endpoint // without a server where there is no socket
	admin    endpoint
	failed   chan error
	start    sync.Once
	serving  sync.WaitGroup
}

type endpoint struct {
	server   *http.Server
	listener net.Listener
}

// New binds all addresses, so that a taken port is known before anything else
// starts. Nothing is served yet.
func New(o Options) (*Server, error) { return newServer(o, publicTimeouts) }

func newServer(o Options, t timeouts) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = defaultConnections
	}
	if o.MaxInFlightBytes == 0 {
		o.MaxInFlightBytes = defaultInFlight
	}
	s := &Server{o: o, log: o.Logger, hints: newHints(), readers: fair.New(readerShares), failed: make(chan error, 3)}
	var err error
	if s.bodies, err = newBodies(o.MaxInFlightBytes); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	limited := limitConnections(s.public.listener, o.MaxConnections, o.TLS == nil)
	if s.metrics, err = newMetrics(o.Metrics, limited, s.bodies); err != nil {
		s.closeListeners()
		return nil, err
	}
	count := s.metrics.counter("-")
	limited.refused = func() { count(http.StatusServiceUnavailable, "connections") }
	s.public.listener = limited
	if o.TLS != nil {
		secure := o.TLS.Clone()
		secure.NextProtos = []string{"h2", "http/1.1"}
		s.public.listener = tls.NewListener(limited, secure)
	}

	slow := timeouts{t.header, t.read, 5 * time.Minute, t.idle} // a profile takes its time, and so does a pull
	s.public.server = s.newHTTPServer(s.Public(), t)
	s.admin.server = s.newHTTPServer(s.Admin(), slow)
	if s.control.listener != nil {
		s.control.server = s.newHTTPServer(s.Control(), slow)
	}
	return s, nil
}

// listen binds the addresses, all or none.
func (s *Server) listen() (err error) {
	defer func() {
		if err != nil {
			s.closeListeners()
		}
	}()
	if s.public.listener, err = net.Listen("tcp", s.o.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if s.admin.listener, err = net.Listen("tcp", s.o.AdminListen); err != nil {
		return fmt.Errorf("admin_listen: %w", err)
	}
	if s.o.ControlSocket != "" {
		s.control.listener, err = control.Listen(s.o.ControlSocket)
	}
	return err
}

func (s *Server) closeListeners() {
	for _, e := range s.endpoints() {
		_ = e.listener.Close()
	}
}

// endpoints returns those that are bound, in the order in which they stop.
func (s *Server) endpoints() []endpoint {
	return slices.DeleteFunc([]endpoint{s.public, s.control, s.admin}, func(e endpoint) bool { return e.listener == nil })
}

func (s *Server) newHTTPServer(h http.Handler, t timeouts) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: t.header, ReadTimeout: t.read, WriteTimeout: t.write, IdleTimeout: t.idle,
		MaxHeaderBytes:               maxHeaderBytes,
		Protocols:                    protocols(),
		HTTP2:                        &http.HTTP2Config{MaxReceiveBufferPerConnection: bufferedHTTP2, MaxReceiveBufferPerStream: bufferedHTTP2},
		DisableGeneralOptionsHandler: true, // OPTIONS * is a method like any other
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// protocols are HTTP/1.1 and HTTP/2, the latter also in the clear, for proxies
// that end TLS.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// Addr returns the address on which agents are served.
func (s *Server) Addr() string { return s.public.listener.Addr().String() }

// AdminAddr returns the address on which operators are served.
func (s *Server) AdminAddr() string { return s.admin.listener.Addr().String() }

// Start begins to serve. Calling it again does nothing.
func (s *Server) Start() {
	s.start.Do(func() {
		for _, e := range s.endpoints() {
			s.serving.Go(func() {
				if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
					s.failed <- fmt.Errorf("serve %s: %w", e.listener.Addr(), err)
				}
			})
		}
	})
}

// Failed tells of a server that stopped by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Stop ends serving: requests that still come on open connections get 503,
// those under way may finish until ctx ends, then their connections are cut.
// The admin server goes last, so that a stop can be watched. Calling it again,
// or without Start, is fine.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	var errs []error
	for _, e := range s.endpoints() {
		if err := e.server.Shutdown(ctx); err != nil {
			errs = append(errs, err, e.server.Close())
		}
		_ = e.listener.Close() // Serve may never have owned it
	}
	s.serving.Wait()
	return errors.Join(errs...)
}
