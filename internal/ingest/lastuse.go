package ingest

import (
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// uses knows when each key was last used.
type uses struct{ shards [64]usesShard }

type usesShard struct {
	mu sync.Mutex
	at map[hub.Digest]int64 // Unix milliseconds
}

func newUses() *uses {
	u := &uses{}
	for i := range u.shards {
		u.shards[i].at = make(map[hub.Digest]int64)
	}
	return u
}

// shard goes by the digest, of which all bits are as good as random.
func (u *uses) shard(digest hub.Digest) *usesShard { return &u.shards[int(digest[0])%len(u.shards)] }

// note remembers the later of now and what is known. It is on the way of every
// request: a key that was noted before costs no memory.
func (u *uses) note(digest hub.Digest, now time.Time) {
	s := u.shard(digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := now.UnixMilli(); at > s.at[digest] {
		s.at[digest] = at
	}
}

func (u *uses) last(digest hub.Digest) (time.Time, bool) {
	s := u.shard(digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[digest]
	if !ok {
		return time.Time{}, false
	}
	return time.UnixMilli(at).UTC(), true
}

// prune forgets the keys that are not in the fleet.
func (u *uses) prune(fleet *hub.Fleet) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		for digest := range s.at {
			if _, ok := fleet.Key(digest); !ok {
				delete(s.at, digest)
			}
		}
		s.mu.Unlock()
	}
}

// LastUse returns when a key of the fleet was last used: when a request showed
// it while it was valid, whatever became of the request.
func (a *Acceptor) LastUse(key hub.Key) (time.Time, bool) { return a.uses.last(key.Digest) }

// RestoreUse tells of a use in an earlier process. It needs a fleet in force, and
// reports whether that knows such a key; a later use is not forgotten.
func (a *Acceptor) RestoreUse(owner hub.Owner, keyID string, at time.Time) bool {
	fleet := a.fleets.Current()
	if fleet == nil {
		return false
	}
	keys, _ := fleet.KeysOf(owner)
	for _, key := range keys {
		if _, known := fleet.Key(key.Digest); known && key.ID == keyID {
			a.uses.note(key.Digest, at)
			return true
		}
	}
	return false
}

// FleetApplied forgets the uses of keys that left the fleet, and remembers for a day
// whose they were. Call it with each fleet that comes into force, one at a time. It
// reports whether FormerKeys has more to tell.
func (a *Acceptor) FleetApplied(fleet *hub.Fleet) (former bool) {
	a.uses.prune(fleet)
	former = a.lockouts.left(a.applied, fleet, a.now())
	a.applied = fleet
	return former
}

// KeyAges counts keys by the age of their last use. Each key counts once, in the
// first that fits.
type KeyAges struct {
	Hour  int `json:"1h"`
	Day   int `json:"1d"`
	Week  int `json:"7d"`
	Month int `json:"30d"`
	Older int `json:"older"`
	Never int `json:"never"` // as far as this hub knows
}

// KeyAges counts the keys of the fleet in force. It looks at every key: callers
// keep the answer for some seconds.
func (a *Acceptor) KeyAges() KeyAges {
	const day = 24 * time.Hour
	var ages KeyAges
	fleet := a.fleets.Current()
	if fleet == nil {
		return ages
	}
	now := a.now()
	for key := range fleet.KnownKeys() {
		at, used := a.uses.last(key.Digest)
		switch age := now.Sub(at); {
		case !used:
			ages.Never++
		case age <= time.Hour:
			ages.Hour++
		case age <= day:
			ages.Day++
		case age <= 7*day:
			ages.Week++
		case age <= 30*day:
			ages.Month++
		default:
			ages.Older++
		}
	}
	return ages
}
