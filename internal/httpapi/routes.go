package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"net/netip"

	"github.com/gorilla/mux"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/selfprobe"
	"felhom.eu/hub/internal/wire"
)

// Public returns what agents and controllers reach.
func (s *Server) Public() http.Handler {
	m := s.publicRoutes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The router's own ServeHTTP would copy the request twice, to note in it
		// the variables and the route; nothing here asks for them.
		var match mux.RouteMatch
		m.Match(r, &match) // always: there is a handler of what is not found
		match.Handler.ServeHTTP(w, r)
	})
}

func (s *Server) publicRoutes() *mux.Router {
	m := mux.NewRouter().SkipClean(true).UseEncodedPath() // a path that is not exactly right is unknown
	m.Handle("/api/v1/host-report", s.route("host-report", s.takeIn(hostReports), http.MethodPost))
	m.Handle("/api/v1/report", s.route("report", s.takeIn(controllerReports), http.MethodPost))
	m.Handle("/api/v1/event", s.route("event", s.takeIn(controllerEvents), http.MethodPost))
	m.Handle("/api/v1/admin/hosts", s.route("admin-hosts", s.mint, http.MethodPost))
	if s.o.Reading != nil {
		m.Handle("/api/v1/events", s.route("events", s.events, http.MethodGet, http.MethodHead))
		m.Handle("/api/v1/customer/status", s.route("customer-status", s.customerStatus, http.MethodGet, http.MethodHead))
	}
	if s.o.Webhook != nil {
		m.Handle(webhookPath, s.webhook())
	}
	if s.o.Probe != nil {
		m.Handle(selfprobe.Path, s.route("probe", s.probe, http.MethodPost))
	}
	m.NotFoundHandler = s.route("-", notFound)
	return m
}

// Admin returns what operators reach. It only reads.
func (s *Server) Admin() http.Handler {
	m := mux.NewRouter().SkipClean(true)
	read := []string{http.MethodGet, http.MethodHead}
	m.Handle("/healthz", s.route("healthz", s.healthz, read...))
	m.Handle("/readyz", s.route("readyz", s.readyz, read...))
	m.Handle("/api/v1/fleet/status", s.route("fleet-status", s.fleetStatus, read...))
	m.Handle("/metrics", s.metrics.handler())
	m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	m.HandleFunc("/debug/pprof/profile", pprof.Profile)
	m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("/debug/pprof/trace", pprof.Trace)
	m.PathPrefix("/debug/pprof/").HandlerFunc(pprof.Index)
	m.NotFoundHandler = s.route("-", notFound)
	return m
}

func notFound(*http.Request) reply {
	return problem(http.StatusNotFound, &hub.Error{Reason: "not_found", Message: "there is nothing at this path"})
}

// intake is one kind of what is taken in: reports of hosts and of controllers, and
// controllers' events.
type intake struct {
	admit  func(r Reports, key hub.Key) (customer string, err error)
	accept func(r Reports, ctx context.Context, key hub.Key, customer string, body []byte) (answer []byte, retry bool, err error)
	limit  int // of a body, in bytes
	status int // of the reply
}

var (
	hostReports       = intake{Reports.Admit, Reports.Accept, maxReportBytes, http.StatusOK}
	controllerReports = intake{Reports.AdmitController, Reports.AcceptController, maxControllerBytes, http.StatusOK}
	controllerEvents  = intake{Reports.AdmitEvent, Reports.AcceptEvent, maxEventBytes, http.StatusAccepted}
)

func (s *Server) takeIn(in intake) func(*http.Request) reply {
	return func(r *http.Request) reply {
		key, err := s.authorise(r)
		customer := ""
		if err == nil {
			customer, err = in.admit(s.o.Reports, key)
		}
		if err != nil {
			return s.refuse(r, key, err)
		}
		body, err := s.bodies.read(r, customer, in.limit)
		defer body.release()
		if err != nil {
			return s.refuse(r, key, err)
		}
		answer, retry, err := in.accept(s.o.Reports, r.Context(), key, customer, body.bytes)
		if err != nil {
			return s.refuse(r, key, err)
		}
		reason := "accepted"
		if retry {
			reason = "retry"
		}
		return reply{status: in.status, reason: reason, contentType: jsonType, body: answer}
	}
}

var (
	errNotGlobal = &hub.Error{Code: hub.Forbidden, Reason: "not_global", Message: "only a global key may add hosts"}
	errMintOff   = &hub.Error{Code: hub.Forbidden, Reason: "mint_off", Message: "adding hosts over HTTP is switched off",
		Hint: "open a pull request, or set fleet.mint"}
)

