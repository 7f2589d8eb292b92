package fleetops

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// newFleet begins a fleet in a scratch repository and returns the repository's
// folder, the fleet's and the hub's opener.
func newFleet(t *testing.T) (repo, dir string, opener *seal.Opener) {
	t.Helper()
	repo = t.TempDir()
	dir = filepath.Join(repo, "fleet")
	identity := filepath.Join(t.TempDir(), "secrets", "hub.key")
	done, err := Init(dir, InitOptions{IdentityFile: identity})
	if err != nil || !done.IdentityMade || len(done.Recipients) != 1 {
		t.Fatal(done, err)
	}
	ids, err := seal.ReadIdentities(identity)
	if err != nil {
		t.Fatal(err)
	}
	return repo, dir, seal.NewOpener(ids)
}

func load(t *testing.T, dir string, opener fleetfile.Opener) *hub.Fleet {
	t.Helper()
	fleet, problems, err := fleetfile.Load(os.DirFS(dir), opener, fleetfile.Options{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	return fleet
}

// holds fails unless the key's text opens as that owner's.
func holds(t *testing.T, fleet *hub.Fleet, owner hub.Owner, id string, text hub.Secret) {
	t.Helper()
	digest, err := hub.DigestKey(text.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := fleet.Key(digest); !ok || k.Owner != owner || k.ID != id {
		t.Errorf("key %s of %s: found %v %+v", id, owner, ok, k)
	}
}

func TestInit(t *testing.T) {
	_, dir, opener := newFleet(t)
	if fleet := load(t, dir, opener); fleet.Name() != "felhom" || fleet.Len() != 0 {
		t.Error(fleet.Name(), fleet.Len())
	}
	if _, problems, err := Validate(dir); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	before := read(t, dir)
	if _, err := Init(dir, InitOptions{}); err == nil || !strings.Contains(err.Error(), "there is a fleet already") {
		t.Error(err)
	}
	if after := read(t, dir); after != before {
		t.Error("a refused init changed something")
	}
}

// read returns all files of a folder as one text.
func read(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		out.WriteString(name + "\n" + string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestInitKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, "README.md")); string(data) != "mine" {
		t.Errorf("README.md is now %q", data)
	}
	_, problems, err := Validate(dir)
	want := filepath.Join(dir, "recipients.txt") + ": names no recipient"
	if err != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].String(), want) {
		t.Error(problems, err)
	}
}

func TestInitIdentity(t *testing.T) {
	file := filepath.Join(t.TempDir(), "id")
	want, err := GenerateIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	done, err := Init(t.TempDir(), InitOptions{IdentityFile: file})
	if err != nil || done.IdentityMade || done.Recipients[0].String() != want.String() {
		t.Error(done, err)
	}
	if _, err := GenerateIdentity(file); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	dir := t.TempDir()
	if _, err := Init(dir, InitOptions{IdentityFile: filepath.Join(dir, "keys", "id")}); err == nil || !strings.Contains(err.Error(), "be committed") {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Error("a refused init wrote", entries)
	}
}

