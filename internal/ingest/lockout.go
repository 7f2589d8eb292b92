package ingest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// A fleet that lost its keys, or whose keys all expired, is the hub's blindness and
// not its hosts' silence: they report and are refused. The rule that finds it
// counts no name and no address, which anybody can make up. It counts hosts that
//
//   - show a key that was in force as theirs less than a day ago (256 random bits
//     that nobody has who was not given them),
//   - are active in the fleet in force, and were heard before the key ended,
//   - and were not heard since, by whatever key.
//
// They must be most of all hosts that were heard lately. So who never held keys of
// most of the fleet counts for nothing, however often they knock; who keeps former
// keys counts for nothing from the first report on that their hosts send with a new
// one; and a day after the keys ended it is over in any case. A host whose file left
// the fleet is retired, and does not count. What the rule does not see: a global key
// that ended (which host knocks with it stands in a body that nobody reads), and
// keys that left while the hub did not run.
const (
	lockoutHosts = 3
	lockoutShare = 55             // per cent of the hosts heard lately, these included
	formerKept   = 24 * time.Hour // for so long an ended key tells of its host
)

// Lockout is how many hosts are refused the keys that were theirs.
type Lockout struct {
	Hosts int       // locked out
	Heard int       // other hosts that were heard within two reporting intervals
	Since time.Time // when the first of these keys ended
}

// Broken reports whether these are most of the fleet.
func (l Lockout) Broken() bool {
	return l.Hosts >= lockoutHosts && l.Hosts*100 >= (l.Hosts+l.Heard)*lockoutShare
}

// lockouts knows keys of hosts that ended in the last day, and who showed them.
type lockouts struct {
	mu     sync.Mutex
	former map[hub.Digest]ended // left the fleet: 100 bytes each, for a day
	shown  map[hub.Digest]shown // of these, and of expired ones
}

type ended struct {
	host  string
	since time.Time
}

type shown struct {
	ended
	last time.Time
}

func newLockouts() *lockouts {
	return &lockouts{former: map[hub.Digest]ended{}, shown: map[hub.Digest]shown{}}
}

// left notes keys that were in force and are not any more, and forgets what ended
// long ago. It reports whether there are new ones.
func (l *lockouts) left(before, after *hub.Fleet, now time.Time) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for digest, e := range l.former {
		if _, back := after.Key(digest); back || now.Sub(e.since) > formerKept {
			delete(l.former, digest)
		}
	}
	for digest, e := range l.shown {
		if now.Sub(e.since) > formerKept {
			delete(l.shown, digest)
		}
	}
	if before == nil {
		return false
	}
	for key := range before.KnownKeys() {
		_, stays := after.Key(key.Digest)
		_, enrolled := after.Enrolled(key.Owner.Name)
		if stays || key.Owner.Kind != hub.OwnerHost || !enrolled {
			continue
		}
		since := now
		if !key.ValidAt(now) {
			since = key.NotAfter
		}
		if now.Sub(since) <= formerKept {
			l.former[key.Digest], more = ended{key.Owner.Name, since}, true
		}
	}
	return more
}

// refused notes that a key was shown which is unknown, or is known and has expired.
func (l *lockouts) refused(digest hub.Digest, key hub.Key, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.former[digest]
	if !ok && key.Owner.Kind == hub.OwnerHost && !key.NotAfter.IsZero() {
		e, ok = ended{key.Owner.Name, key.NotAfter}, now.Sub(key.NotAfter) <= formerKept
	}
	if ok {
		l.shown[digest] = shown{e, now}
	}
}

// list returns the keys that were shown after t and ended at until or later, by
// their digests.
func (l *lockouts) list(t, until time.Time) map[hub.Digest]ended {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := map[hub.Digest]ended{}
	for digest, s := range l.shown {
		if s.last.After(t) && !s.since.Before(until) {
			list[digest] = s.ended
		}
	}
	return list
}

// LockedOut counts the hosts that are refused the keys that were theirs. While it
// finds enough of them it looks at every host.
func (a *Acceptor) LockedOut() Lockout {
	var out Lockout
	fleet, now := a.fleets.Current(), a.now()
	if fleet == nil {
		return out
	}
	window := 2 * a.pollInterval
	locked := map[string]bool{}
	for digest, e := range a.lockouts.list(now.Add(-window), now.Add(-formerKept)) {
		key, known := fleet.Key(digest)
		h, enrolled := fleet.Enrolled(e.host)
		seen, heard := a.LastSeen(e.host)
		if known && key.ValidAt(now) || !enrolled || h.Lifecycle != hub.Active || !heard || seen.ReceivedAt.After(e.since) {
			continue
		}
		locked[e.host] = true
		if out.Since.IsZero() || e.since.Before(out.Since) {
			out.Since = e.since
		}
	}
	if out.Hosts = len(locked); out.Hosts < lockoutHosts {
		return out
	}
	for h := range fleet.Hosts() {
		if seen, ok := a.LastSeen(h.ID); ok && h.Lifecycle == hub.Active && !locked[h.ID] && now.Sub(seen.ReceivedAt) <= window {
			out.Heard++
		}
	}
	return out
}

// FormerKeys returns what RestoreFormerKeys needs to know, after a restart, of keys
// that left the fleet in the last day: their digests, never the keys.
func (a *Acceptor) FormerKeys() []byte {
	a.lockouts.mu.Lock()
	defer a.lockouts.mu.Unlock()
	var b bytes.Buffer
	for digest, e := range a.lockouts.former {
		fmt.Fprintf(&b, "%x %d %s\n", digest[:], e.since.UnixMilli(), e.host)
	}
	return b.Bytes()
}

// RestoreFormerKeys adds what FormerKeys returned. What cannot be read changes
// nothing.
func (a *Acceptor) RestoreFormerKeys(data []byte) error {
	former := map[hub.Digest]ended{}
	for line := range strings.Lines(string(data)) {
		digest, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		since, host, _ := strings.Cut(rest, " ")
		raw, err := hex.DecodeString(digest)
		ms, bad := strconv.ParseInt(since, 10, 64)
		if err != nil || bad != nil || len(raw) != len(hub.Digest{}) || !hub.ValidHostID(host) {
			return fmt.Errorf("the list of former keys is damaged: %q is no line of it", line)
		}
		former[hub.Digest(raw)] = ended{host, time.UnixMilli(ms)}
	}
	a.lockouts.mu.Lock()
	defer a.lockouts.mu.Unlock()
	for digest, e := range former {
		a.lockouts.former[digest] = e
	}
	return nil
}
