package app

import (
	"context"
	"io/fs"
	"path"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
)

// minting enrolls hosts over HTTP: it commits the host's file to the fleet
// repository, as an operator would, and answers when the commit is pushed.
type minting struct {
	repo   *gitsync.Repo
	roster *roster.Roster
	fleet  config.Fleet
}

var minter = gitsync.Author{Name: "Felhom hub", Email: "hub@localhost"}

// Mint implements httpapi.Minter. With mint: direct the new key is in force when
// it returns.
func (m *minting) Mint(ctx context.Context, customerID, displayName string) (httpapi.Minted, error) {
	direct := m.fleet.Mint == "direct"
	if direct {
		// On a head that is not in force the key would not work, and the commit
		// would be left behind.
		if err := m.roster.Pull(ctx); err != nil {
			return httpapi.Minted{}, unavailable(err)
		}
	}
	minted := httpapi.Minted{Branch: m.fleet.Branch}
	commit, err := m.repo.Publish(ctx, func(_ gitsync.Hash, files fs.FS) (gitsync.Change, error) {
		host, change, err := m.enroll(files, customerID, displayName)
		if !direct {
			change.Branch = "enroll/" + host.HostID
			minted.Branch = change.Branch
		}
		minted.HostID, minted.APIKey = host.HostID, host.APIKey
		return change, err
	})
	if err != nil {
		return httpapi.Minted{}, err
	}
	if direct {
		if err := m.roster.Pull(ctx); err != nil {
			return httpapi.Minted{}, unavailable(err)
		}
	}
	minted.Commit = string(commit)
	return minted, nil
}

// enroll plans the host on the files of a commit.
func (m *minting) enroll(repo fs.FS, customerID, displayName string) (fleetops.Enrolled, gitsync.Change, error) {
	folder, err := fs.Sub(repo, m.fleet.Path)
	if err != nil {
		return fleetops.Enrolled{}, gitsync.Change{}, err
	}
	host, files, err := fleetops.EnrollFiles(folder, customerID, displayName)
	change := gitsync.Change{Files: map[string][]byte{}, Author: minter,
		Message: "fleet: enroll " + host.HostID + " for " + customerID + "\n\nMinted by the hub's API.\n"}
	for name, data := range files {
		change.Files[path.Join(m.fleet.Path, name)] = data
	}
	return host, change, err
}

func unavailable(err error) error {
	return &hub.Error{Code: hub.Unavailable, Reason: "fleet_not_current",
		Message: "the fleet repository's newest commit is not in force", Hint: "see /api/v1/fleet/status", Cause: err}
}
