package clickhouse

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// Migration is one numbered step of the schema.
type Migration struct {
	Version  int
	Name     string
	Checksum string // SHA-256 of its text, hex
	sql      string
}

// migrations reads the embedded steps, in order.
func migrations() ([]Migration, error) {
	entries, err := schemaFiles.ReadDir("schema") // sorted by name
	if err != nil {
		return nil, err
	}
	var steps []Migration
	for i, e := range entries {
		text, err := schemaFiles.ReadFile(path.Join("schema", e.Name()))
		if err != nil {
			return nil, err
		}
		number, name, _ := strings.Cut(strings.TrimSuffix(e.Name(), ".sql"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("schema step %s: its number should be %d", e.Name(), i+1)
		}
		sql := fragments.Replace(string(text))
		sum := sha256.Sum256([]byte(sql))
		steps = append(steps, Migration{version, name, hex.EncodeToString(sum[:]), sql})
	}
	return steps, nil
}

const ledgerSQL = `CREATE TABLE IF NOT EXISTS schema_migrations
(
    version    UInt32 COMMENT 'Number of the step.',
    name       String COMMENT 'Name of the step.',
    checksum   String COMMENT 'SHA-256 of the step''s text.',
    applied_at DateTime64(3, 'UTC') COMMENT 'When the hub had applied it.'
)
ENGINE = MergeTree ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Schema steps that were applied to this database.'`

// ErrSchema means that the database has a schema that this hub cannot work on.
var ErrSchema = errors.New("this hub does not fit the database")

// Pending returns the steps that Migrate would apply. It fails with ErrSchema
// when the database is newer than this hub, or when an applied step had another
// text.
func (db *DB) Pending(ctx context.Context) ([]Migration, error) {
	steps, err := migrations()
	if err != nil {
		return nil, err
	}
	applied, err := db.appliedSteps(ctx)
	if err != nil {
		return nil, err
	}
	var pending []Migration
	for _, step := range steps {
		switch sum, ok := applied[step.Version]; {
		case !ok:
			pending = append(pending, step)
		case sum != step.Checksum:
			return nil, fmt.Errorf("%w: schema step %d (%s) of database %s was applied with another text; use the version that made it, or a new database", ErrSchema, step.Version, step.Name, db.database)
		}
		delete(applied, step.Version)
	}
	if len(applied) > 0 {
		return nil, fmt.Errorf("%w: database %s has %d schema steps that this hub does not know, so a newer hub made it; upgrade this one", ErrSchema, db.database, len(applied))
	}
	return pending, nil
}

func (db *DB) appliedSteps(ctx context.Context) (map[int]string, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var there uint64
	if err := db.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_migrations'").Scan(&there); err != nil {
		return nil, err
	}
	applied := map[int]string{}
	if there == 0 {
		return applied, nil
	}
	var rows []struct {
		Version  uint32 `ch:"version"`
		Checksum string `ch:"checksum"`
	}
	if err := db.conn.Select(ctx, &rows, "SELECT version, checksum FROM schema_migrations"); err != nil {
		return nil, err
	}
	for _, r := range rows {
		applied[int(r.Version)] = r.Checksum
	}
	return applied, nil
}

// stepTimeout bounds one statement of a step: it may read the whole stream.
const stepTimeout = 30 * time.Minute

// Migrate applies the pending steps in order and returns them. Each statement
// is idempotent, so a step that was cut off is simply applied again.
func (db *DB) Migrate(ctx context.Context, now time.Time) ([]Migration, error) {
	pending, err := db.Pending(ctx)
	if err != nil || len(pending) == 0 {
		return nil, err
	}
	if err := db.exec(ctx, ledgerSQL); err != nil {
		return nil, err
	}
	for _, step := range pending {
		if err := db.apply(ctx, step, now); err != nil {
			return nil, fmt.Errorf("schema step %d (%s): %w", step.Version, step.Name, err)
		}
	}
	return pending, nil
}

func (db *DB) apply(ctx context.Context, step Migration, now time.Time) error {
	for _, s := range splitStatements(step.sql) {
		due, err := db.due(ctx, s)
		if err == nil && due {
			err = db.execWithin(ctx, stepTimeout, s.sql)
		}
		if err != nil {
			return err
		}
	}
	return db.exec(ctx, "INSERT INTO schema_migrations SETTINGS async_insert = 0 VALUES (?, ?, ?, ?)",
		uint32(step.Version), step.Name, step.Checksum, now)
}

