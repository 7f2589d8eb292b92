package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	maxHaves    = 100 // commits offered as known when fetching
	cloneFactor = 10  // a clone may take so many times Options.Timeout
)

// Options says what to mirror and where.
type Options struct {
	URL    string // a path, file://, https://, ssh:// or user@host:path; see CheckURL
	Branch string // the branch to follow; "" = main
	Dir    string // the mirror, made 0700; its siblings Dir.new, Dir.tidy and Dir.old are used too

	CredentialsFile string // https: a token or user:token; ssh: a private key. 0600, read for each connection
	KnownHostsFile  string // ssh: trusted host keys; "" = ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts
	CAFile          string // https: PEM authorities trusted beside the system's
	SigningKeyFile  string // SSH private key that signs what Publish commits; 0600, read for each; "" = unsigned

	Timeout time.Duration    // for one exchange with the remote; 0 = 60 s, ten times that for a clone
	Logger  *slog.Logger     // nil = discard
	Now     func() time.Time // clock of commits; nil = time.Now
}

// Repo is the mirror of one branch. Its methods may be called concurrently;
// those that talk to the remote take turns.
type Repo struct {
	opts   Options
	branch plumbing.ReferenceName
	remote *remote
	log    *slog.Logger

	busy    chan struct{} // held by whoever talks to the remote or writes objects
	swap    sync.RWMutex  // readers hold it while they read; taken to replace the mirror
	tidying sync.Mutex    // held by Tidy
	damaged atomic.Bool   // a read found the mirror broken; the next Fetch clones anew
}

