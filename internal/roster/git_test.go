package roster_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/roster"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "Olga", "GIT_AUTHOR_EMAIL": "olga@example.com",
		"GIT_COMMITTER_NAME": "Olga", "GIT_COMMITTER_EMAIL": "olga@example.com",
	} {
		_ = os.Setenv(name, value)
	}
	goleak.VerifyTestMain(m)
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// repository is a bare origin, a clone to commit in, and the hub's mirror.
type repository struct {
	t                   *testing.T
	bare, clone, mirror string
}

func newRepository(t *testing.T) *repository {
	dir := t.TempDir()
	r := &repository{t, filepath.Join(dir, "origin.git"), filepath.Join(dir, "clone"), filepath.Join(dir, "hub", "fleet.git")}
	git(t, dir, "init", "-q", "--bare", "-b", "main", r.bare)
	git(t, dir, "clone", "-q", r.bare, r.clone)
	git(t, r.clone, "checkout", "-q", "-B", "main")
	if err := os.Mkdir(filepath.Join(r.clone, "fleet"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *repository) push(hosts string) string {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.clone, "fleet", "hosts"), []byte(hosts), 0o600); err != nil {
		r.t.Fatal(err)
	}
	git(r.t, r.clone, "add", "-A")
	git(r.t, r.clone, "commit", "-q", "-m", "hosts")
	git(r.t, r.clone, "push", "-q", "origin", "main")
	return git(r.t, r.clone, "rev-parse", "HEAD")
}

// start runs a roster over the mirror until stop.
func (r *repository) start() (rost *roster.Roster, repo *gitsync.Repo, stop func()) {
	r.t.Helper()
	repo, err := gitsync.Open(gitsync.Options{URL: r.bare, Dir: r.mirror})
	if err != nil {
		r.t.Fatal(err)
	}
	rost = roster.New(roster.Options{Source: repo, Path: "fleet", Interval: time.Hour, Load: load})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { rost.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		<-done
		_ = repo.Close()
	}
	r.t.Cleanup(stop)
	return rost, repo, stop
}

// await waits until the revision is in force.
func (r *repository) await(rost *roster.Roster, revision string) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for rost.Status().Revision != revision {
		if time.Now().After(deadline) {
			r.t.Fatalf("revision %s is not in force: %+v", revision, rost.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWithARealRepository(t *testing.T) {
	r := newRepository(t)
	good := r.push("a\nb")
	rost, _, stop := r.start()
	r.await(rost, good)

	bad := r.push("a\na")
	if err := rost.Pull(t.Context()); err == nil || rost.Status().Revision != good || rost.Status().Head != bad {
		t.Errorf("bad head: %v, %+v", err, rost.Status())
	}
	stop()

	// A restart without the remote begins with the commit in force, not the head.
	if err := os.Rename(r.bare, r.bare+".away"); err != nil {
		t.Fatal(err)
	}
	rost, _, _ = r.start()
	r.await(rost, good)
	if _, ok := rost.Current().Host("b"); !ok {
		t.Error("host b is missing")
	}

	if err := os.Rename(r.bare+".away", r.bare); err != nil {
		t.Fatal(err)
	}
	fixed := r.push("a\nc")
	rost.Trigger()
	r.await(rost, fixed)
}

func TestRestartOnADamagedMirror(t *testing.T) {
	r := newRepository(t)
	head := r.push("a\nb")
	rost, _, stop := r.start()
	r.await(rost, head)
	stop()
	packs, err := filepath.Glob(filepath.Join(r.mirror, "objects", "pack", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatal("no packs", err)
	}
	for _, p := range packs {
		if err := os.Chmod(p, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p, 30); err != nil {
			t.Fatal(err)
		}
	}
	rost, _, _ = r.start()
	r.await(rost, head)
}

// What mint does: the commit is in force when Pull returns.
func TestPublishedCommitIsInForceAfterPull(t *testing.T) {
	r := newRepository(t)
	r.push("a")
	rost, repo, _ := r.start()
	for _, id := range []string{"b", "c"} {
		commit, err := repo.Publish(t.Context(), func(_ gitsync.Hash, files fs.FS) (gitsync.Change, error) {
			data, err := fs.ReadFile(files, "fleet/hosts")
			return gitsync.Change{
				Files:   map[string][]byte{"fleet/hosts": append(data, "\n"+id...)},
				Message: "enroll " + id,
				Author:  gitsync.Author{Name: "hub", Email: "hub@example.com"},
			}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := rost.Pull(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := rost.Current().Host(id); !ok || rost.Current().Revision() != string(commit) {
			t.Errorf("host %s is not there at %s", id, rost.Current().Revision())
		}
	}
}
