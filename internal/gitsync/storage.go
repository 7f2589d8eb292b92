package gitsync

import (
	"bufio"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// objectCache is how many bytes of delta bases are kept. More is slower,
// since files are read once.
const objectCache = 2 << 20

func openStorage(dir string, o filesystem.Options) *filesystem.Storage {
	return openStorageWith(dir, cache.NewObjectLRU(objectCache), o)
}

// openStorageWith opens one that shares its delta bases with others.
func openStorageWith(dir string, bases cache.Object, o filesystem.Options) *filesystem.Storage {
	return filesystem.NewStorageWithOptions(bufferedFS{osfs.New(dir)}, bases, o)
}

// bufferedFS reads the indexes of packs through a buffer. go-git takes their
// first kilobyte in 256 reads, which makes 50 packs cost 20 ms at every look.
type bufferedFS struct{ billy.Filesystem }

// Open implements billy.Basic.
func (b bufferedFS) Open(name string) (billy.File, error) {
	f, err := b.Filesystem.Open(name)
	if err != nil || !strings.HasSuffix(name, ".idx") {
		return f, err
	}
	return &bufferedFile{f, bufio.NewReaderSize(f, 32<<10)}, nil
}

// bufferedFile is only read from its beginning on.
type bufferedFile struct {
	billy.File
	buffer *bufio.Reader
}

func (b *bufferedFile) Read(p []byte) (int, error) { return b.buffer.Read(p) }
