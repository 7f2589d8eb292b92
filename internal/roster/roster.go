// Package roster keeps the fleet that is in force, behind an atomic pointer.
//
// It follows the head of the fleet repository: a head that loads without a
// problem replaces the fleet as a whole; with any problem the last good fleet
// stays in force, and Status says why. All that can fail happens before the
// pointer is swapped. A start begins with the commit that was in force before,
// from the mirror, so that the hub runs while the remote is away.
package roster

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

// Source is the mirror of the fleet repository. *gitsync.Repo is one.
type Source interface {
	// Fetch returns the head of the branch, which then is in the mirror.
	Fetch(ctx context.Context) (gitsync.Hash, error)
	// View gives read the folder at path of a commit in the mirror.
	View(commit gitsync.Hash, path string, read func(fs.FS) error) error
	// Commit describes a commit in the mirror.
	Commit(gitsync.Hash) (gitsync.Commit, error)
	// Applied returns what SetApplied kept, also in an earlier process.
	Applied() (gitsync.Applied, bool)
	SetApplied(gitsync.Applied) error
	// Damaged says that reading the mirror failed and the next Fetch mends it.
	Damaged() bool
}

// Result is how a pull ended, for metrics.
type Result string

// The results of a pull.
const (
	Unchanged Result = "unchanged" // the head is the one looked at before
	Applied   Result = "applied"   // a new fleet is in force
	Rejected  Result = "rejected"  // the head has problems; the fleet in force stays
	Failed    Result = "failed"    // the head could not be had or read
)

// maxLogged bounds the problems of one head that are logged; Status has all.
const maxLogged = 20

// Options says what to follow.
type Options struct {
	Source   Source
	Path     string        // folder of the repository that holds the fleet
	Interval time.Duration // between pulls, minus up to 20 % jitter; 0 = 60 s

	// Load reads the fleet of a commit. With any problem the commit is rejected;
	// an error says that it could not be read, and is tried again.
	Load func(fleet fs.FS, revision string) (*hub.Fleet, []hub.Problem, error)

	OnPull func(Result, time.Duration) // called after each pull; may be nil
	Logger *slog.Logger                // nil = discard
	Now    func() time.Time            // nil = time.Now
}

// Status is what the roster knows of the fleet and its repository.
type Status struct {
	Revision  string        `json:"revision"`             // commit in force; "" = none yet
	AppliedAt time.Time     `json:"applied_at,omitzero"`  // when this process put it in force
	Hosts     int           `json:"hosts"`                // not retired
	Problems  []hub.Problem `json:"problems"`             // of Head, when that is not in force; never null
	Head      string        `json:"head"`                 // newest commit seen on the remote
	CheckedAt time.Time     `json:"checked_at,omitzero"`  // last pull that got an answer from the remote
	LastError string        `json:"last_error,omitempty"` // why the last pull did not bring its head in force
}

// Roster follows the fleet. Current and Status may be called at any time.
type Roster struct {
	o       Options
	log     *slog.Logger
	fleet   atomic.Pointer[hub.Fleet]
	trigger chan struct{}

	pulling chan struct{} // held by the pull under way; guards what is below
	hooks   []func(*hub.Fleet)
	judged  gitsync.Hash // the head whose verdict is known: in force, or Status.Problems
	logged  string       // the failure that was last logged

	mu     sync.Mutex
	status Status
}

