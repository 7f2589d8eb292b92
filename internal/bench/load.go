package bench

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/simulate"
)

// Load says what the agents send, and to whom.
type Load struct {
	Address     string        // host:port
	HTTP        int           // 1 or 2; 2 is over TLS, with a certificate that nobody checks
	Encoding    string        // identity, gzip or zstd
	Seed        string        // of the hosts' keys
	Hosts       int           // they take turns
	Connections int           // kept alive, one request at a time on each
	Rate        float64       // reports a second, sent when their time comes; 0: each as soon as the one before is answered
	Duration    time.Duration // at most one of this
	Count       int64         // and this is 0
}

const (
	path      = "/api/v1/host-report"
	guests    = 12 // of each host: a report of about 2.6 KB
	customers = 100

	// defaultHosts is so many that the default rates of a host and of a customer
	// are in force and do not get in the way.
	defaultHosts = 10_000

	// variants of a compressed report are made beforehand: one more than the
	// hub remembers of a host, so that none is taken for a retry.
	variants = 9
)

func customerName(host int) string { return fmt.Sprintf("c%03d", host%customers) }

func hostID(host int) string { return fmt.Sprintf("%s-%08x", customerName(host), host) }

func key(seed string, host int) hub.Secret {
	sum := sha256.Sum256([]byte(seed + "/" + strconv.Itoa(host)))
	return hub.NewSecret(hex.EncodeToString(sum[:]))
}

// fleet returns the hosts of a load.
func fleet(seed string, hosts int) (*hub.Fleet, error) {
	var spec hub.FleetSpec
	for c := range min(hosts, customers) {
		spec.Customers = append(spec.Customers, &hub.Customer{Name: customerName(c)})
	}
	for h := range hosts {
		digest, err := hub.DigestKey(key(seed, h).Reveal())
		if err != nil {
			return nil, err
		}
		id := hostID(h)
		spec.Hosts = append(spec.Hosts, &hub.Host{
			ID: id, Customer: customerName(h), Lifecycle: hub.Active,
			Keys: []hub.Key{{ID: "k1", Owner: hub.HostOwner(id), Digest: digest}},
		})
	}
	return hub.NewFleet(spec)
}

const timeForm = "2006-01-02T15:04:05.000Z"

// agent is a host with its reports, made beforehand: the agents share the
// processors with the hub, and must cost little beside it.
type agent struct {
	bodies [][]byte // as they are sent
	plain  int      // bytes of each before it was compressed
	next   int
	stamp  int       // where reported_at stands in an uncompressed body
	last   time.Time // what stands there
	key    string
}

// newAgent makes the reports of a host.
func newAgent(l Load, host int, compress func([]byte) ([]byte, error)) (*agent, error) {
	id := hostID(host)
	now := time.Now().UTC()
	a := &agent{key: key(l.Seed, host).Reveal(), last: now, stamp: len(`{"host_id":"` + id + `","reported_at":"`)}
	plain := simulate.NewAgent(1, id, guests).AppendReport(nil, now)
	a.plain = len(plain)
	if compress == nil {
		a.bodies = [][]byte{plain}
		return a, nil
	}
	for i := range variants {
		a.date(plain, now.Add(time.Duration(i)*time.Millisecond))
		body, err := compress(plain)
		if err != nil {
			return nil, err
		}
		a.bodies = append(a.bodies, body)
	}
	return a, nil
}

// date writes reported_at, which makes one report another.
func (a *agent) date(plain []byte, at time.Time) {
	var text [len(timeForm) + len("000000")]byte // AppendFormat writes nanoseconds before it cuts them
	copy(plain[a.stamp:], at.AppendFormat(text[:0], timeForm))
}

// body returns the next report. It is the agent's own, until the next call.
func (a *agent) body() []byte {
	if len(a.bodies) > 1 {
		a.next = (a.next + 1) % len(a.bodies)
		return a.bodies[a.next]
	}
	a.last = a.last.Add(time.Millisecond)
	if now := time.Now().UTC(); now.After(a.last) {
		a.last = now
	}
	a.date(a.bodies[0], a.last)
	return a.bodies[0]
}

// compressor returns what compresses a body.
func compressor(encoding string) (func(plain []byte) ([]byte, error), error) {
	switch encoding {
	case "identity":
		return nil, nil
	case "gzip":
		w := gzip.NewWriter(nil)
		return func(plain []byte) ([]byte, error) {
			var b bytes.Buffer
			w.Reset(&b)
			_, err := w.Write(plain)
			err = errors.Join(err, w.Close())
			return b.Bytes(), err
		}, nil
	case "zstd":
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		return func(plain []byte) ([]byte, error) { return w.EncodeAll(plain, nil), nil }, err
	}
	return nil, fmt.Errorf("%q is no encoding: identity, gzip or zstd", encoding)
}
