package gitsync_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
)

func openLocal(t testing.TB, dir string) *gitsync.Local {
	t.Helper()
	l, err := gitsync.OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func hintOf(err error) string {
	var e *hub.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

func TestLocalResolvesRevisionsAsGitDoes(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "fleet/a", "1")
	git(t, o.clone, "tag", "light")
	git(t, o.clone, "tag", "-a", "-m", "noted", "heavy")
	git(t, o.clone, "checkout", "-q", "-b", "side")
	write(t, filepath.Join(o.clone, "fleet/side"), "s")
	git(t, o.clone, "add", "-A")
	git(t, o.clone, "commit", "-q", "-m", "side")
	git(t, o.clone, "checkout", "-q", "main")
	o.commit("two", "fleet/a", "2")
	git(t, o.clone, "merge", "-q", "--no-ff", "-m", "merge", "side")
	short := git(t, o.clone, "rev-parse", "--short=9", "HEAD")
	git(t, o.clone, "branch", git(t, o.clone, "rev-parse", "--short=8", "HEAD~1"), "side") // a branch named as an id
	for range 2 {
		l := openLocal(t, o.clone)
		for _, rev := range []string{"HEAD", "@", "main", "side", "origin/main", "refs/heads/side", "heads/main", "light", "heavy", "HEAD~1",
			"HEAD~2", "HEAD^", "HEAD^2", "HEAD^2~1", "heavy~0", "HEAD^0", short, short[:7], git(t, o.clone, "rev-parse", "side"),
			git(t, o.clone, "rev-parse", "--short=8", "HEAD~1")} {
			want := git(t, o.clone, "rev-parse", "-q", rev+"^{commit}")
			if i := strings.LastIndex(want, "\n"); i >= 0 {
				want = want[i+1:] // after git's warning of a name with two meanings
			}
			if got, err := l.Resolve(rev); err != nil || string(got) != want {
				t.Errorf("%s: got %s, %v; want %s", rev, got, err, want)
			}
		}
		git(t, o.clone, "gc", "-q") // packed references, one pack
	}
}

func TestLocalSaysWhatToDoAboutRevisions(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	o.commit("two", "a", "2")
	git(t, o.clone, "push", "-q", "origin", "HEAD:release")
	git(t, o.clone, "fetch", "-q")
	l := openLocal(t, o.clone)
	for rev, want := range map[string]string{
		"release": "did you mean origin/release?", "nowhere": "git fetch origin nowhere",
		"main@{1}": "write a branch", "a..b": "write a branch", "-x": "write a branch", "": "write a branch", "HEAD:a": "write a branch", ":/two": "write a branch",
	} {
		if got, err := l.Resolve(rev); err == nil || !strings.Contains(hintOf(err), want) {
			t.Errorf("%q: %s, %v, hint %q", rev, got, err, hintOf(err))
		}
	}
	if got, err := l.Resolve("HEAD~2"); err == nil || !strings.Contains(err.Error(), "0 parent") {
		t.Errorf("before the beginning: %s, %v", got, err)
	}
}

func TestLocalReadsEveryKindOfRepository(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "fleet/hosts/a.yaml", "1", "fleet/deep/b", "2")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	git(t, o.clone, "worktree", "add", "-q", "-b", "linked", at("linked"))
	git(t, dir, "clone", "-q", "--shared", o.clone, at("shared"))
	git(t, dir, "clone", "-q", "--shared", at("shared"), at("twice"))
	git(t, dir, "init", "-q", at("super"))
	git(t, at("super"), "-c", "protocol.file.allow=always", "submodule", "add", "-q", o.bare, "sub")
	git(t, dir, "clone", "-q", o.bare, at("sparse"))
	git(t, at("sparse"), "sparse-checkout", "set", "fleet")
	git(t, dir, "clone", "-q", o.bare, at("packed"))
	git(t, at("packed"), "gc", "-q", "--aggressive")
	git(t, at("packed"), "multi-pack-index", "write")
	for _, test := range []struct{ name, dir, prefix string }{
		{"clone", o.clone, ""}, {"a folder in it", filepath.Join(o.clone, "fleet", "deep"), "fleet/deep"}, {"bare", o.bare, ""},
		{"linked work tree", at("linked"), ""}, {"borrowed objects", at("shared"), ""}, {"borrowed twice", at("twice"), ""},
		{"submodule", at("super/sub"), ""}, {"sparse checkout", at("sparse/fleet"), "fleet"}, {"packed", at("packed"), ""},
	} {
		l := openLocal(t, test.dir)
		if l.Prefix() != test.prefix {
			t.Errorf("%s: prefix %q", test.name, l.Prefix())
		}
		head, err := l.Resolve("HEAD")
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		err = l.View(head, "fleet", func(files fs.FS) error {
			text, err := fs.ReadFile(files, "hosts/a.yaml")
			if string(text) != "1" {
				t.Errorf("%s: read %q", test.name, text)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestLocalRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := gitsync.OpenLocal(dir); err == nil || !strings.Contains(err.Error(), "no git repository") {
		t.Errorf("no repository: %v", err)
	}
	if _, err := gitsync.OpenLocal(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	git(t, dir, "init", "-q", "--object-format=sha256", "sha256")
	if _, err := gitsync.OpenLocal(filepath.Join(dir, "sha256")); err == nil || !strings.Contains(err.Error(), "names objects by sha256") {
		t.Errorf("sha256: %v", err)
	}
	git(t, dir, "init", "-q", "reftable")
	git(t, filepath.Join(dir, "reftable"), "config", "extensions.refStorage", "reftable")
	if _, err := gitsync.OpenLocal(filepath.Join(dir, "reftable")); err == nil || !strings.Contains(err.Error(), "references as reftable") {
		t.Errorf("reftable: %v", err)
	}
	write(t, filepath.Join(dir, "odd", ".git"), "nonsense")
	if _, err := gitsync.OpenLocal(filepath.Join(dir, "odd")); err == nil || !strings.Contains(err.Error(), "gitdir:") {
		t.Errorf("odd .git: %v", err)
	}
}

// history makes main: a-b-c(merge of x)-d, side from b: x-y, and an unrelated branch.
func history(t testing.TB) string {
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	commit := func(name string) {
		git(t, dir, "commit", "-q", "--allow-empty", "-m", name)
		git(t, dir, "tag", name)
	}
	commit("a")
	commit("b")
	git(t, dir, "checkout", "-q", "-b", "side")
	commit("x")
	commit("y")
	git(t, dir, "checkout", "-q", "main")
	git(t, dir, "merge", "-q", "--no-ff", "-m", "c", "x")
	git(t, dir, "tag", "c")
	commit("d")
	git(t, dir, "checkout", "-q", "--orphan", "other")
	commit("lone")
	git(t, dir, "checkout", "-q", "main")
	return dir
}

func TestMergeBaseIsGits(t *testing.T) {
	dir := history(t)
	l := openLocal(t, dir)
	names := []string{"a", "b", "c", "d", "x", "y"}
	for _, a := range names {
		for _, b := range names {
			got, err := l.MergeBase(resolve(t, l, a), resolve(t, l, b))
			if want := git(t, dir, "merge-base", a, b); err != nil || string(got) != want {
				t.Errorf("%s and %s: %s, %v; want %s", a, b, got, err, want)
			}
		}
	}
	if got, err := l.MergeBase(resolve(t, l, "d"), resolve(t, l, "lone")); err != nil || got != "" {
		t.Errorf("unrelated: %q, %v", got, err)
	}
}

func resolve(t testing.TB, l *gitsync.Local, rev string) gitsync.Hash {
	t.Helper()
	h, err := l.Resolve(rev)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLocalInAShallowClone(t *testing.T) {
	dir := history(t)
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, dir, "clone", "-q", "--depth=2", "--no-tags", "--no-single-branch", "file://"+dir, clone)
	l := openLocal(t, clone)
	// d, c and x, y are there; b is beyond the edge.
	if got, err := l.MergeBase(resolve(t, l, "origin/main"), resolve(t, l, "origin/main~1")); err != nil || string(got) != git(t, dir, "rev-parse", "c") {
		t.Errorf("within the clone: %s, %v", got, err)
	}
	if got, err := l.MergeBase(resolve(t, l, "origin/main"), resolve(t, l, "origin/other")); err == nil || !strings.Contains(hintOf(err), "fetch-depth: 0") {
		t.Errorf("beyond the edge: %s, %v", got, err)
	}
	if _, err := l.Resolve("nowhere"); err == nil || !strings.Contains(hintOf(err), "fetch-depth: 0") {
		t.Errorf("unknown revision: %v, hint %q", err, hintOf(err))
	}
	if _, err := l.Resolve("origin/main~3"); err == nil || !strings.Contains(hintOf(err), "fetch-depth: 0") {
		t.Errorf("before the edge: %v, hint %q", err, hintOf(err))
	}
}

func TestLocalNeverWrites(t *testing.T) {
	dir := history(t)
	l := openLocal(t, dir)
	git(t, dir, "gc", "-q")
	before := listing(t, dir)
	head := resolve(t, l, "main")
	if _, err := l.MergeBase(head, resolve(t, l, "side")); err != nil {
		t.Fatal(err)
	}
	if err := l.View(head, "", func(files fs.FS) error { _, err := fs.ReadDir(files, "."); return err }); err != nil {
		t.Fatal(err)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func listing(t testing.TB, dir string) string {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		_, err = b.WriteString(path + " " + info.ModTime().String() + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
