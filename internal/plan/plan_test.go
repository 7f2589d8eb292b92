package plan_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/plan"
	"felhom.eu/hub/internal/seal"
)

var update = flag.Bool("update", false, "write what is expected anew")

var now = time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "Olga", "GIT_AUTHOR_EMAIL": "olga@example.com", "GIT_COMMITTER_NAME": "Olga", "GIT_COMMITTER_EMAIL": "olga@example.com",
		"GIT_AUTHOR_DATE": "2026-06-08T09:00:00Z", "GIT_COMMITTER_DATE": "2026-06-08T09:00:00Z",
	} {
		_ = os.Setenv(name, value)
	}
	os.Exit(m.Run())
}

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

// sealer writes seals for the lines "SEAL name" of an archive: the same name is
// the same text.
type sealer struct {
	to    []seal.Recipient
	known map[string]string
}

func newSealer(t testing.TB) *sealer {
	s := &sealer{known: map[string]string{}}
	for range 2 {
		id, err := seal.GenerateIdentity()
		if err != nil {
			t.Fatal(err)
		}
		s.to = append(s.to, id.Recipient())
	}
	return s
}

func (s *sealer) expand(t testing.TB, text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 2 || words[0] != "SEAL" {
			out.WriteString(line)
			continue
		}
		if s.known[words[1]] == "" {
			text, to, err := seal.Seal(seal.Payload{Owner: hub.FleetOwner(), KeyID: "k1", Key: hub.NewKey()}, s.to)
			if err != nil {
				t.Fatal(err)
			}
			s.known[words[1]] = fmt.Sprintf("      sealedTo: [%s]\n      sealed: |\n        %s\n", strings.Join(to, ", "),
				strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n        "))
		}
		out.WriteString(s.known[words[1]])
	}
	return out.String()
}