// due reports whether a statement's condition holds.
func (db *DB) due(ctx context.Context, s statement) (bool, error) {
	if s.onlyIf == "" {
		return true, nil
	}
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var n uint64
	err := db.conn.QueryRow(ctx, s.onlyIf).Scan(&n)
	return n > 0, err
}

func (db *DB) exec(ctx context.Context, statement string, args ...any) error {
	return db.execWithin(ctx, db.timeout, statement, args...)
}

func (db *DB) execWithin(ctx context.Context, timeout time.Duration, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return db.conn.Exec(ch.Context(ctx, ch.WithSettings(ch.Settings{"async_insert": 0})), statement, args...)
}

// statement is one of a step. Where onlyIf is set, a query that counts, it is
// executed only if that finds something: a statement that cannot be repeated asks
// whether it was done.
type statement struct{ sql, onlyIf string }

// conditionMark begins the comment line with a statement's condition.
const conditionMark = "-- Only if: "

// splitStatements cuts a step at the semicolons that end a line. No statement
// of ours has one inside a text.
func splitStatements(text string) []statement {
	var statements []statement
	for part := range strings.SplitSeq(text, ";\n") {
		var s statement
		var lines []string
		for line := range strings.Lines(part) {
			condition, marked := strings.CutPrefix(line, conditionMark)
			switch {
			case marked:
				s.onlyIf = strings.TrimSpace(condition)
			case !strings.HasPrefix(strings.TrimSpace(line), "--"):
				lines = append(lines, line)
			}
		}
		if s.sql = strings.TrimSpace(strings.Join(lines, "")); s.sql != "" {
			statements = append(statements, s)
		}
	}
	return statements
}

// Retention is how long rows are kept, by the hub's receive time; 0 is for ever,
// and so is half a century.
type Retention struct {
	Reports time.Duration // host_reports, controller_reports, rejected_items
	Raw     time.Duration // host_report_bodies, controller_report_bodies
	Guests  time.Duration // guest_reports, storage_target_reports, controller_apps
	Items   time.Duration // backup_reports, restore_test_reports, pbs_snapshot_reports, agent_audit
	Events  time.Duration // events
}

// SetRetention makes the tables' TTL what r says, and touches only those whose
// TTL differs. Of the stream whole parts are dropped (ttl_only_drop_parts), so rows
// go within a day (events: a month) after their time.
func (db *DB) SetRetention(ctx context.Context, r Retention) error {
	for _, t := range r.tables() {
		if err := db.setTTL(ctx, t); err != nil {
			return fmt.Errorf("retention of %s: %w", t.table, err)
		}
	}
	return nil
}

// lifetime is how long the rows of a table are kept, counted from a column.
type lifetime struct {
	table, column string
	keep          time.Duration
}

func (r Retention) tables() []lifetime {
	return []lifetime{
		{tableReports, "received_at", r.Reports},
		{tableItems, "received_at", r.Reports},
		{tableBodies, "received_at", r.Raw},
		{tableGuests, "received_at", r.Guests},
		{tableControllers, "received_at", r.Reports},
		{tableControllerBodies, "received_at", r.Raw},
		{tableApps, "received_at", r.Guests},
		{tableTargets, "received_at", r.Guests},
		{tableBackups, "received_at", r.Items},
		{tableRestoreTests, "received_at", r.Items},
		{tableSnapshots, "received_at", r.Items},
		{tableAudit, "received_at", r.Items},
		{tableEvents, "detected_at", r.Events},
		{tableNotifications, "at", r.Events},
	}
}

// The server adds a TTL in 32 bits of seconds, which end in 2106: a longer one
// would lie in the past, and everything be dropped.
const endless = 50 * 365 * 24 * time.Hour

func (t lifetime) forEver() bool { return t.keep == 0 || t.keep >= endless }

func (db *DB) setTTL(ctx context.Context, t lifetime) error {
	qctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	var engine string
	if err := db.conn.QueryRow(qctx, "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = ?", t.table).Scan(&engine); err != nil {
		return err
	}
	has := strings.Contains(engine, " TTL ")
	if t.forEver() {
		if !has {
			return nil
		}
		return db.exec(ctx, "ALTER TABLE "+quoteName(t.table)+" REMOVE TTL")
	}
	ttl := fmt.Sprintf("toDateTime(%s) + toIntervalSecond(%d)", t.column, int64(t.keep/time.Second))
	if strings.Contains(engine, " TTL "+ttl+" ") {
		return nil
	}
	return db.exec(ctx, "ALTER TABLE "+quoteName(t.table)+" MODIFY TTL "+ttl)
}
