package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// The cache file: the magic line, the SHA-256 of the identities' recipients,
// 64 bytes for each seal (the digest of its place and ciphertext, the digest of
// its key), and the SHA-256 of all that.
const cacheMagic = "felhom hub: digests of opened seals, 1\n"

const entrySize = 2 * sha256.Size

// ErrCache means that a cache file is damaged, or was written with other
// identities: what they open must be shown anew.
var ErrCache = errors.New("not a cache of these identities")

// ReadCache takes up what WriteCache wrote, so that a start opens only seals that
// are new. It knows no key, and no seal that these identities did not open. An
// error (fs.ErrNotExist, ErrCache, …) leaves the Opener as it was.
func (o *Opener) ReadCache(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: others may read or write it (mode %04o): %w", file, info.Mode().Perm(), ErrCache)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	body, ok := bytes.CutPrefix(data, o.cacheHead())
	if !ok || len(body)%entrySize != sha256.Size {
		return fmt.Errorf("%s: %w", file, ErrCache)
	}
	if sum := sha256.Sum256(data[:len(data)-sha256.Size]); !bytes.Equal(sum[:], data[len(data)-sha256.Size:]) {
		return fmt.Errorf("%s is damaged: %w", file, ErrCache)
	}
	read := make(digests, len(body)/entrySize)
	for entry := range slices.Chunk(body[:len(body)-sha256.Size], entrySize) {
		read[[sha256.Size]byte(entry)] = [sha256.Size]byte(entry[sha256.Size:])
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.read = read
	return nil
}

// Fresh returns how many seals were opened since the cache was written.
func (o *Opener) Fresh() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fresh
}

// WriteCache writes the digests of all seals that were asked for to file (0600),
// at once or not at all. What a cache file held that nobody asked for since is
// left out, and forgotten.
func (o *Opener) WriteCache(file string) error {
	o.mu.Lock()
	data := slices.Grow(o.cacheHead(), len(o.opened)*entrySize+sha256.Size)
	for place, digest := range o.opened {
		data = append(append(data, place[:]...), digest[:]...)
	}
	fresh := o.fresh
	o.read = nil
	o.mu.Unlock()
	sum := sha256.Sum256(data)
	if err := replaceFile(file, append(data, sum[:]...)); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh -= fresh
	return nil
}

func (o *Opener) cacheHead() []byte {
	var names []string
	for _, id := range o.identities {
		names = append(names, id.recipient.text)
	}
	slices.Sort(names)
	sum := sha256.Sum256(fmt.Append(nil, names))
	return append([]byte(cacheMagic), sum[:]...)
}

// replaceFile writes a file anew, by way of a temporary one beside it.
func replaceFile(file string, data []byte) error {
	temp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+"."+rand.Text()[:8])
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(temp, file)
	}
	if err != nil {
		if gone := os.Remove(temp); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}
