package gitsync_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"felhom.eu/hub/internal/gitsync"
)

// BenchmarkRead reads every file of a fleet with many hosts.
func BenchmarkRead(b *testing.B) {
	const customers, hosts = 50, 200
	o := newOrigin(b)
	var files []string
	for c := range customers {
		for h := range hosts {
			files = append(files, fmt.Sprintf("fleet/customers/c%d/hosts/c%d-%d.yaml", c, c, h),
				fmt.Sprintf("name: c%d-%d\n%s", c, h, strings.Repeat(fmt.Sprintf("key %x\n", c*h), 60)))
		}
	}
	head := o.commit("all", files...)
	r := open(b, o.bare)
	fetch(b, r)
	for b.Loop() {
		n := readAll(b, r, head)
		if n != customers*hosts {
			b.Fatalf("%d files", n)
		}
	}
	b.ReportMetric(float64(customers*hosts)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func readAll(b *testing.B, r *gitsync.Repo, head gitsync.Hash) (n int) {
	err := r.View(head, "fleet", func(files fs.FS) error {
		return fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			if _, err := e.Info(); err != nil {
				return err
			}
			n++
			_, err = fs.ReadFile(files, path)
			return err
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}
