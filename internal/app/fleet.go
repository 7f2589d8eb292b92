package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// keysCache holds the digests of opened seals, in data_dir.
const keysCache = "keys.cache"

// openFleet opens the mirror, and checks what the hub needs to trust a commit and
// to be trusted itself. It does not talk to the remote.
func (a *App) openFleet() error {
	c := a.cfg.Fleet
	identities, err := seal.ReadIdentities(c.IdentityFiles...)
	if err != nil {
		return fmt.Errorf("fleet.identity_files: %w", err)
	}
	a.opener = seal.NewOpener(identities)
	if err := a.opener.ReadCache(a.keysCache()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("every seal is opened anew", "reason", err)
	}
	if err := checkSigners(c); err != nil {
		return err
	}
	mirror := mirrorOptions(c, filepath.Join(a.cfg.DataDir, mirrorFolder))
	mirror.Logger = a.log.With("part", "git")
	a.repo, err = gitsync.Open(mirror)
	if err != nil {
		return err
	}
	o := roster.Options{
		Source: a.repo, Path: c.Path, Interval: c.Interval, MaxAge: c.MaxAge, Logger: a.log.With("part", "fleet"),
		Load:     fleetfile.NewLoader(a.opener, a.thresholds()).Load,
		Announce: a.announce, Memory: a.spool, Now: a.now,
	}
	if c.AllowedSignersFile != "" {
		o.Trust = a.trust
	}
	a.roster = roster.New(o)
	a.roster.OnApply(a.fleetApplied)
	return nil
}

func (a *App) keysCache() string { return filepath.Join(a.cfg.DataDir, keysCache) }

// mirrorOptions say how the configured repository is reached.
func mirrorOptions(c config.Fleet, dir string) gitsync.Options {
	return gitsync.Options{
		URL: c.URL, Branch: c.Branch, Dir: dir,
		CredentialsFile: c.CredentialsFile, KnownHostsFile: c.KnownHostsFile, CAFile: c.CAFile,
		SigningKeyFile: c.SigningKeyFile,
	}
}

// checkSigners refuses signers that cannot be read, and a hub that would commit
// what it does not trust.
func checkSigners(c config.Fleet) error {
	if c.AllowedSignersFile == "" {
		return nil
	}
	signers, err := gitsync.ReadSigners(c.AllowedSignersFile, c.RevokedSignersFile)
	if err != nil || c.Mint == "off" {
		return err
	}
	key, err := gitsync.ReadSigningKey(c.SigningKeyFile)
	if err != nil {
		return err
	}
	return signers.Allows(key, time.Now())
}

// trust verifies a head by the signers' files as they are now.
func (a *App) trust(head, since gitsync.Hash) (string, error) {
	return verify(a.repo, a.cfg.Fleet, head, since)
}

func verify(repo *gitsync.Repo, c config.Fleet, head, since gitsync.Hash) (signer string, err error) {
	signers, err := gitsync.ReadSigners(c.AllowedSignersFile, c.RevokedSignersFile)
	if err != nil {
		return "", err
	}
	return repo.Verify(head, since, signers, time.Now())
}

// announce makes a notice durable; it reaches ClickHouse as reports do.
func (a *App) announce(n hub.Notice) error {
	body, err := wire.EncodeNotice(n)
	if err != nil {
		return err
	}
	if _, err = a.spool.Append(context.Background(), spool.Record{Kind: hub.KindNotice, Body: body}); err == nil {
		a.tell(n.Events)
	}
	return err
}

// accept brings a held revision in force, by an operator's word.
func (a *App) accept(ctx context.Context, revision string) (any, error) {
	if err := a.roster.Accept(ctx, revision); err != nil {
		return nil, err
	}
	return a.fleetStatus(), nil
}

// restoreUses tells the acceptor when keys were used in earlier runs, as far as
// reports that ClickHouse has say so.
func (a *App) restoreUses(ctx context.Context) error {
	return a.db.LastKeyUses(ctx, func(owner hub.Owner, keyID string, at time.Time) {
		a.acceptor.RestoreUse(owner, keyID, at)
	})
}

// cacheWorthWriting is how many opened seals, at 0.2 ms each, are worth a file.
const cacheWorthWriting = 1000

// keepOpened writes the digests of opened seals down, so that the next start need
// not open them.
func (a *App) keepOpened(least int) {
	if a.opener == nil || a.opener.Fresh() < least {
		return
	}
	if err := a.opener.WriteCache(a.keysCache()); err != nil {
		a.log.Warn("the digests of opened seals could not be written; the next start opens them anew", "error", err)
	}
}
