package plan_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"runtime"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetfile/fleettest"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/plan"
)

// change makes a commit that touches n hosts in every way, one host in size/n, so
// that they lie all over the fleet.
func change(t testing.TB, r *fleettest.Repository, hosts, n int) {
	t.Helper()
	var files []fleettest.File
	for i := range n {
		h := i * (hosts / n)
		name := r.HostFile(h)
		data, err := r.Host(h, hub.NewKey(), fmt.Sprintf("pve %d", h)) // another key, another name
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i%100 == 0:
			data = nil // removed
		case i%10 == 0:
			data = bytes.Replace(data, []byte("state: active"), []byte("state: paused"), 1)
		case i%10 == 1:
			data = append(data, "  desired: {guests: [{vmid: 101, memory: 2048}]}\n"...)
		case i%10 == 2:
			data = append(data, "  monitor: {staleAfter: 10m}\n"...)
		}
		files = append(files, fleettest.File{Name: name, Data: data})
	}
	r.Commit(t, "many hosts", files...)
}

// planOf is what hub fleet plan does, from opening the repository to the comment.
func planOf(t testing.TB, dir string) *plan.Plan {
	t.Helper()
	repo, err := gitsync.OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = repo.Close() }()
	base, err := repo.Resolve("main~1")
	if err != nil {
		t.Fatal(err)
	}
	head, err := repo.Resolve("main")
	if err != nil {
		t.Fatal(err)
	}
	if base, err = repo.MergeBase(base, head); err != nil {
		t.Fatal(err)
	}
	var p *plan.Plan
	err = repo.Views(base, "fleet", runtime.GOMAXPROCS(0), func(b []fs.FS) error {
		return repo.Views(head, "fleet", runtime.GOMAXPROCS(0), func(h []fs.FS) (err error) {
			p, err = plan.New(b, h, plan.Options{Base: string(base), Head: string(head), Path: "fleet", Now: now})
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if text := p.Markdown(); len(text) > 60_000 {
		t.Fatalf("the comment has %d bytes", len(text))
	}
	return p
}

// BenchmarkPlan plans changes in a fleet of 100,000 hosts; to be reached on two
// cores: 3 s for one of 10,000 hosts.
func BenchmarkPlan(b *testing.B) {
	size := fleettest.Big
	if testing.Short() {
		size = fleettest.Size{Customers: 20, Hosts: 2000}
	}
	for _, packed := range []string{"imported", "repacked"} { // git fast-import makes chains of differences, git does not
		b.Run("hosts=10%/"+packed, func(b *testing.B) {
			r := fleettest.Cached(b, size)
			change(b, r, size.Hosts, size.Hosts/10)
			if packed == "repacked" {
				git(b, r.Dir, "repack", "-adfq")
			}
			for b.Loop() {
				if p := planOf(b, r.Dir); p.FilesChanged != size.Hosts/10 || p.Guard.Removed != size.Hosts/1000 || p.Guard.Held {
					b.Fatalf("%d files, %+v: %s", p.FilesChanged, p.Guard, p.Summary)
				}
			}
		})
	}
	b.Run("monitor", func(b *testing.B) {
		r := fleettest.Cached(b, size)
		r.Commit(b, "alarm sooner", fleettest.File{Name: fleetfile.FleetPath,
			Data: []byte("apiVersion: hub.felhom.eu/v1\nkind: Fleet\nmetadata: {name: big}\nspec:\n  monitor: {staleAfter: 20m, downAfter: 40m}\n  keys: []\n")})
		for b.Loop() {
			if p := planOf(b, r.Dir); len(p.Thresholds) != 1 || len(p.Thresholds[0].Hosts) != size.Hosts {
				b.Fatal(p.Summary)
			}
		}
	})
	b.Run("one", func(b *testing.B) {
		r := fleettest.Cached(b, size)
		change(b, r, size.Hosts, 1)
		for b.Loop() {
			if p := planOf(b, r.Dir); len(p.Hosts) != 1 {
				b.Fatal(p.Summary)
			}
		}
	})
}

// TestPlanOfManyHosts plans in a fleet of 2,000, and that its comment stays short.
func TestPlanOfManyHosts(t *testing.T) {
	size := fleettest.Size{Customers: 20, Hosts: 2000}
	r := fleettest.New(t, size)
	change(t, r, size.Hosts, size.Hosts/2)
	began := time.Now()
	p := planOf(t, r.Dir)
	t.Logf("%v: %s", time.Since(began), p.Summary)
	if p.FilesChanged != 1000 || p.Guard.Removed != 10 || len(p.Mistakes)+len(p.Structural) > 0 {
		t.Errorf("%d files, %+v, mistakes %v %v", p.FilesChanged, p.Guard, p.Structural, p.Mistakes)
	}
	text := p.Markdown()
	if len(text) > 60_000 || len(text) < 40_000 || !bytes.Contains([]byte(text), []byte(" more\n")) {
		t.Errorf("the comment has %d bytes", len(text))
	}
	if len(p.Text()) < 2*len(text) {
		t.Error("the text for a terminal is not whole")
	}
}
