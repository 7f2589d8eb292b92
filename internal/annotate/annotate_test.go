package annotate

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"testing"

	"felhom.eu/hub/internal/hub"
)

var update = flag.Bool("update", false, "write testdata anew")

// problems has one of each shape, and every character that a form escapes.
var problems = []hub.Problem{
	{File: "fleet/fleet.yaml", Message: "is missing", Rule: "missing", Hint: "hub fleet init writes one"},
	{File: "fleet/customers/acme/hosts/acme-1.yaml", Line: 7, Column: 12, Rule: "secret", Message: "a secret in the clear: a GitHub token"},
	{File: "fleet/100% a,b:c.md", Line: 3, Warning: true, Rule: "schema-line", Message: "50 %: one\r\ntwo, \"three\" <é>"},
	{File: "a:b.yaml", Line: 1, Column: 1, Message: "of no rule"},
}

func TestGolden(t *testing.T) {
	tool := Tool{Name: "hub", Version: "v1.2.3", Rules: []Rule{{"missing", "Not there"}, {"schema-line", "No schema"}, {"secret", "A secret"}}}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"github.txt":     func(w *bytes.Buffer) error { return GitHub(w, problems) },
		"problems.sarif": func(w *bytes.Buffer) error { return SARIF(w, tool, problems) },
		"empty.sarif":    func(w *bytes.Buffer) error { return SARIF(w, Tool{Name: "hub"}, nil) },
	} {
		var got bytes.Buffer
		if err := write(&got); err != nil {
			t.Fatal(err)
		}
		file := "testdata/" + name
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got.Bytes(), want)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestWriteErrors(t *testing.T) {
	if GitHub(fullDisk{}, problems) == nil || SARIF(fullDisk{}, Tool{}, problems) == nil {
		t.Error("a failed write is not an error")
	}
}
