package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/audit"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/hub"
)

// runAudit is hub check --audit.
func runAudit(ctx context.Context, w io.Writer, cfg *config.Config, asJSON bool) error {
	result, err := app.Audit(ctx, cfg, "")
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w, result)
	} else {
		err = printAudit(w, result)
	}
	if err == nil && result.Gaps+result.Doubles > 0 {
		err = &hub.Error{Message: fmt.Sprintf("ClickHouse and the spool differ: %d gaps, %d doubles", result.Gaps, result.Doubles),
			Hint: "each is a record; the findings name table, volume and sequence numbers, which are spool_id and spool_seq of the rows"}
	}
	return err
}

func printAudit(w io.Writer, r audit.Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "hour\tin the spool\tin ClickHouse\tgaps\tdoubles\twaiting\tdamaged\t")
	for _, h := range r.Hours {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", h.Hour.Format("2006-01-02 15:04"),
			h.Spool, h.ClickHouse, h.Gaps, h.Doubles, h.Waiting, h.Damaged)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, f := range r.Findings {
		fmt.Fprintln(w, f)
	}
	if r.NoCursor {
		fmt.Fprintln(w, "the spool has no cursor: what was shipped is not known, so no record counts as a gap")
	}
	_, err := fmt.Fprintf(w, "%d gaps, %d doubles, %d waiting to be shipped\n", r.Gaps, r.Doubles, r.Waiting)
	return err
}
