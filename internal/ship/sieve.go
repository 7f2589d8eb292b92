package ship

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"

	"felhom.eu/hub/internal/clickhouse"
)

const (
	// defaultPatience is for how long a block that ClickHouse refuses is tried
	// again as it is: somebody may be changing the table just now.
	defaultPatience = 15 * time.Second
	// knownRefusals is for how long after a record was found that ClickHouse does
	// not take, while it took its neighbours, the next such block is not waited for.
	knownRefusals = time.Hour
	// notTheRecords is how many records may be refused one after the other before it
	// is the table that is wrong and not they.
	notTheRecords = 100
)

var errTable = errors.New("ClickHouse refuses every record: the table or its constraints must be mended")

// refusal is the error of a block that ClickHouse refuses and goes on refusing.
type refusal struct{ error }

// part is a run of a cut's records whose block for one table goes alone, because
// the whole is refused.
type part struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Refused says why ClickHouse does not take the part, which is one record then.
	Refused string `json:"refused,omitempty"`

	done bool // in ClickHouse
}

func (p part) open() bool { return !p.done && p.Refused == "" }

// sieve finds the records for whose sake ClickHouse refuses a block, and brings
// the others in. It halves what is refused, each part under a token of its own,
// written down before it is sent.
//
// A table that refuses everything would be taken for so many bad records: so
// records from anywhere in the cut are tried alone until one is taken, and after
// a hundred refusals in a row nothing is set aside any more and the cut waits.
type sieve struct {
	s     *Shipper
	cut   *cut
	table string
	seqs  []uint64 // of the records that have rows for the table
}

// sift brings what ClickHouse takes of a refused block into the table and marks
// the records that it does not take. It returns ctx's error only.
func (s *Shipper) sift(ctx context.Context, c *cut, table string) error {
	v := sieve{s: s, cut: c, table: table, seqs: c.holders(table)}
	if len(v.seqs) == 0 {
		return nil
	}
	if len(c.Parts[table]) == 0 {
		v.set([]part{{First: v.seqs[0], Last: v.seqs[len(v.seqs)-1]}})
	}
	for taken := false; ; {
		i := slices.IndexFunc(v.parts(), part.open)
		if i < 0 {
			return nil
		}
		if !taken {
			i = v.alone()
		}
		ok, err := v.try(ctx, i)
		if err != nil {
			return err
		}
		taken = taken || ok
	}
}

func (v *sieve) parts() []part { return v.cut.Parts[v.table] }

func (v *sieve) set(parts []part) {
	if v.cut.Parts == nil {
		v.cut.Parts = map[string][]part{}
	}
	v.cut.Parts[v.table] = parts
}

// of returns the records of a part that have rows for the table.
func (v *sieve) of(p part) []uint64 {
	from := sort.Search(len(v.seqs), func(i int) bool { return v.seqs[i] >= p.First })
	to := sort.Search(len(v.seqs), func(i int) bool { return v.seqs[i] > p.Last })
	return v.seqs[from:to]
}

// try sends a part and says whether ClickHouse has it. A refused part is halved;
// one of a single record is marked.
func (v *sieve) try(ctx context.Context, i int) (taken bool, err error) {
	p := v.parts()[i]
	seqs := v.of(p)
	if len(seqs) > 0 {
		if err := v.save(ctx); err != nil {
			return false, err
		}
		d := v.s.delivery(v.cut, v.table, p.First, p.Last, true)
		err = v.s.retry(ctx, func(ctx context.Context) error {
			err := d.attempt(ctx)
			if clickhouse.Refused(err) {
				return refusal{err}
			}
			return err
		})
	}
	var no refusal
	switch {
	case err == nil:
		v.parts()[i].done = true
		v.s.refused[v.table] = 0
		return len(seqs) > 0, nil
	case !errors.As(err, &no):
		return false, err
	case len(seqs) > 1:
		v.halve(i, seqs)
		return false, nil
	default:
		return false, v.refuse(ctx, i, no)
	}
}

// refuse marks a part of one record, unless it is the table that refuses.
func (v *sieve) refuse(ctx context.Context, i int, why refusal) error {
	v.s.refused[v.table]++
	if v.s.refused[v.table] < notTheRecords {
		v.parts()[i].Refused = why.Error()
		return nil
	}
	for j := range v.parts() {
		v.parts()[j].Refused = ""
	}
	v.s.failed(fmt.Errorf("%w: %w", errTable, why))
	if !sleep(ctx, maxBackoff) {
		return ctx.Err()
	}
	return nil
}

// halve makes two parts of one.
func (v *sieve) halve(i int, seqs []uint64) {
	p := v.parts()[i]
	middle := seqs[len(seqs)/2]
	v.set(slices.Replace(slices.Clone(v.parts()), i, i+1, part{First: p.First, Last: middle - 1}, part{First: middle, Last: p.Last}))
}

// alone makes a part of one record of an open part, any of them, and returns its
// index.
func (v *sieve) alone() int {
	var open []int
	for j, p := range v.parts() {
		if p.open() {
			open = append(open, j)
		}
	}
	i := open[rand.N(len(open))]
	p, seqs := v.parts()[i], v.of(v.parts()[i])
	if len(seqs) < 2 {
		return i
	}
	at := rand.N(len(seqs))
	var pieces []part
	if at > 0 {
		pieces = append(pieces, part{First: p.First, Last: seqs[at] - 1})
	}
	pieces = append(pieces, part{First: seqs[at], Last: seqs[at]})
	if p.Last > seqs[at] {
		pieces = append(pieces, part{First: seqs[at] + 1, Last: p.Last})
	}
	v.set(slices.Replace(slices.Clone(v.parts()), i, i+1, pieces...))
	if at > 0 {
		i++
	}
	return i
}

func (v *sieve) save(ctx context.Context) error {
	return v.s.retry(ctx, func(context.Context) error { return v.cut.save(v.s.o.Spool) })
}

// holders returns the records of the cut that have rows for a table.
func (c *cut) holders(table string) []uint64 {
	var seqs []uint64
	for _, e := range c.entries {
		if rows := c.rowsOf(e.Seq, e.Seq); rows.Rows(table) > 0 {
			seqs = append(seqs, e.Seq)
		}
	}
	return seqs
}

// refusals returns why tables do not take records, by sequence number. What
// rejected_reports itself refuses has no other place to go to.
func (c *cut) refusals() map[uint64]string {
	reasons := map[uint64][]string{}
	for _, table := range clickhouse.Tables() {
		for _, p := range c.Parts[table] {
			if p.Refused != "" && table != clickhouse.RejectedTable {
				reasons[p.First] = append(reasons[p.First], p.Refused)
			}
		}
	}
	joined := map[uint64]string{}
	for seq, why := range reasons {
		joined[seq] = strings.Join(why, "; ")
	}
	return joined
}