// mint makes a new host for a global key. Its reply is the only place where the
// new key stands in the clear.
func (s *Server) mint(r *http.Request) reply {
	key, err := s.authorise(r)
	switch {
	case err != nil:
	case key.Owner.Kind != hub.OwnerFleet:
		err = errNotGlobal
	case s.o.Minter == nil:
		err = errMintOff
	}
	if err != nil {
		return s.refuse(r, key, err)
	}
	body, err := s.bodies.read(r, "", maxMintBytes)
	defer body.release()
	if err != nil {
		return s.refuse(r, key, err)
	}
	request, err := wire.DecodeMintRequest(body.bytes)
	if err != nil {
		return s.refuse(r, key, err)
	}
	minted, err := s.o.Minter.Mint(r.Context(), request.CustomerID, request.DisplayName)
	if err != nil {
		return s.refuse(r, key, err)
	}
	s.log.Info("audit: host minted", "host", minted.HostID, "customer", request.CustomerID,
		"commit", minted.Commit, "branch", minted.Branch, "key_id", key.ID, "key_owner", key.Owner.String())
	return reply{
		status: http.StatusCreated, reason: "minted", contentType: jsonType,
		body: wire.EncodeMintReply(minted.HostID, minted.APIKey, minted.Commit, minted.Branch),
	}
}

var (
	errStopping = &hub.Error{Code: hub.Unavailable, Reason: "stopping", Message: "the hub is stopping", Retry: retryStopping}
	errTwoKeys  = &hub.Error{Code: hub.Invalid, Reason: "two_authorizations", Message: "there is more than one Authorization header"}
	errNonce    = &hub.Error{Code: hub.TooLarge, Reason: "too_large", Message: fmt.Sprintf("a nonce has at most %d bytes", selfprobe.MaxNonce)}
	errQuery    = &hub.Error{Code: hub.Invalid, Reason: "query", Message: "the address has a query string; keys belong in the Authorization header"}
)

// authorise makes the checks that come before the first look at a body:
// stopping or no fleet, the shape of the request, the key.
func (s *Server) authorise(r *http.Request) (hub.Key, error) {
	return s.identify(r, r.URL.RawQuery == "" && !r.URL.ForceQuery)
}

// identify is authorise where a query string may be fine.
func (s *Server) identify(r *http.Request, queryIsFine bool) (hub.Key, error) {
	if s.stopping.Load() {
		return hub.Key{}, errStopping
	}
	if err := s.o.Reports.Ready(); err != nil {
		return hub.Key{}, err
	}
	headers := r.Header["Authorization"]
	if len(headers) > 1 {
		return hub.Key{}, errTwoKeys
	}
	if !queryIsFine {
		return hub.Key{}, errQuery
	}
	authorization := ""
	if len(headers) == 1 {
		authorization = headers[0]
	}
	return s.o.Reports.Identify(authorization, remote(r))
}

// remote is the address of the peer. Forwarding headers are anyone's to write
// and are not believed.
func remote(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}

// probe answers whoever knocks; only the hub itself can tell whether the answer is
// right.
func (s *Server) probe(r *http.Request) reply {
	nonce, err := io.ReadAll(io.LimitReader(r.Body, selfprobe.MaxNonce+1))
	switch {
	case err != nil:
		return s.refuse(r, hub.Key{}, transferError(err))
	case len(nonce) > selfprobe.MaxNonce:
		return s.refuse(r, hub.Key{}, errNonce)
	}
	return reply{status: http.StatusOK, reason: "ok", contentType: "text/plain; charset=utf-8", body: s.o.Probe(nonce)}
}

// refuse turns an error into its reply, has it counted, and writes the audit line
// of a refused key. Refusals beyond the limit on failures are only counted, so that nobody
// can fill the log.
func (s *Server) refuse(r *http.Request, key hub.Key, err error) reply {
	if key.ID != "" {
		s.o.Reports.Refused(key, err)
	}
	return s.tell(r, key, err)
}

// tell is refuse for what is no post of a host or a controller, and is not counted as
// one.
func (s *Server) tell(r *http.Request, key hub.Key, err error) reply {
	switch hub.CodeOf(err) {
	case hub.Unauthorized, hub.Forbidden:
		known := []any{"reason", hub.ReasonOf(err), "path", r.URL.Path, "from", remote(r)}
		if key.ID != "" {
			known = append(known, "key_id", key.ID, "key_owner", key.Owner.String())
		}
		s.log.Warn("audit: key refused", known...)
	case hub.Internal:
		s.log.Error("a request failed", "path", r.URL.Path, "error", err)
	}
	return failure(err)
}

func (s *Server) healthz(*http.Request) reply {
	return reply{status: http.StatusOK, reason: "ok", contentType: textType, body: []byte("ok\n")}
}

// readyz says whether a report sent now would be acknowledged, and why not.
func (s *Server) readyz(*http.Request) reply {
	ready, detail := s.o.Ready()
	stopping := s.stopping.Load()
	ready = ready && !stopping
	r := showJSON(struct {
		Ready    bool `json:"ready"`
		Stopping bool `json:"stopping,omitempty"`
		Detail   any  `json:"detail"`
	}{ready, stopping, detail})
	if !ready && r.status == http.StatusOK {
		r.status, r.reason = http.StatusServiceUnavailable, "not_ready"
	}
	return r
}

func (s *Server) fleetStatus(*http.Request) reply { return showJSON(s.o.FleetStatus()) }

// showJSON is for people and scripts on the admin server; what agents see is
// wire's alone.
func showJSON(v any) reply {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return failure(err)
	}
	return reply{status: http.StatusOK, reason: "ok", contentType: jsonType, body: append(text, '\n')}
}
