// Package gitsync keeps a mirror of one branch of one git repository: bare,
// with its full history, without tags, submodules or a work tree.
//
// Files are read straight from git objects (View), and a change is written as
// a commit that is pushed without ever forcing (Publish). The mirror is a
// cache with one exception: what is in force (Applied), with which a restart
// begins when the remote is away. Everything else heals: a mirror that is
// damaged, or holds too many packs, is cloned anew beside and swapped, and what
// is in force comes along even where the remote's history has it no more.
//
// Whom to trust is asked of the commits as they are stored (Verify): SSH and
// OpenPGP signatures against files of the operator's (Signers), never against
// anything in the repository.
//
// It is the one home of go-git and of the two libraries of signatures, whose
// types do not leave it. The sessions of
// go-git's transports are driven directly rather than through its Remote: that
// gives each repository its own HTTP client and SSH settings instead of global
// ones, reads the remote head and fetches in one connection, and pushes exactly
// the new objects with the expected old head, where Remote.Push would walk the
// whole history first.
package gitsync

import (
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Hash is the id of a git object, 40 lowercase hex digits. The empty Hash means
// "none".
type Hash string

// Short returns the first 12 digits, for messages.
func (h Hash) Short() string { return string(h[:min(len(h), 12)]) }

func (h Hash) plumbing() plumbing.Hash { return plumbing.NewHash(string(h)) }

func hashOf(h plumbing.Hash) Hash {
	if h.IsZero() {
		return ""
	}
	return Hash(h.String())
}

// Author signs a commit with a name, without proving it.
type Author struct{ Name, Email string }

// Commit is what a log line says of a commit.
type Commit struct {
	Hash   Hash
	Author Author
	When   time.Time // of the author

	Committed time.Time // of the committer
	Subject   string    // first line of the message
}
