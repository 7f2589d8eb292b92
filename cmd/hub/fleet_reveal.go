package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/seal"
)

func fleetRevealCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reveal HOST|OWNER --identity FILE", Short: "Print a key, to provision its agent again", Args: cobra.ExactArgs(1),
		Long: `Open the newest key that is valid now, or the one that --key names, and print it: on
standard output the key and nothing else, on standard error which one it is and until
when it is valid. A host is named by its id; OWNER is host/ID, customer/NAME or fleet.`,
		DisableFlagsInUseLine: true,
	}
	dir, identities := dirFlag(cmd), identityFlag(cmd)
	keyID := cmd.Flags().String("key", "", "`id` of the key, as k1")
	asJSON := jsonFlag(cmd, `{"owner":…,"key_id":…,"api_key":…,"not_after":…,"valid":…,"file":…}`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		owner, err := parseOwnerOrHost(args[0])
		if err != nil {
			return wrongUse{err}
		}
		ids, err := seal.ReadIdentities(*identities...)
		if err != nil {
			return err
		}
		now := time.Now()
		k, err := fleetops.Reveal(*dir, owner, *keyID, ids, now)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "key %s of %s (%s): %s\n", k.KeyID, k.Owner, k.File, validity(k, now))
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), struct {
				Owner    string    `json:"owner"`
				KeyID    string    `json:"key_id"`
				APIKey   string    `json:"api_key"`
				NotAfter time.Time `json:"not_after,omitzero"`
				Valid    bool      `json:"valid"`
				File     string    `json:"file"`
			}{k.Owner.String(), k.KeyID, k.APIKey.Reveal(), k.NotAfter, k.Valid, k.File})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), k.APIKey.Reveal())
		return err
	}
	return cmd
}

func validity(k fleetops.Revealed, now time.Time) string {
	switch {
	case !k.NotAfter.IsZero() && now.After(k.NotAfter):
		return "it ended at " + k.NotAfter.Format(time.RFC3339)
	case !k.Valid:
		return "the host is retired, and the hub refuses it"
	case k.NotAfter.IsZero():
		return "valid without an end"
	}
	return "valid until " + k.NotAfter.Format(time.RFC3339)
}
