package main

import "github.com/spf13/cobra"

func spoolCommand() *cobra.Command {
	cmd := group("spool", "Look into the spool: what was acknowledged and where it is")
	cmd.AddCommand(spoolVerifyCommand())
	return cmd
}
