package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"felhom.eu/hub/internal/hub"
)

// Notifications is what operators ask of the messages that go to people. What is
// returned becomes JSON.
type Notifications struct {
	List  func(deadOnly bool) any          // those that wait, and those that are dead
	Retry func(target string) (any, error) // the id of a message or of a channel; empty: everything
	Test  func(ctx context.Context, channel string) (any, error)
}

// controlNotifyList tells of messages that wait or are dead; with ?dead=true of these
// alone.
func (s *Server) controlNotifyList(r *http.Request) reply {
	return showJSON(s.o.Notifications.List(r.URL.Query().Get("dead") == "true"))
}

// controlNotifyRetry has dead messages sent again.
func (s *Server) controlNotifyRetry(r *http.Request) reply {
	target, err := s.notifyTarget(r)
	if err != nil {
		return operatorFailure(err)
	}
	done, err := s.o.Notifications.Retry(target)
	if err != nil {
		return operatorFailure(err)
	}
	s.log.Warn("audit: messages were retried by hand", "target", target)
	return showJSON(done)
}

// controlNotifyTest sends a test to a channel.
func (s *Server) controlNotifyTest(r *http.Request) reply {
	channel, err := s.notifyTarget(r)
	if err != nil {
		return operatorFailure(err)
	}
	done, err := s.o.Notifications.Test(r.Context(), channel)
	if err != nil {
		return operatorFailure(err)
	}
	return showJSON(done)
}

// notifyTarget reads the body {"target": "…"}. It is strict.
func (s *Server) notifyTarget(r *http.Request) (string, error) {
	body, err := s.bodies.read(r, "", maxControlBytes)
	defer body.release()
	if err != nil {
		return "", err
	}
	var sent struct {
		Target *string `json:"target"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body.bytes))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&sent) != nil || sent.Target == nil {
		return "", &hub.Error{Code: hub.Invalid, Reason: "not_json", Message: `the body is not {"target": "…"}`}
	}
	return *sent.Target, nil
}
