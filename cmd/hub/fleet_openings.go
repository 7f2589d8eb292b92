package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
)

func fleetWindowsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "windows [DIR]", Short: "List when the maintenance windows are open", Args: cobra.MaximumNArgs(1),
		Long: `List when the maintenance windows of a fleet folder are open in the coming days:
what a rule as FREQ=MONTHLY;BYDAY=2TU means, seen before the merge. Times are in the
window's own zone and in UTC. All windows are listed, or, with --host, those that the
host lies in: its own, its customer's and the fleet's. It needs no network, no
identity and no hub.`,
	}
	dir := dirFlag(cmd)
	host := cmd.Flags().String("host", "", "`id` of a host")
	days := cmd.Flags().Int("days", 14, "how many days, at most 3660")
	from := cmd.Flags().String("from", "", "first `instant`, as 2026-03-29T00:00:00Z (default: now)")
	asJSON := jsonFlag(cmd, `{"window":…,"set_by":…,"reason":…,"hosts":…,"from":…,"to":…,"time_zone":…,"local_from":…,"local_to":…} a line`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			*dir = args[0]
		}
		if *days < 1 || *days > 3660 {
			return wrongUse{fmt.Errorf("--days is 1 to 3660, not %d", *days)}
		}
		begin := time.Now()
		if *from != "" {
			var err error
			if begin, err = time.Parse(time.RFC3339, *from); err != nil {
				return wrongUse{fmt.Errorf("--from %q is no instant: write 2026-03-29T00:00:00Z", *from)}
			}
		}
		openings, err := fleetops.Openings(*dir, *host, begin, begin.AddDate(0, 0, *days))
		if err != nil {
			return err
		}
		if *asJSON {
			return printOpeningsJSON(cmd.OutOrStdout(), openings)
		}
		if len(openings) == 0 {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "No window is open within %s.\n", count(*days, "day", "days"))
			return err
		}
		return printOpenings(cmd.OutOrStdout(), openings)
	}
	return cmd
}

func printOpenings(w io.Writer, openings []fleetops.WindowOpening) error {
	const local, utc = "Mon 2006-01-02 15:04 MST", "2006-01-02 15:04Z"
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "opens\tcloses\topens (UTC)\tcloses (UTC)\twindow\tset by\thosts\treason")
	for _, o := range openings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", o.From.In(o.Zone).Format(local), o.To.In(o.Zone).Format(local),
			o.From.Format(utc), o.To.Format(utc), o.Name, o.Owner, o.Hosts, o.Reason)
	}
	return table.Flush()
}

func printOpeningsJSON(w io.Writer, openings []fleetops.WindowOpening) error {
	for _, o := range openings {
		err := printJSON(w, struct {
			Window    string    `json:"window"`
			SetBy     string    `json:"set_by"`
			Reason    string    `json:"reason"`
			Hosts     int       `json:"hosts"`
			From      time.Time `json:"from"`
			To        time.Time `json:"to"`
			TimeZone  string    `json:"time_zone"`
			LocalFrom time.Time `json:"local_from"`
			LocalTo   time.Time `json:"local_to"`
		}{o.Name, o.Owner.String(), o.Reason, o.Hosts, o.From, o.To, o.Zone.String(), o.From.In(o.Zone), o.To.In(o.Zone)})
		if err != nil {
			return err
		}
	}
	return nil
}
