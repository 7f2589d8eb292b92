package gitsync

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// SigningKey is the key with which Publish signs.
type SigningKey struct{ signer ssh.Signer }

// ReadSigningKey reads an SSH private key without a passphrase from a file that
// nobody else may read.
func ReadSigningKey(file string) (*SigningKey, error) {
	const setting = "fleet.signing_key_file"
	data, err := readPrivate(setting, file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, fmt.Errorf("%s: the key in %s has a passphrase, nobody is there to type it: make one without (ssh-keygen -t ed25519 -N '')", setting, file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s holds no private SSH key: %w", setting, file, err)
	}
	return &SigningKey{signer}, nil
}

// Public returns the public key as a line of an allowed signers file has it after
// the principals.
func (k *SigningKey) Public() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

// Fingerprint returns the SHA256:… fingerprint of the public key.
func (k *SigningKey) Fingerprint() string { return ssh.FingerprintSHA256(k.signer.PublicKey()) }

// sign signs the commit as git commit -S does.
func (k *SigningKey) sign(c *object.Commit) error {
	obj := &plumbing.MemoryObject{}
	if err := c.EncodeWithoutSignature(obj); err != nil {
		return err
	}
	payload, err := content(obj)
	if err != nil {
		return err
	}
	sig, err := sshsig.Sign(bytes.NewReader(payload), k.signer, sshsig.HashSHA512, sigNamespace)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	c.PGPSignature = string(sshsig.Armor(sig)) // git keeps every kind of signature there
	return nil
}

// Allows returns nil when a commit that k signs would be trusted at the time, and
// otherwise an error that says what to write where.
func (s *Signers) Allows(k *SigningKey, at time.Time) error {
	_, err := s.allowedSSH(k.signer.PublicKey(), at)
	if d := (*distrust)(nil); errors.As(err, &d) {
		return fmt.Errorf("fleet.signing_key_file: what the hub commits would not be trusted: %s (add this line to fleet.allowed_signers_file: hub %s)", d.what, k.Public())
	}
	return err
}

// readPrivate reads a file that holds a secret.
func readPrivate(setting, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %s may be read by others: chmod 600 %[2]s", setting, path)
	}
	if info.Size() > maxCredentials {
		return nil, fmt.Errorf("%s: %s is no token and no key: it has %d bytes", setting, path, info.Size())
	}
	return os.ReadFile(path)
}
