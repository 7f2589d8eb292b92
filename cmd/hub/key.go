package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

func keyCommand() *cobra.Command {
	cmd := group("key", "Age identities, which open the sealed keys of a fleet")
	cmd.AddCommand(keyGenerateCommand())
	return cmd
}

func keyGenerateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "generate", Short: "Make an age identity", Args: cobra.NoArgs,
		Long: `Make an age identity. With --out it goes to a new file that only its owner may
read, and the recipient, which is public, to standard output: put that into the
fleet's recipients.txt. Without --out the identity itself goes to standard output
and the recipient to standard error.

With --post-quantum it is a hybrid of X25519 and ML-KEM-768, which a later quantum
computer will not open; what is sealed to it is some 2 KB larger. The recipients of
a fleet are all of one kind: replace all of them, then run hub fleet reseal.`,
	}
	postQuantum := cmd.Flags().Bool("post-quantum", false, "a hybrid identity instead of X25519")
	out := cmd.Flags().String("out", "", "`file` to write; it must not exist")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		save, generate := fleetops.GenerateIdentity, seal.GenerateIdentity
		if *postQuantum {
			save, generate = fleetops.GenerateHybridIdentity, seal.GenerateHybridIdentity
		}
		if *out != "" {
			recipient, err := save(*out)
			if errors.Is(err, fs.ErrExist) {
				return &hub.Error{Message: *out + " exists", Hint: "an identity is never overwritten: what is sealed to it would be lost; choose another file"}
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), recipient)
			return err
		}
		id, err := generate()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(cmd.OutOrStdout(), seal.FormatIdentity(id).Reveal()); err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "recipient:", id.Recipient())
		return err
	}
	return cmd
}
