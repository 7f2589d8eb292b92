// Package deadman is the dead-man's switch: it watches silence.
//
// Every interval the [Switch] takes a slot time T, makes sure that it may judge
// at all, asks ClickHouse which hosts may have changed, adds what it knows
// itself, and has the pure function [Decide] judge them. State and events of a
// host are one durable write to the spool; they reach ClickHouse the way reports
// do.
//
// Silence counts in ready time: that in which the hub could have accepted a
// report. What was not is kept by [Sight] in a log of blind time. An error, a
// timeout or an answer that cannot be right is never absence: the evaluation is held
// back and counted, and the next one judges.
//
// Everything acknowledged counts from the moment on at which it is, whether
// ClickHouse has it or not: the hub's own index knows the newest reports of every
// host, and [Recall] the decisions that the spool holds. So a ClickHouse that is an
// hour behind, which still has all that was shipped to it, delays nothing.
package deadman

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// Store asks ClickHouse.
type Store interface {
	// Candidates returns the hosts whose state may change. It may return more,
	// never fewer.
	Candidates(ctx context.Context, q clickhouse.Question) (clickhouse.Answer, error)
	// States gives f the newest recorded state of each host, of all where none is
	// named, and bad what cannot be read.
	States(ctx context.Context, hosts []string, f func(hub.HostState), bad func(error)) error
	// DecidedSince returns when the newest recorded state of a host was decided, for
	// those of which that was after t.
	DecidedSince(ctx context.Context, t time.Time) (map[string]time.Time, error)
	// FirstReports returns, for each host, received_at of its first report
	// after the given instant; hosts without one are left out.
	FirstReports(ctx context.Context, after map[string]time.Time) (map[string]time.Time, error)
	// Announcements returns what a host's newest report says of maintenance, of the
	// hosts that have announced any since an instant.
	Announcements(ctx context.Context, since time.Time) (map[string]clickhouse.Announcement, error)
}

// DeadlineStore asks ClickHouse about deadlines.
type DeadlineStore interface {
	// Overdue returns the guests of which a deadline may have passed, and those named.
	// It may return more, never fewer.
	Overdue(ctx context.Context, cuts [3]time.Time, named []string) ([]clickhouse.GuestSuccess, error)
	// FirstSuccesses returns, for each guest, the first success after the given instant.
	FirstSuccesses(ctx context.Context, d hub.Deadline, after map[string]time.Time) (map[string]time.Time, error)
	// DeadlineStates gives f the newest recorded state of each deadline of which that
	// was decided after t.
	DeadlineStates(ctx context.Context, t time.Time, f func(hub.DeadlineState), bad func(error)) error
}

// Backlog tells how far ClickHouse is behind.
type Backlog interface {
	// Behind returns received_at of the oldest acknowledged record that ClickHouse
	// does not have yet, zero where it has them all, and whether it may have lost some
	// that it had.
	Behind() (oldest time.Time, doubt bool)
}

// Journal makes a decision durable.
type Journal interface {
	Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error)
}

// Eyes tell when the hub could not have accepted a report.
type Eyes interface {
	// Log returns the blind log, complete up to t and the same as long as nothing
	// is added; or why there can be no judgement at t.
	Log(t time.Time) (*blind.Log, error)
	// Blind returns the intervals of the log, oldest first, also while there can be no
	// judgement.
	Blind() []blind.Interval
}

// Memory keeps small states durably; see spool.Spool.
type Memory interface {
	ReadState(name string) ([]byte, error)
	WriteState(name string, data []byte) error
}

// Every calls f every d until ctx ends, one call after the other; calls that come
// too soon after a slow one are left out.
type Every func(ctx context.Context, d time.Duration, f func())

