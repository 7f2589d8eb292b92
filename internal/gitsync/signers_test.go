package gitsync_test

import (
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/gitsync"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	olgaKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	olgaPrint = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
	goodPrint = "F2E0 1A2B 3C4D 5E6F 7081 92A3 B4C5 D6E7 F809 1A2B"
)

func TestEveryMistakeOfASignersFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	allowed, revoked := filepath.Join(dir, "allowed"), filepath.Join(dir, "revoked")
	for name, c := range map[string]struct {
		allowed, revoked string
		want             []string // each in a line of the error; none: no error
	}{
		"fine": {"# us\n\nolga " + olgaKey + " a comment\r\n\"olga @home\" namespaces=\"git,file\",valid-after=\"20260101\" " + olgaKey + "\n",
			"# lost\n" + olgaPrint + "\n" + goodPrint + "\n" + olgaKey + " note\n", nil},
		"tabs":            {"olga\t" + strings.ReplaceAll(olgaKey, " ", "\t"), "", nil},
		"nobody":          {"# nobody\n", "", []string{"allowed:1: it names nobody"}},
		"no principals":   {olgaKey, "", []string{"allowed:1: no SSH public key can be read"}},
		"one word":        {"olga", "", []string{"allowed:1: the line is not principals, options and a key"}},
		"no type of key":  {"olga " + strings.Fields(olgaKey)[1], "", []string{"no SSH public key"}},
		"wrong type":      {"olga ssh-rsa " + strings.Fields(olgaKey)[1], "", []string{"no SSH public key"}},
		"open quotes":     {`"olga ` + olgaKey, "", []string{"quoted principals do not end"}},
		"quotes inside":   {`ol"ga" ` + olgaKey, "", []string{"not principals"}},
		"authority":       {"olga cert-authority " + olgaKey, "", []string{"allowed:1: certificates are not supported"}},
		"unknown options": {"olga verify-required " + olgaKey, "", []string{`the option "verify-required" is unknown`}},
		"one is unknown":  {`olga namespaces="git",no-touch-required ` + olgaKey, "", []string{`the option "no-touch-required" is unknown`}},
		"no namespaces":   {`olga namespaces="" ` + olgaKey, "", []string{"namespaces is empty"}},
		"bad times": {"a valid-after=\"2026\" " + olgaKey + "\nb valid-before=\"20261301\" " + olgaKey + "\nc valid-before=\"2026010112000\" " + olgaKey + "\nd valid-after " + olgaKey, "",
			[]string{`allowed:1: valid-after: "2026" is no time`, "allowed:2: ", "allowed:3: ", "allowed:4: "}},
		"never valid":   {`olga valid-after="20270101",valid-before="20260101" ` + olgaKey, "", []string{"would never be valid"}},
		"no text":       {"olga\x00 " + olgaKey, "", []string{"control characters"}},
		"garbage PGP":   {"olga " + olgaKey + "\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", "", []string{"allowed:2: no OpenPGP public key"}},
		"open PGP":      {"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n", "", []string{"allowed:1: the OpenPGP block has no end"}},
		"a private PGP": {"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "", []string{"allowed:1: no SSH public key"}},
		"revocations":   {"olga " + olgaKey, "SHA256:short\nserial: 1\n\nABCD\nolga " + olgaKey, []string{"revoked:1: it is no SHA256", "revoked:2: it is no key", "revoked:4: ", "revoked:5: "}},
		"binary list":   {"olga " + olgaKey, "SSHKRL\n\x00\x00\x00\x00\x01", []string{"list the keys instead"}},
		"both files":    {"olga", "nonsense", []string{"allowed:1: ", "revoked:1: "}},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, allowed, c.allowed)
			write(t, revoked, c.revoked)
			s, err := gitsync.ReadSigners(allowed, revoked)
			if len(c.want) == 0 {
				if err != nil || s == nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || s != nil {
				t.Fatalf("no error, want %q", c.want)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d mistakes, want %d:\n%v", len(lines), len(c.want), err)
			}
			for i, want := range c.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%q, want %q in it", lines[i], want)
				}
			}
		})
	}
}

