package spool

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// TestManyAreSyncedTogether: as long as many append at a time, a sync is for many
// of them, also on a disk that syncs at once. The clock is the bubble's: gathering
// ends early only when nobody can come.
func TestManyAreSyncedTogether(t *testing.T) {
	const appenders, each = 2 * crowd, 40
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		o := small(d)
		o.VolumeBytes = 1 << 20
		s := open(t, o)
		release := d.hold(t)
		for i := range appenders {
			go func() {
				for n := range each {
					if _, err := appendAll(s, strconv.Itoa(i*each+n)); err != nil {
						t.Error(err)
					}
				}
			}()
			synctest.Wait() // the first is at the gate, the others behind it
		}
		release()
		time.Sleep(time.Second)
		if syncs := count(d, opSync); syncs > appenders*each/(crowd/2) {
			t.Errorf("%d syncs for %d records", syncs, appenders*each)
		}
	})
}

// TestNobodyGathersForLong: where the crowd does not come back, the committer goes
// on without it.
func TestNobodyGathersForLong(t *testing.T) {
	s := open(t, small(newDisk()))
	began := time.Now()
	s.gather(1000)
	if took := time.Since(began); took < gatherTime/2 {
		t.Errorf("gathered for %v", took)
	}
	mustAppend(t, s, "alone")
}

func count(d *disk, kind opKind) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.journal {
		if o.kind == kind {
			n++
		}
	}
	return n
}
