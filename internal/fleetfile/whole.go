package fleetfile

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// whole is the third step: all files together.
type whole struct {
	*stage
	base    hub.Thresholds
	request Request

	spec      hub.FleetSpec
	hosts     []*file                  // hosts' files, in the order of their names
	customers map[string]*hub.Customer // by folder; nil: unreadable, but there
	files     map[string]*file         // customers' and the fleet's own, by name
	problems  []hub.Problem            // for which the commit must not be used
	twice     map[string]bool          // ids that stand twice
	bad       []BadFile
	kept      map[string]string
}

// load puts the fleet together and finds what is wrong with it as a whole.
func (w *whole) load(sections map[string]*section) (Loaded, error) {
	w.collect(sections)
	w.idsTwice()
	if err := w.chooseHosts(); err != nil {
		return Loaded{}, err
	}
	w.identityMissing()
	w.customersMissing()
	w.keysTwice()
	yamlfile.Sort(w.problems)
	loaded := Loaded{Problems: w.problems, Bad: w.bad, Kept: w.kept}
	if len(w.problems) > 0 {
		return loaded, nil
	}
	w.spec.Revision = w.request.Revision
	var err error
	loaded.Fleet, err = hub.NewFleet(w.spec)
	return loaded, err
}

// collect sorts the files by what they are. A file with mistakes of its own takes
// part as far as it was understood.
func (w *whole) collect(sections map[string]*section) {
	w.customers, w.files = map[string]*hub.Customer{}, map[string]*file{}
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		s := sections[name]
		w.problems = append(w.problems, s.problems...)
		for _, f := range s.files {
			w.add(f)
		}
	}
	if w.files[FleetPath] == nil {
		w.problems = append(w.problems, hub.Problem{File: FleetPath, Message: "is missing", Hint: "hub fleet init writes one"})
	}
	w.ownThresholds()
	w.ownChannels()
}

func (w *whole) add(f *file) {
	role, _, _ := placeOf(f.name)
	if role == hostRole {
		w.hosts = append(w.hosts, f)
		return
	}
	w.files[f.name] = f
	w.problems = append(w.problems, f.problems...)
	if role == customerRole {
		w.customers[path.Base(path.Dir(f.name))] = f.customer
	}
	if f.customer != nil {
		w.spec.Customers = append(w.spec.Customers, f.customer)
	}
	if f.fleet != nil {
		hosts, customers := w.spec.Hosts, w.spec.Customers
		w.spec = *f.fleet
		w.spec.Hosts, w.spec.Customers = hosts, customers
	}
}

// report notes a problem at a value of a file.
func (w *whole) report(name, at, rule, message, hint string) {
	w.problems = append(w.problems, w.problemAt(name, at, rule, message, hint))
}

func (w *whole) problemAt(name, at, rule, message, hint string) hub.Problem {
	place := w.position(name, at)
	return hub.Problem{File: name, Line: place.Line, Column: place.Column, Rule: rule, Message: message, Hint: hint}
}

// idOf returns the host that a file is about: its name says so, also where
// nothing in it can be read.
func idOf(name string) string { return strings.TrimSuffix(path.Base(name), ".yaml") }

// idsTwice finds ids that stand twice. The file name is the id, so they stand
// with different customers.
func (w *whole) idsTwice() {
	first := make(map[string]string, len(w.hosts))
	w.twice = map[string]bool{}
	for _, f := range w.hosts {
		id := idOf(f.name)
		if other, twice := first[id]; twice {
			w.report(f.name, "metadata.name", "duplicate", fmt.Sprintf("host id %q stands twice", id), "also in "+other)
			w.twice[id] = true
			continue
		}
		first[id] = f.name
	}
}

