package fleetfile

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// cast are the identities that the archives in testdata name.
type cast map[string]seal.Identity

func newCast(t testing.TB) cast {
	t.Helper()
	c := make(cast)
	for _, name := range []string{"hub", "offline", "stranger"} {
		id, err := seal.GenerateIdentity()
		if err != nil {
			t.Fatal(err)
		}
		c[name] = id
	}
	return c
}

func (c cast) opener() *seal.Opener { return seal.NewOpener([]seal.Identity{c["hub"]}) }

// folder builds a fleet folder from an archive laid over base.txtar.
func (c cast) folder(t testing.TB, archive *txtar.Archive) fstest.MapFS {
	t.Helper()
	base, err := txtar.ParseFile("testdata/base.txtar")
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	one := hub.NewKey() // "with KEY"
	for _, f := range append(base.Files, archive.Files...) {
		switch {
		case strings.HasPrefix(f.Name, "expected"):
		case string(f.Data) == "DELETE\n":
			delete(fsys, f.Name)
		default:
			fsys[f.Name] = &fstest.MapFile{Data: c.expand(t, fsys, string(f.Data), one)}
		}
	}
	return fsys
}

// expand replaces the lines SEAL, SEALURL, COPY and RECIPIENT of an archive.
func (c cast) expand(t testing.TB, fsys fstest.MapFS, text string, one hub.Secret) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "RECIPIENT":
			out.WriteString(c[words[1]].Recipient().String() + "\n")
		case len(words) == 2 && words[0] == "COPY":
			_, sealed, _ := strings.Cut(string(fsys[words[1]].Data), "      sealedTo: ")
			out.WriteString("      sealedTo: " + sealed)
		case len(words) == 4 && words[0] == "SEALURL":
			out.WriteString(c.sealURL(t, words[1], words[2], words[3]))
		case len(words) >= 3 && words[0] == "SEAL":
			out.WriteString(c.seal(t, words[1], words[2], words[3:], one))
		default:
			out.WriteString(line)
		}
	}
	return out.Bytes()
}

