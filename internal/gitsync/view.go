package gitsync

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// View calls read with the folder at path ("" or "." is the whole) of a commit
// in the mirror, and returns what read returns, or its own error when there is
// no such commit or folder.
//
// The file system is valid until read returns; it also has ReadDir, ReadFile
// and Stat. Symbolic links and submodules show by their mode (fs.ModeSymlink,
// fs.ModeIrregular) and cannot be opened. FileInfo.Sys is the Hash of the
// content, by which parsed files may be cached. Asking a DirEntry for its Info,
// or a file for its size, reads the object's header only.
//
// Each DirEntry also has ContentHash, which costs nothing. The file system has
// Blob(hash string) ([]byte, error), which reads any blob of the mirror. Several
// goroutines may read at once.
//
// read must not call methods of the Repo: replacing the mirror waits for it.
func (r *Repo) View(commit Hash, path string, read func(fs.FS) error) error {
	r.swap.RLock()
	defer r.swap.RUnlock()
	stores := newPool(r.opts.Dir)
	defer stores.close()
	t, err := treeOf(stores, commit, path, func() { r.damaged.Store(true) })
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: set fleet.path to the folder that holds fleet.yaml, or put it back", err)
	}
	if err != nil {
		return err
	}
	return read(t)
}

// treeOf returns the file system of the folder at path of a commit.
func treeOf(stores *pool, commit Hash, path string, damaged func()) (*tree, error) {
	c, err := reading(stores, func(st objectStore) (*object.Commit, error) {
		return object.GetCommit(st, commit.plumbing())
	})
	if err != nil {
		damaged()
		return nil, fmt.Errorf("commit %s: %w", commit.Short(), err)
	}
	t := &tree{
		stores:  stores,
		damaged: damaged,
		root:    entry{name: ".", mode: filemode.Dir, hash: c.TreeHash},
		dirs:    make(map[plumbing.Hash][]entry),
	}
	if path == "" {
		path = "."
	}
	root, err := t.lookup("open", path)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", commit.Short(), err)
	}
	if root.mode != filemode.Dir {
		return nil, fmt.Errorf("commit %s: %s is not a folder", commit.Short(), path)
	}
	t.root = entry{name: ".", mode: filemode.Dir, hash: root.hash}
	return t, nil
}

var _ interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
} = (*tree)(nil)

// tree is the fs.FS of one folder of one commit.
type tree struct {
	root    entry
	damaged func() // called when an object cannot be read
	stores  *pool

	mu   sync.Mutex
	dirs map[plumbing.Hash][]entry // decoded, sorted by name
}

// entry is one name in a folder.
type entry struct {
	name string
	mode filemode.FileMode
	hash plumbing.Hash
}

func byName(e entry, name string) int { return cmp.Compare(e.name, name) }

// lookup walks from the root to name.
func (t *tree) lookup(op, name string) (entry, error) {
	if !fs.ValidPath(name) {
		return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at := t.root
	if name == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if at.mode != filemode.Dir {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		list, err := t.list(at.hash)
		if err != nil {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: err}
		}
		i, found := slices.BinarySearchFunc(list, part, byName)
		if !found {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		at = list[i]
	}
	return at, nil
}

// list returns the entries of a folder, sorted by name.
func (t *tree) list(h plumbing.Hash) ([]entry, error) {
	t.mu.Lock()
	list, ok := t.dirs[h]
	t.mu.Unlock()
	if ok {
		return list, nil
	}
	list, err := t.decode(h)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dirs[h] = list
	return list, nil
}

func (t *tree) decode(h plumbing.Hash) ([]entry, error) {
	decoded, err := reading(t.stores, func(st objectStore) (*object.Tree, error) { return object.GetTree(st, h) })
	if err != nil {
		t.damaged()
		return nil, fmt.Errorf("tree %s: %w", h, err)
	}
	list := make([]entry, len(decoded.Entries))
	for i, e := range decoded.Entries {
		if e.Name == "" || e.Name == "." || e.Name == ".." || strings.Contains(e.Name, "/") {
			return nil, fmt.Errorf("tree %s: %q is no name of a file", h, e.Name)
		}
		list[i] = entry{e.Name, e.Mode, e.Hash}
	}
	// Git sorts a folder as if its name ended in a slash.
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(list); i++ {
		if list[i].name == list[i-1].name {
			return nil, fmt.Errorf("tree %s: %q stands twice", h, list[i].name)
		}
	}
	return list, nil
}

// stat returns what is known of e; for a file that takes a look at its object.
func (t *tree) stat(e entry) (info, error) {
	if !e.regular() {
		return info{entry: e}, nil
	}
	size, err := reading(t.stores, func(st objectStore) (int64, error) { return st.EncodedObjectSize(e.hash) })
	if err != nil {
		t.damaged()
		return info{}, fmt.Errorf("blob %s: %w", e.hash, err)
	}
	return info{entry: e, size: size}, nil
}

func (t *tree) content(e entry) ([]byte, error) {
	data, err := reading(t.stores, func(st objectStore) ([]byte, error) { return blob(st, e.hash) })
	if err != nil {
		t.damaged()
		return nil, fmt.Errorf("blob %s: %w", e.hash, err)
	}
	return data, nil
}

// Blob returns the content of a file that this commit need not hold, by its id.
func (t *tree) Blob(hash string) ([]byte, error) {
	data, err := reading(t.stores, func(st objectStore) ([]byte, error) { return blob(st, plumbing.NewHash(hash)) })
	if err != nil {
		t.damaged()
		return nil, fmt.Errorf("blob %s: %w", hash, err)
	}
	return data, nil
}

func blob(st objectStore, h plumbing.Hash) ([]byte, error) {
	obj, err := st.EncodedObject(plumbing.BlobObject, h)
	if err != nil {
		return nil, err
	}
	return content(obj)
}

func content(obj plumbing.EncodedObject) ([]byte, error) {
	r, err := obj.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, obj.Size())
	_, err = io.ReadFull(r, data)
	return data, err
}

