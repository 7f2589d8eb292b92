package gitsync

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what git names packs by
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitIn runs git in dir, with input, and returns its standard output.
func gitIn(t testing.TB, dir string, input []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(input)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, said.Bytes())
	}
	return out
}

// packOf makes a repository with the versions of some files, and returns it with
// the ids of its objects, a line each.
func packOf(t testing.TB, files, versions int) (dir string, ids []byte) {
	t.Helper()
	dir = t.TempDir()
	gitIn(t, dir, nil, "init", "-q", "-b", "main")
	random := rand.New(rand.NewPCG(1, 2))
	for range versions {
		for i := range files {
			text := fmt.Sprintf("file %d\n%s", i, strings.Repeat("a line that all have in common\n", 20))
			at := random.IntN(len(text))
			text = fmt.Sprintf("%s%x%s", text[:at], random.Uint64(), text[at:])
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		gitIn(t, dir, nil, "add", "-A")
		gitIn(t, dir, nil, "commit", "-q", "-m", "m")
	}
	gitIn(t, dir, nil, "tag", "-a", "-m", "t", "t")
	for line := range strings.Lines(string(gitIn(t, dir, nil, "rev-list", "--objects", "--all"))) {
		ids = append(ids, line[:40]+"\n"...)
	}
	return dir, ids
}

// received returns the pack and index that receivePack keeps.
func received(t testing.TB, pack []byte) (kept, index []byte, err error) {
	t.Helper()
	dir := t.TempDir()
	err = receivePack(dir, bytes.NewReader(pack))
	names, globErr := filepath.Glob(filepath.Join(dir, "*"))
	if globErr != nil {
		t.Fatal(globErr)
	}
	if err != nil {
		if len(names) > 0 {
			t.Errorf("left behind: %v", names)
		}
		return nil, nil, err
	}
	for _, name := range names {
		data, readErr := os.ReadFile(name)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if strings.HasSuffix(name, ".idx") {
			index = data
		} else {
			kept = data
		}
	}
	if len(names) != 2 {
		t.Errorf("files: %v", names)
	}
	return kept, index, nil
}

// TestReceivePackIndexesAsGit: the index is git's own, byte for byte.
func TestReceivePackIndexesAsGit(t *testing.T) {
	dir, ids := packOf(t, 12, 12)
	for name, args := range map[string][]string{
		"differences by offset":  {"--delta-base-offset"},
		"differences by id":      {"--no-reuse-delta"},
		"long chains":            {"--delta-base-offset", "--depth=1000", "--window=200", "--no-reuse-delta"},
		"long chains by id":      {"--depth=1000", "--window=200", "--no-reuse-delta"},
		"whole objects":          {"--depth=0", "--no-reuse-delta"},
		"whole and not deflated": {"--depth=0", "--no-reuse-delta", "--compression=0", "--no-reuse-object"},
	} {
		t.Run(name, func(t *testing.T) {
			pack := gitIn(t, dir, ids, append([]string{"pack-objects", "-q", "--stdout"}, args...)...)
			kept, index, err := received(t, pack)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "p.pack")
			if err := os.WriteFile(file, pack, 0o600); err != nil {
				t.Fatal(err)
			}
			gitIn(t, dir, nil, "index-pack", file)
			want, err := os.ReadFile(strings.TrimSuffix(file, ".pack") + ".idx")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(kept, pack) || !bytes.Equal(index, want) {
				t.Errorf("kept %d bytes of %d, index of %d bytes, git's has %d", len(kept), len(pack), len(index), len(want))
			}
		})
	}
}

// TestReceivePackRefuses damages every byte of a pack: none is kept, and nothing
// is left behind.
func TestReceivePackRefuses(t *testing.T) {
	dir, ids := packOf(t, 2, 3)
	pack := gitIn(t, dir, ids, "pack-objects", "-q", "--stdout", "--delta-base-offset")
	for i := range pack {
		damaged := bytes.Clone(pack)
		damaged[i] ^= 1 << (i % 8)
		if _, _, err := received(t, damaged); err == nil {
			t.Errorf("byte %d of %d: kept", i, len(pack))
		}
		// With the sum put right, the damage is in an object: its id is another one.
		if i < len(pack)-sha1.Size {
			if _, index, err := received(t, resummed(damaged)); err == nil && bytes.Contains(index, pack[len(pack)-sha1.Size:]) {
				t.Errorf("byte %d: kept under the old name", i)
			}
		}
		if _, _, err := received(t, pack[:i]); err == nil {
			t.Errorf("kept the first %d bytes of %d", i, len(pack))
		}
	}
	if _, _, err := received(t, append(bytes.Clone(pack), 0)); err == nil {
		t.Error("kept with a byte behind it")
	}
	thin := gitIn(t, dir, []byte("HEAD\n^HEAD~1\n"), "pack-objects", "-q", "--stdout", "--thin", "--revs")
	if _, _, err := received(t, thin); err == nil || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("a thin pack: %v", err)
	}
	broken := errors.New("the line broke")
	if err := receivePack(t.TempDir(), io.MultiReader(bytes.NewReader(pack[:len(pack)/2]), failing{broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// resummed replaces the sum at the end of a pack.
func resummed(pack []byte) []byte {
	body := pack[:len(pack)-sha1.Size]
	sum := sha1.Sum(body) //nolint:gosec // git's
	return append(bytes.Clone(body), sum[:]...)
}

// FuzzReceivePack: whatever comes, it is refused, or every object is in the index.
func FuzzReceivePack(f *testing.F) {
	dir, ids := packOf(f, 2, 3)
	for _, args := range [][]string{{"--delta-base-offset"}, {"--no-reuse-delta"}} {
		f.Add(gitIn(f, dir, ids, append([]string{"pack-objects", "-q", "--stdout"}, args...)...))
	}
	f.Add([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"))
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, pack []byte) {
		if len(pack) > sha1.Size {
			pack = resummed(pack)
		}
		_, index, err := received(t, pack)
		if err != nil {
			return
		}
		folder := t.TempDir()
		file := filepath.Join(folder, "p.pack")
		if err := errors.Join(os.WriteFile(file, pack, 0o600), os.WriteFile(filepath.Join(folder, "p.idx"), index, 0o600)); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("git", "verify-pack", file).CombinedOutput(); err != nil {
			t.Errorf("git does not take it: %v\n%s", err, out)
		}
	})
}
