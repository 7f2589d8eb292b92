package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/simulate"
)

// What a demo's folder holds.
const (
	identityFile = "identity.txt"
	originDir    = "fleet.git"
	cloneDir     = "fleet"
	inboxFile    = "inbox"      // the address on which the demo reads what its operators are told
	keysFile     = "keys.jsonl" // as hub fleet enroll --json prints them
	configFile   = "hub.yaml"
	dataDir      = "data"
	logFile      = "hub.log"
	socketFile   = "control.sock"
	makingDir    = "making" // the first five, until all are there
)

// pieces are made together; each goes on from run to run. The keys come last,
// so that a folder with keys has everything.
var pieces = []string{identityFile, originDir, cloneDir, inboxFile, keysFile}

// folder is the folder of a demo.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

func (f folder) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return err == nil
}

// claim makes the folder where it is missing, and refuses one that holds
// something else: nothing of the user's is ever in the demo's way.
func (f folder) claim() error {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(string(f), 0o700)
	}
	if err != nil {
		return err
	}
	marks := []string{originDir, keysFile, socketFile, makingDir}
	if len(entries) > 0 && !slices.ContainsFunc(marks, f.has) {
		return fmt.Errorf("%s is no demo's folder and not empty: name another one with --dir", f)
	}
	return os.Chmod(string(f), 0o700)
}

// prepare brings the pieces in order: it makes them, or takes those of an
// earlier run and mends what can be mended.
func (f folder) prepare(ctx context.Context, hosts int) (made bool, err error) {
	making := folder(f.path(makingDir))
	if !making.has(keysFile) {
		if err := os.RemoveAll(string(making)); err != nil {
			return false, err
		}
		if !slices.ContainsFunc(pieces, f.has) {
			made = true
			if err := making.make(ctx, hosts); err != nil {
				return false, fmt.Errorf("make the fleet repository: %w", err)
			}
		}
	}
	if making.has(keysFile) {
		if err := making.moveTo(f); err != nil {
			return false, err
		}
	}
	if err := f.mend(ctx); err != nil {
		return false, err
	}
	return made, letUserCommit(ctx, f.path(cloneDir))
}

// moveTo moves the pieces, the keys last, and removes what they were made in.
func (f folder) moveTo(to folder) error {
	for _, name := range pieces {
		if !f.has(name) {
			continue // moved by a run that was interrupted
		}
		if err := os.Rename(f.path(name), to.path(name)); err != nil {
			return err
		}
	}
	return os.RemoveAll(string(f))
}

// mend makes the repository again from its clone, or the clone from the
// repository. What only existed once it cannot bring back.
func (f folder) mend(ctx context.Context) error {
	for _, name := range []string{identityFile, keysFile} {
		if !f.has(name) {
			return fmt.Errorf("%s is missing, and it cannot be made again for the hosts that are there: put it back, or begin anew after rm -r %s", f.path(name), f)
		}
	}
	switch origin, clone := f.has(originDir), f.has(cloneDir); {
	case origin && clone:
		return nil
	case origin:
		_, err := git(ctx, string(f), "clone", "-q", originDir, cloneDir)
		if err == nil {
			_, err = git(ctx, f.path(cloneDir), "remote", "set-url", "origin", filepath.Join("..", originDir))
		}
		return err
	case clone:
		if err := newRepository(ctx, f.path(originDir), "--bare"); err != nil {
			return err
		}
		_, err := git(ctx, f.path(cloneDir), "push", "-q", "origin", "HEAD:main")
		return err
	}
	return fmt.Errorf("%s and %s are both missing: put one back, or begin anew after rm -r %s", f.path(originDir), f.path(cloneDir), f)
}

// make makes all pieces in f.
func (f folder) make(ctx context.Context, hosts int) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	clone := f.path(cloneDir)
	if err := newRepository(ctx, f.path(originDir), "--bare"); err != nil {
		return err
	}
	if err := newRepository(ctx, clone); err != nil {
		return err
	}
	// Relative, so that the folder may be moved.
	if _, err := git(ctx, clone, "remote", "add", "origin", filepath.Join("..", originDir)); err != nil {
		return err
	}
	if err := f.begin(ctx); err != nil {
		return err
	}
	var keys bytes.Buffer
	for i, c := range customers {
		if err := c.enroll(ctx, clone, share(hosts, i), &keys); err != nil {
			return err
		}
	}
	if _, err := git(ctx, clone, "push", "-q", "-u", "origin", "main"); err != nil {
		return err
	}
	aside := f.path(keysFile + ".new")
	if err := os.WriteFile(aside, keys.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(aside, f.path(keysFile))
}

// ownThresholds is the line of a new fleet that would overrule hub.yaml.
const ownThresholds = "  monitor: {staleAfter: 30m, downAfter: 60m}\n"

