package httpapi

import (
	"errors"
	"net/http"

	"github.com/gorilla/mux"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

const maxControlBytes = 4 << 10

// Control returns what commands reach over the control socket. Whoever reaches
// it is the operator: errors tell the hint too.
func (s *Server) Control() http.Handler {
	m := mux.NewRouter().SkipClean(true).UseEncodedPath()
	m.Handle("/status", s.route("control-status", s.controlStatus, http.MethodGet, http.MethodHead))
	if s.o.Accept != nil {
		m.Handle("/fleet/accept", s.route("control-accept", s.controlAccept, http.MethodPost))
	}
	m.NotFoundHandler = s.route("-", notFound)
	return m
}

// controlStatus tells everything, and with ?owner= what is known of an owner.
func (s *Server) controlStatus(r *http.Request) reply {
	status, err := s.o.Status(r.URL.Query().Get("owner"))
	if err != nil {
		return operatorFailure(err)
	}
	return showJSON(status)
}

// controlAccept brings a revision in force that was held.
func (s *Server) controlAccept(r *http.Request) reply {
	body, err := s.bodies.read(r, "", maxControlBytes)
	defer body.release()
	if err != nil {
		return operatorFailure(err)
	}
	revision, err := wire.DecodeAcceptRequest(body.bytes)
	if err != nil {
		return operatorFailure(err)
	}
	accepted, err := s.o.Accept(r.Context(), revision)
	if err != nil {
		s.log.Warn("audit: a revision was not accepted", "revision", revision, "error", err)
		return operatorFailure(err)
	}
	s.log.Warn("audit: a revision was accepted by hand", "revision", revision)
	return showJSON(accepted)
}

// operatorFailure is failure for the operator, who may read the hint, and any
// error's own text: it may be about a file or a repository of theirs.
func operatorFailure(err error) reply {
	var e *hub.Error
	if !errors.As(err, &e) {
		e = &hub.Error{Code: hub.Internal, Reason: "failed", Message: err.Error()}
	}
	rep := failure(e)
	rep.body = wire.OperatorProblemJSON(e, rep.status)
	return rep
}
