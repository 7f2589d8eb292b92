package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Record is what the spool keeps for its caller.
type Record struct {
	Kind                      hub.RecordKind
	HostID, CustomerID, KeyID string // at most 255 bytes each
	Body                      []byte // at most MaxBody
}

// Entry is a record that is durable, and where it lies.
type Entry struct {
	Record
	hub.Receipt
	Start, End Cursor // right before and right after this record
}

// Options configures a Spool. Only Dir (or FS) is required.
type Options struct {
	Dir string // made (0700) where it is not there; one process at a time
	FS  FS     // in place of Dir

	MaxBytes    int64         // bytes on disk, unshipped and kept; default 8 GiB
	VolumeBytes int64         // size at which a volume is closed; default 256 MiB, at most MaxBytes/8
	VolumeAge   time.Duration // age at which a volume is closed; default 1 h
	Keep        time.Duration // how long shipped volumes stay, counted from when they were shipped or from Open; default 24 h
	KeepBytes   int64         // bytes of shipped volumes above which the oldest goes earlier; default MaxBytes/4

	Now    func() time.Time // default time.Now
	Logger *slog.Logger     // default slog.Default

	// Recovered is called during Open for every readable record of every kept
	// volume, shipped ones included, in order. The body is valid during the
	// call only.
	Recovered func(Entry)
	// BeforeRemove must return nil before shipped volumes are removed. It is
	// called from a goroutine of the spool, maybe before Open returns, and may
	// use the spool.
	BeforeRemove func() error

	tend time.Duration // how often to try again after a failure; tendInterval, but in tests
}

