package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
)

func spoolReplayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "replay [POSITION...|--all]", Short: "Have the running hub make rows of rejected records after all",
		Long: `Have the hub that runs on data_dir read rejected records again, with what it can
read now, and bring their rows to ClickHouse, each once, with the position and the
time of their receipt. Their rows of rejected_reports go, and show tells that they
were replayed. Do this after an update that can read them, or after the table that
refused them was mended.

What still cannot become rows stays as it is, with the reason; the exit status is
then 1. To give the command again is always safe: it goes on where it broke off, and
does nothing where all is done.

` + aboutPosition,
	}
	file := configFlag(cmd)
	all := cmd.Flags().Bool("all", false, "every record that was not replayed")
	dryRun := cmd.Flags().Bool("dry-run", false, "say what would become of each, and change nothing")
	asJSON := jsonFlag(cmd, "one record a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *all == (len(args) > 0) {
			return wrongUse{errors.New("name the records to replay, as hub spool show prints them, or all of them by --all")}
		}
		kept, _, err := readRejected(*file)
		if err != nil {
			return err
		}
		chosen, err := choose(kept.Entries, args)
		if err != nil {
			return err
		}
		if *all {
			chosen = notReplayed(chosen)
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		r := replay{cfg: cfg, dryRun: *dryRun, asJSON: *asJSON, out: cmd.OutOrStdout()}
		if onTerminal(cmd.ErrOrStderr()) {
			r.progress = cmd.ErrOrStderr()
		}
		return r.run(cmd.Context(), chosen)
	}
	return cmd
}

func notReplayed(entries []rejected.Entry) (waiting []rejected.Entry) {
	for _, e := range entries {
		if e.ReplayedAt.IsZero() {
			waiting = append(waiting, e)
		}
	}
	return waiting
}

// replay is one run of hub spool replay.
type replay struct {
	cfg            *config.Config
	dryRun, asJSON bool
	out            io.Writer
	progress       io.Writer // nil: none is shown

	replayed, there, refused int
}

// replayedView is what the hub answers of a record.
type replayedView struct {
	Position string `json:"position"`
	Outcome  string `json:"outcome"` // replayed, was_there, refused
	Reason   string `json:"reason,omitempty"`
}

// replayAtOnce is how many records one question names; the hub answers within
// seconds, and whoever waits sees that it goes on.
const replayAtOnce = 100

func (r *replay) run(ctx context.Context, entries []rejected.Entry) error {
	for asked := 0; asked < len(entries); {
		n := min(len(entries)-asked, replayAtOnce)
		if err := r.ask(ctx, entries[asked:asked+n]); err != nil {
			return err
		}
		if asked += n; r.progress != nil && len(entries) > replayAtOnce {
			fmt.Fprintf(r.progress, "%d of %d\n", asked, len(entries))
		}
	}
	if !r.asJSON {
		what := "replayed"
		if r.dryRun {
			what = "would be replayed"
		}
		if _, err := fmt.Fprintf(r.out, "%d %s, %d were in ClickHouse already, %d cannot become rows\n", r.replayed, what, r.there, r.refused); err != nil {
			return err
		}
	}
	if r.refused > 0 {
		return &hub.Error{Message: count(r.refused, "record still cannot become rows", "records still cannot become rows") + "; nothing of this was changed",
			Hint: "update the hub or mend what the reason names, and give the command again; hub spool show POSITION shows a record whole"}
	}
	return nil
}

// ask has the hub replay some records, and prints what became of them.
func (r *replay) ask(ctx context.Context, entries []rejected.Entry) error {
	positions := make([]string, len(entries))
	for i, e := range entries {
		positions[i] = e.Position.Text()
	}
	reply, err := askHub(ctx, r.cfg, http.MethodPost, "/spool/replay", map[string]any{"positions": positions, "dry_run": r.dryRun})
	if err != nil {
		return err
	}
	var answer struct{ Records []replayedView }
	if err := json.Unmarshal(reply, &answer); err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	for _, v := range answer.Records {
		if err := r.tell(v); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) tell(v replayedView) error {
	said := "is in ClickHouse already"
	switch v.Outcome {
	case "replayed":
		r.replayed++
		if said = "replayed"; r.dryRun {
			said = "would be replayed"
		}
	case "refused":
		r.refused++
		said = "cannot become rows: " + plain(v.Reason)
	default:
		r.there++
	}
	if r.asJSON {
		return printJSON(r.out, v)
	}
	p, err := hub.ParsePosition(v.Position)
	if err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	_, err = fmt.Fprintf(r.out, "%s  %s\n", shortPosition(p), said)
	return err
}
