package clickhouse

import (
	"context"
	"time"
)

// MigrateTo applies the steps up to version, as an older hub did.
func (db *DB) MigrateTo(ctx context.Context, version int, now time.Time) error {
	steps, err := migrations()
	if err != nil {
		return err
	}
	if err := db.exec(ctx, ledgerSQL); err != nil {
		return err
	}
	for _, step := range steps[:version] {
		if err := db.apply(ctx, step, now); err != nil {
			return err
		}
	}
	// Rows of this hub have columns that the older one's did not.
	return db.exec(ctx, "ALTER TABLE host_reports ADD COLUMN IF NOT EXISTS storage_target_total UInt32")
}

// ApplyPart executes the first n statements of a step, as a hub that died during
// it, and returns how many the step has.
func (db *DB) ApplyPart(ctx context.Context, version, n int) (int, error) {
	steps, err := migrations()
	if err != nil {
		return 0, err
	}
	statements := splitStatements(steps[version-1].sql)
	for _, s := range statements[:n] {
		due, err := db.due(ctx, s)
		if err == nil && due {
			err = db.exec(ctx, s.sql)
		}
		if err != nil {
			return 0, err
		}
	}
	return len(statements), nil
}
