package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

func TestApply(t *testing.T) {
	end := time.Date(2026, 12, 9, 6, 40, 0, 0, time.UTC)
	tests := map[string]struct {
		in, want string
		edits    []Edit
	}{
		"a scalar": {"# head\nspec:\n  state:   active   # for now\n  more: 1\n",
			"# head\nspec:\n  state:   retired   # for now\n  more: 1\n",
			[]Edit{{Path: "spec.state", Value: "retired"}}},
		"a quoted one": {"state: \"a # \\\" b\" # c\nmore: 'it''s'\n", "state: new # c\nmore: \"y\"\n",
			[]Edit{{Path: "state", Value: "new"}, {Path: "more", Value: "y"}}},
		"no newline at the end": {"spec:\n  state: active", "spec:\n  state: retired\n", []Edit{{Path: "spec.state", Value: "retired"}}},
		"nothing there":         {"spec:\n  state: # c\n  more: ~ # d\n", "spec:\n  state: new # c\n  more: 3 # d\n", []Edit{{Path: "spec.state", Value: "new"}, {Path: "spec.more", Value: 3}}},
		"a block of text": {"keys:\n  - id: k1\n    armor: | # c\n      A\n      B\n\n  # next\n  - id: k2\n",
			"keys:\n  - id: k1\n    armor: | # c\n      X\n      Y\n      Z\n\n  # next\n  - id: k2\n",
			[]Edit{{Path: "keys[0].armor", Value: "X\nY\nZ\n"}}},
		"a flow list stays one": {"keys:\n- to: [a, 'b]', # no\n       c] # c\n  id: k1\n", "keys:\n- to: [x, \"12\"] # c\n  id: k1\n",
			[]Edit{{Path: "keys[0].to", Value: []string{"x", "12"}}}},
		"a block list stays one": {"to: # c\n- a\n# about b\n- b\n# tail\n", "to: # c\n  - x\n# tail\n", []Edit{{Path: "to", Value: []string{"x"}}}},
		"a new key after another": {"keys:\n  - id: k1 # the first\n    # who may open it\n    to: [a]\n  - to: [b]\n    id: k2\n",
			"keys:\n  - id: k1 # the first\n    end: 2026-12-09T06:40:00Z\n    # who may open it\n    to: [a]\n  - to: [b]\n    id: k2\n    end: 2026-12-09T06:40:00Z\n",
			[]Edit{{Path: "keys[0].end", Value: end, After: "id"}, {Path: "keys[1].end", Value: end, After: "id"}}},
		"after a list at its key's column": {"spec:\n  keys:\n  - a\n  - b\n\n  more: 1\n", "spec:\n  keys:\n  - a\n  - b\n  new:\n    a: 1\n    b: x\n\n  more: 1\n",
			[]Edit{{Path: "spec.new", Value: struct {
				A int    `yaml:"a"`
				B string `yaml:"b"`
			}{1, "x"}, After: "keys"}}},
		"after what is not there": {"spec:\n  a: 1\nmore: 1\n", "spec:\n  a: 1\n  b: 2\nmore: 1\n", []Edit{{Path: "spec.b", Value: 2, After: "c"}}},
		"missing on the way":      {"a: 1 # c\n", "a: 1 # c\nb:\n  c: 2\n", []Edit{{Path: "b.c", Value: 2}}},
		"in a flow mapping":       {"# head\nspec: {state: active} # c\n", "# head\nspec: {state: retired} # c\n", []Edit{{Path: "spec.state", Value: "retired"}}},
		"take an item away": {"keys:\n  # one\n  - id: k1\n    armor: |\n      A\n\n  # two\n  - id: k2\nmore: 1\n",
			"keys:\n  # one\n\n  # two\n  - id: k2\nmore: 1\n", []Edit{{Path: "keys[0]"}}},
		"the last one":            {"keys:\n  - id: k1\n  -\n    id: k2\n# tail\n", "keys:\n  - id: k1\n# tail\n", []Edit{{Path: "keys[1]"}}},
		"the only one":            {"spec:\n  keys: # c\n  - id: k1\n    a: 1\n  more: 1\n", "spec:\n  keys: [] # c\n  more: 1\n", []Edit{{Path: "spec.keys[0]"}}},
		"one of a flow list":      {"keys: [a, b] # c\n", "keys: [b] # c\n", []Edit{{Path: "keys[0]"}}},
		"paths follow the edits":  {"keys:\n- a\n- b\n- c\n", "keys:\n- b\n", []Edit{{Path: "keys[0]"}, {Path: "keys[1]"}}},
		"take a key away":         {"a: 1\n# of b\nb: # c\n  - x\n\n# of c\nc: 2\n", "a: 1\n# of b\n\n# of c\nc: 2\n", []Edit{{Path: "b"}}},
		"the last key":            {"spec:\n  a: 1 # c\n  b: \"x\" # d\n", "spec:\n  a: 1 # c\n", []Edit{{Path: "spec.b"}}},
		"the only key":            {"spec:\n  a: 1\nmore: 1\n", "spec: {}\nmore: 1\n", []Edit{{Path: "spec.a"}}},
		"a key behind the dash":   {"- a: 1\n  b: 2 # c\n", "- b: 2 # c\n", []Edit{{Path: "[0].a"}}},
		"a key of a flow mapping": {"- {a: 1, b: 2} # c\n", "- {b: 2} # c\n", []Edit{{Path: "[0].a"}}},
		"an item that holds none": {"- - a\n  - b\n", "- - b\n", []Edit{{Path: "[0][0]"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Apply("f", []byte(test.in), test.edits...)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	for want, edit := range map[string]Edit{
		"f: an edit needs a path":                        {},
		"f: b: there is nothing to take away":            {Path: "b"},
		"f: a.b: there is nothing to take away":          {Path: "a.b"},
		"f: none.none[0]: there is nothing to take away": {Path: "none.none[0]"},
		"f: l[2]: there is nothing to take away":         {Path: "l[2]"},
		"f: l[-1]: there is nothing to take away":        {Path: "l[-1]"},
		"f: l.x: x has no place in a list":               {Path: "l.x", Value: 1},
		"f: l[7].x: 7 has no place in a list":            {Path: "l[7].x", Value: 1},
		"f: a.b.c: b has no place in a single value":     {Path: "a.b.c", Value: 1},
		"f: m.k.x: x has no place in a single value":     {Path: "m.k.x", Value: "v"},
	} {
		in := []byte("a: 1\nl: [a, b]\nm: {k: v}\n")
		if out, err := Apply("f", in, edit); err == nil || err.Error() != want {
			t.Errorf("%s: %v\n%s", want, err, out)
		}
	}
	if _, err := Apply("f", []byte("a: &x 1\n"), Edit{Path: "a", Value: 1}); err == nil || !strings.HasSuffix(err.Error(), "mend this first") {
		t.Error(err)
	}
}

// page is a file laid out at random, with where its parts stand.
type page struct {
	*rapid.T
	text  strings.Builder
	line  int // of the next one
	parts []part
	paths map[string]part // the same by their paths
}

// part is an entry of a mapping or an item of a list.
type part struct {
	path        string
	around      string // path of the mapping or list
	item        bool
	only        bool // of its list
	first, last int  // lines, without what stands between parts
	comment     string
}

func (p *page) pick(name string, from ...string) string {
	return rapid.SampledFrom(from).Draw(p.T, name)
}

func (p *page) write(text string) {
	p.text.WriteString(text)
	p.line += strings.Count(text, "\n")
}

func (p *page) noise(pad string) {
	p.write(p.pick("noise", "", "", "\n", "# c\n", pad+"# c\n", "\n"+pad+"# a\n\n"))
}

func (p *page) add(x part) { p.parts, p.paths[x.path] = append(p.parts, x), x }

// mapping writes a mapping's entries; the first where the line has begun.
func (p *page) mapping(path string, column, depth int) {
	pad := strings.Repeat(" ", column)
	for i := range rapid.IntRange(1, 3).Draw(p.T, "entries") {
		name := "k" + strconv.Itoa(i)
		if i > 0 {
			p.noise(pad)
			p.write(pad)
		}
		x := part{path: name, around: path, first: p.line}
		if path != "" {
			x.path = path + "." + name
		}
		p.write(name + ":")
		x.comment = p.value(x.path, column, depth)
		x.last = p.line - 1
		p.add(x)
	}
}

// value writes what follows a colon in column, and returns the comment on its
// first line.
func (p *page) value(path string, column, depth int) (comment string) {
	comment = p.pick("comment", "", "", "  # why")
	deeper := strings.Repeat(" ", column+rapid.IntRange(1, 3).Draw(p.T, "deeper"))
	forms := []string{" plain", "  'it''s # x'", " \"a\\\"b\"", " 17", " ~", "", " []", " [a, \"b]\", c]", " {a: 1}", " |", " >-", " |+", "two lines"}
	if depth > 0 {
		forms = append(forms, "map", "map", "list", "list", "low list")
	}
	switch form := p.pick("form", forms...); form {
	case " |", " >-", " |+":
		p.write(form + comment + "\n" + deeper + "A # no comment\n\n" + deeper + "B\n")
	case "two lines":
		p.write(" \"A" + "\n" + deeper + "B\"" + comment + "\n")
	case "map":
		p.write(comment + "\n" + deeper)
		p.mapping(path, len(deeper), depth-1)
	case "list", "low list":
		if form == "low list" {
			deeper = deeper[:column]
		}
		p.write(comment + "\n")
		p.list(path, len(deeper), depth-1)
	default:
		p.write(form + comment + "\n")
	}
	return comment
}

func (p *page) list(path string, column, depth int) {
	pad := strings.Repeat(" ", column)
	n := rapid.IntRange(1, 3).Draw(p.T, "items")
	for i := range n {
		p.noise(pad)
		x := part{path: fmt.Sprintf("%s[%d]", path, i), around: path, item: true, only: n == 1, first: p.line}
		p.write(pad + "-")
		switch p.pick("item", "plain", "map", "text", "own line") {
		case "plain":
			p.write(" item # c\n")
		case "text":
			p.write(" |\n" + pad + "   T\n\n" + pad + "   U\n")
		case "map":
			p.write(" ")
			p.mapping(x.path, column+2, depth)
		case "own line":
			p.write("\n" + pad + "  ")
			p.mapping(x.path, column+2, depth)
		}
		x.last = p.line - 1
		p.add(x)
	}
}

// model reads a file without its layout.
func model(t *rapid.T, text []byte) map[string]any {
	var v map[string]any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return v
}

// edit does to a model what an Edit does to a file.
func edit(v any, steps []string, value any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(steps) == 1 {
			v[steps[0]] = value
		} else {
			v[steps[0]] = edit(v[steps[0]], steps[1:], value)
		}
	case []any:
		i, _ := strconv.Atoi(steps[0])
		if len(steps) == 1 {
			return slices.Delete(v, i, i+1)
		}
		v[i] = edit(v[i], steps[1:], value)
	}
	return v
}

// TestApplyKeepsEveryOtherLine edits files laid out at random: the value is the
// one that the same edit of the data gives, and only the lines of the part that
// was edited change.
func TestApplyKeepsEveryOtherLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &page{T: t, line: 1, paths: map[string]part{}}
		p.noise("")
		p.mapping("", 0, 3)
		p.noise("")
		in := p.text.String()
		x := rapid.SampledFrom(p.parts).Draw(t, "part")
		e := Edit{Path: x.path}
		isNew := !x.item && rapid.Bool().Draw(t, "new")
		if isNew {
			e.Path, e.After = strings.TrimPrefix(x.around+".new", "."), x.path[strings.LastIndex(x.path, ".")+1:]
		}
		if !x.item {
			e.Value = rapid.SampledFrom([]any{"text", "yes", "it's: # \"x\"", "A\n\nB\n", 3, true, []any{"a", "0123456789012345"},
				map[string]any{"a": 1, "b": "T\nU\n"}}).Draw(t, "value")
		}
		out, err := Apply("f", []byte(in), e)
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		want := edit(model(t, []byte(in)), splitPath(e.Path), e.Value)
		if got := model(t, out); !reflect.DeepEqual(any(got), want) {
			t.Fatalf("%+v: %v, want %v\nfrom\n%s\nto\n%s", e, got, want, in, out)
		}
		if strings.Contains(in, "|+") {
			return // what follows such a text is part of it: the file may be rendered anew
		}
		first, last := x.first, x.last
		if isNew {
			first = last + 1
		}
		if x.only { // the list is written anew as []
			list := p.paths[x.around]
			first, last = list.first, list.last
		}
		lines := strings.SplitAfter(in, "\n")
		before, after := strings.Join(lines[:first-1], ""), strings.Join(lines[last:], "")
		if !strings.HasPrefix(string(out), before) || !strings.HasSuffix(string(out), after) || len(out) < len(before)+len(after) {
			t.Fatalf("%+v changed more than lines %d to %d: from\n%s\nto\n%s", e, first, last, in, out)
		}
		if changed := string(out[len(before) : len(out)-len(after)]); !x.item && !isNew && !strings.Contains(changed, x.comment) {
			t.Fatalf("%+v lost the comment: from\n%s\nto\n%s", e, in, out)
		}
	})
}

