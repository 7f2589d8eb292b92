package clickhouse

import (
	"context"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	driver "github.com/ClickHouse/clickhouse-go/v2/lib/column"

	"felhom.eu/hub/internal/hub"
)

// Range is a run of spool records within one volume, both ends included.
type Range struct {
	SpoolID     hub.SpoolID
	First, Last uint64
}

// String returns "<spool id>/<first>-<last>".
func (r Range) String() string { return fmt.Sprintf("%s/%d-%d", r.SpoolID, r.First, r.Last) }

// Insert sends the batch's rows for one table as one block under token, and
// returns nil when the server has them durably, or had them already under the
// same token; of a table that is [Repeatable] the token does not matter. Any error
// leaves the outcome open. A table without rows is done at once.
func (db *DB) Insert(ctx context.Context, b *Batch, table, token string) error {
	return db.insertBlock(ctx, table, b.block(table), token)
}

func (db *DB) insertBlock(ctx context.Context, table string, rows block, token string) error {
	if rows.rows() == 0 {
		return nil
	}
	settings := insertSettings(token)
	if Repeatable(table) {
		settings = repeatSettings
	}
	ctx, cancel := db.queryContext(ctx, settings)
	defer cancel()
	columns := rows.columns()
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO "+quoteName(table)+" ("+strings.Join(names, ", ")+")")
	if err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	defer batch.Close()
	for i, c := range columns {
		if err := makeRoom(batch.Columns()[i], c.values.slice()); err != nil {
			_ = batch.Abort()
			return fmt.Errorf("insert into %s: column %s: %w", table, c.name, err)
		}
		if err := batch.Column(i).Append(c.values.slice()); err != nil {
			_ = batch.Abort()
			return fmt.Errorf("insert into %s: column %s: %w: %w", table, c.name, errValue, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	return nil
}

// worthRoom is the size of a column, in bytes, from which on it is given its room
// at once.
const worthRoom = 1 << 20

// blank is larger than the texts of a cut, and never written to: it costs no memory.
var blank [64 << 20]byte

// makeRoom has a column of texts allocate all that it will need. It would grow by
// quarters, and copy megabytes of bodies four times over; the driver has no other
// way to say how much is coming than a text of that size, taken back.
func makeRoom(into driver.Interface, values any) error {
	size := 0
	switch texts := values.(type) {
	case [][]byte:
		size = bytesIn(texts)
	case []string:
		size = bytesIn(texts)
	}
	if _, plain := into.(*driver.String); !plain || size < worthRoom {
		return nil
	}
	if err := into.AppendRow(blank[:min(size, len(blank))]); err != nil {
		return err
	}
	into.Reset()
	return nil
}

func bytesIn[T string | []byte](texts []T) (n int) {
	for _, text := range texts {
		n += len(text)
	}
	return n
}

// insertSettings are on every insert, explicitly: the server's defaults differ
// between releases (async_insert became 1 in 26.3).
func insertSettings(token string) ch.Settings {
	return ch.Settings{
		"async_insert":               0,
		"insert_deduplication_token": token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"max_partitions_per_insert_block":                    1,
		"log_comment":                                        token,
	}
}

// repeatSettings are on inserts into tables that are Repeatable: what is sent again
// is not left out, because a server may have lost it since.
var repeatSettings = ch.Settings{"async_insert": 0, "insert_deduplicate": 0}

// Count returns how many rows of a range a table holds.
func (db *DB) Count(ctx context.Context, table string, r Range) (uint64, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var n uint64
	err := db.conn.QueryRow(ctx, "SELECT count() FROM "+quoteName(table)+" WHERE spool_id = ? AND spool_seq BETWEEN ? AND ?",
		r.SpoolID.String(), r.First, r.Last).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count %s in %s: %w", r, table, err)
	}
	return n, nil
}

// Counts returns how many rows of a range each of the tables holds. It costs a
// fraction of so many Counts.
func (db *DB) Counts(ctx context.Context, r Range, tables []string) (map[string]uint64, error) {
	counts := map[string]uint64{}
	if len(tables) == 0 {
		return counts, nil
	}
	ctx, cancel := db.queryContext(ctx, ch.Settings{"max_threads": 1})
	defer cancel()
	rows, err := db.conn.Query(ctx, union(tables, func(table string) string { return "'" + table + "', count()" }), rangeArgs(r)...)
	if err != nil {
		return nil, fmt.Errorf("count %s: %w", r, err)
	}
	defer rows.Close()
	for rows.Next() {
		var table string
		var n uint64
		if err := rows.Scan(&table, &n); err != nil {
			return nil, err
		}
		counts[table] = n
	}
	return counts, rows.Err()
}

// union is a query for columns of a range in several tables; see rangeArgs.
func union(tables []string, columns func(table string) string) string {
	parts := make([]string, 0, len(tables))
	for _, table := range tables {
		parts = append(parts, "SELECT "+columns(table)+" FROM "+quoteName(table)+" WHERE spool_id = @id AND spool_seq BETWEEN @first AND @last")
	}
	return strings.Join(parts, " UNION ALL ")
}

func rangeArgs(r Range) []any {
	return []any{ch.Named("id", r.SpoolID.String()), ch.Named("first", r.First), ch.Named("last", r.Last)}
}

// Present returns the sequence numbers of a range that a table holds.
func (db *DB) Present(ctx context.Context, table string, r Range) (map[uint64]bool, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var seqs []struct {
		Seq uint64 `ch:"spool_seq"`
	}
	err := db.conn.Select(ctx, &seqs, "SELECT DISTINCT spool_seq FROM "+quoteName(table)+" WHERE spool_id = ? AND spool_seq BETWEEN ? AND ?",
		r.SpoolID.String(), r.First, r.Last)
	if err != nil {
		return nil, fmt.Errorf("look for %s in %s: %w", r, table, err)
	}
	present := make(map[uint64]bool, len(seqs))
	for _, s := range seqs {
		present[s.Seq] = true
	}
	return present, nil
}

// Boot returns a random id of the server's current run: it changes when, and
// only when, the server restarts. (It is a row of a table that lives in memory;
// uptime() counts whole seconds, which cannot tell two quick restarts apart.)
func (db *DB) Boot(ctx context.Context) (string, error) {
	id, err := db.bootID(ctx)
	if err == nil && id == "" {
		if err = db.exec(ctx, "INSERT INTO server_boot SELECT generateUUIDv4() WHERE (SELECT count() FROM server_boot) = 0"); err == nil {
			id, err = db.bootID(ctx)
		}
	}
	if err != nil {
		return "", fmt.Errorf("ask which run of the server this is: %w", err)
	}
	return id, nil
}

// bootID returns the id that is there; empty: none yet.
func (db *DB) bootID(ctx context.Context) (id string, err error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	err = db.conn.QueryRow(ctx, "SELECT if(count() = 0, '', toString(min(boot_id))) FROM server_boot").Scan(&id)
	return id, err
}
