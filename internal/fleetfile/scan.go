package fleetfile

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"

	"felhom.eu/hub/internal/hub"
)

// section is a part of the folder that is known as one by git's id of it: a
// customer's folder, or one name at the top.
type section struct {
	hash     string // empty: not known, so never taken for unchanged
	entries  int    // files and folders
	files    []*file
	problems []hub.Problem // of its shape
}

var errTooMany = errors.New("too many files")

// scan finds the files to read. A section that did not change is taken over with
// all that is known of its files, and a file that did not change with what is
// known of it. The result is nil where there are too many files.
func (l *Loader) scan(fsys fs.FS) (map[string]*section, []hub.Problem, error) {
	sc := scanner{fsys: fsys, old: l.sections, sections: map[string]*section{}}
	err := sc.names(".", func(entry fs.DirEntry) error {
		if entry.Name() == customersDir && entry.IsDir() {
			sc.count++
			return sc.names(customersDir, func(entry fs.DirEntry) error { return sc.section(customersDir+"/"+entry.Name(), entry) })
		}
		return sc.section(entry.Name(), entry)
	})
	if errors.Is(err, errTooMany) {
		return nil, []hub.Problem{{File: ".", Message: fmt.Sprintf("more than %d files and folders", maxFiles)}}, nil
	}
	return sc.sections, sc.problems, err
}

type scanner struct {
	fsys     fs.FS
	old      map[string]*section
	sections map[string]*section
	problems []hub.Problem // between sections
	count    int
}

// names calls each for every name in a folder, and reports names that differ only
// in case.
func (sc *scanner) names(dir string, each func(fs.DirEntry) error) error {
	entries, err := fs.ReadDir(sc.fsys, dir)
	if err != nil {
		return err
	}
	sc.problems = append(sc.problems, collisions(dir, entries)...)
	for _, entry := range entries {
		if err := each(entry); err != nil {
			return err
		}
	}
	return nil
}

// section takes over the section at name, or looks at all that is below it.
func (sc *scanner) section(name string, entry fs.DirEntry) error {
	hash := contentHash(entry)
	s := sc.old[name]
	if s == nil || hash == "" || s.hash != hash {
		var err error
		if s, err = sc.look(name, entry, hash); err != nil {
			return err
		}
	}
	sc.sections[name] = s
	if sc.count += s.entries; sc.count > maxFiles {
		return errTooMany
	}
	return nil
}

func (sc *scanner) look(name string, entry fs.DirEntry, hash string) (*section, error) {
	s := &section{hash: hash}
	known := map[string]*file{}
	if old := sc.old[name]; old != nil {
		for _, f := range old.files {
			known[f.name] = f
		}
	}
	return s, s.add(sc.fsys, name, entry, known, maxFiles-sc.count)
}

// add looks at name and all below it.
func (s *section) add(fsys fs.FS, name string, entry fs.DirEntry, known map[string]*file, most int) error {
	if s.entries++; s.entries > most {
		return errTooMany
	}
	if entry.IsDir() {
		return s.addFolder(fsys, name, known, most)
	}
	report := func(message, hint string) {
		s.problems = append(s.problems, hub.Problem{File: name, Rule: "out-of-place", Message: message, Hint: hint})
	}
	if !entry.Type().IsRegular() {
		report("neither a file nor a folder: links and submodules are not followed", "")
		return nil
	}
	switch role, message, hint := placeOf(name); role {
	case misplaced:
		report(message, hint)
	case fleetRole, customerRole, hostRole:
		hash := contentHash(entry)
		f := known[name]
		if f == nil || hash == "" || f.blob != hash {
			f = &file{name: name, blob: hash}
		}
		s.files = append(s.files, f)
	}
	return nil
}

func (s *section) addFolder(fsys fs.FS, name string, known map[string]*file, most int) error {
	if path.Base(name) == ".git" {
		return nil
	}
	entries, err := fs.ReadDir(fsys, name)
	if err != nil {
		return err
	}
	s.problems = append(s.problems, collisions(name, entries)...)
	for _, entry := range entries {
		if err := s.add(fsys, name+"/"+entry.Name(), entry, known, most); err != nil {
			return err
		}
	}
	return nil
}

// contentHash returns git's id of an entry; empty in a plain folder.
func contentHash(entry fs.DirEntry) string {
	if known, ok := entry.(interface{ ContentHash() string }); ok {
		return known.ContentHash()
	}
	return ""
}

// collisions finds names of one folder that some file systems cannot hold both.
func collisions(dir string, entries []fs.DirEntry) []hub.Problem {
	var problems []hub.Problem
	folded := make(map[string]string, len(entries))
	for _, entry := range entries {
		name := entry.Name()
		key := fold(name)
		if other, twice := folded[key]; twice {
			problems = append(problems, hub.Problem{File: path.Join(dir, name), Rule: "case-collision",
				Message: "differs from " + path.Join(dir, other) + " only in case", Hint: "some file systems cannot hold both"})
		}
		folded[key] = name
	}
	return problems
}

// fold maps names that differ only in case, by Unicode's simple folding ("ſ" is
// an s, the Kelvin sign a k), to one.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		least := r // of the runes that fold together
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return unicode.ToLower(least)
	}, name)
}