// TestScaffoldSuggestsWhatTheProjectHas: what fleet.yaml of init has in comments is
// what the project's own says.
func TestScaffoldSuggestsWhatTheProjectHas(t *testing.T) {
	own, err := os.ReadFile("../../fleet/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := scaffold.ReadFile("scaffold/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, suggested, found := strings.Cut(string(ours), "  keys: []                        # global keys; hub fleet key add fleet\n")
	for _, key := range []string{"  # deadlines:", "  # maintenance:", "  #   -"} {
		found = found && strings.Contains(suggested, "\n"+key)
		suggested = strings.Replace(suggested, "\n"+key, "\n"+strings.Replace(key, "# ", "", 1), 1)
	}
	if !found || !strings.HasSuffix(string(own), suggested) {
		t.Errorf("fleet/fleet.yaml does not end with\n%s", suggested)
	}
}

// TestScaffoldIsTheProjects keeps what init writes and the project's own fleet
// the same, as far as both have it. (The schemas come from the same Go types.)
func TestScaffoldIsTheProjects(t *testing.T) {
	for _, name := range []string{"README.md", "recipients.txt", "fleet.yaml"} {
		own, err := os.ReadFile(filepath.Join("../../fleet", name))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := scaffold.ReadFile("scaffold/" + name)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "recipients.txt": // the example names some
			own = own[:min(len(own), len(ours))]
		case "fleet.yaml": // the example has a key
			empty, _, _ := strings.Cut(string(ours), "  keys: []")
			own, ours = own[:min(len(own), len(empty))], []byte(empty)
		}
		if !bytes.Equal(own, ours) {
			t.Errorf("fleet/%s and internal/fleetops/scaffold/%s differ: change both", name, name)
		}
	}
}

func TestEnroll(t *testing.T) {
	repo, dir, opener := newFleet(t)
	one, err := Enroll(repo, EnrollOptions{Customer: "acme", DisplayName: "pve: \"1\"", NewCustomer: true})
	if err != nil || len(one) != 1 {
		t.Fatal(one, err)
	}
	three, err := Enroll(dir, EnrollOptions{Customer: "acme", DisplayName: "pve", Count: 3, NewCustomer: true})
	if err != nil || len(three) != 3 {
		t.Fatal(three, err)
	}
	fleet := load(t, dir, opener)
	for i, e := range append(one, three...) {
		if !regexp.MustCompile(`^acme-[0-9a-f]{8}$`).MatchString(e.HostID) || e.File != filepath.Join(dir, "customers/acme/hosts", e.HostID+".yaml") {
			t.Errorf("%s %s", e.HostID, e.File)
		}
		holds(t, fleet, hub.HostOwner(e.HostID), "k1", e.APIKey)
		h, _ := fleet.Enrolled(e.HostID)
		if want := []string{"pve: \"1\"", "pve-1", "pve-2", "pve-3"}[i]; h.DisplayName != want || h.Customer != "acme" {
			t.Errorf("%+v", h)
		}
	}
	if _, problems, err := Validate(repo); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// TestFilesAreWrittenForPeople pins the form of what enroll writes.
func TestFilesAreWrittenForPeople(t *testing.T) {
	_, dir, _ := newFleet(t)
	hosts, err := Enroll(dir, EnrollOptions{Customer: "acme", DisplayName: "pve-01", NewCustomer: true})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(hosts[0].File)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(data), hosts[0].HostID, "ID")
	text = regexp.MustCompile(`\n        [A-Za-z0-9+/=]+`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`"?[0-9a-f]{16}"?`).ReplaceAllString(text, "PRINT")
	if want := `# yaml-language-server: $schema=../../../schema/host.json
apiVersion: hub.felhom.eu/v1
kind: Host
metadata:
  name: ID
  customer: acme
spec:
  displayName: pve-01
  state: active
  keys:
    - id: k1
      sealedTo: [PRINT]
      sealed: |
        -----BEGIN AGE ENCRYPTED FILE-----
        -----END AGE ENCRYPTED FILE-----
`; text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	data, err = os.ReadFile(filepath.Join(dir, "customers/acme/customer.yaml"))
	if want := `# yaml-language-server: $schema=../../schema/customer.json
apiVersion: hub.felhom.eu/v1
kind: Customer
metadata:
  name: acme
spec:
  status: active
  keys: []
`; err != nil || string(data) != want {
		t.Errorf("%v got\n%s\nwant\n%s", err, data, want)
	}
}

