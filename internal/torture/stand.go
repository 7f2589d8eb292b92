package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"felhom.eu/hub/internal/engine"
)

// stand is where one fault is tried: a hub, its ClickHouse, the agents and the
// ledger. With an embedded engine there is no proxy and no engine of its own.
type stand struct {
	site     *site
	dir      string // everything that is kept when something went wrong
	embedded bool
	env      []string
	random   *rand.Rand
	alive    context.Context // ends everything, with its cause
	giveUp   context.CancelCauseFunc

	listen, admin string
	hub           *process
	engine        *engine.Engine
	proxy         *proxy
	ledger        *ledger
	agents        *agents
	excused       map[uint64]bool // reports whose bytes the harness destroyed before they were shipped
	paused        bool
}

// patience is how long anything may take before a round has failed.
const patience = 2 * time.Minute

func (s *stand) dataDir() string  { return filepath.Join(s.dir, "data") }
func (s *stand) spoolDir() string { return filepath.Join(s.dataDir(), "spool") }
func (s *stand) hubLog() string   { return filepath.Join(s.dir, "hub.log") }

// start brings up ClickHouse, the hub and the agents; reports are acknowledged
// when it returns.
func (s *stand) start(rate float64, hosts int, seed uint64) (err error) {
	if s.listen, err = freeAddress(); err != nil {
		return err
	}
	if s.admin, err = freeAddress(); err != nil {
		return err
	}
	if !s.embedded {
		if err := s.startEngine(); err != nil {
			return err
		}
	}
	s.ledger, s.excused = newLedger(), map[uint64]bool{}
	s.agents = newAgents(s.listen, s.site.keys[:hosts], s.ledger, rate, seed)
	s.agents.start(s.alive)
	began := time.Now()
	if err := s.startHub(); err != nil {
		return err
	}
	if err := s.acknowledges(began); err != nil {
		return err
	}
	return s.shipped(began) // the schema is there
}

