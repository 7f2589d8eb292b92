package hub

import (
	"errors"
	"time"
)

// Code is the class of an [Error]. One function in httpapi maps it to an HTTP
// status; nothing else depends on HTTP.
type Code uint8

// The codes, each with the status an agent sees for it.
const (
	Internal     Code = iota // 500: a mistake of the hub's own
	Invalid                  // 400: the request cannot be understood
	Unauthorized             // 401: no key, or one that is not valid now
	Forbidden                // 403: the key is valid but not for this
	TooLarge                 // 413: the body is over the limit
	Unsupported              // 415: the encoding is not one we read
	RateLimited              // 429: too many requests
	Unavailable              // 503: not now; nothing was stored
	Timeout                  // 408: the request did not arrive whole, or in time
)

// Error is an error whose Message may be shown to whoever asked. It never
// carries a key or a part of a body; Cause, which may, is for the log alone.
type Error struct {
	Code    Code
	Reason  string        // short fixed word for metrics and logs: "other_host"
	Message string        // safe sentence for the client
	Hint    string        // what an operator can do, where that is known
	Retry   time.Duration // shortest sensible wait before a retry; 0: none named
	Cause   error         // for the log only
}

// Error returns the safe message followed by the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the code of the first *Error in err's chain, or Internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// ReasonOf returns the reason of the first *Error in err's chain, or "internal".
func ReasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Reason != "" {
		return e.Reason
	}
	return "internal"
}
