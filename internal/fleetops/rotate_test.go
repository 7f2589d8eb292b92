package fleetops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// enrolled begins a fleet with one host and returns the fleet's folder and the
// host's owner and file.
func enrolled(t *testing.T) (dir string, owner hub.Owner, file string) {
	t.Helper()
	_, dir, _ = newFleet(t)
	hosts, err := Enroll(dir, EnrollOptions{Customer: "acme", NewCustomer: true})
	if err != nil {
		t.Fatal(err)
	}
	return dir, hub.HostOwner(hosts[0].HostID), hosts[0].File
}

// ends returns the keys of owner with their ends.
func ends(t *testing.T, dir string, owner hub.Owner) string {
	t.Helper()
	f, err := readKeyFile(dir, owner)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, k := range f.Keys {
		text := k.ID
		if k.NotAfter != nil {
			text += " until " + k.NotAfter.Format(time.RFC3339)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func TestRotateKeepsTheEarlierEnd(t *testing.T) {
	for had, want := range map[string]string{
		"":                     "k1 until 2026-12-09T12:00:00Z, k2",
		"2026-12-01T00:00:00Z": "k1 until 2026-12-01T00:00:00Z, k2",
		"2027-12-01T00:00:00Z": "k1 until 2026-12-09T12:00:00Z, k2",
		"2020-12-01T00:00:00Z": "k1 until 2020-12-01T00:00:00Z, k2",
	} {
		dir, owner, file := enrolled(t)
		if had != "" {
			edit(t, file, "id: k1\n", "id: k1\n      notAfter: "+had+"   # as agreed\n")
		}
		before, _ := os.ReadFile(file)
		k, err := Rotate(dir, owner, noon, noon.Add(14*24*time.Hour+300*time.Millisecond))
		if err != nil || k.KeyID != "k2" || len(k.Old) != 1 {
			t.Fatal(k, err)
		}
		if got := ends(t, dir, owner); got != want {
			t.Errorf("had %q: %s, want %s", had, got, want)
		}
		after, _ := os.ReadFile(file)
		for line := range strings.Lines(string(before)) {
			if !strings.Contains(string(after), line) && !strings.Contains(line, "notAfter") {
				t.Errorf("lost: %s", line)
			}
		}
		if had != "" && !strings.Contains(string(after), "   # as agreed\n") {
			t.Errorf("the comment is gone:\n%s", after)
		}
	}
}

func edit(t *testing.T, file, from, to string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), from, to, 1)
	if text == string(data) {
		t.Fatalf("%q is not in %s", from, file)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRotateRefuses(t *testing.T) {
	dir, owner, file := enrolled(t)
	before := read(t, dir)
	if _, err := Rotate(dir, owner, noon, noon); err == nil || !strings.Contains(err.Error(), "is past") {
		t.Error(err)
	}
	if read(t, dir) != before {
		t.Error("a refused rotation wrote something")
	}
	if _, err := Rotate(dir, owner, noon, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	before = read(t, dir)
	if _, err := Rotate(dir, owner, noon, noon.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "has 2 valid keys already: k1 (until 2026-11-25T13:00:00Z), k2") {
		t.Error(err)
	}
	if read(t, dir) != before {
		t.Error("a refused rotation wrote something")
	}
	// Once the old one ended, the next rotation may begin.
	if k, err := Rotate(dir, owner, noon.Add(2*time.Hour), noon.Add(3*time.Hour)); err != nil || k.KeyID != "k3" {
		t.Error(k, err)
	}
	edit(t, file, "state: active", "state: retired")
	if _, err := Rotate(dir, owner, noon.Add(9*time.Hour), noon.Add(10*time.Hour)); err == nil || !strings.Contains(err.Error(), "is retired") {
		t.Error(err)
	}
}

// TestFinishDecides names keys by their ends and last uses, in hours from noon:
// what goes, and what stays.
func TestFinishDecides(t *testing.T) {
	type key struct{ ends, used int } // 0: no end, never used
	host, global := hub.HostOwner("a"), hub.FleetOwner()
	for name, test := range map[string]struct {
		owner hub.Owner
		keys  []key
		blind bool // no use is known
		gone  string
	}{
		"nothing ended, nothing used":          {host, []key{{24, 0}, {0, 0}}, false, ""},
		"ended":                                {host, []key{{-1, 0}, {0, 0}}, true, "k1"},
		"its successor was used":               {host, []key{{24, -5}, {0, -1}}, false, "k1"},
		"not asked":                            {host, []key{{24, -5}, {0, -1}}, true, ""},
		"never used, its successor was":        {host, []key{{24, 0}, {0, -1}}, false, "k1"},
		"the agent went back":                  {host, []key{{24, -1}, {0, -5}}, false, ""},
		"without an end, but replaced":         {host, []key{{0, -5}, {0, -1}}, false, "k1"},
		"the newest is not in use":             {host, []key{{24, -5}, {24, -1}, {0, 0}}, false, "k1"},
		"the last valid one stays":             {host, []key{{24, -1}, {-1, -5}}, false, "k2"},
		"its successor was used, and ended":    {host, []key{{24, -5}, {-1, -2}}, false, "k2"},
		"all ended: the newest stays":          {host, []key{{-3, 0}, {-2, 0}, {-1, 0}}, false, "k1 k2"},
		"a later one that is used and ended":   {host, []key{{0, -5}, {-1, -2}, {0, 0}}, false, "k2"},
		"a global key that another still uses": {global, []key{{24, -5}, {0, -1}}, false, ""},
		"a global key that nobody uses":        {global, []key{{24, -30}, {0, -1}}, false, "k1"},
		"a global key that nobody ever used":   {global, []key{{24, 0}, {0, -1}}, false, "k1"},
	} {
		f := &fleetfile.KeyFile{Owner: test.owner, State: hub.Active}
		used := make(map[string]time.Time)
		for i, k := range test.keys {
			entry := fleetfile.Key{ID: fmt.Sprintf("k%d", i+1)}
			if k.ends != 0 {
				end := noon.Add(time.Duration(k.ends) * time.Hour)
				entry.NotAfter = &end
			}
			if k.used != 0 && !test.blind {
				used[entry.ID] = noon.Add(time.Duration(k.used) * time.Hour)
			}
			f.Keys = append(f.Keys, entry)
		}
		var r Finished
		places := r.decide(f, used, noon)
		var gone []string
		for i, place := range places {
			gone = append(gone, f.Keys[place].ID)
			if r.Removed[i].ID != f.Keys[place].ID || r.Removed[i].Why == "" {
				t.Errorf("%s: %+v", name, r.Removed)
			}
		}
		if got := strings.Join(gone, " "); got != test.gone {
			t.Errorf("%s: %q goes, want %q", name, got, test.gone)
		}
	}
}

// TestFinishLeavesAValidKey tries every mix of ended, running and used keys.
func TestFinishLeavesAValidKey(t *testing.T) {
	endings := []time.Duration{0, -time.Hour, time.Hour}
	uses := []time.Duration{0, -time.Minute, -48 * time.Hour}
	const kinds, keys = 9, 3
	for mix := range kinds * kinds * kinds {
		for _, owner := range []hub.Owner{hub.HostOwner("a"), hub.FleetOwner()} {
			f := &fleetfile.KeyFile{Owner: owner}
			used := make(map[string]time.Time)
			valid := 0
			for i, rest := 0, mix; i < keys; i, rest = i+1, rest/kinds {
				k := fleetfile.Key{ID: fmt.Sprintf("k%d", i+1)}
				if d := endings[rest%3]; d != 0 {
					end := noon.Add(d)
					k.NotAfter = &end
				}
				if d := uses[rest%kinds/3]; d != 0 {
					used[k.ID] = noon.Add(d)
				}
				if k.ValidAt(noon) {
					valid++
				}
				f.Keys = append(f.Keys, k)
			}
			var r Finished
			gone := r.decide(f, used, noon)
			left := 0
			for i, k := range f.Keys {
				if k.ValidAt(noon) && !slices.Contains(gone, i) {
					left++
				}
			}
			if valid > 0 && left == 0 || len(gone) == keys {
				t.Fatalf("%s, %+v, used %v: %v go", owner, f.Keys, used, gone)
			}
		}
	}
}

func TestFinish(t *testing.T) {
	dir, owner, file := enrolled(t)
	for _, o := range []hub.Owner{owner, hub.CustomerOwner("acme"), hub.FleetOwner(), hub.FleetOwner()} {
		if _, err := AddKey(dir, o); err != nil {
			t.Fatal(err)
		}
	}
	asked := make(map[hub.Owner]bool)
	options := FinishOptions{Now: noon, Used: func(_ context.Context, o hub.Owner) (map[string]time.Time, error) {
		asked[o] = true
		return map[string]time.Time{"k2": noon}, nil
	}}
	// One file cannot be understood: none is written.
	before := read(t, dir)
	edit(t, filepath.Join(dir, "fleet.yaml"), "kind: Fleet", "kind: Fleets")
	if _, err := Finish(t.Context(), dir, options); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "fleet.yaml")+":") {
		t.Error(err)
	}
	edit(t, filepath.Join(dir, "fleet.yaml"), "kind: Fleets", "kind: Fleet")
	// Nor when the hub cannot be asked.
	away := errors.New("away")
	if _, err := Finish(t.Context(), dir, FinishOptions{Now: noon, Used: func(context.Context, hub.Owner) (map[string]time.Time, error) { return nil, away }}); !errors.Is(err, away) {
		t.Error(err)
	}
	if read(t, dir) != before {
		t.Error("a failed finish wrote something")
	}
	only := options
	only.Owner = &owner
	done, err := Finish(t.Context(), dir, only)
	if err != nil || len(done) != 1 || done[0].File != file || len(done[0].Removed) != 1 || ends(t, dir, owner) != "k2" {
		t.Error(done, err)
	}
	done, err = Finish(t.Context(), dir, options)
	if err != nil || len(done) != 1 || done[0].Owner != hub.FleetOwner() || ends(t, dir, hub.FleetOwner()) != "k2" {
		t.Error(done, err)
	}
	if want := map[hub.Owner]bool{owner: true, hub.FleetOwner(): true}; !maps.Equal(asked, want) {
		t.Errorf("asked about %v", asked)
	}
	if _, problems, err := Validate(dir); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// TestReplaceAllIsAllOrNothing has the last of three files in a folder that is
// gone.
func TestReplaceAllIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	files := make(map[string][]byte)
	for _, name := range []string{"a", "b", "z/c"} {
		file := filepath.Join(dir, name)
		if err := create(file, []byte("old")); err != nil {
			t.Fatal(err)
		}
		files[file] = []byte("new")
	}
	if err := os.RemoveAll(filepath.Join(dir, "z")); err != nil {
		t.Fatal(err)
	}
	before := read(t, dir)
	if err := replaceAll(files); err == nil {
		t.Error("no error")
	}
	if after := read(t, dir); after != before {
		t.Errorf("left\n%s\nof\n%s", after, before)
	}
	delete(files, filepath.Join(dir, "z/c"))
	if err := replaceAll(files); err != nil || read(t, dir) != strings.ReplaceAll(before, "old", "new") {
		t.Error(err, read(t, dir))
	}
}
