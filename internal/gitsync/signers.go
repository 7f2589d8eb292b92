package gitsync

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"
)

const (
	maxSigners = 1 << 20 // bytes of a file of signers
	minRSABits = 2048

	pgpBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	pgpEnd   = "-----END PGP PUBLIC KEY BLOCK-----"
	krlMagic = "SSHKRL\n\x00"
)

// Signers is who may sign commits. It does not change; read the files again to
// see a change (that is cheap) and compare Digest.
type Signers struct {
	ssh     map[string][]sshSigner // by the key's SHA256 fingerprint
	pgp     openpgp.EntityList
	revoked map[string]bool // fingerprints: SHA256:… of SSH, upper-case hex of OpenPGP
	digest  [sha256.Size]byte
}

// sshSigner is one line of an allowed signers file.
type sshSigner struct {
	name   string // its principals
	key    ssh.PublicKey
	git    bool      // its namespaces include git
	after  time.Time // valid at and after; zero: always
	before time.Time // valid at and before; zero: always
}

// ReadSigners reads an allowed signers file, and a file of revoked keys unless
// its name is empty.
//
// The allowed signers file has the format of ssh-keygen (ALLOWED SIGNERS in its
// manual page), which is git's gpg.ssh.allowedSignersFile: principals, options,
// key. namespaces, valid-after and valid-before are enforced; cert-authority and
// whatever else is a mistake, since a rule that is not enforced protects nobody.
// Times without a Z are in the machine's zone, as in ssh-keygen. Armored OpenPGP
// public keys may stand between the lines.
//
// The revocation file lists one key a line: an SSH public key, its SHA256:…
// fingerprint, or an OpenPGP fingerprint; armored OpenPGP public keys may stand
// between the lines.
//
// A file that others may write, or with any mistake, is refused whole; the error
// lists every mistake as file:line: message (hint).
func ReadSigners(allowedFile, revokedFile string) (*Signers, error) {
	s := &Signers{ssh: make(map[string][]sshSigner), revoked: make(map[string]bool)}
	allowed, err := readGuarded("fleet.allowed_signers_file", allowedFile)
	if err != nil {
		return nil, err
	}
	var revoked []byte
	if revokedFile != "" {
		if revoked, err = readGuarded("fleet.revoked_signers_file", revokedFile); err != nil {
			return nil, err
		}
	}
	mistakes := s.parse(allowedFile, allowed, s.allowLine, s.allowPGP)
	mistakes = append(mistakes, s.parse(revokedFile, revoked, s.revokeLine, s.revokePGP)...)
	if len(mistakes) == 0 && len(s.ssh)+len(s.pgp) == 0 {
		mistakes = append(mistakes, fmt.Errorf("%s:1: it names nobody, so every commit would be refused (add a line: olga@example.com ssh-ed25519 AAAA…)", allowedFile))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%s%s", len(allowed), allowed, revoked)
	h.Sum(s.digest[:0])
	return s, nil
}

// Digest is the same for signers that were read from files of the same content.
func (s *Signers) Digest() string { return hex.EncodeToString(s.digest[:]) }

// readGuarded reads a file on which trust rests.
func readGuarded(setting, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s: %s may be written by others: chmod go-w %[2]s", setting, path)
	}
	if info.Size() > maxSigners {
		return nil, fmt.Errorf("%s: %s is no list of signers: it has %d bytes", setting, path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err == nil && bytes.HasPrefix(data, []byte(krlMagic)) {
		return nil, fmt.Errorf("%s: %s is an OpenSSH key revocation list in binary: list the keys instead, one public key or SHA256:… fingerprint a line", setting, path)
	}
	return data, err
}

// parse calls onLine for each line that is no comment and onBlock for each
// armored OpenPGP block, and returns the mistakes that they find.
func (s *Signers) parse(file string, data []byte, onLine func(text string) error, onBlock func(openpgp.EntityList) error) (mistakes []error) {
	wrong := func(line int, err error) {
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s:%d: %w", file, line, err))
		}
	}
	var block strings.Builder
	begin, line := 0, 0
	for text := range strings.Lines(string(data)) {
		line++
		text = strings.Trim(text, " \t\r\n")
		switch {
		case text == pgpBegin && begin == 0:
			begin = line
			block.Reset()
			block.WriteString(text + "\n")
		case begin != 0:
			block.WriteString(text + "\n")
			if text == pgpEnd {
				keys, err := readPGP(block.String())
				if err == nil {
					err = onBlock(keys)
				}
				wrong(begin, err)
				begin = 0
			}
		case text == "" || text[0] == '#':
		case !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return c != '\t' && unicode.IsControl(c) }):
			wrong(line, errors.New("there are control characters or no UTF-8 (is it a text file?)"))
		default:
			wrong(line, onLine(text))
		}
	}
	if begin != 0 {
		wrong(begin, errors.New("the OpenPGP block has no end (add "+pgpEnd+")"))
	}
	return mistakes
}

// readPGP reads the keys of one armored block.
func readPGP(armored string) (openpgp.EntityList, error) {
	keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(armored))
	if err != nil {
		return nil, fmt.Errorf("no OpenPGP public key can be read from the block: %w (export it anew: gpg --armor --export KEY)", err)
	}
	for _, e := range keys {
		if e.PrivateKey != nil {
			return nil, errors.New("the OpenPGP block holds a private key (export the public one: gpg --armor --export KEY)")
		}
		if e.PrimaryIdentity() == nil {
			return nil, errors.New("the OpenPGP key names no user (export it with one)")
		}
	}
	return keys, nil
}

func (s *Signers) allowPGP(keys openpgp.EntityList) error {
	s.pgp = append(s.pgp, keys...)
	return nil
}

