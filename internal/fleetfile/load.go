// Package fleetfile reads a fleet folder: files in, a [hub.Fleet] out, or every
// mistake of every file with its place.
//
// It works in two stages. The first looks at one file by itself: parse, check,
// open its seals; what it finds depends on nothing but the file's path and
// bytes and the keys it is opened with. The second looks at the whole: what
// stands twice, what is missing, what contradicts. The linter is the loader:
// `hub fleet validate` calls the same Load as the hub.
package fleetfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/yamlfile"
)

const (
	maxFileBytes = 256 << 10
	maxFiles     = 200_000
)

// Opener opens seals: *seal.Opener.
type Opener interface {
	// Open returns the digest of the sealed key, which must be key keyID of owner.
	Open(owner hub.Owner, keyID, armored string) (hub.Digest, error)
}

// Options say what Load cannot find in the folder.
type Options struct {
	// Revision is the commit that the folder was read from.
	Revision string
	// Base are the thresholds that hold where the fleet names none, as
	// configured; zero where they are not known.
	Base hub.Thresholds
}

// Load reads the fleet folder fsys, whose top holds fleet.yaml.
//
// It returns the fleet, or problems (sorted, files named within the folder) and
// no fleet. The error is for what is not the folder's mistake: it could not be
// read.
//
// Without an opener (a nil interface) the seals are checked by their form and
// against recipients.txt, and the keys of the fleet have no digests: nobody can
// use them. With one, every seal of a host that is not retired must open.
func Load(fsys fs.FS, opener Opener, opts Options) (*hub.Fleet, []hub.Problem, error) {
	tree, problems, err := scan(fsys)
	if err != nil || len(problems) > 0 && tree == nil {
		return nil, problems, err
	}
	s := stage{fsys: fsys, opener: opener}
	recipients, recipientProblems, err := s.readRecipients()
	if err != nil {
		return nil, nil, err
	}
	problems = append(problems, recipientProblems...)
	s.recipients = recipients

	files, err := s.all(tree)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		problems = append(problems, f.problems...)
	}
	w := whole{base: opts.Base, sealsOpened: opener != nil}
	spec, wholeProblems := w.check(files)
	if problems = append(problems, wholeProblems...); len(problems) > 0 {
		yamlfile.Sort(problems)
		return nil, problems, nil
	}
	spec.Revision = opts.Revision
	fleet, err := hub.NewFleet(spec)
	return fleet, nil, err
}

// scan walks the folder and returns the files to read, by their paths in order.
// The list is nil where there are too many.
func scan(fsys fs.FS) (files []string, problems []hub.Problem, err error) {
	files = []string{}
	count := 0
	folded := make(map[string]string)
	errTooMany := errors.New("too many files")
	err = fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if count++; count > maxFiles {
			return errTooMany
		}
		if entry.IsDir() && path.Base(name) == ".git" {
			return fs.SkipDir
		}
		report := func(message, hint string) {
			problems = append(problems, hub.Problem{File: name, Message: message, Hint: hint})
		}
		lower := strings.ToLower(name)
		if other, twice := folded[lower]; twice {
			report("differs from "+other+" only in case", "some file systems cannot hold both")
		}
		folded[lower] = name
		if !entry.IsDir() && !entry.Type().IsRegular() {
			report("neither a file nor a folder: links and submodules are not followed", "")
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		switch role, message, hint := placeOf(name); role {
		case misplaced:
			report(message, hint)
		case fleetRole, customerRole, hostRole:
			files = append(files, name)
		}
		return nil
	})
	if errors.Is(err, errTooMany) {
		return nil, []hub.Problem{{File: ".", Message: fmt.Sprintf("more than %d files and folders", maxFiles)}}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return files, problems, nil
}

// stage is the first stage: one file by itself.
type stage struct {
	fsys       fs.FS
	opener     Opener
	recipients []seal.Recipient
}

// all reads the files, several at a time.
func (s *stage) all(names []string) ([]*file, error) {
	files := make([]*file, len(names))
	errs := make([]error, len(names))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				files[i], errs[i] = s.read(names[i])
			}
		})
	}
	workers.Wait()
	return files, errors.Join(errs...)
}

func (s *stage) read(name string) (*file, error) {
	data, problem, err := readFile(s.fsys, name)
	if err != nil {
		return nil, err
	}
	if problem != nil {
		return &file{name: name, problems: []hub.Problem{*problem}}, nil
	}
	return s.parse(name, data), nil
}

func (s *stage) readRecipients() ([]seal.Recipient, []hub.Problem, error) {
	data, problem, err := readFile(s.fsys, RecipientsPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, []hub.Problem{{File: RecipientsPath, Message: "is missing", Hint: "hub fleet init writes one"}}, nil
	case err != nil:
		return nil, nil, err
	case problem != nil:
		return nil, []hub.Problem{*problem}, nil
	}
	recipients, problems := seal.ParseRecipients(RecipientsPath, data)
	return recipients, problems, nil
}

// readFile returns the file's content, or the problem that it is too large,
// before it is read.
func readFile(fsys fs.FS, name string) ([]byte, *hub.Problem, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() > maxFileBytes {
		return nil, &hub.Problem{File: name,
			Message: fmt.Sprintf("has %d KiB; at most %d KiB are read", info.Size()>>10, maxFileBytes>>10)}, nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1)) // Parse refuses the byte over
	return data, nil, err
}
