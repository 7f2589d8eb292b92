package fleetfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"felhom.eu/hub/internal/hub"
)

// compileSchemas reads the schemas with a validator that is not ours.
func compileSchemas(t *testing.T) map[role]*jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat() // as editors do
	compiled := map[role]*jsonschema.Schema{}
	for role, name := range schemaNames {
		text := Schemas()[schemaDir+"/"+name]
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource("https://example.com/"+name, doc); err != nil {
			t.Fatal(err)
		}
		schema, err := compiler.Compile("https://example.com/" + name) // holds it against the 2020-12 meta-schema
		if err != nil {
			t.Fatal(err)
		}
		if schema.DraftVersion != 2020 {
			t.Errorf("%s: draft %d", name, schema.DraftVersion)
		}
		compiled[role] = schema
	}
	return compiled
}

// refuses returns why an editor refuses the file: it is no YAML, or the schema
// says so.
func refuses(t *testing.T, schema *jsonschema.Schema, data []byte) error {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	timesAreTexts(&doc)
	var value any
	if err := doc.Decode(&value); err != nil {
		return err
	}
	err := schema.Validate(value)
	if err != nil && !errors.As(err, new(*jsonschema.ValidationError)) {
		t.Fatal(err)
	}
	return err
}

// timesAreTexts makes of YAML 1.1's timestamps the texts that editors, which
// read YAML 1.2, take them for.
func timesAreTexts(n *yaml.Node) {
	if n.Tag == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, child := range n.Content {
		timesAreTexts(child)
	}
}

// TestSchemasJudgeAsTheLoader: an editor accepts what the hub takes, and refuses
// what is of the wrong form.
func TestSchemasJudgeAsTheLoader(t *testing.T) {
	schemas, c := compileSchemas(t), newCast(t)
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fsys := c.folder(t, archive)
		_, problems, err := Load(fsys, nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		byFile := map[string][]string{}
		for _, p := range problems {
			byFile[p.File] = append(byFile[p.File], p.Rule)
		}
		for file, content := range fsys {
			role, _, _ := placeOf(file)
			schema, rules := schemas[role], byFile[file]
			if schema == nil {
				continue
			}
			err := refuses(t, schema, content.Data)
			ofForm := slices.ContainsFunc(rules, func(rule string) bool {
				return rule == "unknown-key" || rule == "missing" || rule == "value"
			})
			switch {
			case len(rules) == 0 && err != nil:
				t.Errorf("%s: %s: the hub takes it: %v", name, file, err)
			case ofForm && err == nil:
				t.Errorf("%s: %s: an editor takes what breaks %v", name, file, rules)
			}
			if err == nil {
				good++
			} else {
				bad++
			}
		}
	}
	if good < 10 || bad < 5 {
		t.Errorf("too few files: %d good, %d bad", good, bad)
	}
}

// TestSchemaRefusals has one mistake each.
func TestSchemaRefusals(t *testing.T) {
	schema := compileSchemas(t)[hostRole]
	const good = `apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: acme-1, customer: acme, labels: {site: berlin}}
spec:
  state: active
  monitor: {staleAfter: 1d12h, downAfter: 0}
  keys:
    - {id: k1, notAfter: 2027-06-01T00:00:00Z, sealedTo: [9f2c41d07be3a655], sealed: x}
  desired: {a: [1, null]}
`
	if err := refuses(t, schema, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for old, mistake := range map[string]string{
		"hub.felhom.eu/v1":               "hub.felhom.eu/v2",
		"kind: Host":                     "kind: Customer",
		"kind: Host\n":                   "",
		"name: acme-1,":                  "",
		"acme-1":                         "Acme-1",
		"customer: acme":                 "customer: -acme",
		"site: berlin":                   "site: [berlin]",
		"state: active":                  "state: activ",
		"staleAfter: 1d12h":              "staleAfter: soon",
		"downAfter: 0":                   "upAfter: 0",
		"id: k1":                         "id: K1",
		"notAfter: 2027-06-01T00:00:00Z": "notAfter: tomorrow",
		"9f2c41d07be3a655":               "9f2c",
		"sealed: x":                      "sealed: ''",
		"sealed: x}":                     "sealed: x, key: y}",
		"{a: [1, null]}":                 "[a]",
	} {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not there", old)
		}
		if err := refuses(t, schema, []byte(strings.Replace(good, old, mistake, 1))); err == nil {
			t.Errorf("%q instead of %q is taken", mistake, old)
		}
	}
}

// TestTheProjectsOwnFilesFitTheirSchemas looks at the schemas as they lie there.
func TestTheProjectsOwnFilesFitTheirSchemas(t *testing.T) {
	var files []string
	for _, pattern := range []string{FleetPath, CustomerPath("*"), HostPath("*", "*")} {
		some, err := filepath.Glob(filepath.Join("../../fleet", pattern))
		if err != nil || len(some) == 0 {
			t.Fatal(pattern, err)
		}
		files = append(files, some...)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// Found as an editor finds it: by the file's first line.
		line, _, _ := strings.Cut(string(data), "\n")
		relative, ok := strings.CutPrefix(line, schemaComment)
		if !ok {
			t.Errorf("%s begins with %q", file, line)
			continue
		}
		schema, err := jsonschema.NewCompiler().Compile(filepath.Join(filepath.Dir(file), relative))
		if err != nil {
			t.Fatal(err)
		}
		if err := refuses(t, schema, data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestRenderedFilesFitTheirSchemas: so do the files that the commands write.
func TestRenderedFilesFitTheirSchemas(t *testing.T) {
	schemas := compileSchemas(t)
	key := Key{ID: "k1", SealedTo: []string{"1234567890123456", "12e4567890123456"}, Sealed: "x\n"}
	host, err := HostFile{APIVersion: APIVersion, Kind: "Host", Metadata: HostMetadata{Name: "acme-1", Customer: "acme", Labels: map[string]string{"rack": "7"}},
		Spec: HostSpec{DisplayName: "true", State: string(hub.Active), Keys: []Key{key}}}.Render()
	if err != nil {
		t.Fatal(err)
	}
	customer, err := CustomerFile{APIVersion: APIVersion, Kind: "Customer", Metadata: NameOnly{Name: "123"}, Spec: CustomerSpec{Keys: []Key{}}}.Render()
	if err != nil {
		t.Fatal(err)
	}
	for role, data := range map[role][]byte{hostRole: host, customerRole: customer} {
		if err := refuses(t, schemas[role], data); err != nil {
			t.Errorf("%v\n%s", err, data)
		}
	}
}