func (o Options) withDefaults() (Options, error) {
	or := func(n *int64, def int64) {
		if *n == 0 {
			*n = def
		}
	}
	or(&o.MaxBytes, 8<<30)
	or(&o.VolumeBytes, 256<<20)
	or(&o.KeepBytes, o.MaxBytes/4)
	or((*int64)(&o.VolumeAge), int64(time.Hour))
	or((*int64)(&o.Keep), int64(24*time.Hour))
	o.VolumeBytes = min(o.VolumeBytes, o.MaxBytes/8)
	or((*int64)(&o.tend), int64(tendInterval))
	if o.VolumeBytes < headerLen || o.KeepBytes < 0 || o.VolumeAge < 0 || o.Keep < 0 {
		return o, errors.New("sizes and durations must be positive")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	var err error
	switch {
	case o.FS != nil:
	case o.Dir == "":
		err = errors.New("no folder is named")
	default:
		o.FS, err = openDir(o.Dir)
	}
	return o, err
}

// Spool is an open spool. Its methods may be called from many goroutines.
type Spool struct {
	opts Options
	fs   FS
	log  *slog.Logger
	lock io.Closer

	requests sync.Pool // of *request
	wake     chan struct{}
	gathered chan struct{} // awaited requests are in queue
	sweep    chan struct{}
	stop     chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex
	queue    []*request
	queued   int64 // bytes in queue
	awaited  int   // requests for which the committer waits; 0: for none
	closed   bool
	volumes  []*volume // in the order of ordinals; only the last may be active
	leaving  *volume   // shipped, unknown to readers, not deleted yet
	cursor   Cursor
	oldest   int64 // received_at of the first record behind cursor; 0: there is none
	writing  int64 // received_at of the group being written; 0: none is
	lastAt   int64 // newest received_at given out
	lastSync time.Time
	damage   []Damage
	free     int64 // bytes free on the disk when it was last asked, at the latest a tend ago
	refusing *hub.Error
	changed  chan struct{} // nil while nobody waits

	advanceMu sync.Mutex // one Advance at a time
	stateMu   sync.Mutex // one state file at a time
	sweepMu   sync.Mutex // one removal at a time

	inherited uint64 // volumes up to this one were there at Open
	cursorErr error  // why Open found no cursor

	committer committer
}

// Open reads the spool in opts.Dir, or begins one, and takes it for this
// process. Damage does not keep it from opening: it is counted, logged and
// passed over. It fails with ErrLocked when another process has the folder,
// with ErrNewer when a newer hub wrote it, and when the folder cannot be used
// at all.
func Open(opts Options) (*Spool, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	lock, err := opts.FS.Lock()
	if err != nil {
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	s := &Spool{
		opts: opts, fs: opts.FS, log: opts.Logger, lock: lock,
		wake: make(chan struct{}, 1), gathered: make(chan struct{}, 1), sweep: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	s.requests.New = func() any { return &request{done: make(chan struct{}, 1)} }
	if err := s.recover(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open the spool: %w", err)
	}
	_, _ = s.askFree() // an error shows when a volume is to be opened
	s.running.Go(s.commitLoop)
	s.running.Go(s.sweepLoop)
	return s, nil
}

// Append keeps the records: when it returns nil they are on the disk, and will
// be read in this order. Records of one Append are kept together or not at
// all, and have the same received_at. Nothing of records is referred to after
// the return.
//
// Errors are *hub.Error: Unavailable with the reason "disk_failed",
// "spool_full", "spool_busy" or "stopping" (nothing was stored; the same
// Append may succeed a second later), TooLarge, Invalid. When ctx ends first,
// Append returns its error, and the records may be stored or not.
func (s *Spool) Append(ctx context.Context, records ...Record) ([]hub.Receipt, error) {
	if err := ctx.Err(); err != nil || len(records) == 0 {
		return nil, err
	}
	r := s.requests.Get().(*request)
	if err := r.encode(records); err != nil {
		return nil, err
	}
	if err := s.enqueue(r); err != nil {
		return nil, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err() // the committer may still hold r: it is not used again
	}
	if r.err != nil {
		return nil, r.err
	}
	receipts := make([]hub.Receipt, len(records))
	for i := range receipts {
		receipts[i] = r.first
		receipts[i].Seq += uint64(i)
	}
	if cap(r.frame) <= maxPooledFrame {
		s.requests.Put(r)
	}
	return receipts, nil
}

// Inherited reports whether the volume was there at Open: its records were
// appended, and maybe shipped, by an earlier process.
func (s *Spool) Inherited(volume uint64) bool { return volume <= s.inherited }

// Changed returns a channel that is closed at the next commit. Take it before
// reading to the end, so that no commit is missed.
func (s *Spool) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Cursor returns the place before which everything is shipped.
func (s *Spool) Cursor() Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor
}

// Advance moves the cursor forward to the End of an Entry, durably. From then
// on volumes that lie wholly before it may be removed, after Options.Keep.
func (s *Spool) Advance(to Cursor) error {
	s.advanceMu.Lock()
	defer s.advanceMu.Unlock()
	id, err := s.checkAdvance(to)
	if err != nil {
		return err
	}
	if err := s.writeState(cursorName, append(to.encode(), id[:]...)); err != nil {
		return err
	}
	for end := s.end(); !s.moveCursor(to, s.firstSince(to), end); {
		end = s.end()
	}
	s.kickSweep()
	return nil
}

// checkAdvance returns the id of the volume that to lies in.
func (s *Spool) checkAdvance(to Cursor) (id hub.SpoolID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearchFunc(s.volumes, to.Volume, byOrdinal)
	if to.before(s.cursor) || !found || to.Offset > s.volumes[i].length || to.Seq > s.volumes[i].next {
		return id, fmt.Errorf("the spool's cursor cannot move from %+v to %+v: not the end of a later record", s.cursor, to)
	}
	return s.volumes[i].id, nil
}

func byOrdinal(v *volume, ordinal uint64) int {
	switch {
	case v.ordinal < ordinal:
		return -1
	case v.ordinal > ordinal:
		return 1
	}
	return 0
}

// firstSince returns received_at of the first record behind c, 0 where there
// is none.
func (s *Spool) firstSince(c Cursor) int64 {
	r := s.Reader(c)
	defer r.Close()
	e, ok, err := r.Next()
	switch {
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.oldest // older than the truth: the careful side
	case !ok:
		return 0
	}
	return e.ReceivedAt.UnixMilli()
}

// end returns where the newest volume ends now.
func (s *Spool) end() bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked()
}

func (s *Spool) endLocked() bound {
	if len(s.volumes) == 0 {
		return bound{}
	}
	return s.volumes[len(s.volumes)-1].bound()
}

// moveCursor sets the cursor and what hangs on it. It returns false when
// nothing was found behind the cursor but records were committed since the
// spool ended at end.
func (s *Spool) moveCursor(to Cursor, oldest int64, end bound) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if oldest == 0 && s.endLocked() != end {
		return false
	}
	s.cursor, s.oldest = to, oldest
	s.markShipped()
	return true
}

// unshipped counts the records and bytes behind c. s.mu is held.
func (s *Spool) unshipped(c Cursor) (records, size int64) {
	for _, v := range slices.Backward(s.volumes) {
		if v.ordinal < c.Volume {
			break
		}
		records += v.recordsSince(c)
		from := int64(headerLen)
		if v.ordinal == c.Volume {
			from = max(from, c.Offset)
		}
		size += max(0, v.length-from)
	}
	return records, size
}

