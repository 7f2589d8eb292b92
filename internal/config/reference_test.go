package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	referenceStart = "<!-- reference: kept equal to internal/config by a test -->\n"
	referenceEnd   = "<!-- end of reference -->"
)

// reference renders the settings as the README shows them.
func reference() string {
	var b strings.Builder
	b.WriteString("| setting | default | meaning |\n| --- | --- | --- |\n")
	for _, f := range Fields() {
		value := ""
		if f.Default != "" {
			value = "`" + f.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, value, strings.ReplaceAll(f.Doc, "|", "\\|"))
	}
	return b.String()
}

// With UPDATE=1 the test writes the README's table instead of comparing it.
func TestReferenceInReadme(t *testing.T) {
	file := filepath.Join("..", "..", "README.md")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), referenceStart)
	table, tail, ok2 := strings.Cut(rest, referenceEnd)
	if !ok || !ok2 {
		t.Fatal("the README has no place for the reference")
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(head+referenceStart+reference()+referenceEnd+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != reference() {
		t.Errorf("the README's reference differs: UPDATE=1 go test ./internal/config\ngot:\n%s\nwant:\n%s", table, reference())
	}
}