// begin commits a fleet without hosts, whose thresholds are the hub's and whose
// operators are told by the inbox.
func (f folder) begin(ctx context.Context) error {
	clone := f.path(cloneDir)
	if _, err := fleetops.Init(clone, fleetops.InitOptions{IdentityFile: f.path(identityFile)}); err != nil {
		return err
	}
	address, err := newInbox()
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path(inboxFile), []byte(address+"\n"), 0o600); err != nil {
		return err
	}
	err = edit(filepath.Join(clone, fleetfile.FleetPath), ownThresholds,
		"  # monitor: left out here, so that the hub's own lengths of silence hold\n"+channel(address))
	if err != nil {
		return err
	}
	return commit(ctx, clone, "Begin the fleet")
}

// edit replaces a text that must be in the file.
func edit(file, text, by string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(data), text)
	if !found {
		return fmt.Errorf("%s has no %q", file, text)
	}
	return os.WriteFile(file, []byte(before+by+after), 0o644)
}

// customer is one of the demo's customers.
type customer struct {
	name, displayName string
	sites             []string
	weight            int // of all hosts, in tenths
}

var customers = []customer{
	{"nordlicht", "Nordlicht Logistik GmbH", []string{"hamburg", "bremen", "rostock"}, 5},
	{"tisza", "Tisza Könyvelő Kft.", []string{"szeged", "szolnok"}, 3},
	{"alpenblick", "Hotel Alpenblick AG", []string{"innsbruck", "bozen"}, 2},
}

// share returns how many of the hosts customer i has. The first one takes the
// rest, so that there is always a host of the first.
func share(hosts, i int) int {
	if i > 0 {
		return hosts * customers[i].weight / 10
	}
	rest := hosts
	for other := 1; other < len(customers); other++ {
		rest -= share(hosts, other)
	}
	return rest
}

// enroll commits the customer with its hosts and appends their keys.
func (c customer) enroll(ctx context.Context, clone string, hosts int, keys *bytes.Buffer) error {
	data, err := fleetfile.CustomerFile{
		APIVersion: fleetfile.APIVersion, Kind: "Customer", Metadata: fleetfile.NameOnly{Name: c.name},
		Spec: fleetfile.CustomerSpec{DisplayName: c.displayName, Status: "active", Keys: []fleetfile.Key{}},
	}.Render()
	if err != nil {
		return err
	}
	file := filepath.Join(clone, fleetfile.CustomerPath(c.name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	if err := c.addKey(clone, keys); err != nil {
		return err
	}
	for i := range hosts {
		if err := c.enrollOne(clone, i, keys); err != nil {
			return err
		}
	}
	return commit(ctx, clone, fmt.Sprintf("Enroll %s of %s", plural(hosts, "host"), c.name))
}

// addKey gives the customer's controllers a key.
func (c customer) addKey(clone string, keys *bytes.Buffer) error {
	added, err := fleetops.AddKey(clone, hub.CustomerOwner(c.name))
	if err != nil {
		return err
	}
	line, err := json.Marshal(map[string]string{"owner": added.Owner.String(), "api_key": added.APIKey.Reveal(), "file": fleetfile.CustomerPath(c.name)})
	keys.Write(append(line, '\n'))
	return err
}

// enrollOne enrolls the customer's host number i: the sites take turns.
func (c customer) enrollOne(clone string, i int, keys *bytes.Buffer) error {
	site := c.sites[i%len(c.sites)]
	enrolled, err := fleetops.Enroll(clone, fleetops.EnrollOptions{
		Customer: c.name, DisplayName: fmt.Sprintf("pve-%s-%02d", site, i/len(c.sites)+1),
	})
	if err != nil {
		return err
	}
	for _, host := range enrolled {
		owner := "  customer: " + c.name + "\n"
		if err := edit(host.File, owner, owner+"  labels: {site: "+site+"}\n"); err != nil {
			return err
		}
		line, err := json.Marshal(map[string]string{
			"host_id": host.HostID, "api_key": host.APIKey.Reveal(), "file": fleetfile.HostPath(c.name, host.HostID),
		})
		if err != nil {
			return err
		}
		keys.Write(append(line, '\n'))
	}
	return nil
}

// keys reads what the agents report with, hosts enrolled by hand included. There is
// at least one host.
func (f folder) keys() ([]simulate.Credential, error) {
	file, err := os.Open(f.path(keysFile))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	keys, err := simulate.ReadKeys(file)
	if err == nil && len(hostsOf(keys)) == 0 {
		err = errors.New("no host's key is in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path(keysFile), err)
	}
	return keys, nil
}

// hostFile is the file of a host in the clone, as short as a shell takes it.
func (f folder) hostFile(hostID string) string {
	return quote(f.path(cloneDir)) + "/" + fleetfile.HostPath("*", hostID)
}
