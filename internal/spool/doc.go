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
// do not). That names reach the disk in the order in which they were changed.
// That rename replaces atomically. That a write that was never synced may be
// there after a crash in whole, in part, or not at all, in any order, and so
// may one whose write or sync failed. That CRC32C finds what a disk does to
// bytes; it is no defence against somebody who can write to the folder. That
// no two machines share the folder.
//
// # Damage
//
// A range that does not verify costs the records in it, and no others. It is
// logged as an error, counted and named ([Spool.Damage]), be it found at Open
// or by a reader later. Bytes that the disk cannot return are damage until it
// can; nothing is cut off for them. A volume that is gone, though not all of
// it was shipped, is damage if the one behind it is there to say so. The
// cursor and other state files are disposable: without a cursor, or with one
// that does not verify, all that is kept is read again, and whoever ships
// asks what is there. A folder written by a newer hub is refused with
// ErrNewer, untouched.
//
// # Restored and copied folders and volumes
//
// A record is known by its spool id and seq, which stand in its frame; from
// wherever a volume was brought, under whatever name, its records are read
// with these or not at all. An id is never drawn again and no volume is
// continued after a start, so a folder restored from an old copy, or two hubs
// that begin from copies of one, give no position out twice; what was shipped
// after the copy is read again under the position it had. A volume that is
// there twice reads twice, under one position. Its wrong name counts as
// damage. Where a volume ends, the next one's header says, with its id, so no
// other volume is cut there. The cursor is kept with the id of its volume; it
// is disbelieved if that volume is another, or is gone although older ones
// are there. Files of other names than volumes have are left alone.
//
// # A second hub
//
// The folder is locked (flock) as long as a hub has it. A second Open fails
// at once with ErrLocked, names the process, and changes nothing. A network
// filesystem without flock does not give that.
//
// # Space
//
// Volumes take at most Options.MaxBytes; a volume is allocated before it is
// used, so an Append into one that is open needs no new space. Append refuses
// with "spool_full" when no further volume fits or less than two would be
// free on the disk, and accepts again by itself, tried every second. What is
// acknowledged and not shipped is never dropped for space. Shipped volumes
// stay for Options.Keep, less where Options.KeepBytes or
// [Stats].NearlyFull say so. A ballast file of 4 MiB (or one volume, if that
// is less) is given up when a state file must be written to a full disk, so
// that the cursor can move and room be made; it comes back with space.
//
// # What is not promised
//
// An Append that returned an error may still be found after a crash, if the
// process died before it could open the next volume; one whose context ended
// may be found at any time. A second copy of the disk is not kept: bytes that
// rot are not repaired. If the last group before a crash rots as well, that
// cannot be told from a torn write, nor can records at the end of the newest
// volume that somebody cut off at a frame, or a newest volume that is gone.
// Nor can the oldest volumes be missed when the cursor is gone with them.
// Volumes of two lives of one spool, mixed in one folder after one of them
// was restored, may lose what the longer life wrote into a volume that both
// share; restore a folder as a whole. received_at never goes back, so it
// stands still while the clock is behind.
package spool
