// Package seal keeps keys and the URLs of channels secret in a public place: a key is encrypted with age
// to the fleet's recipients, and its owner is written inside.
//
// age gives secrecy, not authorship, and authenticates no context: whoever
// knows a recipient can seal a key, and a sealed key can be copied. So the
// plaintext is the JSON {"v":1,"owner":"host/…","id":"k1","key":"<64 hex>"},
// and [OpenAs] and [Opener] refuse a seal that stands where another owner or key
// id is expected. The URL of a channel is sealed in the same way, with the channel's
// name inside. Who may change what stands there is for git to say.
//
// Recipients and identities are age's own: X25519, and the post-quantum hybrid
// of age 1.3. Plugins, SSH keys and passphrases are refused by name; nothing
// here runs another program. It is the only package that imports age.
package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"felhom.eu/hub/internal/hub"
)

const (
	version    = 1
	maxArmored = 64 << 10 // some thirty hybrid recipients
	maxPayload = 1 << 10
)

// The ways in which a seal cannot be opened. None carries a part of it.
var (
	ErrNotSealed  = errors.New("not an armored age file (-----BEGIN AGE ENCRYPTED FILE-----)")
	ErrDamaged    = errors.New("the sealed text is damaged")
	ErrNoIdentity = errors.New("none of the identities opens this seal")
	ErrPayload    = errors.New("what is sealed is not a key of the form this hub writes")
)

// OwnerError means that a good seal stands in the wrong place.
type OwnerError struct {
	Owner, Wanted      hub.Owner // the one inside, and the one it was opened for
	KeyID, WantedKeyID string
}

// Error names both owners and ids.
func (e *OwnerError) Error() string {
	return fmt.Sprintf("the seal was made for key %s of %s, not for key %s of %s", e.KeyID, e.Owner, e.WantedKeyID, e.Wanted)
}

// Payload is what is sealed.
type Payload struct {
	Owner hub.Owner
	KeyID string
	Key   hub.Secret
}

// payloadJSON is the form of a Payload, version 1. The order of the fields is
// part of it.
type payloadJSON struct {
	Version int    `json:"v"`
	Owner   string `json:"owner"`
	KeyID   string `json:"id"`
	Key     string `json:"key"`
}

// Seal encrypts p to every recipient. It returns the armored text and the
// fingerprint of each recipient, in their order. The recipients must be all
// X25519 or all hybrid.
func Seal(p Payload, to []Recipient) (armored string, sealedTo []string, err error) {
	if !hub.ValidKeyID(p.KeyID) {
		return "", nil, fmt.Errorf("%q is no key id", p.KeyID)
	}
	if _, err := hub.DigestKey(p.Key.Reveal()); err != nil {
		return "", nil, err
	}
	return sealText(p.encode(), to)
}

func sealText(text []byte, to []Recipient) (armored string, sealedTo []string, err error) {
	if len(to) == 0 {
		return "", nil, errors.New("no recipient to seal to")
	}
	recipients := make([]age.Recipient, len(to))
	for i, r := range to {
		recipients[i] = r.age
		sealedTo = append(sealedTo, r.Fingerprint())
	}
	var out bytes.Buffer
	encoded := armor.NewWriter(&out)
	w, err := age.Encrypt(encoded, recipients...)
	if err != nil {
		return "", nil, fmt.Errorf("seal: %w", err)
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close(), encoded.Close()); err != nil {
		return "", nil, fmt.Errorf("seal: %w", err)
	}
	return out.String(), sealedTo, nil
}

// Open decrypts what Seal made with the first identity that can. It does not
// know where the seal stood: OpenAs and Opener do.
func Open(armored string, identities []Identity) (Payload, error) {
	text, err := openText(armored, identities)
	if err != nil {
		return Payload{}, err
	}
	return decode(text)
}

