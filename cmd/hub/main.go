// Command hub is the Felhom hub and everything one does with it: it serves
// agents and analysts, and it is the operator's tool for the fleet repository.
//
// Exit status: 0 fine, 1 failed, 2 wrong use; a command that has others says so
// in its help.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/hub"
)

// Version is set by the build: -ldflags "-X main.Version=…".
var Version = "dev"

const (
	exitFailed   = 1
	exitWrongUse = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, newRoot()))
}

// run executes the command that the process's arguments name and returns the
// exit status.
func run(ctx context.Context, root *cobra.Command) int {
	// What cobra refuses before a command began is wrong use.
	began := false
	onBegin(root, func() { began = true })
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	tell(root.ErrOrStderr(), err)
	if began && !errors.As(err, new(wrongUse)) {
		return exitFailed
	}
	fmt.Fprintf(root.ErrOrStderr(), "Try: %s --help\n", cmd.CommandPath())
	return exitWrongUse
}

// onBegin has f called when the command itself begins, after its flags and
// arguments were found to be right.
func onBegin(cmd *cobra.Command, f func()) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			f()
			return inner(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		onBegin(c, f)
	}
}

// wrongUse is a mistake in the command line that cobra cannot see.
type wrongUse struct{ error }

// exitStatus is returned by a command that has said all, to end with a status of
// its own.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// tell prints an error for people: what is wrong and what to do next.
func tell(w io.Writer, err error) {
	var mistakes *config.Error
	if errors.As(err, &mistakes) {
		fmt.Fprintln(w, mistakes) // each begins with its file and line
		return
	}
	fmt.Fprintln(w, "hub:", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintln(w, "  "+hint)
	}
}

func hintOf(err error) string {
	if e, ok := errors.AsType[*hub.Error](err); ok {
		return e.Hint
	}
	return ""
}
