package fleetops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbound"
	"felhom.eu/hub/internal/seal"
)

// SealedChannel is a channel whose URL was sealed.
type SealedChannel struct {
	Owner   hub.Owner
	Channel string
	Kind    string // as slack; see fleetfile.KindOf
	Added   bool   // the channel is new; else its URL was replaced
	File    string // as seen from where the folder is
}

// SealURL seals the URL of a channel of the fleet or a customer and writes it into
// the owner's file: in place of the one that the channel has, or as a new channel.
// The rest of the file stays as it was written. A URL that the hub would not use is
// refused, with an error that repeats nothing of it.
func SealURL(dir string, owner hub.Owner, channel string, url hub.Secret) (SealedChannel, error) {
	if owner.Kind == hub.OwnerHost {
		return SealedChannel{}, &hub.Error{Code: hub.Invalid, Message: "a host has no channels", Hint: "its customer and the fleet have: name customer/NAME or fleet"}
	}
	if !hub.ValidCustomerName(channel) {
		return SealedChannel{}, &hub.Error{Code: hub.Invalid, Message: "not a channel's name", Hint: "lowercase letters, digits and dashes; at most 63, no dash first or last"}
	}
	dir, err := ResolveDir(dir)
	if err != nil {
		return SealedChannel{}, err
	}
	if err := checkURL(os.DirFS(dir), url); err != nil {
		return SealedChannel{}, err
	}
	f, err := readKeyFile(dir, owner)
	if err != nil {
		return SealedChannel{}, err
	}
	recipients, err := readRecipients(os.DirFS(dir))
	if err != nil {
		return SealedChannel{}, err
	}
	sealed, err := sealURL(owner, channel, url, recipients)
	if err != nil {
		return SealedChannel{}, err
	}
	data, err := f.SetURL(channel, sealed)
	if err != nil {
		return SealedChannel{}, err
	}
	added := !slices.ContainsFunc(f.Channels, func(c fleetfile.Channel) bool { return c.Name == channel })
	done := SealedChannel{Owner: owner, Channel: channel, Kind: fleetfile.KindOf(url), Added: added, File: filepath.Join(dir, f.Name)}
	return done, replace(done.File, data)
}

func sealURL(owner hub.Owner, channel string, url hub.Secret, to []seal.Recipient) (fleetfile.SealedURL, error) {
	sealed, sealedTo, err := seal.SealURL(seal.URLPayload{Owner: owner, Channel: channel, URL: url}, to)
	return fleetfile.SealedURL{SealedTo: sealedTo, Sealed: sealed}, err
}

// checkURL says what is wrong with a URL in the fleet folder fsys.
func checkURL(fsys fs.FS, url hub.Secret) error {
	if err := fleetfile.CheckURL(url); err != nil {
		return &hub.Error{Code: hub.Invalid, Message: "the URL cannot be used", Hint: err.Error()}
	}
	data, err := fs.ReadFile(fsys, fleetfile.FleetPath)
	if err != nil {
		return err
	}
	fleet := fleetfile.ParseSingle(fleetfile.FleetPath, data, true).Fleet
	if fleet == nil {
		return errors.New(fleetfile.FleetPath + " cannot be read: see why with: hub fleet validate")
	}
	if err := notify.Validate(url, outbound.New(fleet.Outbound)); err != nil {
		return &hub.Error{Code: hub.Invalid, Message: "the URL leads to an address inside, or to one outside without encryption",
			Hint: fmt.Sprintf("name its network in spec.outbound.allow of %s first, if the hub may reach it", fleetfile.FleetPath)}
	}
	return nil
}
