package clickhouse

import (
	"context"
	"fmt"
	"time"
)

// Held tells in which tables one record of the spool has rows. The zero value is
// a record that is nowhere.
type Held struct{ has, owes uint32 }

// In reports whether the table has rows of the record.
func (h Held) In(table string) bool { return h.has&bit(table) != 0 }

// Owed reports whether the table must have rows of the record by what its row of
// host_reports says.
func (h Held) Owed(table string) bool { return h.owes&bit(table) != 0 }

// Reported reports whether the record is a row of host_reports.
func (h Held) Reported() bool { return h.In(tableReports) }

// Rejected reports whether the record is kept in rejected_reports.
func (h Held) Rejected() bool { return h.In(tableRejected) }

func bit(table string) uint32 { return bits[table] }

var bits = func() map[string]uint32 {
	m := map[string]uint32{}
	for i, table := range Counted() {
		m[table] = 1 << i
	}
	return m
}()

// Held looks for the records of a range in every table that is [Counted], and returns those that
// are anywhere, by sequence number.
func (db *DB) Held(ctx context.Context, r Range) (map[uint64]Held, error) {
	ctx, cancel := db.queryContext(ctx, nil)
	defer cancel()
	sql := union(Counted(), func(table string) string {
		owes := "0"
		if table == tableReports {
			owes = fmt.Sprintf("%d + if(guest_total > 0, %d, 0) + if(storage_target_total > 0, %d, 0) + if(rejected_total > 0, %d, 0)",
				bit(tableBodies), bit(tableGuests), bit(tableTargets), bit(tableItems))
		}
		return fmt.Sprintf("spool_seq, toUInt32(%d) AS has, toUInt32(%s) AS owes", bit(table), owes)
	})
	rows, err := db.conn.Query(ctx, "SELECT spool_seq, groupBitOr(has), groupBitOr(owes) FROM ("+sql+") GROUP BY spool_seq", rangeArgs(r)...)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", r, err)
	}
	defer rows.Close()
	held := make(map[uint64]Held, r.Last-r.First+1)
	for rows.Next() {
		var seq uint64
		var h Held
		if err := rows.Scan(&seq, &h.has, &h.owes); err != nil {
			return nil, err
		}
		held[seq] = h
	}
	return held, rows.Err()
}

// retentionGrace is how long before its time a row may be dropped: the clocks
// of hub and server differ.
const retentionGrace = time.Hour

// Floor returns the receive time before which rows of a table may have been
// dropped at now; zero where they are kept for ever.
func (r Retention) Floor(table string, now time.Time) time.Time {
	for _, t := range r.tables() {
		if t.table == table && !t.forEver() {
			return now.Add(retentionGrace - t.keep)
		}
	}
	return time.Time{}
}
