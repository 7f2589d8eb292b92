package gitsync

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"felhom.eu/hub/internal/hub"
)

// Local is a repository as an operator or a CI job has it on disk: a clone with
// a work tree, a linked work tree, a submodule, or bare. It is only read, and may
// be used by several goroutines.
type Local struct {
	mu   sync.Mutex
	idle []*objects // open and not in use: indexes of packs take a while to read

	gitDir string // of this work tree: HEAD
	common string // of all its work trees: objects, references, configuration
	prefix string
}

// OpenLocal finds the repository that holds dir, as git does: the first folder
// from dir upwards with a .git, or that is a bare repository.
func OpenLocal(dir string) (*Local, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	for top := dir; ; top = filepath.Dir(top) {
		gitDir, err := gitDirOf(top)
		if err != nil {
			return nil, err
		}
		if gitDir != "" {
			return newLocal(gitDir, top, dir)
		}
		if top == filepath.Dir(top) {
			return nil, &hub.Error{Message: fmt.Sprintf("%s is in no git repository", dir), Hint: "name one with --dir"}
		}
	}
}

// gitDirOf returns the folder in which the repository of the work tree top, or
// the bare one at top, keeps its own files; "" where there is none.
func gitDirOf(top string) (string, error) {
	dotGit := filepath.Join(top, ".git")
	info, err := os.Stat(dotGit)
	switch {
	case err == nil && info.IsDir():
		return dotGit, nil
	case err == nil: // a linked work tree or a submodule
		text, err := os.ReadFile(dotGit)
		if err != nil {
			return "", err
		}
		target, ok := strings.CutPrefix(string(text), "gitdir:")
		if !ok {
			return "", fmt.Errorf("%s does not say where the repository is: a line gitdir: is missing", dotGit)
		}
		return under(top, strings.TrimSpace(target)), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	head, objects := filepath.Join(top, "HEAD"), filepath.Join(top, "objects")
	if info, err := os.Stat(objects); err != nil || !info.IsDir() {
		return "", nil
	}
	if _, err := os.Stat(head); err != nil {
		return "", nil
	}
	return top, nil
}

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func newLocal(gitDir, top, dir string) (*Local, error) {
	l := &Local{gitDir: gitDir, common: gitDir}
	if text, err := os.ReadFile(filepath.Join(gitDir, "commondir")); err == nil {
		l.common = under(gitDir, strings.TrimSpace(string(text)))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if gitDir != top {
		rel, err := filepath.Rel(top, dir)
		if err != nil {
			return nil, err
		}
		if l.prefix = filepath.ToSlash(rel); l.prefix == "." {
			l.prefix = ""
		}
	}
	st, err := l.open()
	if err != nil {
		return nil, err
	}
	defer l.done(st)
	if err := st.readable(l.common); err != nil {
		return nil, err
	}
	return l, nil
}

// Close closes what was read. No call may be going on.
func (l *Local) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, st := range l.idle {
		st.close()
	}
	l.idle = nil
	return nil
}

// Prefix returns the path, within the work tree, of the folder that OpenLocal
// was given: "" at its top and in a bare repository.
func (l *Local) Prefix() string { return l.prefix }

// View calls read with the folder at path ("" or "." is the whole) of a commit;
// see [Repo.View] for the file system.
func (l *Local) View(commit Hash, path string, read func(fs.FS) error) error {
	return l.Views(commit, path, 1, func(views []fs.FS) error { return read(views[0]) })
}

// Views is View with n file systems of the same folder: one reads a file at a
// time, several read as many at once.
func (l *Local) Views(commit Hash, path string, n int, read func([]fs.FS) error) error {
	stores := make([]*objects, n)
	for i := range stores {
		var err error
		if stores[i], err = l.open(); err != nil {
			return err
		}
		defer l.done(stores[i])
	}
	views, errs := make([]fs.FS, n), make([]error, n)
	var all sync.WaitGroup
	for i, st := range stores {
		all.Go(func() { views[i], errs[i] = treeOf(poolOf(st, l.common), commit, path, func() {}) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return l.explain(err)
		}
	}
	return l.explain(read(views))
}

var (
	hexDigits = regexp.MustCompile(`^[0-9a-f]{4,40}$`)
	// revision is a name and steps back from it. Of what else git knows
	// (reflogs, searches, paths, ranges) nothing is needed here.
	revision = regexp.MustCompile(`^(@|[^-~^:@{}\s][^~^:{}\s]*)((?:[~^][0-9]*)*)$`)
	step     = regexp.MustCompile(`([~^])([0-9]*)`)
)

// Resolve returns the commit that rev means: a branch, a remote's branch as
// origin/main, a tag, HEAD, or the (abbreviated) id of a commit, each with steps
// back as HEAD~2 or HEAD^2.
func (l *Local) Resolve(rev string) (Hash, error) {
	parts := revision.FindStringSubmatch(rev)
	if parts == nil || strings.Contains(rev, "..") {
		return "", &hub.Error{Message: fmt.Sprintf("%q is no revision", rev), Hint: "write a branch, a tag or a commit, and steps back from it as in main~2"}
	}
	st, err := l.open()
	if err != nil {
		return "", err
	}
	defer l.done(st)
	c, err := st.named(parts[1])
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", l.unknown(st, rev, parts[1])
	}
	for _, s := range step.FindAllStringSubmatch(parts[2], -1) {
		if err == nil {
			c, err = stepBack(c, s[1], s[2])
		}
	}
	if err != nil {
		return "", l.explain(fmt.Errorf("revision %q: %w", rev, err))
	}
	return hashOf(c.Hash), nil
}

// stepBack goes to an ancestor: ~n is n first parents back, ^n the nth parent.
func stepBack(c *object.Commit, kind, count string) (*object.Commit, error) {
	n := 1
	if count != "" {
		var err error
		if n, err = strconv.Atoi(count); err != nil {
			return nil, err
		}
	}
	if kind == "^" && n > 0 {
		return parent(c, n-1)
	}
	var err error
	for ; kind == "~" && n > 0 && err == nil; n-- {
		c, err = parent(c, 0)
	}
	return c, err
}

func parent(c *object.Commit, i int) (*object.Commit, error) {
	if i >= c.NumParents() {
		return nil, fmt.Errorf("commit %s has %d parent(s)", hashOf(c.Hash).Short(), c.NumParents())
	}
	return c.Parent(i)
}

// named returns the commit of a reference or of an id, whole or abbreviated; as
// in git a whole id goes before a reference, and that before an abbreviation.
func (o *objects) named(name string) (*object.Commit, error) {
	if name == "@" {
		name = "HEAD"
	}
	if plumbing.IsHash(name) {
		if c, err := o.commit(plumbing.NewHash(name)); !errors.Is(err, plumbing.ErrObjectNotFound) {
			return c, err
		}
	}
	for _, rule := range plumbing.RefRevParseRules {
		if ref, err := storer.ResolveReference(o, plumbing.ReferenceName(fmt.Sprintf(rule, name))); err == nil {
			return o.commit(ref.Hash())
		}
	}
	if !hexDigits.MatchString(name) {
		return nil, plumbing.ErrReferenceNotFound
	}
	return o.abbreviated(name)
}

func (o *objects) abbreviated(name string) (*object.Commit, error) {
	prefix, err := hex.DecodeString(name[:len(name)&^1])
	if err != nil {
		return nil, err
	}
	candidates, err := o.HashesWithPrefix(prefix)
	if err != nil {
		return nil, err
	}
	var found *object.Commit
	for _, h := range candidates {
		c, err := o.commit(h)
		switch {
		case err != nil || !strings.HasPrefix(h.String(), name): // no commit, or another one
		case found != nil && found.Hash != c.Hash:
			return nil, fmt.Errorf("more than one commit begins with %s", name)
		default:
			found = c
		}
	}
	if found == nil {
		return nil, plumbing.ErrReferenceNotFound
	}
	return found, nil
}

// commit returns the commit h, or the one that the annotated tag h names.
func (o *objects) commit(h plumbing.Hash) (*object.Commit, error) {
	tag, err := object.GetTag(o, h)
	if err == nil {
		return tag.Commit()
	}
	return object.GetCommit(o, h)
}

// unknown says what to do about a revision that is not there.
func (l *Local) unknown(st *objects, rev, name string) error {
	e := &hub.Error{Message: fmt.Sprintf("revision %q is not in the repository %s", rev, l.common), Hint: "git fetch origin " + name}
	if _, err := st.named("refs/remotes/origin/" + name); err == nil {
		e.Hint = fmt.Sprintf("did you mean origin/%s?", name)
	} else if l.shallow() {
		e.Hint = shallowHint
	}
	return e
}

const shallowHint = "this clone is shallow: git fetch --unshallow, or let CI fetch the history (GitHub, Forgejo: fetch-depth: 0; GitLab: GIT_DEPTH: 0)"

func (l *Local) shallow() bool {
	info, err := os.Stat(filepath.Join(l.common, "shallow"))
	return err == nil && info.Size() > 0
}

// explain adds what to do where an object is missing.
func (l *Local) explain(err error) error {
	if !errors.Is(err, plumbing.ErrObjectNotFound) {
		return err
	}
	hint := "the repository is damaged, or a partial clone (--filter): fetch it whole"
	if l.shallow() {
		hint = shallowHint
	}
	return &hub.Error{Message: "an object is missing in " + l.common, Hint: hint, Cause: err}
}
