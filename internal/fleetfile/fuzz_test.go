package fleetfile

import (
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// FuzzLoad puts any bytes in the place of each file of a small fleet. Nothing
// panics; every problem says something, at a place that is there; the linter
// shows no secret; and what loads reads the same again, also when it is written
// anew.
func FuzzLoad(f *testing.F) {
	c := newCast(f)
	names := []string{HostPath("acme", "acme-00000001"), CustomerPath("acme"), FleetPath, RecipientsPath}
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		fsys := c.folder(f, archive)
		for i, name := range names {
			if file := fsys[name]; file != nil {
				f.Add(uint8(i), file.Data)
			}
		}
	}
	for _, text := range []string{"", "\ufeffkind: Host", "kind: Host\r\n", "\x00", "- &a [*a]", "a:\n\t- b", "? {x: y}\n: !!binary z", "--- |\n x\n...\n---\n",
		"token: " + aKey, "# yaml-language-server: $schema=\nspec: {keys: [{notAfter: 2020-01-01T00:00:00Z}]}"} {
		f.Add(uint8(0), []byte(text))
	}
	base, opener := c.folder(f, new(txtar.Archive)), c.opener()
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		name := names[int(which)%len(names)]
		fsys := maps.Clone(base)
		fsys[name] = &fstest.MapFile{Data: data}
		lint, err := Lint(fsys, lintedAt)
		if err != nil {
			t.Fatal(err)
		}
		checkPlaces(t, fsys, lint)
		for _, opener := range []Opener{nil, opener} {
			fleet, problems, err := Load(fsys, opener, Options{})
			if err != nil || (fleet == nil) != (len(problems) > 0) {
				t.Fatal(fleet, problems, err)
			}
			checkPlaces(t, fsys, problems)
			if again, _, _ := Load(fsys, opener, Options{}); fleet != nil && !reflect.DeepEqual(slices.Collect(again.Hosts()), slices.Collect(fleet.Hosts())) {
				t.Error("the same folder reads differently the second time")
			}
			if fleet != nil && name == names[0] {
				checkRender(t, name, data)
			}
		}
	})
}

// lineBreak is what YAML ends a line at.
var lineBreak = regexp.MustCompile(`\r\n|[\n\r\x{85}\x{2028}\x{2029}]`)

// checkPlaces fails where a problem is about nothing, or nowhere.
func checkPlaces(t *testing.T, fsys fstest.MapFS, problems []hub.Problem) {
	t.Helper()
	for _, p := range problems {
		var lines []string
		if file := fsys[p.File]; file != nil {
			lines = lineBreak.Split(string(file.Data), -1)
		}
		switch {
		case p.Message == "" || !utf8.ValidString(p.String()):
			t.Errorf("%q", p)
		case p.Line < 0 || p.Line > len(lines) || p.Line == 0 && p.Column != 0:
			t.Errorf("line %d of %d: %s", p.Line, len(lines), p)
		case p.Line > 0 && (p.Column < 0 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1):
			t.Errorf("column %d of %q: %s", p.Column, lines[p.Line-1], p)
		}
	}
}

// checkRender writes a host's file anew and reads it back.
func checkRender(t *testing.T, name string, data []byte) {
	t.Helper()
	decode := func(data []byte) (f HostFile) {
		doc, problems := yamlfile.Parse(name, data, maxFileBytes)
		if doc == nil || len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, data)
		}
		if problems := doc.Decode(&f); len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, data)
		}
		return f
	}
	f := decode(data)
	f.Spec.Desired, f.Spec.DRRecord = nil, nil // commands write none
	text, err := f.Render()
	if err != nil {
		t.Fatal(err)
	}
	if again := decode(text); !reflect.DeepEqual(normal(again), normal(f)) {
		t.Errorf("%+v\nbecame\n%+v", f, again)
	}
}

// normal makes nothing of what is empty.
func normal(f HostFile) HostFile {
	if len(f.Metadata.Labels) == 0 {
		f.Metadata.Labels = nil
	}
	if len(f.Spec.Keys) == 0 {
		f.Spec.Keys = nil
	}
	if f.Spec.Monitor != nil && *f.Spec.Monitor == (Monitor{}) {
		f.Spec.Monitor = nil
	}
	for i := range f.Spec.Keys {
		if len(f.Spec.Keys[i].SealedTo) == 0 {
			f.Spec.Keys[i].SealedTo = nil
		}
	}
	return f
}
