package fleetfile

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"io/fs"
	"path"
	"slices"
	"strings"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/yamlfile"
)

// Single is what one file says by itself: at most one of Fleet, Customer and
// Host is set, none where nothing could be read.
type Single struct {
	Name     string
	Fleet    *hub.FleetSpec
	Customer *hub.Customer
	Host     *hub.Host
	Problems []hub.Problem

	file *file
}

// ParseSingle reads one file without its fleet; name is its path in the fleet
// folder and says of what kind it is. Seals stay closed, so the keys have no
// digests; their form is checked, unless they are trusted as those of a fleet in
// force.
func ParseSingle(name string, data []byte, trusted bool) *Single {
	f := &file{name: name, read: true}
	s := stage{labels: &labelSets{}, schedules: &schedules{}, trusted: trusted}
	s.parse(f, data)
	return &Single{Name: name, Fleet: f.fleet, Customer: f.customer, Host: f.host, Problems: f.problems, file: f}
}

// Keys returns the keys that the file holds.
func (s *Single) Keys() []hub.Key {
	switch {
	case s.Host != nil:
		return s.Host.Keys
	case s.Customer != nil:
		return s.Customer.Keys
	case s.Fleet != nil:
		return s.Fleet.Keys
	}
	return nil
}

// Seal returns the digest of the ciphertext of Keys()[i]: two seals with the same
// one are the same text.
func (s *Single) Seal(i int) [sha256.Size]byte { return s.file.seals[i] }

// Channels returns the channels that the file holds. Those with a sealed URL have none.
func (s *Single) Channels() []*hub.Channel {
	switch {
	case s.Customer != nil:
		return s.Customer.Channels
	case s.Fleet != nil:
		return s.Fleet.Channels
	}
	return nil
}

// Address returns the digest of the URL of Channels()[i], or of its ciphertext where it
// is sealed: two with the same one are the same text.
func (s *Single) Address(i int) [sha256.Size]byte { return s.file.addresses[i] }

// Files are the files of a fleet folder that the hub reads.
type Files struct {
	Names    []string      // sorted; nil where there are too many
	Problems []hub.Problem // of the folder's shape
}

// List finds the files of a fleet folder, as Load does.
func List(fsys fs.FS) (Files, error) {
	sections, problems, err := NewLoader(nil, hub.Thresholds{}).scan(fsys)
	list := Files{Problems: problems}
	for _, s := range sections {
		list.Problems = append(list.Problems, s.problems...)
		for _, f := range s.files {
			list.Names = append(list.Names, f.name)
		}
	}
	slices.Sort(list.Names)
	return list, err
}

// ReadRecipients reads recipients.txt.
func ReadRecipients(fsys fs.FS) ([]seal.Recipient, []hub.Problem, error) {
	s := stage{fsys: fsys}
	return s.readRecipients()
}

// HostAt tells whose file a path names: a host's id and its customer.
func HostAt(name string) (customer, id string, ok bool) {
	if role, _, _ := placeOf(name); role != hostRole {
		return "", "", false
	}
	return path.Base(path.Dir(path.Dir(name))), idOf(name), true
}

// CustomerAt tells whose file a path names: a customer's.
func CustomerAt(name string) (customer string, ok bool) {
	role, _, _ := placeOf(name)
	return path.Base(path.Dir(name)), role == customerRole
}

// Judge looks at all files of the folder fsys together, as the hub does with
// inForce in force (nil: nothing is), and tells what it would say: the Problems
// and Bad of a Loaded, without its fleet. unread are the paths of hosts' files
// that are there and were not parsed.
func Judge(fsys fs.FS, parsed []*Single, unread []string, inForce *hub.Fleet) ([]hub.Problem, []BadFile, error) {
	all := &section{}
	for _, s := range parsed {
		all.files = append(all.files, s.file)
	}
	for _, name := range unread {
		customer, id, _ := HostAt(name)
		all.files = append(all.files, &file{name: name, read: true, host: &hub.Host{ID: id, Customer: customer, File: name}})
	}
	slices.SortFunc(all.files, func(a, b *file) int { return strings.Compare(a.name, b.name) })
	w := whole{stage: &stage{fsys: fsys, labels: &labelSets{}, schedules: &schedules{}}, request: Request{InForce: inForce}}
	err := w.judge(all)
	return w.problems, w.bad, err
}

// judge is load without the fleet. The same ciphertext in two places is no key
// that stands twice: its owner is inside, and the hub refuses it in the one where
// it does not belong, which costs that file.
func (w *whole) judge(all *section) error {
	w.collect(map[string]*section{"": all})
	w.idsTwice()
	if err := w.chooseHosts(); err != nil {
		return err
	}
	w.customersMissing()
	copies := whole{stage: w.stage, hosts: slices.Clone(w.hosts), files: w.files}
	slices.SortStableFunc(copies.hosts, func(a, b *file) int { // a host that is new has the copy
		return cmp.Compare(newer(w, a), newer(w, b))
	})
	copies.keysTwice()
	for _, p := range copies.problems {
		if _, id, ok := HostAt(p.File); ok {
			w.bad = append(w.bad, BadFile{Name: p.File, HostID: id, Kept: w.inForce(id), Problems: []hub.Problem{p}})
		} else {
			w.problems = append(w.problems, p)
		}
	}
	yamlfile.Sort(w.problems)
	return nil
}

func newer(w *whole, f *file) int {
	if w.inForce(idOf(f.name)) {
		return 0
	}
	return 1
}

func (w *whole) inForce(id string) bool {
	if w.request.InForce == nil {
		return false
	}
	_, ok := w.request.InForce.Host(id)
	return ok
}

// Mentions reports whether a YAML text may hold one of these words as a key or a
// value: it stands there, or an escape could hide it. It is quick, where parsing
// is not.
func Mentions(data []byte, words ...string) bool {
	return bytes.IndexByte(data, '\\') >= 0 ||
		slices.ContainsFunc(words, func(w string) bool { return bytes.Contains(data, []byte(w)) })
}
