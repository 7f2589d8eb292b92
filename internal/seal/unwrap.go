package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/cloudflare/circl/dh/x25519"
	"golang.org/x/crypto/chacha20poly1305"
)

// What follows is the little of the age format (C2SP, age.md) that opening
// 100,000 seals at a start hangs on. age's own identity derives its public key
// anew with every stanza, which doubles the curve's work, and its payload reader
// takes two buffers of 64 KiB for a key of 150 bytes; circl multiplies in 30 µs
// where crypto/ecdh takes 47: in all 100 µs of 160 (m). Parsing, the header's MAC
// and all that encrypts stay age's.

// x25519Identity is an age.X25519Identity that keeps its public key.
type x25519Identity struct {
	secret, public x25519.Key
}

// bech32 is the alphabet of BIP 173. A 32-byte key and the checksum's six
// characters leave no padding to think of.
var bech32 = base32.NewEncoding("qpzry9x8gf2tvdw0s3jn54khce6mua7l").WithPadding(base32.NoPadding)

const bech32Checksum = 6

// newX25519Identity takes the key out of an identity's text, which age has
// accepted.
func newX25519Identity(text string) (*x25519Identity, error) {
	text = strings.ToLower(text[strings.LastIndexByte(text, '1')+1:])
	scalar, err := bech32.DecodeString(text[:len(text)-bech32Checksum])
	if err != nil || len(scalar) != x25519.Size {
		return nil, errors.New("not a key of 32 bytes")
	}
	id := x25519Identity{secret: x25519.Key(scalar)}
	x25519.KeyGen(&id.public, &id.secret)
	return &id, nil
}

// Unwrap implements age.Identity.
func (id *x25519Identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, stanza := range stanzas {
		if stanza.Type != string(X25519) {
			continue
		}
		if fileKey, err := id.unwrap(stanza); !errors.Is(err, age.ErrIncorrectIdentity) {
			return fileKey, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

func (id *x25519Identity) unwrap(stanza *age.Stanza) ([]byte, error) {
	const fileKeySize = 16
	if len(stanza.Args) != 1 || len(stanza.Body) != fileKeySize+chacha20poly1305.Overhead {
		return nil, ErrDamaged
	}
	share, err := base64.RawStdEncoding.Strict().DecodeString(stanza.Args[0])
	if err != nil || len(share) != x25519.Size {
		return nil, ErrDamaged
	}
	ephemeral, shared := x25519.Key(share), x25519.Key{}
	if !x25519.Shared(&shared, &id.secret, &ephemeral) { // a point of low order
		return nil, ErrDamaged
	}
	var nonce [chacha20poly1305.NonceSize]byte
	fileKey, err := decrypt(shared[:], slices.Concat(share, id.public[:]), "age-encryption.org/v1/X25519", nonce, stanza.Body)
	if err != nil {
		return nil, age.ErrIncorrectIdentity
	}
	return fileKey, nil
}

// openPayload decrypts what follows the header: a nonce and, as no seal is as
// long as a chunk of 64 KiB, the last chunk.
func openPayload(fileKey, payload []byte) ([]byte, error) {
	const nonceSize = 16
	lastOnly := [chacha20poly1305.NonceSize]byte{chacha20poly1305.NonceSize - 1: 1}
	return decrypt(fileKey, payload[:nonceSize], "payload", lastOnly, payload[nonceSize:])
}

func decrypt(secret, salt []byte, info string, nonce [chacha20poly1305.NonceSize]byte, sealed []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, salt, info, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nonce[:], sealed, nil)
}

// split cuts an age file where its header ends, behind the line that begins with
// "---": a stanza's body is base64, so none of its lines does. Whether what comes
// before is a header is for age to say.
func split(file []byte) (header, payload []byte, err error) {
	const minPayload = 16 + chacha20poly1305.Overhead // the nonce and the tag of nothing
	header, rest, found := bytes.Cut(file, []byte("\n---"))
	mac, payload, ended := bytes.Cut(rest, []byte("\n"))
	if !found || !ended || len(payload) < minPayload {
		return nil, nil, ErrDamaged
	}
	return file[:len(header)+len("\n---")+len(mac)+1], payload, nil
}
