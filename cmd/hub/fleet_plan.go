package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/plan"
)

// Exit statuses of hub fleet plan --exit-code.
const (
	exitChanges = 10
	exitHeld    = 11
)

// planOptions are the flags of hub fleet plan.
type planOptions struct {
	base, head, dir, path, format, dsn string
	direct, exitCode                   bool
}

func fleetPlanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plan --base REV", Short: "Say what merging a branch will do to the fleet", Args: cobra.NoArgs,
		Long: `Say what a change of the fleet repository will do: hosts, customers, keys, when
hosts alarm, who can open the seals, what a guard would hold and what would be
rejected. It needs no credentials, no identity, no network and no hub.

The head is compared with where it left the base (their merge base), as a pull
request is: that is what merging it does, and what the guard counts on. Where the
base has moved on since, the plan says so. --direct compares with the base
itself, as for a branch that is to be reset.

With --dsn it adds what the last reports say of the hosts it is about; any user
that may read the hub's database will do, as of: hub dsn --role analyst.

Exit status 0 where the plan could be made, whatever it says. With --exit-code:
0 nothing changes, 10 something does, 11 a guard would hold it, 1 it would be
rejected (or no plan could be made).`,
	}
	var o planOptions
	cmd.Flags().StringVar(&o.base, "base", "", "`revision` to merge into: a branch, origin/main, a tag, a commit")
	cmd.Flags().StringVar(&o.head, "head", "HEAD", "`revision` to merge")
	cmd.Flags().StringVar(&o.dir, "dir", ".", "`folder` in the repository")
	cmd.Flags().StringVar(&o.path, "path", "", "`path` of the fleet folder in the repository; found by its fleet.yaml where left out")
	cmd.Flags().StringVar(&o.format, "format", "text", "markdown, text or json")
	cmd.Flags().StringVar(&o.dsn, "dsn", "", "`address` of the hub's ClickHouse: clickhouse://user:password@host:9000/hub")
	cmd.Flags().BoolVar(&o.direct, "direct", false, "compare with the base itself")
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "tell by the exit status what the plan says")
	asJSON := jsonFlag(cmd, "the plan, as --format json,")
	_ = cmd.MarkFlagRequired("base")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *asJSON {
			o.format = "json"
		}
		if o.format != "markdown" && o.format != "text" && o.format != "json" {
			return wrongUse{fmt.Errorf("--format is markdown, text or json, not %q", o.format)}
		}
		if o.path != "" && !fs.ValidPath(path.Clean(o.path)) {
			return wrongUse{fmt.Errorf("--path is a path within the repository, not %q", o.path)}
		}
		p, err := o.plan(time.Now())
		if err != nil {
			return err
		}
		if o.dsn != "" {
			if err := addReports(cmd.Context(), p, o.dsn); err != nil {
				return err
			}
		}
		if err := o.print(cmd.OutOrStdout(), p); err != nil || !o.exitCode {
			return err
		}
		return statusOf(p)
	}
	return cmd
}

// plan compares the commits that the flags name.
func (o *planOptions) plan(now time.Time) (*plan.Plan, error) {
	repo, err := gitsync.OpenLocal(o.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = repo.Close() }() // only read
	onto, err := repo.Resolve(o.base)
	if err != nil {
		return nil, err
	}
	head, err := repo.Resolve(o.head)
	if err != nil {
		return nil, err
	}
	base := onto
	if !o.direct {
		if base, err = repo.MergeBase(onto, head); err != nil {
			return nil, err
		}
		if base == "" {
			return nil, &hub.Error{Message: fmt.Sprintf("%s and %s have no common ancestor", o.base, o.head), Hint: "--direct compares them all the same"}
		}
	}
	options := plan.Options{Base: string(base), Head: string(head), Now: now}
	if onto != base {
		options.Onto = string(onto)
	}
	return o.compare(repo, base, head, options)
}

// compare opens the fleet folders of both commits.
func (o *planOptions) compare(repo *gitsync.Local, base, head gitsync.Hash, options plan.Options) (*plan.Plan, error) {
	before, err := o.folder(repo, base)
	if err != nil {
		return nil, err
	}
	after, err := o.folder(repo, head)
	if err != nil {
		return nil, err
	}
	switch {
	case after == "" && before == "":
		return nil, &hub.Error{Message: fmt.Sprintf("neither %s nor %s holds a fleet.yaml", o.base, o.head), Hint: "name the fleet folder with --path, as it is called in the repository"}
	case after == "":
		after = before // fleet.yaml is gone: the plan says so
	}
	options.Path = after
	var p *plan.Plan
	readers := runtime.GOMAXPROCS(0)
	compare := func(base []fs.FS) error {
		return repo.Views(head, after, readers, func(head []fs.FS) (err error) {
			p, err = plan.New(base, head, options)
			return err
		})
	}
	if before == "" {
		err = compare(nil)
	} else {
		err = repo.Views(base, before, readers, compare)
	}
	return p, err
}

// folder finds the fleet folder of a commit; "" where it has none.
func (o *planOptions) folder(repo *gitsync.Local, commit gitsync.Hash) (folder string, err error) {
	err = repo.View(commit, "", func(root fs.FS) error {
		if o.path == "" {
			folder, _ = plan.Find(root, repo.Prefix())
			return nil
		}
		dir := path.Clean(o.path)
		if info, err := fs.Stat(root, dir); err == nil && info.IsDir() {
			folder = dir
		}
		return nil
	})
	return folder, err
}

// addReports asks the database about the plan's hosts. No error shows the
// password of the address.
func addReports(ctx context.Context, p *plan.Plan, dsn string) error {
	db, err := clickhouse.Open(clickhouse.Options{DSN: dsn})
	if err != nil { // its text may hold the address
		return &hub.Error{Message: "--dsn is not the address of a ClickHouse", Hint: "write clickhouse://user:password@host:9000/hub"}
	}
	defer func() { _ = db.Close() }() // only read
	hosts, bodies := p.Asked()
	last, err := db.LastReports(ctx, hosts, bodies)
	if err != nil {
		return &hub.Error{Message: "the last reports cannot be read", Hint: "without --dsn the plan needs no database", Cause: err}
	}
	p.AddReports(last, time.Now())
	return nil
}

func (o *planOptions) print(w io.Writer, p *plan.Plan) (err error) {
	switch o.format {
	case "json":
		err = printJSON(w, p)
	case "markdown":
		_, err = io.WriteString(w, p.Markdown())
	default:
		_, err = io.WriteString(w, p.Text())
	}
	return err
}

func statusOf(p *plan.Plan) error {
	switch p.Verdict {
	case plan.Nothing:
		return nil
	case plan.Applies:
		return exitStatus(exitChanges)
	case plan.Held:
		return exitStatus(exitHeld)
	default:
		return errors.New("the hub would reject this: " + strings.TrimSpace(p.Summary))
	}
}
