package fleetfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

const (
	// expiringSoon is how long before its end a key is warned of.
	expiringSoon = 14 * 24 * time.Hour
	// maxLintBytes is how much of a file is searched for secrets.
	maxLintBytes = 4 << 20
)

// Lint finds in the fleet folder fsys what the hub takes all the same and a
// reviewer should not: secrets in the clear, in any file that is text (these are
// errors), and, as warnings, keys that are or soon will be expired at now, a
// guard left open, maintenance windows that are over, files that do not name their schema. What Load reports is not
// repeated. The problems are sorted, files named within the folder; the error is
// for a file that could not be read.
func Lint(fsys fs.FS, now time.Time) ([]hub.Problem, error) {
	names, err := regularFiles(fsys)
	if err != nil {
		return nil, err
	}
	l := linter{fsys: fsys, now: now}
	found := make([][]hub.Problem, len(names))
	errs := make([]error, len(names))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				found[i], errs[i] = l.file(names[i])
			}
		})
	}
	workers.Wait()
	var problems []hub.Problem
	for _, some := range found {
		problems = append(problems, some...)
	}
	yamlfile.Sort(problems)
	return problems, errors.Join(errs...)
}

// regularFiles returns the files of the folder, whatever they are for, but for
// git's own; at most as many as Load reads.
func regularFiles(fsys fs.FS) (names []string, err error) {
	err = fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path.Base(name) == ".git" && entry.IsDir():
			return fs.SkipDir
		case len(names) == maxFiles:
			return fs.SkipAll
		case entry.Type().IsRegular():
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// linter looks at one file by itself.
type linter struct {
	fsys fs.FS
	now  time.Time
}

func (l *linter) file(name string) ([]hub.Problem, error) {
	f, err := l.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxLintBytes+1))
	if err != nil || isBinary(data) {
		return nil, err
	}
	var problems []hub.Problem
	if len(data) > maxLintBytes {
		problems = append(problems, hub.Problem{File: name, Rule: "not-looked-at", Warning: true,
			Message: fmt.Sprintf("only the first %d MiB were searched for secrets", maxLintBytes>>20), Hint: "keep large files elsewhere"})
	}
	problems = append(problems, findSecrets(name, data)...)
	switch role, _, _ := placeOf(name); role {
	case fleetRole, customerRole, hostRole:
		problems = append(problems, schemaLine(name, role, data)...)
		problems = append(problems, l.dates(name, role, data)...)
	}
	return problems, nil
}

// isBinary judges as git does: by a NUL near the beginning.
func isBinary(data []byte) bool {
	const looked = 8000
	return bytes.IndexByte(data[:min(looked, len(data))], 0) >= 0
}

const schemaComment = "# yaml-language-server: $schema="

// schemaLine finds files whose first comments do not lead an editor to the
// schema of their kind. A schema elsewhere, by its URL, is the author's choice.
func schemaLine(name string, role role, data []byte) []hub.Problem {
	want := strings.Repeat("../", strings.Count(name, "/")) + schemaDir + "/" + schemaNames[role]
	p := hub.Problem{File: name, Line: 1, Column: 1, Rule: "schema-line", Warning: true,
		Message: "does not tell editors its schema", Hint: "begin the file with: " + schemaComment + want}
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if text = bytes.TrimSpace(text); len(text) > 0 && text[0] != '#' {
			break
		}
		if got, ok := bytes.CutPrefix(text, []byte(schemaComment)); ok {
			if string(got) == want || bytes.HasPrefix(got, []byte("https://")) {
				return nil
			}
			p.Line, p.Message = line, fmt.Sprintf("leads editors to the schema %q", got)
		}
	}
	return []hub.Problem{p}
}

var schemaNames = map[role]string{fleetRole: "fleet.json", customerRole: "customer.json", hostRole: "host.json"}

// dated is the part that the three kinds have in common and Lint looks at.
type dated struct {
	Spec struct {
		State       string   `yaml:"state"`
		Keys        []Key    `yaml:"keys"`
		Guards      Guards   `yaml:"guards"`
		Maintenance []Window `yaml:"maintenance"`
	} `yaml:"spec"`
}

