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
		result, err = audit.Run(ctx, audit.Options{
			Spool: spool.Folder(SpoolDir(cfg)), Store: db, Now: time.Now().UTC(),
			Retention: retention(cfg),
		})
		return err
	})
	return result, err
}
