package fleetops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// CISystems are the names that InitOptions.CI takes.
func CISystems() []string { return []string{"forgejo", "gitea", "github", "gitlab", "pre-commit"} }

// ciFile is a file that checks a fleet where it is reviewed, and what a person
// has to do for it to be run.
type ciFile struct {
	file string // as seen from where the fleet's folder is
	text []byte
	mode fs.FileMode
	next string
}

// ciFiles works out the files for the systems named, for the fleet in the folder
// dir, which need not exist. One that is there already is an error.
func ciFiles(dir string, systems []string) ([]ciFile, error) {
	if len(systems) == 0 {
		return nil, nil
	}
	up, fleet, err := withinRepository(dir)
	if err != nil {
		return nil, err
	}
	var files []ciFile
	for _, system := range slices.Compact(slices.Sorted(slices.Values(systems))) {
		f, err := newCIFile(system, filepath.Join(dir, up), fleet)
		if err != nil {
			return nil, err
		}
		if _, err := os.Lstat(f.file); err == nil {
			return nil, fmt.Errorf("%s exists: it is not overwritten", f.file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// withinRepository returns the way up from dir to the top of its repository, and
// the way down.
func withinRepository(dir string) (up, down string, err error) {
	root, err := Repository(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("%s lies in no git repository, where the CI files belong: run git init first", dir)
	}
	if err != nil {
		return "", "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	up, err = filepath.Rel(abs, root)
	if err != nil {
		return "", "", err
	}
	down, err = filepath.Rel(root, abs)
	return up, filepath.ToSlash(down), err
}

const gitlabMain = ".gitlab-ci.yml"

// newCIFile makes the file for a system, for a repository's top and the fleet's
// path below it.
func newCIFile(system, top, fleet string) (ciFile, error) {
	f := ciFile{mode: 0o644}
	template, place := system+".yml", ""
	switch system {
	case "github", "forgejo":
		place = "." + system + "/workflows/fleet.yml"
	case "gitea":
		place, template = ".gitea/workflows/fleet.yml", "forgejo.yml"
	case "gitlab":
		place = gitlabMain
		if _, err := os.Lstat(filepath.Join(top, gitlabMain)); err == nil {
			place = ".gitlab/fleet-ci.yml"
			f.next = "add to " + gitlabMain + ", under include:  - local: " + place
		}
	case "pre-commit":
		place, template, f.mode = ".githooks/pre-commit", system, 0o755
		f.next = "git config core.hooksPath .githooks"
	default:
		return f, fmt.Errorf("%q is none of %s", system, strings.Join(CISystems(), ", "))
	}
	text, err := scaffold.ReadFile("scaffold/ci/" + template)
	f.file, f.text = filepath.Join(top, place), []byte(fill(string(text), system, fleet))
	return f, err
}

// fill puts into a template what differs between repositories: where the fleet
// is, and what runners are called.
func fill(text, system, fleet string) string {
	quoted := "'" + strings.ReplaceAll(fleet, "'", "''") + "'"
	if system == "pre-commit" {
		quoted = "'" + strings.ReplaceAll(fleet, "'", `'\''`) + "'"
	}
	if fleet == "fleet" {
		quoted = fleet
	}
	text = strings.Replace(text, "FLEET: fleet\n", "FLEET: "+quoted+"\n", 1)
	text = strings.Replace(text, "FLEET=fleet\n", "FLEET="+quoted+"\n", 1)
	if system == "gitea" {
		text = strings.Replace(text, "runs-on: docker\n", "runs-on: ubuntu-latest\n", 1)
	}
	return text
}
