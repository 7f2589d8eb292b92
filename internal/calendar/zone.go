package calendar

import "time"

// instant returns when a clock on the wall of zone shows what a clock in UTC
// shows at the Unix time wall; the result is Unix time too.
//
// A time that the clocks show twice means the first of the two. One that they
// skip is read with the offset from before the change: 02:30 in the night in
// which 02:00 is followed by 03:00 is 03:30. Both are RFC 5545's rules for a
// time (3.3.5). Its rule for an occurrence (3.3.10) would leave the skipped one
// out, and the switch would call people in the one night of the year whose
// maintenance has no window.
func instant(wall int64, zone *time.Location) int64 {
	const farthest = 26 * 60 * 60 // no offset, and no change of one, is larger
	before := 0
	for t := wall - farthest; ; {
		local := time.Unix(t, 0).In(zone)
		_, offset := local.Zone()
		start, end := local.ZoneBounds()
		at := wall - int64(offset)
		if end.IsZero() || at < end.Unix() {
			if !start.IsZero() && at < start.Unix() && t != wall-farthest {
				return wall - int64(before) // skipped
			}
			return at
		}
		before, t = offset, end.Unix()
	}
}
