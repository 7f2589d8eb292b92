package roster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
)

// fakeSource is a repository whose commits are texts that load understands.
type fakeSource struct {
	mu      sync.Mutex // for tests in which Run reads what they change
	head    gitsync.Hash
	away    error // what Fetch returns
	files   map[gitsync.Hash]string
	applied gitsync.Hash
	kept    map[string]gitsync.Hash
	astray  map[gitsync.Hash]bool // commits that do not descend from others
	damaged bool                  // until the next Fetch
	fetches []time.Time
}

// set changes the repository.
func (s *fakeSource) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *fakeSource) Fetch(context.Context) (gitsync.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetches = append(s.fetches, time.Now())
	if s.away == nil {
		s.damaged = false
	}
	return s.head, s.away
}

func (s *fakeSource) View(commit gitsync.Hash, path string, read func(fs.FS) error) error {
	s.mu.Lock()
	text, ok := s.files[commit]
	s.mu.Unlock()
	if !ok {
		return fs.ErrNotExist
	}
	return read(fstest.MapFS{"hosts": {Data: []byte(text)}})
}

func (s *fakeSource) Commit(h gitsync.Hash) (gitsync.Commit, error) {
	return gitsync.Commit{Hash: h, Subject: "subject of " + string(h)}, nil
}
func (s *fakeSource) Descends(commit, ancestor gitsync.Hash) (bool, error) {
	return commit == ancestor || !s.astray[commit], nil
}

func (s *fakeSource) Applied() (gitsync.Applied, bool) {
	return gitsync.Applied{Commit: s.applied, Kept: s.kept}, s.applied != ""
}

func (s *fakeSource) SetApplied(a gitsync.Applied) error {
	s.applied, s.kept = a.Commit, a.Kept
	return nil
}

func (s *fakeSource) Damaged() bool              { return s.damaged }
func (s *fakeSource) Tidy(context.Context) error { return nil }

// load reads the file hosts: an id and perhaps a display name a line. A host
// called "bad" has a bad file and keeps its last good record; "allow=3" sets the
// guard.
func load(fsys fs.FS, r fleetfile.Request) (loaded fleetfile.Loaded, err error) {
	data, err := fs.ReadFile(fsys, "hosts")
	if err != nil {
		return loaded, err
	}
	spec := hub.FleetSpec{Revision: r.Revision, Customers: []*hub.Customer{{Name: "acme"}}}
	loaded.Kept = map[string]string{}
	seen := make(map[string]bool)
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		id, name, _ := strings.Cut(line, " ")
		if allow, ok := strings.CutPrefix(id, "allow="); ok {
			spec.AllowRemoval, _ = strconv.Atoi(allow)
			continue
		}
		if seen[id] {
			loaded.Problems = append(loaded.Problems, hub.Problem{File: "hosts", Line: i + 1, Message: "host " + id + " stands twice"})
		}
		seen[id] = true
		host := &hub.Host{ID: id, Customer: "acme", DisplayName: name, Lifecycle: hub.Active, File: id, Blob: "blob of " + line}
		if name == "bad" {
			last, kept := &hub.Host{ID: id, Customer: "acme", Lifecycle: hub.Active, File: id, Blob: r.Kept[id]}, r.Kept[id] != ""
			if r.InForce != nil {
				last, kept = r.InForce.Host(id)
			}
			loaded.Bad = append(loaded.Bad, fleetfile.BadFile{Name: id, HostID: id, Blob: "blob of " + line, Kept: kept,
				Problems: []hub.Problem{{File: id, Message: "is bad"}}})
			if !kept {
				continue
			}
			host = last
			loaded.Kept[last.File] = last.Blob
		}
		if name == "retired" {
			host.Lifecycle = hub.Retired
		}
		spec.Hosts = append(spec.Hosts, host)
	}
	if len(loaded.Problems) == 0 {
		loaded.Fleet, err = hub.NewFleet(spec)
	}
	return loaded, err
}

// harness is a roster over a fake source that counts what happens.
type harness struct {
	*roster.Roster
	source  *fakeSource
	loads   int
	results []roster.Result
	notices []hub.Notice
	log     *bytes.Buffer
}

func newHarness(source *fakeSource, more ...func(*roster.Options)) *harness {
	h := &harness{source: source, log: new(bytes.Buffer)}
	o := roster.Options{
		Source: source, Path: "fleet", Interval: time.Minute,
		Load: func(fsys fs.FS, r fleetfile.Request) (fleetfile.Loaded, error) {
			h.loads++
			return load(fsys, r)
		},
		Announce: func(n hub.Notice) error { h.notices = append(h.notices, n); return nil },
		OnPull:   func(r roster.Result, _ time.Duration) { h.results = append(h.results, r) },
		Logger:   slog.New(slog.NewTextHandler(h.log, nil)),
	}
	for _, change := range more {
		change(&o)
	}
	h.Roster = roster.New(o)
	return h
}

