package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	publishTries = 5

	// Two pushes at once: the loser's is refused while the winner's is not
	// visible yet. So a branch that did not move is looked at twice.
	secondLook = 250 * time.Millisecond
)

// Change is what Publish commits: files written anew or replaced, by their path
// from the root of the repository.
type Change struct {
	Branch  string // a new branch to push it to; empty: the followed one
	Files   map[string][]byte
	Message string
	Author  Author // of the commit, and its committer
}

// Publish commits and pushes a change, never by force, and returns the commit.
//
// build is called with the newest head of the followed branch and all its files,
// and says what to change; its errors are returned as they are. It must not call
// methods of the Repo. On the followed branch, a push that another commit
// forestalled is built anew on the new head, five times at most. A new branch
// begins at the head.
//
// Other errors are *hub.Error with code Unavailable and the reason
// remote_unavailable, push_conflict (others were faster each time),
// branch_exists or push_refused (with what the server said as cause).
func (r *Repo) Publish(ctx context.Context, build func(head Hash, files fs.FS) (Change, error)) (Hash, error) {
	if err := r.acquire(ctx); err != nil {
		return "", err
	}
	defer r.release()
	for range publishTries {
		commit, branch, err := r.publish(ctx, build)
		if !errors.Is(err, errMoved) {
			return hashOf(commit), err
		}
		if branch != "" {
			return "", &hub.Error{Code: hub.Unavailable, Reason: "branch_exists",
				Message: "the branch " + branch + " exists already in the fleet repository",
				Hint:    "merge or delete that branch, then try again"}
		}
		r.log.InfoContext(ctx, "another commit was faster, building ours anew", "branch", r.branch.Short())
	}
	return "", &hub.Error{Code: hub.Unavailable, Reason: "push_conflict", Retry: time.Second,
		Message: "others change the fleet repository at the same time", Hint: "try again"}
}

// publish is one try; errMoved means another is worth it. It returns the branch
// that the change named.
func (r *Repo) publish(ctx context.Context, build func(Hash, fs.FS) (Change, error)) (commit plumbing.Hash, branch string, err error) {
	head, err := r.fetch(ctx)
	if err != nil {
		return commit, "", &hub.Error{Code: hub.Unavailable, Reason: "remote_unavailable",
			Message: "the fleet repository cannot be reached", Hint: "see the hub's log; try again later", Cause: err}
	}
	var change Change
	err = r.View(hashOf(head), ".", func(files fs.FS) (err error) {
		change, err = build(hashOf(head), files)
		return err
	})
	if err != nil {
		return commit, "", err
	}
	cmd := packp.Command{Name: r.branch, Old: head}
	if change.Branch != "" {
		cmd = packp.Command{Name: plumbing.NewBranchReferenceName(change.Branch)}
		if err := cmd.Name.Validate(); err != nil {
			return commit, "", fmt.Errorf("%q is no name of a branch", change.Branch)
		}
	}
	commit, pack, err := r.commit(head, change)
	if err != nil {
		return commit, "", fmt.Errorf("commit: %w", err)
	}
	cmd.New = commit
	return commit, change.Branch, r.push(ctx, cmd, pack)
}

