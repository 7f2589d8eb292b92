package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/demo"
)

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "Try everything out: a fleet repository, the hub, its engine and simulated agents", Args: cobra.NoArgs,
		Long: `Make a scratch fleet repository with sealed hosts of three customers, and run a hub
with its own ClickHouse and simulated agents on it, until Ctrl-C. What it prints says
where everything is. The next hub demo in the same folder goes on from there.`,
	}
	o := demo.Options{Version: Version}
	cmd.PersistentFlags().StringVar(&o.Dir, "dir", "demo", "`folder` that holds all of it")
	cmd.Flags().IntVar(&o.Hosts, "hosts", 40, "how many hosts report")
	cmd.Flags().Float64Var(&o.Speed, "speed", 90, "how many times faster time runs: at 90 a report every 10 s, stale after 20 s, down after 40 s")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Out = cmd.OutOrStdout()
		o.Terminal = onTerminal(o.Out)
		return demo.Run(cmd.Context(), o)
	}
	cmd.AddCommand(
		demoControlCommand("stop", "Silence one agent of the demo that runs", "is silent", &o.Dir),
		demoControlCommand("start", "Wake an agent that was silenced", "reports again", &o.Dir),
	)
	return cmd
}

func demoControlCommand(verb, short, done string, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " HOST", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := demo.Control(cmd.Context(), *dir, verb, args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", args[0], done)
			return err
		},
	}
}
