package fleetfile_test

import (
	"bytes"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetfile/fleettest"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
)

// counting is an opener that counts how often it is asked.
type counting struct {
	*seal.Opener
	asked atomic.Int64
}

func (c *counting) Open(owner hub.Owner, keyID, armored string) (hub.Digest, error) {
	c.asked.Add(1)
	return c.Opener.Open(owner, keyID, armored)
}

// follower loads commit after commit of a repository, as the roster does.
type follower struct {
	*testing.T
	*fleettest.Repository
	mirror *gitsync.Repo
	opener *counting
	loader *fleetfile.Loader
	last   fleetfile.Loaded // the newest without problems
}

func newFollower(t *testing.T, size fleettest.Size) *follower {
	f := &follower{T: t, Repository: fleettest.New(t, size)}
	mirror, err := gitsync.Open(gitsync.Options{URL: f.Dir, Dir: filepath.Join(t.TempDir(), "mirror.git")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mirror.Close() })
	f.mirror = mirror
	f.restart()
	return f
}

// restart forgets what the process knew.
func (f *follower) restart() {
	ids, err := seal.ReadIdentities(f.Identity)
	if err != nil {
		f.Fatal(err)
	}
	f.opener = &counting{Opener: seal.NewOpener(ids)}
	f.loader = fleetfile.NewLoader(f.opener, hub.Thresholds{})
}