// startEngine runs a ClickHouse beside the hub, behind the proxy.
func (s *stand) startEngine() (err error) {
	s.engine, err = engine.New(engine.Options{
		Dir: filepath.Join(s.dir, "clickhouse"), Launcher: filepath.Join(s.site.bin, "hub-engine"), MaxBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	if err := s.engine.Start(s.alive); err != nil {
		return err
	}
	s.proxy, err = newProxy(func() string { return s.engine.Endpoint().TCP })
	return err
}

// startHub starts the hub; it does not wait.
func (s *stand) startHub() (err error) {
	s.hub, err = s.serve(s.listen, s.admin, s.hubLog())
	return err
}

// serve starts a hub on the stand's data_dir.
func (s *stand) serve(listen, admin, log string) (*process, error) {
	env := s.env
	if !s.embedded {
		at, err := url.Parse(s.engine.Describe().NativeURL(engine.RoleHub).Reveal())
		if err != nil {
			return nil, err
		}
		at.Host = s.proxy.address()
		env = append(env[:len(env):len(env)], "HUB_CLICKHOUSE_DSN="+at.String())
	}
	return s.site.serve(s.dataDir(), listen, admin, log, env...)
}

// killHub ends the hub with kill -9.
func (s *stand) killHub() {
	s.ledger.running(false)
	s.hub.kill()
}

// stopHub ends the hub with SIGTERM.
func (s *stand) stopHub() error {
	s.ledger.running(false)
	status, err := s.hub.stop()
	if err == nil && status != 0 {
		err = fmt.Errorf("hub serve ended with status %d after SIGTERM: see %s", status, s.hubLog())
	}
	return err
}

// restart starts the hub again and waits until it acknowledges; it returns how
// long that took since it went down.
func (s *stand) restart(down time.Time) (time.Duration, error) {
	began := time.Now()
	if err := s.startHub(); err != nil {
		return 0, err
	}
	if err := s.acknowledges(began); err != nil {
		return 0, err
	}
	return time.Since(down), nil
}

// pause has every report acknowledged and no new one made; resume ends that.
func (s *stand) pause() error {
	defer s.watch("what is under way was not acknowledged")()
	s.agents.pause()
	s.paused = true
	s.ledger.running(false)
	return context.Cause(s.alive)
}

// watch gives up after the patience, unless the result is called before.
func (s *stand) watch(why string) (done func()) {
	timer := time.AfterFunc(patience, func() { s.giveUp(fmt.Errorf("%s within %s: see %s", why, patience, s.hubLog())) })
	return func() { timer.Stop() }
}

func (s *stand) resume() {
	s.paused = false
	s.agents.resume()
}

// traffic lets reports come for a while, up to most.
func (s *stand) traffic(least, most time.Duration) error {
	if !sleep(s.alive, least+time.Duration(s.random.Int64N(int64(most-least)))) {
		return context.Cause(s.alive)
	}
	return nil
}

// acknowledges waits for a report that was sent and acknowledged after t.
func (s *stand) acknowledges(t time.Time) error {
	err := s.until("an acknowledgement", func() bool { return s.ledger.acknowledgedSince(t) })
	if err == nil {
		s.ledger.running(true)
	}
	return err
}

// shipped waits until everything acknowledged before t is in ClickHouse, as the
// hub says.
func (s *stand) shipped(t time.Time) error {
	return s.until("shipping", func() bool {
		st, err := s.status()
		return err == nil && !st.ClickHouse.ShippedAt.IsZero() &&
			(st.Spool.OldestUnshipped.IsZero() || st.Spool.OldestUnshipped.After(t))
	})
}

// drained waits until the spool is empty, with patience for as long as it gets
// emptier.
func (s *stand) drained() error {
	left, err := int64(math.MaxInt64), error(nil)
	for left > 0 && err == nil {
		err = s.until("a spool with less in it", func() bool {
			st, err := s.status()
			less := err == nil && st.Spool.UnshippedRecords < left
			if less {
				left = st.Spool.UnshippedRecords
			}
			return less
		})
	}
	return err
}

func (s *stand) until(what string, f func() bool) error {
	for deadline := time.Now().Add(patience); !f(); {
		select {
		case <-s.hub.done:
			return fmt.Errorf("the hub ended by itself (%s): see %s", s.hub.cmd.ProcessState, s.hubLog())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not come within %s: see %s", what, patience, s.hubLog())
		}
		if !sleep(s.alive, 5*time.Millisecond) {
			return context.Cause(s.alive)
		}
	}
	return nil
}

// hubStatus is what the harness reads of /readyz, mostly its detail.
type hubStatus struct {
	Ready bool `json:"-"`
	Spool struct {
		UnshippedRecords int64     `json:"unshipped_records"`
		OldestUnshipped  time.Time `json:"oldest_unshipped"`
		Damage           int       `json:"damage"`
	} `json:"spool"`
	ClickHouse struct {
		ShippedAt time.Time `json:"shipped_at"`
	} `json:"clickhouse"`
}

var statusClient = &http.Client{Timeout: 5 * time.Second}

func (s *stand) status() (st hubStatus, err error) {
	reply, err := statusClient.Get("http://" + s.admin + "/readyz")
	if err != nil {
		return st, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return st, err
	}
	var answer struct {
		Ready  bool      `json:"ready"`
		Detail hubStatus `json:"detail"`
	}
	err = json.Unmarshal(body, &answer)
	st, st.Ready = answer.Detail, answer.Ready
	return st, err
}

// logged reports whether the hub's log holds a text behind an offset.
func (s *stand) logged(offset int64, texts ...string) bool {
	log, err := os.ReadFile(s.hubLog())
	if err != nil || int64(len(log)) < offset {
		return false
	}
	for _, text := range texts {
		if strings.Contains(string(log[offset:]), text) {
			return true
		}
	}
	return false
}

func (s *stand) logSize() int64 {
	info, err := os.Stat(s.hubLog())
	if err != nil {
		return 0
	}
	return info.Size()
}

// finish lets every report be acknowledged and shipped.
func (s *stand) finish() error {
	if s.paused {
		s.resume()
	}
	done := s.watch("the last reports were not acknowledged")
	s.agents.end()
	done()
	s.ledger.running(false)
	if err := context.Cause(s.alive); err != nil {
		return err
	}
	if n := len(s.ledger.refused); n > 0 {
		return fmt.Errorf("good reports were refused, by status: %v", s.ledger.refused)
	}
	return s.drained()
}

// close ends everything, whatever state it is in.
func (s *stand) close() error {
	var err error
	s.giveUp(context.Canceled)
	if s.agents != nil {
		if s.paused {
			s.resume()
		}
		s.agents.end()
	}
	if s.hub != nil {
		select {
		case <-s.hub.done:
		default:
			err = s.stopHub()
		}
	}
	if s.proxy != nil {
		s.proxy.close()
	}
	if s.engine != nil {
		err = errors.Join(err, s.engine.Stop(context.Background()))
	}
	return err
}

// database returns the address at which ClickHouse is asked.
func (s *stand) database() (string, error) {
	if !s.embedded {
		return s.engine.Describe().HTTPURL(engine.RoleHub).Reveal(), nil
	}
	d, err := engine.Describe(s.embeddedDir())
	if err != nil {
		return "", err
	}
	return d.HTTPURL(engine.RoleHub).Reveal(), nil
}

func (s *stand) embeddedDir() string { return filepath.Join(s.dataDir(), "clickhouse") }
