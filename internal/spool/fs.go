package spool

import (
	"errors"
	"io"
	"syscall"
)

// FS is what the spool asks of a disk: one flat folder. Names have no slash.
// It is an interface so that tests run on a disk in memory that keeps what was
// written and what was synced apart.
type FS interface {
	// Lock takes the folder for this process until the result is closed; it
	// returns an error that wraps ErrLocked when another has it.
	Lock() (io.Closer, error)
	// List returns the names of the files in the folder, in any order.
	List() ([]string, error)
	// Create makes a new file (0600) for writing; the name must be free.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Truncate changes a file's size.
	Truncate(name string, size int64) error
	// Rename replaces the file to, if there is one.
	Rename(from, to string) error
	// Remove deletes a file.
	Remove(name string) error
	// SyncDir makes every Create, Rename and Remove so far durable.
	SyncDir() error
	// Free returns the bytes that this process may still allocate.
	Free() (int64, error)
}

// File is one open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Allocate reserves the first size bytes of the file and makes it at least
	// so long; new bytes read as zero. It may do nothing where the disk cannot.
	Allocate(size int64) error
	// Sync returns after every byte written so far, and the file's size, are
	// on the disk.
	Sync() error
	// Size returns the file's length in bytes.
	Size() (int64, error)
}

// ErrLocked means that another process has the spool.
var ErrLocked = errors.New("the spool is in use")

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
