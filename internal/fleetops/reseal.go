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
	Files      int            // looked at
	Keys       int            // looked at
	URLs       int            // of channels, looked at
	Recipients int            // that everything is sealed to
	Resealed   []ResealedItem // in the order of the files
}

// ResealedItem is a key or a URL that was sealed anew; it is the same as before.
type ResealedItem struct {
	Owner   hub.Owner
	KeyID   string // empty: it is a URL
	Channel string // whose URL it is
	File    string
}

// Reseal opens every seal, those of retired hosts included, and seals each key and
// URL anew that is not sealed to exactly the recipients of recipients.txt. Files
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
		all.Keys, all.URLs = all.Keys+f.keys, all.URLs+f.urls
		for _, item := range f.resealed {
			item.File = file
			all.Resealed = append(all.Resealed, item)
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

// resealer seals the keys and URLs of one file after the other anew.
type resealer struct {
	identities []seal.Identity
	recipients []seal.Recipient
}

type resealedFile struct {
	name       string
	keys, urls int
	resealed   []ResealedItem // without File
	data       []byte         // nil where the file stays
}

func (r resealer) file(f *fleetfile.KeyFile) (result resealedFile, problems []hub.Problem, err error) {
	result = resealedFile{name: f.Name, keys: len(f.Keys)}
	keys, urls := make(map[int]fleetfile.Key), make(map[int]fleetfile.SealedURL)
	for i, k := range f.Keys {
		payload, problem := unseal(f, i, r.identities)
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		if r.isSealed(k.SealedTo, k.Sealed) {
			continue
		}
		if k.Sealed, k.SealedTo, err = seal.Seal(payload, r.recipients); err != nil {
			return result, nil, err
		}
		keys[i] = k
		result.resealed = append(result.resealed, ResealedItem{Owner: f.Owner, KeyID: k.ID})
	}
	for i, c := range f.Channels {
		if c.SealedURL == nil {
			continue
		}
		result.urls++
		url, problem := unsealURL(f, i, r.identities)
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		if r.isSealed(c.SealedURL.SealedTo, c.SealedURL.Sealed) {
			continue
		}
		if urls[i], err = sealURL(f.Owner, c.Name, url, r.recipients); err != nil {
			return result, nil, err
		}
		result.resealed = append(result.resealed, ResealedItem{Owner: f.Owner, Channel: c.Name})
	}
	if len(result.resealed) > 0 && len(problems) == 0 {
		result.data, err = f.SetSeals(keys, urls)
	}
	return result, problems, err
}

// isSealed reports whether something is sealed to exactly the recipients, as far as
// the file and the seal's header tell.
func (r resealer) isSealed(sealedTo []string, sealed string) bool {
	kinds, err := seal.Recipients(sealed)
	if err != nil || len(kinds) != len(r.recipients) || len(sealedTo) != len(r.recipients) {
		return false
	}
	for i, recipient := range r.recipients {
		if kinds[i] != recipient.Kind() || !slices.Contains(sealedTo, recipient.Fingerprint()) {
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

// unsealURL opens the sealed URL of channel i of a file, or says why it cannot.
func unsealURL(f *fleetfile.KeyFile, i int, identities []seal.Identity) (hub.Secret, *hub.Problem) {
	c := f.Channels[i]
	url, err := seal.OpenURL(f.Owner, c.Name, c.SealedURL.Sealed, identities)
	if err == nil {
		return url, nil
	}
	hint := fmt.Sprintf("seal it anew with: hub fleet seal-url %s %s", f.Owner, c.Name)
	if errors.Is(err, seal.ErrNoIdentity) {
		hint = "name the file of an identity that it was sealed to with --identity"
	}
	problem := f.ChannelProblem(i, "sealedUrl.sealed", fmt.Sprintf("the URL of channel %s of %s: %v", c.Name, f.Owner, err), hint)
	return url, &problem
}
