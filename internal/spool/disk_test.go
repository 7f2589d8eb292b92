package spool

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// disk is an FS in memory that keeps what was written and what is durable
// apart: it has a journal of all that was done, from which crash makes the
// disks that a power cut could leave.
type disk struct {
	mu       sync.Mutex
	names    map[string]*inode
	inodes   int
	base     map[string]*inode // what was there, durably, before the journal
	journal  []op
	locked   bool
	capacity int64            // 0: endless
	faults   map[opKind]fault // what goes wrong next
	gate     chan struct{}    // Sync waits here while it is not nil
}

type inode struct {
	id   int
	data []byte
}

type opKind int

const (
	opCreate opKind = iota
	opWrite
	opTruncate
	opSync
	opForget // a failed sync whose writes are lost
	opRename
	opRemove
	opSyncDir
)

type op struct {
	kind     opKind
	inode    int
	off      int64 // or size
	data     []byte
	name, to string
}

// fault makes the next times operations of a kind fail with err. kept: it was
// done nevertheless.
type fault struct {
	skip  int // so many before it go well
	times int
	only  func(op) bool // nil: all
	kept  bool
	err   error
}

func newDisk() *disk { return &disk{names: map[string]*inode{}, faults: map[opKind]fault{}} }

func (d *disk) set(kind opKind, f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[kind] = f
}

// do runs one change under the lock, unless a fault is due.
func (d *disk) do(o op, change func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.faults[o.kind]
	due := f.times > 0 && (f.only == nil || f.only(o))
	if due && f.skip > 0 {
		f.skip--
		d.faults[o.kind], due = f, false
	}
	if due {
		f.times--
		d.faults[o.kind] = f
		switch {
		case f.kept:
		case o.kind == opSync:
			d.journal = append(d.journal, op{kind: opForget, inode: o.inode})
			return f.err
		default:
			return f.err
		}
	} else {
		f.err = nil
	}
	if change != nil {
		if err := change(); err != nil {
			return err
		}
	}
	d.journal = append(d.journal, o)
	return f.err
}

func (d *disk) used() (sum int64) {
	for _, n := range d.names {
		sum += int64(len(n.data))
	}
	return sum
}

// resize changes a file's length where there is room.
func (d *disk) resize(n *inode, size int64) error {
	if grow := size - int64(len(n.data)); grow > 0 {
		if d.capacity > 0 && d.used()+grow > d.capacity {
			return syscall.ENOSPC
		}
		n.data = append(n.data, make([]byte, grow)...)
	}
	n.data = n.data[:size]
	return nil
}

func (d *disk) Lock() (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, ErrLocked
	}
	d.locked = true
	return closer(func() { d.mu.Lock(); d.locked = false; d.mu.Unlock() }), nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (d *disk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.names)), nil
}

func (d *disk) Create(name string) (File, error) {
	d.mu.Lock()
	d.inodes++
	n := &inode{id: d.inodes}
	d.mu.Unlock()
	err := d.do(op{kind: opCreate, inode: n.id, name: name}, func() error {
		if d.names[name] != nil {
			return fs.ErrExist
		}
		d.names[name] = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &handle{d, n}, nil
}

func (d *disk) Open(name string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.names[name]; n != nil {
		return &handle{d, n}, nil
	}
	return nil, fs.ErrNotExist
}

func (d *disk) Truncate(name string, size int64) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	return f.(*handle).truncate(size)
}

func (d *disk) Rename(from, to string) error {
	return d.do(op{kind: opRename, name: from, to: to}, func() error {
		if d.names[from] == nil {
			return fs.ErrNotExist
		}
		d.names[to] = d.names[from]
		delete(d.names, from)
		return nil
	})
}

func (d *disk) Remove(name string) error {
	return d.do(op{kind: opRemove, name: name}, func() error {
		if d.names[name] == nil {
			return fs.ErrNotExist
		}
		delete(d.names, name)
		return nil
	})
}

func (d *disk) SyncDir() error { return d.do(op{kind: opSyncDir}, nil) }

func (d *disk) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.capacity == 0 {
		return 1 << 50, nil
	}
	return d.capacity - d.used(), nil
}

type handle struct {
	d *disk
	n *inode
}

