package fleetops

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// sealedFleet is a fleet of two recipients with one host, and the identity files.
func sealedFleet(t *testing.T) (dir string, host Enrolled, identities []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "fleet")
	identities = []string{filepath.Join(t.TempDir(), "hub"), filepath.Join(t.TempDir(), "offline"), filepath.Join(t.TempDir(), "stranger")}
	if _, err := Init(dir, InitOptions{IdentityFile: identities[0]}); err != nil {
		t.Fatal(err)
	}
	for _, file := range identities[1:] {
		recipient, err := GenerateIdentity(file)
		if err != nil {
			t.Fatal(err)
		}
		if file == identities[1] {
			appendTo(t, filepath.Join(dir, "recipients.txt"), recipient.String()+"\n")
		}
	}
	hosts, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true})
	if err != nil {
		t.Fatal(err)
	}
	return dir, hosts[0], identities
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, text...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rules lists "rule at the file's name" of each problem.
func rules(problems []hub.Problem) string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Rule+" "+filepath.Base(p.File))
	}
	return strings.Join(out, ", ")
}

func TestValidateOpensSeals(t *testing.T) {
	dir, host, identities := sealedFleet(t)
	for _, files := range [][]string{nil, identities[:1], identities[1:2], identities} {
		fleet, problems, err := Validate(dir, files...)
		if err != nil || len(problems) > 0 || fleet.Len() != 1 {
			t.Fatal(problems, err)
		}
		digest, _ := hub.DigestKey(host.APIKey.Reveal())
		if _, ok := fleet.Key(digest); ok != (len(files) > 0) {
			t.Errorf("with %v the key is known: %v", files, ok)
		}
	}
	base := filepath.Base(host.File)
	if _, problems, err := Validate(dir, identities[2]); err != nil || rules(problems) != "seal "+base {
		t.Error(problems, err)
	}
	if _, _, err := Validate(dir, filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}

	// A seal of another owner, to the wrong recipients: the first is seen only
	// with an identity, the second always.
	ids, err := seal.ReadIdentities(identities[0])
	if err != nil {
		t.Fatal(err)
	}
	sealed, sealedTo, err := seal.Seal(seal.Payload{Owner: hub.HostOwner("other"), KeyID: "k2", Key: hub.NewKey()}, []seal.Recipient{ids[0].Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, host.File, "    - id: k2\n      sealedTo: ['"+sealedTo[0]+"']\n      sealed: |\n        "+strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n        ")+"\n")
	if fleet, problems, err := Validate(dir); err != nil || fleet != nil || rules(problems) != "seal-recipients "+base {
		t.Error(problems, err)
	}
	fleet, problems, err := Validate(dir, identities[0])
	if err != nil || fleet != nil || rules(problems) != "seal-recipients "+base+", seal "+base || !strings.Contains(problems[1].Message, "made for key k2 of host/other") {
		t.Error(problems, err)
	}
}

// TestValidateSaysEachThingOnce: what the loader and the linter, or two looks at
// a seal, have in common is one problem.
func TestValidateSaysEachThingOnce(t *testing.T) {
	dir, host, identities := sealedFleet(t)
	data, err := os.ReadFile(host.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(host.File, []byte(strings.Replace(string(data), "YWdl", "YXdl", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(identities[2])
	if err != nil {
		t.Fatal(err)
	}
	_, identity, _ := strings.Cut(string(secret), "\n")
	appendTo(t, filepath.Join(dir, "recipients.txt"), identity)
	appendTo(t, filepath.Join(dir, "recipients.txt"), "# "+identity)
	_, problems, err := Validate(dir, identities[0])
	if err != nil || rules(problems) != "seal "+filepath.Base(host.File)+", secret recipients.txt, secret recipients.txt" || problems[1].Line+1 != problems[2].Line {
		t.Error(problems, err)
	}
	for _, p := range problems {
		if strings.Contains(p.String(), strings.TrimSpace(identity)) {
			t.Error("it shows the secret")
		}
	}
}

func TestValidateWarns(t *testing.T) {
	dir, host, _ := sealedFleet(t)
	data, err := os.ReadFile(host.File)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(data), "id: k1\n", "id: k1\n      notAfter: 2020-01-01T00:00:00Z\n", 1)
	if err := os.WriteFile(host.File, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	fleet, problems, err := Validate(dir)
	if err != nil || fleet == nil || rules(problems) != "key-expired "+filepath.Base(host.File) || Errors(problems) != 0 {
		t.Error(problems, err)
	}
	appendTo(t, filepath.Join(dir, "notes.txt"), host.APIKey.Reveal())
	if fleet, problems, err = Validate(dir); err != nil || fleet == nil || Errors(problems) != 1 || problems[1].Rule != "secret" {
		t.Error(problems, err)
	}
}

func TestFromRepository(t *testing.T) {
	repo, dir, _ := newFleet(t)
	problems := []hub.Problem{{File: filepath.Join(dir, "fleet.yaml")}, {File: dir}}
	named, err := FromRepository(dir, problems)
	if err != nil || named[0].File != filepath.ToSlash(problems[0].File) {
		t.Error("outside a repository:", named, err)
	}
	if err := os.Mkdir(filepath.Join(repo, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{dir, repo} {
		if named, err = FromRepository(from, problems); err != nil || named[0].File != "fleet/fleet.yaml" || named[1].File != "fleet" {
			t.Error(named, err)
		}
	}
	t.Chdir(dir)
	if named, err = FromRepository(".", []hub.Problem{{File: "fleet.yaml"}}); err != nil || named[0].File != "fleet/fleet.yaml" {
		t.Error(named, err)
	}
	if problems[0].File != filepath.Join(dir, "fleet.yaml") {
		t.Error("the caller's problems changed")
	}
}
