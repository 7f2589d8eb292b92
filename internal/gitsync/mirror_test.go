package gitsync_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"felhom.eu/hub/internal/gitsync"
)

// content reads one file of a commit.
func content(t testing.TB, r *gitsync.Repo, commit gitsync.Hash, name string) string {
	t.Helper()
	var data []byte
	if err := r.View(commit, "", func(files fs.FS) (err error) {
		data, err = fs.ReadFile(files, name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFetchFollowsTheBranch(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("one", "fleet/fleet.yaml", "one")
	git(t, o.clone, "tag", "v1")
	git(t, o.clone, "push", "-q", "origin", "v1", "HEAD:other")
	dir := filepath.Join(t.TempDir(), "deep", "fleet.git")
	r := open(t, "file://"+o.bare, func(opts *gitsync.Options) { opts.Dir = dir })

	if got := fetch(t, r); got != first {
		t.Fatalf("first fetch: %s, want %s", got, first)
	}
	second := o.commit("two\n\nand why", "fleet/fleet.yaml", "two")
	if head, err := r.RemoteHead(t.Context()); err != nil || head != second {
		t.Errorf("remote head: %s, %v; want %s", head, err, second)
	}
	if got := fetch(t, r); got != second {
		t.Fatalf("second fetch: %s, want %s", got, second)
	}
	for commit, want := range map[gitsync.Hash]string{first: "one", second: "two"} {
		if got := content(t, r, commit, "fleet/fleet.yaml"); got != want {
			t.Errorf("%s holds %q, want %q", commit, got, want)
		}
	}
	c, err := r.Commit(second)
	if err != nil || c.Subject != "two" || c.Author.Name != "Olga Operator" || time.Since(c.When) > time.Hour {
		t.Errorf("commit %+v, %v", c, err)
	}
	if refs := git(t, dir, "for-each-ref", "--format=%(refname)"); refs != "refs/heads/main" {
		t.Errorf("the mirror has %q, want the one branch", refs)
	}
	git(t, dir, "fsck", "--strict")
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the mirror: %v, %v", info.Mode(), err)
	}
}

// Bare, one branch with its full history, without tags, submodules and a work tree.
func TestMirrorHoldsTheBranchAndNoMore(t *testing.T) {
	sub := newOrigin(t)
	inside := sub.commit("inside", "secret", "x")
	o := newOrigin(t)
	first := o.commit("one", "a", "1")
	git(t, o.clone, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", sub.bare, "sub")
	o.commit("two", "a", "2")
	git(t, o.clone, "checkout", "-q", "-b", "other")
	write(t, filepath.Join(o.clone, "b"), "not ours")
	git(t, o.clone, "add", "-A")
	git(t, o.clone, "commit", "-q", "-m", "other")
	git(t, o.clone, "tag", "-a", "-m", "a tag", "v1")
	git(t, o.clone, "tag", "light", string(first))
	git(t, o.clone, "push", "-q", "origin", "other", "v1", "light")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	fetch(t, r)
	o.commit("three", "a", "3") // on top of other, which is merged so
	fetch(t, r)
	if refs := git(t, dir, "for-each-ref", "--format=%(refname)"); refs != "refs/heads/main" {
		t.Errorf("references %q", refs)
	}
	for _, absent := range []string{string(inside), git(t, o.bare, "rev-parse", "v1")} {
		if has := exec.Command("git", "-C", dir, "cat-file", "-e", absent).Run(); has == nil {
			t.Errorf("the mirror has %s", absent)
		}
	}
	if got, want := git(t, dir, "rev-list", "--count", "main"), git(t, o.bare, "rev-list", "--count", "main"); got != want {
		t.Errorf("%s commits of %s", got, want)
	}
	if git(t, dir, "rev-parse", "--is-bare-repository", "--is-shallow-repository") != "true\nfalse" {
		t.Error("not bare, or not whole")
	}
	for _, name := range []string{".git", "a", "index", "modules", "shallow"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("the mirror has %s", name)
		}
	}
}

func TestRewrittenHistoryIsFollowedAndLogged(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	o.commit("two", "a", "2")
	var log bytes.Buffer
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	fetch(t, r)
	o.commit("three", "a", "3")
	fetch(t, r)
	if strings.Contains(log.String(), "rewritten") {
		t.Fatalf("a fast-forward was logged as rewritten:\n%s", log.String())
	}
	git(t, o.clone, "reset", "-q", "--hard", "HEAD~2")
	write(t, filepath.Join(o.clone, "a"), "other")
	git(t, o.clone, "commit", "-q", "-am", "other")
	git(t, o.clone, "push", "-q", "--force", "origin", "HEAD:main")
	head := fetch(t, r)
	if got := content(t, r, head, "a"); got != "other" {
		t.Errorf("content %q after the rewrite", got)
	}
	if !strings.Contains(log.String(), "rewritten") {
		t.Errorf("the rewrite is not in the log:\n%s", log.String())
	}
}

func TestMirrorServesWhileTheRemoteIsAway(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("one", "a", "1")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	in := func(opts *gitsync.Options) { opts.Dir = dir }
	r := open(t, o.bare, in)
	if _, ok := r.Applied(); ok {
		t.Error("a new mirror has an applied commit")
	}
	fetch(t, r)
	if err := r.SetApplied(gitsync.Applied{Commit: head}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(o.bare, o.bare+".away"); err != nil {
		t.Fatal(err)
	}

	again := open(t, o.bare, in)
	if applied, ok := again.Applied(); !ok || applied.Commit != head {
		t.Fatalf("applied %v, %v; want %s", applied, ok, head)
	}
	if got := content(t, again, head, "a"); got != "1" {
		t.Errorf("content %q", got)
	}
	if _, err := again.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), o.bare) {
		t.Errorf("fetch without a remote: %v", err)
	}
	if again.Damaged() {
		t.Error("a remote that is away damages nothing")
	}
	if got := git(t, dir, "rev-parse", "refs/hub/applied"); got != string(head) {
		t.Errorf("git reads refs/hub/applied as %s", got)
	}
}

func TestDamagedMirrorIsClonedAnew(t *testing.T) {
	packs := func(t *testing.T, dir string) []string {
		paths, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*"))
		if err != nil || len(paths) == 0 {
			t.Fatal("no packs", err)
		}
		for _, p := range paths {
			if err := os.Chmod(p, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return paths
	}
	damages := map[string]func(t *testing.T, dir string){
		"pack cut short": func(t *testing.T, dir string) {
			for _, p := range packs(t, dir) {
				if strings.HasSuffix(p, ".pack") {
					if err := os.Truncate(p, 40); err != nil {
						t.Fatal(err)
					}
				}
			}
		},
		"packs gone": func(t *testing.T, dir string) {
			for _, p := range packs(t, dir) {
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
			}
		},
		"index garbled": func(t *testing.T, dir string) {
			for _, p := range packs(t, dir) {
				if strings.HasSuffix(p, ".idx") {
					write(t, p, "garbage")
				}
			}
		},
		"an object gone": func(t *testing.T, dir string) {
			for _, p := range packs(t, dir) {
				if strings.HasSuffix(p, ".pack") {
					moved := filepath.Join(t.TempDir(), "pack")
					if err := os.Rename(p, moved); err != nil {
						t.Fatal(err)
					}
					run(t, []byte(read(t, moved)), "git", "-C", dir, "unpack-objects", "-q")
				}
			}
			if err := os.RemoveAll(filepath.Join(dir, "objects", "pack")); err != nil {
				t.Fatal(err)
			}
			tree := git(t, dir, "rev-parse", "main^{tree}")
			if err := os.Remove(filepath.Join(dir, "objects", tree[:2], tree[2:])); err != nil {
				t.Fatal(err)
			}
		},
		"branch garbage": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "refs", "heads", "main"), "garbage\x00\n")
		},
		"branch empty": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "refs", "heads", "main"), "") },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t)
			o.commit("one", "a", "1", "b", strings.Repeat("long ", 1000))
			dir := filepath.Join(t.TempDir(), "fleet.git")
			r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
			head := fetch(t, r)
			if err := r.SetApplied(gitsync.Applied{Commit: head}); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			err := r.View(head, "", func(files fs.FS) error {
				_, err := fs.ReadFile(files, "b")
				return err
			})
			if !strings.HasPrefix(name, "branch") && (err == nil || !r.Damaged()) {
				t.Errorf("reading: error %v, damaged %v", err, r.Damaged())
			}
			if got := fetch(t, r); got != head {
				t.Fatalf("head %s, want %s", got, head)
			}
			if got := content(t, r, head, "a"); got != "1" || r.Damaged() {
				t.Errorf("content %q, damaged %v after healing", got, r.Damaged())
			}
			if applied, ok := r.Applied(); !ok || applied.Commit != head {
				t.Errorf("applied is %v, %v after healing", applied, ok)
			}
			git(t, dir, "fsck", "--strict")
		})
	}
}