// Stats are the spool's gauges, taken at one instant.
//
// NearlyFull is true when less than a tenth of Options.MaxBytes or less than
// two volumes of it are left, or less than four volumes are free on the disk.
// Shipped volumes that were only kept go then, so it stays true only for
// what is not shipped, or for a BeforeRemove that says no. Append refuses
// later: when one volume of MaxBytes or two of the disk are left. The disk is
// asked once a second.
type Stats struct {
	UnshippedRecords int64     // records behind the cursor that can be read
	UnshippedBytes   int64     // bytes of volumes behind the cursor
	Inherited        int64     // of the unshipped records, those of volumes that were there at Open
	OldestUnshipped  time.Time // received_at of the first record behind the cursor, or of one that is being written; zero: there is none
	Volumes          int       // files
	DiskBytes        int64     // bytes they take on disk, shipped and preallocated ones included
	MaxBytes         int64     // Options.MaxBytes
	LastSync         time.Time // when a commit last reached the disk; zero: not since Open
	Damage           int       // damaged ranges found since Open; see Spool.Damage
	NearlyFull       bool      // little room is left; see above
	Refusing         string    // reason with which Append refuses now; "" when it does not
}

// Stats returns the gauges. It is cheap: no disk is asked.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Volumes: len(s.volumes), DiskBytes: s.diskBytes(), MaxBytes: s.opts.MaxBytes,
		LastSync: s.lastSync, Damage: len(s.damage), NearlyFull: s.nearlyFull(),
	}
	st.UnshippedRecords, st.UnshippedBytes = s.unshipped(s.cursor)
	for _, v := range s.volumes {
		if s.Inherited(v.ordinal) {
			st.Inherited += v.recordsSince(s.cursor)
		}
	}
	// A group that is being written is not readable yet, but its reports were
	// already received: whoever judges silence must wait for them.
	if at := cmp.Or(s.oldest, s.writing); at != 0 {
		st.OldestUnshipped = time.UnixMilli(at).UTC()
	}
	if s.refusing != nil {
		st.Refusing = s.refusing.Reason
	}
	return st
}

// nearlyFull is Stats.NearlyFull. s.mu is held.
func (s *Spool) nearlyFull() bool {
	left := s.opts.MaxBytes - s.diskBytes()
	return left < max(s.opts.MaxBytes/10, 2*s.opts.VolumeBytes) || s.free < 4*s.opts.VolumeBytes
}

// askFree asks the disk what is free and keeps the answer for nearlyFull.
func (s *Spool) askFree() (int64, error) {
	free, err := s.fs.Free()
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = free
	return free, nil
}

func (s *Spool) diskBytes() (sum int64) {
	for _, v := range s.volumes {
		sum += v.size
	}
	if s.leaving != nil {
		sum += s.leaving.size
	}
	return sum
}

// Damage returns every damaged range found since Open, in the order found.
func (s *Spool) Damage() []Damage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.damage)
}

// view returns the volume with this ordinal, else the next one that is there,
// and whether it is the last.
func (s *Spool) view(ordinal uint64) (v volume, last, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.volumes, ordinal, byOrdinal)
	if i == len(s.volumes) {
		return volume{}, false, false
	}
	return *s.volumes[i], i == len(s.volumes)-1, true
}

// noteBad counts a range that a reader had to pass over, and the sequence
// numbers that are missing with it, once.
func (s *Spool) noteBad(ordinal uint64, bad span, missing seqs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearchFunc(s.volumes, ordinal, byOrdinal)
	if !found || bad.from >= s.volumes[i].synced {
		return
	}
	if v := s.volumes[i]; s.addDamage(Damage{Volume: ordinal, From: bad.from, To: bad.to}) {
		missing.from = max(missing.from, v.first)
		v.lost = append(v.lost[:len(v.lost):len(v.lost)], missing)
	}
}

// addDamage is where damage becomes known; false when it was already. s.mu is
// held.
func (s *Spool) addDamage(d Damage) bool {
	if slices.Contains(s.damage, d) {
		return false
	}
	s.damage = append(s.damage, d)
	s.log.Error("the spool is damaged: acknowledged records were lost", "range", d.String(), "bytes", d.To-d.From)
	return true
}

// Close refuses further appends, finishes those that wait, closes the volume
// and lets the folder go. Calling it again does nothing.
func (s *Spool) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if !first {
		s.running.Wait()
		return nil
	}
	close(s.stop)
	s.running.Wait()
	return s.lock.Close()
}
