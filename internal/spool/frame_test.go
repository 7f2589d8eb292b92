package spool

import (
	"bytes"
	"testing"

	"felhom.eu/hub/internal/hub"
)

func sealed(t testing.TB, seq uint64, id hub.SpoolID, records ...Record) []byte {
	t.Helper()
	b, err := appendFrame(nil, records)
	if err != nil {
		t.Fatal(err)
	}
	seal(b, seq, 1700000000000, headerLen, id)
	return b
}

// FuzzScanner: whatever the bytes are, the scanner ends, and the frames and
// the ranges between them are all of the file, in order.
func FuzzScanner(f *testing.F) {
	id := hub.SpoolID{1}
	one := sealed(f, 1, id, report("one"))
	two := sealed(f, 2, id, report("two"), report("three"))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0}, 1000))
	f.Add(bytes.Repeat([]byte(frameMagic), 100))
	f.Add(one)
	f.Add(append(bytes.Clone(one), two...))
	f.Add(append(append([]byte("junk"), one...), two[:len(two)-1]...))
	f.Add(append(one[:20:20], two...))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, reuse := range []bool{false, true} {
			sc := scanner{file: bytes.NewReader(data), limit: int64(len(data)), reuse: reuse}
			at := int64(0)
			for {
				fr, bad, ok := sc.next()
				if bad.from != at || bad.to < bad.from {
					t.Fatalf("at %d a bad range %+v", at, bad)
				}
				if at = bad.to; !ok {
					break
				}
				if fr.offset != at || fr.size < frameHeaderLen+recordHeaderLen || fr.count < 1 {
					t.Fatalf("at %d a frame at %d of %d bytes with %d records", at, fr.offset, fr.size, fr.count)
				}
				at += fr.size
				if got := bytes.Clone(data[fr.offset:at]); !bytes.Equal(got[frameHeaderLen:], fr.payload) {
					t.Fatal("the payload is not what the file holds")
				}
				for fr.count > 0 {
					if e := fr.next(); len(e.Body)+len(e.HostID)+len(e.CustomerID)+len(e.KeyID) > len(data) {
						t.Fatal("a record is larger than the file")
					}
				}
				if len(fr.payload) != 0 {
					t.Fatal("bytes are left behind the last record")
				}
			}
			if at != int64(len(data)) {
				t.Fatalf("the scanner ended at %d of %d", at, len(data))
			}
		}
	})
}

func TestFramesAcrossTheReadBuffer(t *testing.T) {
	id := hub.SpoolID{7}
	var file []byte
	var want []string
	for i := 0; len(file) < 5*readSize; i++ {
		body := string(bytes.Repeat([]byte{'a' + byte(i%26)}, i*i*37%(readSize/2)))
		want = append(want, body)
		file = append(file, sealed(t, uint64(i+1), id, report(body))...)
	}
	for _, reuse := range []bool{false, true} {
		sc := scanner{file: bytes.NewReader(file), id: id, limit: int64(len(file)), reuse: reuse}
		var frames []frame
		for i := range want {
			f, bad, ok := sc.next()
			if !ok || !bad.empty() {
				t.Fatalf("frame %d: %v, bad %+v", i, ok, bad)
			}
			if reuse {
				if e := f.next(); string(e.Body) != want[i] {
					t.Fatalf("frame %d has another body", i)
				}
			} else {
				frames = append(frames, f)
			}
		}
		for i := range frames { // without reuse all stay valid
			if e := frames[i].next(); string(e.Body) != want[i] {
				t.Fatalf("frame %d was overwritten", i)
			}
		}
	}
}
