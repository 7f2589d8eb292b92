package app

import (
	"context"
	"time"

	"felhom.eu/hub/internal/audit"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// Audit compares the spool of a configuration with its ClickHouse. It may run
// beside the hub; where none runs, it starts the embedded engine for a moment.
func Audit(ctx context.Context, cfg *config.Config, launcher string) (result audit.Result, err error) {
	err = withDatabase(ctx, cfg, launcher, func(db *clickhouse.DB) error {
		if _, err := db.Check(ctx); err != nil {
			return &hub.Error{Message: "ClickHouse cannot be asked", Cause: err, Hint: "hub check says what is wrong with the connection"}
		}
		keep := cfg.ClickHouse.Retention
		result, err = audit.Run(ctx, audit.Options{
			Spool: spool.Folder(SpoolDir(cfg)), Store: db, Now: time.Now().UTC(),
			Retention: clickhouse.Retention{Reports: keep.Reports, Raw: keep.Raw, Guests: keep.Guests, Events: keep.Events},
		})
		return err
	})
	return result, err
}