// chooseHosts takes the record of each host: the file's, or the last good one
// where the file has a mistake.
func (w *whole) chooseHosts() error {
	w.spec.Hosts = make([]*hub.Host, 0, len(w.hosts))
	w.kept = map[string]string{}
	for _, f := range w.hosts {
		problems := f.problems
		if f.host != nil {
			problems = slices.Concat(problems, w.hostThresholds(f.host))
		}
		if len(problems) > 0 && !w.request.Strict && !f.tooLarge {
			if err := w.keep(f, problems); err != nil {
				return err
			}
			continue
		}
		w.problems = append(w.problems, problems...)
		if f.host != nil {
			w.spec.Hosts = append(w.spec.Hosts, f.host)
		}
	}
	return nil
}

// keep takes the last good record of the host that a bad file is about.
func (w *whole) keep(f *file, problems []hub.Problem) error {
	if w.twice[idOf(f.name)] {
		return nil // the commit is refused for that; which file is meant is not known
	}
	last, err := w.lastGood(idOf(f.name))
	if err != nil {
		return err
	}
	if last != nil && len(w.hostThresholds(last)) > 0 {
		// What changed above the host is at fault, and there is no good record.
		w.problems = append(w.problems, problems...)
		return nil
	}
	yamlfile.Sort(problems)
	w.bad = append(w.bad, BadFile{Name: f.name, HostID: idOf(f.name), Blob: f.blob, Kept: last != nil, Problems: problems})
	if last == nil {
		return nil
	}
	w.spec.Hosts = append(w.spec.Hosts, last)
	w.kept[last.File] = last.Blob
	return nil
}

// lastGood returns the record in force of a host, nil where there is none.
func (w *whole) lastGood(id string) (*hub.Host, error) {
	if fleet := w.request.InForce; fleet != nil {
		h, _ := fleet.Host(id)
		return h, nil
	}
	for name, blob := range w.request.Kept {
		if idOf(name) != id {
			continue
		}
		store, ok := w.fsys.(interface {
			Blob(id string) ([]byte, error)
		})
		if !ok {
			return nil, fmt.Errorf("the last good content of %s cannot be read: %w", name, fs.ErrInvalid)
		}
		data, err := store.Blob(blob)
		if err != nil {
			return nil, fmt.Errorf("the last good content of %s: %w", name, err)
		}
		f := &file{name: name, blob: blob}
		w.parse(f, data)
		if len(f.problems) == 0 {
			return f.host, nil
		}
	}
	return nil, nil
}

// identityMissing finds that no host's seal opens. That is no mistake of so many
// files but the hub's lack of an identity, or a commit that is sealed to somebody
// else: it must not cost every host, each by itself.
func (w *whole) identityMissing() {
	locked := 0
	for _, f := range w.hosts {
		opens := f.host != nil && slices.ContainsFunc(f.host.Keys, func(k hub.Key) bool { return k.Digest != (hub.Digest{}) })
		switch {
		case opens:
			return
		case f.locked:
			locked++
		}
	}
	if locked > 0 && !w.request.Strict {
		w.problems = append(w.problems, hub.Problem{File: RecipientsPath, Rule: "seal",
			Message: fmt.Sprintf("none of the hub's identities opens a key of any host (%d files)", locked),
			Hint:    "give the hub an identity of a recipient named here, in fleet.identity_files, or reseal"})
	}
}

// customersMissing finds folders with hosts and no customer, and says so once
// each.
func (w *whole) customersMissing() {
	lacking := make(map[string]int)
	count := func(customer string) {
		if _, known := w.customers[customer]; !known {
			lacking[customer]++
		}
	}
	if w.request.Strict { // also files of which nothing could be made
		for _, f := range w.hosts {
			count(path.Base(path.Dir(path.Dir(f.name))))
		}
	} else {
		for _, h := range w.spec.Hosts {
			count(h.Customer)
		}
	}
	for name, hosts := range lacking {
		w.problems = append(w.problems, hub.Problem{File: CustomerPath(name), Rule: "reference",
			Message: fmt.Sprintf("is missing, and %d host(s) name customer %q", hosts, name),
			Hint:    "hub fleet enroll --new-customer writes one"})
	}
}

