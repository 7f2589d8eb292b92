package gitsync

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"felhom.eu/hub/internal/hub"
)

// Marks of MergeBase.
const (
	fromA = 1 << iota
	fromB
	older // than a common ancestor that was found
)

// MergeBase returns the newest common ancestor of two commits, which is one of
// them where it descends from the other; "" where there is none. It reads only
// the history down to there, and takes the edge of a shallow clone for its
// beginning; go-git's own reads the whole and fails, or says nothing, at the edge.
func (l *Local) MergeBase(a, b Hash) (Hash, error) {
	st, err := l.open()
	if err != nil {
		return "", err
	}
	defer l.done(st)
	edge, err := st.Shallow()
	if err != nil {
		return "", err
	}
	w := walk{st: st, marks: map[plumbing.Hash]int{}, edge: map[plumbing.Hash]bool{}}
	for _, h := range edge {
		w.edge[h] = true
	}
	base, err := w.mergeBase(a.plumbing(), b.plumbing())
	if err != nil {
		return "", l.explain(err)
	}
	if base.IsZero() && len(edge) > 0 {
		return "", &hub.Error{Message: fmt.Sprintf("no common ancestor of %s and %s is in this clone", a.Short(), b.Short()), Hint: shallowHint}
	}
	return hashOf(base), nil
}

// walk goes back through the history from two commits at once, newest first.
type walk struct {
	st    *objects
	marks map[plumbing.Hash]int
	edge  map[plumbing.Hash]bool
	queue newestFirst
}

// mergeBase is git's own way (paint_down_to_common).
func (w *walk) mergeBase(a, b plumbing.Hash) (plumbing.Hash, error) {
	if err := errors.Join(w.mark(a, fromA), w.mark(b, fromB)); err != nil {
		return plumbing.ZeroHash, err
	}
	var found []plumbing.Hash
	for slices.ContainsFunc(w.queue, w.notOlder) {
		c := heap.Pop(&w.queue).(*object.Commit)
		marks := w.marks[c.Hash]
		if marks == fromA|fromB {
			found = append(found, c.Hash)
			marks |= older
		}
		if w.edge[c.Hash] {
			continue
		}
		for _, parent := range c.ParentHashes {
			if err := w.mark(parent, marks); err != nil {
				return plumbing.ZeroHash, err
			}
		}
	}
	for _, h := range found {
		if w.marks[h]&older == 0 {
			return h, nil
		}
	}
	return plumbing.ZeroHash, nil
}

// mark adds marks to a commit, and has its parents looked at where that is news.
func (w *walk) mark(h plumbing.Hash, marks int) error {
	before := w.marks[h]
	if before&marks == marks {
		return nil
	}
	c, err := object.GetCommit(w.st, h)
	if err != nil {
		return fmt.Errorf("commit %s: %w", h, err)
	}
	w.marks[h] = before | marks
	heap.Push(&w.queue, c)
	return nil
}

func (w *walk) notOlder(c *object.Commit) bool { return w.marks[c.Hash]&older == 0 }

// newestFirst is a heap of commits.
type newestFirst []*object.Commit

func (q newestFirst) Len() int           { return len(q) }
func (q newestFirst) Less(i, j int) bool { return q[i].Committer.When.After(q[j].Committer.When) }
func (q newestFirst) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *newestFirst) Push(c any)        { *q = append(*q, c.(*object.Commit)) }
func (q *newestFirst) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
