package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

const (
	memoryState = "fleet" // name of the state that Memory keeps

	// frozenAfter is how long pulls may fail before that is an event.
	frozenAfter = 15 * time.Minute

	maxTold         = 10_000 // what was told that is remembered, newest first to stay
	eventsPerNotice = 1000   // bounds a record to some hundred KiB
)

// memory is what must not be forgotten over a restart: what was told is not told
// again, and an operator's word stays good.
type memory struct {
	Accepted     gitsync.Hash         `json:"accepted,omitempty"`
	Head         gitsync.Hash         `json:"head,omitempty"`
	HeadSince    time.Time            `json:"head_since,omitzero"`    // when Head was first seen
	FailingSince time.Time            `json:"failing_since,omitzero"` // first failed pull since the last answer
	Told         map[string]time.Time `json:"told,omitempty"`         // ids of events and verdicts
}

func (r *Roster) recall() {
	r.memory.Told = map[string]time.Time{}
	if r.o.Memory == nil {
		return
	}
	data, err := r.o.Memory.ReadState(memoryState)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = json.Unmarshal(data, &r.memory)
	}
	if err != nil {
		r.log.Warn("what was told of the fleet is forgotten: verdicts and events of its present state may be told twice", "error", err)
		r.memory = memory{Told: map[string]time.Time{}}
	}
}

// remember writes the memory down, unless it says of something that it was told
// which is not durable yet.
func (r *Roster) remember() {
	if r.o.Memory == nil || len(r.pending) > 0 {
		return
	}
	if over := len(r.memory.Told) - maxTold; over > 0 {
		byAge := slices.SortedFunc(maps.Keys(r.memory.Told), func(a, b string) int { return r.memory.Told[a].Compare(r.memory.Told[b]) })
		for _, id := range byAge[:over] {
			delete(r.memory.Told, id)
		}
	}
	data, err := json.Marshal(r.memory)
	if err == nil {
		err = r.o.Memory.WriteState(memoryState, data)
	}
	if err != nil {
		r.log.Warn("what was told of the fleet could not be written down", "error", err)
	}
}

// tellVerdict prepares the row of a verdict, the event where the head stays out,
// and the events of host files that are newly bad.
func (r *Roster) tellVerdict(v *verdict) {
	now := r.now()
	var n hub.Notice
	if r.firstTime(hub.FleetEventID("fleet_commit", fmt.Sprintf("%s\n%s\n%s", v.verdict, v.head, v.why)), now) {
		n.Commits = append(n.Commits, r.row(v, now))
	}
	if v.verdict != hub.CommitApplied {
		n.Events = r.event(n.Events, now, v.reason, "", string(v.head), fmt.Sprintf("commit %s: %s", v.head.Short(), v.why))
	}
	for _, f := range v.loaded.Bad {
		if v.verdict == hub.CommitApplied {
			n.Events = r.event(n.Events, now, hub.HostFileRejected, f.HostID, f.Name+"\n"+f.Blob, keptWords(f.Kept)+f.Problems[0].String())
		}
	}
	r.tell(n)
}

func keptWords(kept bool) string {
	if kept {
		return "the host keeps its last good record: "
	}
	return "the host is not enrolled, there is no good record of it: "
}

func (r *Roster) row(v *verdict, now time.Time) hub.FleetCommit {
	row := hub.FleetCommit{
		Revision: string(v.head), Signer: v.signer, Verdict: v.verdict, Reason: string(v.reason), Why: v.why, DecidedAt: now,
		Hosts: v.hosts, Added: v.added, Removed: v.removed, Changed: v.changed, BadFiles: len(v.loaded.Bad),
	}
	if c, err := r.o.Source.Commit(v.head); err == nil {
		row.Author, row.CommittedAt, row.Subject = fmt.Sprintf("%s <%s>", c.Author.Name, c.Author.Email), c.Committed, c.Subject
	}
	return row
}

// event adds an event to list unless it was told before.
func (r *Roster) event(list []hub.Event, now time.Time, t hub.EventType, host, subject, reason string) []hub.Event {
	id := hub.FleetEventID(t, subject)
	if !r.firstTime(id, now) {
		return list
	}
	return append(list, hub.Event{ID: id, Type: t, HostID: host, At: now, DetectedAt: now, Reason: reason, Source: "fleet"})
}

func (r *Roster) firstTime(id string, now time.Time) bool {
	if _, told := r.memory.Told[id]; told {
		return false
	}
	r.memory.Told[id] = now
	return true
}

func (r *Roster) tell(n hub.Notice) {
	for _, e := range n.Events {
		r.log.Warn("event", "type", e.Type, "host", e.HostID, "reason", e.Reason, "id", e.ID)
	}
	for len(n.Events) > eventsPerNotice {
		r.pending = append(r.pending, hub.Notice{Events: n.Events[:eventsPerNotice]})
		n.Events = n.Events[eventsPerNotice:]
	}
	if len(n.Commits)+len(n.Events) > 0 {
		r.pending = append(r.pending, n)
	}
}

// announce makes pending notices durable, and then remembers that they are.
func (r *Roster) announce() {
	if len(r.pending) == 0 {
		return
	}
	for len(r.pending) > 0 {
		if err := r.o.Announce(r.pending[0]); err != nil {
			r.log.Warn("a notice of the fleet is not durable yet; it is tried again with the next pull", "error", err)
			return
		}
		r.pending = r.pending[1:]
	}
	r.remember()
}

// watchFrozen raises fleet_frozen when the repository has not answered for a
// while, or not moved for longer than MaxAge.
func (r *Roster) watchFrozen(result Result, err error) {
	now, was := r.now(), r.memory
	frozen := ""
	if result != Failed {
		r.memory.FailingSince = time.Time{}
		if head := gitsync.Hash(r.Status().Head); head != r.memory.Head {
			r.memory.Head, r.memory.HeadSince = head, now
		}
	} else if was.FailingSince.IsZero() {
		r.memory.FailingSince = now
	}
	var n hub.Notice
	if since := r.memory.FailingSince; !since.IsZero() && now.Sub(since) >= frozenAfter {
		frozen = fmt.Sprintf("no pull has worked since %s", since.Format(time.RFC3339))
		n.Events = r.event(n.Events, now, hub.FleetFrozen, "", "pull\n"+since.Format(time.RFC3339Nano), frozen+": "+err.Error())
	} else if since := r.memory.HeadSince; r.o.MaxAge > 0 && !since.IsZero() && now.Sub(since) > r.o.MaxAge {
		frozen = fmt.Sprintf("commit %s has been the head since %s, longer than fleet.max_age", r.memory.Head.Short(), since.Format(time.RFC3339))
		n.Events = r.event(n.Events, now, hub.FleetFrozen, "", "head\n"+string(r.memory.Head), frozen)
	}
	r.update(func(s *Status) { s.Frozen = frozen })
	r.tell(n)
	if was.FailingSince != r.memory.FailingSince || was.Head != r.memory.Head {
		r.remember()
	}
}

// now returns the hub's clock as rows keep it: UTC, whole milliseconds.
func (r *Roster) now() time.Time { return r.o.Now().UTC().Truncate(time.Millisecond) }
