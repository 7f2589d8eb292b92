package gitsync_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// keyPair makes a key with ssh-keygen and returns its file and the content of
// its .pub file.
func keyPair(t testing.TB, args ...string) (file, public string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "id")
	if len(args) == 0 {
		args = []string{"-t", "ed25519"}
	}
	run(t, nil, "ssh-keygen", append(args, "-q", "-N", "", "-C", "", "-f", file)...)
	return file, strings.TrimSpace(read(t, file+".pub"))
}

// run runs a program with something on its standard input and returns its
// standard output.
func run(t testing.TB, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, said.String())
	}
	return string(out)
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// signWith has git sign what o commits from now on.
func (o *origin) signWith(format, key string) {
	o.t.Helper()
	git(o.t, o.clone, "config", "gpg.format", format)
	git(o.t, o.clone, "config", "user.signingKey", key)
	git(o.t, o.clone, "config", "commit.gpgSign", "true")
}

func (o *origin) unsigned() { git(o.t, o.clone, "config", "commit.gpgSign", "false") }

// signers reads lists of allowed and revoked signers.
func signers(t testing.TB, allowed, revoked string) *gitsync.Signers {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "allowed"), allowed)
	write(t, filepath.Join(dir, "revoked"), revoked)
	s, err := gitsync.ReadSigners(filepath.Join(dir, "allowed"), filepath.Join(dir, "revoked"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pgpKey is an OpenPGP key of go-crypto and signs a commit's payload as gpg does.
type pgpKey struct{ *openpgp.Entity }

func newPGPKey(t testing.TB, config *packet.Config) pgpKey {
	t.Helper()
	e, err := openpgp.NewEntity("Olga Operator", "", "olga@example.com", config)
	if err != nil {
		t.Fatal(err)
	}
	return pgpKey{e}
}

func (k pgpKey) public(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = k.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

func (k pgpKey) sign(t testing.TB, payload []byte, config *packet.Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, k.Entity, bytes.NewReader(payload), config); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (k pgpKey) fingerprint() string { return fmt.Sprintf("%X", k.PrimaryKey.Fingerprint) }

// sshSign signs a payload with ssh-keygen.
func sshSign(t testing.TB, key, namespace string, payload []byte) string {
	t.Helper()
	return run(t, payload, "ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key)
}

// payload is a commit of the branch's tree on the branch, as it is signed.
func (o *origin) payload(subject string) []byte {
	return []byte(fmt.Sprintf("tree %s\nparent %s\nauthor A U Thor <a@example.com> 1700000000 +0000\ncommitter A U Thor <a@example.com> 1700000000 +0000\n\n%s\n",
		git(o.t, o.bare, "rev-parse", "main^{tree}"), o.head("main"), subject))
}

// header is a signature as a commit's header has it.
func header(name, signature string) string {
	return name + " " + strings.ReplaceAll(strings.TrimSuffix(signature, "\n"), "\n", "\n ") + "\n"
}

// withHeaders puts headers behind the last of a payload.
func withHeaders(payload []byte, headers ...string) []byte {
	head, message, _ := bytes.Cut(payload, []byte("\n\n"))
	return []byte(string(head) + "\n" + strings.Join(headers, "") + "\n" + string(message))
}

// put makes the bytes a commit, and the branch's head.
func (o *origin) put(raw []byte) gitsync.Hash {
	o.t.Helper()
	file := filepath.Join(o.t.TempDir(), "commit")
	write(o.t, file, string(raw))
	h := git(o.t, o.bare, "hash-object", "-t", "commit", "--literally", "-w", file)
	git(o.t, o.bare, "update-ref", "refs/heads/main", h)
	return gitsync.Hash(h)
}
