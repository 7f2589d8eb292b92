package gitsync

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// receivePack keeps a whole pack, as a clone gets it, in dir (objects/pack) with
// its index. go-git's own way (packfile.UpdateObjectStorage, which fetches use)
// reads each object up to three times, by one processor; a start of a hub with
// 100,000 hosts waited 7 s for it, and 3 s for this (m). What reads the format is
// go-git's in both.
//
// Like git index-pack it goes over the pack twice: once as it comes, for the places
// of all objects and the ids of those that are whole, then from each of these
// along the differences that are built on it, by all processors.
func receivePack(dir string, from io.Reader) error {
	file, err := os.CreateTemp(dir, "tmp_pack_")
	if err != nil {
		return err
	}
	defer func() {
		_ = file.Close() // it is renamed or of no use
		_ = os.Remove(file.Name())
	}()
	p := incoming{file: file, at: map[int64]int32{}, waiting: map[plumbing.Hash][]int32{}}
	if err := p.scan(from); err != nil {
		return err
	}
	if err := p.resolve(); err != nil {
		return err
	}
	return p.keep(dir)
}

// incoming is a pack on its way into the mirror.
type incoming struct {
	file     *os.File
	checksum plumbing.Hash
	objects  []packed
	at       map[int64]int32 // objects by offset

	mu      sync.Mutex
	waiting map[plumbing.Hash][]int32 // differences from an object named by its id
}

// packed is one object of a pack.
type packed struct {
	offset   int64
	crc      uint32
	kind     plumbing.ObjectType // of a difference: of what it is built on, once known
	delta    bool
	id       plumbing.Hash
	children []int32 // differences from this one
}

// maxGuess bounds what is set aside for as many objects as a pack claims to have.
const maxGuess = 1 << 18

// scan writes the pack to the file and learns where its objects are.
func (p *incoming) scan(from io.Reader) error {
	out := bufio.NewWriterSize(p.file, 1<<20)
	from = io.TeeReader(from, out)
	scanner := packfile.NewScanner(from)
	_, count, err := scanner.Header()
	if err != nil {
		return err
	}
	p.objects = make([]packed, 0, min(count, maxGuess))
	for range count {
		if err := p.scanObject(scanner); err != nil {
			return fmt.Errorf("object %d of %d: %w", len(p.objects)+1, count, err)
		}
	}
	if p.checksum, err = scanner.Checksum(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, from)
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	return p.endsWithSum()
}

