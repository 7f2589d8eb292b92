package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tarball packs the library as npm would, and returns both checksums.
func tarball(t *testing.T, library string) ([]byte, checksums) {
	t.Helper()
	var packed bytes.Buffer
	compressed := gzip.NewWriter(&packed)
	members := tar.NewWriter(compressed)
	for _, member := range []struct{ name, text string }{
		{"package/package.json", "{}"}, {libraryInside, library}, {"package/README.md", "text"},
	} {
		header := &tar.Header{Name: member.name, Mode: 0o644, Size: int64(len(member.text))}
		if err := members.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(members, member.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(members.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes(), checksums{sum(packed.Bytes()), sum([]byte(library))}
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

// fakeNPM is an npm in PATH that packs what it is given and notes each call.
type fakeNPM struct{ calls string }

func newFakeNPM(t *testing.T, packed []byte) fakeNPM {
	t.Helper()
	dir := t.TempDir()
	source, calls := filepath.Join(dir, "source"), filepath.Join(dir, "calls")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> '%s'\nexec /bin/cp '%s' chdb-lib.tgz\n", calls, source)
	for path, data := range map[string][]byte{source: packed, calls: nil, filepath.Join(dir, "npm"): []byte(script)} {
		if err := os.WriteFile(path, data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return fakeNPM{calls}
}

func (n fakeNPM) asked(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(n.calls)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestFetch(t *testing.T) {
	packed, want := tarball(t, "the library")
	npm := newFakeNPM(t, packed)
	path := filepath.Join(t.TempDir(), "engine", libraryName)
	if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "fetching", "interrupted"), 0o755); err != nil {
		t.Fatal(err)
	}
	var together sync.WaitGroup
	for range 4 {
		together.Go(func() {
			if err := fetch(t.Context(), path, want, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	together.Wait()
	if data, err := os.ReadFile(path); err != nil || string(data) != "the library" {
		t.Errorf("got %q, %v", data, err)
	}
	asked := npm.asked(t)
	if len(asked) != 1 || !strings.Contains(asked[0], "--ignore-scripts") || !strings.Contains(asked[0], npmPackage+"@"+LibraryVersion) {
		t.Errorf("npm was asked %q", asked)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "fetching*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	t.Setenv("PATH", "") // already there: nothing is run
	if err := fetch(t.Context(), path, want, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestFetchRefuses(t *testing.T) {
	packed, want := tarball(t, "the library")
	other := sum([]byte("something else"))
	for name, c := range map[string]struct {
		packed []byte
		want   checksums
		says   string
	}{
		"another tarball": {packed, checksums{other, want.library}, "SHA-256"},
		"another library": {packed, checksums{want.tarball, other}, "SHA-256"},
		"no gzip":         {[]byte("this is no tarball"), checksums{sum([]byte("this is no tarball")), want.library}, "gzip"},
		"a tarball cut":   {packed[:60], checksums{sum(packed[:60]), want.library}, libraryInside},
	} {
		t.Run(name, func(t *testing.T) {
			newFakeNPM(t, c.packed)
			path := filepath.Join(t.TempDir(), libraryName)
			if err := fetch(t.Context(), path, c.want, io.Discard); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if isFile(path) {
				t.Error("the library was kept")
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "fetching*")); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestFetchWithoutNPM(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := fetch(t.Context(), filepath.Join(t.TempDir(), libraryName), pinned, io.Discard)
	for _, hint := range []string{"apt-get install npm", LibraryVariable, "clickhouse.dsn"} {
		if err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("got %v, which does not name %s", err, hint)
		}
	}
}

func TestFetchWithFailingNPM(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "npm"), []byte("#!/bin/sh\necho no network >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	err := fetch(t.Context(), filepath.Join(t.TempDir(), libraryName), pinned, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("got %v, which does not say what npm said", err)
	}
}

func TestFetchWaitsNoLongerThanItsContext(t *testing.T) {
	packed, want := tarball(t, "the library")
	newFakeNPM(t, packed)
	path := filepath.Join(t.TempDir(), libraryName)
	unlock, err := lockFetch(t.Context(), filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fetch(ctx, path, want, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFindLibrary(t *testing.T) {
	file := func(folder ...string) string {
		path := filepath.Join(append(append([]string{t.TempDir()}, folder...), libraryName)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	configured, variable := file(), file()
	cached := file("felhom-hub", "engine", LibraryVersion)
	cache := strings.TrimSuffix(cached, filepath.Join("felhom-hub", "engine", LibraryVersion, libraryName))
	missing := filepath.Join(t.TempDir(), "missing.so")

	for name, c := range map[string]struct{ configured, variable, cache, want, says string }{
		"configured first":    {configured, variable, cache, configured, ""},
		"then the variable":   {"", variable, cache, variable, ""},
		"then the cache":      {"", "", cache, cached, ""},
		"nothing there":       {"", "", t.TempDir(), "", "make engine"},
		"configured, missing": {missing, variable, cache, "", "clickhouse.embedded.library"},
		"variable, missing":   {"", missing, cache, "", LibraryVariable},
	} {
		t.Setenv(LibraryVariable, c.variable)
		t.Setenv("XDG_CACHE_HOME", c.cache)
		got, err := FindLibrary(c.configured)
		if got != c.want || (err == nil) != (c.says == "") || (err != nil && !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
