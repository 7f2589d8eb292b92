package seal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"felhom.eu/hub/internal/hub"
)

func TestCacheFile(t *testing.T) {
	id := identity(t, GenerateIdentity)
	file := filepath.Join(t.TempDir(), "keys.cache")
	first := NewOpener([]Identity{id})
	if err := first.ReadCache(file); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var seals []string
	for range 3 {
		p := payload()
		seals = append(seals, mustSeal(t, p, id.Recipient()))
		if _, err := first.Open(p.Owner, p.KeyID, seals[len(seals)-1]); err != nil {
			t.Fatal(err)
		}
	}
	if first.Fresh() != 3 || first.WriteCache(file) != nil || first.Fresh() != 0 {
		t.Fatal("not written")
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}

	owner := payload().Owner
	second := NewOpener([]Identity{id})
	if err := second.ReadCache(file); err != nil {
		t.Fatal(err)
	}
	second.identities = nil // whatever opens now comes from the file
	for _, text := range seals[:2] {
		got, err := second.Open(owner, "k1", text)
		if want, _ := first.Open(owner, "k1", text); err != nil || got != want {
			t.Fatal(got, err)
		}
		if _, err := second.Open(hub.FleetOwner(), "k1", text); !errors.Is(err, ErrNoIdentity) {
			t.Error("known for another owner:", err)
		}
	}
	second.identities = []Identity{id}
	if second.Fresh() != 0 || second.WriteCache(file) != nil {
		t.Fatal("not written again")
	}
	third := NewOpener([]Identity{id})
	if err := third.ReadCache(file); err != nil || len(third.read) != 2 {
		t.Errorf("%v, %d entries: what nobody asked for is not kept", err, len(third.read))
	}
}

func TestCacheFileIsRefused(t *testing.T) {
	id, other := identity(t, GenerateIdentity), identity(t, GenerateIdentity)
	file := filepath.Join(t.TempDir(), "keys.cache")
	o := NewOpener([]Identity{id})
	p := payload()
	if _, err := o.Open(p.Owner, p.KeyID, mustSeal(t, p, id.Recipient())); err != nil {
		t.Fatal(err)
	}
	if err := o.WriteCache(file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		opener *Opener
		data   func([]byte) []byte
		mode   os.FileMode
	}{
		"other identities": {NewOpener([]Identity{other}), nil, 0o600},
		"one more":         {NewOpener([]Identity{id, other}), nil, 0o600},
		"readable":         {NewOpener([]Identity{id}), nil, 0o644},
		"cut":              {NewOpener([]Identity{id}), func(b []byte) []byte { return b[:len(b)-1] }, 0o600},
		"flipped":          {NewOpener([]Identity{id}), func(b []byte) []byte { b[len(b)-40] ^= 1; return b }, 0o600},
		"empty":            {NewOpener([]Identity{id}), func([]byte) []byte { return nil }, 0o600},
	} {
		data := append([]byte{}, whole...)
		if test.data != nil {
			data = test.data(data)
		}
		if err := errors.Join(os.WriteFile(file, data, 0o600), os.Chmod(file, test.mode)); err != nil {
			t.Fatal(err)
		}
		if err := test.opener.ReadCache(file); !errors.Is(err, ErrCache) || len(test.opener.read) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
