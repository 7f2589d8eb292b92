package gitsync

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// worthOrdering is the number of files from which on their order is worked out.
const worthOrdering = 1000

// ReadOrder returns the order in which files with these content ids are read
// fastest, as indexes into ids: families of deltas together, each from its root
// on. A blob in a pack is often written as its difference from another; read
// after that one it finds it in a cache, in any other order the chain is
// followed from its beginning each time (m: 100,000 host files in the order of
// their paths take 9 times as long).
func (t *tree) ReadOrder(ids []string) []int {
	order := make([]int, len(ids))
	for i := range ids {
		order[i] = i
	}
	if len(ids) < worthOrdering {
		return order
	}
	packs := openPacks(t.stores.dir)
	places := make([]place, len(ids))
	for i, id := range ids {
		places[i] = packs.find(plumbing.NewHash(id))
	}
	packs.close()
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := places[a], places[b]
		return cmp.Or(cmp.Compare(x.pack, y.pack), cmp.Compare(x.root, y.root), cmp.Compare(x.depth, y.depth), cmp.Compare(x.offset, y.offset))
	})
	return order
}

// place is where an object lies; the zero value: in no pack, or not known.
type place struct {
	pack   int
	root   int64 // offset of the object at the beginning of its chain of deltas
	depth  int   // links to the root
	offset int64
}

// packs are the packs of a repository. What cannot be read of them is left out:
// the order is a matter of speed.
type packs []*pack

type pack struct {
	index *idxfile.MemoryIndex
	file  *os.File
	known map[int64]place
}

func openPacks(dir string) (list packs) {
	names, _ := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.idx"))
	for _, name := range names {
		index, err := readIndex(name)
		if err != nil {
			continue
		}
		file, err := os.Open(strings.TrimSuffix(name, ".idx") + ".pack")
		if err != nil {
			continue
		}
		list = append(list, &pack{index, file, map[int64]place{}})
	}
	return list
}

func (l packs) close() {
	for _, p := range l {
		_ = p.file.Close() // only read
	}
}

func readIndex(name string) (*idxfile.MemoryIndex, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	index := idxfile.NewMemoryIndex()
	return index, idxfile.NewDecoder(f).Decode(index)
}

func (l packs) find(h plumbing.Hash) place {
	for i, p := range l {
		if offset, err := p.index.FindOffset(h); err == nil {
			at := p.place(offset)
			at.pack = i + 1
			return at
		}
	}
	return place{}
}

// place follows the chain of deltas from offset to its root.
func (p *pack) place(offset int64) place {
	var chain []int64
	at, known := p.known[offset]
	for next := offset; !known; at, known = p.known[next] {
		chain = append(chain, next)
		base, isDelta := p.base(next)
		if !isDelta {
			at = place{root: next, depth: -1}
			break
		}
		next = base
	}
	for _, offset := range slices.Backward(chain) {
		at.depth, at.offset = at.depth+1, offset
		p.known[offset] = at
	}
	return at
}

// base returns the offset of the object that the one at offset differs from;
// false where it is whole, or cannot be read.
func (p *pack) base(offset int64) (int64, bool) {
	var head [48]byte
	n, _ := p.file.ReadAt(head[:], offset)
	rest := head[:n]
	if len(rest) == 0 {
		return 0, false
	}
	kind := plumbing.ObjectType(rest[0] >> 4 & 7) // gitformat-pack(5)
	for len(rest) > 0 && rest[0]&0x80 != 0 {      // the size
		rest = rest[1:]
	}
	if len(rest) < 1+len(plumbing.ZeroHash) {
		return 0, false
	}
	rest = rest[1:]
	switch kind {
	case plumbing.OFSDeltaObject:
		distance := int64(rest[0] & 0x7f)
		for len(rest) > 1 && rest[0]&0x80 != 0 {
			rest = rest[1:]
			distance = (distance+1)<<7 | int64(rest[0]&0x7f)
		}
		return offset - distance, distance > 0 && distance < offset
	case plumbing.REFDeltaObject:
		base, err := p.index.FindOffset(plumbing.Hash(rest[:len(plumbing.ZeroHash)]))
		return base, err == nil && base != offset
	}
	return 0, false
}