func (f *follower) load(r fleetfile.Request) fleetfile.Loaded {
	f.Helper()
	head, err := f.mirror.Fetch(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	r.Revision = string(head)
	var loaded fleetfile.Loaded
	err = f.mirror.View(head, "fleet", func(files fs.FS) (err error) {
		loaded, err = f.loader.Load(files, r)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return loaded
}

// follow loads the head with what is in force, and puts it in force where it may.
func (f *follower) follow() fleetfile.Loaded {
	f.Helper()
	loaded := f.load(fleetfile.Request{InForce: f.last.Fleet})
	if len(loaded.Problems) == 0 {
		f.last = loaded
	}
	return loaded
}

func (f *follower) host(h int, change func(string) string) fleettest.File {
	f.Helper()
	data, err := f.Host(h, hub.NewKey(), "")
	if err != nil {
		f.Fatal(err)
	}
	return fleettest.File{Name: f.HostFile(h), Data: []byte(change(string(data)))}
}

func same(text string) string   { return text }
func broken(text string) string { return strings.Replace(text, "  state:", "  stat:", 1) }

// A second load parses and opens what changed, and shares the rest.
func TestLoaderReadsOnlyWhatChanged(t *testing.T) {
	f := newFollower(t, fleettest.Size{Customers: 3, Hosts: 12})
	first := f.follow()
	if len(first.Problems) > 0 || first.Fleet.Len() != 12 || f.opener.asked.Load() != 12 {
		t.Fatalf("%v, %d opened", first.Problems, f.opener.asked.Load())
	}
	f.Commit(t, "one host", f.host(5, same))
	second := f.follow()
	if f.opener.asked.Load() != 13 {
		t.Errorf("%d seals opened for one host", f.opener.asked.Load()-12)
	}
	shared := 0
	for h := range second.Fleet.Hosts() {
		if old, _ := first.Fleet.Host(h.ID); old == h {
			shared++
		}
	}
	if shared != 11 {
		t.Errorf("%d of 12 records are shared", shared)
	}
	// A customer's folder that lost a host and gained one.
	f.Commit(t, "gone", fleettest.File{Name: f.HostFile(0)}, f.host(13, same))
	third := f.follow()
	if _, ok := third.Fleet.Host(f.HostID(0)); ok || third.Fleet.Len() != 12 || f.opener.asked.Load() != 14 {
		t.Errorf("%d hosts, %d opened", third.Fleet.Len(), f.opener.asked.Load()-13)
	}
}

func TestBadHostFileCostsThatHostAlone(t *testing.T) {
	f := newFollower(t, fleettest.Size{Customers: 2, Hosts: 4})
	first := f.follow()
	good, _ := first.Fleet.Host(f.HostID(1))

	f.Commit(t, "one is bad, one changes, one is new and bad", f.host(1, broken), f.host(2, same), f.host(7, broken))
	second := f.follow()
	if len(second.Problems) > 0 || second.Fleet == nil {
		t.Fatal("the commit was refused:", second.Problems)
	}
	if now, _ := second.Fleet.Host(f.HostID(1)); now != good {
		t.Error("the host lost its last good record")
	}
	if _, ok := second.Fleet.Host(f.HostID(7)); ok {
		t.Error("a host that never had a good record is there")
	}
	before, _ := first.Fleet.Host(f.HostID(2))
	if after, _ := second.Fleet.Host(f.HostID(2)); after == before {
		t.Error("the other change did not come")
	}
	if len(second.Bad) != 2 || !second.Bad[0].Kept || second.Bad[0].HostID != f.HostID(1) || second.Bad[1].Kept ||
		!strings.Contains(second.Bad[0].Problems[0].String(), `unknown key "stat"`) || second.Bad[0].Blob == "" {
		t.Errorf("%+v", second.Bad)
	}
	if want := map[string]string{good.File: good.Blob}; !maps.Equal(second.Kept, want) {
		t.Errorf("kept %v, want %v", second.Kept, want)
	}

	// After a restart the blob brings the record back.
	f.restart()
	again := f.load(fleetfile.Request{Kept: second.Kept})
	if now, ok := again.Fleet.Host(f.HostID(1)); !ok || now.Keys[0].Digest != good.Keys[0].Digest || now.Blob != good.Blob {
		t.Errorf("after a restart: %+v", now)
	}
	if !maps.Equal(again.Kept, second.Kept) {
		t.Errorf("kept %v", again.Kept)
	}

	f.Commit(t, "mended", f.host(1, same))
	third := f.follow()
	if now, _ := third.Fleet.Host(f.HostID(1)); now == good || len(third.Bad) != 1 || len(third.Kept) != 0 {
		t.Errorf("mended: %+v", third.Bad)
	}

	f.Commit(t, "gone", fleettest.File{Name: f.HostFile(1)})
	f.follow()
	f.Commit(t, "back, and bad", f.host(1, broken))
	if fourth := f.follow(); len(fourth.Kept) != 0 {
		t.Error("a host that was removed came back with its old record")
	}
}

// What is wrong with the whole is not a host's mistake, whoever's file shows it.
func TestMistakesOfTheWholeCostTheCommit(t *testing.T) {
	const contradiction = "\n  monitor: {staleAfter: 50m, downAfter: 40m}"
	for name, test := range map[string]struct {
		change func(f *follower) []fleettest.File
		want   string
	}{
		"customer": {func(f *follower) []fleettest.File {
			return []fleettest.File{{Name: fleetfile.CustomerPath(fleettest.CustomerName(0)), Data: []byte("kind: Customer\n")}}
		}, "apiVersion is missing"},
		"no customer": {func(f *follower) []fleettest.File {
			return []fleettest.File{{Name: fleetfile.CustomerPath(fleettest.CustomerName(0))}}
		}, "is missing, and 2 host(s) name customer"},
		"id twice, once badly": {func(f *follower) []fleettest.File {
			file := f.host(1, broken)
			file.Name = fleetfile.HostPath(fleettest.CustomerName(0), f.HostID(1))
			return []fleettest.File{file}
		}, "stands twice"},
		"same key": {func(f *follower) []fleettest.File {
			key := hub.NewKey()
			a, _ := f.Host(0, key, "")
			b, _ := f.Host(1, key, "")
			return []fleettest.File{{Name: f.HostFile(0), Data: a}, {Name: f.HostFile(1), Data: b}}
		}, "is the same as key k1 of host/"},
		"too large": {func(f *follower) []fleettest.File {
			file := f.host(1, same)
			file.Data = append(file.Data, bytes.Repeat([]byte("#"), 257<<10)...)
			return []fleettest.File{file}
		}, "at most 256 KiB are read"},
		"recipients": {func(f *follower) []fleettest.File {
			return []fleettest.File{{Name: fleetfile.RecipientsPath}}
		}, "is missing"},
		"out of place": {func(f *follower) []fleettest.File {
			return []fleettest.File{{Name: "customers/x.yaml", Data: []byte("a: b\n")}}
		}, "out of place"},
		"thresholds of the fleet": {func(f *follower) []fleettest.File {
			return []fleettest.File{{Name: fleetfile.FleetPath, Data: []byte("apiVersion: hub.felhom.eu/v1\nkind: Fleet\nmetadata: {name: big}\nspec:" + contradiction + "\n")}}
		}, "staleAfter (50m0s) must be shorter than downAfter (40m0s)"},
		"thresholds above a host that did not change": {func(f *follower) []fleettest.File {
			f.Commit(f, "a host of its own", f.host(0, func(text string) string {
				return strings.Replace(text, "  state:", "  monitor: {downAfter: 40m}\n  state:", 1)
			}))
			if loaded := f.follow(); len(loaded.Problems)+len(loaded.Bad) > 0 {
				f.Fatal(loaded)
			}
			return []fleettest.File{{Name: fleetfile.FleetPath, Data: []byte("apiVersion: hub.felhom.eu/v1\nkind: Fleet\nmetadata: {name: big}\nspec: {monitor: {staleAfter: 50m, downAfter: 60m}}\n")}}
		}, "staleAfter (50m0s) must be shorter than downAfter (40m0s)"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(t, fleettest.Size{Customers: 2, Hosts: 4})
			f.follow()
			f.Commit(t, name, test.change(f)...)
			loaded := f.follow()
			if len(loaded.Problems) == 0 || loaded.Fleet != nil || !strings.Contains(loaded.Problems[0].String(), test.want) {
				t.Errorf("got %v, want %q", loaded.Problems, test.want)
			}
		})
	}
}

// A threshold that only the host's own change contradicts is the host's mistake.
func TestContradictionInAHostFile(t *testing.T) {
	f := newFollower(t, fleettest.Size{Customers: 1, Hosts: 2})
	first := f.follow()
	f.Commit(t, "x", f.host(0, func(text string) string {
		return strings.Replace(text, "  state:", "  monitor: {staleAfter: 50m, downAfter: 40m}\n  state:", 1)
	}))
	loaded := f.follow()
	was, _ := first.Fleet.Host(f.HostID(0))
	if now, _ := loaded.Fleet.Host(f.HostID(0)); len(loaded.Bad) != 1 || now != was {
		t.Errorf("%+v", loaded)
	}
}

// A hub without the identity has no fleet, rather than one without hosts; and a
// commit that is sealed to somebody else stays out.
func TestNoIdentityOpensAnything(t *testing.T) {
	f := newFollower(t, fleettest.Size{Customers: 2, Hosts: 4})
	identity := f.Identity
	f.Identity = filepath.Join(filepath.Dir(identity), "stranger.txt")
	stranger, err := seal.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.WriteIdentity(f.Identity, stranger); err != nil {
		t.Fatal(err)
	}
	f.restart()
	loaded := f.follow()
	if len(loaded.Problems) != 1 || loaded.Fleet != nil || !strings.Contains(loaded.Problems[0].String(), "none of the hub's identities opens a key of any host (4 files)") {
		t.Errorf("a stranger's identity: %v", loaded.Problems)
	}
	f.Identity = identity
	f.restart()
	if loaded := f.follow(); len(loaded.Problems) > 0 || loaded.Fleet.Len() != 4 {
		t.Errorf("the right identity: %v", loaded.Problems)
	}
}
