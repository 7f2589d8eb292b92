package hub

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// Secret is a text that must not be seen: every way of printing it gives
// "<secret>". Reveal is the one way to the text itself.
type Secret struct{ text string }

const redacted = "<secret>"

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text. Call it only where the text leaves for its owner.
func (s Secret) Reveal() string { return s.text }

// Empty reports whether there is no text.
func (s Secret) Empty() bool { return s.text == "" }

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb (%x, %q) gets through.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Digest is the SHA-256 of a key's text (64 lowercase hex characters). The hub
// keeps digests in memory and finds keys by them; a fast hash is right for
// keys of 256 random bits.
type Digest [sha256.Size]byte

// ErrMalformedKey means that a text is not 64 lowercase hex characters.
var ErrMalformedKey = errors.New("a key is 64 lowercase hex characters")

const keyBytes = 32

// NewKey makes a key of 32 random bytes, written as 64 lowercase hex characters.
func NewKey() Secret {
	var raw [keyBytes]byte
	_, _ = rand.Read(raw[:]) // never fails, says crypto/rand
	return NewSecret(hex.EncodeToString(raw[:]))
}

// DigestKey returns the digest of a key's text, or ErrMalformedKey.
func DigestKey(text string) (Digest, error) {
	var key [2 * keyBytes]byte // on the stack: every request shows a key
	if len(text) != len(key) {
		return Digest{}, ErrMalformedKey
	}
	copy(key[:], text)
	for _, c := range key {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Digest{}, ErrMalformedKey
		}
	}
	return sha256.Sum256(key[:]), nil
}

// OwnerKind says what a key is bound to.
type OwnerKind uint8

// The three kinds of keys.
const (
	OwnerFleet    OwnerKind = iota // a global key, bound to no host
	OwnerCustomer                  // a customer's key, for its controllers
	OwnerHost                      // a host's key, for its agent
)

// Owner is what a key is bound to. Its text form is "host/<id>",
// "customer/<name>" or "fleet".
type Owner struct {
	Kind OwnerKind
	Name string // host id or customer name; empty for the fleet
}

// HostOwner returns the owner "host/<id>".
func HostOwner(id string) Owner { return Owner{OwnerHost, id} }

// CustomerOwner returns the owner "customer/<name>".
func CustomerOwner(name string) Owner { return Owner{OwnerCustomer, name} }

// FleetOwner returns the owner "fleet".
func FleetOwner() Owner { return Owner{} }

// String returns the text form.
func (o Owner) String() string {
	switch o.Kind {
	case OwnerHost:
		return "host/" + o.Name
	case OwnerCustomer:
		return "customer/" + o.Name
	default:
		return "fleet"
	}
}

// ParseOwner reads the text form of an owner.
func ParseOwner(text string) (Owner, error) {
	if text == "fleet" {
		return FleetOwner(), nil
	}
	kind, name, _ := strings.Cut(text, "/")
	switch {
	case kind == "host" && ValidHostID(name):
		return HostOwner(name), nil
	case kind == "customer" && ValidCustomerName(name):
		return CustomerOwner(name), nil
	}
	return Owner{}, fmt.Errorf("%q is no owner: write host/<id>, customer/<name> or fleet", text)
}

const maxKeyID = 32

// ValidKeyID reports whether id is 1–32 characters of [a-z0-9][a-z0-9-]*.
func ValidKeyID(id string) bool {
	return id != "" && len(id) <= maxKeyID && id[0] != '-' &&
		strings.Trim(id, lowerAlnum+"-") == ""
}

// Key is a valid key of an owner: its digest, never its text.
type Key struct {
	ID       string // unique within its owner, as "k1"
	Owner    Owner
	Digest   Digest
	NotAfter time.Time // zero: does not expire
}

// ValidAt reports whether the key may be used at t. NotAfter itself is the
// last instant at which it may.
func (k Key) ValidAt(t time.Time) bool {
	return k.NotAfter.IsZero() || !t.After(k.NotAfter)
}
