package ingest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/hub"
)

// remembered is how many accepted reports of a host are known by their bytes.
const remembered = 8

// sum is the first half of the SHA-256 of a body: 128 bits tell a host's own
// reports apart, and half a digest halves the memory.
type sum [16]byte

func sumOf(body []byte) sum {
	digest := sha256.Sum256(body)
	return sum(digest[:])
}

// accepted is one report that the spool holds or held.
type accepted struct {
	at  int64 // received_at, Unix milliseconds
	seq uint64
	sum sum
}

// newerFirst orders by the hub's clock, which never goes back: a sequence begins
// lower again where a disk lost the end of the spool.
func newerFirst(a, b accepted) int {
	return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(b.seq, a.seq), bytes.Compare(b.sum[:], a.sum[:]))
}

// history is what is known of one host: 288 bytes, whatever it sends.
type history struct {
	top     [remembered]accepted // newest first
	n       int
	spoolID hub.SpoolID // with top[0].seq: the position of the newest
}

// insert keeps the newest. It may be called in any order and twice
// with the same report: the outcome is the same.
func (h *history) insert(a accepted, spoolID hub.SpoolID) {
	i, known := slices.BinarySearchFunc(h.top[:h.n], a, newerFirst)
	if known || i == remembered {
		return
	}
	h.n = min(h.n+1, remembered)
	copy(h.top[i+1:h.n], h.top[i:])
	h.top[i] = a
	if i == 0 {
		h.spoolID = spoolID
	}
}

func (h *history) knows(s sum) bool {
	return slices.ContainsFunc(h.top[:h.n], func(a accepted) bool { return a.sum == s })
}

// recent is the index of each sender's newest accepted reports, by which a report
// sent again is recognised (I17). A sender is a host, or one of those in
// controllers.go; events stand apart from reports, so that they are no signs of life.
type recent struct {
	seed   maphash.Seed
	shards [64]shard

	mu  sync.Mutex
	new []string // guests whose controller was first heard since newcomers was called
}

type shard struct {
	mu      sync.Mutex
	hosts   map[string]*history
	flights map[flightKey]*flight
}

type flightKey struct {
	host string
	sum  sum
}

// flight is a report whose durability is being waited for.
type flight struct {
	done chan struct{} // nil while nobody else waits
	err  error         // may be read once done is closed
}

func newRecent() *recent {
	r := &recent{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].hosts = make(map[string]*history)
		r.shards[i].flights = make(map[flightKey]*flight)
	}
	return r
}

func (r *recent) shard(host string) *shard {
	return &r.shards[maphash.String(r.seed, host)%uint64(len(r.shards))]
}

var errUnfinished = errors.New("the append did not come to its end")

// once calls write, unless the same bytes are among the host's newest accepted
// reports: then it reports a retry. While write is under way, others with the
// same bytes wait for it and share its fate.
func (r *recent) once(ctx context.Context, host string, body []byte, write func() (hub.Receipt, error)) (retry bool, err error) {
	var (
		s   = r.shard(host)
		key = flightKey{host, sumOf(body)}
	)
	s.mu.Lock()
	if h := s.hosts[host]; h != nil && h.knows(key.sum) {
		s.mu.Unlock()
		return true, nil
	}
	if first, ok := s.flights[key]; ok {
		if first.done == nil {
			first.done = make(chan struct{})
		}
		s.mu.Unlock()
		select {
		case <-first.done:
			return true, first.err
		case <-ctx.Done():
			return false, errNotWaited
		}
	}
	own := &flight{err: errUnfinished}
	s.flights[key] = own
	s.mu.Unlock()

	var receipt hub.Receipt
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if own.err == nil {
			r.add(s, host, key.sum, receipt)
		}
		delete(s.flights, key)
		if own.done != nil {
			close(own.done)
		}
	}()
	receipt, own.err = write()
	return false, own.err
}

