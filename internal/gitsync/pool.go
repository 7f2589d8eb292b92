package gitsync

import (
	"errors"
	"runtime"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// pool hands out storages of one repository, each to one reader at a time: those
// of go-git are not safe for concurrent reads. They share the bases of deltas
// only, so as many as there are processors read beside each other.
//
// Nothing may be removed from the repository meanwhile: the lists of packs and
// loose objects are read once, and packs stay open until the pool is closed.
type pool struct {
	dir   string
	open  func() objectStore
	slots chan struct{} // taken by whoever holds a storage

	mu   sync.Mutex
	idle []objectStore
}

// objectStore is a storage of go-git's.
type objectStore interface {
	storer.EncodedObjectStorer
	Close() error
}

// newPool makes a pool of as many storages of the repository dir as are used at
// once.
func newPool(dir string) *pool {
	bases := cache.NewObjectLRU(objectCache) // of deltas; safe for concurrent use
	return &pool{dir: dir, slots: make(chan struct{}, runtime.GOMAXPROCS(0)), open: func() objectStore {
		return openStorageWith(dir, bases, filesystem.Options{KeepDescriptors: true, ExclusiveAccess: true})
	}}
}

// poolOf makes a pool of one storage of the repository dir, which stays its
// owner's to close.
func poolOf(st objectStore, dir string) *pool {
	return &pool{dir: dir, slots: make(chan struct{}, 1), idle: []objectStore{st}}
}

// reading returns what do returns, which has the storage for itself until then.
func reading[T any](p *pool, do func(objectStore) (T, error)) (T, error) {
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	st := p.take()
	defer p.give(st)
	return do(st)
}

func (p *pool) take() objectStore {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		st := p.idle[last]
		p.idle = p.idle[:last]
		return st
	}
	return p.open()
}

func (p *pool) give(st objectStore) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, st)
}

// close closes the storages, all of which must have been given back.
func (p *pool) close() (err error) {
	for _, st := range p.idle {
		err = errors.Join(err, st.Close())
	}
	return err
}
