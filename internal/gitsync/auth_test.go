package gitsync_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"golang.org/x/crypto/ssh"
)

// sshKey writes a private key and returns its file and the public key.
func sshKey(t testing.TB) (string, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id_ed25519")
	write(t, path, string(pem.EncodeToMemory(block)))
	return path, key
}

func TestCheckURL(t *testing.T) {
	for url, want := range map[string]string{ // want "": taken
		"/srv/git/fleet.git":                         "",
		"../fleet.git":                               "",
		"./odd:name":                                 "",
		"file:///srv/git/fleet.git":                  "",
		"https://git.example.com/acme/fleet.git":     "",
		"https://git.example.com:8443/fleet.git":     "",
		"ssh://git@git.example.com:2222/fleet.git":   "",
		"git@git.example.com:acme/fleet.git":         "",
		"git.example.com:acme/fleet.git":             "",
		"":                                           "set fleet.url",
		"http://git.example.com/fleet.git":           "write https://git.example.com/fleet.git",
		"git://git.example.com/fleet.git":            "write https://git.example.com/fleet.git",
		"https://s3cret@git.example.com/f.git":       "write https://git.example.com/f.git and put the token into the file named by fleet.credentials_file",
		"https://bob:s3cret@git.example.com/f.git":   "write https://git.example.com/f.git and",
		"http://bob:s3cret@git.example.com/f.git":    "write https://git.example.com/f.git",
		"ssh://git:s3cret@git.example.com/f.git":     "write ssh://git@git.example.com/f.git and",
		"https://git.example.com/f.git?token=s3cret": "write https://git.example.com/f.git",
		"https://bob:s3cret@git.example.com/%zz":     "cannot be read",
		"https:///fleet.git":                         "cannot be read",
		"file://srv/fleet.git":                       "three slashes",
	} {
		err := gitsync.CheckURL(url)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error repeats the credential: %v", url, err)
		}
	}
}

func TestFolderNeedsGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := gitsync.CheckURL("/srv/git/fleet.git"); err == nil || !strings.Contains(err.Error(), "install git") {
		t.Errorf("error %v", err)
	}
	if err := gitsync.CheckURL("https://git.example.com/fleet.git"); err != nil {
		t.Errorf("https needs no git: %v", err)
	}
}

// The configuration of SSH is checked before anything is sent; nothing listens
// at the address.
func TestSSHConfiguration(t *testing.T) {
	key, public := sshKey(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		write(t, path, content)
		return path
	}
	known := file("known_hosts", "[127.0.0.1]:1 "+string(ssh.MarshalAuthorizedKey(public)))
	open644 := file("wide", "x")
	if err := os.Chmod(open644, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ credentials, known, want string }{
		"no key":         {"", known, "fleet.credentials_file"},
		"missing key":    {filepath.Join(dir, "none"), known, "fleet.credentials_file"},
		"a token":        {file("token", "glpat-123"), known, "no private SSH key"},
		"readable key":   {open644, known, "chmod 600"},
		"no known hosts": {key, filepath.Join(dir, "none"), "fleet.known_hosts_file"},
		"all there":      {key, known, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, "ssh://git@127.0.0.1:1/fleet.git", func(o *gitsync.Options) {
				o.CredentialsFile, o.KnownHostsFile = c.credentials, c.known
			})
			_, err := r.RemoteHead(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "glpat") {
				t.Errorf("the error repeats the credential: %v", err)
			}
		})
	}
}
