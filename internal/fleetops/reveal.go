package fleetops

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// Revealed is a key that was opened.
type Revealed struct {
	AddedKey
	NotAfter time.Time // zero: it does not end
	Valid    bool      // for the hub, at the time asked for
}

// Reveal opens a key of owner: the one of that id, or the newest that is valid
// now where keyID is empty.
func Reveal(dir string, owner hub.Owner, keyID string, identities []seal.Identity, now time.Time) (Revealed, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return Revealed{}, err
	}
	f, err := readKeyFile(dir, owner)
	if err != nil {
		return Revealed{}, err
	}
	i, err := choose(f, keyID, now)
	if err != nil {
		return Revealed{}, err
	}
	payload, problem := unseal(f, i, identities)
	if problem != nil {
		return Revealed{}, errors.New(in(dir, *problem).String())
	}
	k := f.Keys[i]
	shown := Revealed{
		AddedKey: AddedKey{Owner: owner, KeyID: k.ID, APIKey: payload.Key, File: filepath.Join(dir, f.Name)},
		Valid:    k.ValidAt(now) && f.State != hub.Retired,
	}
	if k.NotAfter != nil {
		shown.NotAfter = k.NotAfter.UTC()
	}
	return shown, nil
}

// choose returns the place of the key that is meant.
func choose(f *fleetfile.KeyFile, keyID string, now time.Time) (int, error) {
	var ids []string
	found := -1
	for i, k := range f.Keys {
		ids = append(ids, k.ID)
		if k.ID == keyID || keyID == "" && k.ValidAt(now) {
			found = i
		}
	}
	switch {
	case found >= 0:
		return found, nil
	case len(ids) == 0:
		return 0, &hub.Error{Code: hub.Invalid, Message: f.Owner.String() + " has no key", Hint: "make one with: hub fleet key add " + f.Owner.String()}
	case keyID == "":
		return 0, &hub.Error{Code: hub.Invalid, Message: fmt.Sprintf("no key of %s is valid now", f.Owner),
			Hint: fmt.Sprintf("it has %s, choose with --key; a new one is made by: hub fleet rotate %s", strings.Join(ids, ", "), f.Owner)}
	}
	return 0, &hub.Error{Code: hub.Invalid, Message: fmt.Sprintf("%s has no key %q", f.Owner, keyID), Hint: "it has " + strings.Join(ids, ", ")}
}