func (c cast) seal(t testing.TB, ownerText, keyID string, rest []string, one hub.Secret) string {
	owner, err := hub.ParseOwner(ownerText)
	if err != nil {
		t.Fatal(err)
	}
	key, names := hub.NewKey(), []string{"hub", "offline"}
	if len(rest) > 0 && rest[0] == "to" {
		names = rest[1:]
	} else if len(rest) > 0 {
		key = one
	}
	var to []seal.Recipient
	for _, name := range names {
		to = append(to, c[name].Recipient())
	}
	sealed, sealedTo, err := seal.Seal(seal.Payload{Owner: owner, KeyID: keyID, Key: key}, to)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("      sealedTo: [%s]\n      sealed: |\n        %s\n", strings.Join(sealedTo, ", "),
		strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n        "))
}

func (c cast) sealURL(t testing.TB, ownerText, channel, url string) string {
	owner, err := hub.ParseOwner(ownerText)
	if err != nil {
		t.Fatal(err)
	}
	sealed, sealedTo, err := seal.SealURL(seal.URLPayload{Owner: owner, Channel: channel, URL: hub.NewSecret(url)},
		[]seal.Recipient{c["hub"].Recipient(), c["offline"].Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("        sealedTo: [%s]\n        sealed: |\n          %s\n", strings.Join(sealedTo, ", "),
		strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n          "))
}

var shortRecipient = regexp.MustCompile(` \(age1[a-z0-9]+…\)`)

// text writes problems with the names of the cast for their fingerprints.
func (c cast) text(problems []hub.Problem) string {
	var out strings.Builder
	for _, p := range problems {
		out.WriteString(p.String() + "\n")
	}
	text := shortRecipient.ReplaceAllString(out.String(), "")
	for name, id := range c {
		text = strings.ReplaceAll(text, id.Recipient().Fingerprint(), strings.ToUpper(name))
	}
	return text
}

func TestProblems(t *testing.T) {
	c := newCast(t)
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) < 5 {
		t.Fatal(archives, err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fsys := c.folder(t, archive)
			expected := map[string]string{"expected": ""}
			for _, f := range archive.Files {
				if strings.HasPrefix(f.Name, "expected") {
					expected[f.Name] = string(f.Data)
				}
			}
			for mode, want := range expected {
				var opener Opener
				if mode != "expected" {
					opener = c.opener()
				}
				fleet, problems, err := Load(fsys, opener, Options{})
				if err != nil || (fleet == nil) != (want != "") {
					t.Fatal(fleet, err)
				}
				if got := c.text(problems); got != want {
					t.Errorf("%s: got\n%s\nwant\n%s", mode, got, want)
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	c := newCast(t)
	fsys := c.folder(t, new(txtar.Archive))
	fleet, problems, err := Load(fsys, c.opener(), Options{Revision: "abc"})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	if fleet.Revision() != "abc" || fleet.Name() != "felhom" || fleet.Len() != 1 {
		t.Errorf("%s %s %d", fleet.Revision(), fleet.Name(), fleet.Len())
	}
	acme, _ := fleet.Customer("acme")
	if acme.DisplayName != "Acme GmbH" || !acme.Blocked || acme.File != "customers/acme/customer.yaml" || len(acme.Keys) != 1 {
		t.Errorf("%+v", acme)
	}
	h, _ := fleet.Enrolled("acme-00000001")
	if h.DisplayName != "pve-acme-01" || h.Customer != "acme" || h.Lifecycle != hub.Paused || h.Labels["example.com/rack"] != "7" ||
		string(h.Desired) != `{"guests":[{"vmid":100}]}` || string(h.DRRecord) != "{}" || h.File != "customers/acme/hosts/acme-00000001.yaml" {
		t.Errorf("%+v", h)
	}
	if got := fleet.Thresholds(h, hub.Thresholds{}); got != (hub.Thresholds{StaleAfter: 10 * time.Minute, DownAfter: time.Hour}) {
		t.Error(got)
	}
	if len(h.Keys) != 2 || !h.Keys[0].NotAfter.Equal(time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC)) || !h.Keys[1].NotAfter.IsZero() {
		t.Fatalf("%+v", h.Keys)
	}
	for _, k := range h.Keys {
		if found, ok := fleet.Key(k.Digest); !ok || found.Owner != hub.HostOwner(h.ID) || found.ID != k.ID {
			t.Errorf("%+v", found)
		}
	}
	retired, _ := fleet.Host("acme-00000002")
	if retired.Lifecycle != hub.Retired || len(retired.Keys) != 1 || retired.Keys[0].Digest != (hub.Digest{}) {
		t.Errorf("the keys of a retired host are not opened: %+v", retired)
	}
}

// TestLoadWithoutIdentity: the fleet is there, and no key of it can be used.
func TestLoadWithoutIdentity(t *testing.T) {
	c := newCast(t)
	fleet, problems, err := Load(c.folder(t, new(txtar.Archive)), nil, Options{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	h, _ := fleet.Host("acme-00000001")
	if len(h.Keys) != 2 || h.Keys[1].ID != "k2" {
		t.Errorf("%+v", h.Keys)
	}
	if _, known := fleet.Key(hub.Digest{}); known {
		t.Error("a key without a digest can be found")
	}
}

func TestEnrollBy(t *testing.T) {
	c := newCast(t)
	fsys := c.folder(t, txtar.Parse([]byte(`
-- fleet.yaml --
apiVersion: hub.felhom.eu/v1
kind: Fleet
metadata: {name: felhom}
spec: {}
-- customers/acme/customer.yaml --
apiVersion: hub.felhom.eu/v1
kind: Customer
metadata: {name: acme}
spec: {}
-- customers/acme/hosts/acme-1.yaml --
apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: acme-1, customer: acme}
spec: {enrollBy: 2026-06-08T09:00:00+02:00}
`)))
	fleet, problems, err := Load(fsys, nil, Options{})
	if err != nil || fleet == nil {
		t.Fatal(problems, err)
	}
	if h, _ := fleet.Host("acme-1"); !h.EnrollBy.Equal(time.Date(2026, 6, 8, 7, 0, 0, 0, time.UTC)) {
		t.Errorf("EnrollBy is %s", h.EnrollBy)
	}
}

func TestThresholdsBelowTheHubs(t *testing.T) {
	c := newCast(t)
	archive := txtar.Parse([]byte(`
-- fleet.yaml --
apiVersion: hub.felhom.eu/v1
kind: Fleet
metadata: {name: felhom}
spec: {monitor: {staleAfter: 3h}}
`))
	fsys := c.folder(t, archive)
	if _, problems, _ := Load(fsys, nil, Options{}); len(problems) > 0 {
		t.Error("judged without knowing what the hub is configured with:", problems)
	}
	_, problems, _ := Load(fsys, nil, Options{Base: hub.Thresholds{StaleAfter: 30 * time.Minute, DownAfter: time.Hour}})
	if got := c.text(problems); !strings.HasPrefix(got, "fleet.yaml:4:17: staleAfter (3h0m0s) must be shorter than downAfter (1h0m0s)") {
		t.Error(got)
	}
}

func TestShapeOfTheFolder(t *testing.T) {
	c := newCast(t)
	for name, test := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"symlink": {func(f fstest.MapFS) {
			f["customers/acme/hosts/acme-2.yaml"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("acme-00000001.yaml")}
		}, "customers/acme/hosts/acme-2.yaml: neither a file nor a folder: links and submodules are not followed\n"},
		"case": {func(f fstest.MapFS) {
			f["customers/acme/notes.md"] = &fstest.MapFile{}
			f["customers/acme/NOTES.md"] = &fstest.MapFile{}
		}, "customers/acme/notes.md: differs from customers/acme/NOTES.md only in case (some file systems cannot hold both)\n"},
		"large": {func(f fstest.MapFS) {
			f["customers/acme/hosts/acme-2.yaml"] = &fstest.MapFile{Data: make([]byte, maxFileBytes+1024)}
		}, "customers/acme/hosts/acme-2.yaml: has 257 KiB; at most 256 KiB are read\n"},
		"git": {func(f fstest.MapFS) {
			f[".git/config.yaml"] = &fstest.MapFile{Mode: fs.ModeSymlink}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := c.folder(t, new(txtar.Archive))
			test.change(fsys)
			_, problems, err := Load(fsys, nil, Options{})
			if got := c.text(problems); got != test.want || err != nil {
				t.Errorf("%v %s", err, got)
			}
		})
	}
}

func TestTooManyFiles(t *testing.T) {
	fsys := fstest.MapFS{}
	for i := range maxFiles {
		fsys[fmt.Sprintf("x/%d.md", i)] = &fstest.MapFile{}
	}
	_, problems, err := Load(fsys, nil, Options{})
	if err != nil || len(problems) != 1 || problems[0].Message != "more than 200000 files and folders" {
		t.Error(problems, err)
	}
}

func TestUnreadable(t *testing.T) {
	if _, _, err := Load(os.DirFS(filepath.Join(t.TempDir(), "none")), nil, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestSecondLoadOpensNothing: seals that were opened once are known.
func TestSecondLoadOpensNothing(t *testing.T) {
	c := newCast(t)
	fsys := c.folder(t, new(txtar.Archive))
	opener := c.opener()
	for range 2 {
		if _, problems, err := Load(fsys, opener, Options{}); err != nil || len(problems) > 0 {
			t.Fatal(problems, err)
		}
	}
}

// TestTheProjectsOwnFleet keeps the example in the repository valid.
func TestTheProjectsOwnFleet(t *testing.T) {
	fleet, problems, err := Load(os.DirFS("../../fleet"), nil, Options{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	var hosts, paused, rotating, labelled, watched, desired int
	for h := range fleet.Hosts() {
		hosts++
		if h.Lifecycle == hub.Paused {
			paused++
		}
		if len(h.Keys) == 2 {
			rotating++
		}
		if len(h.Labels) > 0 {
			labelled++
		}
		if h.Monitor != (hub.Thresholds{}) {
			watched++
		}
		if len(h.Desired) > 2 {
			desired++
		}
	}
	customers := 0
	for range fleet.Customers() {
		customers++
	}
	if customers != 2 || hosts != 4 || paused != 1 || rotating != 1 || labelled == 0 || watched == 0 || desired == 0 {
		t.Errorf("the example lost something to show: %d customers, %d hosts, %d paused, %d with two keys, %d labelled, %d with thresholds, %d desired",
			customers, hosts, paused, rotating, labelled, watched, desired)
	}
}

var update = flag.Bool("update", false, "write fleet/schema anew")

func TestSchemasDoNotDrift(t *testing.T) {
	for name, want := range Schemas() {
		file := filepath.Join("../../fleet", name)
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("fleet/%s is not what the Go types say; write it with: go test ./internal/fleetfile -run TestSchemasDoNotDrift -update", name)
		}
	}
}

// BenchmarkLoad reads 2,000 hosts: cold opens every seal, warm none.
func BenchmarkLoad(b *testing.B) {
	c := newCast(b)
	fsys := c.folder(b, new(txtar.Archive))
	for i := range 2000 {
		id := fmt.Sprintf("acme-1%07d", i)
		text := "apiVersion: hub.felhom.eu/v1\nkind: Host\nmetadata: {name: " + id + ", customer: acme}\nspec:\n  keys:\n    - id: k1\n      SEAL host/" + id + " k1\n"
		fsys[HostPath("acme", id)] = &fstest.MapFile{Data: c.expand(b, fsys, text, hub.Secret{})}
	}
	warm := c.opener()
	for name, opener := range map[string]func() Opener{
		"cold":     func() Opener { return c.opener() },
		"warm":     func() Opener { return warm },
		"validate": func() Opener { return nil },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, problems, err := Load(fsys, opener(), Options{}); err != nil || len(problems) > 0 {
					b.Fatal(problems, err)
				}
			}
		})
	}
}
