package roster

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

// verdict is what was decided about a head.
type verdict struct {
	head     gitsync.Hash
	verdict  hub.Verdict
	reason   hub.EventType // where it stays out
	why      string
	release  string        // what brings it, or another head, in force
	again    bool          // judge it anew with each pull: what decided it lies outside the repository
	problems []hub.Problem // of the whole
	signer   string
	loaded   fleetfile.Loaded

	hosts, added, removed, changed int // against the fleet in force
}

// err says why the head is not in force, nil where it is.
func (v *verdict) err() error {
	if v.verdict == hub.CommitApplied {
		return nil
	}
	return fmt.Errorf("commit %s is %s: %s", v.head.Short(), v.verdict, v.why)
}

// same reports whether there is nothing new in other.
func (v *verdict) same(other *verdict) bool {
	return v.head == other.head && v.verdict == other.verdict && v.reason == other.reason && v.why == other.why
}

// judge decides about a head. An error means that it could not be read.
func (r *Roster) judge(head gitsync.Hash) (*verdict, error) {
	v := &verdict{head: head, verdict: hub.CommitApplied}
	applied, ok := r.o.Source.Applied()
	if !ok { // a mirror that was lost and cloned anew; what is in force is still known here
		applied.Commit = gitsync.Hash(r.Status().Revision)
	}
	for _, step := range []func(*verdict, gitsync.Hash) error{r.judgeHistory, r.judgeTrust, r.judgeContent, r.judgeRemovals} {
		if err := step(v, applied.Commit); err != nil || v.verdict != hub.CommitApplied {
			return v, err
		}
	}
	return v, nil
}

func (r *Roster) judgeHistory(v *verdict, applied gitsync.Hash) error {
	if applied == "" || r.memory.Accepted == v.head {
		return nil
	}
	descends, err := r.o.Source.Descends(v.head, applied)
	if err != nil || descends {
		return err
	}
	v.verdict, v.reason = hub.CommitHeld, hub.FleetRewound
	v.why = fmt.Sprintf("it does not descend from %s, which is in force: the branch was rewritten", applied.Short())
	v.release = fmt.Sprintf("if that is right: hub fleet accept %s; else push the branch back", v.head.Short())
	return nil
}

func (r *Roster) judgeTrust(v *verdict, applied gitsync.Hash) (err error) {
	if r.o.Trust == nil {
		return nil
	}
	v.signer, err = r.o.Trust(v.head, applied)
	var distrust *gitsync.UntrustedError
	if !errors.As(err, &distrust) {
		return err
	}
	v.verdict, v.reason, v.again = hub.CommitRejected, hub.FleetRejected, true
	v.why, v.release = distrust.What, distrust.Hint
	if distrust.Commit != v.head {
		v.why = fmt.Sprintf("commit %s before it: %s", distrust.Commit.Short(), distrust.What)
	}
	return nil
}

func (r *Roster) judgeContent(v *verdict, _ gitsync.Hash) (err error) {
	if v.loaded, err = r.load(v.head); err != nil {
		return err
	}
	if len(v.loaded.Problems) > 0 {
		v.verdict, v.reason, v.problems = hub.CommitRejected, hub.FleetRejected, v.loaded.Problems
		v.why = inWords(v.problems)
		v.release = "mend it by another commit; hub fleet validate lists every mistake"
	}
	return nil
}

// judgeRemovals is the guard against mass removal.
func (r *Roster) judgeRemovals(v *verdict, _ gitsync.Hash) error {
	old, fleet := r.Current(), v.loaded.Fleet
	v.hosts = fleet.Len()
	if old == nil {
		return nil
	}
	removed := 0
	for h := range old.Hosts() {
		if h.Lifecycle == hub.Retired {
			continue
		}
		if _, enrolled := fleet.Enrolled(h.ID); !enrolled {
			removed++
		}
	}
	if !hub.RemovalHeld(old.Len(), removed, fleet.AllowRemoval()) {
		return nil
	}
	v.verdict, v.reason = hub.CommitHeld, hub.FleetHeld
	v.added, v.removed, v.changed = compare(old, fleet)
	v.why = fmt.Sprintf("it removes or retires %d of %d hosts, and guards.allowRemoval in fleet.yaml is %d", removed, old.Len(), fleet.AllowRemoval())
	v.release = fmt.Sprintf("if that is right, set guards.allowRemoval to %d in another commit; else revert this one", removed)
	v.loaded = fleetfile.Loaded{}
	return nil
}

// load reads the fleet of a commit. An error means that it could not be read;
// problems, that it should not be used.
func (r *Roster) load(commit gitsync.Hash) (loaded fleetfile.Loaded, err error) {
	request := fleetfile.Request{Revision: string(commit), InForce: r.Current()}
	if request.InForce == nil {
		applied, _ := r.o.Source.Applied()
		request.Kept = make(map[string]string, len(applied.Kept))
		for name, blob := range applied.Kept {
			request.Kept[name] = string(blob)
		}
	}
	err = r.o.Source.View(commit, r.o.Path, func(fsys fs.FS) (err error) {
		loaded, err = r.o.Load(fsys, request)
		return err
	})
	if err == nil && loaded.Fleet == nil && len(loaded.Problems) == 0 {
		err = fmt.Errorf("commit %s gave neither a fleet nor a problem", commit.Short())
	}
	return loaded, err
}

// rejection is the error of a commit with problems, or nil without any.
func rejection(commit gitsync.Hash, problems []hub.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return (&verdict{head: commit, verdict: hub.CommitRejected, why: inWords(problems)}).err()
}

func inWords(problems []hub.Problem) string {
	if len(problems) == 1 {
		return problems[0].String()
	}
	return fmt.Sprintf("it has %d problems, the first: %s", len(problems), problems[0])
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
		case was != h && !sameHost(was, h):
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

// sameHost reports whether two records say the same, wherever they were read.
func sameHost(a, b *hub.Host) bool {
	was, is := *a, *b
	was.Blob, is.Blob = "", ""
	was.Maintenance, is.Maintenance = nil, nil // a schedule remembers what it was asked
	return reflect.DeepEqual(was, is) && slices.EqualFunc(a.Maintenance, b.Maintenance, sameWindow)
}

// sameWindow compares schedules by what they say of themselves.
func sameWindow(a, b hub.Window) bool {
	return a.Name == b.Name && a.Reason == b.Reason && a.Owner == b.Owner && fmt.Sprint(a.Schedule) == fmt.Sprint(b.Schedule)
}
