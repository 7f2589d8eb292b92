package ship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
	"felhom.eu/hub/internal/spool"
)

// defaultReplayWait is how long a replay waits for the end of the cut under way.
const defaultReplayWait = 20 * time.Second

// Replayed is what became of a record that was to be replayed.
type Replayed struct {
	hub.Position
	Inserted bool   // rows were missing, and were inserted
	Reason   string // why it still cannot become rows; empty: it has
}

// Replay reads records that were rejected once more, with what this hub can read
// now, and brings the rows of those that it can to ClickHouse, under their own
// position and time. Then their rows of rejected_reports go, and they are marked
// as replayed. With dry it only says what it would do.
//
// Each step can be done again, and nothing is undone by that: a table that has
// the position gets nothing, rows go under the same token each time, and the mark
// comes last. So after an error, or a crash at any point, the same call completes
// what was begun; until then a record may be both a row and rejected.
//
// It runs between two cuts, so it needs Run, and fails where ClickHouse is away.
func (s *Shipper) Replay(ctx context.Context, records []rejected.Record, dry bool) (done []Replayed, err error) {
	finished := make(chan struct{})
	work := func(running context.Context) {
		defer close(finished)
		done, err = s.replay(ctx, running, records, dry)
	}
	timer := time.NewTimer(s.replayWait)
	defer timer.Stop()
	select {
	case s.between <- work:
		<-finished
		return done, err
	case <-timer.C:
		return nil, &hub.Error{Code: hub.Unavailable, Reason: "busy", Message: "the hub could not begin: it is bringing reports to ClickHouse, or waits for it",
			Hint: "hub status says whether ClickHouse takes reports; give the command again when it does"}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// replay stops when either context ends; what was inserted until then is settled
// as long as the shipper runs.
func (s *Shipper) replay(ctx, running context.Context, records []rejected.Record, dry bool) (done []Replayed, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, cancel)()
	var settled []hub.Position
	for _, r := range records {
		var d Replayed
		if d, err = s.replayOne(ctx, r, dry); err != nil {
			break
		}
		if done = append(done, d); d.Reason == "" {
			settled = append(settled, d.Position)
		}
	}
	if dry || len(settled) == 0 {
		return done, err
	}
	return done, errors.Join(err, s.settle(running, settled))
}

// replayOne brings the rows of one record to where they are missing.
func (s *Shipper) replayOne(ctx context.Context, r rejected.Record, dry bool) (Replayed, error) {
	e := s.decode(spool.Entry{
		Record:  spool.Record{Kind: r.Kind, HostID: r.HostID, CustomerID: r.CustomerID, KeyID: r.KeyID, Body: r.Body},
		Receipt: hub.Receipt{Position: r.Position, ReceivedAt: r.ReceivedAt},
	})
	done := Replayed{Position: r.Position, Reason: e.reason}
	if e.reason != "" {
		return done, nil
	}
	if err := s.load(ctx); err != nil {
		return done, err
	}
	var rows clickhouse.Batch
	e.add(&rows)
	new(repeats).news().add(&e, &rows, s.ahead)
	for _, table := range clickhouse.Tables() {
		if rows.Rows(table) == 0 {
			continue
		}
		inserted, err := s.insertMissing(ctx, r.Position, table, &rows, dry)
		if clickhouse.Refused(err) {
			done.Reason = err.Error()
			return done, nil
		}
		if err != nil {
			return done, err
		}
		done.Inserted = done.Inserted || inserted
	}
	return done, nil
}

// replayGenerations is how many tokens are tried for a block that the server
// acknowledges and does not have; see delivery.
const replayGenerations = 3

// insertMissing inserts the rows of one record into one table, unless they are
// there. One insert is one part: a table has all of them or none.
func (s *Shipper) insertMissing(ctx context.Context, at hub.Position, table string, rows *clickhouse.Batch, dry bool) (bool, error) {
	if clickhouse.Repeatable(table) {
		if dry {
			return false, nil
		}
		return false, s.o.Store.Insert(ctx, rows, table, "")
	}
	span := clickhouse.Range{SpoolID: at.SpoolID, First: at.Seq, Last: at.Seq}
	have, err := s.o.Store.Count(ctx, table, span)
	if err != nil {
		return false, err
	}
	if have > 0 && !dry {
		return false, s.o.Store.Refeed(ctx, table, span) // a crash may have left its views short
	}
	if have > 0 || dry {
		return have == 0, nil
	}
	for generation := 1; generation <= replayGenerations; generation++ {
		token := fmt.Sprintf("%s/%s/%d/replay#%d", at.SpoolID, table, at.Seq, generation)
		if err := s.o.Store.Insert(ctx, rows, table, token); err != nil {
			return false, err
		}
		if have, err = s.o.Store.Count(ctx, table, span); have > 0 || err != nil {
			return true, err
		}
	}
	return false, fmt.Errorf("%s: the server acknowledged %s and does not have it; is it older than clickhouse.retention?", table, span)
}

// settle ends the replay of records whose rows are in ClickHouse.
func (s *Shipper) settle(ctx context.Context, positions []hub.Position) error {
	if err := s.o.Store.TakeRejected(ctx, positions); err != nil {
		return err
	}
	if s.o.Rejected != nil {
		if err := s.o.Rejected.MarkReplayed(positions...); err != nil {
			return err
		}
	}
	s.count(func(st *Status) { st.Replayed += uint64(len(positions)) })
	s.o.Logger.Info("rejected records have become rows", "records", len(positions), "first", positions[0].Text())
	return nil
}
