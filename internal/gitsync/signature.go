package gitsync

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	sigNamespace = "git" // what git's SSH signatures are made for

	sigHeader    = "gpgsig"        // git's header of every kind of signature
	sigHeader256 = "gpgsig-sha256" // the one of a SHA-256 repository's twin

	// clockSkew is how far a signer's clock may be ahead of the hub's.
	clockSkew = 10 * time.Minute
)

// rawCommit is what trust needs of the bytes of a commit.
type rawCommit struct {
	tree    plumbing.Hash
	parents []plumbing.Hash

	payload   []byte // what was signed: all but the signature
	signature []byte // armored; nil: none
}

// splitCommit takes a commit's bytes apart as git does when it verifies. What it
// does not expect is an error: no two readers may see different commits in it.
func splitCommit(raw []byte) (c rawCommit, err error) {
	head, message, found := bytes.Cut(raw, []byte("\n\n"))
	if !found || bytes.IndexByte(head, 0) >= 0 {
		return c, errors.New("its header has no end, or a NUL in it")
	}
	var names []string
	seen, in := map[string]bool{}, ""
	for line := range bytes.SplitSeq(head, []byte("\n")) {
		name, value, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			return c, fmt.Errorf("a header without a value: %.40q", line)
		}
		switch {
		case len(name) == 0 && in == "":
			return c, errors.New("its first line begins with a space")
		case len(name) == 0: // goes on with the header before
		default:
			in = string(name)
			if seen[in] && in != "parent" && in != "mergetag" {
				return c, fmt.Errorf("two headers %s", in)
			}
			seen[in] = true
			names = append(names, in)
		}
		switch in {
		case sigHeader:
			c.signature = append(append(c.signature, value...), '\n')
			continue
		case sigHeader256:
			continue
		case "tree", "parent":
			if len(name) == 0 || !plumbing.IsHash(string(value)) {
				return c, fmt.Errorf("a bad header %s", in)
			}
			if in == "tree" {
				c.tree = plumbing.NewHash(string(value))
			} else {
				c.parents = append(c.parents, plumbing.NewHash(string(value)))
			}
		}
		c.payload = append(append(c.payload, line...), '\n')
	}
	if err := checkOrder(names); err != nil {
		return c, err
	}
	c.payload = append(append(c.payload, '\n'), message...)
	return c, nil
}

// checkOrder demands tree, parents, author and committer first, as git writes them.
func checkOrder(names []string) error {
	want := []string{"tree"}
	for _, name := range names {
		if name == "parent" {
			want = append(want, name)
		}
	}
	want = append(want, "author", "committer")
	if len(names) < len(want) || strings.Join(names[:len(want)], " ") != strings.Join(want, " ") {
		return fmt.Errorf("its headers are not %s", strings.Join(want, ", "))
	}
	return nil
}

// distrust says why a signature does not count, and what to do about it.
type distrust struct{ reason, what, hint string }

func (d *distrust) Error() string { return d.what + " (" + d.hint + ")" }

func distrusted(reason, hint, format string, args ...any) *distrust {
	return &distrust{reason: reason, hint: hint, what: fmt.Sprintf(format, args...)}
}

const (
	hintSign   = "sign it: git commit -S, or merge it with a signature of your own"
	hintOther  = "let somebody whose key is in fleet.allowed_signers_file sign: git commit --amend -S"
	hintResign = "sign it anew: git commit --amend -S"
)

// check returns who signed c, or a *distrust.
func (s *Signers) check(c rawCommit, at time.Time) (signer string, err error) {
	switch {
	case c.signature == nil:
		return "", distrusted("unsigned", hintSign, "it is not signed")
	case bytes.HasPrefix(c.signature, []byte("-----BEGIN SSH SIGNATURE-----")):
		return s.checkSSH(c, at)
	case bytes.HasPrefix(c.signature, []byte("-----BEGIN PGP SIGNATURE-----")):
		return s.checkPGP(c, at)
	}
	return "", distrusted("bad_signature", "sign with an SSH or an OpenPGP key", "its signature is neither SSH's nor OpenPGP's")
}

func (s *Signers) checkSSH(c rawCommit, at time.Time) (string, error) {
	sig, err := sshsig.Unarmor(c.signature) // refuses what rests on SHA-1
	if err != nil {
		return "", distrusted("bad_signature", hintResign, "its SSH signature cannot be read: %v", err)
	}
	if sig.Namespace != sigNamespace {
		return "", distrusted("bad_signature", hintResign, "its signature was made for %.40q, not for git", sig.Namespace)
	}
	lines := s.ssh[ssh.FingerprintSHA256(sig.PublicKey)]
	if len(lines) == 0 {
		return "", s.unknown(sig.PublicKey)
	}
	// The key of the file, not the one in the signature.
	if err := sshsig.Verify(bytes.NewReader(c.payload), sig, lines[0].key, sig.HashAlgorithm, sigNamespace); err != nil {
		return "", distrusted("bad_signature", hintResign, "its signature by %s is not of this commit", lines[0].name)
	}
	return s.allowedSSH(sig.PublicKey, at)
}

