package gitsync_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

var robot = gitsync.Author{Name: "Felhom hub", Email: "hub@example.com"}

// adding builds a commit that adds one file.
func adding(name, content string) func(gitsync.Hash, fs.FS) (gitsync.Change, error) {
	return func(gitsync.Hash, fs.FS) (gitsync.Change, error) {
		return gitsync.Change{Files: map[string][]byte{name: []byte(content)}, Message: "add " + name + "\n", Author: robot}, nil
	}
}

// onBranch makes build's change one for a new branch.
func onBranch(branch string, build func(gitsync.Hash, fs.FS) (gitsync.Change, error)) func(gitsync.Hash, fs.FS) (gitsync.Change, error) {
	return func(head gitsync.Hash, files fs.FS) (gitsync.Change, error) {
		change, err := build(head, files)
		change.Branch = branch
		return change, err
	}
}

func TestPublishToTheBranch(t *testing.T) {
	o := newOrigin(t)
	base := o.commit("one", "fleet/fleet.yaml", "f", "fleet/customers/acme/customer.yaml", "c", "fleet-notes", "n", "fleet.txt", "t")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })

	commit, err := r.Publish(t.Context(), func(head gitsync.Hash, files fs.FS) (gitsync.Change, error) {
		if data, err := fs.ReadFile(files, "fleet/fleet.yaml"); head != base || err != nil || string(data) != "f" {
			t.Errorf("build sees %s, %q, %v", head, data, err)
		}
		return gitsync.Change{Author: robot, Message: "enroll a host\n", Files: map[string][]byte{
			"fleet/customers/acme/hosts/acme-1.yaml": []byte("h"),
			"fleet/customers/beta/customer.yaml":     []byte("b"),
			"fleet/fleet.yaml":                       []byte("f2"),
		}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.head("main") != commit {
		t.Fatalf("the remote is at %s, want %s", o.head("main"), commit)
	}
	git(t, o.bare, "fsck", "--strict")
	want := "A\tfleet/customers/acme/hosts/acme-1.yaml\nA\tfleet/customers/beta/customer.yaml\nM\tfleet/fleet.yaml"
	if got := git(t, o.bare, "diff", "--name-status", string(base), string(commit)); got != want {
		t.Errorf("changed:\n%s\nwant:\n%s", got, want)
	}
	if got := git(t, o.bare, "show", "-s", "--format=%an %ae %cn %s %P", "main"); got != "Felhom hub hub@example.com Felhom hub enroll a host "+string(base) {
		t.Errorf("commit %q", got)
	}
	// The mirror has the commit already; the next change of others fits on it.
	if head := fetch(t, r); head != commit || content(t, r, head, "fleet/fleet.yaml") != "f2" {
		t.Errorf("head %s after the push, want %s", head, commit)
	}
	git(t, o.clone, "pull", "-q", "origin", "main")
	if next := o.commit("next", "fleet-notes", "m"); fetch(t, r) != next {
		t.Error("the mirror does not follow on")
	}
	git(t, dir, "fsck", "--strict")
}

func TestPublishToANewBranch(t *testing.T) {
	o := newOrigin(t)
	base := o.commit("one", "a", "1")
	r := open(t, o.bare)
	commit, err := r.Publish(t.Context(), onBranch("enroll/acme-1", adding("h", "x")))
	if err != nil {
		t.Fatal(err)
	}
	if o.head("enroll/acme-1") != commit || o.head("main") != base {
		t.Errorf("branches at %s and %s", o.head("enroll/acme-1"), o.head("main"))
	}
	_, err = r.Publish(t.Context(), onBranch("enroll/acme-1", adding("h", "y")))
	if hub.ReasonOf(err) != "branch_exists" {
		t.Errorf("second push to the branch: %v", err)
	}
	if o.head("enroll/acme-1") != commit {
		t.Error("the branch was overwritten")
	}
}

func TestPublishersOfOneBranchAllGetThrough(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	var wg sync.WaitGroup
	publish := func(r *gitsync.Repo, name string) {
		wg.Go(func() {
			if _, err := r.Publish(t.Context(), adding(name, "x")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	const hubs, requests = 4, 6
	for i := range hubs { // each loses to the other three at most
		publish(open(t, o.bare), fmt.Sprint("host-a", i))
	}
	wg.Wait()
	r := open(t, o.bare)
	for i := range requests { // these take turns
		publish(r, fmt.Sprint("host-b", i))
	}
	wg.Wait()
	if got := git(t, o.bare, "ls-tree", "--name-only", "main"); strings.Count(got, "host-") != hubs+requests {
		t.Errorf("the branch has\n%s", got)
	}
	if got := git(t, o.bare, "rev-list", "--count", "main"); got != fmt.Sprint(1+hubs+requests) {
		t.Errorf("%s commits", got)
	}
}

func TestPublishBuildsAnewOnTheNewHead(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "counter", "1")
	r := open(t, o.bare)
	var heads []gitsync.Hash
	build := func(limit int) func(gitsync.Hash, fs.FS) (gitsync.Change, error) {
		return func(head gitsync.Hash, files fs.FS) (gitsync.Change, error) {
			heads = append(heads, head)
			if len(heads) <= limit { // somebody is faster
				o.commit("faster", "counter", fmt.Sprint("other ", len(heads)))
			}
			data, err := fs.ReadFile(files, "counter")
			if err != nil {
				return gitsync.Change{}, err
			}
			return gitsync.Change{Files: map[string][]byte{"counter": []byte(string(data) + "+1")}, Message: "count", Author: robot}, nil
		}
	}
	commit, err := r.Publish(t.Context(), build(2))
	if err != nil || len(heads) != 3 || o.head("main") != commit {
		t.Fatalf("%d tries, %v", len(heads), err)
	}
	if got := content(t, r, commit, "counter"); got != "other 2+1" {
		t.Errorf("built on %q", got)
	}
	git(t, o.clone, "pull", "-q", "--rebase", "origin", "main")
	heads = nil
	if _, err := r.Publish(t.Context(), build(100)); hub.ReasonOf(err) != "push_conflict" || len(heads) != 5 {
		t.Errorf("%d tries, %v; want push_conflict after 5", len(heads), err)
	}
}

func TestRefusedPush(t *testing.T) {
	o := newOrigin(t)
	base := o.commit("one", "a", "1")
	o.hook("pre-receive", "echo 'only by pull request, please' >&2\nexit 1\n")
	r := open(t, o.bare)
	builds := 0
	_, err := r.Publish(t.Context(), func(h gitsync.Hash, files fs.FS) (gitsync.Change, error) {
		builds++
		return adding("b", "2")(h, files)
	})
	var he *hub.Error
	if !errors.As(err, &he) || he.Code != hub.Unavailable || he.Reason != "push_refused" {
		t.Fatalf("error %v", err)
	}
	if !strings.Contains(he.Cause.Error(), "only by pull request, please") || strings.Contains(he.Message, "please") {
		t.Errorf("the server's words belong into the cause: %q", he)
	}
	if builds != 1 || o.head("main") != base {
		t.Errorf("%d builds, head %s", builds, o.head("main"))
	}
}

func TestPublishReturnsTheBuildersError(t *testing.T) {
	o := newOrigin(t)
	base := o.commit("one", "a", "1", "d/x", "2")
	r := open(t, o.bare)
	no := errors.New("no such customer")
	_, err := r.Publish(t.Context(), func(gitsync.Hash, fs.FS) (gitsync.Change, error) { return gitsync.Change{}, no })
	if !errors.Is(err, no) {
		t.Errorf("error %v", err)
	}
	for _, path := range []string{"/abs", "../up", ".", "", ".git/config", "a/below-a-file", "d"} {
		if _, err := r.Publish(t.Context(), adding(path, "x")); err == nil {
			t.Errorf("%q was committed", path)
		}
	}
	if _, err := r.Publish(t.Context(), onBranch("a..b", adding("x", "x"))); err == nil {
		t.Error("a..b was taken for a branch")
	}
	if o.head("main") != base {
		t.Error("something was pushed")
	}
}

func TestPublishWithoutRemote(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "none.git"))
	_, err := r.Publish(t.Context(), adding("a", "1"))
	if hub.ReasonOf(err) != "remote_unavailable" || hub.CodeOf(err) != hub.Unavailable {
		t.Errorf("error %v", err)
	}
}
