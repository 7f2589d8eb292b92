package app

import (
	"context"
	"fmt"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
	"felhom.eu/hub/internal/ship"
)

// replayed is what hub spool replay is told of a record.
type replayed struct {
	Position string `json:"position"`
	Outcome  string `json:"outcome"` // replayed, was_there or refused
	Reason   string `json:"reason,omitempty"`
}

// replayTogether bounds the records replayed between two cuts, and with that how
// long reports wait: each takes some milliseconds.
const replayTogether = 20

// replay makes rows of rejected records, or says with dryRun whether it could.
func (a *App) replay(ctx context.Context, positions []hub.Position, dryRun bool) (any, error) {
	kept, err := rejected.Read(RejectedDir(a.cfg))
	if err != nil {
		return nil, err
	}
	entries := make(map[hub.Position]rejected.Entry, len(kept.Entries))
	for _, e := range kept.Entries {
		entries[e.Position] = e
	}
	told := []replayed{}
	for len(positions) > 0 {
		n := min(len(positions), replayTogether)
		records, err := load(entries, positions[:n])
		if err != nil {
			return nil, err
		}
		done, err := a.shipper.Replay(ctx, records, dryRun)
		if err != nil {
			return nil, replayFailed(err)
		}
		for _, d := range done {
			told = append(told, tellReplayed(d))
		}
		positions = positions[n:]
	}
	return map[string]any{"records": told}, nil
}

func load(entries map[hub.Position]rejected.Entry, positions []hub.Position) (records []rejected.Record, err error) {
	for _, p := range positions {
		e, ok := entries[p]
		if !ok {
			return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_record", Message: fmt.Sprintf("no rejected record %s is kept", p.Text()),
				Hint: "hub spool show lists those that are"}
		}
		r, err := e.Load()
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// replayFailed says how to go on.
func replayFailed(err error) error {
	if hub.CodeOf(err) != hub.Internal {
		return err
	}
	return &hub.Error{Code: hub.Unavailable, Reason: "replay", Message: "the replay broke off: " + err.Error(),
		Hint: "nothing is lost or doubled for good: give the command again, it goes on where it ended"}
}

func tellReplayed(d ship.Replayed) replayed {
	told := replayed{Position: d.Position.Text(), Outcome: "was_there", Reason: d.Reason}
	switch {
	case d.Reason != "":
		told.Outcome = "refused"
	case d.Inserted:
		told.Outcome = "replayed"
	}
	return told
}
