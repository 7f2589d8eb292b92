package gitsync_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
)

func (o *origin) blob(rev string) gitsync.Hash {
	o.t.Helper()
	return gitsync.Hash(git(o.t, o.bare, "rev-parse", rev))
}

// rewrite makes the branch a single commit of other files, whose past the remote
// forgets.
func (o *origin) rewrite(files ...string) gitsync.Hash {
	o.t.Helper()
	git(o.t, o.clone, "checkout", "-q", "--orphan", "new")
	git(o.t, o.clone, "rm", "-rqf", ".")
	for i := 0; i < len(files); i += 2 {
		write(o.t, filepath.Join(o.clone, files[i]), files[i+1])
	}
	git(o.t, o.clone, "add", "-A")
	git(o.t, o.clone, "commit", "-q", "-m", "rewritten")
	git(o.t, o.clone, "branch", "-M", "main")
	git(o.t, o.clone, "push", "-q", "--force", "origin", "main")
	git(o.t, o.bare, "reflog", "expire", "--expire=now", "--all")
	git(o.t, o.bare, "gc", "-q", "--prune=now")
	return o.head("main")
}

func wantApplied(t *testing.T, r *gitsync.Repo, want gitsync.Applied) {
	t.Helper()
	got, ok := r.Applied()
	if !ok || got.Commit != want.Commit || !maps.Equal(got.Kept, want.Kept) {
		t.Errorf("applied %v, %v; want %v", got, ok, want)
	}
}

func TestAppliedIsKeptWhole(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("one", "fleet/a", "1", "fleet/b", "1")
	second := o.commit("two", "fleet/a", "2")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	in := func(opts *gitsync.Options) { opts.Dir = dir }
	r := open(t, o.bare, in)
	fetch(t, r)
	old := o.blob(string(first) + ":fleet/a")
	for _, a := range []gitsync.Applied{
		{Commit: first},
		{Commit: second, Kept: map[string]gitsync.Hash{"a": old, "odd \"name\"\nwith a line": old}},
		{Commit: second, Kept: map[string]gitsync.Hash{"b": old}},
		{Commit: second},
		{Commit: first, Kept: map[string]gitsync.Hash{"a": old}},
	} {
		if err := r.SetApplied(a); err != nil {
			t.Fatal(err)
		}
		wantApplied(t, r, a)
		wantApplied(t, open(t, o.bare, in), a)
		if got := git(t, dir, "rev-parse", "refs/hub/applied"); got != string(a.Commit) {
			t.Errorf("git reads refs/hub/applied as %s", got)
		}
		if list, err := os.ReadDir(filepath.Join(dir, "hub-kept")); err != nil || len(list) != 1 {
			t.Errorf("lists of kept blobs %v, %v", list, err)
		}
	}
	missing := gitsync.Hash(strings.Repeat("1", 40))
	if err := r.View(second, "fleet", func(files fs.FS) error {
		blobs := files.(interface{ Blob(string) ([]byte, error) })
		if _, err := blobs.Blob(string(missing)); err == nil {
			t.Error("no error for a blob that is not there")
		}
		data, err := blobs.Blob(string(old))
		if string(data) != "1" {
			t.Errorf("kept blob %q", data)
		}
		return err
	}); err != nil || !r.Damaged() { // the mirror keeps what it was told to
		t.Errorf("%v, damaged %v", err, r.Damaged())
	}
}

// A crash between the steps of SetApplied leaves what was before, whole.
func TestAppliedSurvivesACrash(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("one", "a", "1")
	second := o.commit("two", "a", "2")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	fetch(t, r)
	before := gitsync.Applied{Commit: first, Kept: map[string]gitsync.Hash{"a": o.blob("main~1:a")}}
	after := gitsync.Applied{Commit: second, Kept: map[string]gitsync.Hash{"b": o.blob("main:a")}}
	if err := r.SetApplied(before); err != nil {
		t.Fatal(err)
	}
	// The second step, moving the reference, fails: something lies in its way.
	lock := filepath.Join(dir, "refs", "hub", "applied.lock")
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.SetApplied(after); err == nil {
		t.Fatal("no error")
	}
	wantApplied(t, r, before)
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := r.SetApplied(after); err != nil {
		t.Fatal(err)
	}
	wantApplied(t, r, after)
}

// What is in force comes along when the mirror is replaced, also when the
// remote's history has it no more.
func TestAppliedComesAlong(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "fleet/a", "good", "fleet/sub/b", "1")
	good := o.blob("main:fleet/a")
	second := o.commit("two", "fleet/a", "bad", "other", "x")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	fetch(t, r)
	applied := gitsync.Applied{Commit: second, Kept: map[string]gitsync.Hash{"a": good}}
	if err := r.SetApplied(applied); err != nil {
		t.Fatal(err)
	}
	head := o.rewrite("fleet/c", "new")
	if fetch(t, r) != head {
		t.Fatal("the rewrite is not followed")
	}
	for range 2 { // the second time the old mirror has no history of the commit either
		crowd(t, dir)
		if err := r.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := packs(t, dir); n > 2 {
			t.Fatalf("%d packs", n)
		}
		wantApplied(t, r, applied)
		for name, want := range map[string]string{"fleet/a": "bad", "fleet/sub/b": "1", "other": "x"} {
			if got := content(t, r, second, name); got != want {
				t.Errorf("%s holds %q", name, got)
			}
		}
		if err := r.View(second, "fleet", func(files fs.FS) error {
			data, err := files.(interface{ Blob(string) ([]byte, error) }).Blob(string(good))
			if string(data) != "good" {
				t.Errorf("kept blob %q", data)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if got := content(t, r, head, "fleet/c"); got != "new" {
			t.Errorf("the head holds %q", got)
		}
		if yes, err := r.Descends(head, second); yes || err != nil {
			t.Errorf("descends: %v, %v", yes, err)
		}
		git(t, dir, "fsck", "--strict")
	}
	// The rewrite is taken back.
	git(t, o.clone, "push", "-q", "--force", "origin", string(second)+":main")
	next := o.head("main")
	if fetch(t, r) != next || r.Damaged() {
		t.Errorf("head %s, damaged %v", next, r.Damaged())
	}
	if yes, err := r.Descends(next, o.blob(string(second)+"~1")); !yes || err != nil {
		t.Errorf("the history is not whole again: %v, %v", yes, err)
	}
}

// A mirror that is broken, and whose applied commit the remote lost, heals
// without it.
func TestLostAppliedDoesNotStopTheHealing(t *testing.T) {
	o := newOrigin(t)
	second := o.commit("one", "fleet/a", "1")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	fetch(t, r)
	if err := r.SetApplied(gitsync.Applied{Commit: second}); err != nil {
		t.Fatal(err)
	}
	head := o.rewrite("fleet/c", "new")
	if err := os.RemoveAll(filepath.Join(dir, "objects", "pack")); err != nil {
		t.Fatal(err)
	}
	if err := r.View(second, "", func(fs.FS) error { return nil }); err == nil || !r.Damaged() {
		t.Fatal("the damage is not seen")
	}
	if fetch(t, r) != head || content(t, r, head, "fleet/c") != "new" {
		t.Error("not healed")
	}
	if a, ok := r.Applied(); ok {
		t.Errorf("applied %v", a)
	}
}
