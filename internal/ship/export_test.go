package ship

import (
	"errors"
	"fmt"
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

var errBehind = errors.New("ClickHouse does not have everything yet")

// Visible returns nil when everything acknowledged up to t, and everything that
// an earlier run of the hub left, is in ClickHouse, and is still there if the
// server restarted since.
func (s *Shipper) Visible(t time.Time) error {
	st := s.o.Spool.Stats()
	switch {
	case s.Status().Rechecking:
		return fmt.Errorf("%w: after its restart it is asked for all that the spool keeps", errBehind)
	case st.Inherited > 0:
		return fmt.Errorf("%w: records of an earlier run are being shipped", errBehind)
	case !st.OldestUnshipped.IsZero() && !st.OldestUnshipped.After(t):
		return fmt.Errorf("%w: a record waits since %s", errBehind, st.OldestUnshipped.Format(time.RFC3339))
	}
	return nil
}
