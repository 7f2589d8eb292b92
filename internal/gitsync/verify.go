package gitsync

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// UntrustedError says that a commit lacks the signature that it needs.
type UntrustedError struct {
	Commit  Hash
	Subject string
	Author  Author // as written in the commit; proves nothing

	// Reason is unsigned, unknown_key, wrong_namespace, not_yet_valid, expired,
	// revoked, bad_signature or malformed.
	Reason string
	What   string // for people: what is wrong
	Hint   string // for people: what to do
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("commit %s %q by %s: %s (%s)", e.Commit.Short(), oneLine(e.Subject), oneLine(e.Author.Name+" <"+e.Author.Email+">"), oneLine(e.What), e.Hint)
}

// Verify demands a signature by one of s, valid at the time, of head and of
// every commit on its first-parent line that since, the commit in force, has not
// in its history. What was merged into that line is vouched for by the merge.
// With no since, or none of its history in that of head, it is head alone.
//
// It returns who signed head: the principals of an SSH key, the user and the
// fingerprint of an OpenPGP key. at is the hub's clock, not the commit's date,
// which whoever has an expired key can write at will.
//
// The error is an *UntrustedError for the oldest commit that is not trusted, or
// says that the mirror cannot be read.
func (r *Repo) Verify(head, since Hash, s *Signers, at time.Time) (signer string, err error) {
	r.swap.RLock()
	defer r.swap.RUnlock()
	st := openStorage(r.opts.Dir, filesystem.Options{KeepDescriptors: true, ExclusiveAccess: true})
	defer st.Close()
	line, err := unverified(st, head.plumbing(), since.plumbing())
	for i := len(line) - 1; err == nil && i >= 0; i-- {
		signer, err = s.verify(st, line[i], at)
	}
	if err != nil {
		if !errors.As(err, new(*UntrustedError)) {
			r.damaged.Store(true)
		}
		return "", err
	}
	return signer, nil
}

// unverified returns head and its first parents, newest first, up to what since
// has in its history.
func unverified(st *filesystem.Storage, head, since plumbing.Hash) (line []plumbing.Hash, err error) {
	if since.IsZero() || head == since {
		return []plumbing.Hash{head}, nil
	}
	for at := head; at != since; {
		line = append(line, at)
		c, err := object.GetCommit(st, at)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", at, err)
		}
		if c.NumParents() == 0 { // since is merged into the line, beside it, or lost
			return cutKnown(st, line, since)
		}
		at = c.ParentHashes[0]
	}
	return line, nil
}

// cutKnown ends line, which is not empty, before the first commit in the history
// of since; line's first stays.
func cutKnown(st *filesystem.Storage, line []plumbing.Hash, since plumbing.Hash) ([]plumbing.Hash, error) {
	known := map[plumbing.Hash]bool{}
	err := history(st, since, func(h plumbing.Hash) bool { known[h] = true; return true })
	if err != nil {
		return nil, err
	}
	for i, h := range line {
		if known[h] {
			return line[:max(i, 1)], nil
		}
	}
	return line[:1], nil
}

// history calls visit for each commit that can be reached from a commit, that one
// included, nearest first, until visit returns false. Where the mirror lacks one,
// since a rewrite took it away, it ends.
func history(st *filesystem.Storage, from plumbing.Hash, visit func(plumbing.Hash) bool) error {
	seen := map[plumbing.Hash]bool{from: true}
	for queue := []plumbing.Hash{from}; len(queue) > 0; queue = queue[1:] {
		if !visit(queue[0]) {
			return nil
		}
		c, err := object.GetCommit(st, queue[0])
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("commit %s: %w", queue[0], err)
		}
		for _, parent := range c.ParentHashes {
			if !seen[parent] {
				seen[parent] = true
				queue = append(queue, parent)
			}
		}
	}
	return nil
}

// verify checks one commit by its bytes as they are stored.
func (s *Signers) verify(st *filesystem.Storage, h plumbing.Hash, at time.Time) (signer string, err error) {
	obj, err := st.EncodedObject(plumbing.CommitObject, h)
	if err != nil {
		return "", fmt.Errorf("commit %s: %w", h, err)
	}
	raw, err := content(obj)
	if err != nil {
		return "", fmt.Errorf("commit %s: %w", h, err)
	}
	if plumbing.ComputeHash(plumbing.CommitObject, raw) != h {
		return "", fmt.Errorf("commit %s: the mirror holds another content", h)
	}
	untrusted := &UntrustedError{Commit: hashOf(h)}
	read, err := object.DecodeCommit(st, obj)
	if err == nil {
		untrusted.Subject, untrusted.Author = subject(read), Author{read.Author.Name, read.Author.Email}
	}
	split, splitErr := splitCommit(raw)
	if err = errors.Join(err, splitErr); err == nil && (split.tree != read.TreeHash || !slices.Equal(split.parents, read.ParentHashes)) {
		err = errors.New("its headers can be read in two ways")
	}
	if err != nil {
		untrusted.Reason, untrusted.What, untrusted.Hint = "malformed", "it is not as git writes it: "+err.Error(), "make it anew with git"
		return "", untrusted
	}
	signer, err = s.check(split, at)
	if d := (*distrust)(nil); errors.As(err, &d) {
		untrusted.Reason, untrusted.What, untrusted.Hint = d.reason, d.what, d.hint
		return "", untrusted
	}
	return signer, err
}

// Descends reports whether commit is ancestor, or has it in its history. Both
// must have been in the mirror; an ancestor that a rewrite took away is in no
// history.
func (r *Repo) Descends(commit, ancestor Hash) (found bool, err error) {
	r.swap.RLock()
	defer r.swap.RUnlock()
	st := openStorage(r.opts.Dir, filesystem.Options{KeepDescriptors: true, ExclusiveAccess: true})
	defer st.Close()
	if _, err := commitAndTree(st, commit.plumbing()); err != nil {
		r.damaged.Store(true)
		return false, err
	}
	err = history(st, commit.plumbing(), func(h plumbing.Hash) bool {
		found = h == ancestor.plumbing()
		return !found
	})
	return found, err
}