// Options are the parts of a Switch. All but Deadlines, Records, Ready, Memory,
// FirstSeen, Newcomers, Describe, Announced, Recall, Told, Judged, Interval, Now and Every are needed.
type Options struct {
	Store     Store
	Deadlines DeadlineStore // nil: no deadlines are judged
	Records   Records       // for Explain alone
	Ready     func() error  // why ClickHouse may not be asked yet; nil: it always may
	Backlog   Backlog
	Journal   Journal
	Eyes      Eyes
	Memory    Memory
	Fleet     func() *hub.Fleet                       // nil: none in force
	LastSeen  func(hostID string) (hub.Receipt, bool) // newest report acknowledged, as far as the hub itself knows: all that ClickHouse does not have
	// FirstSeen returns received_at of a host's first report after an instant, where
	// the hub itself knows that.
	FirstSeen func(hostID string, after time.Time) (at time.Time, ok bool)
	// Newcomers returns the guests whose controller was first heard since the last call.
	Newcomers func() []string
	// Describe returns what was last seen of hosts and guests, at most 1,000 of each, for
	// alarms to say.
	Describe func(ctx context.Context, hosts, guests []string) (map[string]clickhouse.Sight, error)
	// Announced returns what a host's newest report says of maintenance, as far as the
	// hub itself knows: received_at, and until when (zero: nothing).
	Announced func(hostID string) (at, until time.Time, ok bool)
	Recall    *Recall           // what earlier runs decided, as far as the spool holds it
	Told      func([]hub.Event) // called with events that are durable; it must not wait
	Judged    func(t time.Time) // called after each evaluation that judged
	Base      hub.Thresholds    // where the fleet says nothing
	Timing    Timing
	Interval  time.Duration    // between evaluations; default 60 s
	Now       func() time.Time // default time.Now
	Every     Every            // default: by a time.Ticker
	Logger    *slog.Logger
}

// Status is what the switch says of itself.
type Status struct {
	LastJudged time.Time // slot time of the last evaluation that judged
	Judging    time.Time // slot time of the evaluation that is under way; zero: none is
	HeldBy     string    // why the newest evaluation was held back; empty: it judged
	HeldSince  time.Time
	Evaluated  uint64    // evaluations that judged
	Held       uint64    // evaluations that were held back
	KeptBack   int       // hosts whose silence is not told yet, because the whole fleet fell silent
	KeptUntil  time.Time // until then at most
	Failed     uint64    // times that a host could not be judged
	Events     map[hub.EventType]uint64
}

// Switch evaluates. New is inert; Run or Tick does the work.
type Switch struct {
	o Options

	// Only Tick uses these.
	memory   *memory
	loaded   bool      // memory has what earlier runs decided
	asked    bool      // ClickHouse told of all hosts once
	caughtUp time.Time // memory has what others decided until then
	fleet    *hub.Fleet
	survey   survey
	unseen   []string // guests of whose controllers no report was looked at yet
	durable  durable
	recalled bool // durable was read

	mu     sync.Mutex
	status Status
}

// durable is what the switch must not forget over a restart, apart from the
// states of hosts.
type durable struct {
	HeldSince time.Time `json:"held_since,omitzero"`
	HeldTold  bool      `json:"held_told,omitzero"` // HubSwitchHeld was raised
	Hold      Hold      `json:"hold,omitzero"`
}

const durableState = "switch" // name of the state that Memory keeps

const (
	watermark       = 5 * time.Second
	defaultInterval = 60 * time.Second
	// hosts of one record: bounds its size to some hundred KiB.
	hostsPerRecord = 1000
)

// New returns a switch that has not looked yet.
func New(o Options) *Switch {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.FirstSeen == nil {
		o.FirstSeen = func(string, time.Time) (time.Time, bool) { return time.Time{}, false }
	}
	if o.Newcomers == nil {
		o.Newcomers = func() []string { return nil }
	}
	if o.Announced == nil {
		o.Announced = func(string) (at, until time.Time, ok bool) { return at, until, false }
	}
	if o.Recall == nil {
		o.Recall = NewRecall()
	}
	if o.Every == nil {
		o.Every = ticking
	}
	return &Switch{o: o, memory: o.Recall.memory, status: Status{Events: map[hub.EventType]uint64{}}}
}

// Run evaluates every interval until ctx ends.
func (s *Switch) Run(ctx context.Context) {
	s.o.Every(ctx, s.o.Interval, func() {
		// The error is in the status and the log; the next tick tries again.
		_ = s.Tick(ctx, s.o.Now().UTC().Truncate(time.Millisecond))
	})
}

// ticking is Every by the machine's clock.
func ticking(ctx context.Context, d time.Duration, f func()) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// Status returns a copy.
func (s *Switch) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Events = maps.Clone(s.status.Events)
	return st
}