func TestEnrollRefuses(t *testing.T) {
	_, dir, _ := newFleet(t)
	if _, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true}); err != nil {
		t.Fatal(err)
	}
	before := read(t, dir)
	for name, test := range map[string]struct {
		opts         EnrollOptions
		reason, hint string
	}{
		"unknown":  {EnrollOptions{Customer: "acmee"}, "unknown_customer", `there is no "acmee": the fleet has acme; hub fleet enroll --new-customer adds one`},
		"bad name": {EnrollOptions{Customer: "../x", NewCustomer: true}, "unknown_customer", "lowercase letters, digits and dashes; at most 63, no dash first or last"},
		"bad text": {EnrollOptions{Customer: "acme", DisplayName: "a\nb"}, "display_name", ""},
	} {
		hosts, err := Enroll(dir, test.opts)
		var e *hub.Error
		if !errors.As(err, &e) || e.Code != hub.Invalid || e.Reason != test.reason || e.Hint != test.hint || len(hosts) > 0 {
			t.Errorf("%s: %v %+v", name, hosts, e)
		}
		if strings.Contains(e.Message, "acmee") {
			t.Errorf("%s: the message echoes what was asked: %s", name, e.Message)
		}
	}
	if after := read(t, dir); after != before {
		t.Error("a refused enrollment changed something")
	}
	if err := os.WriteFile(filepath.Join(dir, "recipients.txt"), []byte("# none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Enroll(dir, EnrollOptions{Customer: "acme"}); hub.CodeOf(err) != hub.Internal || !strings.Contains(err.Error(), "recipients.txt: names no recipient") {
		t.Error(err)
	}
}

func TestEnrollFiles(t *testing.T) {
	_, dir, opener := newFleet(t)
	if _, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true}); err != nil {
		t.Fatal(err)
	}
	before := read(t, dir)
	host, files, err := EnrollFiles(os.DirFS(dir), "acme", "minted")
	if err != nil || len(files) != 1 || host.File != "customers/acme/hosts/"+host.HostID+".yaml" {
		t.Fatal(host, files, err)
	}
	if read(t, dir) != before {
		t.Error("it wrote something")
	}
	fsys := fstest.MapFS{}
	if err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(os.DirFS(dir), name)
		fsys[name] = &fstest.MapFile{Data: data}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		fsys[name] = &fstest.MapFile{Data: data}
	}
	fleet, problems, err := fleetfile.Load(fsys, opener, fleetfile.Options{})
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	holds(t, fleet, hub.HostOwner(host.HostID), "k1", host.APIKey)
	if _, _, err := EnrollFiles(fsys, "globex", ""); hub.ReasonOf(err) != "unknown_customer" {
		t.Error(err)
	}
	if _, _, err := EnrollFiles(fstest.MapFS{}, "acme", ""); hub.ReasonOf(err) != "fleet_fault" {
		t.Error(err)
	}
}

func TestNewIDsAreFree(t *testing.T) {
	e := enroller{customer: "acme", taken: make(map[string]bool)}
	seen := make(map[string]bool)
	for range 1000 {
		id := e.newID()
		if seen[id] || !e.taken[id] {
			t.Fatal(id)
		}
		seen[id] = true
	}
}

