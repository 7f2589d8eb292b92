package audit

import (
	"iter"
	"slices"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// contents is what a spool holds, without the records.
type contents struct {
	spool.Inspection
	groups []*group
	newest time.Time // received_at of the newest record
}

// group is the records of one volume and hour. received_at never goes back, so
// they follow one another.
type group struct {
	volume   uint64
	id       hub.SpoolID
	hour     time.Time
	from, to time.Time
	runs     []run
	wants    map[uint64]*want // of records that are no reports of hosts
}

// run is sequence numbers without a hole, both ends included.
type run struct{ first, last uint64 }

// want is how many rows a record has in each table; nil: it is a report of a host.
type want map[string]uint64

// controllerReport stands for every report of a controller: like a host's it says
// itself what belongs to it, and there are many.
var controllerReport = new(want)

func readSpool(fsys spool.FS) (c contents, err error) {
	c.Inspection, err = spool.Inspect(fsys, c.add)
	return c, err
}

func (c *contents) add(e spool.Entry) {
	hour := e.ReceivedAt.Truncate(time.Hour)
	var g *group
	if n := len(c.groups); n > 0 {
		g = c.groups[n-1]
	}
	if g == nil || g.volume != e.Start.Volume || !g.hour.Equal(hour) {
		g = &group{volume: e.Start.Volume, id: e.SpoolID, hour: hour, from: e.ReceivedAt, wants: map[uint64]*want{}}
		c.groups = append(c.groups, g)
	}
	g.to, c.newest = e.ReceivedAt, e.ReceivedAt
	if n := len(g.runs); n > 0 && g.runs[n-1].last+1 == e.Seq {
		g.runs[n-1].last = e.Seq
	} else {
		g.runs = append(g.runs, run{e.Seq, e.Seq})
	}
	switch e.Kind {
	case hub.KindHostReport:
	case hub.KindControllerReport:
		g.wants[e.Seq] = controllerReport
	default:
		w := wantOf(e)
		g.wants[e.Seq] = &w
	}
}

// wantOf reads what is not a report. What this hub cannot read goes to
// rejected_reports.
func wantOf(e spool.Entry) want {
	switch e.Kind {
	case hub.KindDecision:
		if d, err := wire.DecodeDecision(e.Body); err == nil {
			return want{"switch_state": uint64(len(d.States)), "deadline_state": uint64(len(d.Deadlines)), "events": uint64(len(d.Events))}
		}
	case hub.KindNotice:
		if n, err := wire.DecodeNotice(e.Body); err == nil {
			return want{"fleet_commits": uint64(len(n.Commits)), "events": uint64(len(n.Events))}
		}
	case hub.KindControllerEvent:
		if _, err := wire.DecodeControllerEvent(e.Body); err == nil {
			return want{"events": 1}
		}
	case hub.KindBlind:
		if _, err := wire.DecodeBlind(e.Body); err == nil {
			return want{"hub_blind": 1}
		}
	case hub.KindDelivery:
		if d, err := wire.DecodeDispatch(e.Body); err == nil {
			return want{"notifications": uint64(len(d.Deliveries))}
		}
	}
	return want{"rejected_reports": 1}
}

func (c *contents) has(id hub.SpoolID) bool {
	return slices.ContainsFunc(c.Volumes, func(v spool.VolumeInfo) bool { return v.ID == id })
}

func (g *group) chunks() iter.Seq[clickhouse.Range] {
	return chunks(clickhouse.Range{SpoolID: g.id, First: g.runs[0].first, Last: g.runs[len(g.runs)-1].last})
}

// seqs yields the records of the group within a range.
func (g *group) seqs(r clickhouse.Range) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, run := range g.runs {
			for seq := max(run.first, r.First); seq <= min(run.last, r.Last); seq++ {
				if !yield(seq) {
					return
				}
			}
		}
	}
}

// chunks cuts a range into parts of at most chunkSize.
func chunks(r clickhouse.Range) iter.Seq[clickhouse.Range] {
	return func(yield func(clickhouse.Range) bool) {
		for first := r.First; first <= r.Last; first += chunkSize {
			if !yield(clickhouse.Range{SpoolID: r.SpoolID, First: first, Last: min(r.Last, first+chunkSize-1)}) {
				return
			}
		}
	}
}
