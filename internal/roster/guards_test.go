package roster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
)

// memory is what the spool keeps for the roster.
type memory map[string][]byte

func (m memory) ReadState(name string) ([]byte, error) {
	data, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m memory) WriteState(name string, data []byte) error { m[name] = data; return nil }

func hosts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "h%d\n", i)
	}
	return b.String()
}

func TestRewoundHeadWaitsForAWord(t *testing.T) {
	src := &fakeSource{head: "1111111aa", files: map[gitsync.Hash]string{"1111111aa": "a\nb", "2222222bb": "a\nc"}, astray: map[gitsync.Hash]bool{"2222222bb": true}}
	h := newHarness(src)
	_ = h.Pull(t.Context())
	src.head = "2222222bb"
	for range 2 {
		if err := h.Pull(t.Context()); err == nil || !strings.Contains(err.Error(), "commit 2222222bb is held: it does not descend from 1111111aa") {
			t.Errorf("a rewound head: %v", err)
		}
	}
	s := h.Status()
	if s.Revision != "1111111aa" || !s.Waiting() || s.Verdict.Reason != hub.FleetRewound || !strings.Contains(s.Verdict.Release, "hub fleet accept 2222222bb") {
		t.Errorf("%+v", s)
	}
	for revision, want := range map[string]string{"2222": "is not the head", "1111111aa": "is not the head", "": "is not the head"} {
		if err := h.Accept(t.Context(), revision); hub.ReasonOf(err) != "other_head" || !strings.Contains(err.Error(), want) {
			t.Errorf("accept %q: %v", revision, err)
		}
	}
	if err := h.Accept(t.Context(), "2222222"); err != nil || h.Status().Revision != "2222222bb" || src.applied != "2222222bb" {
		t.Errorf("accept: %v, %+v", err, h.Status())
	}
	if err := h.Accept(t.Context(), "2222222"); hub.ReasonOf(err) != "in_force" {
		t.Errorf("accept again: %v", err)
	}
	h.wantResults(t, roster.Applied, roster.Held, roster.Unchanged, roster.Applied)
	if want := "applied 1111111aa, held 2222222bb, fleet_rewound, applied 2222222bb"; h.told() != want {
		t.Errorf("told %s, want %s", h.told(), want)
	}
}

// A word is for one rewind: back to the same commit again, it is asked anew, also
// after a restart.
func TestAcceptIsForOneRewind(t *testing.T) {
	src := &fakeSource{head: "1111111aa", files: map[gitsync.Hash]string{"1111111aa": "a", "2222222bb": "b", "3333333cc": "c"}, astray: map[gitsync.Hash]bool{"2222222bb": true}}
	kept := memory{}
	remembering := func(o *roster.Options) { o.Memory = kept }
	h := newHarness(src, remembering)
	_ = h.Pull(t.Context())
	src.head = "2222222bb"
	if err := h.Accept(t.Context(), "2222222bb"); err != nil {
		t.Fatal(err)
	}
	src.head = "3333333cc"
	if err := h.Pull(t.Context()); err != nil {
		t.Fatal(err)
	}
	src.head = "2222222bb"
	for name, r := range map[string]*harness{"running": h, "restarted": newHarness(src, remembering)} {
		if err := r.Pull(t.Context()); err == nil || r.Status().Verdict.Reason != hub.FleetRewound || src.applied != "3333333cc" {
			t.Errorf("%s: %v, %+v", name, err, r.Status().Verdict)
		}
	}
}

// An operator's word about the rewind is none about the removal in it.
func TestAcceptKeepsTheOtherGuards(t *testing.T) {
	src := &fakeSource{head: "1111111aa", files: map[gitsync.Hash]string{"1111111aa": hosts(10), "2222222bb": hosts(5)}, astray: map[gitsync.Hash]bool{"2222222bb": true}}
	h := newHarness(src)
	_ = h.Pull(t.Context())
	src.head = "2222222bb"
	_ = h.Pull(t.Context())
	err := h.Accept(t.Context(), "2222222bb")
	if hub.ReasonOf(err) != "not_applied" || !strings.Contains(err.Error(), "removes or retires 5 of 10 hosts") || h.Status().Revision != "1111111aa" {
		t.Errorf("%v", err)
	}
}

