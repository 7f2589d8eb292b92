package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gopkg.in/yaml.v3"
)

// job is what the tests run of a CI file: its shell steps, in order.
type job struct {
	env   map[string]string // of the whole file or job
	steps []ciStep
}

type ciStep struct {
	Name, Uses, Run, If string
	Env                 map[string]string
}

// readJob reads the one job of a CI file that init wrote.
func readJob(t *testing.T, file string) job {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		On          any
		Permissions map[string]string
		Env         map[string]string
		Jobs        map[string]struct{ Steps []ciStep }
		Fleet       struct { // GitLab's
			Variables map[string]string
			Script    []string
		}
	}
	if err := yaml.Unmarshal(data, &workflow); err != nil {
		t.Fatal(err)
	}
	if script := workflow.Fleet.Script; len(script) > 0 {
		j := job{env: workflow.Fleet.Variables}
		for _, line := range script {
			j.steps = append(j.steps, ciStep{Name: line, Run: line})
		}
		return j
	}
	// A pull request from a fork brings its own files: nothing of this may run
	// with more rights than it has.
	if workflow.On != "pull_request" || len(workflow.Permissions) != 2 || workflow.Permissions["contents"] != "read" {
		t.Errorf("%s: on %v with %v", file, workflow.On, workflow.Permissions)
	}
	return job{env: workflow.Env, steps: workflow.Jobs["fleet"].Steps}
}

// forge keeps comments as the forges' APIs do.
type forge struct {
	*httptest.Server
	mu       sync.Mutex
	comments map[int]string
	requests []string
}

func newForge(t *testing.T) *forge {
	f := &forge{comments: map[int]string{7: "somebody's", 8: "somebody's about <!-- hub fleet plan -->"}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer the-token" && r.Header.Get("PRIVATE-TOKEN") != "the-token" {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	type comment struct {
		ID   int    `json:"id"`
		Body string `json:"body"`
	}
	switch r.Method {
	case http.MethodGet:
		list := []comment{}
		for id, body := range f.comments {
			list = append(list, comment{id, body})
		}
		slices.SortFunc(list, func(a, b comment) int { return a.ID - b.ID })
		_ = json.NewEncoder(w).Encode(list)
	case http.MethodPost, http.MethodPatch, http.MethodPut:
		id := 100 + len(f.comments)
		if r.Method != http.MethodPost {
			if _, err := fmt.Sscan(filepath.Base(r.URL.Path), &id); err != nil || f.comments[id] == "" {
				http.Error(w, "no such comment", http.StatusNotFound)
				return
			}
		}
		var c comment
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.comments[id] = c.Body
		w.WriteHeader(http.StatusCreated)
	}
}

// pullRequest is a repository with a branch that enrolls a host, checked out as
// the forges check a pull request out.
type pullRequest struct{ dir, base string }

func newPullRequest(t *testing.T, system string) pullRequest {
	t.Helper()
	p := pullRequest{dir: t.TempDir()}
	p.run(t, "git", "init", "-q", "-b", "main")
	p.run(t, "git", "config", "user.name", "Test")
	p.run(t, "git", "config", "user.email", "test@example.com")
	p.run(t, "hub", "fleet", "init", "fleet", "--ci", system, "--identity", filepath.Join(t.TempDir(), "identity"))
	p.commit(t, "Begin")
	p.run(t, "git", "checkout", "-q", "-b", "change")
	p.run(t, "hub", "fleet", "enroll", "--dir", ".", "--customer", "acme", "--new-customer", "--name", "pve 1 & \"2\"")
	p.commit(t, "Enroll")
	p.base = strings.TrimSpace(p.run(t, "git", "rev-parse", "main"))
	if system == "github" { // checks the merge out
		p.run(t, "git", "checkout", "-q", "--detach", "main")
		p.run(t, "git", "merge", "-q", "--no-ff", "-m", "Merge", "change")
	}
	return p
}

func (p pullRequest) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := p.try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (p pullRequest) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = p.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p pullRequest) commit(t *testing.T, message string) {
	t.Helper()
	p.run(t, "git", "add", ".")
	p.run(t, "git", "commit", "-q", "-m", message)
}

