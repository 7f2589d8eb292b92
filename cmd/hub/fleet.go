package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

func fleetCommand() *cobra.Command {
	cmd := group("fleet", "Work on a fleet folder: begin one, enroll hosts, replace keys, validate")
	cmd.Long = `Work on a fleet folder. DIR is the folder that holds fleet.yaml, or one whose
folder fleet does. Commit and push what these commands write: the hub follows
the repository's branch.`
	keys := group("key", "Keys in a fleet folder")
	keys.AddCommand(fleetKeyAddCommand())
	cmd.AddCommand(fleetInitCommand(), fleetEnrollCommand(), keys, fleetValidateCommand(), fleetPlanCommand(), fleetWindowsCommand(), fleetSealURLCommand(),
		fleetRotateCommand(), fleetResealCommand(), fleetRetireCommand(), fleetRevealCommand(), fleetAcceptCommand())
	return cmd
}

// dirFlag adds --dir.
func dirFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("dir", ".", "fleet `folder`, or the one above it")
}

func fleetEnrollCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "enroll --customer NAME", Short: "Add hosts, each with a key", Args: cobra.NoArgs,
		Long: `Add a host, or several: write its file, and make its key, which is sealed to all
recipients and printed this once.`,
	}
	var o fleetops.EnrollOptions
	dir := dirFlag(cmd)
	cmd.Flags().StringVar(&o.Customer, "customer", "", "`name` of the customer whose host it is")
	cmd.Flags().StringVar(&o.DisplayName, "name", "", "`name` that people read")
	cmd.Flags().IntVar(&o.Count, "count", 1, "how many hosts")
	cmd.Flags().BoolVar(&o.NewCustomer, "new-customer", false, "write the customer's file where there is none")
	_ = cmd.MarkFlagRequired("customer")
	asJSON := jsonFlag(cmd, `{"host_id":…,"api_key":…,"file":…} a line`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Count < 1 {
			return wrongUse{fmt.Errorf("--count is at least 1, not %d", o.Count)}
		}
		enrolled, err := fleetops.Enroll(*dir, o)
		// Hosts that were written before an error are told too: their keys
		// stand nowhere else.
		if err := printEnrolled(cmd.OutOrStdout(), enrolled, *asJSON); err != nil {
			return err
		}
		return err
	}
	return cmd
}

func printEnrolled(w io.Writer, enrolled []fleetops.Enrolled, asJSON bool) error {
	for _, e := range enrolled {
		var err error
		if asJSON {
			err = printJSON(w, struct {
				HostID string `json:"host_id"`
				APIKey string `json:"api_key"`
				File   string `json:"file"`
			}{e.HostID, e.APIKey.Reveal(), e.File})
		} else {
			_, err = fmt.Fprintf(w, "host_id  %s\napi_key  %s\nfile     %s\n\n", e.HostID, e.APIKey.Reveal(), e.File)
		}
		if err != nil {
			return err
		}
	}
	if asJSON || len(enrolled) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(w, "This is the only time that a key is shown. It is valid once the file is on the branch that the hub follows.")
	return err
}

func fleetKeyAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add OWNER", Short: "Make a key for host/ID, customer/NAME or fleet", Args: cobra.ExactArgs(1),
		Long: `Make a key, seal it to all recipients with its owner inside, add it to the
owner's file beside the keys that are there, and print it this once.`,
	}
	dir := dirFlag(cmd)
	asJSON := jsonFlag(cmd, `{"owner":…,"key_id":…,"api_key":…,"file":…}`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		owner, err := hub.ParseOwner(args[0])
		if err != nil {
			return wrongUse{err}
		}
		k, err := fleetops.AddKey(*dir, owner)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), struct {
				Owner  string `json:"owner"`
				KeyID  string `json:"key_id"`
				APIKey string `json:"api_key"`
				File   string `json:"file"`
			}{k.Owner.String(), k.KeyID, k.APIKey.Reveal(), k.File})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "owner    %s\nkey_id   %s\napi_key  %s\nfile     %s\n\n"+
			"This is the only time that the key is shown. It is valid once the file is on the branch that the hub follows.\n",
			k.Owner, k.KeyID, k.APIKey.Reveal(), k.File)
		return err
	}
	return cmd
}
