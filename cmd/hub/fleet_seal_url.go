package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
)

func fleetSealURLCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "seal-url OWNER CHANNEL", Short: "Seal the URL of a channel by which people are told", Args: cobra.ExactArgs(2),
		Long: `Ask for the URL of a channel, without showing it, or read it from standard input,
seal it to all recipients with its owner and channel inside, and write it into the
owner's file: in place of the one that the channel has, or as a new channel. OWNER
is customer/NAME or fleet. The URL is one of

  ` + strings.Join(notify.Kinds(), "\n  ") + `

Do not write it on the command line: other users of the machine and the shell's
history would know it.`,
		Example: `  hub fleet seal-url fleet ops-chat
  hub fleet seal-url customer/acme mail < url.txt`,
	}
	dir := dirFlag(cmd)
	asJSON := jsonFlag(cmd, `{"owner":…,"channel":…,"kind":…,"added":…,"file":…}`)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		owner, err := hub.ParseOwner(args[0])
		if err != nil {
			return wrongUse{err}
		}
		url, err := readURL(cmd.InOrStdin(), cmd.ErrOrStderr(), args[1], owner)
		if err != nil {
			return err
		}
		c, err := fleetops.SealURL(*dir, owner, args[1], url)
		if err != nil {
			return err
		}
		return printSealedURL(cmd.OutOrStdout(), c, *asJSON)
	}
	return cmd
}

func printSealedURL(w io.Writer, c fleetops.SealedChannel, asJSON bool) error {
	if asJSON {
		return printJSON(w, struct {
			Owner   string `json:"owner"`
			Channel string `json:"channel"`
			Kind    string `json:"kind"`
			Added   bool   `json:"added"`
			File    string `json:"file"`
		}{c.Owner.String(), c.Channel, c.Kind, c.Added, c.File})
	}
	what := "has another address"
	if c.Added {
		what = "is new"
	}
	_, err := fmt.Fprintf(w, "owner    %s\nchannel  %s (%s), which %s\nfile     %s\n\n"+
		"Events go there once the file is on the branch that the hub follows.\n", c.Owner, c.Channel, c.Kind, what, c.File)
	return err
}

// maxURLInput is how much of standard input is read for a URL: more than may be one.
const maxURLInput = 16 << 10

// readURL reads the one line of in. Where that is a terminal, prompt asks for it, and
// what is typed is not shown.
func readURL(in io.Reader, prompt io.Writer, channel string, owner hub.Owner) (hub.Secret, error) {
	var text []byte
	var err error
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(prompt, "URL of channel %s of %s (not shown): ", channel, owner)
		text, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(prompt)
	} else {
		text, err = io.ReadAll(io.LimitReader(in, maxURLInput))
	}
	text = bytes.TrimSpace(text)
	switch {
	case err != nil:
		return hub.Secret{}, err
	case len(text) == 0:
		return hub.Secret{}, wrongUse{errors.New("no URL: it is read from standard input")}
	case bytes.ContainsAny(text, "\r\n"):
		return hub.Secret{}, wrongUse{errors.New("more than one line on standard input: a channel has one URL")}
	}
	return hub.NewSecret(string(text)), nil
}
