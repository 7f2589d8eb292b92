package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"felhom.eu/hub/internal/fair"
	"felhom.eu/hub/internal/hub"
)

const (
	firstBuffer = 8 << 10   // holds a report of a dozen guests twice over
	maxPooled   = 256 << 10 // larger buffers go back to the garbage collector
	maxWindow   = 8 << 20   // of zstd: what RFC 9659 allows a content encoding
)

var (
	errTooLarge = &hub.Error{Code: hub.TooLarge, Reason: "too_large",
		Message: "the body is over the limit, before or after decompression"}
	errEncoding = &hub.Error{Code: hub.Unsupported, Reason: "encoding",
		Message: "Content-Encoding is one of identity, gzip and zstd"}
	errCompressed = &hub.Error{Code: hub.Invalid, Reason: "bad_compression",
		Message: "the body does not decompress: it is damaged, cut off, or followed by something else"}
	errTransfer = &hub.Error{Code: hub.Invalid, Reason: "bad_transfer", Message: "the body's transfer encoding is damaged"}
	errSlow     = &hub.Error{Code: hub.Timeout, Reason: "incomplete", Message: "the body did not arrive whole and in time"}
	errBusy     = &hub.Error{Code: hub.Unavailable, Reason: "in_flight",
		Message: "the hub holds as many bodies as it may, in all or of this customer", Retry: time.Second}
)

// bodies reads request bodies within one budget of memory, of which each customer
// has a fair share. A buffer grows as its bytes come in, so that announcing much
// and sending little costs little.
type bodies struct {
	memory *fair.Shares // bytes, by customer
	idle   sync.Pool    // of *body, with their buffers
	gzips  sync.Pool    // of *gzip.Reader
	zstd   *zstd.Decoder
}

func newBodies(budget int64) (*bodies, error) {
	// The decoder clamps its window to its largest output, so that is 8 MiB
	// too; what is over a body's own limit is refused afterwards. Its
	// concurrency bounds how many such outputs there are at one time.
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &bodies{memory: fair.New(budget), zstd: decoder}, nil
}

// body is a request's body, decompressed. Release gives its memory back; it is
// the next request's then, and must not be looked at any more.
type body struct {
	bytes    []byte
	owner    *bodies
	customer string // whose share of the memory it takes; "" is global keys'
	reserved int64
}

// read returns the body of a customer's request, of at most limit bytes before
// and after decompression. Release what it returns also with an error.
func (b *bodies) read(r *http.Request, customer string, limit int) (*body, error) {
	encoding, err := contentEncoding(r.Header["Content-Encoding"])
	if err == nil && r.ContentLength > int64(limit) {
		err = errTooLarge
	}
	if err != nil {
		drain(r, limit)
		return nil, err
	}
	sent := b.take(customer)
	if err := sent.fill(r.Body, limit); err != nil {
		if errors.Is(err, errTooLarge) {
			drain(r, limit)
		}
		return sent, transferError(err)
	}
	if encoding == "identity" {
		return sent, nil
	}
	defer sent.release()
	plain := b.take(customer)
	if encoding == "gzip" {
		err = b.gunzip(plain, sent.bytes, limit)
	} else {
		err = b.unzstd(plain, sent.bytes, limit)
	}
	return plain, err
}

// take returns an empty body.
func (b *bodies) take(customer string) *body {
	taken, ok := b.idle.Get().(*body)
	if !ok {
		taken = &body{owner: b}
	}
	taken.customer = customer
	return taken
}

// drain reads on a little, so that a client in the midst of sending sees the
// reply and not a broken connection. One that asks first needs no such help.
func drain(r *http.Request, limit int) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, r.Body, int64(limit))
	}
}

// contentEncoding accepts one encoding that we read; several, also of the same,
// are refused.
func contentEncoding(headers []string) (string, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(headers, ","))); encoding {
	case "":
		return "identity", nil
	case "identity", "gzip", "zstd":
		return encoding, nil
	}
	return "", errEncoding
}

func transferError(err error) error {
	var known *hub.Error
	if errors.As(err, &known) {
		return known
	}
	var netError net.Error
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &netError) {
		return errSlow
	}
	return errTransfer
}

// fill reads all of r. Errors are errTooLarge, errBusy, or r's own.
func (b *body) fill(r io.Reader, limit int) error {
	if err := b.begin(); err != nil {
		return err
	}
	for {
		if len(b.bytes) == cap(b.bytes) {
			if err := b.grow(limit + 1); err != nil {
				return err
			}
		}
		n, err := r.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		if len(b.bytes) > limit {
			return errTooLarge
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// begin reserves the buffer that it has, or a first one.
func (b *body) begin() error {
	if b.bytes == nil {
		b.bytes = make([]byte, 0, firstBuffer)
	}
	return b.reserve(int64(cap(b.bytes)))
}

// grow doubles the buffer, up to most bytes.
func (b *body) grow(most int) error {
	larger := min(most, 2*cap(b.bytes))
	if err := b.reserve(int64(larger)); err != nil {
		return err
	}
	b.unreserve(int64(cap(b.bytes)))
	b.bytes = append(make([]byte, 0, larger), b.bytes...)
	return nil
}

func (b *body) reserve(n int64) error {
	if !b.owner.memory.Take(b.customer, n) {
		return errBusy
	}
	b.reserved += n
	return nil
}

func (b *body) unreserve(n int64) {
	b.reserved -= n
	b.owner.memory.Give(b.customer, n)
}

// release gives the memory back. A nil body has none.
func (b *body) release() {
	if b == nil {
		return
	}
	b.unreserve(b.reserved)
	if b.bytes = b.bytes[:0]; cap(b.bytes) > maxPooled {
		b.bytes = nil
	}
	b.owner.idle.Put(b)
}

func (b *bodies) gunzip(plain *body, sent []byte, limit int) error {
	reader, ok := b.gzips.Get().(*gzip.Reader)
	if !ok {
		reader = new(gzip.Reader)
	}
	defer b.gzips.Put(reader)
	if reader.Reset(bytes.NewReader(sent)) != nil {
		return errCompressed
	}
	err := plain.fill(reader, limit)
	if err == nil || errors.Is(err, errTooLarge) || errors.Is(err, errBusy) {
		return err
	}
	return errCompressed
}

func (b *bodies) unzstd(plain *body, sent []byte, limit int) error {
	if err := plain.begin(); err != nil {
		return err
	}
	out, err := b.zstd.DecodeAll(sent, plain.bytes)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || len(out) > limit {
		return errTooLarge
	}
	if err != nil {
		return errCompressed
	}
	if more := int64(cap(out) - cap(plain.bytes)); more > 0 { // it moved to a larger buffer
		if err := plain.reserve(more); err != nil {
			return err
		}
	}
	plain.bytes = out
	return nil
}
