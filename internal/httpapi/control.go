package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

const (
	maxControlBytes = 4 << 10
	maxReplayBytes  = 256 << 10 // more than three thousand positions
)

// Control returns what commands reach over the control socket. Whoever reaches
// it is the operator: errors tell the hint too.
func (s *Server) Control() http.Handler {
	m := mux.NewRouter().SkipClean(true).UseEncodedPath()
	m.Handle("/status", s.route("control-status", s.controlStatus, http.MethodGet, http.MethodHead))
	if s.o.Explain != nil {
		m.Handle("/switch/explain", s.route("control-explain", s.controlExplain, http.MethodGet, http.MethodHead))
	}
	if s.o.Accept != nil {
		m.Handle("/fleet/accept", s.route("control-accept", s.controlAccept, http.MethodPost))
	}
	if s.o.Replay != nil {
		m.Handle("/spool/replay", s.route("control-replay", s.controlReplay, http.MethodPost))
	}
	if s.o.Notifications != nil {
		m.Handle("/notify", s.route("control-notify", s.controlNotifyList, http.MethodGet, http.MethodHead))
		m.Handle("/notify/retry", s.route("control-notify-retry", s.controlNotifyRetry, http.MethodPost))
		m.Handle("/notify/test", s.route("control-notify-test", s.controlNotifyTest, http.MethodPost))
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

// controlExplain tells of ?host= what the switch knows and decides, at the instant
// ?at= or now.
func (s *Server) controlExplain(r *http.Request) reply {
	q := r.URL.Query()
	host, at := q.Get("host"), time.Time{}
	if !hub.ValidHostID(host) && !hub.ValidGuestID(host) {
		return operatorFailure(&hub.Error{Code: hub.Invalid, Reason: "host", Message: fmt.Sprintf("%q is neither a host id nor a guest id", host)})
	}
	if text := q.Get("at"); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			return operatorFailure(&hub.Error{Code: hub.Invalid, Reason: "at", Message: fmt.Sprintf("%q is no instant: write it as 2027-06-01T09:00:00Z", text)})
		}
	}
	told, err := s.o.Explain(r.Context(), host, at)
	if err != nil {
		return operatorFailure(err)
	}
	return showJSON(told)
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

// controlReplay makes rows of records that were rejected.
func (s *Server) controlReplay(r *http.Request) reply {
	body, err := s.bodies.read(r, "", maxReplayBytes)
	defer body.release()
	if err != nil {
		return operatorFailure(err)
	}
	positions, dryRun, err := decodeReplay(body.bytes)
	if err != nil {
		return operatorFailure(err)
	}
	done, err := s.o.Replay(r.Context(), positions, dryRun)
	if err != nil {
		s.log.Warn("audit: rejected records were not all replayed", "asked", len(positions), "error", err)
		return operatorFailure(err)
	}
	if !dryRun {
		s.log.Warn("audit: rejected records were replayed by hand", "asked", len(positions))
	}
	return showJSON(done)
}

// decodeReplay reads the body with which an operator names rejected records. It is
// strict.
func decodeReplay(body []byte) (positions []hub.Position, dryRun bool, err error) {
	var sent struct {
		Positions []string `json:"positions"`
		DryRun    bool     `json:"dry_run"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&sent)
	for _, text := range sent.Positions {
		p, bad := hub.ParsePosition(text)
		positions, err = append(positions, p), errors.Join(err, bad)
	}
	if err != nil || len(positions) == 0 {
		return nil, false, &hub.Error{Code: hub.Invalid, Reason: "not_json", Message: `the body is not {"positions": ["<spool id>/<sequence number>", …]}`}
	}
	return positions, sent.DryRun, nil
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
