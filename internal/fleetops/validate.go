package fleetops

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/yamlfile"
)

// Validate reads the fleet that dir means as the hub does, and lints it. It
// returns the fleet, nil where the hub would not take it, and everything wrong
// with it: sorted, each of a rule, files named as seen from where dir is. The
// seals are checked by their form and against recipients.txt; where there are
// identity files, the seals of hosts that are not retired must open with them
// too.
func Validate(dir string, identityFiles ...string) (*hub.Fleet, []hub.Problem, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return nil, nil, err
	}
	fsys := os.DirFS(dir)
	fleet, problems, err := fleetfile.Load(fsys, nil, fleetfile.Options{})
	if err != nil {
		return nil, nil, err
	}
	if len(identityFiles) > 0 {
		ids, err := seal.ReadIdentities(identityFiles...)
		if err != nil {
			return nil, nil, err
		}
		opened, more, err := fleetfile.Load(fsys, seal.NewOpener(ids), fleetfile.Options{})
		if err != nil {
			return nil, nil, err
		}
		if fleet != nil {
			fleet = opened
		}
		problems = addNew(problems, more)
	}
	lint, err := fleetfile.Lint(fsys, time.Now())
	if err != nil {
		return nil, nil, err
	}
	problems = addNew(problems, lint)
	fleetfile.NameRules(problems)
	for i := range problems {
		problems[i].File = filepath.Join(dir, problems[i].File)
	}
	yamlfile.Sort(problems)
	return fleet, problems, nil
}

// addNew adds those of more that do not say again, in other words, what is
// reported: the same rule at the same place; for a secret, on the same line.
func addNew(problems, more []hub.Problem) []hub.Problem {
	type place struct {
		file, rule   string
		line, column int
	}
	placeOf := func(p hub.Problem) place {
		if p.Rule == "secret" {
			p.Column = 0
		}
		return place{p.File, p.Rule, p.Line, p.Column}
	}
	known := make(map[place]bool)
	for _, p := range problems {
		known[placeOf(p)] = true
	}
	for _, p := range more {
		if !known[placeOf(p)] {
			problems = append(problems, p)
		}
	}
	return problems
}

// Errors returns how many of the problems are no mere warnings.
func Errors(problems []hub.Problem) (n int) {
	for _, p := range problems {
		if !p.Warning {
			n++
		}
	}
	return n
}

// Repository returns the top of the git repository that dir lies in: the
// nearest folder above it, or itself, with a .git. The error is fs.ErrNotExist
// where there is none.
func Repository(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, ".git")) // a file in a worktree
		if err == nil || !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return dir, err
		}
		dir = filepath.Dir(dir)
	}
}

// FromRepository returns the problems with their files named from the top of
// the repository that dir lies in, with slashes, as forges name them. Outside a
// repository they keep their names.
func FromRepository(dir string, problems []hub.Problem) ([]hub.Problem, error) {
	root, err := Repository(dir)
	if errors.Is(err, fs.ErrNotExist) {
		root, err = "", nil
	}
	if err != nil {
		return nil, err
	}
	named := slices.Clone(problems)
	for i, p := range named {
		if root != "" {
			file, err := filepath.Abs(p.File)
			if err != nil {
				return nil, err
			}
			if p.File, err = filepath.Rel(root, file); err != nil {
				return nil, err
			}
		}
		named[i].File = filepath.ToSlash(cmp.Or(p.File, "."))
	}
	return named, nil
}