func (r *recent) insert(host string, body sum, receipt hub.Receipt) {
	s := r.shard(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.add(s, host, body, receipt)
}

// add must be called with the shard's lock held.
func (r *recent) add(s *shard, host string, body sum, receipt hub.Receipt) {
	h := s.hosts[host]
	if h == nil {
		h = new(history)
		host = strings.Clone(host) // it may be a part of something large
		s.hosts[host] = h
		r.firstHeard(host)
	}
	h.insert(accepted{receipt.ReceivedAt.UnixMilli(), receipt.Seq, body}, receipt.SpoolID)
}

func (r *recent) last(host string) (hub.Receipt, bool) {
	s := r.shard(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	if h == nil {
		return hub.Receipt{}, false
	}
	return hub.Receipt{
		Position:   hub.Position{SpoolID: h.spoolID, Seq: h.top[0].seq},
		ReceivedAt: time.UnixMilli(h.top[0].at).UTC(),
	}, true
}

// first returns received_at of the host's first report after an instant, and whether
// it is certain that none was before: one from until then is remembered.
func (r *recent) first(host string, after time.Time) (time.Time, bool) {
	s := r.shard(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	if h == nil {
		return time.Time{}, false
	}
	for i, a := range h.top[:h.n] {
		if a.at <= after.UnixMilli() {
			if i == 0 {
				return time.Time{}, false // nothing came after it
			}
			return time.UnixMilli(h.top[i-1].at).UTC(), true
		}
	}
	return time.Time{}, false
}

// A snapshot is the magic, then for each host, in the order of ids: size of the
// id 1, id, spool id 16, number of reports 1, and for each its received_at 8,
// sequence 8 and sum 16; at the end the CRC32C of everything before. All
// numbers are little endian. The magic's last byte is the format's version.
const (
	snapshotMagic = "felhom-recent\x002"
	checksumLen   = 4
	hostFixedLen  = 16 + 1
	acceptedLen   = 8 + 8 + 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *recent) snapshot() []byte {
	all := make(map[string]history)
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for host, h := range s.hosts {
			all[host] = *h
		}
		s.mu.Unlock()
	}
	b := []byte(snapshotMagic)
	for _, host := range slices.Sorted(maps.Keys(all)) {
		h := all[host]
		b = append(b, byte(len(host)))
		b = append(b, host...)
		b = append(b, h.spoolID[:]...)
		b = append(b, byte(h.n))
		for _, a := range h.top[:h.n] {
			b = binary.LittleEndian.AppendUint64(b, uint64(a.at))
			b = binary.LittleEndian.AppendUint64(b, a.seq)
			b = append(b, a.sum[:]...)
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (r *recent) restore(b []byte) error {
	if !bytes.HasPrefix(b, []byte(snapshotMagic)) || len(b) < len(snapshotMagic)+checksumLen {
		return errors.New("the snapshot of recent reports is not one that this hub reads")
	}
	b, check := b[:len(b)-checksumLen], b[len(b)-checksumLen:]
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(check) {
		return errors.New("the snapshot of recent reports is damaged: its checksum is wrong")
	}
	all := make(map[string]history)
	for b = b[len(snapshotMagic):]; len(b) > 0; {
		var (
			host string
			h    history
			err  error
		)
		if host, h, b, err = readHistory(b); err != nil {
			return err
		}
		all[host] = h
	}
	for host, h := range all {
		s := r.shard(host)
		s.mu.Lock()
		for i := range h.n {
			r.add(s, host, h.top[i].sum, hub.Receipt{
				Position:   hub.Position{SpoolID: h.spoolID, Seq: h.top[i].seq},
				ReceivedAt: time.UnixMilli(h.top[i].at),
			})
		}
		s.mu.Unlock()
	}
	return nil
}

func readHistory(b []byte) (host string, h history, rest []byte, err error) {
	short := fmt.Errorf("the snapshot of recent reports ends %d bytes into a host", len(b))
	size := int(b[0])
	if b = b[1:]; len(b) < size+hostFixedLen {
		return "", h, nil, short
	}
	host, b = string(b[:size]), b[size:]
	h.spoolID, h.n = hub.SpoolID(b[:16]), int(b[16])
	if b = b[hostFixedLen:]; h.n < 1 || h.n > remembered || len(b) < h.n*acceptedLen {
		return "", h, nil, short
	}
	for i := range h.n {
		h.top[i] = accepted{int64(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:]), sum(b[16:acceptedLen])}
		b = b[acceptedLen:]
	}
	return host, h, b, nil
}
