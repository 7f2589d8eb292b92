package fleetops

import (
	"fmt"
	"strings"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// Rotated is a rotation that was begun: the new key, and what becomes of those
// that the owner had.
type Rotated struct {
	AddedKey
	Old []OldKey // in the order of the file
}

// OldKey is a key beside a newer one.
type OldKey struct {
	ID       string    `json:"key_id"`
	NotAfter time.Time `json:"not_after"`
}

// Rotate makes a new key for owner and has each key that it replaces end at the
// given instant, which must be later than now; one that ends sooner keeps its
// end. Until then both are valid.
//
// An owner that has two valid keys is refused: a rotation is under way, and a
// second one would end the key that the agent was just given.
func Rotate(dir string, owner hub.Owner, now, end time.Time) (Rotated, error) {
	if end = end.UTC().Truncate(time.Second); !end.After(now) {
		return Rotated{}, &hub.Error{Code: hub.Invalid, Message: fmt.Sprintf("the old key would end at %s, which is past", end.Format(time.RFC3339)),
			Hint: "an agent needs time to change keys; to end a key at once, remove it from the file"}
	}
	var old []OldKey
	added, err := addKey(dir, owner, func(f *fleetfile.KeyFile, k fleetfile.Key) ([]byte, error) {
		if err := mayRotate(f, now); err != nil {
			return nil, err
		}
		ends := make(map[int]time.Time)
		for i, k := range f.Keys {
			until := end
			if k.NotAfter != nil && !k.NotAfter.After(end) {
				until = *k.NotAfter
			} else {
				ends[i] = end
			}
			old = append(old, OldKey{ID: k.ID, NotAfter: until.UTC()})
		}
		return f.Rotate(k, ends)
	})
	return Rotated{AddedKey: added, Old: old}, err
}

func mayRotate(f *fleetfile.KeyFile, now time.Time) error {
	if f.State == hub.Retired {
		return &hub.Error{Code: hub.Invalid, Message: f.Owner.String() + " is retired: its keys are unknown to the hub",
			Hint: "to take it back, write state: active first"}
	}
	var valid []string
	for _, k := range f.Keys {
		switch {
		case !k.ValidAt(now):
		case k.NotAfter == nil:
			valid = append(valid, k.ID)
		default:
			valid = append(valid, fmt.Sprintf("%s (until %s)", k.ID, k.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	if len(valid) < 2 {
		return nil
	}
	return &hub.Error{Code: hub.Invalid, Message: fmt.Sprintf("%s has %d valid keys already: %s", f.Owner, len(valid), strings.Join(valid, ", ")),
		Hint: fmt.Sprintf("finish the rotation under way: hub fleet rotate %s --finish --dsn DSN; the newest key is shown again by: hub fleet reveal %s --identity FILE; "+
			"a further key that ends no other is made by: hub fleet key add %s", f.Owner, f.Owner, f.Owner)}
}
