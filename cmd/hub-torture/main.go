// Command hub-torture tries to make a hub lose or double a report: make torture
// builds and runs it. It is a tool of this repository and is not shipped.
//
// Exit status: 0 nothing was lost or doubled, 1 something was or a run failed, 2
// wrong use.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"felhom.eu/hub/internal/torture"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	os.Exit(run(ctx, stop))
}

func run(ctx context.Context, stop func()) int {
	defer stop()
	o := torture.Options{Out: os.Stdout}
	names := flag.String("fault", "", "`names` of the faults to try, with commas between; all when left out")
	flag.IntVar(&o.Rounds, "rounds", 0, "rounds of each fault; 0: its own number")
	flag.Uint64Var(&o.Seed, "seed", rand.Uint64(), "makes the same choices again")
	flag.Float64Var(&o.Floor, "floor", 1000, "fail a run with fewer acknowledged reports a second while the hub is up")
	flag.Float64Var(&o.Rate, "rate", 0, "reports a second that are sent; 0: twice the floor")
	flag.StringVar(&o.Bin, "bin", "bin", "`folder` of hub and hub-engine")
	dir := flag.String("dir", os.TempDir(), "`folder` for what is kept of a failure")
	flag.Usage = usage
	flag.Parse()
	var unknown string
	if o.Faults, unknown = choose(*names); unknown != "" || flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "hub-torture: no fault is called %q\n", unknown+strings.Join(flag.Args(), " "))
		usage()
		return 2
	}
	if err := torment(ctx, o, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "hub-torture:", err)
		return 1
	}
	return 0
}

// torment runs in a folder of its own, which goes when nothing in it is needed.
func torment(ctx context.Context, o torture.Options, parent string) (err error) {
	if o.Bin, err = filepath.Abs(o.Bin); err != nil {
		return err
	}
	if o.Dir, err = os.MkdirTemp(parent, "hub-torture-"); err != nil {
		return err
	}
	err = torture.Run(ctx, o)
	_ = os.Remove(o.Dir) // it is empty when all went well
	return err
}

// choose returns the faults with these names, and the first name that is none.
func choose(names string) (chosen []torture.Fault, unknown string) {
	all := torture.Faults()
	if names == "" {
		return all, ""
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(f torture.Fault) bool { return f.Name == name })
		if i < 0 {
			return nil, name
		}
		chosen = append(chosen, all[i])
	}
	return chosen, ""
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: hub-torture [flags]; or make torture FAULT=kill-hub ROUNDS=200")
	flag.PrintDefaults()
	fmt.Fprintln(os.Stderr, "\nfaults, with their rounds:")
	for _, f := range torture.Faults() {
		fmt.Fprintf(os.Stderr, "  %-15s %4d  %s\n", f.Name, f.Rounds, f.About)
	}
}
