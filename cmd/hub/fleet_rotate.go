package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
)

// rotation is what the flags of hub fleet rotate say.
type rotation struct {
	dir, notAfter, dsn *string
	keep               time.Duration
	finish, all, json  *bool
}

func fleetRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate OWNER | rotate OWNER --finish | rotate --finish --all", Short: "Replace a key without a gap", Args: cobra.MaximumNArgs(1),
		Long: `Replace the key of host/ID, customer/NAME or fleet in two steps, so that its agent
is never without a valid one.

First make a new key beside the old one and give the old one an end (notAfter). The
new key is printed this once. Commit and push; when the hub has the commit in force,
give the new key to the agent.

Then, with --finish, remove the old key: once it is past its end, or, where --dsn
names the hub's ClickHouse (as hub dsn prints it), as soon as the new key was used
after it. A key that several hold, as a global key, must also have been unused for a
day. The last valid key of an owner is never removed.`,
		Example: `  hub fleet rotate host/acme-5f2c9a1e --keep 7d
  hub fleet rotate host/acme-5f2c9a1e --finish --dsn "$(hub dsn)"`,
		DisableFlagsInUseLine: true,
	}
	r := rotation{keep: 14 * 24 * time.Hour}
	r.dir = dirFlag(cmd)
	cmd.Flags().Var(duration{&r.keep}, "keep", "how long the old key stays valid")
	r.notAfter = cmd.Flags().String("not-after", "", "the last `instant` of the old key instead, as 2027-06-01T00:00:00Z")
	r.finish = cmd.Flags().Bool("finish", false, "remove old keys that ended or were replaced")
	r.all = cmd.Flags().Bool("all", false, "with --finish: of every owner")
	r.dsn = cmd.Flags().String("dsn", "", "with --finish: `URL` of the hub's ClickHouse, which knows what keys were used")
	r.json = jsonFlag(cmd, `{"owner":…,"key_id":…,"api_key":…,"file":…,"old":[…]}, with --finish {"owner":…,"file":…,"removed":[…],"kept":[…]} a line`)
	cmd.MarkFlagsMutuallyExclusive("keep", "not-after")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		owner, err := r.owner(cmd, args)
		if err != nil {
			return wrongUse{err}
		}
		if *r.finish {
			return r.end(cmd, owner)
		}
		return r.begin(cmd, *owner)
	}
	return cmd
}

// owner returns whose keys are meant, nil for everybody's, or what is wrong
// with the command line.
func (r rotation) owner(cmd *cobra.Command, args []string) (*hub.Owner, error) {
	switch {
	case !*r.finish && (*r.all || *r.dsn != ""):
		return nil, errors.New("--all and --dsn go with --finish")
	case *r.finish && (cmd.Flags().Changed("keep") || *r.notAfter != ""):
		return nil, errors.New("--keep and --not-after begin a rotation, --finish ends one")
	case *r.all && len(args) > 0:
		return nil, errors.New("name an owner or --all, not both")
	case *r.all:
		return nil, nil
	case len(args) == 0:
		return nil, errors.New("whose key? name host/ID, customer/NAME or fleet")
	}
	owner, err := hub.ParseOwner(args[0])
	return &owner, err
}

func (r rotation) begin(cmd *cobra.Command, owner hub.Owner) error {
	now := time.Now()
	end := now.Add(r.keep)
	if *r.notAfter != "" {
		var err error
		if end, err = time.Parse(time.RFC3339, *r.notAfter); err != nil {
			return wrongUse{fmt.Errorf("--not-after: %q is no time: write 2027-06-01T00:00:00Z", *r.notAfter)}
		}
	}
	k, err := fleetops.Rotate(*r.dir, owner, now, end)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if *r.json {
		return printJSON(out, struct {
			Owner  string            `json:"owner"`
			KeyID  string            `json:"key_id"`
			APIKey string            `json:"api_key"`
			File   string            `json:"file"`
			Old    []fleetops.OldKey `json:"old"`
		}{k.Owner.String(), k.KeyID, k.APIKey.Reveal(), k.File, append([]fleetops.OldKey{}, k.Old...)})
	}
	var text strings.Builder
	fmt.Fprintf(&text, "owner    %s\nkey_id   %s\napi_key  %s\nfile     %s\n", k.Owner, k.KeyID, k.APIKey.Reveal(), k.File)
	for _, old := range k.Old {
		fmt.Fprintf(&text, "old      %s\n", endOf(old, now))
	}
	fmt.Fprintf(&text, "\nThis is the only time that the key is shown. It is valid once the file is on the branch that the hub follows.\n"+
		"Next: commit and push, give the new key to the agent, and when it was used: hub fleet rotate %s --finish --dsn \"$(hub dsn)\"\n", k.Owner)
	_, err = io.WriteString(out, text.String())
	return err
}