// New makes a Roster. Nothing happens before Run or Pull.
func New(o Options) *Roster {
	if o.Interval == 0 {
		o.Interval = time.Minute
	}
	if o.OnPull == nil {
		o.OnPull = func(Result, time.Duration) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Roster{
		o: o, log: o.Logger,
		trigger: make(chan struct{}, 1),
		pulling: make(chan struct{}, 1),
		status:  Status{Problems: []hub.Problem{}},
	}
}

// Current returns the fleet in force, or nil while there is none yet.
func (r *Roster) Current() *hub.Fleet { return r.fleet.Load() }

// Status returns the present status.
func (r *Roster) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// OnApply registers f to be called with each fleet that comes in force, right
// after it did, the one of the start included. Register before Run and Pull.
// The next pull waits for f.
func (r *Roster) OnApply(f func(*hub.Fleet)) { r.hooks = append(r.hooks, f) }

// Trigger makes Run pull at once, and judge even a head that it rejected
// before. It returns without waiting; several at once are one.
func (r *Roster) Trigger() {
	select {
	case r.trigger <- struct{}{}:
	default:
	}
}

// Run restores the fleet that was in force before and then follows the
// repository until ctx ends. Without any fleet it tries again after 1 s, 2 s, 4 s
// and so on up to the interval.
func (r *Roster) Run(ctx context.Context) {
	if err := r.lock(ctx); err != nil {
		return
	}
	r.restore()
	r.unlock()
	force := false
	for retry := time.Second; ; {
		_ = r.pull(ctx, force) // told by Status, log and OnPull
		wait := r.o.Interval - rand.N(r.o.Interval/5+1)
		if r.Current() == nil {
			wait = min(retry, wait)
			retry *= 2
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			force = false
		case <-r.trigger:
			timer.Stop()
			force = true
		}
	}
}

// Pull brings the head of the repository in force now. When it returns nil,
// what the remote had when Pull was called is in force.
func (r *Roster) Pull(ctx context.Context) error { return r.pull(ctx, false) }

func (r *Roster) lock(ctx context.Context) error {
	select {
	case r.pulling <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Roster) unlock() { <-r.pulling }

// restore puts the commit in force that was so before. Failing is no error: the
// pull that follows may still bring a fleet.
func (r *Roster) restore() {
	applied, ok := r.o.Source.Applied()
	commit := applied.Commit
	if !ok || r.Current() != nil {
		return
	}
	fleet, problems, err := r.load(commit)
	if err == nil {
		err = rejection(commit, problems)
	}
	if err != nil {
		r.log.Warn("the fleet of the last run cannot be read again", "commit", commit.Short(), "error", err)
		return
	}
	r.apply(fleet, commit)
}

func (r *Roster) pull(ctx context.Context, force bool) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	begin := time.Now()
	result, err := r.refresh(ctx, force)
	if ctx.Err() != nil && result == Failed {
		return err // the hub stops, or a client went away: no failure of the repository
	}
	r.report(result, err)
	r.o.OnPull(result, time.Since(begin))
	return err
}

// refresh fetches, loads and applies. The error says why the head is not in
// force.
func (r *Roster) refresh(ctx context.Context, force bool) (Result, error) {
	head, err := r.o.Source.Fetch(ctx)
	if err != nil {
		return Failed, err
	}
	r.update(func(s *Status) { s.Head, s.CheckedAt = string(head), r.o.Now() })
	if !force && head == r.judged {
		return Unchanged, rejection(head, r.Status().Problems)
	}
	if !force && string(head) == r.Status().Revision { // the remote went back to it
		r.judge(head, nil)
		return Unchanged, nil
	}
	fleet, problems, err := r.load(head)
	if (err != nil || len(problems) > 0) && r.o.Source.Damaged() {
		// The mirror is at fault, not the commit: mend it and read again.
		if head, err = r.o.Source.Fetch(ctx); err != nil {
			return Failed, err
		}
		fleet, problems, err = r.load(head)
	}
	if err != nil {
		return Failed, err
	}
	if len(problems) > 0 {
		r.judge(head, problems)
		return Rejected, rejection(head, problems)
	}
	if err := r.o.Source.SetApplied(gitsync.Applied{Commit: head}); err != nil {
		return Failed, err
	}
	r.apply(fleet, head)
	return Applied, nil
}

// load reads the fleet of a commit. An error means that it could not be read;
// problems, that it should not be used.
func (r *Roster) load(commit gitsync.Hash) (fleet *hub.Fleet, problems []hub.Problem, err error) {
	err = r.o.Source.View(commit, r.o.Path, func(fsys fs.FS) (err error) {
		fleet, problems, err = r.o.Load(fsys, string(commit))
		return err
	})
	if err == nil && fleet == nil && len(problems) == 0 {
		err = fmt.Errorf("commit %s gave neither a fleet nor a problem", commit.Short())
	}
	return fleet, problems, err
}

// apply swaps the fleet. Nothing here can fail.
func (r *Roster) apply(fleet *hub.Fleet, commit gitsync.Hash) {
	old := r.fleet.Swap(fleet)
	r.judge(commit, nil)
	r.update(func(s *Status) {
		s.Revision, s.AppliedAt, s.Hosts = string(commit), r.o.Now(), fleet.Len()
	})
	attrs := []any{"commit", commit.Short(), "hosts", fleet.Len()}
	if c, err := r.o.Source.Commit(commit); err == nil {
		attrs = append(attrs, "author", c.Author.Name, "subject", c.Subject)
	}
	added, removed, changed := compare(old, fleet)
	r.log.Info("fleet in force", append(attrs, "added", added, "removed", removed, "changed", changed)...)
	for _, hook := range r.hooks {
		hook(fleet)
	}
}

// judge remembers the verdict on a head, so that it is not read again.
func (r *Roster) judge(head gitsync.Hash, problems []hub.Problem) {
	r.judged = head
	r.update(func(s *Status) {
		s.Head, s.Problems = string(head), append([]hub.Problem{}, problems...)
	})
}

func (r *Roster) update(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// report puts the outcome of a pull into the status and, once for the same
// failure, into the log.
func (r *Roster) report(result Result, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.update(func(s *Status) { s.LastError = text })
	if text == r.logged {
		return
	}
	r.logged = text
	status := r.Status()
	attrs := []any{"error", text, "in_force", gitsync.Hash(status.Revision).Short()}
	switch {
	case text == "":
		r.log.Info("the fleet repository is followed again")
	case r.Current() == nil:
		r.log.Error("no fleet yet, so every agent is turned away: neither this start nor an earlier one could read the repository; trying again", attrs...)
	case result != Failed:
		r.log.Error("the head of the fleet repository is rejected, the last good fleet stays in force", attrs...)
		for _, p := range status.Problems[:min(len(status.Problems), maxLogged)] {
			r.log.Error("problem in the fleet", "commit", gitsync.Hash(status.Head).Short(), "at", p.String())
		}
	default:
		r.log.Warn("the fleet repository cannot be followed, the last good fleet stays in force", attrs...)
	}
}

// rejection is the error of a head with problems, or nil without any.
func rejection(head gitsync.Hash, problems []hub.Problem) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("commit %s is rejected: %s", head.Short(), problems[0])
	}
	return fmt.Errorf("commit %s is rejected for %d problems, the first: %s", head.Short(), len(problems), problems[0])
}

// compare counts the hosts by which the fleets differ; old may be nil.
func compare(old, current *hub.Fleet) (added, removed, changed int) {
	if old == nil {
		for range current.Hosts() {
			added++
		}
		return added, 0, 0
	}
	for h := range current.Hosts() {
		was, ok := old.Host(h.ID)
		switch {
		case !ok:
			added++
		case was != h && !reflect.DeepEqual(was, h):
			changed++
		}
	}
	for h := range old.Hosts() {
		if _, ok := current.Host(h.ID); !ok {
			removed++
		}
	}
	return added, removed, changed
}
