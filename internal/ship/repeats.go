package ship

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"math"
	"strings"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// repeats knows what reports repeat from the ones before, so that a list that did
// not change makes no rows. It holds for one run of the hub and of the server; the
// rows may be sent again at will (clickhouse.Repeatable), and are whenever in doubt.
type repeats struct {
	delivered map[string]digests // by host, or guest of a controller
	run       int                // grows when all is forgotten
}

// digests are of the sections of a report; 0: the section is empty.
type digests [clickhouse.Sections]uint64

// lists are what a report repeats of the one before.
type lists struct {
	sender  string // host, or guest of a controller
	digests digests
	items   int
	add     func(*clickhouse.Batch, clickhouse.Section, *clickhouse.Ahead)
}

func listsOf(row clickhouse.ReportRow) *lists {
	r := row.Report
	return &lists{r.HostID, digestsOf(r), len(r.Backups) + len(r.RestoreTests) + len(r.PBSSnapshots) + len(r.AuditTail),
		func(b *clickhouse.Batch, s clickhouse.Section, ahead *clickhouse.Ahead) { b.AddSection(s, row, ahead) }}
}

// backupOf is of a controller, which tells of its guest's newest backup alone.
func backupOf(row clickhouse.ControllerRow) *lists {
	r := row.Report
	if r.LastBackupAt == nil || r.GuestID == "" {
		return nil
	}
	l := &lists{sender: r.GuestID, items: 1,
		add: func(b *clickhouse.Batch, _ clickhouse.Section, ahead *clickhouse.Ahead) {
			b.AddControllerBackup(row, ahead)
		}}
	h := digest{}
	h.SetSeed(seed)
	h.times(*r.LastBackupAt)
	l.digests[clickhouse.BackupsSection] = h.of(1)
	return l
}

// maxRemembered is of how many hosts it is known what they repeat: some 20 MB.
const maxRemembered = 200_000

// forget is for a server that may have lost what was delivered.
func (r *repeats) forget() { r.delivered, r.run = nil, r.run+1 }

// news collects what some records, in their order, say beyond what was delivered.
func (r *repeats) news() *news { return &news{r, r.run, map[string]digests{}} }

// note settles that the rows of news are in ClickHouse.
func (r *repeats) note(n *news) {
	if n.run != r.run {
		return
	}
	if r.delivered == nil {
		r.delivered = map[string]digests{}
	}
	for host, d := range n.of {
		if _, known := r.delivered[host]; !known {
			r.makeRoom()
			host = strings.Clone(host) // it lies in a body
		}
		r.delivered[host] = d
	}
}

// makeRoom forgets a host, any of them, where there are too many: it costs rows.
func (r *repeats) makeRoom() {
	if len(r.delivered) < maxRemembered {
		return
	}
	for host := range r.delivered {
		delete(r.delivered, host)
		return
	}
}

type news struct {
	known *repeats
	run   int
	of    map[string]digests // of hosts with something new
}

// add adds the rows of what is new in a report and returns a function that adds them
// again; nil: nothing is new.
func (n *news) add(e *entry, b *clickhouse.Batch, ahead *clickhouse.Ahead) func(*clickhouse.Batch) {
	if e.lists == nil {
		return nil
	}
	last, known := n.of[e.lists.sender]
	if !known {
		last = n.known.delivered[e.lists.sender]
	}
	var changed []clickhouse.Section
	for s, d := range e.lists.digests {
		if d != 0 && d != last[s] {
			last[s] = d
			changed = append(changed, clickhouse.Section(s))
		}
	}
	if changed == nil {
		return nil
	}
	n.of[e.lists.sender] = last
	addSection := e.lists.add
	add := func(b *clickhouse.Batch) {
		for _, s := range changed {
			addSection(b, s, ahead)
		}
	}
	add(b)
	return add
}

// addNews gives the records of a cut their rows in tables that are Repeatable.
func (c *cut) addNews(n *news, ahead *clickhouse.Ahead) {
	for i := range c.entries {
		e := &c.entries[i]
		if more := n.add(e, &c.batch, ahead); more != nil {
			add := e.add
			e.add = func(b *clickhouse.Batch) { add(b); more(b) }
		}
	}
}

// load asks, once, which successes were ahead of their time.
func (s *Shipper) load(ctx context.Context) error {
	if s.ahead != nil {
		return nil
	}
	ahead, err := s.o.Store.Ahead(ctx)
	if err == nil {
		s.ahead = ahead
	}
	return err
}

var seed = maphash.MakeSeed()

// digestsOf tells the lists of a report from others; that two are alike by chance
// does not happen.
func digestsOf(r *hub.Report) (d digests) {
	h := digest{}
	h.SetSeed(seed)
	for i := range r.Guests {
		h.number(uint64(r.Guests[i].VMID))
	}
	d[clickhouse.GuestsSection] = h.of(len(r.Guests))
	for i := range r.Backups {
		b := &r.Backups[i]
		h.number(uint64(b.VMID), b.SizeBytes)
		h.text(b.Target, b.Status, b.Error)
		h.times(b.StartedAt, b.FinishedAt)
	}
	d[clickhouse.BackupsSection] = h.of(len(r.Backups))
	for i := range r.RestoreTests {
		t := &r.RestoreTests[i]
		h.number(uint64(t.VMID), math.Float64bits(t.DurationSeconds))
		h.text(t.Status)
		h.times(t.TestedAt, t.BackupTime)
	}
	d[clickhouse.RestoreTestsSection] = h.of(len(r.RestoreTests))
	for i := range r.PBSSnapshots {
		s := &r.PBSSnapshots[i]
		verified := uint64(0)
		if s.Verified {
			verified = 1
		}
		h.number(uint64(s.VMID), s.SizeBytes, verified)
		h.text(s.Datastore)
		h.times(s.TakenAt)
	}
	d[clickhouse.PBSSnapshotsSection] = h.of(len(r.PBSSnapshots))
	for i := range r.AuditTail {
		e := &r.AuditTail[i]
		h.text(e.Actor, e.Action, e.Detail)
		h.times(e.At)
	}
	d[clickhouse.AuditSection] = h.of(len(r.AuditTail))
	return d
}

// digest is a hash of one list after the other.
type digest struct{ maphash.Hash }

func (h *digest) number(numbers ...uint64) {
	var b [8]byte
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:]) // a hash takes everything
	}
}

func (h *digest) text(texts ...string) {
	for _, t := range texts {
		h.number(uint64(len(t)))
		_, _ = h.WriteString(t)
	}
}

func (h *digest) times(times ...time.Time) {
	for _, t := range times {
		h.number(uint64(t.Unix()), uint64(t.Nanosecond()))
	}
}

// of returns the digest of a list of so many elements, and begins the next.
func (h *digest) of(elements int) uint64 {
	defer h.Reset()
	if elements == 0 {
		return 0
	}
	return max(1, h.Sum64())
}
