package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"felhom.eu/hub/internal/hub"
)

// What ails the hub itself, its operators are told of by a way on which there is no
// ClickHouse. It goes by the machine's clock, as all that only waits for others.

const ailmentsState = "ailments" // in the spool's folder

var (
	ailmentLook  = 10 * time.Second // between two looks; tests have shorter ones
	awayAfter    = 10 * time.Minute // that ClickHouse takes nothing, before operators are told
	ailmentCalms = 10 * time.Minute // without a sign until what was told is over, and may be told again
)

// ailment is one trouble that the hub can have.
type ailment struct {
	kind  hub.EventType
	after func() time.Duration // how long its signs last before it is told
	signs func(*App) (why string, known bool)
}

var ailments = []ailment{
	{hub.ClickHouseAway, func() time.Duration { return awayAfter }, (*App).clickhouseAway},
	{hub.SpoolHigh, func() time.Duration { return 0 }, (*App).spoolHigh},
}

// clickhouseAway says why ClickHouse takes nothing. It is not known before the first
// attempt.
func (a *App) clickhouseAway() (why string, known bool) {
	why = a.databaseError()
	return why, why != "" || a.prepared()
}

// spoolHigh tells of a spool that will soon refuse reports.
func (a *App) spoolHigh() (why string, known bool) {
	if s := a.spool.Stats(); s.NearlyFull {
		const mebi = 1 << 20
		why = fmt.Sprintf("%d of %d MiB are taken, and %d records wait for ClickHouse", s.DiskBytes/mebi, s.MaxBytes/mebi, s.UnshippedRecords)
	}
	return why, true
}

// course is how far an ailment has gone. It outlives a restart, so that one trouble is
// one event, with one id.
type course struct {
	Since  time.Time `json:"since"` // when the signs began
	Told   bool      `json:"told,omitzero"`
	Better time.Time `json:"better,omitzero"` // since when there are none, of one that was told
}

// next returns what becomes of a course at now; nil: nothing is left of it. tell means
// that the operators must be told.
func (c *course) next(now time.Time, ill bool, after time.Duration) (next *course, tell bool) {
	switch {
	case c == nil && !ill:
		return nil, false
	case c == nil:
		c = &course{Since: now}
	case !ill && (!c.Told || !c.Better.IsZero() && now.Sub(c.Better) >= ailmentCalms):
		return nil, false
	case !ill && c.Better.IsZero():
		return &course{Since: c.Since, Told: true, Better: now}, false
	case !ill:
		return c, false
	}
	return &course{Since: c.Since, Told: c.Told}, !c.Told && now.Sub(c.Since) >= after
}

// watchSelf looks for ailments until ctx ends.
func (a *App) watchSelf(ctx context.Context) {
	courses := a.readCourses()
	for sleep(ctx, ailmentLook) {
		now := a.slot()
		for _, ail := range ailments {
			why, known := ail.signs(a)
			if !known {
				continue
			}
			before := courses[ail.kind]
			next, tell := before.next(now, why != "", ail.after())
			if tell {
				next.Told = a.tellAilment(ail, next.Since, now, why)
			}
			courses[ail.kind] = next
			if next == nil {
				delete(courses, ail.kind)
			}
			if (before == nil) != (next == nil) || next != nil && *before != *next {
				a.keepCourses(courses)
			}
		}
	}
}

// tellAilment makes the event durable, and reports whether it is.
func (a *App) tellAilment(ail ailment, since, now time.Time, why string) bool {
	since = since.UTC().Truncate(time.Millisecond)
	a.log.Error("the hub is in trouble, and tells its operators", "type", string(ail.kind), "since", since, "reason", why)
	err := a.announce(hub.Notice{Events: []hub.Event{{
		ID: hub.FleetEventID(ail.kind, since.Format(time.RFC3339Nano)), Type: ail.kind, At: since.Add(ail.after()), DetectedAt: now,
		Reason: why, Source: "hub",
	}}})
	if err != nil {
		a.log.Error("the trouble could not be told; it is tried again", "error", err)
	}
	return err == nil
}

func (a *App) readCourses() map[hub.EventType]*course {
	courses := map[hub.EventType]*course{}
	data, err := a.spool.ReadState(ailmentsState)
	if err == nil {
		err = json.Unmarshal(data, &courses)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("what the operators were told of the hub's troubles is forgotten, and may be told again", "error", err)
	}
	return courses
}

func (a *App) keepCourses(courses map[hub.EventType]*course) {
	data, err := json.Marshal(courses)
	if err == nil {
		err = a.spool.WriteState(ailmentsState, data)
	}
	if err != nil {
		a.log.Warn("what the operators were told of the hub's troubles could not be written down", "error", err)
	}
}