// FuzzApply edits what nobody wrote: either it is refused, or the result holds
// the value and can be edited again.
func FuzzApply(f *testing.F) {
	f.Add("spec:\n  keys:\n  - id: k1\n    armor: |\n      A\n", "spec.keys[0].id", "k2")
	f.Add("a: [b, {c: 'd'}] # e\n", "a[1].c", "x\ny\n")
	f.Fuzz(func(t *testing.T, text, path, value string) {
		out, err := Apply("f", []byte(text), Edit{Path: path, Value: value})
		if err != nil || !utf8.ValidString(path) || !validScalar(value) {
			return
		}
		again, err := Apply("f", out, Edit{Path: path, Value: value})
		if errors.Is(err, errNoEdit) {
			return
		}
		if err != nil || !bytes.Equal(again, out) && !equalValues(out, again) {
			t.Fatalf("%v\nfrom %q\nto   %q\nto   %q", err, text, out, again)
		}
	})
}

// validScalar leaves out what YAML cannot hold as a text.
func validScalar(text string) bool {
	var back string
	data, err := yaml.Marshal(text)
	return utf8.ValidString(text) && err == nil && yaml.Unmarshal(data, &back) == nil && back == text
}

func equalValues(a, b []byte) bool {
	x, errX := parseNode(a)
	y, errY := parseNode(b)
	return errX == nil && errY == nil && sameValue(x, y)
}
