package httpapi

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/wire"
)

const (
	jsonType    = "application/json"
	problemType = "application/problem+json"
	textType    = "text/plain; charset=utf-8"

	// retryStopping is about how long a restart takes.
	retryStopping = 5 * time.Second
)

// reply is an answer, whole before its first byte is written.
type reply struct {
	status      int
	reason      string // for the metric
	contentType string
	body        []byte
	header      [2]string // one more header, as name and value
}

// route serves one path: it refuses methods other than these (none given: all
// are taken), writes the reply, counts it, and turns a panic into a 500.
func (s *Server) route(name string, answer func(*http.Request) reply, methods ...string) http.Handler {
	allow := strings.Join(methods, ", ")
	took := s.metrics.seconds.WithLabelValues(name)
	count := s.metrics.counter(name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		var rep reply
		if len(methods) > 0 && !slices.Contains(methods, r.Method) {
			rep = problem(http.StatusMethodNotAllowed, &hub.Error{Reason: "method", Message: "the method is not one of this path"})
			rep.header = [2]string{"Allow", allow}
		} else {
			rep = s.answer(answer, r)
		}
		rep.write(w)
		count(rep.status, rep.reason)
		took.Observe(time.Since(began).Seconds())
	})
}

// answer contains a panic to its request. What was panicked with may hold parts
// of a body; only the runtime's own errors are known not to.
func (s *Server) answer(answer func(*http.Request) reply, r *http.Request) (rep reply) {
	defer func() {
		if p := recover(); p != nil {
			known := "withheld"
			var own runtime.Error
			if err, ok := p.(error); ok && errors.As(err, &own) {
				known = own.Error()
			}
			s.log.Error("a request panicked", "path", r.URL.Path, "panic", known, "stack", string(debug.Stack()))
			rep = failure(&hub.Error{Code: hub.Internal, Reason: "panic", Message: internalMessage})
		}
	}()
	return answer(r)
}

// Values of headers that all replies share; net/http copies a header before it
// does anything to it.
var (
	typeValues = map[string][]string{jsonType: {jsonType}, problemType: {problemType}, textType: {textType}}
	noStore    = []string{"no-store"}
	noSniff    = []string{"nosniff"}
)

// countedByServer is up to where net/http counts a body that is written at once,
// for any protocol, and sends its length.
const countedByServer = 2 << 10

func (rep *reply) write(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"] = typeValues[rep.contentType]
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	if len(rep.body) > countedByServer {
		h.Set("Content-Length", strconv.Itoa(len(rep.body)))
	}
	if rep.header[0] != "" {
		h.Set(rep.header[0], rep.header[1])
	}
	w.WriteHeader(rep.status)
	_, _ = w.Write(rep.body) // the client may be gone; its retry is recognised
}

const internalMessage = "the hub made a mistake; nothing is known to be stored"

// StatusOf returns the status of a code: the one place where codes become
// statuses.
func StatusOf(code hub.Code) int {
	switch code {
	case hub.Invalid:
		return http.StatusBadRequest
	case hub.Unauthorized:
		return http.StatusUnauthorized
	case hub.Forbidden:
		return http.StatusForbidden
	case hub.Timeout:
		return http.StatusRequestTimeout
	case hub.TooLarge:
		return http.StatusRequestEntityTooLarge
	case hub.Unsupported:
		return http.StatusUnsupportedMediaType
	case hub.RateLimited:
		return http.StatusTooManyRequests
	case hub.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// failure maps an error to its reply. What is no *hub.Error is the hub's own mistake and tells nothing.
func failure(err error) reply {
	var e *hub.Error
	if !errors.As(err, &e) {
		e = &hub.Error{Code: hub.Internal, Reason: "internal", Message: internalMessage}
	}
	status := StatusOf(e.Code)
	var header [2]string
	switch e.Code {
	case hub.Unauthorized:
		header = [2]string{"WWW-Authenticate", "Bearer"}
	case hub.Timeout:
		header = [2]string{"Connection", "close"}
	case hub.RateLimited, hub.Unavailable:
		header = [2]string{"Retry-After", retryAfter(e.Retry)}
	}
	rep := problem(status, e)
	rep.header = header
	return rep
}

func problem(status int, e *hub.Error) reply {
	return reply{status: status, reason: e.Reason, contentType: problemType, body: wire.ProblemJSON(e, status)}
}

// retryAfter returns whole seconds, no fewer than least, spread so that those
// who were refused together do not come back together.
func retryAfter(least time.Duration) string {
	seconds := max(1, int(math.Ceil(least.Seconds())))
	return strconv.Itoa(seconds + rand.IntN(seconds+4))
}