// runJob runs the shell steps of a job as a runner does, but for the one that
// installs hub, and returns what they printed.
func (p pullRequest) runJob(j job, env map[string]string) (string, error) {
	var out strings.Builder
	for _, step := range j.steps {
		if step.Uses != "" || strings.Contains(step.Run, "go install") {
			continue
		}
		cmd := exec.Command("bash", "-eo", "pipefail", "-c", step.Run)
		cmd.Dir, cmd.Env = p.dir, os.Environ()
		for _, vars := range []map[string]string{j.env, env, step.Env} {
			for name, value := range vars {
				if expression, ok := strings.CutPrefix(value, "${{ "); ok {
					value = env[strings.TrimSuffix(expression, " }}")]
				}
				cmd.Env = append(cmd.Env, name+"="+value)
			}
		}
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return out.String(), fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	return out.String(), nil
}

// TestCIFiles runs what init --ci writes on a pull request: it is checked, and
// the plan becomes one comment, which the next run updates.
func TestCIFiles(t *testing.T) {
	for system, test := range map[string]struct{ file, list, one, update string }{
		"github":  {".github/workflows/fleet.yml", "/repos/felhom/fleet/issues/3/comments", "/repos/felhom/fleet/issues/comments/102", "PATCH"},
		"forgejo": {".forgejo/workflows/fleet.yml", "/repos/felhom/fleet/issues/3/comments", "/repos/felhom/fleet/issues/comments/102", "PATCH"},
		"gitea":   {".gitea/workflows/fleet.yml", "/repos/felhom/fleet/issues/3/comments", "/repos/felhom/fleet/issues/comments/102", "PATCH"},
		"gitlab":  {".gitlab-ci.yml", "/projects/9/merge_requests/3/notes", "/projects/9/merge_requests/3/notes/102", "PUT"},
	} {
		t.Run(system, func(t *testing.T) {
			p, f := newPullRequest(t, system), newForge(t)
			j := readJob(t, filepath.Join(p.dir, test.file))
			env := map[string]string{
				"GITHUB_API_URL": f.URL, "GITHUB_REPOSITORY": "felhom/fleet", "GITHUB_STEP_SUMMARY": filepath.Join(p.dir, "summary"),
				"github.token": "the-token", "github.event.pull_request.number": "3", "github.event.pull_request.base.sha": p.base,
				"CI_API_V4_URL": f.URL, "CI_PROJECT_ID": "9", "CI_MERGE_REQUEST_IID": "3", "CI_MERGE_REQUEST_DIFF_BASE_SHA": p.base,
				"FLEET_TOKEN": "the-token",
			}
			for range 2 {
				if out, err := p.runJob(j, env); err != nil {
					t.Fatal(err, out)
				}
			}
			plan, err := os.ReadFile(filepath.Join(p.dir, "plan.md"))
			if err != nil || !strings.Contains(string(plan), "acme") {
				t.Fatalf("%v %s", err, plan)
			}
			if len(f.comments) != 3 || f.comments[102] != "<!-- hub fleet plan -->\n"+string(plan) {
				t.Errorf("%v", f.comments)
			}
			want := []string{"GET " + test.list, "POST " + test.list, "GET " + test.list, test.update + " " + test.one}
			if !slices.Equal(f.requests, want) {
				t.Errorf("%q, want %q", f.requests, want)
			}

			// A mistake ends the job before anything is posted.
			p.damage(t)
			if out, err := p.runJob(j, env); err == nil || !strings.Contains(out, "nonsense") || len(f.requests) != len(want) {
				t.Errorf("%v %s %q", err, out, f.requests)
			}
		})
	}
}

// damage puts a mistake into fleet.yaml.
func (p pullRequest) damage(t *testing.T) {
	t.Helper()
	file := filepath.Join(p.dir, "fleet", "fleet.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, "nonsense: true\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPreCommit lets git run the hook: it judges what would be committed.
func TestPreCommit(t *testing.T) {
	p := newPullRequest(t, "pre-commit")
	p.run(t, "git", "config", "core.hooksPath", ".githooks")
	p.damage(t)

	if err := os.WriteFile(filepath.Join(p.dir, "other.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.run(t, "git", "add", "other.txt")
	p.run(t, "git", "commit", "-q", "-m", "Nothing of the fleet")
	p.run(t, "hub", "fleet", "enroll", "--dir", ".", "--customer", "acme")
	p.run(t, "git", "add", "fleet/customers")
	p.run(t, "git", "commit", "-q", "-m", "Good, with a mistake in the work tree")

	out, err := p.try("git", "commit", "-q", "-a", "-m", "Bad")
	if err == nil || !strings.Contains(out, `fleet/fleet.yaml:20:1: unknown key "nonsense"`) || !strings.Contains(out, "commit refused") {
		t.Errorf("%v %s", err, out)
	}
	if head := p.run(t, "git", "log", "-1", "--format=%s"); head != "Good, with a mistake in the work tree\n" {
		t.Error(head)
	}
	p.run(t, "git", "checkout", "fleet/fleet.yaml")
	p.run(t, "git", "rm", "-q", "fleet/fleet.yaml")
	if out, err := p.try("git", "commit", "-q", "-m", "Worse"); err == nil {
		t.Error(out)
	}
}