// endOf says in words until when a key is valid.
func endOf(k fleetops.OldKey, now time.Time) string {
	if now.After(k.NotAfter) {
		return fmt.Sprintf("%s ended at %s", k.ID, k.NotAfter.Format(time.RFC3339))
	}
	return fmt.Sprintf("%s is valid until %s", k.ID, k.NotAfter.Format(time.RFC3339))
}

func (r rotation) end(cmd *cobra.Command, owner *hub.Owner) error {
	o := fleetops.FinishOptions{Owner: owner, Now: time.Now()}
	if *r.dsn != "" {
		db, err := openDSN(*r.dsn)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }() // it was only asked
		o.Used = func(ctx context.Context, owner hub.Owner) (map[string]time.Time, error) {
			return db.KeyUses(ctx, owner)
		}
	}
	done, err := fleetops.Finish(cmd.Context(), *r.dir, o)
	if err != nil {
		return err
	}
	return printFinished(cmd.OutOrStdout(), done, o, *r.json)
}

// openDSN opens the ClickHouse that a flag names. A password in it is never
// part of an error.
func openDSN(dsn string) (*clickhouse.DB, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Host == "" {
		return nil, wrongUse{errors.New("--dsn is not a URL: write clickhouse://user:password@host:9000/hub, as hub dsn prints it")}
	}
	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn, Timeout: 30 * time.Second})
	if err != nil {
		return nil, wrongUse{fmt.Errorf("--dsn: nobody can be asked at this URL of %s: write clickhouse://user:password@host:9000/hub, as hub dsn prints it", u.Host)}
	}
	return db, nil
}

func printFinished(w io.Writer, done []fleetops.Finished, o fleetops.FinishOptions, asJSON bool) error {
	var text strings.Builder
	removed, kept := 0, 0
	for _, f := range done {
		if asJSON {
			if err := printJSON(w, struct {
				Owner   string             `json:"owner"`
				File    string             `json:"file"`
				Removed []fleetops.GoneKey `json:"removed"`
				Kept    []fleetops.OldKey  `json:"kept"`
			}{f.Owner.String(), f.File, append([]fleetops.GoneKey{}, f.Removed...), append([]fleetops.OldKey{}, f.Kept...)}); err != nil {
				return err
			}
		}
		for _, k := range f.Removed {
			fmt.Fprintf(&text, "removed  %s of %s: %s\n", k.ID, f.Owner, k.Why)
		}
		for _, k := range f.Kept {
			fmt.Fprintf(&text, "kept     %s of %s\n", endOf(k, o.Now), f.Owner)
		}
		removed, kept = removed+len(f.Removed), kept+len(f.Kept)
	}
	if asJSON {
		return nil
	}
	switch {
	case removed > 0:
		text.WriteString("Next: commit and push; a key that was removed is refused as soon as the commit is in force.\n")
	case kept > 0 && o.Used == nil:
		text.WriteString("Nothing to remove yet. With --dsn \"$(hub dsn)\" a key goes as soon as its successor was used.\n")
	default:
		text.WriteString("Nothing to remove.\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// parseOwnerOrHost reads an owner; a bare name is a host's id.
func parseOwnerOrHost(text string) (hub.Owner, error) {
	if !strings.Contains(text, "/") && text != "fleet" && hub.ValidHostID(text) {
		return hub.HostOwner(text), nil
	}
	return hub.ParseOwner(text)
}
