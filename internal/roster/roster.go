// Package roster keeps the fleet that is in force, behind an atomic pointer.
//
// It follows the head of the fleet repository. Whether a head comes in force is
// judged in this order, and what stops it leaves the last good fleet as it is:
//
//	does it descend from the commit in force?  no: held (fleet_rewound) until Accept
//	are it and what led to it signed?          no: rejected (fleet_rejected)
//	is it a fleet as a whole?                  no: rejected (fleet_rejected)
//	does it remove more than its guards say?   yes: held (fleet_held) until they allow it
//
// A mistake inside one host's file costs that host alone: it keeps its last good
// record (host_file_rejected), also across restarts. All that can fail happens
// before the pointer is swapped. Every verdict is announced once, as a row of
// fleet_commits and, where the head stays out, an event.
//
// A start begins with the commit that was in force before, from the mirror, so
// that the hub runs while the remote is away.
package roster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/fleetfile"
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
	// Descends says whether commit has ancestor in its history, or is it.
	Descends(commit, ancestor gitsync.Hash) (bool, error)
	// Applied returns what SetApplied kept, also in an earlier process.
	Applied() (gitsync.Applied, bool)
	SetApplied(gitsync.Applied) error
	// Damaged says that reading the mirror failed and the next Fetch mends it.
	Damaged() bool
	// Tidy keeps the mirror small; it may take its time.
	Tidy(ctx context.Context) error
}

// Memory keeps small texts over restarts. *spool.Spool is one.
type Memory interface {
	ReadState(name string) ([]byte, error)
	WriteState(name string, data []byte) error
}

// Result is how a pull ended, for metrics.
type Result string

// The results of a pull.
const (
	Unchanged Result = "unchanged" // the head and its verdict are as they were
	Applied   Result = "applied"   // a new fleet is in force
	Held      Result = "held"      // the head waits for an operator's word; the fleet in force stays
	Rejected  Result = "rejected"  // the head cannot be used; the fleet in force stays
	Failed    Result = "failed"    // the head could not be had or read
)

// Options says what to follow. Source and Load are required.
type Options struct {
	Source   Source
	Path     string        // folder of the repository that holds the fleet
	Interval time.Duration // between pulls, minus up to 20 % jitter; 0 = 60 s
	MaxAge   time.Duration // the same head for longer raises fleet_frozen; 0 = never

	// Load reads the fleet of a commit: (*fleetfile.Loader).Load.
	Load func(fleet fs.FS, r fleetfile.Request) (fleetfile.Loaded, error)

	// Trust says who signed head, and that every first-parent commit after since
	// is signed as required. A *gitsync.UntrustedError rejects the head; another
	// error says that it could not be read. nil = signatures are not required.
	Trust func(head, since gitsync.Hash) (signer string, err error)

	Announce func(hub.Notice) error      // makes a notice durable; tried again after an error; nil = nobody listens
	Memory   Memory                      // nil = nothing is remembered over a restart
	OnPull   func(Result, time.Duration) // called after each pull; may be nil
	Logger   *slog.Logger                // nil = discard
	Now      func() time.Time            // nil = time.Now
}

