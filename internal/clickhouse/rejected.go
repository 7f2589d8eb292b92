package clickhouse

import (
	"context"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"felhom.eu/hub/internal/hub"
)

// TakeRejected removes the rows of records from rejected_reports, on all replicas:
// what they say has become rows elsewhere. Those that are not there cost a question.
func (db *DB) TakeRejected(ctx context.Context, positions []hub.Position) error {
	if len(positions) == 0 {
		return nil
	}
	places := make([]string, len(positions))
	for i, p := range positions {
		places[i] = fmt.Sprintf("('%s', %d)", p.SpoolID, p.Seq)
	}
	there := "(spool_id, spool_seq) IN (" + strings.Join(places, ", ") + ")"
	ctx, cancel := db.queryContext(ctx, ch.Settings{"lightweight_deletes_sync": 2})
	defer cancel()
	var n uint64
	err := db.conn.QueryRow(ctx, "SELECT count() FROM "+tableRejected+" WHERE "+there).Scan(&n)
	if err == nil && n > 0 {
		err = db.conn.Exec(ctx, "DELETE FROM "+tableRejected+" WHERE "+there)
	}
	if err != nil {
		return fmt.Errorf("take records out of %s: %w", tableRejected, err)
	}
	return nil
}