// Tick makes one evaluation at slot time t. An error means that it was held
// back: what it did not decide is left to the next one. Tick is not safe for concurrent use.
func (s *Switch) Tick(ctx context.Context, t time.Time) error {
	s.underWay(t)
	defer s.underWay(time.Time{})
	s.recall()
	if err := s.evaluate(ctx, t); err != nil {
		s.held(ctx, t, err)
		return err
	}
	s.judged(t)
	return nil
}

func (s *Switch) underWay(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Judging = t
}

var errMoved = errors.New("while ClickHouse was asked, blind time came to light")

func (s *Switch) evaluate(ctx context.Context, t time.Time) error {
	fleet := s.o.Fleet()
	if fleet == nil {
		return errors.New("no fleet is in force yet")
	}
	log, err := s.o.Eyes.Log(t)
	if err != nil {
		return err
	}
	if s.o.Ready != nil {
		if err := s.o.Ready(); err != nil {
			return err
		}
	}
	if err := s.load(ctx, fleet, t); err != nil {
		return fmt.Errorf("the query for recorded states failed: %w", err)
	}
	if s.fleet != fleet {
		s.fleet, s.survey = fleet, s.look(fleet)
	}
	rule := NewRule(t, log, s.o.Timing)
	evidence, err := s.gather(ctx, rule)
	if err != nil {
		return err
	}
	out := s.decide(ctx, rule, evidence)
	// Whatever stopped the process meanwhile, or the clock, is known by now.
	if again, err := s.o.Eyes.Log(t); err != nil || again != log {
		return errors.Join(errMoved, err)
	}
	if err := s.record(ctx, out); err != nil {
		return err
	}
	return s.judgeDeadlines(ctx, rule)
}

// load fills the memory with what earlier runs decided, once: beside what the spool
// holds of it.
func (s *Switch) load(ctx context.Context, fleet *hub.Fleet, t time.Time) error {
	if s.loaded {
		return nil
	}
	err := s.o.Store.States(ctx, nil, func(state hub.HostState) {
		if h, ok := fleet.Host(state.HostID); ok {
			state.HostID = h.ID // one text for both
		}
		s.memory.put(state)
	}, s.badRow)
	if err == nil && s.o.Deadlines != nil {
		err = s.o.Deadlines.DeadlineStates(ctx, time.Time{}, s.memory.putDeadline, s.badRow)
	}
	s.loaded, s.caughtUp = err == nil, t.Add(-watermark)
	s.fleet = nil
	return err
}

func (s *Switch) badRow(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Failed++
	s.o.Logger.Error("a row of the switch cannot be read; its host is judged without it", "error", err)
}

// decide judges until no report has come in meanwhile: one that did wins, and
// its host is left to the next evaluation. However often that is, it waits but once for
// what was last seen.
func (s *Switch) decide(ctx context.Context, rule *Rule, evidence []Evidence) Outcome {
	ctx, cancel := context.WithTimeout(ctx, describing)
	defer cancel()
	for {
		out := Decide(Input{Rule: rule, Evidence: evidence, Known: s.knowledge, Host: s.hostSeen, Hold: s.durable.Hold})
		s.describe(ctx, out.alarms())
		silent := map[string]bool{}
		for _, d := range out.Hosts {
			if s := d.State; s.Lifecycle == hub.Active && s.State != hub.OK && s.State != hub.NeverSeen {
				silent[d.State.HostID] = true
			}
		}
		before := len(evidence)
		evidence = slices.DeleteFunc(slices.Clone(evidence), func(e Evidence) bool {
			seen, ok := s.o.LastSeen(e.HostID)
			return ok && silent[e.HostID] && e.older(seen)
		})
		if len(evidence) == before {
			return out
		}
	}
}

// hostSeen is what is known of the host of a guest.
func (s *Switch) hostSeen(host string) HostSeen {
	seen := HostSeen{State: s.memory.get(host)}
	if seen.State != nil {
		seen.LastAt = seen.State.LastAt
	}
	if r, ok := s.o.LastSeen(host); ok {
		seen.LastAt = latest(seen.LastAt, r.ReceivedAt)
	}
	return seen
}