// endsWithSum refuses what follows the pack.
func (p *incoming) endsWithSum() error {
	var sum plumbing.Hash
	end, err := p.file.Seek(-int64(len(sum)), io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := p.file.ReadAt(sum[:], end); err != nil {
		return err
	}
	if sum != p.checksum {
		return errors.New("more follows the pack")
	}
	return nil
}

func (p *incoming) scanObject(scanner *packfile.Scanner) error {
	header, err := scanner.NextObjectHeader()
	if err != nil {
		return err
	}
	n := int32(len(p.objects))
	o := packed{offset: header.Offset, kind: header.Type}
	into := io.Discard
	var hasher plumbing.Hasher
	switch header.Type {
	case plumbing.OFSDeltaObject:
		base, ok := p.at[header.OffsetReference]
		if !ok {
			return fmt.Errorf("differs from offset %d, where none begins", header.OffsetReference)
		}
		p.objects[base].children = append(p.objects[base].children, n)
		o.delta = true
	case plumbing.REFDeltaObject:
		p.waiting[header.Reference] = append(p.waiting[header.Reference], n)
		o.delta = true
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		hasher = plumbing.NewHasher(header.Type, header.Length)
		into = hasher
	default:
		return fmt.Errorf("of a type that git does not know: %d", header.Type)
	}
	size, crc, err := scanner.NextObject(into)
	if err != nil {
		return err
	}
	if size != header.Length {
		return fmt.Errorf("%d bytes of %d", size, header.Length)
	}
	if o.crc = crc; !o.delta {
		o.id = hasher.Sum()
	}
	p.at[o.offset] = n
	p.objects = append(p.objects, o)
	return nil
}

// resolve finds the ids of all differences.
func (p *incoming) resolve() error {
	var roots []int32
	missing := int64(0)
	for i := range p.objects {
		o := &p.objects[i]
		if o.delta {
			missing++
		} else if len(o.children) > 0 || len(p.waiting[o.id]) > 0 {
			roots = append(roots, int32(i))
		}
	}
	var next, resolved atomic.Int64
	var workers sync.WaitGroup
	errs := make([]error, runtime.GOMAXPROCS(0))
	for worker := range errs {
		workers.Go(func() {
			r := resolver{incoming: p, scanner: packfile.NewScanner(io.NewSectionReader(p.file, 0, 1<<62))}
			for errs[worker] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(roots) {
					break
				}
				errs[worker] = r.family(roots[i])
			}
			resolved.Add(r.resolved)
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if left := missing - resolved.Load(); left != 0 {
		return fmt.Errorf("%d objects differ from what the pack does not hold", left)
	}
	return nil
}

// builtOn lists the differences from o, whose id is known; those that name it by
// that id only once, should the pack hold it twice.
func (p *incoming) builtOn(o *packed) []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	named := p.waiting[o.id]
	delete(p.waiting, o.id)
	return append(o.children, named...)
}

// resolver works on one family at a time: no two families share an object.
type resolver struct {
	*incoming
	scanner  *packfile.Scanner
	resolved int64
}

// difference is one to resolve; its base is held for as long as one of it waits.
type difference struct {
	object int32
	depth  int
	kind   plumbing.ObjectType
	base   []byte
}

// maxDepth is git's own (pack-objects.h, OE_DEPTH_BITS).
const maxDepth = 4095

// family resolves all that is built on a whole object.
func (r *resolver) family(root int32) error {
	o := &r.objects[root]
	data, err := r.read(o.offset)
	if err != nil {
		return err
	}
	pending := r.follow(nil, o, 1, data)
	for len(pending) > 0 {
		d := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		o := &r.objects[d.object]
		if d.depth > maxDepth {
			return fmt.Errorf("offset %d: more than %d differences on another", o.offset, maxDepth)
		}
		delta, err := r.read(o.offset)
		if err != nil {
			return err
		}
		data, err := packfile.PatchDelta(d.base, delta)
		if err != nil {
			return fmt.Errorf("offset %d: %w", o.offset, err)
		}
		o.kind, o.id = d.kind, plumbing.ComputeHash(d.kind, data)
		r.resolved++
		pending = r.follow(pending, o, d.depth+1, data)
	}
	return nil
}

func (r *resolver) follow(pending []difference, o *packed, depth int, data []byte) []difference {
	for _, child := range r.builtOn(o) {
		pending = append(pending, difference{child, depth, o.kind, data})
	}
	return pending
}

// read inflates the object at offset.
func (r *resolver) read(offset int64) ([]byte, error) {
	if _, err := r.scanner.SeekObjectHeader(offset); err != nil {
		return nil, err
	}
	var data bytes.Buffer
	_, _, err := r.scanner.NextObject(&data)
	return data.Bytes(), err
}

// keep gives the pack its name, beside its index.
func (p *incoming) keep(dir string) error {
	var index idxfile.Writer
	err := index.OnHeader(uint32(len(p.objects)))
	for _, o := range p.objects {
		index.Add(o.id, uint64(o.offset), o.crc)
	}
	if err := errors.Join(err, index.OnFooter(p.checksum)); err != nil {
		return err
	}
	table, err := index.Index()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if _, err := idxfile.NewEncoder(&text).Encode(table); err != nil {
		return err
	}
	name := filepath.Join(dir, "pack-"+p.checksum.String())
	if err := os.WriteFile(name+".idx", text.Bytes(), 0o444); err != nil {
		return err
	}
	return errors.Join(p.file.Chmod(0o444), os.Rename(p.file.Name(), name+".pack"))
}
