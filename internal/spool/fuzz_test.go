package spool

import (
	"bytes"
	"errors"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// FuzzFrame: what is encoded reads back, and nothing reads with a bit flipped.
func FuzzFrame(f *testing.F) {
	f.Add(byte(1), "h1", "acme", "k1", []byte("body"), uint64(1), int64(1700000000000), uint(0))
	f.Add(byte(0), "", "", "", []byte{}, uint64(0), int64(0), uint(63))
	f.Add(byte(255), "\xff\x00", frameMagic, "k", []byte(frameMagic), uint64(1<<63), int64(-1), uint(500))
	f.Fuzz(func(t *testing.T, kind byte, host, customer, key string, body []byte, seq uint64, at int64, flip uint) {
		want := Record{Kind: hub.RecordKind(kind), HostID: host, CustomerID: customer, KeyID: key, Body: body}
		b, err := appendFrame(nil, []Record{want, want})
		if err != nil {
			if hub.CodeOf(err) != hub.Invalid && hub.CodeOf(err) != hub.TooLarge {
				t.Fatalf("an error that is not documented: %v", err)
			}
			return
		}
		seq >>= 1 // the last number is never reached
		seal(b, seq, at, headerLen, hub.SpoolID{9})
		fr, ok := decodeFrame(b)
		if !ok || fr.count != 2 || fr.seq != seq || fr.at != at || fr.size != int64(len(b)) {
			t.Fatalf("reads back as %+v, %v", fr, ok)
		}
		for i := range uint64(2) {
			e := fr.next()
			if e.Seq != seq+i || e.Kind != want.Kind || e.HostID != host || e.CustomerID != customer || e.KeyID != key || !bytes.Equal(e.Body, body) {
				t.Fatalf("record %d reads back as %+v", i, e)
			}
		}
		b[flip/8%uint(len(b))] ^= 1 << (flip % 8)
		if _, ok := decodeFrame(b); ok {
			t.Fatal("a flipped bit was not found")
		}
	})
}

// FuzzDecodeFrame: no bytes panic, and none make it allocate: a frame refers
// to its input.
func FuzzDecodeFrame(f *testing.F) {
	one := sealed(f, 1, hub.SpoolID{1}, report("one"), report("two"))
	f.Add(one)
	f.Add(one[:frameHeaderLen])
	f.Add([]byte(frameMagic + "\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		reseal := bytes.Clone(data)
		if size, ok := frameSize(reseal); ok && size == len(reseal) { // else no checksum ever matches
			copy(reseal[8:], crcBytes(append(bytes.Clone(reseal[:8]), reseal[12:]...)))
		}
		for _, b := range [][]byte{data, reseal} {
			fr, ok := decodeFrame(b)
			if !ok {
				continue
			}
			read := 0
			for fr.count > 0 {
				e := fr.next()
				read += recordHeaderLen + len(e.HostID) + len(e.CustomerID) + len(e.KeyID) + len(e.Body)
			}
			if read+frameHeaderLen != len(b) {
				t.Fatalf("%d bytes of %d were read", read, len(b))
			}
		}
	})
}

// FuzzOpen: with any bytes as a volume a start succeeds, or refuses a newer
// format; it ends soon and takes little memory; only what verifies is read;
// and appending works on.
func FuzzOpen(f *testing.F) {
	d, _ := threeVolumes(f)
	volume := d.names[volumeName(1)].data
	f.Add(volume)
	f.Add(volume[:len(volume)-3])
	f.Add(volume[headerLen:])
	f.Add(append(bytes.Clone(volume), make([]byte, 5000)...))
	f.Add(append(bytes.Clone(volume), volume...))
	newer := bytes.Clone(volume)
	newer[8]++
	copy(newer[12:], crcBytes(newer[:12]))
	f.Add(newer)
	f.Add(bytes.Repeat([]byte(frameMagic), 200))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newDisk()
		d.names[volumeName(1)] = &inode{id: 1, data: bytes.Clone(data)}
		d.inodes = 1
		began := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := Open(Options{FS: d, MaxBytes: 1 << 30, VolumeBytes: 1 << 16, Logger: slog.New(slog.DiscardHandler)})
		runtime.ReadMemStats(&after)
		if err != nil {
			if !errors.Is(err, ErrNewer) || !bytes.Equal(d.names[volumeName(1)].data, data) {
				t.Fatalf("Open returned %v", err)
			}
			return
		}
		defer s.Close()
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("Open took %v", took)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20+64*uint64(len(data)) {
			t.Fatalf("Open allocated %d bytes for %d", n, len(data))
		}
		var old int
		for _, e := range readAllKinds(t, s, Cursor{}) {
			if !bytes.Contains(data, e.Body) {
				t.Fatalf("read %q, which the volume does not hold", e.Body)
			}
			old++
		}
		if n := s.Stats().UnshippedRecords; n != int64(old) {
			t.Fatalf("the gauge says %d records, there are %d", n, old)
		}
		mustAppend(t, s, "new")
		if e := readAllKinds(t, s, Cursor{}); len(e) != old+1 || string(e[old].Body) != "new" {
			t.Fatalf("after an append %d records are there, before %d", len(e), old)
		}
	})
}
