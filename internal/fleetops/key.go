package fleetops

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// AddedKey is a key that was added. It stands nowhere else in the clear.
type AddedKey struct {
	Owner  hub.Owner
	KeyID  string
	APIKey hub.Secret
	File   string // as seen from where the folder is
}

// AddKey makes a key for owner in the fleet that dir means, beside those it has.
// The rest of the owner's file stays as it was written.
func AddKey(dir string, owner hub.Owner) (AddedKey, error) {
	return addKey(dir, owner, func(f *fleetfile.KeyFile, k fleetfile.Key) ([]byte, error) { return f.AddKey(k) })
}

// addKey makes a key for owner and writes the file that edit makes of it.
func addKey(dir string, owner hub.Owner, edit func(*fleetfile.KeyFile, fleetfile.Key) ([]byte, error)) (AddedKey, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return AddedKey{}, err
	}
	f, err := readKeyFile(dir, owner)
	if err != nil {
		return AddedKey{}, err
	}
	recipients, err := readRecipients(os.DirFS(dir))
	if err != nil {
		return AddedKey{}, err
	}
	key, secret, err := newKey(owner, nextID(f.Keys), recipients)
	if err != nil {
		return AddedKey{}, err
	}
	data, err := edit(f, key)
	if err != nil {
		return AddedKey{}, err
	}
	file := filepath.Join(dir, f.Name)
	if err := replace(file, data); err != nil {
		return AddedKey{}, err
	}
	return AddedKey{Owner: owner, KeyID: key.ID, APIKey: secret, File: file}, nil
}

// readKeyFile reads the file of dir that holds owner's keys.
func readKeyFile(dir string, owner hub.Owner) (*fleetfile.KeyFile, error) {
	fsys := os.DirFS(dir)
	name, err := fileOf(fsys, owner)
	if err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	f, problems := fleetfile.ReadKeys(name, data)
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s: mend this first", in(dir, problems[0]))
	}
	return f, nil
}

// in names a problem's file as seen from where the fleet folder dir is.
func in(dir string, p hub.Problem) hub.Problem {
	p.File = filepath.Join(dir, p.File)
	return p
}

// fileOf returns the path of the file that holds owner's keys.
func fileOf(fsys fs.FS, owner hub.Owner) (string, error) {
	switch owner.Kind {
	case hub.OwnerFleet:
		return fleetfile.FleetPath, nil
	case hub.OwnerCustomer:
		customers, _, err := names(fsys)
		if err == nil && !customers[owner.Name] {
			err = unknownCustomer(owner.Name, customers)
		}
		return fleetfile.CustomerPath(owner.Name), err
	}
	files, err := fs.Glob(fsys, fleetfile.HostPath("*", owner.Name))
	switch {
	case err != nil:
		return "", err
	case len(files) == 0:
		return "", fmt.Errorf("there is no host %s; enroll a new one with: hub fleet enroll", owner.Name)
	case len(files) > 1:
		return "", fmt.Errorf("host %s stands twice, in %s: mend this first", owner.Name, strings.Join(files, " and "))
	}
	return files[0], nil
}

// nextID returns the id after the highest of k1, k2, …; ids are not used again
// while a file holds a later one.
func nextID(keys []fleetfile.Key) string {
	highest := uint64(0)
	for _, k := range keys {
		if n, err := strconv.ParseUint(strings.TrimPrefix(k.ID, "k"), 10, 31); err == nil {
			highest = max(highest, n)
		}
	}
	return "k" + strconv.FormatUint(highest+1, 10)
}
