package torture

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// damage lets some records be shipped and some not, stops the hub or kills it,
// harms its spool, and starts it again: what may be missing then is what the
// harness destroyed before it was shipped, and the hub must have said so.
func damage(s *stand, n int) (time.Duration, error) {
	if err := s.traffic(300*time.Millisecond, 800*time.Millisecond); err != nil {
		return 0, err
	}
	if err := errors.Join(s.pause(), s.drained()); err != nil {
		return 0, err
	}
	shipped := s.ledger.issued.Load()
	s.proxy.make(trouble{what: away})
	s.resume()
	if err := s.acknowledges(time.Now()); err != nil {
		return 0, err
	}
	if err := s.traffic(300*time.Millisecond, 800*time.Millisecond); err != nil {
		return 0, err
	}
	if err := s.pause(); err != nil {
		return 0, err
	}
	if s.random.IntN(2) == 0 {
		s.killHub()
	} else if err := s.stopHub(); err != nil {
		return 0, err
	}
	d := damager{dir: s.spoolDir(), shipped: shipped, random: s.random}
	if err := d.do(n); err != nil {
		return 0, err
	}
	for _, id := range d.destroyed {
		s.excused[id] = true
	}
	said := s.logSize()
	s.proxy.make(trouble{})
	s.resume()
	took, err := s.restart(time.Now())
	if err == nil {
		err = s.shipped(time.Now())
	}
	if err == nil && d.loud && !s.logged(said, "the spool is damaged", "a write that was not finished") {
		err = fmt.Errorf("round %d destroyed reports %d (%s), and the hub said nothing: see %s", n, d.destroyed, d.what, s.hubLog())
	}
	return took, err
}

// damager harms the files of a spool that no hub has open.
type damager struct {
	dir     string
	shipped uint64 // the newest id that is in ClickHouse
	random  *rand.Rand

	what      string
	destroyed []uint64 // ids of unshipped reports
	loud      bool     // the hub can know, and must say so
}

// do does the n-th kind of damage.
func (d *damager) do(n int) error {
	records, err := d.records()
	if err != nil {
		return err
	}
	unshipped := slices.IndexFunc(records, func(r record) bool { return r.id > d.shipped })
	if unshipped < 1 {
		return fmt.Errorf("%d records in %s, and not both shipped and unshipped ones", len(records), d.dir)
	}
	newest := records[len(records)-1].file
	switch n % 8 {
	case 0:
		return d.flip(records, records[unshipped+d.random.IntN(len(records)-unshipped)])
	case 1:
		return d.cutTail(records)
	case 2:
		return d.flipFile("cursor.state", 1<<20)
	case 3:
		return d.flip(records, records[d.random.IntN(unshipped)])
	case 4:
		return d.flipFile(newest, volumeHeader)
	case 5:
		return d.overwrite(records, records[unshipped+d.random.IntN(len(records)-unshipped)])
	case 6:
		return d.remove("cursor.state", "cut.state")
	}
	return d.removeShipped(records, unshipped)
}

// volumeHeader is how many bytes of a volume stand before its first record.
const volumeHeader = 128

// record is a report in a spool's file: with all that stands between it and the
// one before it, which is its own frame and perhaps notes of the hub.
type record struct {
	id       uint64
	file     string
	from, to int64
}

// records finds the reports in the volumes by the ids in their bodies, without
// the hub's own reader, in the order in which they were written.
func (d *damager) records() (all []record, err error) {
	files, err := filepath.Glob(filepath.Join(d.dir, "*.vol"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		from := int64(volumeHeader)
		for {
			i := bytes.Index(data[from:], []byte(idMark))
			if i < 0 {
				break
			}
			number, _, ok := strings.Cut(string(data[from:][i+len(idMark):][:min(24, len(data)-int(from)-i-len(idMark))]), "}")
			to := from + int64(i+len(idMark)+len(number)+1)
			if id, err := strconv.ParseUint(number, 10, 64); ok && err == nil {
				all = append(all, record{id, filepath.Base(file), from, to})
			}
			from = to
		}
	}
	return all, nil
}

// destroy notes what a damage to a range of a file costs.
func (d *damager) destroy(records []record, file string, from, to int64) {
	for _, r := range records {
		if r.file == file && r.from < to && from < r.to && r.id > d.shipped {
			d.destroyed = append(d.destroyed, r.id)
		}
	}
	d.loud = len(d.destroyed) > 0
}

// flip turns one bit of a record.
func (d *damager) flip(records []record, r record) error {
	at := r.from + d.random.Int64N(r.to-r.from)
	d.destroy(records, r.file, at, at+1)
	return d.change(r.file, at, func(b []byte) { b[0] ^= 1 << d.random.IntN(8) }, 1)
}

// overwrite writes noise over up to 4 KiB from the middle of a record on.
func (d *damager) overwrite(records []record, r record) error {
	at, n := (r.from+r.to)/2, 1+d.random.IntN(4<<10)
	d.destroy(records, r.file, at, at+int64(n))
	return d.change(r.file, at, func(b []byte) {
		for i := range b {
			b[i] = byte(1 + d.random.IntN(255))
		}
	}, n)
}

// flipFile turns one bit among the first bytes of a file.
func (d *damager) flipFile(name string, within int64) error {
	info, err := os.Stat(filepath.Join(d.dir, name))
	if err != nil {
		return err
	}
	return d.change(name, d.random.Int64N(min(within, info.Size())), func(b []byte) { b[0] ^= 1 << d.random.IntN(8) }, 1)
}

func (d *damager) change(name string, at int64, f func([]byte), n int) error {
	d.what = fmt.Sprintf("%d bytes of %s at %d", n, name, at)
	file, err := os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if n, err = file.ReadAt(b, at); n > 0 {
		f(b[:n])
		_, err = file.WriteAt(b[:n], at)
	}
	return errors.Join(err, file.Close())
}

// cutTail takes 1 byte to 4 KiB off the end of what was written. A hub cannot
// know of a cut that ends with a record.
func (d *damager) cutTail(records []record) error {
	last := records[len(records)-1]
	size := last.to - 1 - d.random.Int64N(4<<10)
	d.what = fmt.Sprintf("%s cut to %d bytes", last.file, size)
	d.destroy(records, last.file, size, last.to)
	if slices.ContainsFunc(records, func(r record) bool { return r.file == last.file && r.to == size }) {
		d.loud = false
	}
	return os.Truncate(filepath.Join(d.dir, last.file), max(0, size))
}

// remove deletes files that a spool can do without.
func (d *damager) remove(names ...string) error {
	d.what = fmt.Sprintf("%v removed", names)
	for _, name := range names {
		if err := os.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeShipped deletes a volume of which all is in ClickHouse, if there is one.
func (d *damager) removeShipped(records []record, unshipped int) error {
	var names []string
	for _, r := range records[:unshipped] {
		if r.file < records[unshipped].file && !slices.Contains(names, r.file) {
			names = append(names, r.file)
		}
	}
	if len(names) == 0 {
		return d.remove("cursor.state")
	}
	return d.remove(names[d.random.IntN(len(names))])
}
