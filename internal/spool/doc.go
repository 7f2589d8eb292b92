// Package spool keeps records on disk until they are somewhere else for good.
//
// A nil error of [Spool.Append] promises: the records are on the disk, whole
// and in order, and every [Reader] that starts at the cursor will find them,
// whatever dies next: this process, the machine, or ClickHouse. A record
// leaves only after the cursor has passed it, durably ([Spool.Advance]).
//
// # Shape
//
// A spool is a folder of volumes: append-only files with a header and framed
// records (volume.go, frame.go). One goroutine, the committer, takes all
// appends that wait, writes them with one write, syncs them with one
// fdatasync, and replies; meanwhile the next group gathers (commit.go). Every
// Open begins a new volume with a new random id, at its first append; a volume
// in which a write or a sync failed is never written again. At Open all
// volumes are read to their end by the same scanner that readers use
// (recover.go, reader.go): a place that does not verify is passed over up to
// the next frame that does, and is counted as damage; only what cannot have
// been acknowledged, at the end of what was written when the process died,
// is passed over in silence. Volumes that are shipped stay for a while and
// are removed oldest first (remove.go).
//
// # What is assumed
//
// That fdatasync returns nil only after the data and the size of the file are
// on stable storage, and fsync of the folder likewise for its names (ext4, xfs
// and btrfs on disks that honour a flush; tmpfs and most network filesystems
// do not). That rename replaces atomically. That a write that was never synced
// may be there after a crash in whole, in part, or not at all, in any order.
// That CRC32C finds what a disk does to bytes; it is no defence against
// somebody who can write to the folder. That no two machines share the folder.
//
// # What is not promised
//
// An Append that returned an error may still be found after a crash, if the
// process died before it could open the next volume; one whose context ended
// may be found at any time. A second copy of the disk is not kept: bytes that
// rot are named and counted ([Spool.Damage]), not repaired. If the last group
// before a crash rots as well, that cannot be told from a torn write.
// received_at never goes back, so it stands still while the clock is behind.
package spool
