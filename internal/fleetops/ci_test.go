package fleetops

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCIIsTheProjects keeps what init writes and what fleet/ci shows the same.
func TestCIIsTheProjects(t *testing.T) {
	own, err := os.ReadDir("../../fleet/ci")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := scaffold.ReadDir("scaffold/ci")
	if err != nil || len(own) != len(ours) || len(own) != 4 {
		t.Fatal(own, ours, err)
	}
	for _, entry := range own {
		want, err := os.ReadFile(filepath.Join("../../fleet/ci", entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := scaffold.ReadFile("scaffold/ci/" + entry.Name()); err != nil || string(got) != string(want) {
			t.Errorf("fleet/ci/%s and internal/fleetops/scaffold/ci/%s differ: change both (%v)", entry.Name(), entry.Name(), err)
		}
		info, err := entry.Info()
		if err != nil || (info.Mode()&0o111 != 0) != (entry.Name() == "pre-commit") {
			t.Error(info, err)
		}
	}
}

func TestInitCI(t *testing.T) {
	repo := t.TempDir()
	dir := filepath.Join(repo, "infra", "it's a fleet")
	if _, err := Init(dir, InitOptions{CI: []string{"github"}}); err == nil || !strings.Contains(err.Error(), "git init") {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(repo, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, InitOptions{CI: []string{"svn"}}); err == nil || !strings.Contains(err.Error(), "none of") {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("a refused init wrote something")
	}
	done, err := Init(dir, InitOptions{CI: []string{"github", "pre-commit", "github"}})
	if err != nil || !done.Begun || len(done.Next) != 1 || done.Next[0] != "git config core.hooksPath .githooks" {
		t.Fatal(done, err)
	}
	last := done.Files[len(done.Files)-2:]
	if last[0] != filepath.Join(repo, ".github/workflows/fleet.yml") || last[1] != filepath.Join(repo, ".githooks/pre-commit") {
		t.Error(done.Files)
	}
	for file, want := range map[string]string{last[0]: "\n  FLEET: 'infra/it''s a fleet'\n", last[1]: "\nFLEET='infra/it'\\''s a fleet'\n"} {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%v %s", err, text)
		}
	}
	if info, err := os.Stat(last[1]); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
}

// TestInitCIOfAFleet: a fleet that is there gets the files and stays as it is,
// whether it is named or the folder above it.
func TestInitCIOfAFleet(t *testing.T) {
	repo, dir, _ := newFleet(t)
	if err := os.WriteFile(filepath.Join(repo, ".git"), []byte("gitdir: elsewhere\n"), 0o644); err != nil { // a worktree
		t.Fatal(err)
	}
	before := read(t, dir)
	for _, step := range []struct{ from, system, file, next string }{
		{repo, "gitlab", ".gitlab-ci.yml", ""},
		{dir, "gitlab", ".gitlab/fleet-ci.yml", "add to .gitlab-ci.yml, under include:  - local: .gitlab/fleet-ci.yml"},
		{dir, "forgejo", ".forgejo/workflows/fleet.yml", ""},
		{repo, "gitea", ".gitea/workflows/fleet.yml", ""},
	} {
		done, err := Init(step.from, InitOptions{CI: []string{step.system}})
		if err != nil || done.Begun || len(done.Files) != 1 || done.Files[0] != filepath.Join(repo, step.file) || strings.Join(done.Next, "") != step.next {
			t.Fatalf("%s: %+v %v", step.system, done, err)
		}
		text, err := os.ReadFile(done.Files[0])
		if err != nil || !strings.Contains(string(text), "FLEET: fleet\n") {
			t.Errorf("%v %s", err, text)
		}
		if runs := strings.Contains(string(text), "runs-on: ubuntu-latest\n"); runs != (step.system == "gitea") {
			t.Errorf("%s", text)
		}
	}
	if read(t, dir) != before {
		t.Error("the fleet changed")
	}
	all := read(t, repo)
	if _, err := Init(dir, InitOptions{CI: []string{"github", "gitea"}}); err == nil || !strings.Contains(err.Error(), "is not overwritten") {
		t.Error(err)
	}
	if _, err := Init(dir, InitOptions{CI: []string{"github"}, IdentityFile: filepath.Join(t.TempDir(), "id")}); err == nil || !strings.Contains(err.Error(), "there is a fleet already") {
		t.Error(err)
	}
	if read(t, repo) != all {
		t.Error("a refused init wrote something")
	}
}
