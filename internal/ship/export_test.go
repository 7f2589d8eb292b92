package ship

import (
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
)

// Learn makes replays read records of a kind as host reports: a newer hub.
func (s *Shipper) Learn(kind hub.RecordKind) {
	s.decode = func(e spool.Entry) entry {
		if e.Kind == kind {
			e.Kind = hub.KindHostReport
		}
		return decode(e)
	}
}

// WaitForReplay sets how long a replay waits for the end of the cut under way.
func (s *Shipper) WaitForReplay(d time.Duration) { s.replayWait = d }
