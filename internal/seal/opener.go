package seal

import (
	"crypto/sha256"
	"sync"

	"felhom.eu/hub/internal/hub"
)

// maxCached bounds the cache of an Opener: 64 bytes each, so 64 MiB and a map.
const maxCached = 1 << 20

// Opener opens seals with a fixed list of identities and remembers the digests
// of the keys by the digest of the ciphertext, so that reading a fleet again
// costs only what changed (an unseal takes 130 µs). It holds no key. It is
// safe for use by several goroutines.
type Opener struct {
	identities []Identity

	mu     sync.Mutex
	opened digests
	read   digests // from a cache file, and not asked for yet
	fresh  int     // opened by an identity since the cache was written
}

type digests map[[sha256.Size]byte]hub.Digest

// NewOpener makes an Opener; the identities are tried in their order.
func NewOpener(identities []Identity) *Opener {
	return &Opener{identities: identities, opened: digests{}}
}

// Open returns the digest of the key sealed in armored, which must be key keyID
// of owner. It fails with ErrNotSealed, ErrDamaged, ErrNoIdentity, ErrPayload
// or an *OwnerError.
func (o *Opener) Open(owner hub.Owner, keyID, armored string) (hub.Digest, error) {
	// The place is part of what is remembered: a seal copied to another one
	// is not found, and judged anew.
	place := sha256.Sum256([]byte(owner.String() + "\n" + keyID + "\n" + armored))
	o.mu.Lock()
	digest, known := o.known(place)
	o.mu.Unlock()
	if known {
		return digest, nil
	}
	p, err := OpenAs(owner, keyID, armored, o.identities)
	if err != nil {
		return hub.Digest{}, err
	}
	if digest, err = hub.DigestKey(p.Key.Reveal()); err != nil {
		return hub.Digest{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh++
	o.keep(place, digest)
	return digest, nil
}

func (o *Opener) known(place [sha256.Size]byte) (hub.Digest, bool) {
	digest, ok := o.opened[place]
	if ok {
		return digest, true
	}
	if digest, ok = o.read[place]; ok {
		delete(o.read, place)
		o.keep(place, digest)
	}
	return digest, ok
}

func (o *Opener) keep(place [sha256.Size]byte, digest hub.Digest) {
	if len(o.opened) >= maxCached {
		clear(o.opened) // what is still in use comes back with the next read
	}
	o.opened[place] = digest
}
