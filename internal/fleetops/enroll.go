package fleetops

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// Enrolled is a host that was enrolled. Its key stands nowhere else in the
// clear: whoever asked for it must be told now.
type Enrolled struct {
	HostID string
	APIKey hub.Secret
	File   string
}

// EnrollOptions say which hosts to enroll.
type EnrollOptions struct {
	Customer    string
	DisplayName string // of the host; of several hosts each gets "-1", "-2", … behind it
	Count       int    // 0 means 1
	NewCustomer bool   // write the customer's file where there is none
}

// Enroll adds hosts to the fleet that dir means. Files are named as seen from
// where dir is. When it fails half-way, it returns the hosts that were written
// along with the error.
func Enroll(dir string, opts EnrollOptions) ([]Enrolled, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return nil, err
	}
	e, err := newEnroller(os.DirFS(dir), opts.Customer, opts.NewCustomer)
	if err != nil {
		return nil, err
	}
	if e.newCustomer {
		if err := writeCustomer(dir, opts.Customer); err != nil {
			return nil, err
		}
	}
	count := max(opts.Count, 1)
	enrolled := make([]Enrolled, 0, count)
	for i := range count {
		name := opts.DisplayName
		if name != "" && count > 1 {
			name = fmt.Sprintf("%s-%d", name, i+1)
		}
		host, data, err := e.host(name)
		if err != nil {
			return enrolled, err
		}
		host.File = filepath.Join(dir, host.File)
		if err := create(host.File, data); err != nil {
			return enrolled, err
		}
		enrolled = append(enrolled, host)
	}
	return enrolled, nil
}

// EnrollFiles works out how to enroll one host of a known customer in the fleet
// folder fsys: the host, and the files to write by their paths in the folder.
// It writes nothing. Its errors are *hub.Error: Invalid for an unknown customer
// or a display name that cannot be, Internal where the fleet is at fault.
func EnrollFiles(fsys fs.FS, customer, displayName string) (Enrolled, map[string][]byte, error) {
	e, err := newEnroller(fsys, customer, false)
	if err != nil {
		return Enrolled{}, nil, err
	}
	host, data, err := e.host(displayName)
	if err != nil {
		return Enrolled{}, nil, err
	}
	return host, map[string][]byte{host.File: data}, nil
}

// enroller makes hosts of one customer.
type enroller struct {
	customer    string
	newCustomer bool
	recipients  []seal.Recipient
	taken       map[string]bool // host ids of the whole fleet
}

func newEnroller(fsys fs.FS, customer string, mayBeNew bool) (*enroller, error) {
	if !hub.ValidCustomerName(customer) {
		return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_customer", Message: "not a customer's name",
			Hint: "lowercase letters, digits and dashes; at most 63, no dash first or last"}
	}
	recipients, err := readRecipients(fsys)
	if err != nil {
		return nil, err
	}
	customers, hosts, err := names(fsys)
	if err != nil {
		return nil, fault(err)
	}
	if !customers[customer] && !mayBeNew {
		return nil, unknownCustomer(customer, customers)
	}
	return &enroller{customer: customer, newCustomer: !customers[customer], recipients: recipients, taken: hosts}, nil
}

// fault is an error of the fleet's, not of who asked.
func fault(err error) error {
	return &hub.Error{Code: hub.Internal, Reason: "fleet_fault", Message: "the fleet cannot take a host", Cause: err}
}

func unknownCustomer(name string, known map[string]bool) error {
	const shown = 20
	list := "the fleet has none yet"
	if all := sortedKeys(known); len(all) > shown {
		list = fmt.Sprintf("the %d of the fleet are %s, …", len(all), strings.Join(all[:shown], ", "))
	} else if len(all) > 0 {
		list = "the fleet has " + strings.Join(all, ", ")
	}
	return &hub.Error{Code: hub.Invalid, Reason: "unknown_customer", Message: "unknown customer",
		Hint: fmt.Sprintf("there is no %q: %s; hub fleet enroll --new-customer adds one", name, list)}
}

func readRecipients(fsys fs.FS) ([]seal.Recipient, error) {
	data, err := fs.ReadFile(fsys, fleetfile.RecipientsPath)
	if err != nil {
		return nil, fault(err)
	}
	recipients, problems := seal.ParseRecipients(fleetfile.RecipientsPath, data)
	if len(problems) > 0 {
		return nil, fault(errors.New(problems[0].String()))
	}
	return recipients, nil
}

// names returns the customers that have a file, and the ids of all hosts.
func names(fsys fs.FS) (customers, hosts map[string]bool, err error) {
	customers, hosts = make(map[string]bool), make(map[string]bool)
	files, err := fs.Glob(fsys, fleetfile.CustomerPath("*"))
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		customers[path.Base(path.Dir(file))] = true
	}
	files, err = fs.Glob(fsys, fleetfile.HostPath("*", "*"))
	for _, file := range files {
		hosts[strings.TrimSuffix(path.Base(file), ".yaml")] = true
	}
	return customers, hosts, err
}

// host makes a host with a new id and key, and its file.
func (e *enroller) host(displayName string) (Enrolled, []byte, error) {
	if mistake := fleetfile.TextMistake(displayName); mistake != "" {
		return Enrolled{}, nil, &hub.Error{Code: hub.Invalid, Reason: "display_name", Message: "the display name " + mistake}
	}
	id := e.newID()
	key, secret, err := newKey(hub.HostOwner(id), "k1", e.recipients)
	if err != nil {
		return Enrolled{}, nil, fault(err)
	}
	data, err := fleetfile.HostFile{
		APIVersion: fleetfile.APIVersion,
		Kind:       "Host",
		Metadata:   fleetfile.HostMetadata{Name: id, Customer: e.customer},
		Spec:       fleetfile.HostSpec{DisplayName: displayName, State: string(hub.Active), Keys: []fleetfile.Key{key}},
	}.Render()
	if err != nil {
		return Enrolled{}, nil, fault(err)
	}
	return Enrolled{HostID: id, APIKey: secret, File: fleetfile.HostPath(e.customer, id)}, data, nil
}

// newID draws "<customer>-<8 hex>" until it is one that no host has.
func (e *enroller) newID() string {
	for {
		var random [4]byte
		_, _ = rand.Read(random[:]) // never fails, says crypto/rand
		id := e.customer + "-" + hex.EncodeToString(random[:])
		if !e.taken[id] {
			e.taken[id] = true
			return id
		}
	}
}

// newKey makes a key and seals it.
func newKey(owner hub.Owner, id string, to []seal.Recipient) (fleetfile.Key, hub.Secret, error) {
	secret := hub.NewKey()
	sealed, sealedTo, err := seal.Seal(seal.Payload{Owner: owner, KeyID: id, Key: secret}, to)
	return fleetfile.Key{ID: id, SealedTo: sealedTo, Sealed: sealed}, secret, err
}

func writeCustomer(dir, name string) error {
	data, err := fleetfile.CustomerFile{
		APIVersion: fleetfile.APIVersion,
		Kind:       "Customer",
		Metadata:   fleetfile.NameOnly{Name: name},
		Spec:       fleetfile.CustomerSpec{Status: string(hub.Active), Keys: []fleetfile.Key{}},
	}.Render()
	if err != nil {
		return err
	}
	return create(filepath.Join(dir, fleetfile.CustomerPath(name)), data)
}
