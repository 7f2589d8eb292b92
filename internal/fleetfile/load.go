// Package fleetfile reads a fleet folder: files in, a [hub.Fleet] out, or every
// mistake of every file with its place.
//
// It works in three steps. The shape of the folder: which files there are, and
// what must not be there. Each file by itself: parse, check, open its seals;
// what is found depends on nothing but the file's path and bytes and the keys it
// is opened with, so a [Loader] remembers it by the content's id in git and
// reads only what changed. The whole: what stands twice, what is missing, what
// contradicts.
//
// A mistake inside one host's file costs that host alone, which keeps its last
// good record; any other costs the commit. For people who write the files both
// are mistakes: [Load], which `hub fleet validate` calls, is the same loader
// without that mercy.
package fleetfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
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
	// OpenURL returns the sealed URL, which must be that of channel of owner.
	OpenURL(owner hub.Owner, channel, armored string) (hub.Secret, error)
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
// use them, nor sealed URLs of channels, which are empty. With one, every seal of a
// host that is not retired, of a customer and the fleet must open.
func Load(fsys fs.FS, opener Opener, opts Options) (*hub.Fleet, []hub.Problem, error) {
	loaded, err := NewLoader(opener, opts.Base).Load(fsys, Request{Revision: opts.Revision, Strict: true})
	return loaded.Fleet, loaded.Problems, err
}

// Loader reads one commit's fleet folder after another's. It remembers what it
// made of each file, and shares the records of hosts between fleets: a host whose
// file did not change is the same *hub.Host in both. It is not safe for
// concurrent use.
type Loader struct {
	opener    Opener
	base      hub.Thresholds
	sections  map[string]*section // of the folder read last, by path
	labels    labelSets
	schedules schedules
}

// NewLoader makes a Loader that has read nothing; base are the thresholds where
// the fleet names none. For opener see [Load].
func NewLoader(opener Opener, base hub.Thresholds) *Loader {
	return &Loader{opener: opener, base: base}
}

// Request says which fleet to read, and where last good records come from.
type Request struct {
	Revision string // the commit that the folder belongs to
	Strict   bool   // mistakes of a host's file are mistakes of the whole

	// InForce is the fleet whose records stand in for those of bad host files.
	// Where it is nil, Kept names their blobs by the path that they had in the
	// folder, and the file system reads them (Blob(id string) ([]byte, error)).
	InForce *hub.Fleet
	Kept    map[string]string
}

// Loaded is what was read.
type Loaded struct {
	Fleet    *hub.Fleet        // nil where there are Problems
	Problems []hub.Problem     // for which the commit must not be used; sorted
	Bad      []BadFile         // host files whose hosts have their last good record, if any; by name
	Kept     map[string]string // of those records the blobs, by path: the Request.Kept of a restart
}

// BadFile is a host's file with mistakes.
type BadFile struct {
	Name     string
	HostID   string
	Blob     string        // git's id of the content; empty: from a plain folder
	Kept     bool          // the host has its last good record; else it is not in the fleet
	Problems []hub.Problem // sorted
}

// Load reads the fleet folder fsys. The error is for what is not the folder's
// mistake: it could not be read.
func (l *Loader) Load(fsys fs.FS, r Request) (Loaded, error) {
	sections, problems, err := l.scan(fsys)
	if err != nil || sections == nil {
		return Loaded{Problems: problems}, err
	}
	s := stage{fsys: fsys, opener: l.opener, labels: &l.labels, schedules: &l.schedules}
	recipients, recipientProblems, err := s.readRecipients()
	if err != nil {
		return Loaded{}, err
	}
	s.recipients = recipients
	if err := s.all(sections); err != nil {
		return Loaded{}, err
	}
	l.sections = sections
	w := whole{stage: &s, base: l.base, request: r, problems: append(problems, recipientProblems...)}
	return w.load(sections)
}

// stage is the second step: one file by itself.
type stage struct {
	fsys       fs.FS
	opener     Opener
	recipients []seal.Recipient
	labels     *labelSets
	schedules  *schedules
	trusted    bool // without an opener, seals are taken as they are
}

// all reads the files that are not known yet, several at a time.
func (s *stage) all(sections map[string]*section) error {
	var unread []*file
	for _, section := range sections {
		for _, f := range section.files {
			if !f.read {
				unread = append(unread, f)
			}
		}
	}
	unread = s.fastest(unread)
	errs := make([]error, len(unread))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(unread)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(unread) {
					return
				}
				errs[i] = s.read(unread[i])
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// fastest puts files in the order in which the file system reads them fastest,
// where it knows one.
func (s *stage) fastest(files []*file) []*file {
	fsys, ok := s.fsys.(interface{ ReadOrder(ids []string) []int })
	if !ok {
		return files
	}
	ids := make([]string, len(files))
	for i, f := range files {
		ids[i] = f.blob
	}
	sorted := make([]*file, 0, len(files))
	for _, i := range fsys.ReadOrder(ids) {
		sorted = append(sorted, files[i])
	}
	return sorted
}

func (s *stage) read(f *file) error {
	data, problem, err := readFile(s.fsys, f.name)
	if err != nil {
		return err
	}
	if problem != nil {
		f.tooLarge, f.problems = true, []hub.Problem{*problem}
	} else {
		s.parse(f, data)
	}
	f.read = true
	return nil
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

// position returns where the value at path stands in a file, which is read again
// for it: positions are asked for only when something is wrong.
func (s *stage) position(name, path string) yamlfile.Position {
	data, problem, err := readFile(s.fsys, name)
	if err != nil || problem != nil {
		return yamlfile.Position{}
	}
	doc, _ := yamlfile.Parse(name, data, maxFileBytes)
	if doc == nil {
		return yamlfile.Position{}
	}
	return doc.Position(path)
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