func TestMassRemovalIsHeld(t *testing.T) {
	src := &fakeSource{head: "all", files: map[gitsync.Hash]string{
		"all": hosts(20), "two": hosts(18), "three": hosts(17), "allowed": hosts(17) + "allow=3", "too few": hosts(17) + "allow=2",
		"retired": hosts(17) + "h17 retired\nh18 retired\nh19 retired",
	}}
	h := newHarness(src)
	_ = h.Pull(t.Context())
	for _, head := range []gitsync.Hash{"three", "too few", "retired"} {
		src.head = head
		err := h.Pull(t.Context())
		s := h.Status()
		if err == nil || s.Revision != "all" || s.Verdict.Reason != hub.FleetHeld || !strings.Contains(s.Verdict.Release, "set guards.allowRemoval to 3") || !strings.Contains(s.Verdict.Why, "3 of 20 hosts") {
			t.Errorf("%s: %v, %+v", head, err, s.Verdict)
		}
	}
	src.head = "allowed"
	if err := h.Pull(t.Context()); err != nil || h.Current().Len() != 17 {
		t.Errorf("allowed: %v", err)
	}
	src.head = "all"
	_ = h.Pull(t.Context())
	src.head = "two"
	if err := h.Pull(t.Context()); err != nil || h.Current().Len() != 18 {
		t.Errorf("two of twenty: %v", err)
	}
	if want := "applied all, held three, fleet_held, held too few, fleet_held, held retired, fleet_held, applied allowed, applied two"; h.told() != want {
		t.Errorf("told %s, want %s", h.told(), want)
	}
}

func TestUntrustedHeadIsJudgedAnewWithEachPull(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a", "two": "a\nb"}}
	var trusted error
	var since gitsync.Hash
	h := newHarness(src, func(o *roster.Options) {
		o.Trust = func(head, from gitsync.Hash) (string, error) { since = from; return "olga@example.com", trusted }
	})
	if err := h.Pull(t.Context()); err != nil || h.Status().Signer != "olga@example.com" || since != "" {
		t.Fatalf("%v, %+v", err, h.Status())
	}
	src.head, trusted = "two", &gitsync.UntrustedError{Commit: "two", What: "it is not signed", Hint: "sign it"}
	for range 3 {
		if err := h.Pull(t.Context()); err == nil || since != "one" {
			t.Errorf("%v, since %q", err, since)
		}
	}
	if s := h.Status(); s.Verdict.Reason != hub.FleetRejected || s.Verdict.Release != "sign it" || s.Revision != "one" || h.loads != 1 {
		t.Errorf("%+v, %d loads", s.Verdict, h.loads)
	}
	trusted = nil // its signer was added to the file
	if err := h.Pull(t.Context()); err != nil || h.Status().Revision != "two" {
		t.Errorf("%v", err)
	}
	trusted = errors.New("fleet.allowed_signers_file: no such file")
	src.head, src.files["three"] = "three", "a"
	if err := h.Pull(t.Context()); !errors.Is(err, trusted) || h.Status().Revision != "two" {
		t.Errorf("signers that cannot be read: %v", err)
	}
	h.wantResults(t, roster.Applied, roster.Rejected, roster.Unchanged, roster.Unchanged, roster.Applied, roster.Failed)
	if want := "applied one, rejected two, fleet_rejected, applied two"; h.told() != want {
		t.Errorf("told %s, want %s", h.told(), want)
	}
}

