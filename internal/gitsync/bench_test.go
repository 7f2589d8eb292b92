package gitsync_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"felhom.eu/hub/internal/gitsync"
)

// fastImport feeds git fast-import in the bare repository dir.
func fastImport(t testing.TB, dir string, stream func(w *bufio.Writer)) {
	t.Helper()
	cmd := exec.Command("git", "fast-import", "--quiet")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(in)
	stream(w)
	_ = w.Flush()
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("git fast-import: %v\n%s", err, said.String())
	}
}

// fleetOrigin is a repository with the files of many hosts, each with two seals
// of random content, packed as a server would.
func fleetOrigin(b testing.TB, customers, hosts int) (*origin, gitsync.Hash) {
	b.Helper()
	o := newOrigin(b)
	random := rand.NewChaCha8([32]byte{1})
	fastImport(b, o.bare, func(w *bufio.Writer) {
		fmt.Fprint(w, "commit refs/heads/main\ncommitter A <a@example.com> 1700000000 +0000\ndata 3\nall\n")
		for c := range customers {
			for range hosts {
				name := fmt.Sprintf("c%d-%08x", c, random.Uint64()>>32)
				text := "apiVersion: hub.felhom.eu/v1\nkind: Host\nmetadata: {name: " + name + "}\nspec:\n  state: active\n  keys:\n"
				for range 2 {
					seal := make([]byte, 420)
					_, _ = random.Read(seal)
					text += "    - sealed: " + base64.StdEncoding.EncodeToString(seal) + "\n"
				}
				fmt.Fprintf(w, "M 100644 inline fleet/customers/c%d/hosts/%s.yaml\ndata %d\n%s\n", c, name, len(text), text)
			}
		}
	})
	git(b, o.bare, "repack", "-adq")
	return o, o.head("main")
}

// BenchmarkRead reads every file of a fleet with 100,000 hosts by one reader,
// and by as many as there are processors.
func BenchmarkRead(b *testing.B) {
	const customers, hosts = 1000, 100
	o, head := fleetOrigin(b, customers, hosts)
	r := open(b, o.bare)
	fetch(b, r)
	for _, readers := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			var most uint64
			for b.Loop() {
				most = max(most, peak(func() {
					if n := readAll(b, r, head, readers); n != customers*hosts {
						b.Fatalf("%d files", n)
					}
				}))
			}
			b.ReportMetric(float64(customers*hosts)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			b.ReportMetric(float64(most>>20), "MB-peak")
		})
	}
}

// BenchmarkClone mirrors a fleet with 100,000 hosts for the first time.
func BenchmarkClone(b *testing.B) {
	o, head := fleetOrigin(b, 1000, 100)
	var most uint64
	for b.Loop() {
		most = max(most, peak(func() {
			if got := fetch(b, open(b, o.bare)); got != head {
				b.Fatalf("head %s", got)
			}
		}))
	}
	b.ReportMetric(float64(most>>20), "MB-peak")
}

// readAll reads all files below fleet.
func readAll(b testing.TB, r *gitsync.Repo, head gitsync.Hash, readers int) int {
	var n atomic.Int64
	err := r.View(head, "fleet", func(files fs.FS) error {
		paths := make(chan string)
		var reading sync.WaitGroup
		for range readers {
			reading.Go(func() {
				for path := range paths {
					if _, err := fs.Stat(files, path); err != nil {
						b.Error(err)
					}
					if _, err := fs.ReadFile(files, path); err != nil {
						b.Error(err)
					}
					n.Add(1)
				}
			})
		}
		defer reading.Wait()
		defer close(paths)
		return fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				paths <- path
			}
			return err
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return int(n.Load())
}

// peak returns the most bytes of heap that were in use during do.
func peak(do func()) (most uint64) {
	runtime.GC()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	do()
	close(stop)
	<-stopped
	return most
}
