package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/bench"
)

func benchCommand() *cobra.Command {
	cmd := group("bench", "Measure what a hub does on this machine")
	cmd.AddCommand(benchIngestCommand(), benchDriveCommand())
	return cmd
}

func benchIngestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ingest", Short: "Measure the way of a report", Args: cobra.NoArgs,
		Long: `Measure the way of a report on this machine: agents in a process of their own post
reports of about 2.6 KB over real connections to the hub's own parts in this one.

  a        a bare handler that reads the body and replies: what the rest is compared to
  b        the key is looked up and the report decoded, nothing is kept
  c        the whole way to the acknowledgement: after fsync
  controllers
           the same with reports of controllers, of about 0.5 KB
  d        c, while the engine takes everything; ends when nothing is left
  rate     as d, at a fixed rate; latency is from when a report was to be sent
  memory   as d, with many connections at a modest rate; resident memory
  backlog  a spool that filled with the engine away is drained while reports come in
  tick     at a modest rate, without and with a dead-man's switch that judges 100,000
           hosts each second instead of each minute
  readers  as rate, without and with 50 customers that ask /api/v1/events and
           /api/v1/customer/status once a second each

A report is sent on a connection when the one before it is answered, so --connections is
also how many are under way at a time. It is 128 because agents are many and each has a
connection of its own: what arrives together is synced together, and with few at a time
the processors wait for the disk.`,
	}
	o := bench.Options{Driver: func() *exec.Cmd {
		self, err := os.Executable()
		if err != nil {
			self = os.Args[0]
		}
		return exec.Command(self, "bench", "drive")
	}}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.Scenarios, "scenario", bench.DefaultScenarios, "what to measure: "+strings.Join(bench.Scenarios, ", "))
	flags.StringVar(&o.Dir, "dir", "", "`folder` on the disk to measure (default: the one for temporary files)")
	flags.IntVar(&o.Connections, "connections", 0, "kept alive, one request at a time on each (default 128, memory 2000)")
	flags.IntVar(&o.Hosts, "hosts", 0, "that report in turns; few of them meet the hub's rates (default 10000, tick 100000)")
	flags.Var(duration{&o.Duration}, "duration", "of each scenario (default: a, b, c, controllers 12s, d 60s, rate, memory, tick and readers 30s)")
	flags.Var(perSecond{&o.Rate}, "rate", "reports a second of rate and readers (default 2000/s), memory, backlog and tick (1000/s)")
	flags.StringVar(&o.Encoding, "encoding", "identity", "of bodies: identity, gzip or zstd")
	flags.IntVar(&o.HTTP, "http", 1, "1, or 2: HTTP/2 over TLS")
	flags.IntVar(&o.Backlog, "backlog", 0, "`reports` that wait in backlog, and in d's part that only ships (default 50000)")
	flags.StringVar(&o.Profile, "cpuprofile", "", "write a processor profile of the hub's side to `FILE`.SCENARIO")
	asJSON := jsonFlag(cmd, "the table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Check(); err != nil {
			return wrongUse{err}
		}
		progress := cmd.ErrOrStderr()
		if onTerminal(progress) {
			o.Progress = func(what string) { fmt.Fprintln(progress, what) }
		}
		result, err := bench.Run(cmd.Context(), o)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), result)
		}
		return printBench(cmd.OutOrStdout(), result)
	}
	return cmd
}

// benchDriveCommand is the agents' process of hub bench ingest.
func benchDriveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "drive", Short: "The agents of hub bench ingest", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return bench.DriveChild(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func printBench(w io.Writer, r *bench.Result) error {
	fmt.Fprintf(w, "%d processors, HTTP/%d, fsync of 4 KiB %.2f ms\n", r.CPUs, r.HTTP, r.FsyncMS)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\tconns\treports\treports/s\tof (a)\tp50 ms\tp99 ms\tp99.9 ms\thub µs\tengine µs\tallocs above (a)\tbody\tsaved\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s: %s\t%d\t%d\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f B %s\t%s\t\n",
			row.Scenario, row.What, row.Connections, row.Reports, row.PerSecond, known("%.2f", row.OfBare),
			known("%.1f", row.P50), known("%.1f", row.P99), known("%.1f", row.P999), known("%.1f", row.HubMicros),
			known("%.1f", row.EngineUS), known("%.0f", row.AboveBare), row.BodyBytes, row.Encoding, known("%.0f %%", 100*row.Saved))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, row := range r.Rows {
		printNotes(w, row)
	}
	return nil
}

// known leaves out what a scenario does not have.
func known(format string, value float64) string {
	if value == 0 {
		return "-"
	}
	return fmt.Sprintf(format, value)
}

// printNotes says what only some scenarios have.
func printNotes(w io.Writer, row *bench.Row) {
	if row.InDatabase > 0 {
		fmt.Fprintf(w, "%s: %s: %d reports in ClickHouse, each once; %d were left at the end of the load, for %.1f s\n",
			row.Scenario, row.What, row.InDatabase, row.Left, row.DrainedS)
	}
	if row.MaxMiB > 0 {
		fmt.Fprintf(w, "%s: %s: resident memory over the last two thirds %.0f to %.0f MiB, the means of 20 s %.0f to %.0f\n",
			row.Scenario, row.What, row.MinMiB, row.MaxMiB, row.MeanMinMiB, row.MeanMaxMiB)
	}
	if row.Evaluated > 0 {
		fmt.Fprintf(w, "%s: %s: judged %d times\n", row.Scenario, row.What, row.Evaluated)
	}
	if row.Reads > 0 {
		fmt.Fprintf(w, "%s: %s: %d answers to readers, p50 %.1f ms, p99 %.1f ms; a report's p99 is %.2f times that without them\n",
			row.Scenario, row.What, row.Reads, row.ReadP50, row.ReadP99, row.OfUnread)
	}
	printCounts(w, row.Scenario+": readers without an answer", row.ReadsRefused)
	printCounts(w, row.Scenario+": not acknowledged", row.Refused)
}
