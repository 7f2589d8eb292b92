package app_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// serverClock is what asks a ClickHouse for the time.
var serverClock = regexp.MustCompile(`(?i)\b(now|now64|nowInBlock|nowInBlock64|today|yesterday|current_timestamp|current_date|curdate|utc_timestamp|UTCTimestamp)\s*\(`)

// What is true of a report is so by the hub's clock: no SQL of the hub asks the
// server for the time.
func TestNoSQLAsksForTheTime(t *testing.T) {
	for text, asks := range map[string]bool{
		"WHERE at > now() - 1": true, "now64(3, 'UTC')": true, "SELECT Today()": true, "known(at)": false, "now_at": false,
	} {
		if serverClock.MatchString(text) != asks {
			t.Errorf("%q asks for the time: %v", text, !asks)
		}
	}
	texts := 0
	eachFile(t, func(name string, data []byte) {
		var literals []string
		switch {
		case strings.HasSuffix(name, ".sql"):
			literals = []string{string(data)}
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			literals = literalsOf(t, name, data)
		}
		for _, text := range literals {
			texts++
			if found := serverClock.FindString(text); found != "" {
				t.Errorf("%s: %s) is the server's clock: pass the time as a parameter", name, found)
			}
		}
	})
	if texts < 1000 {
		t.Errorf("only %d texts were looked at", texts)
	}
}

func literalsOf(t *testing.T, name string, data []byte) (literals []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, data, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			literals = append(literals, lit.Value)
		}
		return true
	})
	return literals
}

// What decides about silence goes by the clock that it is given: time.Now is its
// default, and nothing else.
func TestSilenceGoesByTheGivenClock(t *testing.T) {
	asked := regexp.MustCompile(`time\.(Now|Since|Until|After|AfterFunc|Sleep|NewTimer|Tick)\b`)
	given := regexp.MustCompile(`o\.Now = time\.Now$`)
	files := 0
	eachFile(t, func(name string, data []byte) {
		pkg := filepath.Base(filepath.Dir(name))
		if pkg != "blind" && pkg != "deadman" && pkg != "ingest" && pkg != "hub" && pkg != "wire" || strings.HasSuffix(name, "_test.go") || !strings.HasSuffix(name, ".go") {
			return
		}
		if filepath.Base(filepath.Dir(filepath.Dir(name))) != "internal" {
			return
		}
		files++
		for i, line := range strings.Split(string(data), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if asked.MatchString(code) && !given.MatchString(strings.TrimSpace(code)) {
				t.Errorf("%s:%d: %s", name, i+1, strings.TrimSpace(line))
			}
		}
	})
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

// eachFile gives f the files of the repository's code.
func eachFile(t *testing.T, f func(name string, data []byte)) {
	t.Helper()
	for _, root := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(repositoryRoot, root), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(name)
			if err == nil {
				f(name, data)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
