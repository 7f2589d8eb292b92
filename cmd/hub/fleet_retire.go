package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

func fleetRetireCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "retire HOST --reason TEXT", Short: "Let a host go: its keys are unknown from then on", Args: cobra.ExactArgs(1),
		Long: `Set a host's state to retired, and write into its file why and when. Its keys are
refused as soon as the commit is in force, and nobody is alarmed. The file stays, so
that its history keeps a name.`,
	}
	dir := dirFlag(cmd)
	reason := cmd.Flags().String("reason", "", "why, in one line of `text`")
	_ = cmd.MarkFlagRequired("reason")
	asJSON := jsonFlag(cmd, `{"host_id":…,"reason":…,"at":…,"file":…}`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := strings.TrimPrefix(args[0], "host/")
		if !hub.ValidHostID(id) {
			return wrongUse{fmt.Errorf("%q is no host id", args[0])}
		}
		done, err := fleetops.Retire(*dir, id, *reason, time.Now())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), struct {
				HostID string    `json:"host_id"`
				Reason string    `json:"reason"`
				At     time.Time `json:"at"`
				File   string    `json:"file"`
			}{done.HostID, done.Reason, done.At, done.File})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\nNext: commit and push; the host's keys are refused as soon as the commit is in force.\n", done.File)
		return err
	}
	return cmd
}