func TestDamagedMirrorStaysWhileTheRemoteIsAway(t *testing.T) {
	o := newOrigin(t)
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	o.commit("one", "a", "1")
	head := fetch(t, r)
	write(t, filepath.Join(dir, "refs", "heads", "main"), "")
	if err := os.Rename(o.bare, o.bare+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context()); err == nil {
		t.Fatal("no error without a remote")
	}
	if got := content(t, r, head, "a"); got != "1" {
		t.Errorf("content %q", got)
	}
}

func TestInterruptedSwapAndLeftovers(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("one", "a", "1")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	in := func(opts *gitsync.Options) { opts.Dir = dir }
	r := open(t, o.bare, in)
	fetch(t, r)
	if err := os.Rename(dir, dir+".old"); err != nil { // died between the two renames
		t.Fatal(err)
	}
	write(t, filepath.Join(dir+".new", "HEAD"), "half a clone")
	r = open(t, o.bare, in)
	if got := content(t, r, head, "a"); got != "1" {
		t.Errorf("content %q", got)
	}
	write(t, filepath.Join(dir, "objects", "pack", "tmp_pack_1"), "half a pack")
	open(t, o.bare, in)
	for _, path := range []string{dir + ".new", dir + ".old", filepath.Join(dir, "objects", "pack", "tmp_pack_1")} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestViewIsAFileSystem(t *testing.T) {
	o := newOrigin(t)
	head := o.commit("one", "fleet/fleet.yaml", "kind: Fleet", "fleet/customers/acme/customer.yaml", "c",
		"fleet/customers/acme.yaml", "sorts before acme/ in git", "fleet/empty", "", "outside", "x")
	r := open(t, o.bare)
	fetch(t, r)
	err := r.View(head, "fleet", func(files fs.FS) error {
		if err := fstest.TestFS(files, "fleet.yaml", "customers/acme/customer.yaml", "customers/acme.yaml", "empty"); err != nil {
			return err
		}
		info, err := fs.Stat(files, "fleet.yaml")
		if err != nil {
			return err
		}
		if want := gitsync.Hash(git(t, o.bare, "rev-parse", "main:fleet/fleet.yaml")); info.Sys() != want {
			t.Errorf("Sys() is %v, want the blob %s", info.Sys(), want)
		}
		for _, name := range []string{"outside", "../outside", "/fleet.yaml", "fleet.yaml/x"} {
			if _, err := fs.ReadFile(files, name); err == nil {
				t.Errorf("%s can be read", name)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{"fleets": "not exist: set fleet.path", "outside": "not a folder"} {
		if err := r.View(head, path, func(fs.FS) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("view of %s: %v, want %q", path, err, want)
		}
	}
	if r.Damaged() {
		t.Error("asking for what is not there damages nothing")
	}
}

func TestViewShowsLinksAndSubmodulesByMode(t *testing.T) {
	o := newOrigin(t)
	write(t, filepath.Join(o.clone, "file"), "x")
	if err := os.Symlink("/etc/passwd", filepath.Join(o.clone, "link")); err != nil {
		t.Fatal(err)
	}
	first := o.commit("one")
	git(t, o.clone, "update-index", "--add", "--cacheinfo", "160000,"+string(first)+",sub")
	git(t, o.clone, "commit", "-q", "-m", "submodule")
	git(t, o.clone, "push", "-q", "origin", "HEAD:main")
	r := open(t, o.bare)
	err := r.View(fetch(t, r), "", func(files fs.FS) error {
		list, err := fs.ReadDir(files, ".")
		if err != nil {
			return err
		}
		got := make(map[string]fs.FileMode)
		for _, e := range list {
			got[e.Name()] = e.Type()
			if _, err := fs.ReadFile(files, e.Name()); (err == nil) != e.Type().IsRegular() {
				t.Errorf("reading %s: %v", e.Name(), err)
			}
		}
		if got["file"] != 0 || got["link"] != fs.ModeSymlink || got["sub"] != fs.ModeIrregular {
			t.Errorf("types %v", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestErrorsOfTheRemoteSayWhatToDo(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.git")
	git(t, t.TempDir(), "init", "-q", "--bare", empty)
	o := newOrigin(t)
	o.commit("one", "a", "1")
	git(t, o.clone, "push", "-q", "origin", "HEAD:production")
	for name, c := range map[string]struct{ url, branch, want string }{
		"empty":      {empty, "main", "hub fleet init"},
		"no branch":  {o.bare, "trunk", "main, production"},
		"no such":    {o.bare + "x", "main", "check fleet.url"},
		"bad branch": {o.bare, "a..b", "no name of a branch"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := gitsync.Open(gitsync.Options{URL: c.url, Branch: c.branch, Dir: filepath.Join(t.TempDir(), "m")})
			if err == nil {
				defer r.Close()
				_, err = r.Fetch(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// A server that accepts and then says nothing must hold up neither the caller
// nor, one by one, a goroutine for every try.
func TestSilentServerIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conns := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				return
			}
			conns <- c
		}
	}()
	key, _ := sshKey(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, "")
	for _, scheme := range []string{"https://", "ssh://git@"} {
		r := open(t, scheme+l.Addr().String()+"/fleet.git", func(o *gitsync.Options) {
			o.CredentialsFile, o.KnownHostsFile = key, known
			if scheme == "https://" {
				o.CredentialsFile = ""
			}
		})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := r.Fetch(ctx); err == nil || ctx.Err() == nil {
				t.Errorf("%s: fetch ended with %v before its time", scheme, err)
			}
			cancel()
		}
	}
	l.Close()
	n := 0
	for c := range conns {
		n++
		c.Close()
	}
	if n > 4 { // three of https, one of ssh
		t.Errorf("%d connections were opened", n)
	}
}

func TestViewIsReadInParallel(t *testing.T) {
	o, head := fleetOrigin(t, 5, 40)
	r := open(t, o.bare)
	fetch(t, r)
	if n := readAll(t, r, head, 8); n != 200 {
		t.Errorf("%d files read", n)
	}
}
