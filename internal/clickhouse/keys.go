package clickhouse

import (
	"context"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"felhom.eu/hub/internal/hub"
)

// keyUses gives the newest use of each key, in the words of the register. A
// removal ends a key: what was used before it was another key of the same id.
// hostKeyUses is what it was before customers' keys reported.
const (
	keyUses = keyUsesBegin + `
            multiIf(startsWith(key_id, 'fleet/'), 'fleet', startsWith(key_id, 'customer/'), substring(key_id, 1, length(key_id) - position(reverse(toString(key_id)), '/')), concat('host/', host_id)) AS owner,
            splitByChar('/', toString(key_id))[-1] AS id,` + keyUsesEnd

	hostKeyUses = keyUsesBegin + `
            if(startsWith(key_id, 'fleet/'), 'fleet', concat('host/', host_id)) AS owner,
            if(startsWith(key_id, 'fleet/'), substring(key_id, 7), toString(key_id)) AS id,` + keyUsesEnd

	keyUsesBegin = `SELECT owner, id AS key_id, max(used_at) AS last_used_at
    FROM
    (
        SELECT`

	keyUsesEnd = `
            last_used_at AS used_at,
            toDateTime64(0, 3, 'UTC') AS removed_at
        FROM key_last
        UNION ALL
        SELECT owner, toString(key_id) AS id, toDateTime64(0, 3, 'UTC') AS used_at, applied_at AS removed_at
        FROM fleet_key_changes WHERE removed = 1
    )
    GROUP BY owner, id
    HAVING last_used_at > max(removed_at)`
)

// KeyUses returns, by key id, received_at of the newest report that ClickHouse
// has under each key of owner. A key without one is left out, and so is one that
// the register no longer has.
func (db *DB) KeyUses(ctx context.Context, owner hub.Owner) (map[string]time.Time, error) {
	uses := map[string]time.Time{}
	err := db.keyUses(ctx, func(_ hub.Owner, keyID string, at time.Time) { uses[keyID] = at },
		"SELECT owner, key_id, last_used_at FROM ("+keyUses+") WHERE owner = ?", owner.String())
	return uses, err
}

// LastKeyUses is KeyUses for every owner: it calls use once for each key, in no
// order. Events are no use that it knows of.
func (db *DB) LastKeyUses(ctx context.Context, use func(owner hub.Owner, keyID string, at time.Time)) error {
	return db.keyUses(ctx, use, keyUses)
}

func (db *DB) keyUses(ctx context.Context, use func(hub.Owner, string, time.Time), query string, args ...any) error {
	ctx, cancel := db.queryContext(ctx, ch.Settings{"max_block_size": streamRows})
	defer cancel()
	rows, err := db.conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var owner, keyID string
		var at time.Time
		if err := rows.Scan(&owner, &keyID, &at); err != nil {
			return err
		}
		o, err := hub.ParseOwner(owner)
		if err != nil {
			return err
		}
		use(o, keyID, at)
	}
	return rows.Err()
}
