package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/rejected"
)

func spoolExportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export [POSITION...]", Short: "Write rejected records, with their bodies, as JSON lines",
		Long: `Write the records that could not become rows, or those at the POSITIONs, one JSON
object a line: spool_id, spool_seq, received_at, rejected_at, kind, customer_id,
host_id, key_id, reason, and the body, byte for byte, in base64. Those that were
replayed are among them. No hub need run. Exit status 1 where a line of the files is
damaged; everything else is written all the same.

` + aboutPosition,
	}
	file := configFlag(cmd)
	out := cmd.Flags().String("out", "", "write to this `file`, which must not be there yet, instead of standard output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kept, dir, err := readRejected(*file)
		if err != nil {
			return err
		}
		chosen, err := choose(kept.Entries, args)
		if err != nil {
			return err
		}
		if *out == "" {
			err = export(cmd.OutOrStdout(), chosen)
		} else if err = exportTo(*out, chosen); err == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s written to %s\n", count(len(chosen), "record", "records"), *out)
		}
		if err != nil {
			return err
		}
		return damagedFiles(cmd.ErrOrStderr(), dir, kept.Damage)
	}
	return cmd
}

func export(w io.Writer, entries []rejected.Entry) error {
	out := bufio.NewWriter(w)
	for _, e := range entries {
		r, err := e.Load()
		if err != nil {
			return err
		}
		if err := printJSON(out, r); err != nil {
			return err
		}
	}
	return out.Flush()
}

// exportTo writes a new file, for its owner alone, whole or not at all.
func exportTo(path string, entries []rejected.Entry) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &hub.Error{Message: path + " is there already", Hint: "name another file, or move that one away"}
	}
	if err != nil {
		return err
	}
	err = export(f, entries)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}
