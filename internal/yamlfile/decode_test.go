package yamlfile

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

type section struct {
	Interval time.Duration `yaml:"interval"`
	Max      Size          `yaml:"max_bytes"`
	Rate     Rate          `yaml:"host_rate"`
	Mode     string        `yaml:"mode" oneof:"off|branch|direct"`
}

type item struct {
	ID       string     `yaml:"id" required:"true"`
	NotAfter *time.Time `yaml:"notAfter,omitempty"`
}

type sample struct {
	Kind    string            `yaml:"kind" required:"true" oneof:"Sample"`
	Name    string            `yaml:"name"`
	On      bool              `yaml:"on_off"`
	Count   int               `yaml:"count"`
	Port    uint16            `yaml:"port"`
	Ratio   float64           `yaml:"ratio"`
	Labels  map[string]string `yaml:"labels"`
	List    []string          `yaml:"list,flow"`
	Items   []item            `yaml:"items"`
	Section section           `yaml:"section"`
	Desired JSON              `yaml:"desired"`
	Ignored string
}

func read(t *testing.T, text string, into any) (*Document, []string) {
	t.Helper()
	doc, problems := Parse("f.yaml", []byte(text), 1<<20)
	if doc != nil {
		problems = append(problems, doc.Decode(into)...)
	}
	Sort(problems)
	return doc, texts(problems)
}

