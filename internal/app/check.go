package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// Finding is what a check found out about one part of a configuration.
type Finding struct {
	Area    string `json:"area"` // data_dir, identities, fleet, clickhouse, tls
	OK      bool   `json:"ok"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Check tries what a configuration names: folders, identities, the fleet
// repository with its newest commit, and ClickHouse. It changes nothing but
// data_dir, where it keeps a mirror of its own that it removes again; and it
// starts the embedded engine for a moment where no hub runs.
func Check(ctx context.Context, cfg *config.Config, launcher string) []Finding {
	findings := []Finding{
		finding("data_dir", func() (string, error) { return cfg.DataDir, privateDir(cfg.DataDir) }),
		finding("identities", func() (string, error) {
			ids, err := seal.ReadIdentities(cfg.Fleet.IdentityFiles...)
			if err == nil && len(ids) == 0 {
				err = &hub.Error{Message: "no identity is named, so no key of the fleet can be opened", Hint: "hub key generate makes one; name it in fleet.identity_files"}
			}
			return fmt.Sprintf("%d read", len(ids)), err
		}),
		finding("fleet", func() (string, error) { return checkFleet(ctx, cfg) }),
		finding("clickhouse", func() (string, error) { return checkDatabase(ctx, cfg, launcher) }),
	}
	if cfg.TLS.CertFile != "" {
		findings = append(findings, finding("tls", func() (string, error) { return checkTLS(cfg.TLS, time.Now()) }))
	}
	return findings
}

func finding(area string, check func() (string, error)) Finding {
	message, err := check()
	if err == nil {
		return Finding{Area: area, OK: true, Message: message}
	}
	f := Finding{Area: area, Message: err.Error()}
	var e *hub.Error
	if errors.As(err, &e) {
		f.Hint = e.Hint
	}
	return f
}

// checkFleet clones the repository aside and loads its head.
func checkFleet(ctx context.Context, cfg *config.Config) (message string, err error) {
	c := cfg.Fleet
	dir, remove, err := scratchDir(cfg.DataDir)
	if err != nil {
		return "", err
	}
	defer remove()
	identities, err := seal.ReadIdentities(c.IdentityFiles...)
	if err != nil {
		return "", err
	}
	if err := checkSigners(c); err != nil {
		return "", err
	}
	repo, err := gitsync.Open(mirrorOptions(c, dir))
	if err != nil {
		return "", err
	}
	defer repo.Close()
	head, err := repo.Fetch(ctx)
	if err == nil && c.AllowedSignersFile != "" {
		_, err = verify(repo, c, head, head)
	}
	if err != nil {
		return "", err
	}
	err = repo.View(head, c.Path, func(files fs.FS) error {
		fleet, problems, err := fleetfile.Load(files, seal.NewOpener(identities), fleetfile.Options{Revision: string(head),
			Base: hub.Thresholds{StaleAfter: cfg.Monitor.StaleAfter, DownAfter: cfg.Monitor.DownAfter}})
		if err != nil {
			return err
		}
		if len(problems) > 0 {
			return &hub.Error{Message: fmt.Sprintf("commit %s has %d mistakes, first %s", head.Short(), len(problems), problems[0]),
				Hint: "hub fleet validate lists them all"}
		}
		message = fmt.Sprintf("commit %s of %s, %d hosts", head.Short(), c.Branch, fleet.Len())
		return nil
	})
	return message, err
}

func checkDatabase(ctx context.Context, cfg *config.Config, launcher string) (string, error) {
	var message string
	err := withDatabase(ctx, cfg, launcher, func(db *clickhouse.DB) error {
		version, err := db.Check(ctx)
		if err != nil {
			return &hub.Error{Message: "ClickHouse cannot be used", Cause: err,
				Hint: "is it running, and are clickhouse.dsn, password_file and the user's rights right?"}
		}
		pending, err := db.Pending(ctx)
		message = fmt.Sprintf("ClickHouse %s, %d schema steps to apply", version, len(pending))
		return err
	})
	return message, err
}

// Migrate applies the schema steps that the database of a configuration lacks
// and returns them. With dryRun it only returns them.
func Migrate(ctx context.Context, cfg *config.Config, launcher string, dryRun bool) (steps []clickhouse.Migration, err error) {
	err = withDatabase(ctx, cfg, launcher, func(db *clickhouse.DB) error {
		if dryRun {
			steps, err = db.Pending(ctx)
		} else {
			steps, err = db.Migrate(ctx, time.Now().UTC())
		}
		return err
	})
	return steps, err
}

// withDatabase calls f with the database of a configuration. The embedded
// engine is that of the running hub, or one started for the occasion.
func withDatabase(ctx context.Context, cfg *config.Config, launcher string, f func(*clickhouse.DB) error) error {
	running, err := engine.Describe(EngineDir(cfg))
	if cfg.ClickHouse.DSN == "" && err == nil {
		db, err := clickhouse.Open(clickhouse.Options{DSN: running.NativeURL(engine.RoleHub).Reveal()})
		if err != nil {
			return err
		}
		defer db.Close()
		return f(db)
	}
	e, err := newEngine(cfg, launcher, nil)
	if err != nil {
		return err
	}
	if e != nil {
		if err := e.Start(ctx); err != nil {
			return err
		}
		defer func() { _ = e.Stop(ctx) }()
	}
	db, err := openDB(cfg, e)
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db)
}
