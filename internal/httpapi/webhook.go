package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"felhom.eu/hub/internal/hub"
)

// Webhook lets a git server say that the fleet repository has changed. What it
// sends is a hint and no more: its body is signed, and never looked into.
type Webhook struct {
	// Secret is asked at each request. Empty: the webhook is switched off.
	Secret func() (hub.Secret, error)
	// Pull returns at once.
	Pull func()
}

const (
	webhookPath     = "/api/v1/fleet/webhook"
	maxWebhookBytes = 25 << 20 // the largest body that GitHub sends

	hintsPerSecond = 1
	hintsBurst     = 10
)

// signatureHeaders carry the HMAC-SHA256 of the body, in hex. Gitea and Forgejo
// send those of the servers that they replace as well, so the first one that is
// there tells the kind. (They also send X-Hub-Signature, an HMAC-SHA1, which is
// not looked at.)
var signatureHeaders = []struct{ name, prefix, kind string }{
	{"X-Forgejo-Signature", "", "forgejo"},
	{"X-Gitea-Signature", "", "gitea"},
	{"X-Gogs-Signature", "", "gogs"},
	{"X-Hub-Signature-256", "sha256=", "github"},
	{"X-Signature-256", "sha256=", "generic"},
}

// tokenHeader carries the secret itself.
const tokenHeader, tokenKind = "X-Gitlab-Token", "gitlab"

var (
	errSecret = &hub.Error{Code: hub.Unavailable, Reason: "webhook_secret",
		Message: "the hub cannot check signatures now", Retry: time.Minute}
	errNoSignature  = badSignature("no_signature")
	errBadSignature = badSignature("bad_signature")
)

// badSignature is one reply for every mistake; the reason is for the log.
func badSignature(reason string) *hub.Error {
	return &hub.Error{Code: hub.Unauthorized, Reason: reason, Message: "no valid signature: sign the body with the webhook's secret"}
}

// webhook serves the path of the webhook, which is unknown without a secret.
func (s *Server) webhook() http.Handler {
	unknown := s.route("-", notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, err := s.o.Webhook.Secret()
		s.hints.tell(s, err)
		if err == nil && secret.Empty() {
			unknown.ServeHTTP(w, r)
			return
		}
		s.route("fleet-webhook", func(r *http.Request) reply {
			if err != nil {
				return s.refuse(r, hub.Key{}, errSecret)
			}
			return s.takeHint(r, []byte(secret.Reveal()))
		}, http.MethodPost).ServeHTTP(w, r)
	})
}

func (s *Server) takeHint(r *http.Request, secret []byte) reply {
	kind, err := s.checkHint(r, secret)
	if hub.CodeOf(err) == hub.Unauthorized {
		err = s.o.Reports.Failed(remote(r), err)
	}
	if err != nil {
		return s.refuse(r, hub.Key{}, err)
	}
	if wait, ok := s.hints.take(s.o.Webhook.Pull); !ok {
		return s.refuse(r, hub.Key{}, &hub.Error{Code: hub.RateLimited, Reason: "hint_rate",
			Message: "too many hints; the hub pulls once more as soon as it may", Retry: wait})
	}
	s.log.Info("audit: the fleet is pulled at the webhook's word", "kind", kind, "from", remote(r))
	return reply{status: http.StatusAccepted, reason: "pulling", contentType: jsonType, body: []byte("{\"status\":\"pulling\"}\n")}
}

// checkHint returns the kind of git server whose hint it is. Only the signature
// counts: whoever does not know the secret can make the hub hash, and nothing else.
func (s *Server) checkHint(r *http.Request, secret []byte) (kind string, err error) {
	switch {
	case s.stopping.Load():
		return "", errStopping
	case r.URL.RawQuery != "" || r.URL.ForceQuery:
		return "", errQuery
	}
	kind, signatures, err := readSignatures(r.Header, secret)
	if err != nil {
		return "", err
	}
	if r.ContentLength > maxWebhookBytes {
		drain(r, maxWebhookBytes)
		return "", errTooLarge
	}
	mac := hmac.New(sha256.New, secret)
	n, err := io.CopyBuffer(mac, io.LimitReader(r.Body, maxWebhookBytes+1), make([]byte, firstBuffer))
	if err != nil {
		return "", transferError(err)
	}
	if n > maxWebhookBytes {
		drain(r, maxWebhookBytes)
		return "", errTooLarge
	}
	sum := mac.Sum(nil)
	for _, signature := range signatures {
		if !hmac.Equal(signature, sum) {
			return "", errBadSignature
		}
	}
	return kind, nil
}

// readSignatures returns every signature that a request carries. Each must be
// right; a token is compared here. The error is the same for none, a malformed
// one and a wrong token.
func readSignatures(h http.Header, secret []byte) (kind string, signatures [][]byte, err error) {
	for _, token := range h[tokenHeader] {
		given, want := sha256.Sum256([]byte(token)), sha256.Sum256(secret) // of one length
		if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
			return "", nil, errBadSignature
		}
		kind = tokenKind
	}
	for _, known := range signatureHeaders {
		for _, value := range h[known.name] {
			text, ok := strings.CutPrefix(value, known.prefix)
			signature, err := hex.DecodeString(text)
			if !ok || err != nil || len(signature) != sha256.Size {
				return "", nil, errBadSignature
			}
			signatures = append(signatures, signature)
			if kind == "" {
				kind = known.kind
			}
		}
	}
	if kind == "" {
		return "", nil, errNoSignature
	}
	return kind, signatures, nil
}

// hints bounds how often git servers make the hub pull.
type hints struct {
	limiter *rate.Limiter

	mu      sync.Mutex
	due     bool   // a late pull is on its way
	problem string // with the secret, as last logged
}

func newHints() *hints { return &hints{limiter: rate.NewLimiter(hintsPerSecond, hintsBurst)} }

// take pulls, or says how long the rate makes the caller wait. Git servers do not
// come again, so one late pull stands in for all hints that were over the rate.
func (h *hints) take(pull func()) (wait time.Duration, ok bool) {
	reserved := h.limiter.Reserve()
	if wait = reserved.Delay(); wait == 0 {
		pull()
		return 0, true
	}
	reserved.Cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.due {
		h.due = true
		time.AfterFunc(wait, func() {
			h.mu.Lock()
			h.due = false
			h.mu.Unlock()
			pull()
		})
	}
	return wait, false
}

// tell logs a problem with the secret once, not at each request.
func (h *hints) tell(s *Server, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if text != "" && text != h.problem {
		s.log.Error("the webhook's secret cannot be read, so no hint is taken", "error", text)
	}
	h.problem = text
}
