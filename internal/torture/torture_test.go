package torture

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"felhom.eu/hub/internal/engine/enginetest"
)

// The short form of make torture: a few rounds of the faults that matter most.
func TestTorture(t *testing.T) {
	enginetest.Need(t)
	bin := t.TempDir()
	for _, name := range []string{"hub", "hub-engine"} {
		build := exec.Command("go", "build", "-o", bin, "felhom.eu/hub/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", name, err, out)
		}
	}
	for _, short := range []struct {
		fault  string
		rounds int
	}{
		{"kill-hub", 2}, {"kill-both", 1}, {"cut", 1}, {"refuse-252", 2}, {"damage", 2}, {"restored-spool", 1},
	} {
		t.Run(short.fault, func(t *testing.T) {
			t.Parallel() // each waits most of the time
			all := Faults()
			i := slices.IndexFunc(all, func(f Fault) bool { return f.Name == short.fault })
			var out bytes.Buffer
			err := Run(t.Context(), Options{
				Bin: bin, Dir: t.TempDir(), Faults: all[i : i+1], Rounds: short.rounds,
				Seed: uint64(time.Now().UnixNano()), Floor: 30, Rate: 300, Out: &out,
			})
			t.Logf("\n%s", &out)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func knownStand(reports ...report) *stand {
	s := &stand{ledger: newLedger(), excused: map[uint64]bool{}}
	for _, r := range reports {
		s.ledger.acknowledged(digest{byte(r.id)}, r, time.Now())
	}
	return s
}

// The judge finds what is lost and what is doubled; a harness that cannot is
// worth nothing.
func TestJudgeRow(t *testing.T) {
	known := report{id: 7, host: "acme-1", guests: 2, items: 1}
	good := row{sum: digest{7}, bodySum: digest{7}, host: "acme-1", bodies: 1, guestTotal: 2, guests: 2, itemTotal: 1, items: 1}
	change := func(f func(*row)) row {
		r := good
		f(&r)
		return r
	}
	for name, c := range map[string]struct {
		rows          []row
		lost, doubled int
	}{
		"once":               {[]row{good}, 0, 0},
		"twice":              {[]row{good, good}, 0, 1},
		"never acknowledged": {[]row{good, change(func(r *row) { r.sum = digest{8} })}, 0, 1},
		"another body":       {[]row{change(func(r *row) { r.bodySum = digest{8} })}, 1, 0},
		"no body":            {[]row{change(func(r *row) { r.bodies = 0 })}, 1, 0},
		"two bodies":         {[]row{change(func(r *row) { r.bodies = 2 })}, 0, 1},
		"another host":       {[]row{change(func(r *row) { r.host = "acme-2" })}, 1, 0},
		"a guest short":      {[]row{change(func(r *row) { r.guests = 1 })}, 1, 0},
		"guests twice":       {[]row{change(func(r *row) { r.guests = 4 })}, 0, 1},
		"an item short":      {[]row{change(func(r *row) { r.items = 0 })}, 1, 0},
		"an item twice":      {[]row{change(func(r *row) { r.items = 2 })}, 0, 1},
	} {
		s, v, seen := knownStand(known), &verdict{}, map[digest]bool{}
		for _, r := range c.rows {
			s.judgeRow(v, r, seen)
		}
		if v.lost != c.lost || v.doubled != c.doubled || len(v.places) != c.lost+c.doubled {
			t.Errorf("%s: %d lost, %d doubled, %q", name, v.lost, v.doubled, v.places)
		}
	}
}

func TestJudgeMissing(t *testing.T) {
	s := knownStand(report{id: 1}, report{id: 2}, report{id: 3}, report{id: 3})
	s.excused[2] = true
	v := &verdict{}
	s.judgeMissing(v, map[digest]bool{{1}: true})
	if v.acknowledged != 3 || v.again != 1 || v.excused != 1 || v.lost != 1 || v.doubled != 0 {
		t.Errorf("%+v", v)
	}
}

// A run under the floor fails, however well it went.
func TestFloor(t *testing.T) {
	for _, c := range []struct {
		rate   float64
		failed bool
	}{{999, true}, {1001, false}} {
		l := line{floor: 1000, rate: c.rate, verdict: &verdict{}}
		if l.judge(); (l.err != nil) != c.failed {
			t.Errorf("rate %.0f: %v", c.rate, l.err)
		}
	}
}

func TestInsertWatch(t *testing.T) {
	query := append([]byte("\x01 INSERT INTO `host_reports` (host_id) VALUES \x02\x00checksumchecksum"), emptyBlock...)
	data := []byte("\x02\x00 some columns")
	end := append([]byte("\x02\x00checksumchecksum"), emptyBlock...)
	var w insertWatch
	for i, step := range []struct {
		piece        []byte
		begun, ended bool
	}{
		{append([]byte("\x01 SELECT 1 \x02\x00checksumchecksum"), emptyBlock...), false, false},
		{query, true, false}, {data, false, false}, {end[:20], false, false}, {end[20:], false, true},
		{query[:40], true, false}, {query[40:], false, false}, {end, false, true}, {end, false, false},
	} {
		if begun, ended := w.see(step.piece); begun != step.begun || ended != step.ended {
			t.Errorf("piece %d: begun %t, ended %t", i, begun, ended)
		}
	}
}

// The damager finds the reports of a volume by itself, and knows what it costs.
func TestDamager(t *testing.T) {
	dir := t.TempDir()
	file := make([]byte, volumeHeader)
	for id := range uint64(4) {
		file = append(file, "\xffFR1 a frame's header "...)
		file = appendID(append(file, `{"host_id":"acme-1"}`...), id+1)
	}
	end := len(file)
	file = append(file, make([]byte, 4096)...) // preallocated
	if err := os.WriteFile(dir+"/000000000001.vol", file, 0o600); err != nil {
		t.Fatal(err)
	}
	d := damager{dir: dir, shipped: 2}
	records, err := d.records()
	if err != nil || len(records) != 4 || records[0].from != volumeHeader || records[3].to != int64(end) || records[3].id != 4 {
		t.Fatalf("%+v, %v", records, err)
	}
	d.destroy(records, records[0].file, records[1].from, records[2].from+1)
	if !slices.Equal(d.destroyed, []uint64{3}) || !d.loud {
		t.Errorf("destroyed %d", d.destroyed)
	}
}