// told lists what was announced: verdicts, and events with their hosts.
func (h *harness) told() string {
	var words []string
	for _, n := range h.notices {
		for _, c := range n.Commits {
			words = append(words, string(c.Verdict)+" "+c.Revision)
		}
		for _, e := range n.Events {
			words = append(words, strings.TrimSpace(string(e.Type)+" "+e.HostID))
		}
	}
	return strings.Join(words, ", ")
}

func (h *harness) wantResults(t *testing.T, want ...roster.Result) {
	t.Helper()
	if !reflect.DeepEqual(h.results, want) {
		t.Errorf("pulls ended with %v, want %v", h.results, want)
	}
}

func TestBadHeadKeepsTheLastGoodFleet(t *testing.T) {
	src := &fakeSource{head: "good", files: map[gitsync.Hash]string{"good": "a\nb", "bad": "a\nb\nb\nc\nc", "fixed": "a new\nc"}}
	h := newHarness(src)
	var applied []string
	h.OnApply(func(f *hub.Fleet) { applied = append(applied, f.Revision()) })
	if h.Current() != nil || h.Status().Problems == nil {
		t.Fatal("a new roster has a fleet, or null for its problems")
	}
	if err := h.Pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := h.Current()

	src.head = "bad"
	for range 3 {
		err := h.Pull(t.Context())
		if err == nil || !strings.Contains(err.Error(), "it has 2 problems, the first: hosts:3: host b stands twice") {
			t.Errorf("pull of a bad head: %v", err)
		}
	}
	s := h.Status()
	if h.Current() != good || s.Revision != "good" || s.Hosts != 2 || s.Head != "bad" || len(s.Problems) != 2 || s.LastError == "" || src.applied != "good" {
		t.Errorf("after a bad head: %+v, applied %s", s, src.applied)
	}
	if h.loads != 2 {
		t.Errorf("%d loads: the rejected head was read again", h.loads)
	}
	if n := strings.Count(h.log.String(), "stays out, the last good"); n != 1 {
		t.Errorf("the rejection was logged %d times:\n%s", n, h.log)
	}

	src.head = "fixed"
	if err := h.Pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = h.Status()
	if s.Revision != "fixed" || len(s.Problems) != 0 || s.Problems == nil || s.LastError != "" || src.applied != "fixed" {
		t.Errorf("after the mend: %+v", s)
	}
	h.wantResults(t, roster.Applied, roster.Rejected, roster.Unchanged, roster.Unchanged, roster.Applied)
	if !reflect.DeepEqual(applied, []string{"good", "fixed"}) {
		t.Errorf("hooks saw %v", applied)
	}
	if want := `subject="subject of fixed" added=1 removed=1 changed=1 bad_files=0`; !strings.Contains(h.log.String(), want) {
		t.Errorf("log lacks %s:\n%s", want, h.log)
	}
}

func TestReturnToTheFleetInForceClearsTheProblems(t *testing.T) {
	src := &fakeSource{head: "good", files: map[gitsync.Hash]string{"good": "a", "bad": "a\na"}}
	h := newHarness(src)
	_ = h.Pull(t.Context())
	src.head = "bad"
	_ = h.Pull(t.Context())
	src.head = "good"
	if err := h.Pull(t.Context()); err != nil || len(h.Status().Problems) != 0 || h.loads != 2 {
		t.Errorf("%v, %+v, %d loads", err, h.Status(), h.loads)
	}
	h.wantResults(t, roster.Applied, roster.Rejected, roster.Unchanged)
}

func TestRemoteAway(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a"}}
	h := newHarness(src)
	_ = h.Pull(t.Context())
	checked := h.Status().CheckedAt
	src.away = errors.New("no route to host")
	for range 3 {
		if err := h.Pull(t.Context()); !errors.Is(err, src.away) {
			t.Errorf("pull: %v", err)
		}
	}
	if s := h.Status(); h.Current() == nil || s.LastError != "no route to host" || s.CheckedAt != checked {
		t.Errorf("status %+v", s)
	}
	if n := strings.Count(h.log.String(), "no route"); n != 1 {
		t.Errorf("the failure was logged %d times", n)
	}
	src.away = nil
	if err := h.Pull(t.Context()); err != nil || h.Status().LastError != "" {
		t.Errorf("%v, %+v", err, h.Status())
	}
	h.wantResults(t, roster.Applied, roster.Failed, roster.Failed, roster.Failed, roster.Unchanged)
	if !strings.Contains(h.log.String(), "followed again") {
		t.Errorf("log:\n%s", h.log)
	}
}