func texts(problems []hub.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

func TestDecode(t *testing.T) {
	got := sample{Name: "kept", Section: section{Rate: 7, Mode: "off"}}
	_, problems := read(t, `# a comment
kind: Sample
name:            # nothing: keeps its value
on_off: true
count: -3
port: 8080
ratio: 1.5e1
labels: {site: berlin, "a.b": "1", yes: no}
list: [9f2c41d07be3a655, 1234567890123456, 12e4]
items:
  - {id: k1, notAfter: 2027-06-01T02:00:00+02:00}
  - id: k2
section:
  interval: 1d12h
  max_bytes: 8GiB
  mode: branch
desired: {z: [1, 0x10, 1.50, .5], a: {on: true, none: , text: "<é>", date: 2027-06-01}, big: 123456789012345678901234567890}
`, &got)
	if problems != nil {
		t.Fatal(problems)
	}
	notAfter := time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)
	want := sample{
		Kind: "Sample", Name: "kept", On: true, Count: -3, Port: 8080, Ratio: 15,
		Labels:  map[string]string{"site": "berlin", "a.b": "1", "yes": "no"},
		List:    []string{"9f2c41d07be3a655", "1234567890123456", "12e4"},
		Items:   []item{{ID: "k1", NotAfter: &notAfter}, {ID: "k2"}},
		Section: section{Interval: 36 * time.Hour, Max: 8 << 30, Rate: 7, Mode: "branch"},
		Desired: JSON(`{"z":[1,16,1.50,0.5],"a":{"on":true,"none":null,"text":"<é>","date":"2027-06-01"},"big":123456789012345678901234567890}`),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !json.Valid(got.Desired) {
		t.Errorf("not JSON: %s", got.Desired)
	}
}

func TestMistakes(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"every mistake at once": {`kind: Sampel
nmae: x
count: "3"
port: 70000
ratio: .inf
on_off: yes
section:
  intervall: 3s
  max_bytes: 3 apples
  host_rate: 10
  mode: brnach
items: [{notAfter: soon}, ]
labels: [a]
list: {a: b}
`, `f.yaml:1:7: kind must be Sample, not "Sampel"
f.yaml:2:1: unknown key "nmae" (did you mean "name"?)
f.yaml:3:8: count must be a number, not a text (take the quotes away)
f.yaml:4:7: port: 70000 is out of range
f.yaml:5:8: ratio: ".inf" is no number
f.yaml:6:9: on_off: "yes" is neither true nor false
f.yaml:8:3: unknown key "intervall" in section (did you mean "interval"?)
f.yaml:9:14: section.max_bytes: "3 apples" is no size: write 512MiB or 8GiB
f.yaml:10:14: section.host_rate: "10" is no rate: write 10/s or 600/m
f.yaml:11:9: section.mode must be one of off, branch, direct, not "brnach" (did you mean "branch"?)
f.yaml:12:9: items[0].id is missing
f.yaml:12:20: items[0].notAfter: "soon" is no time: write 2027-06-01T00:00:00Z
f.yaml:13:9: labels must be a mapping (lines of key: value), not a list
f.yaml:14:7: list must be a list, not a mapping (lines of key: value)`},
		"quoted bool": {"kind: Sample\non_off: 'true'\n",
			`f.yaml:2:9: on_off must be true or false, not a text (take the quotes away)`},
		"nothing near": {"kind: Sample\nsection: {quux: 1}\n",
			`f.yaml:2:11: unknown key "quux" in section (known here: host_rate, interval, max_bytes, mode)`},
		"case and dashes": {"kind: Sample\nsection: {Host-Rate: 1/s}\n",
			`f.yaml:2:11: unknown key "Host-Rate" in section (did you mean "host_rate"?)`},
		"empty":         {"# only a comment\n", `f.yaml:1:1: kind is missing`},
		"nothing":       {"", `f.yaml:1:1: kind is missing`},
		"a list":        {"- a\n", `f.yaml:1:1: the file must be a mapping (lines of key: value), not a list`},
		"missing":       {"\n# x\nname: a\n", `f.yaml:3:1: kind is missing`},
		"empty text":    {"kind: Sample\nitems: [{id: ''}]\n", `f.yaml:2:9: items[0].id is missing`},
		"empty item":    {"kind: Sample\nlist: [a, ~]\n", `f.yaml:2:11: list[1] is empty`},
		"duplicate key": {"kind: Sample\nname: a\nname: b\n", `f.yaml:3:1: key "name" stands twice (first in line 2)`},
		"deep duplicate": {"kind: Sample\ndesired: {a: {b: 1, b: 2}}\n",
			`f.yaml:2:21: key "b" stands twice (first in line 2)`},
		"alias": {"kind: Sample\nname: &n x\nlist: [*n]\n",
			"f.yaml:2:7: anchor &n: anchors are not allowed\nf.yaml:3:8: alias *n: aliases are not allowed (write the value out)"},
		"merge key": {"kind: Sample\nsection:\n  <<: {mode: off}\n",
			"f.yaml:3:3: merge keys (<<) are not allowed (write the keys out)"},
		"tag":             {"kind: Sample\nname: !!str 5\n", `f.yaml:2:7: tag !!str: tags are not allowed`},
		"own tag":         {"kind: Sample\ndesired: !x {a: 1}\n", `f.yaml:2:10: tag !x: tags are not allowed`},
		"second document": {"kind: Sample\n---\nkind: Sample\n", `f.yaml:2:1: a second document begins: a file holds one`},
		"complex key":     {"kind: Sample\nlabels: {[a]: b}\n", `f.yaml:2:10: a key must be a plain text`},
		"not UTF-8":       {"kind: Sample\nname: é\xff\n", `f.yaml:2:8: not valid UTF-8`},
		"infinite":        {"kind: Sample\ndesired: {a: .nan}\n", `f.yaml:2:14: desired.a: .nan is no number that JSON can hold`},
		"too deep": {"kind: Sample\ndesired: " + strings.Repeat("[", 100) + strings.Repeat("]", 100),
			`f.yaml:2:74: nested deeper than 64 levels`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, problems := read(t, test.in, new(sample))
			if got := strings.Join(problems, "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestProblemsNameTheirRule(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Sample\nnme: a\n":                  "unknown-key",
		"name: a\n":                               "missing",
		"kind: sample\n":                          "value",
		"kind: Sample\ncount: x\n":                "value",
		"kind: Sample\nlist: {}\n":                "value",
		"kind: Sample\nname: a\nname: b\n":        "duplicate",
		"kind: Sample\nname: &a b\n":              "yaml-feature",
		"kind: Sample\nname: !!str b\n":           "yaml-feature",
		"kind: Sample\n<<: {name: a}\n":           "yaml-feature",
		"kind: Sample\n---\n":                     "yaml-feature",
		"kind: Sample\n? [a]\n: b\n":              "yaml-feature",
		"kind: [\n":                               "syntax",
		"kind: \xff\n":                            "syntax",
		"kind: Sample" + strings.Repeat(" ", 100): "size",
	} {
		doc, problems := Parse("f.yaml", []byte(text), 100)
		if doc != nil {
			problems = append(problems, doc.Decode(new(sample))...)
		}
		if len(problems) != 1 || problems[0].Rule != want {
			t.Errorf("%q: %+v, not one of the rule %s", text, problems, want)
		}
	}
}

func TestSyntaxMistakesNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Sample\nname: a\n  b: c\n":       "f.yaml:3: not YAML: mapping values are not allowed in this context",
		"kind: Sample\nlist: [a\nname: b\n":     "f.yaml:2: not YAML: did not find expected ',' or ']' (here, or in what begins here)",
		"list: [\n":                             "f.yaml:2: not YAML: did not find expected node content (here, or in what begins here)",
		"list: [":                               "f.yaml:1: not YAML: did not find expected node content (here, or in what begins here)",
		"list: [\r":                             "f.yaml:2: not YAML: did not find expected node content (here, or in what begins here)",
		"kind: Sample\nsection:\n  a: b\n c: d": "f.yaml:4: not YAML: did not find expected key (here, or in what begins here)",
		"kind: Sample\nname: 'a\n":              "f.yaml:2: not YAML: found unexpected end of stream",
		"name: *a\n":                            "f.yaml: not YAML: unknown anchor 'a' referenced",
	} {
		if _, problems := read(t, text, new(sample)); len(problems) != 1 || problems[0] != want {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

func TestParseRefusesBySize(t *testing.T) {
	doc, problems := Parse("f.yaml", make([]byte, 11), 10)
	if doc != nil || len(problems) != 1 || problems[0].Message != "the file has 11 bytes; at most 10 are read" {
		t.Error(doc, problems)
	}
}

func TestPosition(t *testing.T) {
	doc, _ := read(t, "kind: Sample\nlabels:\n  a.b: x\nitems:\n  - id: k1\n  - {id: k2}\nlist:\n", new(sample))
	for path, want := range map[string]Position{
		"kind":           {1, 7},
		"labels[a.b]":    {3, 8},
		"items[1].id":    {6, 10},
		"items[0]":       {5, 5},
		"items[0].gone":  {5, 5},
		"items[7].id":    {4, 1},
		"list":           {7, 6},
		"list.no.where":  {7, 1},
		"nothing":        {1, 1},
		"labels.nothing": {2, 1},
	} {
		if got := doc.Position(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	for path, want := range map[string]bool{"kind": true, "list": false, "items[1].id": true, "nothing": false} {
		if doc.Has(path) != want {
			t.Errorf("Has(%s) is not %t", path, want)
		}
	}
	if got := doc.Problem("items[1].id", "twice", "rename it").String(); got != "f.yaml:6:10: twice (rename it)" {
		t.Error(got)
	}
}

func TestSet(t *testing.T) {
	values := struct {
		s string
		b bool
		d time.Duration
		z Size
		r Rate
		t time.Time
		n int
	}{}
	for text, into := range map[string]any{
		"a": &values.s, "true": &values.b, "2d": &values.d, "256MiB": &values.z, "600/m": &values.r,
		"2027-06-01T00:00:00Z": &values.t, "7": &values.n,
	} {
		if err := Set(into, text); err != nil {
			t.Error(text, err)
		}
	}
	if values.s != "a" || !values.b || values.d != 48*time.Hour || values.z != 256<<20 || values.r != 10 ||
		values.t.Year() != 2027 || values.n != 7 {
		t.Errorf("%+v", values)
	}
	if err := Set(&values.n, "x"); err == nil || err.Error() != `"x" is no whole number` {
		t.Error(err)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "90d": 2160 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "0d": 0, "-5m": -5 * time.Minute,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "d", "1.5d", "-1d", "1d-2h", "1d+2h", "200000d", "106751d100h", "1d2", "5 m"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "17B": 17, "3KiB": 3072, "2 MiB": 2 << 20, "8GiB": 8 << 30, "1TiB": 1 << 40, "2KB": 2000, "3GB": 3e9,
	} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		var back Size
		if err := back.UnmarshalText([]byte(got.String())); err != nil || back != got {
			t.Errorf("%s does not read back: %v, %v", got, back, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1GiB", "1.5GiB", "9999999999GiB", "1gib", "8 G"} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]Rate{"10/s": 10, "600/m": 10, "1/h": 1.0 / 3600, "0/s": 0, "0": 0, "0.5/s": 0.5} {
		var got Rate
		if err := got.UnmarshalText([]byte(text)); err != nil || math.Abs(float64(got-want)) > 1e-12 {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"10", "/s", "10/d", "-1/s", "inf/s", "NaN/s"} {
		var got Rate
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestSchema(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal(Schema("Sample", sample{}), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sample", "type": "object",
		"additionalProperties": false, "required": []any{"kind"},
	}
	properties := got["properties"].(map[string]any)
	delete(got, "properties")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	for name, want := range map[string]string{
		"kind":    `{"const":"Sample","type":"string"}`,
		"count":   `{"type":"integer"}`,
		"port":    `{"minimum":0,"type":"integer"}`,
		"labels":  `{"additionalProperties":{"type":"string"},"type":"object"}`,
		"list":    `{"items":{"type":"string"},"type":"array"}`,
		"desired": `{"type":"object"}`,
		"items": `{"items":{"additionalProperties":false,"properties":{"id":{"minLength":1,"type":"string"},` +
			`"notAfter":{"format":"date-time","type":"string"}},"required":["id"],"type":"object"},"type":"array"}`,
	} {
		if text, _ := json.Marshal(properties[name]); string(text) != want {
			t.Errorf("%s: %s", name, text)
		}
	}
	if _, there := properties["Ignored"]; there || len(properties) != 11 {
		t.Errorf("%d properties", len(properties))
	}
}

// checkPlaces fails where a problem is about nothing, or behind the end.
func checkPlaces(t *testing.T, data []byte, problems []hub.Problem) {
	t.Helper()
	lines := lineBreak.Split(string(data), -1)
	for _, p := range problems {
		if p.Message == "" || p.Rule == "" || p.Line < 0 || p.Line > len(lines) || p.Column < 0 ||
			p.Line > 0 && p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 {
			t.Errorf("%+v of %q", p, data)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("kind: Sample\nitems: [{id: k1}]\n"))
	f.Add([]byte("a: &a [*a]\n<<: {b: c}\n? [x]\n: !t y\n"))
	f.Add([]byte("desired:\n  - |+\n    x\n\n  # c\n  - 'y\n    z'\n"))
	for _, refused := range []string{
		"kind: Sample\n---\nkind: Sample\n", "kind: !!str Sample\n", "kind: Sample\nkind: Sample\n", "kind: Sample\nnme: x\n",
		"%YAML 1.1\n---\nkind: Sample\n...\n", "%TAG ! tag:x,2000:\n---\n!y {}\n", "\ufeffkind: Sample\r\n", "kind: \xff", "list: [", "a:\n\t- b", "\x00",
		strings.Repeat("[", 200), strings.Repeat("- ", 200), "kind: \"\\ud800\"", "&a [*a, *a]", "<<: [*a]", "count: 0x7fffffffffffffff1", "ratio: 1e999",
		"section: {interval: 9999999999d, max_bytes: 99999999999999999999TiB, host_rate: NaN/s}", "desired: {? {a: b} : c, 1: 2, ~: x, .inf: -.inf}",
	} {
		f.Add([]byte(refused))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, problems := Parse("f", data, 1<<16)
		checkPlaces(t, data, problems)
		if doc == nil {
			if len(problems) == 0 {
				t.Fatal("no document and no problem")
			}
			return
		}
		var s sample
		mistakes := doc.Decode(&s)
		checkPlaces(t, data, mistakes)
		if len(problems)+len(mistakes) > 0 {
			return
		}
		if s.Desired != nil && !json.Valid(s.Desired) {
			t.Errorf("not JSON: %s", s.Desired)
		}
		edited, err := Append("f", data, "list", "new")
		if err != nil {
			t.Fatal(err)
		}
		var again sample
		doc, problems = Parse("f", edited, 1<<20)
		if len(problems) > 0 {
			t.Fatalf("%s\nafter\n%s", problems[0], bytes.TrimSpace(edited))
		}
		if problems = doc.Decode(&again); len(problems) > 0 {
			t.Fatalf("%s\nafter\n%s", problems[0], edited)
		}
		s.List = append(s.List, "new")
		if !reflect.DeepEqual(s, again) {
			t.Errorf("%+v\nbecame\n%+v", s, again)
		}
	})
}
