package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"filippo.io/age"

	"felhom.eu/hub/internal/hub"
)

// Recipient is a public key to seal to.
type Recipient struct {
	age  age.Recipient
	text string
	kind Kind
}

// String returns the public string, "age1…".
func (r Recipient) String() string { return r.text }

// Kind returns the recipient's kind.
func (r Recipient) Kind() Kind { return r.kind }

// Fingerprint returns the first 16 hex digits of the SHA-256 of the public
// string: what a file's sealedTo holds.
func (r Recipient) Fingerprint() string {
	sum := sha256.Sum256([]byte(r.text))
	return hex.EncodeToString(sum[:8])
}

// Identity is a secret key that opens what was sealed to its recipient.
type Identity struct {
	age       age.Identity
	secret    hub.Secret
	recipient Recipient
}

// Recipient returns the public part.
func (id Identity) Recipient() Recipient { return id.recipient }

// String names the identity by its recipient.
func (id Identity) String() string { return "identity of " + id.recipient.text }

// GenerateIdentity makes an X25519 identity.
func GenerateIdentity() (Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return Identity{}, err
	}
	return parseIdentity(id.String())
}

// GenerateHybridIdentity makes a post-quantum hybrid identity. What is sealed
// to it is some 2 KB larger.
func GenerateHybridIdentity() (Identity, error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return Identity{}, err
	}
	return parseIdentity(id.String())
}

// FormatIdentity returns the content of an identity file, as age-keygen writes it.
func FormatIdentity(id Identity) hub.Secret {
	return hub.NewSecret("# public key: " + id.recipient.text + "\n" + id.secret.Reveal() + "\n")
}

// ReadIdentities reads identity files, each with one identity or more, in
// their order. A file that others may read is refused.
func ReadIdentities(files ...string) ([]Identity, error) {
	var all []Identity
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("identity file: %w: bring it here, or make one with hub key generate and seal new keys to its recipient", err)
		}
		if err != nil {
			return nil, fmt.Errorf("identity file: %w", err)
		}
		if info.Mode().Perm()&0o007 != 0 {
			return nil, fmt.Errorf("identity file %s: everybody may read it (mode %04o): chmod 600 it", file, info.Mode().Perm())
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("identity file: %w", err)
		}
		ids, err := ParseIdentities(file, data)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}

// WriteIdentity writes id to a new file (0600). One that exists is never
// overwritten: the error is fs.ErrExist.
func WriteIdentity(file string, id Identity) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("identity file: %w", err)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(FormatIdentity(id).Reveal())
	return errors.Join(err, f.Sync(), f.Close())
}

// ParseIdentities reads the content of an identity file: one a line, # begins a
// comment. Errors name the file and the line, and never what stands there.
func ParseIdentities(file string, data []byte) ([]Identity, error) {
	var ids []Identity
	for n, line := range meaningful(data) {
		id, err := parseIdentity(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s: no identity in it; make one with: hub key generate", file)
	}
	return ids, nil
}

func parseIdentity(line string) (Identity, error) {
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
		id, err := age.ParseHybridIdentity(line)
		if err != nil {
			return Identity{}, errors.New("a damaged identity")
		}
		r := id.Recipient()
		return Identity{id, hub.NewSecret(line), Recipient{r, r.String(), Hybrid}}, nil
	case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			return Identity{}, errors.New("a damaged identity")
		}
		fast, err := newX25519Identity(line)
		if err != nil {
			return Identity{}, errors.New("a damaged identity")
		}
		r := id.Recipient()
		return Identity{fast, hub.NewSecret(line), Recipient{r, r.String(), X25519}}, nil
	case strings.HasPrefix(line, "AGE-PLUGIN-"):
		return Identity{}, errors.New("an identity of an age plugin: plugins are never run")
	case strings.HasPrefix(line, "age1"):
		return Identity{}, errors.New("a recipient, not an identity: this is the public half")
	default:
		return Identity{}, errors.New("not an age identity (AGE-SECRET-KEY-1… or AGE-SECRET-KEY-PQ-1…)")
	}
}

// ParseRecipients reads recipients.txt (file is its name, for messages): one a
// line, # begins a comment. It returns every mistake; a list that mixes kinds
// is one, since age refuses to seal to it.
func ParseRecipients(file string, data []byte) ([]Recipient, []hub.Problem) {
	var all []Recipient
	var problems []hub.Problem
	report := func(line int, message, hint string) {
		rule := "recipients"
		if message == secretIdentity {
			rule = "secret"
		}
		problems = append(problems, hub.Problem{File: file, Line: line, Column: 1, Rule: rule, Message: message, Hint: hint})
	}
	for n, line := range meaningful(data) {
		r, message, hint := parseRecipient(line)
		switch {
		case message != "":
			report(n, message, hint)
			continue
		case slices.ContainsFunc(all, func(other Recipient) bool { return other.text == r.text }):
			report(n, "this recipient stands twice", "")
			continue
		case len(all) > 0 && all[0].kind != r.kind:
			report(n, "X25519 and hybrid recipients cannot be mixed: age would not seal to them",
				"replace all of them by recipients of one kind, then: hub fleet reseal --identity FILE")
		}
		all = append(all, r)
	}
	if len(all) == 0 && len(problems) == 0 {
		problems = append(problems, hub.Problem{File: file, Rule: "recipients", Message: "names no recipient",
			Hint: "make an identity with: hub key generate, and add its public key"})
	}
	return all, problems
}

const secretIdentity = "a secret identity stands here: it is known to whoever can read this repository"

func parseRecipient(line string) (r Recipient, message, hint string) {
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-"), strings.HasPrefix(line, "AGE-PLUGIN-"):
		return r, secretIdentity,
			"make a new one, and reseal everything that was sealed to this one"
	case strings.HasPrefix(line, "age1pq1"):
		parsed, err := age.ParseHybridRecipient(line)
		if err != nil {
			return r, "a damaged recipient", ""
		}
		return Recipient{parsed, parsed.String(), Hybrid}, "", ""
	case strings.HasPrefix(line, "ssh-"):
		return r, "SSH recipients are not used here", "make an age identity with: hub key generate"
	case strings.HasPrefix(line, "age1"):
		parsed, err := age.ParseX25519Recipient(line)
		if err == nil {
			return Recipient{parsed, parsed.String(), X25519}, "", ""
		}
		if strings.Contains(line[len("age1"):], "1") { // "1" separates a plugin's name, and is in no key
			return r, "a recipient of an age plugin: plugins are never run", "make an age identity with: hub key generate"
		}
		return r, "a damaged recipient", ""
	default:
		return r, "not an age recipient (age1…)", ""
	}
}

// meaningful yields the lines that are neither empty nor comments, with their
// numbers.
func meaningful(data []byte) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		n := 0
		for line := range strings.Lines(string(data)) {
			n++
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if !yield(n, line) {
				return
			}
		}
	}
}