func (s *Signers) revokePGP(keys openpgp.EntityList) error {
	for _, e := range keys {
		s.revoked[pgpFingerprint(e.PrimaryKey)] = true
	}
	return nil
}

func pgpFingerprint(key *packet.PublicKey) string {
	return strings.ToUpper(hex.EncodeToString(key.Fingerprint))
}

// allowLine takes principals, options and a key.
func (s *Signers) allowLine(text string) error {
	name, rest, err := cutPrincipals(text)
	if err != nil {
		return err
	}
	key, options, err := parseKey(rest)
	if err != nil {
		return err
	}
	signer := sshSigner{name: name, key: key, git: true}
	for _, option := range options {
		if err := signer.option(option); err != nil {
			return err
		}
	}
	if !signer.before.IsZero() && signer.before.Before(signer.after) {
		return errors.New("valid-before is earlier than valid-after (the key would never be valid)")
	}
	fingerprint := ssh.FingerprintSHA256(key)
	s.ssh[fingerprint] = append(s.ssh[fingerprint], signer)
	return nil
}

// cutPrincipals takes the first field, which may be quoted.
func cutPrincipals(text string) (name, rest string, err error) {
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		name, rest, ok = strings.Cut(quoted, `"`)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
			return "", "", errors.New(`the quoted principals do not end (write "olga@example.com" ssh-ed25519 AAAA…)`)
		}
	} else if end := strings.IndexAny(text, " \t"); end > 0 {
		name, rest = text[:end], text[end:]
	}
	if name == "" || strings.Contains(name, `"`) {
		return "", "", errors.New("the line is not principals, options and a key (write olga@example.com ssh-ed25519 AAAA…)")
	}
	return name, strings.TrimLeft(rest, " \t"), nil
}

// parseKey takes options and an SSH public key of a kind that may sign.
func parseKey(text string) (ssh.PublicKey, []string, error) {
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	// The library takes any word for the type of the key.
	if err != nil || !strings.Contains(strings.Join(strings.Fields(text), " "), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))) {
		return nil, nil, errors.New("no SSH public key can be read (after the principals and options comes the content of a .pub file: ssh-ed25519 AAAA…)")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, nil, errors.New("it is a certificate (list the key itself)")
	}
	if key.Type() == "ssh-dss" {
		return nil, nil, errors.New("DSA is too weak (make a key with ssh-keygen -t ed25519)")
	}
	if crypto, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits {
			return nil, nil, fmt.Errorf("an RSA key of %d bits is too weak (make a key with ssh-keygen -t ed25519)", k.N.BitLen())
		}
	}
	return key, options, nil
}

// option applies one option of a line. Names are the same in any case.
func (s *sshSigner) option(text string) (err error) {
	name, value, _ := strings.Cut(text, "=")
	value = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
	switch strings.ToLower(name) {
	case "namespaces":
		if value == "" {
			return errors.New(`namespaces is empty (write namespaces="git")`)
		}
		s.git = matchList(value, sigNamespace)
		return nil
	case "valid-after":
		s.after, err = parseTime(value)
	case "valid-before":
		s.before, err = parseTime(value)
	case "cert-authority":
		return errors.New("certificates are not supported (list the key of each signer)")
	default:
		return fmt.Errorf("the option %q is unknown (known are namespaces, valid-after and valid-before)", name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// parseTime reads ssh-keygen's times: YYYYMMDD or YYYYMMDDHHMM[SS], then Z for
// UTC; without it they are local.
func parseTime(text string) (time.Time, error) {
	digits, utc := strings.CutSuffix(text, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.ParseInLocation(layout, digits, zone); err == nil && len(digits) == len(layout) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time (write YYYYMMDD or YYYYMMDDHHMM[SS], with a Z for UTC)", text)
}

// matchList says whether text matches a list of ssh's patterns: * and ? are
// wildcards, and a match of one with a ! before it decides against all others.
func matchList(list, text string) (matched bool) {
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if matchPattern(pattern, text) {
			if negated {
				return false
			}
			matched = true
		}
	}
	return matched
}

func matchPattern(pattern, text string) bool {
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] == '*':
			rest := strings.TrimLeft(pattern[i:], "*")
			for j := i; j <= len(text); j++ {
				if matchPattern(rest, text[j:]) {
					return true
				}
			}
			return false
		case i >= len(text) || pattern[i] != '?' && pattern[i] != text[i]:
			return false
		}
	}
	return len(pattern) == len(text)
}

// revokeLine takes a fingerprint or an SSH public key.
func (s *Signers) revokeLine(text string) error {
	if digest, ok := strings.CutPrefix(text, "SHA256:"); ok {
		digest, _, _ = strings.Cut(digest, " ") // a comment may follow
		if raw, err := base64.RawStdEncoding.DecodeString(digest); err != nil || len(raw) != sha256.Size {
			return errors.New("it is no SHA256 fingerprint (ssh-keygen -lf KEY.pub prints it)")
		}
		s.revoked["SHA256:"+digest] = true
		return nil
	}
	compact := strings.ToUpper(strings.Join(strings.Fields(text), ""))
	if raw, err := hex.DecodeString(compact); err == nil && (len(raw) == 20 || len(raw) == 32) {
		s.revoked[compact] = true
		return nil
	}
	key, options, err := parseKey(text)
	if err != nil || len(options) > 0 {
		return errors.New("it is no key (write an SSH public key, a SHA256:… fingerprint, or an OpenPGP fingerprint of 40 or 64 hex digits)")
	}
	s.revoked[ssh.FingerprintSHA256(key)] = true
	return nil
}
