package fleetops

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// eachKeyFile reads the files of the fleet folder dir that hold keys (only that
// of owner where it is not nil), several at a time, and returns what f makes of
// each, in the order of their names, and all problems: those of files that
// cannot be understood, and those that f finds. Problems name files as seen from
// where dir is. progress may be nil.
func eachKeyFile[T any](ctx context.Context, dir string, owner *hub.Owner, progress func(done, total int),
	f func(*fleetfile.KeyFile) (T, []hub.Problem, error)) ([]T, []hub.Problem, error) {
	names, err := keyFileNames(os.DirFS(dir), owner)
	if err != nil {
		return nil, nil, err
	}
	results, mistakes := make([]T, len(names)), make([][]hub.Problem, len(names))
	var done atomic.Int64
	err = parallel(ctx, len(names), func(i int) error {
		data, err := os.ReadFile(filepath.Join(dir, names[i]))
		if err != nil {
			return err
		}
		file, problems := fleetfile.ReadKeys(names[i], data)
		if len(problems) == 0 {
			results[i], problems, err = f(file)
		}
		mistakes[i] = problems
		if n := int(done.Add(1)); progress != nil {
			progress(n, len(names))
		}
		return err
	})
	var all []hub.Problem
	for _, problems := range mistakes {
		for _, p := range problems {
			all = append(all, in(dir, p))
		}
	}
	return results, all, err
}

// keyFileNames returns the paths of the files that hold keys, sorted; of all
// owners where owner is nil.
func keyFileNames(fsys fs.FS, owner *hub.Owner) ([]string, error) {
	if owner != nil {
		name, err := fileOf(fsys, *owner)
		return []string{name}, err
	}
	names := []string{fleetfile.FleetPath}
	for _, pattern := range []string{fleetfile.CustomerPath("*"), fleetfile.HostPath("*", "*")} {
		found, err := fs.Glob(fsys, pattern)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	return names, nil
}

// parallel calls f for 0 to n-1 on every core and returns its first error, or
// the context's. After an error no further call begins.
func parallel(ctx context.Context, n int, f func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}
