package gitsync

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
)

// ReadOrder returns the order in which files with these content ids are read
// fastest: as indexes into ids, in the order of their places in the packs. A blob
// there is often written as its difference from the one before, which then is in
// a cache; in any other order each such chain is followed from its beginning
// (m: 100,000 host files, 19 times slower).
func (t *tree) ReadOrder(ids []string) []int {
	places := packPlaces(t.stores.dir)
	order := make([]int, len(ids))
	rank := make([]place, len(ids))
	for i, id := range ids {
		order[i] = i
		rank[i] = places.find(plumbing.NewHash(id))
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank[a].pack, rank[b].pack), cmp.Compare(rank[a].offset, rank[b].offset))
	})
	return order
}

// place is where an object lies; the zero value: in no pack.
type place struct {
	pack   int
	offset int64
}

type packIndexes []*idxfile.MemoryIndex

// packPlaces reads the indexes of all packs. One that cannot be read is left out:
// the order is a matter of speed.
func packPlaces(dir string) (list packIndexes) {
	names, _ := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.idx"))
	for _, name := range names {
		if index, err := readIndex(name); err == nil {
			list = append(list, index)
		}
	}
	return list
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

func (l packIndexes) find(h plumbing.Hash) place {
	for i, index := range l {
		if offset, err := index.FindOffset(h); err == nil {
			return place{i + 1, offset}
		}
	}
	return place{}
}