func TestAddKey(t *testing.T) {
	_, dir, opener := newFleet(t)
	hosts, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true})
	if err != nil {
		t.Fatal(err)
	}
	comment := "# asked for in ticket 17\n"
	data, _ := os.ReadFile(hosts[0].File)
	if err := os.WriteFile(hosts[0].File, append([]byte(comment), data...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(hosts[0].File, 0o640); err != nil {
		t.Fatal(err)
	}
	owners := map[hub.Owner][]string{
		hub.HostOwner(hosts[0].HostID): {"k2", "k3"},
		hub.CustomerOwner("acme"):      {"k1", "k2"},
		hub.FleetOwner():               {"k1", "k2"},
	}
	added := make(map[hub.Owner][]AddedKey)
	for owner, ids := range owners {
		for _, id := range ids {
			k, err := AddKey(dir, owner)
			if err != nil || k.KeyID != id || k.Owner != owner {
				t.Fatal(k, err)
			}
			added[owner] = append(added[owner], k)
		}
	}
	fleet := load(t, dir, opener)
	for owner, keys := range added {
		for _, k := range keys {
			holds(t, fleet, owner, k.KeyID, k.APIKey)
		}
	}
	holds(t, fleet, hub.HostOwner(hosts[0].HostID), "k1", hosts[0].APIKey)
	after, _ := os.ReadFile(hosts[0].File)
	if !strings.HasPrefix(string(after), comment+string(data)) {
		t.Errorf("the rest of the file changed:\n%s", after)
	}
	if info, _ := os.Stat(hosts[0].File); info.Mode().Perm() != 0o640 {
		t.Error(info.Mode())
	}
	if fleetYAML, _ := os.ReadFile(filepath.Join(dir, "fleet.yaml")); !strings.Contains(string(fleetYAML), "keys:                        # global keys") {
		t.Errorf("the comment is gone:\n%s", fleetYAML)
	}
}

func TestAddKeyRefuses(t *testing.T) {
	_, dir, _ := newFleet(t)
	hosts, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AddKey(dir, hub.HostOwner("acme-1")); err == nil || !strings.Contains(err.Error(), "there is no host acme-1") {
		t.Error(err)
	}
	if _, err := AddKey(dir, hub.CustomerOwner("globex")); hub.ReasonOf(err) != "unknown_customer" {
		t.Error(err)
	}
	if err := os.WriteFile(hosts[0].File, []byte("kind: Hosts\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := AddKey(dir, hub.HostOwner(hosts[0].HostID)); err == nil || !strings.HasSuffix(err.Error(), "mend this first") {
		t.Error(err)
	}
}

func TestNextID(t *testing.T) {
	for ids, want := range map[string]string{"": "k1", "k1": "k2", "k9 k10 k2": "k11", "admin": "k1", "k2 spare": "k3"} {
		var keys []fleetfile.Key
		for _, id := range strings.Fields(ids) {
			keys = append(keys, fleetfile.Key{ID: id})
		}
		if got := nextID(keys); got != want {
			t.Errorf("after %q: %s, want %s", ids, got, want)
		}
	}
}

func TestResolveDir(t *testing.T) {
	repo, dir, _ := newFleet(t)
	for _, from := range []string{repo, dir, dir + "/"} {
		if got, err := ResolveDir(from); err != nil || filepath.Clean(got) != dir {
			t.Error(from, got, err)
		}
	}
	t.Chdir(repo)
	for from, want := range map[string]string{"": "fleet", ".": "fleet", "fleet": "fleet"} {
		if got, err := ResolveDir(from); err != nil || got != want {
			t.Error(from, got, err)
		}
	}
	for _, from := range []string{"fleet/customers", "none", "fleet/README.md"} {
		if got, err := ResolveDir(from); err == nil || !strings.Contains(err.Error(), "hub fleet init "+filepath.Join(from, "fleet")) {
			t.Error(from, got, err)
		}
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a", "b.yaml")
	if err := create(file, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := create(file, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if got := read(t, filepath.Dir(file)); got != file+"\nfirst" {
		t.Errorf("left behind: %s", got)
	}
}

func TestValidateNamesFilesFromHere(t *testing.T) {
	repo, dir, _ := newFleet(t)
	if err := os.WriteFile(filepath.Join(dir, "customers", "x.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(repo)
	fleet, problems, err := Validate("")
	if err != nil || fleet != nil || len(problems) != 1 || problems[0].File != filepath.Join("fleet", "customers", "x.txt") {
		t.Error(problems, err)
	}
}

func BenchmarkEnroll(b *testing.B) {
	dir := b.TempDir()
	if _, err := Init(dir, InitOptions{IdentityFile: filepath.Join(b.TempDir(), "id")}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true, Count: 1000}); err != nil {
			b.Fatal(err)
		}
	}
}