func TestBadHostFileIsToldOnce(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a\nb", "two": "a bad\nb\nc bad", "three": "a bad\nb x\nc bad", "four": "a\nb"}}
	kept := memory{}
	remembering := func(o *roster.Options) { o.Memory = kept }
	h := newHarness(src, remembering)
	for _, head := range []gitsync.Hash{"one", "two", "three"} {
		src.head = head
		if err := h.Pull(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := h.Status()
	if s.BadHosts != 2 || len(s.HostProblems) != 2 || s.Hosts != 2 || src.kept["a"] != "blob of a" {
		t.Errorf("%+v, kept %v", s, src.kept)
	}
	if want := "applied one, applied two, host_file_rejected a, host_file_rejected c, applied three"; h.told() != want {
		t.Errorf("told %s, want %s", h.told(), want)
	}
	e := h.notices[1].Events[0]
	if e.CustomerID != "" || e.Source != "fleet" || !strings.Contains(e.Reason, "keeps its last good record: a: is bad") || e.ID != hub.FleetEventID(hub.HostFileRejected, "a\nblob of a bad") {
		t.Errorf("%+v", e)
	}
	// A restart tells nothing again.
	again := newHarness(src, remembering)
	if err := again.Pull(t.Context()); err != nil || again.told() != "" {
		t.Errorf("%v, told %s", err, again.told())
	}
	src.head = "four"
	if err := again.Pull(t.Context()); err != nil || again.Status().BadHosts != 0 || len(again.Status().HostProblems) != 0 || len(src.kept) != 0 {
		t.Errorf("%v, %+v", err, again.Status())
	}
}

// A verdict is on the head that the status names: one that cannot be read has
// none, and going back to the head before brings its verdict back.
func TestVerdictIsOnTheHead(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a", "bad": "a\na"}}
	h := newHarness(src)
	for _, c := range []struct {
		head     gitsync.Hash
		verdict  hub.Verdict
		problems int
	}{{"one", hub.CommitApplied, 0}, {"lost", "", 0}, {"one", hub.CommitApplied, 0}, {"bad", hub.CommitRejected, 1}, {"lost", "", 0}, {"bad", hub.CommitRejected, 1}, {"one", hub.CommitApplied, 0}} {
		src.head = c.head
		_ = h.Pull(t.Context())
		if s := h.Status(); s.Head != string(c.head) || s.Verdict.Verdict != c.verdict || len(s.Problems) != c.problems || s.Verdict.Verdict != "" && s.Verdict.Since.IsZero() {
			t.Errorf("head %s: %+v", c.head, s)
		}
	}
	if want := "applied one, rejected bad, fleet_rejected"; h.told() != want {
		t.Errorf("told %s, want %s", h.told(), want)
	}
}

// What could not be made durable is announced with a later pull, and only then
// remembered.
func TestNoticesWaitForTheSpool(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a"}}
	full := errors.New("the spool is full")
	kept := memory{}
	var h *harness
	h = newHarness(src, func(o *roster.Options) {
		o.Memory = kept
		o.Announce = func(n hub.Notice) error {
			if full == nil {
				h.notices = append(h.notices, n)
			}
			return full
		}
	})
	if err := h.Pull(t.Context()); err != nil || h.told() != "" {
		t.Fatalf("%v, told %s", err, h.told())
	}
	var state struct{ Told map[string]time.Time }
	if _ = json.Unmarshal(kept["fleet"], &state); len(state.Told) != 0 {
		t.Errorf("remembered as told: %v", state.Told)
	}
	full = nil
	if err := h.Pull(t.Context()); err != nil || h.told() != "applied one" {
		t.Errorf("%v, told %s", err, h.told())
	}
	if _ = json.Unmarshal(kept["fleet"], &state); len(state.Told) != 1 {
		t.Errorf("remembered as told: %v", state.Told)
	}
}

func TestFrozen(t *testing.T) {
	src := &fakeSource{head: "one", files: map[gitsync.Hash]string{"one": "a", "two": "a"}}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	kept := memory{}
	clock := func(o *roster.Options) {
		o.Now, o.Memory, o.MaxAge = func() time.Time { return now }, kept, 2*time.Hour
	}
	h := newHarness(src, clock)
	step := func(d time.Duration, away error, frozen string) {
		t.Helper()
		now = now.Add(d)
		src.away = away
		_ = h.Pull(t.Context())
		if got := h.Status().Frozen; frozen == "" && got != "" || !strings.Contains(got, frozen) {
			t.Errorf("at %s frozen: %q, want %q", now.Format(time.TimeOnly), got, frozen)
		}
	}
	gone := errors.New("no route")
	step(0, nil, "")
	step(time.Minute, gone, "")
	step(14*time.Minute, gone, "")
	h = newHarness(src, clock) // a restart does not begin the count anew
	step(time.Minute, gone, "no pull has worked since 2026-11-25T12:01:00Z")
	first := h.told()
	step(time.Minute, gone, "no pull has worked")
	step(time.Minute, nil, "")
	step(time.Minute, gone, "")
	step(16*time.Minute, gone, "no pull has worked since")
	step(2*time.Hour, nil, "commit one has been the head since")
	src.head = "two"
	step(time.Minute, nil, "")
	if first != "fleet_frozen" || h.told() != "fleet_frozen, fleet_frozen, fleet_frozen, applied two" {
		t.Errorf("told %q, then %q", first, h.told())
	}
}
