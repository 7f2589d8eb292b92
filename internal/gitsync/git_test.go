package gitsync_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The tests, and the git-upload-pack that a file address starts, see no
	// configuration of whoever runs them.
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "Olga Operator", "GIT_AUTHOR_EMAIL": "olga@example.com",
		"GIT_COMMITTER_NAME": "Olga Operator", "GIT_COMMITTER_EMAIL": "olga@example.com",
	} {
		_ = os.Setenv(name, value)
	}
	goleak.VerifyTestMain(m)
}

// git runs git in dir and returns its output.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// origin is a bare repository with a clone in which to commit.
type origin struct {
	t     testing.TB
	bare  string
	clone string
}

func newOrigin(t testing.TB) *origin {
	dir := t.TempDir()
	o := &origin{t: t, bare: filepath.Join(dir, "origin.git"), clone: filepath.Join(dir, "clone")}
	git(t, dir, "init", "-q", "--bare", "-b", "main", o.bare)
	git(t, dir, "clone", "-q", o.bare, o.clone)
	git(t, o.clone, "checkout", "-q", "-B", "main")
	return o
}

// commit writes files, given as path, content, path, content …, and pushes.
func (o *origin) commit(message string, files ...string) gitsync.Hash {
	o.t.Helper()
	for i := 0; i < len(files); i += 2 {
		write(o.t, filepath.Join(o.clone, files[i]), files[i+1])
	}
	git(o.t, o.clone, "add", "-A")
	git(o.t, o.clone, "commit", "-q", "--allow-empty", "-m", message)
	git(o.t, o.clone, "push", "-q", "origin", "HEAD:main")
	return o.head("main")
}

func (o *origin) head(branch string) gitsync.Hash {
	o.t.Helper()
	return gitsync.Hash(git(o.t, o.bare, "rev-parse", "refs/heads/"+branch))
}

// hook installs a hook of the bare repository.
func (o *origin) hook(name, script string) {
	o.t.Helper()
	write(o.t, filepath.Join(o.bare, "hooks", name), "#!/bin/sh\n"+script)
	if err := os.Chmod(filepath.Join(o.bare, "hooks", name), 0o755); err != nil {
		o.t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// open opens a mirror of url in a new folder.
func open(t testing.TB, url string, change ...func(*gitsync.Options)) *gitsync.Repo {
	t.Helper()
	opts := gitsync.Options{URL: url, Dir: filepath.Join(t.TempDir(), "fleet.git"), Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&opts)
	}
	r, err := gitsync.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func fetch(t testing.TB, r *gitsync.Repo) gitsync.Hash {
	t.Helper()
	head, err := r.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}