func (s *Signers) unknown(key ssh.PublicKey) *distrust {
	return distrusted("unknown_key", hintOther, "the key that signed it is not in fleet.allowed_signers_file: %s %s", key.Type(), ssh.FingerprintSHA256(key))
}

// allowedSSH returns the name of the key, if a line allows it to sign at the time.
func (s *Signers) allowedSSH(key ssh.PublicKey, at time.Time) (string, error) {
	fingerprint := ssh.FingerprintSHA256(key)
	lines := s.ssh[fingerprint]
	if len(lines) == 0 {
		return "", s.unknown(key)
	}
	if s.revoked[fingerprint] {
		return "", distrusted("revoked", hintOther, "the key of %s was revoked: %s", lines[0].name, fingerprint)
	}
	var why error
	for _, line := range lines {
		switch {
		case !line.git:
			why = distrusted("wrong_namespace", hintOther, "the key of %s may not sign for git: %s", line.name, fingerprint)
		case at.Before(line.after):
			why = distrusted("not_yet_valid", hintOther, "the key of %s is valid from %s on: %s", line.name, line.after.Format(time.RFC3339), fingerprint)
		case !line.before.IsZero() && at.After(line.before):
			why = distrusted("expired", hintOther, "the key of %s was valid until %s: %s", line.name, line.before.Format(time.RFC3339), fingerprint)
		default:
			return line.name, nil
		}
	}
	return "", why
}

func (s *Signers) checkPGP(c rawCommit, at time.Time) (string, error) {
	sig, raw, err := readSignature(c.signature)
	if err != nil {
		return "", distrusted("bad_signature", hintResign, "its OpenPGP signature cannot be read: %v", err)
	}
	if sig.SigType != packet.SigTypeBinary || !strongHash(sig.Hash) {
		return "", distrusted("bad_signature", hintResign, "its OpenPGP signature is of a weak or unknown kind (%v)", sig.Hash)
	}
	if sig.CreationTime.After(at) && sig.CreationTime.Before(at.Add(clockSkew)) {
		at = sig.CreationTime
	}
	config := &packet.Config{Time: func() time.Time { return at }}
	_, e, err := openpgp.VerifyDetachedSignature(s.pgp, bytes.NewReader(c.payload), bytes.NewReader(raw), config)
	if e == nil {
		if errors.Is(err, pgperrors.ErrUnknownIssuer) {
			return "", distrusted("unknown_key", hintOther, "the key that signed it is not in fleet.allowed_signers_file: OpenPGP %s", issuer(sig))
		}
		return "", distrusted("bad_signature", hintResign, "its OpenPGP signature by %s is not of this commit", issuer(sig))
	}
	fingerprint := pgpFingerprint(e.PrimaryKey)
	name := e.PrimaryIdentity().Name + " " + fingerprint
	key := signingKey(e, sig)
	switch {
	case s.revoked[fingerprint], s.revoked[pgpFingerprint(key)], errors.Is(err, pgperrors.ErrKeyRevoked):
		return "", distrusted("revoked", hintOther, "the key of %s was revoked", name)
	case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrSignatureExpired):
		return "", distrusted("expired", hintOther, "the key of %s, or its signature, is not valid at %s", name, at.Format(time.RFC3339))
	case err != nil:
		return "", distrusted("bad_signature", hintResign, "its OpenPGP signature by %s does not hold: %v", name, err)
	case weakPGP(key):
		return "", distrusted("bad_signature", hintOther, "the key of %s is of a weak kind", name)
	}
	return name, nil
}

// readSignature takes exactly one signature out of its armor.
func readSignature(armored []byte) (*packet.Signature, []byte, error) {
	block, err := armor.Decode(bytes.NewReader(armored))
	if err != nil {
		return nil, nil, err
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(block.Body); err != nil {
		return nil, nil, err
	}
	packets := packet.NewReader(bytes.NewReader(raw.Bytes()))
	p, err := packets.Next()
	if err != nil {
		return nil, nil, err
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.IssuerKeyId == nil {
		return nil, nil, errors.New("it is no signature that names its key")
	}
	if _, err := packets.Next(); err == nil {
		return nil, nil, errors.New("there are two")
	}
	return sig, raw.Bytes(), nil
}

func strongHash(h crypto.Hash) bool {
	switch h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
		return true
	}
	return false
}

func issuer(sig *packet.Signature) string {
	if len(sig.IssuerFingerprint) > 0 {
		return fmt.Sprintf("%X", sig.IssuerFingerprint)
	}
	return fmt.Sprintf("%016X", *sig.IssuerKeyId)
}

// signingKey returns the key of e, primary or below, that made sig.
func signingKey(e *openpgp.Entity, sig *packet.Signature) *packet.PublicKey {
	for _, sub := range e.Subkeys {
		if sub.PublicKey.KeyId == *sig.IssuerKeyId {
			return sub.PublicKey
		}
	}
	return e.PrimaryKey
}

func weakPGP(key *packet.PublicKey) bool {
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoDSA:
		return true
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		bits, err := key.BitLength()
		return err != nil || bits < minRSABits
	}
	return false
}
