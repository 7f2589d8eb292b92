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
	Controllers bool          // in place of each host the controller in its first guest reports
	Readers     int           // beside the reports, each a customer's, on both routes once a second; at most one for each customer
	Connections int           // kept alive, one request at a time on each
	Rate        float64       // reports a second, sent when their time comes; 0: each as soon as the one before is answered
	Duration    time.Duration // at most one of this
	Count       int64         // and this is 0
}

const (
	hostPath       = "/api/v1/host-report"
	controllerPath = "/api/v1/report"

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

func key(seed string, host int) hub.Secret { return keyOf(seed, strconv.Itoa(host)) }

// keyOf is the key of a host by its number, or of a customer by its name.
func keyOf(seed, owner string) hub.Secret {
	sum := sha256.Sum256([]byte(seed + "/" + owner))
	return hub.NewSecret(hex.EncodeToString(sum[:]))
}

// fleet returns the hosts of a load.
func fleet(seed string, hosts int) (*hub.Fleet, error) {
	var spec hub.FleetSpec
	for c := range min(hosts, customers) {
		name := customerName(c)
		digest, err := hub.DigestKey(keyOf(seed, name).Reveal())
		if err != nil {
			return nil, err
		}
		spec.Customers = append(spec.Customers, &hub.Customer{Name: name, Keys: []hub.Key{{ID: "k1", Owner: hub.CustomerOwner(name), Digest: digest}}})
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

// agent is a host or a controller with its reports, made beforehand: the agents share the
// processors with the hub, and must cost little beside it.
type agent struct {
	bodies [][]byte // as they are sent
	plain  int      // bytes of each before it was compressed
	next   int
	stamp  int       // where reported_at stands in an uncompressed body
	last   time.Time // what stands there
	path   string    // to which they are sent
	key    string
}

// newAgent makes the reports of a host, or of the controller in its first guest.
func newAgent(l Load, host int, compress func([]byte) ([]byte, error)) (*agent, error) {
	id := hostID(host)
	now := time.Now().UTC()
	a := &agent{path: hostPath, key: key(l.Seed, host).Reveal(), last: now}
	var plain []byte
	if l.Controllers {
		a.path, a.key = controllerPath, keyOf(l.Seed, customerName(host)).Reveal()
		plain = simulate.NewController(1, customerName(host), hub.GuestID(id, 101)).AppendReport(nil, now)
	} else {
		plain = simulate.NewAgent(1, id, guests).AppendReport(nil, now)
	}
	const stamp = `"reported_at":"`
	a.stamp = bytes.Index(plain, []byte(stamp)) + len(stamp)
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
