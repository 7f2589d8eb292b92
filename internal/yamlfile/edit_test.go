package yamlfile

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type editItem struct {
	ID    string   `yaml:"id"`
	To    []string `yaml:"to,flow"`
	Armor string   `yaml:"armor"`
}

var newItem = editItem{ID: "k2", To: []string{"1234567890123456", "ab"}, Armor: "BEGIN\nxyz\nEND\n"}

const rendered = `- id: k2
  to: ["1234567890123456", ab]
  armor: |
    BEGIN
    xyz
    END
`

func TestAppend(t *testing.T) {
	item2, item4 := indent(rendered, 2), indent(rendered, 4)
	tests := map[string]struct{ in, want string }{
		"after the last": {"spec:\n  keys:\n    - id: k1 # first\n      armor: |\n        A\n\n  # about more\n  more: 1\n",
			"spec:\n  keys:\n    - id: k1 # first\n      armor: |\n        A\n" + item4 + "\n  # about more\n  more: 1\n"},
		"at the key's column": {"spec:\n  keys:\n  - id: k1\n  - id: k3\n  more: 1\n",
			"spec:\n  keys:\n  - id: k1\n  - id: k3\n" + item2 + "  more: 1\n"},
		"no newline at the end": {"spec:\n  keys:\n    - id: k1",
			"spec:\n  keys:\n    - id: k1\n" + item4},
		"empty list": {"# head\nspec:\n  keys: []   # controllers' keys\n  more: 1\n",
			"# head\nspec:\n  keys:   # controllers' keys\n" + item4 + "  more: 1\n"},
		"spaces in the list": {"spec:\n  keys: [  ]\n", "spec:\n  keys:\n" + item4},
		"nothing there":      {"spec:\n  keys:\n  more: 1\n", "spec:\n  keys:\n" + item4 + "  more: 1\n"},
		"null":               {"spec:\n  keys: ~ # none\n", "spec:\n  keys: # none\n" + item4},
		"missing": {"spec:\n  more: {a: 1}  # x\n\n# tail\n",
			"spec:\n  more: {a: 1}  # x\n  keys:\n" + item4 + "\n# tail\n"},
		"missing, after a block": {"spec:\n    more:\n        a: |\n            text\n\n            text\nother: 1\n",
			"spec:\n    more:\n        a: |\n            text\n\n            text\n    keys:\n" + indent(rendered, 6) + "other: 1\n"},
		"a flow list with items is rendered anew": {"# head\nspec: {keys: [{id: k1}], more: 1} # x\n",
			"# head\nspec: {keys: [{id: k1}, {id: k2, to: [\"1234567890123456\", ab], armor: \"BEGIN\\nxyz\\nEND\\n\"}], more: 1} # x\n"},
		"no spec":    {"# head\nkind: X\n", "# head\nkind: X\nspec:\n  keys:\n" + item4},
		"empty spec": {"kind: X\nspec: {}\n", "kind: X\nspec:\n  keys:\n" + item4},
		"empty file": {"", "spec:\n  keys:\n" + item4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Append("f", []byte(test.in), "spec.keys", newItem)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"spec:\n  keys: text\n":   "f: spec.keys: must be a list, not a single value",
		"spec:\n  keys: {a: 1}\n": "f: spec.keys: must be a list, not a mapping (lines of key: value)",
		"spec: []\n":              "f: spec.keys: keys has no place in a list",
		"spec: &a b\n":            "f:1:7: anchor &a: anchors are not allowed: mend this first",
	} {
		if out, err := Append("f", []byte(in), "spec.keys", newItem); err == nil || err.Error() != want {
			t.Errorf("%q: %v\n%s", in, err, out)
		}
	}
}

// TestAppendKeepsEveryLine edits files laid out at random: what was there stays,
// line by line and in order, and the file means the old plus the new item.
func TestAppendKeepsEveryLine(t *testing.T) {
	type file struct {
		Before []string `yaml:"before"`
		Keys   []string `yaml:"keys"`
		After  string   `yaml:"after"`
	}
	rapid.Check(t, func(t *rapid.T) {
		noise := func(name string) string {
			return rapid.SampledFrom([]string{"", "\n", "# c\n", "    # c\n", "\n# a\n\n  # b\n", "  \n"}).Draw(t, name)
		}
		pad := strings.Repeat(" ", rapid.IntRange(0, 4).Draw(t, "pad"))
		gap := strings.Repeat(" ", rapid.IntRange(1, 3).Draw(t, "gap"))
		var in strings.Builder
		in.WriteString(noise("head") + "before:\n  - x\n" + noise("before") + "keys:\n")
		var want file
		want.Before = []string{"x"}
		for i := range rapid.IntRange(0, 3).Draw(t, "n") {
			text := fmt.Sprintf("v%d", i)
			form := rapid.SampledFrom([]string{"%s", "'%s'", "%s # c", "\"%s\"", ">-\n" + pad + "     %s"}).Draw(t, "form")
			in.WriteString(noise("item") + pad + "-" + gap + fmt.Sprintf(form, text) + "\n")
			want.Keys = append(want.Keys, text)
		}
		if rapid.Bool().Draw(t, "after") {
			in.WriteString(noise("after") + "after: z\n")
			want.After = "z"
		}
		in.WriteString(noise("tail"))
		want.Keys = append(want.Keys, "new")

		out, err := Append("f", []byte(in.String()), "keys", "new")
		if err != nil {
			t.Fatal(err)
		}
		var got file
		doc, problems := Parse("f", out, 1<<20)
		if len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, out)
		}
		if problems := doc.Decode(&got); len(problems) > 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v %+v\nfrom\n%s\nto\n%s", problems, got, in.String(), out)
		}
		if rest, ok := withoutLine(string(out), "- new"); !ok || rest != in.String() {
			t.Fatalf("more than one line changed: from\n%q\nto\n%q", in.String(), out)
		}
	})
}

func withoutLine(text, content string) (string, bool) {
	var out strings.Builder
	found := 0
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == content {
			found++
			continue
		}
		out.WriteString(line)
	}
	return out.String(), found == 1
}

func TestMarshal(t *testing.T) {
	got, err := Marshal(newItem, "a comment", "and one more")
	if want := "# a comment\n# and one more\n" + strings.TrimPrefix(strings.ReplaceAll("\n"+rendered, "\n  ", "\n"), "\n- "); err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}