func (h *handle) ReadAt(b []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	n := copy(b, h.n.data[min(off, int64(len(h.n.data))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(b []byte, off int64) (int, error) {
	err := h.d.do(op{kind: opWrite, inode: h.n.id, off: off, data: slices.Clone(b)}, func() error {
		if err := h.d.resize(h.n, max(int64(len(h.n.data)), off+int64(len(b)))); err != nil {
			return err
		}
		copy(h.n.data[off:], b)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

func (h *handle) truncate(size int64) error {
	return h.d.do(op{kind: opTruncate, inode: h.n.id, off: size}, func() error { return h.d.resize(h.n, size) })
}

func (h *handle) Allocate(size int64) error { return h.truncate(size) }

func (h *handle) Sync() error {
	h.d.mu.Lock()
	gate := h.d.gate
	h.d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return h.d.do(op{kind: opSync, inode: h.n.id}, nil)
}

func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return int64(len(h.n.data)), nil
}

func (h *handle) Close() error { return nil }

// hold lets every Sync wait until release, at the latest at the test's end.
func (d *disk) hold(t *testing.T) (release func()) {
	gate := make(chan struct{})
	d.mu.Lock()
	d.gate = gate
	d.mu.Unlock()
	release = sync.OnceFunc(func() {
		d.mu.Lock()
		d.gate = nil
		d.mu.Unlock()
		close(gate)
	})
	t.Cleanup(release)
	return release
}

// now returns how many operations the journal has.
func (d *disk) now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.journal)
}

// clone returns a copy of what the process sees.
func (d *disk) clone() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newDisk()
	for name, n := range d.names {
		c.inodes++
		c.names[name] = &inode{c.inodes, slices.Clone(n.data)}
	}
	c.base = copyOf(c.names)
	return c
}

func copyOf(names map[string]*inode) map[string]*inode {
	c := map[string]*inode{}
	for name, n := range names {
		c[name] = &inode{n.id, slices.Clone(n.data)}
	}
	return c
}

// pending returns which of the first n operations are not durable after them:
// a write until its file is synced, a name until the folder is.
func (d *disk) pending(n int) []int {
	var open []int
	for i, o := range d.journal[:n] {
		switch o.kind {
		case opSyncDir:
			open = slices.DeleteFunc(open, func(j int) bool { return d.journal[j].isName() })
		case opSync:
			open = slices.DeleteFunc(open, func(j int) bool { return !d.journal[j].isName() && d.journal[j].inode == o.inode })
		case opForget:
		default:
			open = append(open, i)
		}
	}
	return open
}

func (o op) isName() bool { return o.kind == opCreate || o.kind == opRename || o.kind == opRemove }

// forgotten returns the writes among the first n operations that a failed sync
// lost for ever.
func (d *disk) forgotten(n int) map[int]bool {
	lost := map[int]bool{}
	for i, o := range d.journal[:n] {
		if o.kind == opForget {
			for _, j := range d.pending(i) {
				if p := d.journal[j]; p.kind == opWrite && p.inode == o.inode {
					lost[j] = true
				}
			}
		}
	}
	return lost
}

// keep says what a power cut leaves of an operation that is not durable.
type keep func(position int, o op) (whole bool, part *rand.Rand)

// crash returns the disk that a power cut after the first n operations leaves.
// Names are kept up to some point and lost behind it, as a journal of metadata
// does; writes may survive in any mixture.
func (d *disk) crash(n int, k keep) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	pending := d.pending(n)
	lost := d.forgotten(n)
	namesGone := false
	after := newDisk()
	after.inodes, after.names = d.inodes, copyOf(d.base)
	nodes := map[int]*inode{}
	for _, n := range after.names {
		nodes[n.id] = n
	}
	for i, o := range d.journal[:n] {
		var part *rand.Rand
		if lost[i] {
			continue
		}
		if p, open := slices.BinarySearch(pending, i); open {
			whole := false
			whole, part = k(p, o)
			if o.isName() {
				namesGone = namesGone || !whole
				whole, part = !namesGone, nil
			}
			if !whole && part == nil {
				continue
			}
		}
		after.apply(o, nodes, part)
	}
	after.base = copyOf(after.names)
	return after
}

const sector = 16 // small, so that small records tear too

func (d *disk) apply(o op, nodes map[int]*inode, part *rand.Rand) {
	if o.inode != 0 && nodes[o.inode] == nil {
		nodes[o.inode] = &inode{id: o.inode}
	}
	n := nodes[o.inode]
	switch o.kind {
	case opCreate:
		d.names[o.name] = n
	case opRename:
		d.names[o.to] = d.names[o.name]
		delete(d.names, o.name)
	case opRemove:
		delete(d.names, o.name)
	case opTruncate:
		_ = d.resize(n, o.off)
	case opWrite:
		_ = d.resize(n, max(int64(len(n.data)), o.off+int64(len(o.data))))
		for from := 0; from < len(o.data); from += sector {
			if part == nil || part.IntN(2) == 0 {
				copy(n.data[o.off+int64(from):], o.data[from:min(from+sector, len(o.data))])
			}
		}
	}
}

var errDisk = errors.New("input/output error (made up)")
