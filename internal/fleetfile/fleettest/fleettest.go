// Package fleettest makes fleet repositories of any size for tests and
// benchmarks: real git, real seals.
package fleettest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// Size says how large a fleet is.
type Size struct{ Customers, Hosts int }

// Big is the size that the hub's figures are given for.
var Big = Size{Customers: 1000, Hosts: 100_000}

// Repository is a bare git repository whose branch main holds a fleet in its
// folder fleet, sealed to two X25519 recipients.
type Repository struct {
	Dir      string // the bare repository
	Identity string // file of the identity that opens the first stanza of each seal
	size     Size
	to       []seal.Recipient
}

// New makes a repository in a folder of the test's.
func New(tb testing.TB, size Size) *Repository {
	tb.Helper()
	r := &Repository{size: size}
	must(tb, r.create(tb.TempDir()))
	return r
}

// Cached is New for sizes that take a while: the repository is made once and kept
// in the user's cache, and the test gets a copy of it.
func Cached(tb testing.TB, size Size) *Repository {
	tb.Helper()
	cache, err := os.UserCacheDir()
	must(tb, err)
	kept := filepath.Join(cache, "felhom-hub", fmt.Sprintf("fleettest-2-%d-%d", size.Customers, size.Hosts))
	if _, err := os.Stat(kept); err != nil {
		tb.Logf("making a repository of %d hosts in %s, once", size.Hosts, kept)
		made := kept + ".new"
		must(tb, os.RemoveAll(made))
		must(tb, os.MkdirAll(made, 0o700))
		must(tb, (&Repository{size: size}).create(made))
		must(tb, os.Rename(made, kept))
	}
	dir := tb.TempDir()
	must(tb, os.CopyFS(dir, os.DirFS(kept)))
	r := &Repository{size: size}
	r.in(dir)
	offline := filepath.Join(dir, "offline.txt")
	must(tb, os.Chmod(r.Identity, 0o600)) // a copy has another mode
	must(tb, os.Chmod(offline, 0o600))
	ids, err := seal.ReadIdentities(r.Identity, offline)
	must(tb, err)
	for _, id := range ids {
		r.to = append(r.to, id.Recipient())
	}
	return r
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (r *Repository) in(dir string) {
	r.Dir, r.Identity = filepath.Join(dir, "fleet.git"), filepath.Join(dir, "identity.txt")
}

func (r *Repository) create(dir string) error {
	r.in(dir)
	for _, file := range []string{r.Identity, filepath.Join(dir, "offline.txt")} {
		id, err := seal.GenerateIdentity()
		if err != nil {
			return err
		}
		if err := seal.WriteIdentity(file, id); err != nil {
			return err
		}
		r.to = append(r.to, id.Recipient())
	}
	if out, err := exec.Command("git", "init", "-q", "--bare", "-b", "main", r.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("git init: %w: %s", err, out)
	}
	files := []File{
		{fleetfile.FleetPath, []byte("apiVersion: hub.felhom.eu/v1\nkind: Fleet\nmetadata: {name: big}\nspec:\n  keys: []\n")},
		{fleetfile.RecipientsPath, []byte(r.to[0].String() + "\n" + r.to[1].String() + "\n")},
	}
	for c := range r.size.Customers {
		name := CustomerName(c)
		files = append(files, File{fleetfile.CustomerPath(name), []byte("apiVersion: hub.felhom.eu/v1\nkind: Customer\nmetadata: {name: " + name + "}\nspec:\n  displayName: Customer " + name + "\n  keys: []\n")})
	}
	hosts, err := r.hostFiles()
	if err != nil {
		return err
	}
	return r.commit("the first fleet", append(files, hosts...))
}

// CustomerName returns the name of customer c, from 0 on.
func CustomerName(c int) string { return fmt.Sprintf("c%04d", c) }

// HostID returns the id of host h, from 0 on.
func (r *Repository) HostID(h int) string {
	return fmt.Sprintf("%s-%08x", CustomerName(h%r.size.Customers), h)
}

// HostFile returns the path of host h's file within the fleet folder.
func (r *Repository) HostFile(h int) string {
	return fleetfile.HostPath(CustomerName(h%r.size.Customers), r.HostID(h))
}

// hostFiles seals a key for each host, on every core.
func (r *Repository) hostFiles() ([]File, error) {
	files, errs := make([]File, r.size.Hosts), make([]error, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for w := range errs {
		workers.Go(func() {
			for h := w; h < len(files) && errs[w] == nil; h += len(errs) {
				files[h].Name = r.HostFile(h)
				files[h].Data, errs[w] = r.Host(h, hub.NewKey(), "")
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Host returns the content of host h's file with this key and display name.
func (r *Repository) Host(h int, key hub.Secret, displayName string) ([]byte, error) {
	id := r.HostID(h)
	sealed, to, err := seal.Seal(seal.Payload{Owner: hub.HostOwner(id), KeyID: "k1", Key: key}, r.to)
	if err != nil {
		return nil, err
	}
	return fleetfile.HostFile{APIVersion: fleetfile.APIVersion, Kind: "Host",
		Metadata: fleetfile.HostMetadata{Name: id, Customer: CustomerName(h % r.size.Customers), Labels: map[string]string{"site": fmt.Sprintf("site-%d", h%20)}},
		Spec:     fleetfile.HostSpec{DisplayName: displayName, State: "active", Keys: []fleetfile.Key{{ID: "k1", SealedTo: to, Sealed: sealed}}},
	}.Render()
}

// File is a file of the fleet folder and its new content; nil removes it.
type File struct {
	Name string
	Data []byte
}

// Commit puts a commit with these files on the branch and returns its id.
func (r *Repository) Commit(tb testing.TB, message string, files ...File) string {
	tb.Helper()
	must(tb, r.commit(message, files))
	out, err := exec.Command("git", "-C", r.Dir, "rev-parse", "main").Output()
	must(tb, err)
	return strings.TrimSpace(string(out))
}

// commit streams a commit to git fast-import, which no number of files slows down.
func (r *Repository) commit(message string, files []File) error {
	cmd := exec.Command("git", "-C", r.Dir, "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	from := ""
	if exec.Command("git", "-C", r.Dir, "rev-parse", "-q", "--verify", "main").Run() == nil {
		from = "from refs/heads/main^0\n"
	}
	out := bufio.NewWriterSize(in, 1<<20)
	fmt.Fprintf(out, "commit refs/heads/main\ncommitter Olga <olga@example.com> %d +0000\ndata %d\n%s\n%s", time.Now().Unix(), len(message), message, from)
	for _, f := range files {
		writeChange(out, f)
	}
	err = out.Flush()
	if closeErr := in.Close(); err == nil {
		err = closeErr
	}
	if waitErr := cmd.Wait(); waitErr != nil {
		return fmt.Errorf("git fast-import: %w: %s", waitErr, said.String())
	}
	return err
}

func writeChange(out io.Writer, f File) {
	if f.Data == nil {
		fmt.Fprintf(out, "D fleet/%s\n", f.Name)
		return
	}
	fmt.Fprintf(out, "M 100644 inline fleet/%s\ndata %d\n", f.Name, len(f.Data))
	_, _ = out.Write(f.Data)
	fmt.Fprintln(out)
}
