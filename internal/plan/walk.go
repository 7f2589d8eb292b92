package plan

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"

	"felhom.eu/hub/internal/fleetfile"
)

// change is a file that is not the same on both sides.
type change struct {
	path               string
	inBase, inHead     bool
	baseHash, headHash string // git's ids of the contents; empty: not known
}

// changes walks two folders side by side and returns the files that differ,
// sorted. Entries with the same ContentHash are the same, all the way down; files
// without one are read. A folder that is missing is empty.
func changes(base, head fs.FS) ([]change, error) {
	var list []change
	err := walk(base, head, ".", &list)
	slices.SortFunc(list, func(a, b change) int { return cmp.Compare(a.path, b.path) })
	return list, err
}

func walk(base, head fs.FS, dir string, list *[]change) error {
	before, err := readDir(base, dir)
	if err != nil {
		return err
	}
	after, err := readDir(head, dir)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		var b, h fs.DirEntry
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = cmp.Compare(before[0].Name(), after[0].Name())
		}
		if order <= 0 {
			b, before = before[0], before[1:]
		}
		if order >= 0 {
			h, after = after[0], after[1:]
		}
		if err := compare(base, head, dir, b, h, list); err != nil {
			return err
		}
	}
	return nil
}

// compare adds what differs in two entries of the same name; one may be nil.
func compare(base, head fs.FS, dir string, b, h fs.DirEntry, list *[]change) error {
	named := b
	if b == nil {
		named = h
	}
	name := path.Join(dir, named.Name())
	if equal, err := same(base, head, name, b, h); equal || err != nil {
		return err
	}
	c := change{path: name, inBase: isFile(b), inHead: isFile(h), baseHash: contentHash(b), headHash: contentHash(h)}
	if c.inBase || c.inHead {
		*list = append(*list, c)
	}
	if !isDir(b) {
		base = nil
	}
	if !isDir(h) {
		head = nil
	}
	if base == nil && head == nil {
		return nil
	}
	return walk(base, head, c.path, list)
}

func isFile(e fs.DirEntry) bool { return e != nil && e.Type().IsRegular() }
func isDir(e fs.DirEntry) bool  { return e != nil && e.IsDir() }

// same reports whether two entries of the same name have the same content, for a
// folder: are known to.
func same(base, head fs.FS, name string, b, h fs.DirEntry) (bool, error) {
	switch {
	case b == nil || h == nil || b.Type() != h.Type():
		return false, nil
	case contentHash(b) != "" && contentHash(h) != "":
		return contentHash(b) == contentHash(h), nil
	case !isFile(b):
		return false, nil
	}
	before, err := fs.ReadFile(base, name)
	if err != nil {
		return false, err
	}
	after, err := fs.ReadFile(head, name)
	return bytes.Equal(before, after), err
}

// contentHash returns git's id of an entry; empty where there is none.
func contentHash(e fs.DirEntry) string {
	if hashed, ok := e.(interface{ ContentHash() string }); ok {
		return hashed.ContentHash()
	}
	return ""
}

func readDir(fsys fs.FS, dir string) ([]fs.DirEntry, error) {
	if fsys == nil {
		return nil, nil
	}
	list, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// Find returns the fleet folder of a commit whose top is root: the folder at
// prefix or its folder fleet, else the folder fleet at the top or the top itself,
// whichever holds fleet.yaml first; "." is the top.
func Find(root fs.FS, prefix string) (string, bool) {
	for _, dir := range []string{prefix, path.Join(prefix, "fleet"), "fleet", "."} {
		if _, err := fs.Stat(root, path.Join(dir, fleetfile.FleetPath)); err == nil {
			return path.Clean(dir), true
		}
	}
	return "", false
}
