package fleetops

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/seal"
)

//go:embed scaffold
var scaffold embed.FS

// InitOptions say how a fleet is begun.
type InitOptions struct {
	// IdentityFile is the file of the hub's age identity, whose recipient goes
	// into recipients.txt. It is made where there is none. Empty: no recipient
	// yet; validate says so until there is one.
	IdentityFile string
	// CI names the systems (see CISystems) whose files to write into the
	// repository that the folder lies in.
	CI []string
}

// Initialized says what Init did.
type Initialized struct {
	Begun        bool             // a fleet was begun; else there was one, and CI files were added
	Files        []string         // written, as seen from where dir is
	Recipients   []seal.Recipient // of the identity file
	IdentityMade bool
	Next         []string // what is left to do for the CI files to be run
}

// Init begins a fleet in the folder dir, which is made where it is missing. It
// touches nothing that is there. A folder that has a fleet is refused, unless CI
// files alone are asked for.
func Init(dir string, opts InitOptions) (Initialized, error) {
	var done Initialized
	there := false
	if existing, err := ResolveDir(dir); err == nil && len(opts.CI) > 0 && opts.IdentityFile == "" {
		dir, there = existing, true
	}
	ci, err := ciFiles(dir, opts.CI)
	if err != nil {
		return done, err
	}
	if !there {
		if err := done.begin(dir, opts.IdentityFile); err != nil {
			return done, err
		}
	}
	for _, f := range ci {
		if err := createAs(f.file, f.text, f.mode); err != nil {
			return done, err
		}
		done.Files = append(done.Files, f.file)
		if f.next != "" {
			done.Next = append(done.Next, f.next)
		}
	}
	return done, nil
}

// begin writes a new fleet.
func (done *Initialized) begin(dir, identityFile string) error {
	files, err := initFiles()
	if err != nil {
		return err
	}
	for name := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if name != readme { // theirs stays
			return fmt.Errorf("there is a fleet already: %s exists", filepath.Join(dir, name))
		}
		delete(files, name)
	}
	if identityFile != "" {
		if done.Recipients, done.IdentityMade, err = ensureIdentity(dir, identityFile); err != nil {
			return err
		}
	}
	for _, r := range done.Recipients {
		files[fleetfile.RecipientsPath] += "\n# the hub's\n" + r.String() + "\n"
	}
	for _, name := range sortedKeys(files) {
		file := filepath.Join(dir, name)
		if err := create(file, []byte(files[name])); err != nil {
			return err
		}
		done.Files = append(done.Files, file)
	}
	done.Begun = true
	return nil
}

const readme = "README.md"

// initFiles returns what a new fleet consists of.
func initFiles() (map[string]string, error) {
	files := map[string]string{"customers/.gitkeep": ""}
	for name, schema := range fleetfile.Schemas() {
		files[name] = string(schema)
	}
	for _, name := range []string{fleetfile.FleetPath, fleetfile.RecipientsPath, readme} {
		text, err := scaffold.ReadFile("scaffold/" + name)
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	return files, nil
}

// ensureIdentity returns the recipients of an identity file, which it makes
// where there is none: never within the fleet, where it would be committed.
func ensureIdentity(dir, file string) ([]seal.Recipient, bool, error) {
	inside, err := isWithin(dir, file)
	if err != nil {
		return nil, false, err
	}
	if inside {
		return nil, false, fmt.Errorf("the identity file %s would lie in the fleet folder and be committed: put it elsewhere", file)
	}
	made := false
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if _, err := GenerateIdentity(file); err != nil {
			return nil, false, err
		}
		made = true
	}
	ids, err := seal.ReadIdentities(file)
	if err != nil {
		return nil, false, err
	}
	var recipients []seal.Recipient
	for _, id := range ids {
		recipients = append(recipients, id.Recipient())
	}
	return recipients, made, nil
}

// GenerateIdentity makes an X25519 identity, writes it to a new file (0600) and
// returns its recipient.
func GenerateIdentity(file string) (seal.Recipient, error) {
	return saveIdentity(file, seal.GenerateIdentity)
}

// GenerateHybridIdentity is GenerateIdentity for a post-quantum hybrid identity.
func GenerateHybridIdentity(file string) (seal.Recipient, error) {
	return saveIdentity(file, seal.GenerateHybridIdentity)
}

func saveIdentity(file string, generate func() (seal.Identity, error)) (seal.Recipient, error) {
	id, err := generate()
	if err != nil {
		return seal.Recipient{}, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return seal.Recipient{}, err
	}
	return id.Recipient(), seal.WriteIdentity(file, id)
}

func isWithin(dir, file string) (bool, error) {
	absDir, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	absFile, err := filepath.Abs(file)
	if err != nil {
		return false, err
	}
	rel, err := filepath.Rel(absDir, absFile)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)), nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
