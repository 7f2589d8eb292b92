package torture

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// verdict is the comparison of the ledger with ClickHouse.
type verdict struct {
	acknowledged, again int // reports; those acknowledged more than once
	excused             int // acknowledged, destroyed by the harness, and not there
	lost, doubled       int
	places              []string // the first lost and doubled ones, and where to look
}

const mostPlaces = 10

func (v *verdict) loses(format string, args ...any) {
	v.lost++
	v.place("lost: "+format, args...)
}

func (v *verdict) doubles(format string, args ...any) {
	v.doubled++
	v.place("doubled: "+format, args...)
}

func (v *verdict) place(format string, args ...any) {
	if len(v.places) < mostPlaces {
		v.places = append(v.places, fmt.Sprintf(format, args...))
	}
}

// storedQuery has one line a row of host_reports, with what the other tables hold for
// it, each counted by the row's own place in the spool.
const storedQuery = `SELECT hex(r.body_sha256), r.host_id, r.spool_id, r.spool_seq, hex(b.sum), b.n, r.guest_total, g.n, r.rejected_total, i.n
FROM host_reports AS r
LEFT JOIN (SELECT spool_id, spool_seq, count() AS n, any(SHA256(body)) AS sum FROM host_report_bodies GROUP BY spool_id, spool_seq) AS b USING (spool_id, spool_seq)
LEFT JOIN (SELECT spool_id, spool_seq, count() AS n FROM guest_reports GROUP BY spool_id, spool_seq) AS g USING (spool_id, spool_seq)
LEFT JOIN (SELECT spool_id, spool_seq, count() AS n FROM rejected_items GROUP BY spool_id, spool_seq) AS i USING (spool_id, spool_seq)`

// row is one line of the answer.
type row struct {
	sum, bodySum               digest
	host, spoolID              string
	seq                        uint64
	bodies, guestTotal, guests int
	itemTotal, items           int
}

func (r *row) String() string { return fmt.Sprintf("spool %s/%d", r.spoolID, r.seq) }

// judge compares what was acknowledged with what ClickHouse holds.
func (s *stand) judge() (*verdict, error) {
	v := &verdict{}
	seen := make(map[digest]bool, len(s.ledger.reports))
	sums := totals{}
	err := s.ask(storedQuery, func(line string) error {
		r, err := parseRow(line)
		if err != nil {
			return err
		}
		sums.add(r)
		s.judgeRow(v, r, seen)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.judgeMissing(v, seen)
	return v, s.judgeTotals(v, sums)
}

// judgeMissing looks for acknowledged reports that no row holds.
func (s *stand) judgeMissing(v *verdict, seen map[digest]bool) {
	for sum, known := range s.ledger.reports {
		v.acknowledged++
		if known.times > 1 {
			v.again++
		}
		switch {
		case seen[sum]:
			continue
		case s.excused[known.id]:
			v.excused++
		default:
			v.loses("report %d of %s, acknowledged %s, body %X: nowhere in host_reports", known.id, known.host, time.UnixMilli(known.at).UTC().Format("15:04:05.000"), sum[:8])
		}
	}
}

// judgeRow holds one row to what the ledger knows.
func (s *stand) judgeRow(v *verdict, r row, seen map[digest]bool) {
	known, ok := s.ledger.reports[r.sum]
	if !ok {
		v.doubles("%s of %s: a report that was never acknowledged (body %X)", &r, r.host, r.sum[:8])
		return
	}
	if seen[r.sum] {
		v.doubles("report %d of %s: again as %s", known.id, known.host, &r)
	}
	seen[r.sum] = true
	guests, items := int(known.guests), int(known.items)
	switch {
	case r.host != known.host || r.bodies == 0 || r.bodySum != r.sum:
		v.loses("report %d of %s at %s: host %s, %d bodies, body %X", known.id, known.host, &r, r.host, r.bodies, r.bodySum[:8])
	case r.guestTotal != guests || r.guests < guests || r.itemTotal != items || r.items < items:
		v.loses("report %d of %s at %s: %d guests (guest_total %d) of %d, %d rejected items (rejected_total %d) of %d",
			known.id, known.host, &r, r.guests, r.guestTotal, guests, r.items, r.itemTotal, items)
	case r.bodies > 1 || r.guests > guests || r.items > items:
		v.doubles("report %d of %s at %s: %d bodies, %d guests of %d, %d rejected items of %d", known.id, known.host, &r, r.bodies, r.guests, guests, r.items, items)
	}
}

// totals are the rows of each table that belong to a row of host_reports.
type totals struct{ bodies, guests, items int }

func (t *totals) add(r row) {
	t.bodies += r.bodies
	t.guests += r.guests
	t.items += r.items
}

// judgeTotals looks for rows that belong to no report.
func (s *stand) judgeTotals(v *verdict, t totals) error {
	for table, want := range map[string]int{"host_report_bodies": t.bodies, "guest_reports": t.guests, "rejected_items": t.items, "rejected_reports": 0} {
		err := s.ask("SELECT count() FROM "+table, func(line string) error {
			n, err := strconv.Atoi(line)
			if err == nil && n > want {
				v.doubles("%s: %d rows belong to no row of host_reports", table, n-want)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func parseRow(line string) (r row, err error) {
	f := strings.Split(line, "\t")
	if len(f) != 10 {
		return r, fmt.Errorf("ClickHouse answered %q", line)
	}
	r.host, r.spoolID = f[1], f[2]
	if _, err := hex.Decode(r.sum[:], []byte(f[0])); err != nil {
		return r, err
	}
	if _, err := hex.Decode(r.bodySum[:], []byte(f[4])); err != nil {
		return r, err
	}
	if r.seq, err = strconv.ParseUint(f[3], 10, 64); err != nil {
		return r, err
	}
	for i, n := range []*int{&r.bodies, &r.guestTotal, &r.guests, &r.itemTotal, &r.items} {
		if *n, err = strconv.Atoi(f[5+i]); err != nil {
			return r, err
		}
	}
	return r, nil
}

// ask sends a query to ClickHouse over HTTP and calls f for each line.
func (s *stand) ask(query string, f func(line string) error) error {
	at, err := s.database()
	if err != nil {
		return err
	}
	reply, err := http.Post(at, "text/plain", strings.NewReader(query))
	if err != nil {
		return fmt.Errorf("ask ClickHouse: %w", err)
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(reply.Body, 4096))
		return fmt.Errorf("ask ClickHouse: %s: %s", reply.Status, strings.TrimSpace(string(text)))
	}
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		if err := f(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}
