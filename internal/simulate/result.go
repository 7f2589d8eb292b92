package simulate

import (
	"context"
	"errors"
	"io"
	"math"
	"math/bits"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Result is what a simulation came to. Its JSON form is stable.
type Result struct {
	Hosts        int              `json:"hosts"`
	Controllers  int              `json:"controllers"`
	Seconds      float64          `json:"seconds"`      // from the first slot to the last answer
	Sent         int64            `json:"sent"`         // requests, retries included
	Acknowledged int64            `json:"acknowledged"` // reports answered with 200, and events with 202
	Throughput   float64          `json:"acknowledged_per_second"`
	Retried      int64            `json:"retried"`    // requests that repeated a report or an event
	SetAside     int64            `json:"set_aside"`  // reports and events refused for good
	Pending      int64            `json:"pending"`    // reports and events kept for a later try
	Skipped      int64            `json:"skipped"`    // slots at which a host or controller was still busy with its last report
	Bytes        int64            `json:"bytes"`      // of acknowledged reports and events
	Statuses     map[string]int64 `json:"statuses"`   // answers by HTTP status
	Errors       map[string]int64 `json:"errors"`     // exchanges without an answer, by kind
	Latency      Latency          `json:"latency_ms"` // of acknowledged reports
}

// Latency holds percentiles in milliseconds, from sending a report to having
// read its answer; exact to 1 %, Max fully.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// kind names the error of an exchange for Result.Errors.
func kind(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "stopped"
	}
	return "other"
}

// tally counts; the simulation's lock guards it.
type tally struct {
	sent, acknowledged, retried, setAside, skipped, bytes int64

	statuses [600]int64
	errors   map[string]int64
	latency  Histogram
}

func (t *tally) result(hosts int, elapsed time.Duration) Result {
	r := Result{
		Hosts: hosts, Seconds: elapsed.Seconds(),
		Sent: t.sent, Acknowledged: t.acknowledged, Retried: t.retried, SetAside: t.setAside,
		Skipped: t.skipped, Bytes: t.bytes,
		Statuses: make(map[string]int64), Errors: make(map[string]int64),
		Latency: Latency{
			P50: t.latency.Quantile(0.5), P90: t.latency.Quantile(0.9), P99: t.latency.Quantile(0.99),
			P999: t.latency.Quantile(0.999), Max: milliseconds(t.latency.Max),
		},
	}
	if elapsed > 0 {
		r.Throughput = float64(t.acknowledged) / elapsed.Seconds()
	}
	for status, n := range t.statuses {
		if n > 0 {
			r.Statuses[strconv.Itoa(status)] = n
		}
	}
	for name, n := range t.errors {
		r.Errors[name] = n
	}
	return r
}

// Histogram counts durations in buckets whose width is 1/64 of their value or
// less: of each power of two of microseconds, 64. The zero value is empty.
type Histogram struct {
	Buckets [64 * 40]int64
	Count   int64
	Max     time.Duration
}

const bucketBits = 6

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.Max = max(h.Max, d)
	h.Count++
	h.Buckets[bucketOf(uint64(max(0, d.Microseconds())))]++
}

// Merge counts all that other counted.
func (h *Histogram) Merge(other *Histogram) {
	h.Max = max(h.Max, other.Max)
	h.Count += other.Count
	for i, n := range other.Buckets {
		h.Buckets[i] += n
	}
}

func bucketOf(us uint64) int {
	shift := max(0, bits.Len64(us)-bucketBits-1)
	return min(shift<<bucketBits+int(us>>shift), 64*40-1)
}

// middle is the inverse of bucketOf: the middle of a bucket, in microseconds.
func middle(bucket int) float64 {
	shift := max(0, bucket>>bucketBits-1)
	low := uint64(bucket-shift<<bucketBits) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Quantile returns in milliseconds what the share q of durations do not exceed.
func (h *Histogram) Quantile(q float64) float64 {
	rank := int64(math.Ceil(q * float64(h.Count)))
	for bucket, n := range h.Buckets {
		if rank -= n; rank <= 0 && n > 0 {
			return min(middle(bucket)/1000, milliseconds(h.Max))
		}
	}
	return milliseconds(h.Max)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