// repository commits two folders made of testdata/fleet.txtar, the archive's
// files base/… and, for the second, its files head/… laid over.
func repository(t testing.TB, archive *txtar.Archive) (dir string) {
	t.Helper()
	dir = t.TempDir()
	common, err := txtar.ParseFile("testdata/fleet.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s := newSealer(t)
	lay := func(prefix string, files []txtar.File) {
		for _, f := range files {
			name, ok := strings.CutPrefix(f.Name, prefix)
			if !ok {
				continue
			}
			at := filepath.Join(dir, "fleet", name)
			if string(f.Data) == "DELETE\n" {
				if err := os.RemoveAll(at); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				t.Fatal(err)
			}
			if target, ok := strings.CutPrefix(string(f.Data), "LINK "); ok {
				err = os.Symlink(strings.TrimSpace(target), at)
			} else {
				err = os.WriteFile(at, []byte(s.expand(t, string(f.Data))), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		git(t, dir, "add", "-A")
	}
	git(t, dir, "init", "-q", "-b", "main")
	lay("", common.Files)
	lay("base/", archive.Files)
	git(t, dir, "commit", "-q", "-m", "base")
	lay("head/", archive.Files)
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "head")
	return dir
}

// compare plans the change from one revision to another.
func compare(t testing.TB, dir, base, head string) *plan.Plan {
	t.Helper()
	repo, err := gitsync.OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = repo.Close() }()
	resolve := func(rev string) gitsync.Hash {
		h, err := repo.Resolve(rev)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	var p *plan.Plan
	err = repo.Views(resolve(base), "fleet", 2, func(b []fs.FS) error {
		return repo.Views(resolve(head), "fleet", 2, func(h []fs.FS) (err error) {
			p, err = plan.New(b, h, plan.Options{Base: "base", Head: "head", Path: "fleet", Now: now})
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func archives(t testing.TB) map[string]*txtar.Archive {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]*txtar.Archive{}
	for _, name := range names {
		if filepath.Base(name) == "fleet.txtar" {
			continue
		}
		if list[name], err = txtar.ParseFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if len(list) < 8 {
		t.Fatalf("only %d archives", len(list))
	}
	return list
}

func show(t testing.TB, p *plan.Plan, name string) string {
	t.Helper()
	switch name {
	case "expected.md":
		return p.Markdown()
	case "expected.json":
		text, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(text) + "\n"
	default:
		return p.Text()
	}
}

func TestPlans(t *testing.T) {
	for name, archive := range archives(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			p := compare(t, repository(t, archive), "HEAD~1", "HEAD")
			checked := 0
			for i, f := range archive.Files {
				if !strings.HasPrefix(f.Name, "expected") {
					continue
				}
				checked++
				got := show(t, p, f.Name)
				if *update {
					archive.Files[i].Data = []byte(got)
				} else if got != string(f.Data) {
					t.Errorf("%s: got\n%s\nwant\n%s", f.Name, got, f.Data)
				}
			}
			if checked == 0 {
				t.Error("nothing is expected")
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestPlanOfNothing plans every head against itself, and twice: nothing changes,
// and the same is said.
func TestPlanOfNothing(t *testing.T) {
	for name, archive := range archives(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			dir := repository(t, archive)
			p := compare(t, dir, "HEAD~1", "HEAD~1")
			if p.Verdict != plan.Nothing && p.Verdict != plan.Rejected || len(p.Hosts)+len(p.Customers)+len(p.Keys)+len(p.Thresholds)+len(p.Deadlines)+len(p.Windows)+len(p.Events)+len(p.Settings)+len(p.Recipients)+len(p.Specs)+len(p.Mistakes)+p.FilesChanged > 0 {
				t.Errorf("a plan of no change says\n%s", p.Text())
			}
			first, second := compare(t, dir, "HEAD~1", "HEAD"), compare(t, dir, "HEAD~1", "HEAD")
			for _, form := range []string{"expected.md", "expected.json", "expected.txt"} {
				if show(t, first, form) != show(t, second, form) {
					t.Errorf("%s is not the same twice", form)
				}
			}
		})
	}
}

// TestPlanOfPlainFolders compares folders without content ids: the same is found.
func TestPlanOfPlainFolders(t *testing.T) {
	for name, archive := range archives(t) {
		dir := repository(t, archive)
		want := compare(t, dir, "HEAD~1", "HEAD")
		base := t.TempDir()
		git(t, base, "clone", "-q", dir, "clone")
		git(t, filepath.Join(base, "clone"), "checkout", "-q", "HEAD~1")
		got, err := plan.New([]fs.FS{os.DirFS(filepath.Join(base, "clone", "fleet"))}, []fs.FS{os.DirFS(filepath.Join(dir, "fleet"))}, plan.Options{Base: "base", Head: "head", Path: "fleet", Now: now})
		if err != nil {
			t.Fatal(err)
		}
		if got.Text() != want.Text() {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got.Text(), want.Text())
		}
	}
}

func TestPlanOfAFirstCommit(t *testing.T) {
	dir := repository(t, &txtar.Archive{})
	p, err := plan.New(nil, []fs.FS{os.DirFS(filepath.Join(dir, "fleet"))}, plan.Options{Now: now})
	if err != nil || p.Verdict != plan.Applies || len(p.Customers) != 2 || len(p.Hosts) < 4 {
		t.Errorf("%v\n%s", err, p.Text())
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"fleet/fleet.yaml", "prod/fleet/fleet.yaml", "test/fleet.yaml", "docs/x"} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"": "fleet", "prod": "prod/fleet", "prod/fleet": "prod/fleet", "test": "test", "docs": "fleet", "fleet": "fleet"} {
		if got, ok := plan.Find(os.DirFS(dir), prefix); !ok || got != want {
			t.Errorf("from %q: %q, %v; want %q", prefix, got, ok, want)
		}
	}
	if got, ok := plan.Find(os.DirFS(t.TempDir()), ""); ok {
		t.Errorf("found %q in nothing", got)
	}
}

// TestPlanBackwards plans every change and its undoing: what the one does the
// other takes back.
func TestPlanBackwards(t *testing.T) {
	opposite := map[string]string{"enrolled": "removed", "paused": "unpaused", "retired": "reinstated", "recorded": "forgotten",
		"moved": "moved", "renamed": "renamed", "labelled": "labelled"}
	for there, back := range opposite {
		opposite[back] = there
	}
	for name, archive := range archives(t) {
		dir := repository(t, archive)
		there, back := compare(t, dir, "HEAD~1", "HEAD"), compare(t, dir, "HEAD", "HEAD~1")
		if there.Verdict == plan.Rejected || len(there.Mistakes)+len(back.Mistakes) > 0 {
			continue
		}
		count := map[string]int{}
		for _, h := range there.Hosts {
			count[h.Change+" "+h.Host+" "+h.Label]++
		}
		for _, h := range back.Hosts {
			count[opposite[h.Change]+" "+h.Host+" "+h.Label]--
		}
		for what, n := range count {
			if n != 0 {
				t.Errorf("%s: %s: %+d", name, what, n)
			}
		}
		if len(there.Specs) != len(back.Specs) || len(there.Thresholds) != len(back.Thresholds) || len(there.Deadlines) != len(back.Deadlines) || len(there.Events) != len(back.Events) || len(there.Settings) != len(back.Settings) || len(there.Recipients) != len(back.Recipients) {
			t.Errorf("%s: not the same number of changes:\n%s\n%s", name, there.Text(), back.Text())
		}
	}
}
