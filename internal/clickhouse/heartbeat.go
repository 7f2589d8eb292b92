package clickhouse

import (
	"context"
	"fmt"
	"time"
)

// Heartbeat is a hub's sign that it serves this database.
type Heartbeat struct {
	DataDirID string    `ch:"data_dir_id"`
	At        time.Time `ch:"at"` // that hub's clock
	Stopped   uint8     `ch:"stopped"`
	Machine   string    `ch:"machine"`
	DataDir   string    `ch:"data_dir"`
	Version   string    `ch:"version"`
}

// Beat writes a heartbeat; the newest of a data directory counts.
func (db *DB) Beat(ctx context.Context, h Heartbeat) error {
	if err := db.exec(ctx, "INSERT INTO hub_heartbeats VALUES (?, fromUnixTimestamp64Milli(toInt64(?)), ?, ?, ?, ?)",
		h.DataDirID, h.At.UnixMilli(), h.Stopped, h.Machine, h.DataDir, h.Version); err != nil {
		return fmt.Errorf("write the heartbeat: %w", err)
	}
	return nil
}

// Others returns the newest heartbeats of hubs with another data directory that
// did not say that they stop, the youngest first.
func (db *DB) Others(ctx context.Context, dataDirID string) ([]Heartbeat, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var list []Heartbeat
	err := db.conn.Select(ctx, &list, `
SELECT data_dir_id, newest.1 AS at, newest.2 AS stopped, newest.3 AS machine, newest.4 AS data_dir, newest.5 AS version
FROM (SELECT data_dir_id, argMax((at, stopped, machine, data_dir, version), at) AS newest FROM hub_heartbeats WHERE data_dir_id != ? GROUP BY data_dir_id)
WHERE stopped = 0 ORDER BY at DESC`, dataDirID)
	if err != nil {
		return nil, fmt.Errorf("look for other hubs: %w", err)
	}
	return list, nil
}
