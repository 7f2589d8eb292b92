package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func fleetAcceptCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "accept REV", Short: "Have the running hub take a commit that it holds back", Args: cobra.ExactArgs(1),
		Long: `Tell the hub that runs on data_dir to take a commit that does not descend from
the one in force. Look at it before: git log, git diff, and hub fleet plan with
the commit in force as --base. hub status says which commit is held and why. The
hub writes the decision to its log.`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "what the hub answers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return wrongUse{fmt.Errorf("REV is empty: name the commit, as hub status shows it")}
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		reply, err := askHub(cmd.Context(), cfg, http.MethodPost, "/fleet/accept", map[string]string{"revision": args[0]})
		if err != nil {
			return err
		}
		if *asJSON {
			return printCompact(cmd.OutOrStdout(), reply)
		}
		var fleet fleetView
		if err := json.Unmarshal(reply, &fleet); err != nil {
			return fmt.Errorf("the hub's answer: %w", err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "in force: %s, %s\n", fleet.commit(), count(fleet.Hosts, "host", "hosts"))
		return err
	}
	return cmd
}
