package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
)

func fleetInitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Begin a fleet in a folder, or add CI to one", Args: cobra.ExactArgs(1),
		Long: `Begin a fleet in a folder. With --ci the repository that holds it gets a file that
checks the fleet in every pull request and posts there what a merge will do, or a
hook that refuses a bad commit; where there is a fleet already, only that. Nothing
that exists is overwritten.`,
	}
	var o fleetops.InitOptions
	cmd.Flags().StringVar(&o.IdentityFile, "identity", "", "the hub's age identity `file`, made where it is missing; keep it out of the repository")
	cmd.Flags().StringArrayVar(&o.CI, "ci", nil, strings.Join(fleetops.CISystems(), ", ")+"; may be given again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, system := range o.CI {
			if !slices.Contains(fleetops.CISystems(), system) {
				return wrongUse{fmt.Errorf("--ci is one of %s, not %q", strings.Join(fleetops.CISystems(), ", "), system)}
			}
		}
		done, err := fleetops.Init(args[0], o)
		printInitialized(cmd.OutOrStdout(), args[0], o, done, err == nil)
		return err
	}
	return cmd
}

// printInitialized says what was done, also before an error, and what is next.
func printInitialized(out io.Writer, dir string, o fleetops.InitOptions, done fleetops.Initialized, complete bool) {
	if done.IdentityMade {
		fmt.Fprintf(out, "made %s: the hub needs it (fleet.identity_files), and nobody else may have it\n", o.IdentityFile)
	}
	for _, file := range done.Files {
		fmt.Fprintln(out, "wrote", file)
	}
	if !complete {
		return
	}
	if done.Begun && len(done.Recipients) == 0 {
		fmt.Fprintln(out, "Next: hub key generate --out FILE, and put the recipient that it prints into recipients.txt")
	}
	for _, next := range done.Next {
		fmt.Fprintln(out, "Next:", next)
	}
	if done.Begun {
		fmt.Fprintf(out, "Next: hub fleet enroll --dir %s --customer NAME --new-customer\n", dir)
	}
}
