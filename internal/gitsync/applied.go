package gitsync

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	appliedRef = plumbing.ReferenceName("refs/hub/applied")
	keptDir    = "hub-kept" // in the mirror; holds a file named by the applied commit
)

// Applied is what is in force, with which a restart begins.
type Applied struct {
	Commit Hash

	// Kept are the blobs that stand in for files of Commit that are bad, by the
	// file's path within the fleet's folder: their last good content.
	Kept map[string]Hash
}

// Applied returns what SetApplied wrote last, also by an earlier process.
func (r *Repo) Applied() (Applied, bool) {
	r.swap.RLock()
	defer r.swap.RUnlock()
	applied, err := readApplied(r.opts.Dir)
	if err != nil {
		r.log.Error("what is in force cannot be read from the git mirror", "error", err)
	}
	return applied, applied.Commit != ""
}

// SetApplied makes a what a restart begins with. It is durable when SetApplied
// returns; a crash leaves it or what was before, whole.
func (r *Repo) SetApplied(a Applied) error {
	r.swap.RLock()
	defer r.swap.RUnlock()
	if err := writeApplied(r.opts.Dir, a); err != nil {
		return fmt.Errorf("git mirror: %s: %w", appliedRef, err)
	}
	return nil
}

func appliedPath(dir string) string {
	return filepath.Join(dir, filepath.FromSlash(string(appliedRef)))
}

// readApplied returns the commit also when the kept blobs cannot be read.
func readApplied(dir string) (a Applied, err error) {
	data, err := os.ReadFile(appliedPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	text := strings.TrimSpace(string(data))
	if err != nil || !plumbing.IsHash(text) {
		return a, errors.Join(fmt.Errorf("%s is no reference", appliedPath(dir)), err)
	}
	a.Commit = Hash(text)
	list, err := os.ReadFile(filepath.Join(dir, keptDir, text))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	kept := make(map[string]Hash)
	for line := range strings.Lines(string(list)) {
		hash, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
		path, quoteErr := strconv.Unquote(quoted)
		if quoteErr != nil || !plumbing.IsHash(hash) {
			return a, fmt.Errorf("%s has a bad line: %q", filepath.Join(dir, keptDir, text), line)
		}
		kept[path] = Hash(hash)
	}
	if len(kept) > 0 {
		a.Kept = kept
	}
	return a, err
}

// writeApplied writes the kept blobs under the name of the commit, then moves the
// reference: that is the commit point. While the commit stays, the first of the
// two is.
func writeApplied(dir string, a Applied) error {
	var list strings.Builder
	for _, path := range slices.Sorted(maps.Keys(a.Kept)) {
		fmt.Fprintf(&list, "%s %q\n", a.Kept[path], path)
	}
	kept := filepath.Join(dir, keptDir)
	if err := writeDurably(filepath.Join(kept, string(a.Commit)), list.String()); err != nil {
		return err
	}
	// go-git would not sync the reference.
	if err := writeDurably(appliedPath(dir), string(a.Commit)+"\n"); err != nil {
		return err
	}
	older, err := os.ReadDir(kept)
	for _, e := range older {
		if e.Name() != string(a.Commit) {
			err = errors.Join(err, os.Remove(filepath.Join(kept, e.Name())))
		}
	}
	return err
}

// writeDurably replaces a file, whose folder it makes, in one step.
func writeDurably(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// The name ends in .lock, as git's own do, so that nobody takes it for a reference.
	f, err := os.OpenFile(path+".lock", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return errors.Join(syncPath(filepath.Dir(path)), syncPath(filepath.Dir(filepath.Dir(path))))
}

// carryApplied takes what is in force over from the mirror into the one in dir.
// A rewritten history may lack the commit, and surely lacks some kept blobs: then
// their objects are copied, without the history. A mirror that is so broken that
// they are not to be had loses them; the log says so.
func (r *Repo) carryApplied(dir string) error {
	applied, err := readApplied(r.opts.Dir)
	if err != nil || applied.Commit == "" {
		return r.lost(err)
	}
	from, to := openStorage(r.opts.Dir, filesystem.Options{}), openStorage(dir, filesystem.Options{})
	defer from.Close()
	defer to.Close()
	c := carrier{from: from, to: to, seen: make(map[plumbing.Hash]bool)}
	if err := c.commit(applied.Commit.plumbing()); err != nil {
		return r.lost(fmt.Errorf("the applied commit %s: %w", applied.Commit.Short(), err))
	}
	for path, h := range applied.Kept {
		if err := c.blob(h.plumbing()); err != nil {
			if err := r.lost(fmt.Errorf("the last good content of %s: %w", path, err)); err != nil {
				return err
			}
			delete(applied.Kept, path)
		}
	}
	if err := c.copy(); err != nil {
		return r.lost(err)
	}
	if err := syncDir(filepath.Join(dir, "objects", "pack"), "pack-*"); err != nil {
		return err
	}
	return writeApplied(dir, applied)
}

// lost lets go of what cannot be read when the mirror is damaged anyway.
func (r *Repo) lost(err error) error {
	if err != nil && r.damaged.Load() {
		r.log.Warn("a part of what is in force is lost: the mirror was damaged", "error", err)
		return nil
	}
	return err
}

// carrier copies objects that a repository lacks from another.
type carrier struct {
	from, to *filesystem.Storage
	seen     map[plumbing.Hash]bool
	lacking  []plumbing.Hash
}

// lacks notes h and reports whether it must be copied. What has been noted stays
// so: an object is in a pack once.
func (c *carrier) lacks(h plumbing.Hash) bool {
	if c.seen[h] || c.to.HasEncodedObject(h) == nil {
		return false
	}
	c.seen[h] = true
	c.lacking = append(c.lacking, h)
	return true
}

func (c *carrier) commit(h plumbing.Hash) error {
	if c.to.HasEncodedObject(h) == nil {
		return nil
	}
	commit, err := object.GetCommit(c.from, h)
	if err != nil {
		return err
	}
	c.lacks(h)
	if err := c.to.SetShallow([]plumbing.Hash{h}); err != nil { // tells git that its history is not here
		return err
	}
	return c.tree(commit.TreeHash)
}

func (c *carrier) tree(h plumbing.Hash) error {
	if !c.lacks(h) {
		return nil
	}
	tree, err := object.GetTree(c.from, h)
	if err != nil {
		return err
	}
	for _, e := range tree.Entries {
		switch e.Mode {
		case filemode.Dir:
			err = c.tree(e.Hash)
		case filemode.Submodule: // lies elsewhere
		default:
			err = c.blob(e.Hash)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *carrier) blob(h plumbing.Hash) error {
	if c.to.HasEncodedObject(h) == nil {
		return nil
	}
	if _, err := blob(c.from, h); err != nil { // not when all are copied: one bad blob must not cost the rest
		return err
	}
	c.lacks(h)
	return nil
}

// copy writes what is lacking as one pack.
func (c *carrier) copy() (err error) {
	if len(c.lacking) == 0 {
		return nil
	}
	w, err := c.to.PackfileWriter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	_, err = packfile.NewEncoder(w, c.from, false).Encode(c.lacking, 0)
	return err
}
