package gitsync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"felhom.eu/hub/internal/hub"
)

// objects is the storage of a Local, with the repositories that it borrows
// objects from (git clone --shared, --reference). go-git knows these too, but
// reads their indexes anew for each object.
type objects struct {
	*filesystem.Storage
	borrowed []*filesystem.Storage
}

const (
	maxBorrowed = 20
	localCache  = 4 << 20 // bytes, for one storage: a chain of differences, and some folders
)

// open returns a storage for the caller alone, until it calls done.
func (l *Local) open() (*objects, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.idle) - 1; last >= 0 {
		st := l.idle[last]
		l.idle = l.idle[:last]
		return st, nil
	}
	return l.openAnew()
}

func (l *Local) done(st *objects) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, st)
}

func (l *Local) openAnew() (*objects, error) {
	var dir billy.Filesystem = osfs.New(l.gitDir)
	if l.common != l.gitDir {
		dir = dotgit.NewRepositoryFilesystem(dir, osfs.New(l.common))
	}
	// Nothing is written meanwhile but by others, who only add: packs stay open.
	o := filesystem.Options{KeepDescriptors: true, ExclusiveAccess: true}
	st := &objects{Storage: filesystem.NewStorageWithOptions(dir, cache.NewObjectLRU(localCache), o)}
	lenders := []string{filepath.Join(l.common, "objects")}
	for i := 0; i < len(lenders); i++ {
		more, err := alternates(lenders[i])
		if err != nil {
			st.close()
			return nil, err
		}
		for _, dir := range more {
			if len(lenders) > maxBorrowed || filepath.Base(dir) != "objects" {
				st.close()
				return nil, fmt.Errorf("objects are borrowed from %s, which cannot be followed", dir)
			}
			lenders = append(lenders, dir)
			st.borrowed = append(st.borrowed, openStorage(filepath.Dir(dir), o))
		}
	}
	return st, nil
}

// alternates lists the folders that an object folder borrows from.
func alternates(dir string) (list []string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "info", "alternates"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, under(dir, line))
		}
	}
	return list, err
}

func (o *objects) close() {
	_ = o.Close() // only read
	for _, st := range o.borrowed {
		_ = st.Close()
	}
}

// readable refuses the forms of a repository that go-git would misread.
func (o *objects) readable(dir string) error {
	cfg, err := o.Storage.Config()
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	refuse := func(what string) error {
		return &hub.Error{Message: fmt.Sprintf("the repository %s %s, which hub cannot read", dir, what), Hint: "clone it in git's default form"}
	}
	extensions := cfg.Raw.Section("extensions")
	if format := extensions.Option("objectformat"); format != "" && !strings.EqualFold(format, "sha1") {
		return refuse("names objects by " + format)
	}
	if storage := extensions.Option("refstorage"); storage != "" && !strings.EqualFold(storage, "files") {
		return refuse("keeps its references as " + storage)
	}
	return nil
}

// EncodedObject implements storer.EncodedObjectStorer.
func (o *objects) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	obj, err := o.Storage.EncodedObject(t, h)
	for i := 0; errors.Is(err, plumbing.ErrObjectNotFound) && i < len(o.borrowed); i++ {
		obj, err = o.borrowed[i].EncodedObject(t, h)
	}
	return obj, err
}

// EncodedObjectSize implements storer.EncodedObjectStorer.
func (o *objects) EncodedObjectSize(h plumbing.Hash) (int64, error) {
	size, err := o.Storage.EncodedObjectSize(h)
	for i := 0; errors.Is(err, plumbing.ErrObjectNotFound) && i < len(o.borrowed); i++ {
		size, err = o.borrowed[i].EncodedObjectSize(h)
	}
	return size, err
}

// HashesWithPrefix lists the objects whose ids begin with prefix.
func (o *objects) HashesWithPrefix(prefix []byte) ([]plumbing.Hash, error) {
	list, err := o.Storage.HashesWithPrefix(prefix)
	for _, st := range o.borrowed {
		more, moreErr := st.HashesWithPrefix(prefix)
		list, err = append(list, more...), errors.Join(err, moreErr)
	}
	return list, err
}
