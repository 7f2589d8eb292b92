package wire

import (
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"felhom.eu/hub/internal/hub"
)

// Envelope returns the reply to an accepted report, on one line ending in a
// newline. The poll interval is told in whole seconds, at least one.
//
// desired_generation and has_signed_ops are constants: desired specs are inert,
// and no code path leads from the fleet repository to an agent.
func Envelope(pollInterval time.Duration, blocked bool) []byte {
	return line(struct {
		Status              string `json:"status"`
		PollIntervalSeconds int64  `json:"poll_interval_seconds"`
		Blocked             bool   `json:"blocked"`
		DesiredGeneration   int64  `json:"desired_generation"`
		HasSignedOps        bool   `json:"has_signed_ops"`
	}{"ok", max(1, int64(pollInterval/time.Second)), blocked, 0, false})
}

// ProblemJSON returns e as application/problem+json (RFC 9457) for a reply of
// this status. It tells the message alone: reason, hint and cause are not the
// client's.
func ProblemJSON(e *hub.Error, status int) []byte {
	return line(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, e.Message})
}

// OperatorProblemJSON is ProblemJSON for the operator, who is told the hint too.
func OperatorProblemJSON(e *hub.Error, status int) []byte {
	return line(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Hint   string `json:"hint,omitempty"`
	}{"about:blank", http.StatusText(status), status, e.Message, e.Hint})
}

const maxDisplayName = 128 // characters

// MintRequest asks for a new host of a customer.
type MintRequest struct {
	CustomerID  string
	DisplayName string // may be empty
}

// DecodeMintRequest reads the body of a mint request. It is strict: a name that
// it does not know is a mistake, for what it makes is an identity. Errors are
// *hub.Error with code Invalid.
func DecodeMintRequest(body []byte) (MintRequest, error) {
	var sent struct {
		CustomerID  string `json:"customer_id"`
		DisplayName string `json:"display_name"`
	}
	if err := json.Unmarshal(body, &sent, json.RejectUnknownMembers(true)); err != nil {
		return MintRequest{}, invalid("not_json", `the body is not {"customer_id": "…", "display_name": "…"}`)
	}
	if !hub.ValidCustomerName(sent.CustomerID) {
		return MintRequest{}, invalid("customer_id", "customer_id is not the name of a customer")
	}
	if !validDisplayName(sent.DisplayName) {
		return MintRequest{}, invalid("display_name", "display_name is at most 128 printable characters")
	}
	return MintRequest(sent), nil
}

// DecodeAcceptRequest reads the body with which an operator names a revision. It
// is strict. Errors are *hub.Error with code Invalid.
func DecodeAcceptRequest(body []byte) (revision string, err error) {
	var sent struct {
		Revision string `json:"revision"`
	}
	if err := json.Unmarshal(body, &sent, json.RejectUnknownMembers(true)); err != nil || sent.Revision == "" {
		return "", invalid("not_json", `the body is not {"revision": "…"}`)
	}
	return sent.Revision, nil
}

func validDisplayName(name string) bool {
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.RuneCountInString(name) <= maxDisplayName
}

// EncodeMintReply returns the one reply that tells a key in the clear, to the
// one who asked for it.
func EncodeMintReply(hostID string, key hub.Secret, commit, branch string) []byte {
	return line(struct {
		HostID string `json:"host_id"`
		APIKey string `json:"api_key"`
		Commit string `json:"commit"`
		Branch string `json:"branch"`
	}{hostID, key.Reveal(), commit, branch})
}

// line encodes one of the structs above, whose strings are texts of the hub's
// own; a string that is not UTF-8 would leave the reply without a body.
func line(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return append(text, '\n')
}