// Open implements fs.FS.
func (t *tree) Open(name string) (fs.File, error) {
	e, err := t.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if e.mode == filemode.Dir {
		list, err := t.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return &folder{info: info{entry: e}, name: name, rest: list}, nil
	}
	data, err := t.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &file{info{e, int64(len(data))}, bytes.NewReader(data)}, nil
}

// ReadFile implements fs.ReadFileFS. The caller owns the bytes.
func (t *tree) ReadFile(name string) ([]byte, error) {
	e, err := t.lookup("read", name)
	if err != nil {
		return nil, err
	}
	if !e.regular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("not a file: %w (%s)", fs.ErrInvalid, e.mode)}
	}
	data, err := t.content(e)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

// ReadDir implements fs.ReadDirFS.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if e.mode != filemode.Dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fmt.Errorf("not a folder: %w", fs.ErrInvalid)}
	}
	list, err := t.list(e.hash)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	entries := make([]fs.DirEntry, len(list))
	for i, e := range list {
		entries[i] = dirEntry{e, t}
	}
	return entries, nil
}

// Stat implements fs.StatFS.
func (t *tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	st, err := t.stat(e)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, nil
}

func (e entry) regular() bool {
	return e.mode == filemode.Regular || e.mode == filemode.Deprecated || e.mode == filemode.Executable
}

// Name implements fs.FileInfo and fs.DirEntry.
func (e entry) Name() string { return path.Base(e.name) }

// IsDir implements fs.FileInfo and fs.DirEntry.
func (e entry) IsDir() bool { return e.mode == filemode.Dir }

// Mode implements fs.FileInfo.
func (e entry) Mode() fs.FileMode {
	switch e.mode {
	case filemode.Dir:
		return fs.ModeDir | 0o555
	case filemode.Regular, filemode.Deprecated:
		return 0o444
	case filemode.Executable:
		return 0o555
	case filemode.Symlink:
		return fs.ModeSymlink | 0o444
	default: // a submodule
		return fs.ModeIrregular
	}
}

// info is an fs.FileInfo.
type info struct {
	entry
	size int64
}

func (i info) Size() int64      { return i.size }
func (info) ModTime() time.Time { return time.Time{} }
func (i info) Sys() any         { return hashOf(i.hash) }

// dirEntry is an fs.DirEntry; its Info reads the object's size.
type dirEntry struct {
	entry
	tree *tree
}

// ContentHash returns the id of the object, a folder's included: entries with the
// same one have the same content, all the way down. It reads nothing.
func (d dirEntry) ContentHash() string { return d.hash.String() }

func (d dirEntry) Type() fs.FileMode          { return d.Mode().Type() }
func (d dirEntry) Info() (fs.FileInfo, error) { return d.tree.stat(d.entry) }
func (d dirEntry) String() string             { return fs.FormatDirEntry(d) }

// file is an open file, all of it in memory.
type file struct {
	info
	*bytes.Reader
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Size() int64                { return f.size }
func (*file) Close() error                 { return nil }

// folder is an open folder.
type folder struct {
	info
	name string
	rest []fs.DirEntry
}

func (f *folder) Stat() (fs.FileInfo, error) { return f.info, nil }
func (*folder) Close() error                 { return nil }

func (f *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.name, Err: fmt.Errorf("is a folder: %w", fs.ErrInvalid)}
}

// ReadDir implements fs.ReadDirFile.
func (f *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(f.rest)
	} else if len(f.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.rest))
	list := f.rest[:n:n]
	f.rest = f.rest[n:]
	return list, nil
}
