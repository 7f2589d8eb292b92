package fleetops

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// TestResealThereAndBack takes a fleet from X25519 to hybrid recipients and
// back: the hub knows the same keys throughout, also those made in between.
func TestResealThereAndBack(t *testing.T) {
	_, dir, _ := newFleet(t)
	var hosts []Enrolled
	var old []seal.Identity
	for i, generate := range []func() (seal.Identity, error){seal.GenerateIdentity, seal.GenerateHybridIdentity, seal.GenerateHybridIdentity, seal.GenerateIdentity} {
		id, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		ids := []seal.Identity{id}
		if err := os.WriteFile(filepath.Join(dir, "recipients.txt"), []byte(id.Recipient().String()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			var calls atomic.Int64
			done, problems, err := Reseal(t.Context(), dir, ResealOptions{Identities: old, Progress: func(int, int) { calls.Add(1) }})
			if err != nil || len(problems) > 0 || len(done.Resealed) != len(hosts) || int(calls.Load()) != done.Files {
				t.Fatal(done, problems, err)
			}
		}
		more, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true, Count: 2})
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, more...)
		fleet := load(t, dir, seal.NewOpener(ids))
		for _, h := range hosts {
			holds(t, fleet, hub.HostOwner(h.HostID), "k1", h.APIKey)
		}
		before := read(t, dir)
		again, _, err := Reseal(t.Context(), dir, ResealOptions{Identities: ids})
		if err != nil || len(again.Resealed) != 0 || again.Keys != len(hosts) {
			t.Error("sealed twice:", again, err)
		}
		if _, problems, err := Reseal(t.Context(), dir, ResealOptions{Identities: old}); err != nil || len(problems) != len(hosts) {
			t.Error("opened by the old identity:", problems, err)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, _, err := Reseal(ended, dir, ResealOptions{Identities: ids}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if read(t, dir) != before {
			t.Error("what does nothing wrote something")
		}
		old = ids
	}
}

func TestRetireKeepsTheFile(t *testing.T) {
	dir, owner, file := enrolled(t)
	edit(t, file, "  state: active\n", "  # ask Ina first\n  state: active   # for now\n")
	before, _ := os.ReadFile(file)
	done, err := Retire(dir, owner.Name, " replaced by pve-07 ", noon)
	if err != nil || done.File != file || done.Reason != "replaced by pve-07" {
		t.Fatal(done, err)
	}
	after, _ := os.ReadFile(file)
	want := strings.Replace(string(before), "  state: active   # for now\n",
		"  state: retired   # for now\n  retired:\n    at: 2026-11-25T12:00:00Z\n    reason: replaced by pve-07\n", 1)
	if string(after) != want {
		t.Errorf("got\n%s\nwant\n%s", after, want)
	}
	if fleet, problems, err := Validate(dir); err != nil || len(problems) > 0 || fleet.Len() != 0 {
		t.Error(problems, err)
	}
	for reason, want := range map[string]string{"": "for a reason", "a\nb": "cannot be printed", strings.Repeat("x", 300): "300 characters", "again": "since 2026-11-25T12:00:00Z: replaced by pve-07"} {
		if _, err := Retire(dir, owner.Name, reason, noon); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v", reason, err)
		}
	}
	if now, _ := os.ReadFile(file); string(now) != want {
		t.Error("a refused retirement wrote something")
	}
}