// push pushes and, since the errors of a push do not say what the server did,
// looks at the remote after one.
func (r *Repo) push(ctx context.Context, cmd packp.Command, pack []byte) error {
	timed, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	cause := r.remote.push(timed, cmd, pack)
	if cause == nil || errors.Is(cause, errMoved) {
		return cause
	}
	for look := range 2 {
		if look > 0 {
			select {
			case <-time.After(secondLook):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		at, err := r.remoteRef(ctx, cmd.Name)
		switch {
		case err != nil:
			return &hub.Error{Code: hub.Unavailable, Reason: "remote_unavailable",
				Message: "the fleet repository did not say whether it took the commit",
				Hint:    "look into the repository's log before trying again", Cause: errors.Join(cause, err)}
		case at == cmd.New:
			return nil
		case at != cmd.Old:
			return errMoved
		}
	}
	return &hub.Error{Code: hub.Unavailable, Reason: "push_refused",
		Message: "the git server refused the commit",
		Hint:    "allow the hub's credentials to push to " + cmd.Name.Short() + ", or use another fleet.mint", Cause: cause}
}

func (r *Repo) remoteRef(ctx context.Context, name plumbing.ReferenceName) (plumbing.Hash, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	session, err := r.remote.upload(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer session.Close()
	return session.refs.References[name.String()], nil
}

// commit writes change as a child of base into the mirror's object store and
// returns it with a pack of all that base has not.
func (r *Repo) commit(base plumbing.Hash, change Change) (plumbing.Hash, []byte, error) {
	w := &objectWriter{st: openStorage(r.opts.Dir, filesystem.Options{})}
	defer w.st.Close()
	parent, err := object.GetCommit(w.st, base)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	for name := range change.Files {
		if !fs.ValidPath(name) || name == "." || strings.EqualFold(name, ".git") || strings.HasPrefix(strings.ToLower(name), ".git/") {
			return plumbing.ZeroHash, nil, fmt.Errorf("%q is no path in a repository", name)
		}
	}
	root, err := w.tree(parent.TreeHash, change.Files)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	by := object.Signature{Name: change.Author.Name, Email: change.Author.Email, When: r.opts.Now()}
	commit := &object.Commit{
		Author: by, Committer: by, Message: change.Message,
		TreeHash: root, ParentHashes: []plumbing.Hash{base},
	}
	if r.opts.SigningKeyFile != "" {
		key, err := ReadSigningKey(r.opts.SigningKeyFile)
		if err != nil {
			return plumbing.ZeroHash, nil, err
		}
		if err := key.sign(commit); err != nil {
			return plumbing.ZeroHash, nil, err
		}
	}
	hash, err := w.put(commit)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	if err := w.sync(filepath.Join(r.opts.Dir, "objects")); err != nil {
		return plumbing.ZeroHash, nil, err
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, w.st, false).Encode(w.written, 0); err != nil {
		return plumbing.ZeroHash, nil, err
	}
	return hash, pack.Bytes(), nil
}

// objectWriter adds objects to a store and remembers which.
type objectWriter struct {
	st      *filesystem.Storage
	written []plumbing.Hash
}

func (w *objectWriter) put(o interface {
	Encode(plumbing.EncodedObject) error
}) (plumbing.Hash, error) {
	obj := w.st.NewEncodedObject()
	if err := o.Encode(obj); err != nil {
		return plumbing.ZeroHash, err
	}
	return w.store(obj)
}

func (w *objectWriter) store(obj plumbing.EncodedObject) (plumbing.Hash, error) {
	h, err := w.st.SetEncodedObject(obj)
	if err == nil && !slices.Contains(w.written, h) {
		w.written = append(w.written, h)
	}
	return h, err
}

func (w *objectWriter) blob(data []byte) (plumbing.Hash, error) {
	obj := w.st.NewEncodedObject()
	obj.SetType(plumbing.BlobObject)
	out, err := obj.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := out.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	return w.store(obj)
}

// tree writes the folder base (zero: none yet) with files in it; folders that
// hold none of them are taken over as they are.
func (w *objectWriter) tree(base plumbing.Hash, files map[string][]byte) (plumbing.Hash, error) {
	entries := make(map[string]object.TreeEntry)
	if !base.IsZero() {
		old, err := object.GetTree(w.st, base)
		if err != nil {
			return base, err
		}
		for _, e := range old.Entries {
			entries[e.Name] = e
		}
	}
	below := make(map[string]map[string][]byte)
	for name, data := range files {
		first, rest, nested := strings.Cut(name, "/")
		if nested {
			if below[first] == nil {
				below[first] = make(map[string][]byte)
			}
			below[first][rest] = data
			continue
		}
		if old, ok := entries[name]; ok && !(entry{mode: old.Mode}).regular() {
			return base, fmt.Errorf("%s exists and is not a file", name)
		}
		h, err := w.blob(data)
		if err != nil {
			return base, err
		}
		entries[name] = object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: h}
	}
	for name, files := range below {
		old, ok := entries[name]
		if ok && old.Mode != filemode.Dir {
			return base, fmt.Errorf("%s exists and is not a folder", name)
		}
		h, err := w.tree(old.Hash, files)
		if err != nil {
			return base, fmt.Errorf("%s: %w", name, err)
		}
		entries[name] = object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: h}
	}
	return w.put(sorted(entries))
}

func sorted(entries map[string]object.TreeEntry) *object.Tree {
	t := &object.Tree{Entries: make([]object.TreeEntry, 0, len(entries))}
	for _, e := range entries {
		t.Entries = append(t.Entries, e)
	}
	// Git's order: a folder as if its name ended in a slash.
	key := func(e object.TreeEntry) string {
		if e.Mode == filemode.Dir {
			return e.Name + "/"
		}
		return e.Name
	}
	slices.SortFunc(t.Entries, func(a, b object.TreeEntry) int { return strings.Compare(key(a), key(b)) })
	return t
}

// sync makes the written objects durable: the commit may become the applied one.
func (w *objectWriter) sync(objects string) error {
	for _, h := range w.written {
		name := h.String()
		if err := syncDir(filepath.Join(objects, name[:2]), name[2:]); err != nil {
			return err
		}
	}
	return syncPath(objects)
}
