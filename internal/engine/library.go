package engine

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The engine library, as engine.md pins it. Anything else is refused.
const (
	LibraryVersion = "26.7.3-stable.1"

	npmPackage    = "@chdb/lib-linux-x64-gnu"
	libraryName   = "libchdb.so"
	libraryInside = "package/" + libraryName // within the tarball
)

// checksums are SHA-256, in hex.
type checksums struct{ tarball, library string }

var pinned = checksums{
	tarball: "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad",
	library: "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5",
}

// LibraryVariable is the environment variable that names an engine library.
const LibraryVariable = "HUB_ENGINE_LIBRARY"

const instead = "or set " + LibraryVariable + " to a libchdb.so, or use a ClickHouse of your own (clickhouse.dsn)"

// FindLibrary returns the absolute path of the engine library: the configured
// one, else the one that HUB_ENGINE_LIBRARY names, else the one in the cache
// that Fetch fills. A name that is given but wrong is an error, never skipped.
func FindLibrary(configured string) (string, error) {
	for _, named := range []struct{ by, path string }{
		{"clickhouse.embedded.library", configured},
		{LibraryVariable, os.Getenv(LibraryVariable)},
	} {
		if named.path == "" {
			continue
		}
		if !isFile(named.path) {
			return "", fmt.Errorf("there is no engine library at %s, which %s names", named.path, named.by)
		}
		return filepath.Abs(named.path)
	}
	if err := supported(); err != nil {
		return "", err
	}
	path, err := cachedLibrary()
	if err != nil {
		return "", err
	}
	if !isFile(path) {
		return "", errors.New("the engine library is not there yet: run make engine, " + instead)
	}
	return path, nil
}

// supported says whether there is a pinned library for this machine.
func supported() error {
	if runtime.GOOS == "linux" && runtime.GOARCH == "amd64" {
		return nil
	}
	return fmt.Errorf("the embedded engine is for linux/amd64, this is %s/%s: use a ClickHouse of your own (clickhouse.dsn)", runtime.GOOS, runtime.GOARCH)
}

func cachedLibrary() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory for the engine library: %w; %s", err, instead)
	}
	return filepath.Join(cache, "felhom-hub", "engine", LibraryVersion, libraryName), nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Fetch puts the engine library into the cache through npm and returns its
// path; where it is already there it does nothing. Tarball and library must
// have the pinned SHA-256. Two at once wait for each other. progress takes one
// line a step.
func Fetch(ctx context.Context, progress io.Writer) (string, error) {
	if err := supported(); err != nil {
		return "", err
	}
	path, err := cachedLibrary()
	if err != nil {
		return "", err
	}
	return path, fetch(ctx, path, pinned, progress)
}

func fetch(ctx context.Context, path string, want checksums, progress io.Writer) error {
	if isFile(path) {
		return nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("npm is needed to fetch the engine library: install it (Debian: apt-get install npm), " + instead)
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	unlock, err := lockFetch(ctx, folder)
	if err != nil {
		return err
	}
	defer unlock()
	if isFile(path) { // another process was faster
		return nil
	}
	aside := filepath.Join(folder, "fetching") // ours alone under the lock; an interrupted one is begun anew
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(aside)

	fmt.Fprintf(progress, "engine: fetching ClickHouse (chDB %s, 178 MB) through npm\n", LibraryVersion)
	tarball, err := pack(ctx, npm, aside)
	if err != nil {
		return err
	}
	if err := verify(tarball, want.tarball); err != nil {
		return err
	}
	fmt.Fprintln(progress, "engine: unpacking 566 MB")
	unpacked := filepath.Join(aside, libraryName)
	if err := unpack(ctx, tarball, unpacked, want.library); err != nil {
		return err
	}
	if err := os.Rename(unpacked, path); err != nil {
		return err
	}
	fmt.Fprintf(progress, "engine: ready at %s\n", path)
	return nil
}

// lockFetch waits until no other process fetches into folder.
func lockFetch(ctx context.Context, folder string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("another process is fetching the engine library: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pack lets npm put the package's tarball into folder and returns its path. No
// script of the package runs.
func pack(ctx context.Context, npm, folder string) (string, error) {
	cmd := exec.CommandContext(ctx, npm, "pack", "--ignore-scripts", "--silent", npmPackage+"@"+LibraryVersion)
	cmd.Dir = folder
	cmd.WaitDelay = 5 * time.Second
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack %s: %w: %s; try again when the npm registry is in reach, %s",
			npmPackage, err, strings.TrimSpace(string(output)), instead)
	}
	found, err := filepath.Glob(filepath.Join(folder, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm pack %s left %d tarballs instead of one", npmPackage, len(found))
	}
	return found[0], nil
}

// verify compares the SHA-256 of a file.
func verify(path, want string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return err
	}
	return compare(filepath.Base(path), hex.EncodeToString(hash.Sum(nil)), want)
}

func compare(name, got, want string) error {
	if got != want {
		return fmt.Errorf("%s is not the one this hub was built for: its SHA-256 is %s, not %s; it was not kept", name, got, want)
	}
	return nil
}

// unpack writes the library within tarball to path, and fails unless it has the
// wanted SHA-256.
func unpack(ctx context.Context, tarball, path, want string) error {
	file, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer file.Close()
	packed, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(tarball), err)
	}
	members := tar.NewReader(packed)
	for {
		header, err := members.Next()
		if err != nil {
			return fmt.Errorf("%s: no %s in it: %w", filepath.Base(tarball), libraryInside, err)
		}
		if header.Name == libraryInside {
			break
		}
	}
	library, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(library, hash), untilDone{ctx, members})
	if err == nil {
		err = library.Sync()
	}
	if err = errors.Join(err, library.Close()); err != nil {
		return err
	}
	return compare(libraryName, hex.EncodeToString(hash.Sum(nil)), want)
}

// untilDone is a reader that fails when ctx ends.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