func TestDamagedMirrorIsReadAgain(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a"}}
	first := true
	r := roster.New(roster.Options{Source: src, Load: func(fsys fs.FS, r fleetfile.Request) (fleetfile.Loaded, error) {
		if first { // the read itself finds the damage
			first, src.damaged = false, true
			return fleetfile.Loaded{}, errors.New("zlib: invalid header")
		}
		return load(fsys, r)
	}})
	if err := r.Pull(t.Context()); err != nil || r.Current() == nil || len(src.fetches) != 2 {
		t.Errorf("%v, fleet %v, %d fetches", err, r.Current(), len(src.fetches))
	}
}

func TestMissingFolderIsTriedAgain(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{}}
	h := newHarness(src)
	if err := h.Pull(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pull: %v", err)
	}
	src.files["one"] = "a"
	if err := h.Pull(t.Context()); err != nil {
		t.Errorf("pull: %v", err)
	}
	h.wantResults(t, roster.Failed, roster.Applied)
}

func TestStartBeginsWithTheAppliedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{head: "new", applied: "old", away: errors.New("away"),
			files: map[gitsync.Hash]string{"old": "a", "new": "a\nb"}}
		h := newHarness(src)
		ctx, cancel := context.WithCancel(t.Context())
		go h.Run(ctx)
		synctest.Wait()
		if f := h.Current(); f == nil || f.Revision() != "old" {
			t.Fatalf("fleet %v while the remote is away", f)
		}
		src.set(func() { src.away = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if f := h.Current(); f.Revision() != "new" || src.applied != "new" {
			t.Errorf("fleet %s, applied %s, once it is back", f.Revision(), src.applied)
		}
		cancel()
		synctest.Wait()
		h.wantResults(t, roster.Failed, roster.Applied)
	})
}

func TestAppliedCommitThatCannotBeReadIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{head: "new", applied: "lost", files: map[gitsync.Hash]string{"new": "a"}}
		h := newHarness(src)
		ctx, cancel := context.WithCancel(t.Context())
		go h.Run(ctx)
		synctest.Wait()
		if f := h.Current(); f == nil || f.Revision() != "new" {
			t.Errorf("fleet %v", f)
		}
		cancel()
		synctest.Wait()
	})
}

func TestRunPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{head: "one", away: errors.New("away"), files: map[gitsync.Hash]string{"one": "a", "bad": "b\nb"}}
		h := newHarness(src)
		ctx, cancel := context.WithCancel(t.Context())
		begin := time.Now()
		go h.Run(ctx)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		var at []time.Duration
		for _, f := range src.fetches {
			at = append(at, f.Sub(begin))
		}
		if want := []time.Duration{0, 1e9, 3e9, 7e9, 15e9}; !reflect.DeepEqual(at, want) {
			t.Errorf("without a fleet it fetched after %v, want %v", at, want)
		}
		if !strings.Contains(h.log.String(), "no fleet yet") {
			t.Errorf("log:\n%s", h.log)
		}

		src.set(func() { src.away = nil })
		time.Sleep(20 * time.Second) // 31 s: found
		synctest.Wait()
		src.set(func() { src.fetches = nil })
		time.Sleep(time.Hour)
		synctest.Wait()
		for i := 1; i < len(src.fetches); i++ {
			if gap := src.fetches[i].Sub(src.fetches[i-1]); gap < 48*time.Second || gap > time.Minute {
				t.Errorf("fetched again after %s", gap)
			}
		}
		if n := len(src.fetches); n < 60 || n > 75 || h.loads != 1 {
			t.Errorf("%d fetches and %d loads in an hour", n, h.loads)
		}

		src.set(func() { src.head = "bad" })
		h.Trigger()
		synctest.Wait()
		if h.loads != 2 || h.Status().Head != "bad" {
			t.Errorf("trigger did not pull at once: %d loads", h.loads)
		}
		src.set(func() { src.files["bad"] = "now it loads" }) // as when an identity was added
		h.Trigger()
		synctest.Wait()
		if h.loads != 3 || h.Current().Revision() != "bad" {
			t.Errorf("trigger did not judge the rejected head anew: %d loads", h.loads)
		}
		cancel()
		synctest.Wait()
	})
}

func TestStatusAsJSON(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a"}}
	h := newHarness(src)
	before, err := json.Marshal(h.Status())
	if err != nil || string(before) != `{"revision":"","hosts":0,"host_problems":[],"bad_hosts":0,"head":"","verdict":{},"problems":[]}` {
		t.Errorf("before the first fleet: %s, %v", before, err)
	}
	_ = h.Pull(t.Context())
	after, err := json.Marshal(h.Status())
	if err != nil || !strings.HasPrefix(string(after), `{"revision":"one","applied_at":"`) || !strings.Contains(string(after), `"hosts":1,"host_problems":[],`) || !strings.Contains(string(after), `"verdict":{"verdict":"applied"`) {
		t.Errorf("with a fleet: %s, %v", after, err)
	}
}
