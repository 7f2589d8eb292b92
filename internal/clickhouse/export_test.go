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
	return nil
}
