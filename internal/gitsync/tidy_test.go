package gitsync_test

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
)

func packs(t testing.TB, dir string) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// size is how many bytes the files below dir have.
func size(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// crowd gives the mirror in dir more packs than it should have.
func crowd(t testing.TB, dir string) {
	t.Helper()
	for i := range 60 {
		blob := run(t, fmt.Appendf(nil, "blob %d", i), "git", "-C", dir, "hash-object", "-w", "--stdin")
		run(t, []byte(blob), "git", "-C", dir, "pack-objects", "-q", filepath.Join(dir, "objects", "pack", "pack"))
	}
	git(t, dir, "prune-packed", "-q")
}

// history writes n commits, each of which changes one host's file, and returns
// them in their order. The branch stays where it is.
func (o *origin) history(n int) []gitsync.Hash {
	o.t.Helper()
	fastImport(o.t, o.bare, func(w *bufio.Writer) {
		for i := range n {
			from := ""
			if i == 0 {
				from = "from " + string(o.head("main")) + "\n"
			}
			text := fmt.Sprintf("change: %d\n", i)
			fmt.Fprintf(w, "commit refs/heads/work\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n%sM 100644 inline fleet/customers/c%d/hosts/h%d.yaml\ndata %d\n%s\n",
				1700000000+i, from, i%10, i%97, len(text), text)
		}
	})
	var commits []gitsync.Hash
	for line := range strings.Lines(git(o.t, o.bare, "rev-list", "--reverse", "main..work")) {
		commits = append(commits, gitsync.Hash(strings.TrimSpace(line)))
	}
	return commits
}

// follow moves the branch to each commit in turn, fetches and tidies, and looks
// after each whether the mirror is as small as it should be.
func follow(t testing.TB, o *origin, commits []gitsync.Hash) {
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	applied := gitsync.Applied{Commit: fetch(t, r)}
	if err := r.SetApplied(applied); err != nil {
		t.Fatal(err)
	}
	ref := filepath.Join(o.bare, "refs", "heads", "main")
	before := descriptors(t)
	most := 0
	for i, commit := range commits {
		write(t, ref, string(commit)+"\n") // git update-ref would take longer than all the rest
		if got := fetch(t, r); got != commit {
			t.Fatalf("fetch %d: %s, want %s", i, got, commit)
		}
		if err := r.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		most = max(most, packs(t, dir))
		if i%100 == 99 || i == len(commits)-1 {
			fresh := filepath.Join(t.TempDir(), "fresh.git")
			fetch(t, open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = fresh }))
			if is, want := size(t, dir), size(t, fresh); is > 3*want {
				t.Fatalf("after %d fetches the mirror has %d bytes, a fresh clone %d", i+1, is, want)
			}
		}
	}
	if most > 50 {
		t.Errorf("the mirror had up to %d packs", most)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if got, ok := r.Applied(); !ok || got.Commit != applied.Commit {
		t.Errorf("applied %v, %v", got, ok)
	}
	git(t, dir, "fsck", "--strict")
}

func TestThousandFetchesStayBounded(t *testing.T) {
	o := newOrigin(t)
	o.commit("start", "fleet/fleet.yaml", "kind: Fleet")
	follow(t, o, o.history(1000))
}

// BenchmarkFetches follows ten thousand commits, one fetch each.
func BenchmarkFetches(b *testing.B) {
	const commits = 10_000
	for b.Loop() {
		b.StopTimer()
		o := newOrigin(b)
		o.commit("start", "fleet/fleet.yaml", "kind: Fleet")
		list := o.history(commits)
		b.StartTimer()
		follow(b, o, list)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/commits, "µs/fetch")
}

// BenchmarkFetchOne fetches one commit of a fleet with 100,000 hosts.
func BenchmarkFetchOne(b *testing.B) {
	o, _ := fleetOrigin(b, 1000, 100)
	r := open(b, o.bare)
	fetch(b, r)
	for b.Loop() {
		b.StopTimer()
		head := o.history(1)[0]
		git(b, o.bare, "update-ref", "refs/heads/main", string(head))
		b.StartTimer()
		if got := fetch(b, r); got != head {
			b.Fatalf("head %s, want %s", got, head)
		}
	}
}

// While the mirror is cloned anew, changes arrive as ever, and none is lost by
// the swap.
func TestFetchGoesOnWhileTidying(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	fetch(t, r)
	if err := r.Tidy(t.Context()); err != nil || packs(t, dir) != 1 {
		t.Fatalf("a mirror that is not crowded: %d packs, %v", packs(t, dir), err)
	}
	crowd(t, dir)

	// The clone's upload-pack waits in a pipe until it is let go.
	gate := filepath.Join(t.TempDir(), "gate")
	if err := exec.Command("mkfifo", gate).Run(); err != nil {
		t.Fatal(err)
	}
	wrapper := t.TempDir()
	real := run(t, nil, "sh", "-c", "command -v git-upload-pack")
	write(t, filepath.Join(wrapper, "git-upload-pack"), fmt.Sprintf("#!/bin/sh\n[ -e %s.open ] || { touch %[1]s.open; read line <%[1]s; }\nexec %s \"$@\"\n", gate, strings.TrimSpace(real)))
	if err := os.Chmod(filepath.Join(wrapper, "git-upload-pack"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", wrapper+":"+os.Getenv("PATH"))
	tidied := make(chan error)
	go func() { tidied <- r.Tidy(context.WithoutCancel(t.Context())) }()
	for {
		if _, err := os.Stat(gate + ".open"); err == nil {
			break
		}
		select {
		case err := <-tidied:
			t.Fatalf("tidied already: %v", err)
		default:
		}
	}
	head := o.commit("two", "a", "2")
	if got := fetch(t, r); got != head || content(t, r, head, "a") != "2" {
		t.Errorf("head %s, want %s", got, head)
	}
	if n := packs(t, dir); n < 50 {
		t.Fatalf("%d packs: tidied before its time", n)
	}
	write(t, gate, "go\n")
	if err := <-tidied; err != nil {
		t.Fatal(err)
	}
	if n := packs(t, dir); n > 2 || content(t, r, head, "a") != "2" {
		t.Errorf("%d packs after tidying", n)
	}
	if got := fetch(t, r); got != head {
		t.Errorf("head %s, want %s", got, head)
	}
	git(t, dir, "fsck", "--strict")
}

func TestTidyWithoutRemoteChangesNothing(t *testing.T) {
	o := newOrigin(t)
	o.commit("one", "a", "1")
	dir := filepath.Join(t.TempDir(), "fleet.git")
	r := open(t, o.bare, func(opts *gitsync.Options) { opts.Dir = dir })
	head := fetch(t, r)
	crowd(t, dir)
	if err := os.Rename(o.bare, o.bare+".away"); err != nil {
		t.Fatal(err)
	}
	if err := r.Tidy(t.Context()); err == nil {
		t.Error("no error without a remote")
	}
	if got := content(t, r, head, "a"); got != "1" {
		t.Errorf("content %q", got)
	}
	if _, err := os.Stat(dir + ".tidy"); err == nil {
		t.Error("half a clone is left")
	}
}