// Roster follows the fleet. Current and Status may be called at any time.
type Roster struct {
	o       Options
	log     *slog.Logger
	fleet   atomic.Pointer[hub.Fleet]
	trigger chan struct{}

	tidying sync.Mutex
	pulling chan struct{} // held by the pull under way; guards what is below
	hooks   []func(*hub.Fleet)
	last    *verdict // of the head judged last; nil: none yet
	logged  string   // the failure that was last logged
	memory  memory
	pending []hub.Notice // not durable yet

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
	if o.Announce == nil {
		o.Announce = func(hub.Notice) error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Roster{
		o: o, log: o.Logger,
		trigger: make(chan struct{}, 1),
		pulling: make(chan struct{}, 1),
		status:  Status{Problems: []hub.Problem{}, HostProblems: []hub.Problem{}},
	}
	r.recall()
	return r
}

// Current returns the fleet in force, or nil while there is none yet.
func (r *Roster) Current() *hub.Fleet { return r.fleet.Load() }

// OnApply registers f to be called with each fleet that comes in force, right
// after it did, the one of the start included. Register before Run and Pull.
// The next pull waits for f.
func (r *Roster) OnApply(f func(*hub.Fleet)) { r.hooks = append(r.hooks, f) }

// Trigger makes Run pull at once, and judge even a head that stayed out before.
// It returns without waiting; several at once are one.
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
	var upkeep sync.WaitGroup
	defer upkeep.Wait()
	for retry := time.Second; ; {
		_ = r.pull(ctx, force) // told by Status, log and OnPull
		upkeep.Go(func() { r.tidy(ctx) })
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

// tidy keeps the mirror small, beside the pulls; one at a time.
func (r *Roster) tidy(ctx context.Context) {
	if !r.tidying.TryLock() {
		return
	}
	defer r.tidying.Unlock()
	if err := r.o.Source.Tidy(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("the mirror of the fleet repository could not be made smaller; it is tried again after the next pull", "error", err)
	}
}

// restore puts the commit in force that was so before. Failing is no error: the
// pull that follows may still bring a fleet.
func (r *Roster) restore() {
	applied, ok := r.o.Source.Applied()
	if !ok || r.Current() != nil {
		return
	}
	loaded, err := r.load(applied.Commit)
	if err == nil {
		err = rejection(applied.Commit, loaded.Problems)
	}
	if err != nil {
		r.log.Warn("the fleet of the last run cannot be read again", "commit", applied.Commit.Short(), "error", err)
		return
	}
	v := &verdict{head: applied.Commit, verdict: hub.CommitApplied, loaded: loaded, hosts: loaded.Fleet.Len()}
	if r.o.Trust != nil {
		v.signer, _ = r.o.Trust(applied.Commit, applied.Commit) // was judged when it came in force; only to name it
	}
	r.apply(v)
	r.tellVerdict(v) // a crash may have come before it was told
}

func (r *Roster) pull(ctx context.Context, force bool) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	return r.pullLocked(ctx, force)
}

func (r *Roster) pullLocked(ctx context.Context, force bool) error {
	begin := time.Now()
	result, err := r.refresh(ctx, force)
	if ctx.Err() != nil && result == Failed {
		return err // the hub stops, or a client went away: no failure of the repository
	}
	r.watchFrozen(result, err)
	r.announce()
	r.report(result, err)
	r.o.OnPull(result, time.Since(begin))
	return err
}

// refresh fetches, judges and applies. The error says why the head is not in
// force.
func (r *Roster) refresh(ctx context.Context, force bool) (Result, error) {
	head, err := r.fetch(ctx)
	if err != nil {
		return Failed, err
	}
	last := r.last
	if string(head) == r.Status().Revision && r.Current() != nil {
		if last == nil || last.head != head { // the remote went back to it
			last = &verdict{head: head, verdict: hub.CommitApplied}
		}
		r.settle(last)
		return Unchanged, nil
	}
	if last != nil && last.head == head && !force && !last.again {
		r.settle(last)
		return Unchanged, last.err()
	}
	v, err := r.judge(head)
	if r.o.Source.Damaged() && (err != nil || v.verdict != hub.CommitApplied) {
		// The mirror is at fault, not the commit: mend it and judge again.
		if head, err = r.fetch(ctx); err != nil {
			return Failed, err
		}
		v, err = r.judge(head)
	}
	if err != nil {
		return Failed, err
	}
	return r.conclude(v)
}

// fetch returns the head of the remote. It may mend a mirror from which nothing
// could be restored: then what was in force comes before the head, which is judged
// by it and whose bad files fall back on it.
func (r *Roster) fetch(ctx context.Context) (gitsync.Hash, error) {
	head, err := r.o.Source.Fetch(ctx)
	if err != nil {
		return head, err
	}
	r.restore()
	r.update(func(s *Status) {
		if s.Head != string(head) { // nothing is known of it yet
			s.Verdict, s.Problems = HeadVerdict{}, []hub.Problem{}
		}
		s.Head, s.CheckedAt = string(head), r.o.Now()
	})
	return head, nil
}

// conclude does what the verdict says.
func (r *Roster) conclude(v *verdict) (Result, error) {
	if v.verdict != hub.CommitApplied {
		known := r.last != nil && r.last.same(v)
		r.settle(v)
		r.tellVerdict(v)
		switch {
		case known:
			return Unchanged, v.err()
		case v.verdict == hub.CommitHeld:
			return Held, v.err()
		default:
			return Rejected, v.err()
		}
	}
	applied := gitsync.Applied{Commit: v.head, Kept: map[string]gitsync.Hash{}}
	for name, blob := range v.loaded.Kept {
		applied.Kept[name] = gitsync.Hash(blob)
	}
	if err := r.o.Source.SetApplied(applied); err != nil {
		return Failed, err
	}
	r.apply(v)
	r.tellVerdict(v)
	if r.memory.Accepted != "" { // the word was for this rewind, not for a later one
		r.memory.Accepted = ""
		r.remember()
	}
	return Applied, nil
}

// apply swaps the fleet. Nothing here can fail.
func (r *Roster) apply(v *verdict) {
	fleet := v.loaded.Fleet
	v.added, v.removed, v.changed = compare(r.fleet.Load(), fleet)
	v.loaded.Fleet = nil // the pointer has it; the verdict need not
	c, err := r.o.Source.Commit(v.head)
	r.settle(v)
	r.update(func(s *Status) {
		r.fleet.Store(fleet) // here, so that whoever sees it sees it in the status too
		s.Revision, s.AppliedAt, s.Hosts = string(v.head), r.o.Now(), fleet.Len()
		s.Author, s.Subject, s.Signer = c.Author.Name, c.Subject, v.signer
		s.HostProblems, s.BadHosts = problemsOf(v.loaded.Bad), len(v.loaded.Bad)
	})
	attrs := []any{"commit", v.head.Short(), "hosts", fleet.Len()}
	if err == nil {
		attrs = append(attrs, "author", c.Author.Name, "subject", c.Subject)
	}
	if v.signer != "" {
		attrs = append(attrs, "signer", v.signer)
	}
	r.log.Info("fleet in force", append(attrs, "added", v.added, "removed", v.removed, "changed", v.changed, "bad_files", len(v.loaded.Bad))...)
	for _, hook := range r.hooks {
		hook(fleet)
	}
}

// Accept puts a head in force that does not descend from the commit in force: an
// operator says that the rewind is right. revision is the head's id, or at least
// 7 digits of its beginning. The other rules still hold: where one of them keeps
// the head out, the error says so, and the word stays good until a head is in force.
func (r *Roster) Accept(ctx context.Context, revision string) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	head, err := r.o.Source.Fetch(ctx)
	if err != nil {
		return &hub.Error{Code: hub.Unavailable, Reason: "remote_unavailable", Message: "the fleet repository cannot be reached",
			Hint: "see the hub's log; try again later", Cause: err}
	}
	if !names(revision, head) {
		return &hub.Error{Code: hub.Invalid, Reason: "other_head", Message: fmt.Sprintf("%s is not the head of the branch, which is %s", revision, head.Short()),
			Hint: "look at that commit, and accept it by its own id, at least 7 digits"}
	}
	if string(head) == r.Status().Revision {
		return &hub.Error{Code: hub.Invalid, Reason: "in_force", Message: "this commit is in force already"}
	}
	r.memory.Accepted = head
	r.remember()
	r.log.Warn("audit: an operator accepted a rewind of the fleet", "commit", string(head), "was", r.Status().Revision)
	if err := r.pullLocked(ctx, true); err != nil {
		var known *hub.Error
		if errors.As(err, &known) {
			return err
		}
		return &hub.Error{Code: hub.Invalid, Reason: "not_applied", Message: err.Error(), Hint: r.Status().Verdict.Release, Cause: err}
	}
	return nil
}

const minAbbreviation = 7

func names(revision string, head gitsync.Hash) bool {
	return len(revision) >= minAbbreviation && len(revision) <= len(head) && string(head[:len(revision)]) == revision
}

func (r *Roster) update(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}