// dates finds what was right when it was written. Few files have any of it, so
// they are read as YAML only where the word stands.
func (l *linter) dates(name string, role role, data []byte) []hub.Problem {
	if !slices.ContainsFunc([]string{"notAfter", "allowRemoval", "maintenance"}, func(word string) bool { return bytes.Contains(data, []byte(word)) }) {
		return nil
	}
	doc, _ := yamlfile.Parse(name, data, maxFileBytes)
	if doc == nil {
		return nil
	}
	var f dated
	doc.Decode(&f) // mistakes, and the keys that dated leaves out, are Load's to report
	if f.Spec.State == string(hub.Retired) {
		return nil
	}
	var problems []hub.Problem
	owner := ownerOf(name)
	for i := range f.Spec.Keys {
		if rule, message, hint := l.expiry(owner, f.Spec.Keys, i); rule != "" {
			p := doc.Problem(fmt.Sprintf("spec.keys[%d].notAfter", i), message, hint)
			p.Rule, p.Warning = rule, true
			problems = append(problems, p)
		}
	}
	if n := f.Spec.Guards.AllowRemoval; role == fleetRole && n > 0 {
		p := doc.Problem("spec.guards.allowRemoval",
			fmt.Sprintf("allowRemoval is %d: until it is 0 again, any commit may remove that many hosts", n),
			"put it back to 0 once the removal is merged")
		p.Rule, p.Warning = "allow-removal", true
		problems = append(problems, p)
	}
	return append(problems, l.windowsOver(doc, f.Spec.Maintenance)...)
}

// windowsOver finds the windows that will not open again.
func (l *linter) windowsOver(doc *yamlfile.Document, windows []Window) (problems []hub.Problem) {
	r := reader{file: &file{}, stage: &stage{schedules: &schedules{}}, doc: doc}
	for i, w := range windows {
		at := fmt.Sprintf("spec.maintenance[%d]", i)
		schedule, _ := r.schedule(at, w).(calendar.Schedule)
		if schedule == nil {
			continue // Load's to report
		}
		end, ends := schedule.End()
		if !ends || end.After(l.now) {
			continue
		}
		p := doc.Problem(at+".name", fmt.Sprintf("window %s closed for good on %s", w.Name, end.UTC().Format(time.RFC3339)), "take it away")
		p.Rule, p.Warning = "window-over", true
		problems = append(problems, p)
	}
	return problems
}

// expiry judges key i of an owner; an empty rule: nothing to say.
func (l *linter) expiry(owner hub.Owner, keys []Key, i int) (rule, message, hint string) {
	k := keys[i]
	if k.NotAfter == nil || k.NotAfter.Sub(l.now) >= expiringSoon {
		return "", "", ""
	}
	successor := "" // a key that is valid and lasts longer
	for j, other := range keys {
		if j != i && (other.NotAfter == nil || !other.NotAfter.Before(l.now) && other.NotAfter.After(*k.NotAfter)) {
			successor = other.ID
		}
	}
	end := k.NotAfter.UTC().Format(time.RFC3339)
	rotate := "hub fleet rotate " + owner.String()
	switch expired := l.now.After(*k.NotAfter); {
	case expired && successor != "":
		return "key-expired", fmt.Sprintf("key %s of %s expired on %s", k.ID, owner, end), rotate + " --finish removes it"
	case expired:
		return "key-expired", fmt.Sprintf("key %s of %s expired on %s, and NO OTHER KEY IS VALID: whoever uses it is refused", k.ID, owner, end),
			"make a new one now: " + rotate
	case successor != "":
		return "key-expiring", fmt.Sprintf("key %s of %s expires %s, on %s; %s lasts longer", k.ID, owner, inDays(k.NotAfter.Sub(l.now)), end, successor),
			"once the new key is in use: " + rotate + " --finish"
	default:
		return "key-expiring", fmt.Sprintf("key %s of %s expires %s, on %s, and NO OTHER KEY LASTS LONGER: whoever uses it is refused from then on",
			k.ID, owner, inDays(k.NotAfter.Sub(l.now)), end), "make a new one now: " + rotate
	}
}

func inDays(d time.Duration) string {
	switch days := int(d.Hours() / 24); days {
	case 0:
		return "within a day"
	case 1:
		return "in 1 day"
	default:
		return fmt.Sprintf("in %d days", days)
	}
}
