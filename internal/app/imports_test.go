package app_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "felhom.eu/hub"

// layers is the law of imports: a package imports packages of lower layers
// only. Tests may import what they like.
var layers = [][]string{
	{"internal/blind", "internal/fair", "internal/hub", "internal/logtest", "internal/outbound"},
	{"internal/annotate", "internal/calendar", "internal/certs", "internal/control", "internal/engine", "internal/gitsync", "internal/message", "internal/rejected", "internal/seal", "internal/selfprobe", "internal/spool", "internal/watchdog", "internal/wire", "internal/yamlfile"},
	{"internal/clickhouse", "internal/config", "internal/engine/enginetest", "internal/notify"},
	{"internal/fleetfile"},
	{"internal/audit", "internal/deadman", "internal/fleetfile/fleettest", "internal/fleetops", "internal/httpapi", "internal/ingest", "internal/outbox", "internal/plan", "internal/roster", "internal/ship", "internal/simulate"},
	{"internal/app", "internal/bench"},
	{"internal/demo", "internal/torture"},
	{"cmd/hub", "cmd/hub-engine", "cmd/hub-torture"},
}

// homes names the packages that may import a third-party module: one each, but
// for golang.org/x/sys and x/time, which are the standard library's continuation.
var homes = map[string][]string{
	"filippo.io/age":                      {"internal/seal"},
	"github.com/ClickHouse/clickhouse-go": {"internal/clickhouse"},
	"github.com/cloudflare/circl":         {"internal/seal"},
	"github.com/ebitengine/purego":        {"cmd/hub-engine"},
	"github.com/ProtonMail/go-crypto":     {"internal/gitsync"},
	"github.com/go-git":                   {"internal/gitsync"},
	"github.com/go-json-experiment/json":  {"internal/wire"},
	"github.com/gorilla/mux":              {"internal/httpapi"},
	"github.com/hiddeco/sshsig":           {"internal/gitsync"},
	"github.com/klauspost/compress":       {"internal/bench", "internal/httpapi"},
	"github.com/prometheus/client_golang": {"internal/httpapi"},
	"github.com/spf13/cobra":              {"cmd/hub"},
	"github.com/teambition/rrule-go":      {"internal/calendar"},
	"github.com/wneessen/go-mail":         {"internal/notify"},
	"golang.org/x/crypto":                 {"internal/gitsync", "internal/seal"},
	"golang.org/x/sys":                    {"internal/engine", "internal/spool"},
	"golang.org/x/term":                   {"cmd/hub"},
	"golang.org/x/time":                   {"internal/httpapi", "internal/ingest"},
	"gopkg.in/yaml.v3":                    {"internal/yamlfile"},
}

func TestImportsFollowTheLayers(t *testing.T) {
	layerOf := map[string]int{}
	for i, layer := range layers {
		for _, pkg := range layer {
			layerOf[pkg] = i
		}
	}
	imports := importsOf(t, repositoryRoot)
	for pkg := range layerOf {
		if _, ok := imports[pkg]; !ok {
			t.Errorf("%s has a layer and is not there", pkg)
		}
	}
	for pkg, imported := range imports {
		layer, ok := layerOf[pkg]
		if !ok {
			t.Errorf("%s has no layer: choose one in layers", pkg)
			continue
		}
		for _, other := range imported {
			own, ok := strings.CutPrefix(other, module+"/")
			if below, known := layerOf[own]; ok && known && below >= layer {
				t.Errorf("%s (layer %d) imports %s (layer %d): only lower layers may be imported", pkg, layer, own, below)
			}
		}
	}
}

func TestThirdPartyModulesHaveOneHome(t *testing.T) {
	used := map[string]bool{}
	for pkg, imported := range importsOf(t, repositoryRoot) {
		for _, other := range imported {
			if first, _, _ := strings.Cut(other, "/"); !strings.Contains(first, ".") || other == module || strings.HasPrefix(other, module+"/") {
				continue
			}
			home := homeOf(other)
			if home == "" {
				t.Errorf("%s imports %s, which has no home: choose one in homes", pkg, other)
			} else if !slices.Contains(homes[home], pkg) {
				t.Errorf("%s imports %s, whose home is %s", pkg, other, strings.Join(homes[home], ", "))
			}
			used[home+" in "+pkg] = true
		}
	}
	for home, pkgs := range homes {
		for _, pkg := range pkgs {
			if !used[home+" in "+pkg] {
				t.Errorf("%s is said to import %s and does not", pkg, home)
			}
		}
	}
}

// homeOf returns the entry of homes that an import path belongs to.
func homeOf(importPath string) string {
	for home := range homes {
		if importPath == home || strings.HasPrefix(importPath, home+"/") {
			return home
		}
	}
	return ""
}

// TestTopLevelIsFixed holds the top of the repository to the agreed entries,
// and data folders to data.
func TestTopLevelIsFixed(t *testing.T) {
	allowed := []string{"cmd", "internal", "fleet", "testdata", "go.mod", "go.sum", "Makefile", "CHANGELOG.md", "README.md", "LICENSE"}
	ignored, err := os.ReadFile(filepath.Join(repositoryRoot, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(ignored)) {
		allowed = append(allowed, strings.Trim(line, "/\n"))
	}
	entries, err := os.ReadDir(repositoryRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong at the top of the repository", e.Name())
		}
	}
	for _, dir := range []string{"fleet", "testdata"} {
		for pkg := range importsOf(t, filepath.Join(repositoryRoot, dir)) {
			t.Errorf("%s holds data only, and there is Go in %s", dir, path.Join(dir, pkg))
		}
	}
}

// TestNothingBuiltIsInTheTree: a program that go build left beside its source would be
// in the history for ever.
func TestNothingBuiltIsInTheTree(t *testing.T) {
	const most = 1 << 20
	for _, dir := range []string{"cmd", "internal", "fleet", "testdata"} {
		err := filepath.WalkDir(filepath.Join(repositoryRoot, dir), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if info, err := d.Info(); err == nil && info.Size() > most {
				t.Errorf("%s has %d bytes: built files do not belong in the repository (make build puts them into bin)", file, info.Size())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

var repositoryRoot = filepath.Join("..", "..")

// importsOf returns what each package under root imports, tests left out, by
// the package's folder.
func importsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if imports[pkg] == nil {
			imports[pkg] = []string{} // also a package that imports nothing is there
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports[pkg] = append(imports[pkg], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}
