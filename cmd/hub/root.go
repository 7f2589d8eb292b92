package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/yamlfile"
)

// newRoot makes the whole command tree.
func newRoot() *cobra.Command {
	root := group("hub", "Know from a git repository which hosts exist, take their reports, say when one goes silent")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		serveCommand(), demoCommand(), engineCommand(),
		migrateCommand(), checkCommand(), dsnCommand(), simulateCommand(),
		fleetCommand(), keyCommand(), spoolCommand(), statusCommand(), switchCommand(), notifyCommand(), versionCommand(), benchCommand(),
	)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "hub %s (%s, %s/%s; embedded engine: chDB %s)\n",
				Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, engine.LibraryVersion)
			return err
		},
	}
}

// group is a command that only holds others.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ArbitraryArgs,
		SuggestionsMinimumDistance: 2, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wrongUse{fmt.Errorf("%s needs a command", cmd.CommandPath())}
			}
			err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
			}
			return wrongUse{err}
		},
	}
}

// configFlag adds --config.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", config.DefaultFile, "configuration `file`; every field can also be set by a variable HUB_…")
}

func loadConfig(file string) (*config.Config, error) { return config.Load(file, os.Environ()) }

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command, what string) *bool {
	return cmd.Flags().Bool("json", false, "print "+what+" for scripts")
}

// printJSON prints v as one line.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// duration is a flag that is written as in hub.yaml: "d" is known.
type duration struct{ *time.Duration }

func (d duration) Type() string { return "duration" }

func (d duration) Set(text string) (err error) {
	*d.Duration, err = yamlfile.ParseDuration(text)
	return err
}

// String is the default that the help shows; "" for none.
func (d duration) String() string {
	if d.Duration == nil || *d.Duration == 0 {
		return ""
	}
	return d.Duration.String()
}

// onTerminal reports whether w is a terminal, where progress may be shown.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
