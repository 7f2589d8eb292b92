package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

func fleetResealCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reseal --identity FILE", Short: "Seal every key and URL anew to the current recipients", Args: cobra.NoArgs,
		Long: `Open every seal with the identities, those of retired hosts included, and seal each
key, and each URL of a channel, anew that is not sealed to exactly the recipients of
recipients.txt: after one was added, replaced or taken away, and on the way from
X25519 to hybrid recipients or back. The keys and URLs themselves stay. Files that need no change are not touched, and
when a seal cannot be opened or belongs to another owner, none is.`,
	}
	var o fleetops.ResealOptions
	dir, identities := dirFlag(cmd), identityFlag(cmd)
	owner := cmd.Flags().String("owner", "", "only the keys and URLs of `host/ID`, customer/NAME or fleet")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would be sealed anew, and write nothing")
	asJSON := jsonFlag(cmd, `{"ok":…,"dry_run":…,"files":…,"keys":…,"urls":…,"recipients":…,"resealed":[…],"problems":[…]}`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *owner != "" {
			of, err := parseOwnerOrHost(*owner)
			if err != nil {
				return wrongUse{err}
			}
			o.Owner = &of
		}
		var err error
		if o.Identities, err = seal.ReadIdentities(*identities...); err != nil {
			return err
		}
		if onTerminal(cmd.ErrOrStderr()) {
			o.Progress = progress(cmd.ErrOrStderr(), "files")
		}
		done, problems, err := fleetops.Reseal(cmd.Context(), *dir, o)
		if err != nil {
			return err
		}
		return printResealed(cmd.OutOrStdout(), done, problems, o.DryRun, *asJSON)
	}
	return cmd
}

// identityFlag adds --identity, which must be given.
func identityFlag(cmd *cobra.Command) *[]string {
	files := cmd.Flags().StringArray("identity", nil, "age identity `file` that opens the seals; may be given several times")
	_ = cmd.MarkFlagRequired("identity")
	return files
}

// progress returns a function that shows on w, a terminal, how far a work is.
func progress(w io.Writer, what string) func(done, total int) {
	const every = 100
	var mu sync.Mutex
	shown := 0
	return func(done, total int) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case done == total:
			fmt.Fprint(w, "\r\x1b[K") // the result takes the line's place
		case done >= shown+every:
			shown = done
			fmt.Fprintf(w, "\r%d of %d %s", done, total, what)
		}
	}
}

func printResealed(w io.Writer, done fleetops.Resealed, problems []hub.Problem, dryRun, asJSON bool) error {
	type item struct {
		Owner   string `json:"owner"`
		KeyID   string `json:"key_id,omitempty"`
		Channel string `json:"channel,omitempty"`
		File    string `json:"file"`
	}
	items := []item{}
	files := make(map[string]bool)
	for _, k := range done.Resealed {
		items = append(items, item{k.Owner.String(), k.KeyID, k.Channel, k.File})
		files[k.File] = true
	}
	var err error
	switch {
	case asJSON:
		err = printJSON(w, struct {
			OK         bool          `json:"ok"`
			DryRun     bool          `json:"dry_run"`
			Files      int           `json:"files"`
			Keys       int           `json:"keys"`
			URLs       int           `json:"urls"`
			Recipients int           `json:"recipients"`
			Resealed   []item        `json:"resealed"`
			Problems   []hub.Problem `json:"problems"`
		}{len(problems) == 0, dryRun, done.Files, done.Keys, done.URLs, done.Recipients, items, append([]hub.Problem{}, problems...)})
	case len(problems) > 0:
		for _, p := range problems {
			fmt.Fprintln(w, p)
		}
	default:
		for _, k := range items {
			what := k.KeyID
			if k.Channel != "" {
				what = "URL of channel " + k.Channel
			}
			fmt.Fprintf(w, "%s  %s of %s\n", k.File, what, k.Owner)
		}
		_, err = fmt.Fprintln(w, resealSummary(done, len(files), dryRun))
	}
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("nothing was sealed anew: %s in the way", count(len(problems), "mistake stands", "mistakes stand"))
	}
	return err
}

func resealSummary(done fleetops.Resealed, files int, dryRun bool) string {
	urls := 0
	for _, item := range done.Resealed {
		if item.Channel != "" {
			urls++
		}
	}
	resealed := keysAndURLs(len(done.Resealed)-urls, urls)
	switch {
	case len(done.Resealed) == 0:
		return fmt.Sprintf("nothing to do: %s in %s, all sealed to %s", keysAndURLs(done.Keys, done.URLs), count(done.Files, "file", "files"),
			count(done.Recipients, "recipient", "recipients"))
	case dryRun:
		return fmt.Sprintf("would seal %s in %s anew; nothing was written", resealed, count(files, "file", "files"))
	}
	return fmt.Sprintf("sealed %s in %s anew, to %s\nNext: hub fleet validate, and before you push: the hub must have an identity of these recipients (fleet.identity_files)",
		resealed, count(files, "file", "files"), count(done.Recipients, "recipient", "recipients"))
}

func keysAndURLs(keys, urls int) string {
	text := count(keys, "key", "keys")
	switch {
	case urls > 0 && keys == 0:
		text = count(urls, "URL", "URLs")
	case urls > 0:
		text += " and " + count(urls, "URL", "URLs")
	}
	return text
}
