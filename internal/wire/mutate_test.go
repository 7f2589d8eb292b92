package wire

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"felhom.eu/hub/internal/hub"
)

// TestMutatedReports is the fuzz target's short form, the same in every run: each
// seed, a thousand times damaged in a few places. Whatever it is, it is refused as
// invalid or accepted, and costs memory in proportion to its size.
func TestMutatedReports(t *testing.T) {
	seeds := [][]byte{golden(t, "host-report.golden.json"), golden(t, "host-report.full.json"), twelveGuests()}
	for _, c := range refusedReports {
		seeds = append(seeds, []byte(c.body))
	}
	random := rand.New(rand.NewPCG(4, 23))
	accepted := 0
	var before, after runtime.MemStats
	for n := range 1000 {
		for _, seed := range seeds {
			body := mutate(random, seed)
			sampled := n%100 == 0
			if sampled {
				runtime.ReadMemStats(&before)
			}
			_, err := DecodeReport(body, received)
			if sampled {
				runtime.ReadMemStats(&after)
				if took, most := after.TotalAlloc-before.TotalAlloc, uint64(64<<10+20*len(body)); took > most {
					t.Errorf("%d bytes of memory for %d bytes: %s", took, len(body), body)
				}
			}
			if err == nil {
				accepted++
			} else if hub.CodeOf(err) != hub.Invalid {
				t.Fatalf("%v for %q", err, body)
			}
		}
	}
	if accepted < 100 {
		t.Errorf("only %d of the mutants were accepted: they are too wild to tell anything", accepted)
	}
}

// mutate changes, removes, doubles or inserts bytes in up to four places.
func mutate(random *rand.Rand, seed []byte) []byte {
	const telling = `{}[]",:\0-eun 1` + "\xff\xed"
	body := append([]byte(nil), seed...)
	for range 1 + random.IntN(4) {
		if len(body) == 0 {
			break
		}
		at := random.IntN(len(body))
		end := min(len(body), at+1+random.IntN(16))
		switch random.IntN(4) {
		case 0:
			body[at] = telling[random.IntN(len(telling))]
		case 1:
			body = append(body[:at:at], body[end:]...)
		case 2:
			body = append(body[:end:end], body[at:]...)
		default:
			body = append(body[:at:at], append([]byte{telling[random.IntN(len(telling))]}, body[at:]...)...)
		}
	}
	return body
}
