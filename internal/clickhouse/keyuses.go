package clickhouse

import (
	"context"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"felhom.eu/hub/internal/hub"
)

// KeyUses returns when each key of owner was last used, by key id, as far as
// the reports that are kept tell: a key that is not there was not used. Keys of
// customers send no reports.
func (db *DB) KeyUses(ctx context.Context, owner hub.Owner) (map[string]time.Time, error) {
	const fleetPrefix = "fleet/" // how a row tells a global key from a host's
	query, args := "", []any{}
	switch owner.Kind {
	case hub.OwnerHost:
		query, args = "SELECT key_id, max(received_at) FROM host_reports WHERE host_id = ? GROUP BY key_id", []any{owner.Name}
	case hub.OwnerFleet:
		query = "SELECT key_id, max(received_at) FROM host_reports WHERE startsWith(key_id, '" + fleetPrefix + "') GROUP BY key_id"
	default:
		return map[string]time.Time{}, nil
	}
	ctx, cancel := db.queryContext(ctx, ch.Settings{})
	defer cancel()
	rows, err := db.conn.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	uses := make(map[string]time.Time)
	for rows.Next() {
		var id string
		var at time.Time
		if err := rows.Scan(&id, &at); err != nil {
			return nil, err
		}
		if name, global := strings.CutPrefix(id, fleetPrefix); global == (owner.Kind == hub.OwnerFleet) {
			uses[name] = at
		}
	}
	return uses, rows.Err()
}