// Open checks the options and takes up the mirror that is in Dir, if there is
// one; it does not talk to the remote. Close the Repo when done.
func Open(o Options) (*Repo, error) {
	if o.Branch == "" {
		o.Branch = "main"
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	branch := plumbing.NewBranchReferenceName(o.Branch)
	if err := branch.Validate(); err != nil {
		return nil, fmt.Errorf("fleet.branch: %q is no name of a branch", o.Branch)
	}
	remote, err := newRemote(o)
	if err != nil {
		return nil, err
	}
	if o.SigningKeyFile != "" {
		if _, err := ReadSigningKey(o.SigningKeyFile); err != nil {
			return nil, err
		}
	}
	r := &Repo{opts: o, branch: branch, remote: remote, log: o.Logger, busy: make(chan struct{}, 1)}
	if err := r.recover(); err != nil {
		return nil, fmt.Errorf("git mirror: %w", err)
	}
	return r, nil
}

// recover finishes a swap that was cut short and removes what an interrupted
// clone or fetch left.
func (r *Repo) recover() error {
	if err := os.MkdirAll(filepath.Dir(r.opts.Dir), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(r.opts.Dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(r.oldDir(), r.opts.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	leftovers, err := filepath.Glob(filepath.Join(r.opts.Dir, "objects", "pack", "tmp_*"))
	if err != nil {
		return err
	}
	for _, path := range append(leftovers, r.newDir(), r.tidyDir(), r.oldDir()) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repo) newDir() string  { return r.opts.Dir + ".new" }
func (r *Repo) tidyDir() string { return r.opts.Dir + ".tidy" }
func (r *Repo) oldDir() string  { return r.opts.Dir + ".old" }

// Close waits for what is under way and drops idle connections. Files are open
// only during a call.
func (r *Repo) Close() error {
	r.busy <- struct{}{}
	defer r.release()
	r.remote.close()
	return nil
}

func (r *Repo) acquire(ctx context.Context) error {
	select {
	case r.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Repo) release() { <-r.busy }

// Damaged reports whether reading found the mirror broken. The next Fetch
// clones it anew.
func (r *Repo) Damaged() bool { return r.damaged.Load() }

// RemoteHead asks the remote where the branch is; nothing is fetched.
func (r *Repo) RemoteHead(ctx context.Context) (Hash, error) {
	if err := r.acquire(ctx); err != nil {
		return "", err
	}
	defer r.release()
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	session, err := r.remote.upload(ctx)
	if err != nil {
		return "", err
	}
	defer session.Close()
	head, err := session.head(r.branch)
	return hashOf(head), err
}

// Fetch brings the mirror to the head of the branch on the remote and returns
// it. When the head is where it was, that costs one look at the remote's
// references. A branch that was rewritten is followed, and logged.
func (r *Repo) Fetch(ctx context.Context) (Hash, error) {
	if err := r.acquire(ctx); err != nil {
		return "", err
	}
	defer r.release()
	head, err := r.fetch(ctx)
	return hashOf(head), err
}

func (r *Repo) fetch(ctx context.Context) (plumbing.Hash, error) {
	head, cause, err := r.fetchInto(ctx, r.opts.Dir)
	if err != nil || cause == nil {
		return head, err
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "cloning the fleet repository", slog.String("why", cause.Error()))
	return r.clone(ctx)
}

// fetchInto fetches into the mirror in dir. A cause tells why it must be
// cloned anew; an error, that the remote gave no answer.
func (r *Repo) fetchInto(ctx context.Context, dir string) (head plumbing.Hash, cause, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	session, err := r.remote.upload(ctx)
	if err != nil {
		return head, nil, err
	}
	defer session.Close()
	if head, err = session.head(r.branch); err != nil {
		return head, nil, err
	}
	if cause := r.unusable(dir); cause != nil {
		return head, cause, nil
	}
	st := openStorage(dir, filesystem.Options{KeepDescriptors: true})
	defer st.Close()
	old, err := branchHead(st, r.branch)
	if err != nil {
		if dir == r.opts.Dir {
			r.damaged.Store(true) // so that what cannot be carried over does not stop the clone
		}
		return head, err, nil
	}
	if old.Hash == head {
		return head, nil, nil
	}
	if _, err := commitAndTree(st, head); err != nil { // else ours, or one we had before
		if err := session.fetch(ctx, head, recent(old), func(pack io.Reader) error { return packfile.UpdateObjectStorage(st, pack) }); err != nil {
			return head, err, ctx.Err()
		}
		if err := syncDir(filepath.Join(dir, "objects", "pack"), "pack-*"); err != nil {
			return head, nil, err
		}
	}
	commit, err := commitAndTree(st, head)
	if err != nil {
		return head, err, nil
	}
	if ancestor, err := old.IsAncestor(commit); err != nil {
		return head, err, nil
	} else if !ancestor {
		r.log.LogAttrs(ctx, slog.LevelWarn, "the history of the fleet's branch was rewritten",
			slog.String("branch", r.opts.Branch), slog.String("was", old.Hash.String()), slog.String("is", head.String()))
	}
	return head, nil, st.SetReference(plumbing.NewHashReference(r.branch, head))
}

// unusable says why dir holds no mirror to fetch into, or nil.
func (r *Repo) unusable(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return errors.New("there is no mirror yet")
	}
	if dir == r.opts.Dir && r.damaged.Load() {
		return errors.New("the mirror is damaged")
	}
	return nil
}

// clone makes the mirror anew beside the present one, which stays untouched
// until the new one is whole.
func (r *Repo) clone(ctx context.Context) (head plumbing.Hash, err error) {
	dir := r.newDir()
	defer removeAll(dir)
	if head, err = r.fill(ctx, dir); err != nil {
		return head, err
	}
	if err := r.replace(dir); err != nil {
		return head, fmt.Errorf("clone: %w", err)
	}
	r.damaged.Store(false)
	return head, nil
}

// fill makes a bare repository in dir with the whole history of the branch, and
// returns its head.
func (r *Repo) fill(ctx context.Context, dir string) (head plumbing.Hash, err error) {
	ctx, cancel := context.WithTimeout(ctx, cloneFactor*r.opts.Timeout)
	defer cancel()
	session, err := r.remote.upload(ctx)
	if err != nil {
		return head, err
	}
	defer session.Close()
	if head, err = session.head(r.branch); err != nil {
		return head, err
	}
	if err := r.fillFrom(ctx, session, dir, head); err != nil {
		return head, fmt.Errorf("clone: %w", err)
	}
	return head, nil
}

func (r *Repo) fillFrom(ctx context.Context, session *upload, dir string, head plumbing.Hash) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	st := openStorage(dir, filesystem.Options{})
	defer st.Close()
	if err := st.Init(); err != nil {
		return err
	}
	cfg := config.NewConfig()
	cfg.Core.IsBare = true
	if err := st.SetConfig(cfg); err != nil {
		return err
	}
	packs := filepath.Join(dir, "objects", "pack")
	if err := session.fetch(ctx, head, nil, func(pack io.Reader) error { return receivePack(packs, pack) }); err != nil {
		return err
	}
	if _, err := commitAndTree(st, head); err != nil {
		return err
	}
	if err := st.SetReference(plumbing.NewHashReference(r.branch, head)); err != nil {
		return err
	}
	if err := st.SetReference(plumbing.NewSymbolicReference(plumbing.HEAD, r.branch)); err != nil {
		return err
	}
	return syncDir(packs, "pack-*")
}

// removeAll removes what a failed clone left. What cannot be removed is met
// again, as an error, by the next clone.
func removeAll(dir string) { _ = os.RemoveAll(dir) }

// replace puts dir in the mirror's place once nobody reads from that.
func (r *Repo) replace(dir string) error {
	r.swap.Lock()
	defer r.swap.Unlock()
	if err := r.carryApplied(dir); err != nil {
		return err
	}
	if err := os.Rename(r.opts.Dir, r.oldDir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(dir, r.opts.Dir); err != nil {
		return err
	}
	if err := syncPath(filepath.Dir(r.opts.Dir)); err != nil {
		return err
	}
	return os.RemoveAll(r.oldDir())
}

// Commit describes a commit that is in the mirror.
func (r *Repo) Commit(h Hash) (Commit, error) {
	r.swap.RLock()
	defer r.swap.RUnlock()
	st := openStorage(r.opts.Dir, filesystem.Options{})
	defer st.Close()
	c, err := object.GetCommit(st, h.plumbing())
	if err != nil {
		return Commit{}, fmt.Errorf("commit %s: %w", h.Short(), err)
	}
	return Commit{Hash: h, Author: Author{c.Author.Name, c.Author.Email}, When: c.Author.When,
		Committed: c.Committer.When, Subject: subject(c)}, nil
}

func subject(c *object.Commit) string {
	first, _, _ := strings.Cut(c.Message, "\n")
	return first
}

func branchHead(st *filesystem.Storage, branch plumbing.ReferenceName) (*object.Commit, error) {
	ref, err := st.Reference(branch)
	if err != nil {
		return nil, fmt.Errorf("the mirror's %s: %w", branch, err)
	}
	return commitAndTree(st, ref.Hash())
}

// commitAndTree reads a commit and looks whether its tree is there.
func commitAndTree(st *filesystem.Storage, h plumbing.Hash) (*object.Commit, error) {
	commit, err := object.GetCommit(st, h)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	if _, err := commit.Tree(); err != nil {
		return nil, fmt.Errorf("tree of commit %s: %w", h, err)
	}
	return commit, nil
}

// recent lists c and its first parents, so that a server that lost c, because
// its history was rewritten, still finds what is common.
func recent(c *object.Commit) []plumbing.Hash {
	haves := []plumbing.Hash{c.Hash}
	for len(haves) < maxHaves && c.NumParents() > 0 {
		parent, err := c.Parent(0)
		if err != nil {
			break
		}
		c = parent
		haves = append(haves, c.Hash)
	}
	return haves
}

// syncDir makes the files of dir that match pattern durable, and dir itself.
func syncDir(dir, pattern string) error {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return err
	}
	for _, path := range append(paths, dir) {
		if err := syncPath(path); err != nil {
			return err
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
