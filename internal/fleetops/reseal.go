package fleetops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// ResealOptions say what to seal anew, and with what it is opened.
type ResealOptions struct {
	Identities []seal.Identity
	Owner      *hub.Owner            // nil: every owner
	DryRun     bool                  // write nothing
	Progress   func(done, total int) // called after each file, from several goroutines; may be nil
}

// Resealed says what was sealed anew, or would be.
type Resealed struct {
	Files      int           // looked at
	Keys       int           // looked at
	Recipients int           // that every key is sealed to
	Resealed   []ResealedKey // in the order of the files
}

// ResealedKey is a key that was sealed anew; it is the same key.
type ResealedKey struct {
	Owner hub.Owner
	KeyID string
	File  string
}

// Reseal opens every seal, those of retired hosts included, and seals each key
// anew that is not sealed to exactly the recipients of recipients.txt. Files
// that need no change are not touched.
//
// It writes all files or none: none when a file has mistakes, or a seal cannot
// be opened or belongs to another owner. All of these are then returned as
// problems.
func Reseal(ctx context.Context, dir string, o ResealOptions) (Resealed, []hub.Problem, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return Resealed{}, nil, err
	}
	recipients, err := readRecipients(os.DirFS(dir))
	if err != nil {
		return Resealed{}, nil, err
	}
	r := resealer{identities: o.Identities, recipients: recipients}
	files, problems, err := eachKeyFile(ctx, dir, o.Owner, o.Progress, r.file)
	if err != nil || len(problems) > 0 {
		return Resealed{}, problems, err
	}
	all := Resealed{Files: len(files), Recipients: len(recipients)}
	changed := make(map[string][]byte)
	for _, f := range files {
		file := filepath.Join(dir, f.name)
		all.Keys += f.keys
		for _, id := range f.resealed {
			all.Resealed = append(all.Resealed, ResealedKey{Owner: f.owner, KeyID: id, File: file})
		}
		if f.data != nil {
			changed[file] = f.data
		}
	}
	if o.DryRun {
		return all, nil, nil
	}
	return all, nil, replaceAll(changed)
}

// resealer seals the keys of one file after the other anew.
type resealer struct {
	identities []seal.Identity
	recipients []seal.Recipient
}

type resealedFile struct {
	name     string
	owner    hub.Owner
	keys     int
	resealed []string // ids
	data     []byte   // nil where the file stays
}

func (r resealer) file(f *fleetfile.KeyFile) (result resealedFile, problems []hub.Problem, err error) {
	result = resealedFile{name: f.Name, owner: f.Owner, keys: len(f.Keys)}
	seals := make(map[int]fleetfile.Key)
	for i, k := range f.Keys {
		payload, problem := unseal(f, i, r.identities)
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		if r.isSealed(k) {
			continue
		}
		if k.Sealed, k.SealedTo, err = seal.Seal(payload, r.recipients); err != nil {
			return result, nil, err
		}
		seals[i] = k
		result.resealed = append(result.resealed, k.ID)
	}
	if len(seals) > 0 && len(problems) == 0 {
		result.data, err = f.SetSeals(seals)
	}
	return result, problems, err
}

// isSealed reports whether k is sealed to exactly the recipients, as far as the
// file and the seal's header tell.
func (r resealer) isSealed(k fleetfile.Key) bool {
	kinds, err := seal.Recipients(k.Sealed)
	if err != nil || len(kinds) != len(r.recipients) || len(k.SealedTo) != len(r.recipients) {
		return false
	}
	for i, recipient := range r.recipients {
		if kinds[i] != recipient.Kind() || !slices.Contains(k.SealedTo, recipient.Fingerprint()) {
			return false
		}
	}
	return true
}

// unseal opens key i of a file, or says at which place why it cannot.
func unseal(f *fleetfile.KeyFile, i int, identities []seal.Identity) (seal.Payload, *hub.Problem) {
	k := f.Keys[i]
	payload, err := seal.OpenAs(f.Owner, k.ID, k.Sealed, identities)
	if err == nil {
		return payload, nil
	}
	hint := "make a new key with: hub fleet key add " + f.Owner.String()
	if errors.Is(err, seal.ErrNoIdentity) {
		hint = "name the file of an identity that it was sealed to with --identity"
	}
	problem := f.Problem(i, "sealed", fmt.Sprintf("key %s of %s: %v", k.ID, f.Owner, err), hint)
	return payload, &problem
}
