package fleetfile

import (
	"crypto/sha256"
	"fmt"
	"path"
	"slices"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// whole is the second stage: all files together.
type whole struct {
	base        hub.Thresholds
	sealsOpened bool
	problems    []hub.Problem
}

// check puts the fleet together and returns what is wrong with it as a whole.
// A file with mistakes of its own takes part as far as it was understood.
func (w *whole) check(files []*file) (hub.FleetSpec, []hub.Problem) {
	var spec hub.FleetSpec
	customers := make(map[string]*hub.Customer)
	found := false
	for _, f := range files {
		role, _, _ := placeOf(f.name)
		found = found || role == fleetRole
		if f.fleet != nil {
			spec.Name, spec.Monitor, spec.Keys = f.fleet.Name, f.fleet.Monitor, f.fleet.Keys
		}
		if role == customerRole {
			customers[path.Base(path.Dir(f.name))] = f.customer // nil: unreadable, but there
		}
		if f.customer != nil {
			spec.Customers = append(spec.Customers, f.customer)
		}
		if f.host != nil {
			spec.Hosts = append(spec.Hosts, f.host)
		}
	}
	if !found {
		w.problems = append(w.problems, hub.Problem{File: FleetPath, Message: "is missing", Hint: "hub fleet init writes one"})
	}
	w.hosts(files)
	w.customersOf(files, customers)
	w.keys(files)
	w.thresholds(files, spec.Monitor, customers)
	return spec, w.problems
}

func (w *whole) report(f *file, at yamlfile.Position, message, hint string) {
	w.problems = append(w.problems, hub.Problem{File: f.name, Line: at.Line, Column: at.Column, Message: message, Hint: hint})
}

// hosts finds ids that stand twice. The file name is the id, so they stand with
// different customers.
func (w *whole) hosts(files []*file) {
	first := make(map[string]*file)
	for _, f := range files {
		if f.host == nil {
			continue
		}
		if other, twice := first[f.host.ID]; twice {
			w.report(f, f.named, fmt.Sprintf("host id %q stands twice", f.host.ID), "also in "+other.name)
			continue
		}
		first[f.host.ID] = f
	}
}

// customersOf finds folders with hosts and no customer, and says so once each.
func (w *whole) customersOf(files []*file, customers map[string]*hub.Customer) {
	lacking := make(map[string]int)
	for _, f := range files {
		if role, _, _ := placeOf(f.name); role != hostRole {
			continue
		}
		name := path.Base(path.Dir(path.Dir(f.name)))
		if _, known := customers[name]; !known {
			lacking[name]++
		}
	}
	for name, hosts := range lacking {
		w.problems = append(w.problems, hub.Problem{File: CustomerPath(name),
			Message: fmt.Sprintf("is missing, and %d host(s) name customer %q", hosts, name),
			Hint:    "hub fleet enroll --new-customer writes one"})
	}
}

// keys finds keys that stand twice: by their digests where the seals were
// opened, else by their ciphertexts (a copied seal names one owner only).
func (w *whole) keys(files []*file) {
	type place struct {
		file *file
		key  hub.Key
		at   yamlfile.Position
	}
	first := make(map[[sha256.Size]byte]place)
	for _, f := range files {
		for i, key := range f.ownKeys() {
			mark := f.keys[i].sealed
			if w.sealsOpened {
				mark = key.Digest
			}
			if mark == (hub.Digest{}) || mark == sha256.Sum256(nil) {
				continue // not opened, or not there: reported where it stands
			}
			other, twice := first[mark]
			if !twice {
				first[mark] = place{f, key, f.keys[i].at}
				continue
			}
			w.report(f, f.keys[i].at, fmt.Sprintf("key %s of %s is the same as key %s of %s", key.ID, key.Owner, other.key.ID, other.key.Owner),
				fmt.Sprintf("%s:%d; make a new key with: hub fleet key add %s", other.file.name, other.at.Line, key.Owner))
		}
	}
}

func (f *file) ownKeys() []hub.Key {
	switch {
	case f.host != nil:
		return f.host.Keys
	case f.customer != nil:
		return f.customer.Keys
	case f.fleet != nil:
		return f.fleet.Keys
	}
	return nil
}

// thresholds finds hosts that would be down before they are stale. Each file
// that names a threshold is judged with what holds above it.
func (w *whole) thresholds(files []*file, fleet hub.Thresholds, customers map[string]*hub.Customer) {
	for _, f := range files {
		var chain []hub.Thresholds
		switch {
		case f.host != nil:
			chain = append(chain, f.host.Monitor)
			if c := customers[f.host.Customer]; c != nil {
				chain = append(chain, c.Monitor)
			}
		case f.customer != nil:
			chain = append(chain, f.customer.Monitor)
		}
		chain = append(chain, fleet, w.base)
		if f.host == nil && f.customer == nil && f.fleet == nil || chain[0] == (hub.Thresholds{}) {
			continue
		}
		holds := chain[0]
		for above := range slices.Values(chain[1:]) {
			holds = holds.Or(above)
		}
		if holds.StaleAfter > 0 && holds.DownAfter > 0 && holds.StaleAfter >= holds.DownAfter {
			w.report(f, f.monitor, fmt.Sprintf("staleAfter (%s) must be shorter than downAfter (%s)", holds.StaleAfter, holds.DownAfter),
				"what a file leaves out is as on the customer, the fleet, the hub")
		}
	}
}
