package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/simulate"
	"felhom.eu/hub/internal/yamlfile"
)

func simulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "simulate --keys FILE", Short: "Post reports of made-up hosts and controllers to a hub, and measure", Args: cobra.NoArgs,
		Long: `Post reports of made-up hosts to a hub until the duration is over or Ctrl-C, and
print throughput and latency. The keys are what hub fleet enroll --json prints. Where
what hub fleet key add customer/NAME --json prints is among them, controllers in the
first guests of the customer's hosts report too, and now and then send an event.`,
	}
	o := simulate.Options{Interval: 10 * time.Second}
	flags := cmd.Flags()
	flags.StringVar(&o.URL, "url", "http://127.0.0.1:8080", "the hub's `address`")
	keys := flags.String("keys", "", "`file` of hosts and keys, one JSON object a line; -: standard input")
	flags.IntVar(&o.Hosts, "hosts", 0, "how many of the hosts report; 0: all")
	flags.Var(duration{&o.Interval}, "interval", "time between two reports of a host, and of a controller")
	flags.IntVar(&o.Controllers, "controllers", 1, "controllers of each host whose customer's key is in the keys")
	flags.IntVar(&o.Guests, "guests", 6, "guests of each host, about")
	flags.Var(perSecond{&o.Rate}, "rate", "most reports and events a second, as 500 or 500/s; 0: no limit")
	flags.Var(duration{&o.Duration}, "duration", "how long; left out: until Ctrl-C")
	_ = cmd.MarkFlagRequired("keys")
	asJSON := jsonFlag(cmd, "the result")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.Keys, err = readKeys(*keys, cmd.InOrStdin()); err != nil {
			return err
		}
		s, err := simulate.New(o)
		if err != nil {
			return err
		}
		stopProgress := showProgress(cmd.ErrOrStderr(), s)
		result := s.Run(cmd.Context())
		stopProgress()
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), result)
		} else {
			err = printResult(cmd.OutOrStdout(), result)
		}
		if err == nil && result.Sent > 0 && result.Acknowledged == 0 {
			err = errors.New("no report was accepted")
		}
		return err
	}
	return cmd
}

// perSecond is a flag that is a number of events a second.
type perSecond struct{ rate *float64 }

func (p perSecond) Type() string   { return "rate" }
func (p perSecond) String() string { return "" } // the default needs no showing

func (p perSecond) Set(text string) error {
	if !strings.Contains(text, "/") {
		text += "/s"
	}
	var r yamlfile.Rate
	err := r.UnmarshalText([]byte(text))
	*p.rate = float64(r)
	return err
}

func readKeys(file string, stdin io.Reader) ([]simulate.Credential, error) {
	if file == "-" {
		return simulate.ReadKeys(stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := simulate.ReadKeys(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return keys, nil
}

// showProgress keeps a line of counters on w, where that is a terminal, until
// the function it returns is called.
func showProgress(w io.Writer, s *simulate.Simulation) (stop func()) {
	if !onTerminal(w) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r := s.Result()
				fmt.Fprintf(w, "\r\x1b[K%d acknowledged, %.0f/s, p99 %.1f ms, %d pending", r.Acknowledged, r.Throughput, r.Latency.P99, r.Pending)
			case <-ctx.Done():
				fmt.Fprint(w, "\r\x1b[K")
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func printResult(w io.Writer, r simulate.Result) error {
	l := r.Latency
	_, err := fmt.Fprintf(w, `hosts         %d, with %d controllers
seconds       %.1f
acknowledged  %d (%.1f/s, %.1f MiB)
sent          %d, of them %d again
not accepted  %d refused for good, %d pending
turns missed  %d (a host or controller was still busy with its last report)
latency ms    p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f
`, r.Hosts, r.Controllers, r.Seconds, r.Acknowledged, r.Throughput, float64(r.Bytes)/(1<<20), r.Sent, r.Retried,
		r.SetAside, r.Pending, r.Skipped, l.P50, l.P90, l.P99, l.P999, l.Max)
	printCounts(w, "status", r.Statuses)
	printCounts(w, "no answer", r.Errors)
	return err
}

func printCounts(w io.Writer, name string, counts map[string]int64) {
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%-12s  %s: %d\n", name, key, counts[key])
	}
}