func TestSignersFilesAreGuarded(t *testing.T) {
	dir := t.TempDir()
	allowed, revoked := filepath.Join(dir, "allowed"), filepath.Join(dir, "revoked")
	write(t, allowed, "olga "+olgaKey)
	write(t, revoked, "")
	first, err := gitsync.ReadSigners(allowed, "")
	if err != nil {
		t.Fatal(err)
	}
	same, err := gitsync.ReadSigners(allowed, revoked)
	if err != nil || same.Digest() != first.Digest() {
		t.Errorf("digest %s of the same content, want %s (%v)", same.Digest(), first.Digest(), err)
	}
	write(t, revoked, olgaPrint)
	if changed, err := gitsync.ReadSigners(allowed, revoked); err != nil || changed.Digest() == first.Digest() {
		t.Errorf("the digest does not tell that a key was revoked (%v)", err)
	}
	for _, path := range []string{allowed, revoked} {
		for _, mode := range []os.FileMode{0o620, 0o602} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := gitsync.ReadSigners(allowed, revoked); err == nil || !strings.Contains(err.Error(), "chmod go-w "+path) {
				t.Errorf("%s with mode %o: %v", path, mode, err)
			}
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := gitsync.ReadSigners(filepath.Join(dir, "none"), ""); err == nil || !strings.Contains(err.Error(), "fleet.allowed_signers_file") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Times without a Z are local, as ssh-keygen takes them.
func TestValidityIsJudgedInItsZone(t *testing.T) {
	defer func(zone *time.Location) { time.Local = zone }(time.Local)
	time.Local = time.FixedZone("east", 2*3600)
	key, public := keyPair(t)
	k, err := gitsync.ReadSigningKey(key)
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for option, allowed := range map[string]bool{
		`valid-after="202611251400"`:     true,
		`valid-after="20261125140001"`:   false,
		`valid-after="20261125120000Z"`:  true,
		`valid-before="202611251359"`:    false,
		`valid-before="20261125120000Z"`: true,
		`valid-before="20261125115959Z"`: false,
	} {
		if err := signers(t, "hub "+option+" "+public, "").Allows(k, noon); (err == nil) != allowed {
			t.Errorf("%s: %v", option, err)
		}
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&small.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "allowed")
	write(t, file, "olga "+string(ssh.MarshalAuthorizedKey(public)))
	if _, err := gitsync.ReadSigners(file, ""); err == nil || !strings.Contains(err.Error(), "1024 bits is too weak") {
		t.Errorf("error %v", err)
	}
}

// ssh-keygen makes no signature that rests on SHA-1 any more, so it is made here.
func TestSHA1IsRefused(t *testing.T) {
	o := newOrigin(t)
	base := o.commit("base", "a", "1")
	file, public := keyPair(t, "-t", "rsa", "-b", "2048")
	signer, err := ssh.ParsePrivateKey([]byte(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	payload := o.payload("old")
	digest := sshsig.HashSHA512.Hash()
	digest.Write(payload)
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Digest string }{"git", "", "sha512", string(digest.Sum(nil))})...)
	r := open(t, o.bare)
	for algorithm, trusted := range map[string]bool{ssh.KeyAlgoRSA: false, ssh.KeyAlgoRSASHA256: true} {
		sig, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signed, algorithm)
		if err != nil {
			t.Fatal(err)
		}
		armored := sshsig.Armor(&sshsig.Signature{Version: 1, PublicKey: signer.PublicKey(), Namespace: "git", HashAlgorithm: sshsig.HashSHA512, Signature: sig})
		git(t, o.bare, "update-ref", "refs/heads/main", string(base))
		head := o.put(withHeaders(payload, header("gpgsig", string(armored))))
		fetch(t, r)
		_, err = r.Verify(head, base, signers(t, "olga "+public, ""), time.Now())
		if trusted && err != nil {
			t.Errorf("%s: %v", algorithm, err)
		} else if !trusted {
			wantDistrust(t, err, head, "bad_signature", `signature format "ssh-rsa"`)
		}
	}
}