func openText(armored string, identities []Identity) ([]byte, error) {
	if len(identities) == 0 {
		return nil, ErrNoIdentity
	}
	header, payload, _, err := unarmor(armored)
	if err != nil {
		return nil, err
	}
	list := make([]age.Identity, len(identities))
	for i, id := range identities {
		list[i] = id.age
	}
	fileKey, err := age.DecryptHeader(header, list...)
	var noMatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &noMatch):
		return nil, ErrNoIdentity
	case err != nil:
		return nil, ErrDamaged
	}
	text, err := openPayload(fileKey, payload)
	if err != nil {
		return nil, ErrDamaged
	}
	return text, nil
}

// OpenAs decrypts a seal that stands where key keyID of owner is expected. What
// was made for another place is refused with an *OwnerError.
func OpenAs(owner hub.Owner, keyID, armored string, identities []Identity) (Payload, error) {
	p, err := Open(armored, identities)
	if err != nil {
		return Payload{}, err
	}
	if p.Owner != owner || p.KeyID != keyID {
		return Payload{}, &OwnerError{Owner: p.Owner, Wanted: owner, KeyID: p.KeyID, WantedKeyID: keyID}
	}
	return p, nil
}

// Kind is a kind of recipient.
type Kind string

// The kinds, by the names that age gives their stanzas.
const (
	X25519 Kind = "X25519"
	Hybrid Kind = "mlkem768x25519"
)

// Recipients returns the kind of each recipient of a seal, without opening it:
// a header says how many there are and of which kind, never who. It fails with
// ErrNotSealed or ErrDamaged where the text is not a whole age file in armor,
// or one with recipients of another kind.
func Recipients(armored string) ([]Kind, error) {
	header, _, kinds, err := unarmor(armored)
	if err != nil {
		return nil, err
	}
	if whole, err := age.ExtractHeader(bytes.NewReader(header)); err != nil || !bytes.Equal(whole, header) {
		return nil, ErrDamaged
	}
	return kinds, nil
}

// unarmor returns the parts of the age file in armored, with the kinds of its
// recipients. The header is not looked at further.
func unarmor(armored string) (header, payload []byte, kinds []Kind, err error) {
	if len(armored) > maxArmored || !strings.HasPrefix(strings.TrimSpace(armored), armor.Header) {
		return nil, nil, nil, ErrNotSealed
	}
	file, err := io.ReadAll(armor.NewReader(strings.NewReader(armored)))
	if err != nil {
		return nil, nil, nil, ErrDamaged
	}
	if header, payload, err = split(file); err != nil {
		return nil, nil, nil, err
	}
	for line := range strings.Lines(string(header)) {
		stanza, ok := strings.CutPrefix(line, "-> ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSpace(stanza), " ")
		if kind := Kind(name); kind == X25519 || kind == Hybrid {
			kinds = append(kinds, kind)
			continue
		}
		return nil, nil, nil, fmt.Errorf("%w: a recipient of the kind %q, which is not used here", ErrNotSealed, name)
	}
	return header, payload, kinds, nil
}

func (p Payload) encode() []byte {
	text, err := json.Marshal(payloadJSON{version, p.Owner.String(), p.KeyID, p.Key.Reveal()})
	if err != nil {
		panic("seal: " + err.Error()) // three strings and a number: cannot happen
	}
	return text
}

// decode accepts exactly what encode writes (and space around it, as a
// hand-made seal may have). Encoding it again and comparing is stricter than
// any decoder: no unknown, duplicate or folded name gets through.
func decode(text []byte) (Payload, error) {
	tooLong := len(text) > maxPayload
	text = bytes.TrimSpace(text)
	var raw payloadJSON
	if tooLong || json.Unmarshal(text, &raw) != nil || raw.Version != version {
		return Payload{}, ErrPayload
	}
	owner, err := hub.ParseOwner(raw.Owner)
	if err != nil || !hub.ValidKeyID(raw.KeyID) {
		return Payload{}, ErrPayload
	}
	if _, err := hub.DigestKey(raw.Key); err != nil {
		return Payload{}, ErrPayload
	}
	p := Payload{Owner: owner, KeyID: raw.KeyID, Key: hub.NewSecret(raw.Key)}
	if !bytes.Equal(p.encode(), text) {
		return Payload{}, ErrPayload
	}
	return p, nil
}