// keyPlace is a key and where it stands.
type keyPlace struct {
	file  string
	index int
	key   *hub.Key
}

func (k keyPlace) path() string { return fmt.Sprintf("spec.keys[%d].id", k.index) }

// keysTwice finds keys that stand twice: by their digests where the seals were
// opened, else by their ciphertexts (a copied seal names one owner only).
func (w *whole) keysTwice() {
	first := make(map[[sha256.Size]byte]keyPlace, len(w.spec.Hosts))
	look := func(file string, keys []hub.Key, seals [][sha256.Size]byte) {
		for i := range keys {
			key := &keys[i]
			mark := key.Digest
			if w.opener == nil {
				mark = seals[i]
			}
			if mark == (hub.Digest{}) || mark == noSeal {
				continue // not opened, or not there: reported where it stands
			}
			here := keyPlace{file, i, key}
			other, twice := first[mark]
			if !twice {
				first[mark] = here
				continue
			}
			w.report(file, here.path(), "duplicate", fmt.Sprintf("key %s of %s is the same as key %s of %s", key.ID, key.Owner, other.key.ID, other.key.Owner),
				fmt.Sprintf("%s:%d; make a new key with: hub fleet key add %s", other.file, w.position(other.file, other.path()).Line, key.Owner))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.files)) {
		switch f := w.files[name]; {
		case f.customer != nil:
			look(name, f.customer.Keys, f.seals)
		case f.fleet != nil:
			look(name, f.fleet.Keys, f.seals)
		}
	}
	if w.opener == nil {
		for _, f := range w.hosts {
			if f.host != nil {
				look(f.name, f.host.Keys, f.seals)
			}
		}
		return
	}
	for _, h := range w.spec.Hosts {
		if h.Lifecycle != hub.Retired {
			look(h.File, h.Keys, nil)
		}
	}
}

var noSeal = sha256.Sum256(nil)

const thresholdHint = "what a file leaves out is as on the customer, the fleet, the hub"

// ownThresholds finds customers, and a fleet, by which hosts would be down before
// they are stale.
func (w *whole) ownThresholds() {
	judge := func(f *file, chain ...hub.Thresholds) {
		if message := contradiction(append(chain, w.base)); message != "" {
			w.report(f.name, "spec.monitor", "threshold", message, thresholdHint)
		}
	}
	for _, f := range w.files {
		switch {
		case f.customer != nil:
			judge(f, f.customer.Monitor, w.spec.Monitor)
		case f.fleet != nil:
			judge(f, f.fleet.Monitor)
		}
	}
}

// hostThresholds is the same for a host that names a threshold of its own.
func (w *whole) hostThresholds(h *hub.Host) []hub.Problem {
	if h.Monitor == (hub.Thresholds{}) {
		return nil
	}
	chain := []hub.Thresholds{h.Monitor}
	if c := w.customers[h.Customer]; c != nil {
		chain = append(chain, c.Monitor)
	}
	message := contradiction(append(chain, w.spec.Monitor, w.base))
	if message == "" {
		return nil
	}
	return []hub.Problem{w.problemAt(h.File, "spec.monitor", "threshold", message, thresholdHint)}
}

// contradiction judges thresholds with what holds above them: "" where the first
// says nothing, or all is well.
func contradiction(chain []hub.Thresholds) string {
	holds := chain[0]
	if holds == (hub.Thresholds{}) {
		return ""
	}
	for _, above := range chain[1:] {
		holds = holds.Or(above)
	}
	if holds.StaleAfter == 0 || holds.DownAfter == 0 || holds.StaleAfter < holds.DownAfter {
		return ""
	}
	return fmt.Sprintf("staleAfter (%s) must be shorter than downAfter (%s)", holds.StaleAfter, holds.DownAfter)
}