// record writes the outcome to the spool, each host's state and events in one
// record, and remembers what is durable.
func (s *Switch) record(ctx context.Context, out Outcome) error {
	for host, err := range out.Failed {
		s.badRow(fmt.Errorf("host %q: %w", host, err))
	}
	first := hub.Decision{Events: out.Mass}
	for part := range slices.Chunk(out.Hosts, hostsPerRecord) {
		d := first
		first = hub.Decision{}
		for _, h := range part {
			d.States = append(d.States, h.State)
			d.Events = append(d.Events, h.Events...)
		}
		if err := s.append(ctx, d); err != nil {
			return err
		}
		for i := range part {
			s.memory.put(part[i].State)
		}
	}
	if len(first.Events) > 0 {
		if err := s.append(ctx, first); err != nil {
			return err
		}
	}
	if out.Hold != s.durable.Hold {
		s.durable.Hold = out.Hold
		s.keep()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.KeptBack, s.status.KeptUntil = out.Held, out.Hold.Until
	return nil
}

// append makes a decision durable, and then tells of it.
func (s *Switch) append(ctx context.Context, d hub.Decision) error {
	body, err := wire.EncodeDecision(d)
	if err != nil {
		return err
	}
	if _, err := s.o.Journal.Append(ctx, spool.Record{Kind: hub.KindDecision, Body: body}); err != nil {
		return fmt.Errorf("the decision could not be made durable: %w", err)
	}
	s.announce(d.Events)
	if s.o.Told != nil && len(d.Events) > 0 {
		s.o.Told(d.Events)
	}
	return nil
}

// announce counts and logs events that are durable.
func (s *Switch) announce(events []hub.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.status.Events[e.Type]++
		s.o.Logger.Info("event", "type", e.Type, "host", e.HostID, "customer", e.CustomerID, "at", e.At,
			"silence_seconds", e.SilenceSeconds, "id", e.ID)
	}
}

// held notes why the evaluation was held back. When that has gone on for a
// while, the operators are told, by a way on which there is no ClickHouse.
func (s *Switch) held(ctx context.Context, t time.Time, err error) {
	if ctx.Err() != nil {
		return // the hub stops
	}
	if s.durable.HeldSince.IsZero() || s.durable.HeldSince.After(t) {
		s.durable.HeldSince, s.durable.HeldTold = t, false
		s.keep()
		s.o.Logger.Warn("the switch is held back", "reason", err)
	}
	since := s.durable.HeldSince
	s.mu.Lock()
	s.status.Held++
	s.status.HeldBy, s.status.HeldSince = err.Error(), since
	s.mu.Unlock()
	if s.durable.HeldTold || t.Sub(since) < s.o.Timing.Hold {
		return
	}
	event := hub.Event{ID: hub.FleetEventID(hub.HubSwitchHeld, stamp(since)), Type: hub.HubSwitchHeld, At: since.Add(s.o.Timing.Hold),
		DetectedAt: t, Source: "switch", Reason: fmt.Sprintf("held_back: since=%s by=%q", stamp(since), err)}
	s.o.Logger.Error("the switch has been held back for long: silence is not noticed", "since", since, "reason", err)
	if s.append(ctx, hub.Decision{Events: []hub.Event{event}}) == nil {
		s.durable.HeldTold = true
		s.keep()
	}
}

func (s *Switch) judged(t time.Time) {
	if !s.durable.HeldSince.IsZero() {
		s.o.Logger.Info("the switch judges again", "held_since", s.durable.HeldSince)
		s.durable.HeldSince, s.durable.HeldTold = time.Time{}, false
		s.keep()
	}
	s.mu.Lock()
	s.status.HeldBy, s.status.HeldSince = "", time.Time{}
	s.status.LastJudged = t
	s.status.Evaluated++
	s.mu.Unlock()
	if s.o.Judged != nil {
		s.o.Judged(t)
	}
}

// recall reads what an earlier run kept. Without it a hold may last longer, and
// the operators may be told of it twice.
func (s *Switch) recall() {
	if s.recalled || s.o.Memory == nil {
		return
	}
	s.recalled = true
	data, err := s.o.Memory.ReadState(durableState)
	if err == nil {
		err = json.Unmarshal(data, &s.durable)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.o.Logger.Warn("what the switch told the operators is forgotten, and may be told again", "error", err)
		s.durable = durable{}
	}
}

func (s *Switch) keep() {
	if s.o.Memory == nil {
		return
	}
	data, err := json.Marshal(s.durable)
	if err == nil {
		err = s.o.Memory.WriteState(durableState, data)
	}
	if err != nil {
		s.o.Logger.Warn("what the switch told the operators could not be written down", "error", err)
	}
}
