package torture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"felhom.eu/hub/internal/simulate"
)

const (
	guestsPerHost = 12 // of a report of about 2.6 KB
	// One report in so many lists a guest that cannot be accepted.
	badGuestEvery = 64
	// One exchange in so many is given up before its reply.
	hangUpEvery = 64

	exchangeTimeout = 20 * time.Second
	minRetry        = 20 * time.Millisecond
	maxRetry        = time.Second // a real agent is more patient; here a recovery is measured
)

// agents post, each one report at a time, until it is acknowledged.
type agents struct {
	address string
	ledger  *ledger
	every   time.Duration // between two reports of one agent
	members []*agent

	// Held for reading from when a report is made until it is acknowledged, so
	// that pause returns when none is under way.
	gate    sync.RWMutex
	running sync.WaitGroup
	stop    context.CancelFunc // no new reports
}

// agent is one host.
type agent struct {
	*agents
	id     string
	head   []byte
	made   *simulate.Agent
	random *rand.Rand
	link   link
}

// newAgents makes the agents of all keys, which post rate reports a second together.
func newAgents(address string, keys []simulate.Credential, l *ledger, rate float64, seed uint64) *agents {
	all := &agents{address: address, ledger: l, every: time.Duration(float64(len(keys)) / rate * float64(time.Second))}
	for i, k := range keys {
		all.members = append(all.members, &agent{
			agents: all, id: k.HostID,
			head: fmt.Appendf(nil, "POST /api/v1/host-report HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: ",
				address, k.APIKey.Reveal()),
			made:   simulate.NewAgent(seed, k.HostID, guestsPerHost),
			random: rand.New(rand.NewPCG(seed, uint64(i))),
			link:   link{address: address},
		})
	}
	return all
}

// start lets them report until end; alive ends everything, also what is not
// acknowledged.
func (all *agents) start(alive context.Context) {
	ctx, cancel := context.WithCancel(alive)
	all.stop = cancel
	for _, a := range all.members {
		all.running.Go(func() { a.run(ctx, alive) })
	}
}

// end returns when every report is acknowledged.
func (all *agents) end() {
	all.stop()
	all.running.Wait()
}

// pause returns when no report is under way; resume lets new ones come.
func (all *agents) pause()  { all.gate.Lock() }
func (all *agents) resume() { all.gate.Unlock() }

func (a *agent) run(ctx, alive context.Context) {
	defer a.link.close()
	var body []byte
	due := time.Now().Add(rand.N(a.every))
	for sleep(ctx, time.Until(due)) {
		due = later(due.Add(a.every), time.Now().Add(-a.every)) // what a pause cost is not made up for
		a.gate.RLock()
		if ctx.Err() == nil {
			body = a.report(alive, body[:0])
		}
		a.gate.RUnlock()
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// report makes a report in buf and sends it until it is acknowledged.
func (a *agent) report(alive context.Context, buf []byte) []byte {
	body := a.made.AppendReport(buf, time.Now())
	r := report{id: a.ledger.issued.Add(1), host: a.id, guests: uint16(bytes.Count(body, []byte(`"controller_version":`)))}
	if r.id%badGuestEvery == 0 {
		body = bytes.Replace(body, []byte(`"guests":[`), []byte(`"guests":[{"vmid":0,"name":"no guest"},`), 1)
		r.items = 1
	}
	body = appendID(body, r.id)
	request := strconv.AppendInt(bytes.Clone(a.head), int64(len(body)), 10)
	request = append(append(request, "\r\n\r\n"...), body...)
	sum := sha256.Sum256(body)
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		sent := time.Now()
		status := a.link.post(request, a.random.IntN(hangUpEvery) == 0)
		switch status {
		case http.StatusOK:
			a.ledger.acknowledged(sum, r, sent)
			return body
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
			a.ledger.setAside(status)
			return body
		}
		if !sleep(alive, wait/2+time.Duration(a.random.Int64N(int64(wait)))) {
			return body
		}
	}
}

// idMark begins the field that appendID adds, the last one of a report.
const idMark = `,"torture_id":`

// appendID adds a report's id to its body, so that no two are alike and one is
// found in a spool's file.
func appendID(body []byte, id uint64) []byte {
	body = append(body[:len(body)-1], idMark...)
	return append(strconv.AppendUint(body, id, 10), '}')
}

// sleep returns true after d, false when ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
