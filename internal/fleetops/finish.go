package fleetops

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// quiet is how long a key that several hold must not have been used before it
// is taken for replaced: that one of them uses the new key says nothing of the
// others.
const quiet = 24 * time.Hour

// FinishOptions say which rotations to finish.
type FinishOptions struct {
	Owner *hub.Owner // nil: every owner
	Now   time.Time

	// Used tells when each key of an owner was last used, by key id. It is asked
	// only about owners with several keys. Nil: nobody knows.
	Used func(context.Context, hub.Owner) (map[string]time.Time, error)
}

// Finished is what became of one owner's keys: only owners that lost one, or
// have several, are told of.
type Finished struct {
	Owner   hub.Owner
	File    string
	Removed []GoneKey
	Kept    []OldKey // those that end
}

// GoneKey is a key that was removed, and why.
type GoneKey struct {
	ID  string `json:"key_id"`
	Why string `json:"why"`
}

// Finish removes the keys that are past their notAfter and, where their use is
// known, those that a later key of the file has replaced: it was used after
// them. An owner's last valid key is never removed, nor its last key. All files
// are written, or none.
func Finish(ctx context.Context, dir string, o FinishOptions) ([]Finished, error) {
	dir, err := ResolveDir(dir)
	if err != nil {
		return nil, err
	}
	files, problems, err := eachKeyFile(ctx, dir, o.Owner, nil, func(f *fleetfile.KeyFile) (*fleetfile.KeyFile, []hub.Problem, error) {
		if len(f.Keys) < 2 {
			return nil, nil, nil // nothing to finish; of 100,000 hosts most are so
		}
		return f, nil, nil
	})
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s: mend this first; all is listed by: hub fleet validate %s", problems[0], dir)
	}
	var done []Finished
	changed := make(map[string][]byte)
	for _, f := range files {
		if f == nil {
			continue
		}
		result, data, err := o.finish(ctx, f)
		if err != nil {
			return nil, err
		}
		result.File = filepath.Join(dir, f.Name)
		if data != nil {
			changed[result.File] = data
		}
		done = append(done, result)
	}
	return done, replaceAll(changed)
}

// finish decides about the keys of one file; data is nil where it stays.
func (o FinishOptions) finish(ctx context.Context, f *fleetfile.KeyFile) (result Finished, data []byte, err error) {
	var used map[string]time.Time
	if o.Used != nil {
		if used, err = o.Used(ctx, f.Owner); err != nil {
			return result, nil, fmt.Errorf("asking when the keys of %s were used: %w", f.Owner, err)
		}
	}
	result.Owner = f.Owner
	if places := result.decide(f, used, o.Now); len(places) > 0 {
		data, err = f.RemoveKeys(places)
	}
	return result, data, err
}

// decide sorts f's keys into those that go and those that stay, and returns the
// places of the first.
func (r *Finished) decide(f *fleetfile.KeyFile, used map[string]time.Time, now time.Time) (places []int) {
	lastValid := -1
	for i, k := range f.Keys {
		if k.ValidAt(now) {
			lastValid = i
		}
	}
	stays := lastValid
	if stays < 0 {
		stays = len(f.Keys) - 1
	}
	for i, k := range f.Keys {
		why := ""
		if !k.ValidAt(now) {
			why = "it ended at " + k.NotAfter.UTC().Format(time.RFC3339)
		} else if i < lastValid {
			why = replaced(f, i, used, now)
		}
		switch {
		case why != "" && i != stays:
			r.Removed = append(r.Removed, GoneKey{ID: k.ID, Why: why})
			places = append(places, i)
		case k.NotAfter != nil:
			r.Kept = append(r.Kept, OldKey{ID: k.ID, NotAfter: k.NotAfter.UTC()})
		}
	}
	return places
}

// replaced says which valid key has replaced key i; "" while none has.
func replaced(f *fleetfile.KeyFile, i int, used map[string]time.Time, now time.Time) string {
	last, ever := used[f.Keys[i].ID]
	if ever && f.Owner.Kind != hub.OwnerHost && now.Sub(last) < quiet {
		return ""
	}
	for _, k := range f.Keys[i+1:] {
		if at, ok := used[k.ID]; ok && k.ValidAt(now) && at.After(last) {
			return fmt.Sprintf("%s was used at %s", k.ID, at.UTC().Format(time.RFC3339))
		}
	}
	return ""
}
