// Package deadman is the dead-man's switch: it watches silence.
//
// Every interval the [Switch] takes a slot time T, makes sure that it may judge
// at all, asks ClickHouse which hosts may have changed, adds what it knows
// itself, and lets the pure function [Step] decide each. State and events of
// one evaluation are one durable write to the spool; they reach ClickHouse the
// way reports do.
//
// An error, a timeout or a backlog is never absence: the evaluation is held
// back and counted, and the next one judges.
package deadman

import (
	"context"
	"errors"
	"fmt"
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
	// Candidates returns the hosts whose state may change at t, given that the
	// hub could accept reports since ready. It may return more, never fewer.
	Candidates(ctx context.Context, t, ready time.Time) ([]clickhouse.Silence, error)
	// FirstReports returns, for each host, received_at of its first report
	// after the given instant; hosts without one are left out.
	FirstReports(ctx context.Context, after map[string]time.Time) (map[string]time.Time, error)
}

// Backlog tells how far ClickHouse is behind.
type Backlog interface {
	// Visible returns nil when everything acknowledged up to t, and everything
	// that an earlier run of the hub left, can be seen by queries.
	Visible(t time.Time) error
}

// Journal makes a decision durable.
type Journal interface {
	Append(ctx context.Context, records ...spool.Record) ([]hub.Receipt, error)
}

// Options are the parts of a Switch. All but Base, Interval and Now are needed.
type Options struct {
	Store    Store
	Backlog  Backlog
	Journal  Journal
	Fleet    func() *hub.Fleet                       // nil: none in force
	LastSeen func(hostID string) (hub.Receipt, bool) // newest report that this process accepted
	Ready    func() (time.Time, bool)                // since when reports can be accepted
	Base     hub.Thresholds                          // where the fleet says nothing
	Interval time.Duration                           // between evaluations; default 60 s
	Now      func() time.Time                        // default time.Now
	Logger   *slog.Logger
}

// Status is what the switch says of itself.
type Status struct {
	LastJudged time.Time // slot time of the last evaluation that judged
	HeldBy     string    // why the newest evaluation was held back; empty: it judged
	HeldSince  time.Time
	Evaluated  uint64 // evaluations that judged
	Held       uint64 // evaluations that were held back
	Events     map[hub.EventType]uint64
}

// Switch evaluates. New is inert; Run or Tick does the work.
type Switch struct {
	o Options

	// What this process decided: newer than the rows of ClickHouse until the
	// shipper has caught up. Only Tick uses it.
	decided map[string]*hub.HostState

	mu     sync.Mutex
	status Status
}

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
	return &Switch{o: o, decided: map[string]*hub.HostState{}, status: Status{Events: map[hub.EventType]uint64{}}}
}

// Run evaluates every interval until ctx ends.
func (s *Switch) Run(ctx context.Context) {
	ticker := time.NewTicker(s.o.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// The error is in the status and the log; the next tick tries again.
			_ = s.Tick(ctx, s.o.Now().UTC().Truncate(time.Millisecond))
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

// outcome is what was decided of one host.
type outcome struct {
	state  hub.HostState
	events []hub.Event
}

// Tick makes one evaluation at slot time t. An error means that it was held
// back: what it did not decide is left to the next one. Tick is not safe for concurrent use.
func (s *Switch) Tick(ctx context.Context, t time.Time) error {
	outcomes, err := s.decide(ctx, t)
	if err == nil {
		err = s.record(ctx, outcomes)
	}
	if err != nil {
		s.held(ctx, t, err)
		return err
	}
	s.judged(t)
	return nil
}

func (s *Switch) decide(ctx context.Context, t time.Time) ([]outcome, error) {
	fleet := s.o.Fleet()
	if fleet == nil {
		return nil, errors.New("no fleet is in force yet")
	}
	ready, ok := s.o.Ready()
	if !ok {
		return nil, errors.New("the hub does not accept reports yet")
	}
	if err := s.o.Backlog.Visible(t.Add(-watermark)); err != nil {
		return nil, err
	}
	candidates, err := s.o.Store.Candidates(ctx, t, ready)
	if err != nil {
		return nil, fmt.Errorf("the query for silent hosts failed: %w", err)
	}
	evidence := s.evidence(fleet, candidates)
	if err := s.addFirstReports(ctx, evidence); err != nil {
		return nil, fmt.Errorf("the query for first reports failed: %w", err)
	}
	for i := range evidence {
		host, _ := fleet.Enrolled(evidence[i].HostID)
		evidence[i].Lifecycle, evidence[i].Thresholds = host.Lifecycle, fleet.Thresholds(host, s.o.Base)
	}
	away := blind.New(blind.Interval{From: time.UnixMilli(0), To: ready, Cause: blind.ProcessDown})
	var outcomes []outcome
	for _, e := range evidence {
		if state, events := Step(e, NewRule(t, away, Timing{})); state != nil {
			outcomes = append(outcomes, outcome{*state, events})
		}
	}
	return outcomes, nil
}

// evidence joins what ClickHouse knows with what only this process knows: the
// fleet in force, its own decisions, and reports that are still in the spool.
func (s *Switch) evidence(fleet *hub.Fleet, candidates []clickhouse.Silence) []Evidence {
	list := make([]Evidence, 0, len(candidates))
	for _, c := range candidates {
		host, ok := fleet.Enrolled(c.HostID)
		if !ok || host.Lifecycle != hub.Active {
			continue
		}
		e := Evidence{HostID: c.HostID, CustomerID: host.Customer, Last: c.Last, LastAt: c.LastAt, Previous: c.Previous}
		if own := s.decided[c.HostID]; own != nil && (e.Previous == nil || own.DecidedAt.After(e.Previous.DecidedAt)) {
			e.Previous = own
		}
		if seen, ok := s.o.LastSeen(c.HostID); ok && seen.ReceivedAt.After(e.LastAt) {
			if p := e.Previous; p != nil && p.State != hub.OK && !c.LastAt.After(p.LastAt) {
				continue // it spoke again; which report was the first is known when ClickHouse has it
			}
			e.Last, e.LastAt = seen.Position, seen.ReceivedAt
		}
		list = append(list, e)
	}
	return list
}

// addFirstReports looks up, for hosts that spoke again, which report ended the
// silence: the newest one may have come later.
func (s *Switch) addFirstReports(ctx context.Context, evidence []Evidence) error {
	after := map[string]time.Time{}
	for _, e := range evidence {
		if p := e.Previous; p != nil && p.State != hub.OK && e.LastAt.After(p.LastAt) {
			after[e.HostID] = p.LastAt
		}
	}
	if len(after) == 0 {
		return nil
	}
	first, err := s.o.Store.FirstReports(ctx, after)
	if err != nil {
		return err
	}
	for i := range evidence {
		evidence[i].FirstAfter = first[evidence[i].HostID]
	}
	return nil
}

// record writes the outcomes to the spool, each host's state and events in one
// record, and remembers what is durable.
func (s *Switch) record(ctx context.Context, outcomes []outcome) error {
	for part := range slices.Chunk(outcomes, hostsPerRecord) {
		var d hub.Decision
		for _, o := range part {
			d.States = append(d.States, o.state)
			d.Events = append(d.Events, o.events...)
		}
		body, err := wire.EncodeDecision(d)
		if err != nil {
			return err
		}
		if _, err := s.o.Journal.Append(ctx, spool.Record{Kind: hub.KindDecision, Body: body}); err != nil {
			return fmt.Errorf("the decision could not be made durable: %w", err)
		}
		for i := range part {
			s.decided[part[i].state.HostID] = &part[i].state
		}
		s.announce(d.Events)
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

func (s *Switch) held(ctx context.Context, t time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Held++
	if s.status.HeldBy == "" && ctx.Err() == nil {
		s.o.Logger.Warn("the switch is held back", "reason", err)
	}
	if s.status.HeldBy == "" {
		s.status.HeldSince = t
	}
	s.status.HeldBy = err.Error()
}

func (s *Switch) judged(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.HeldBy != "" {
		s.o.Logger.Info("the switch judges again", "held_since", s.status.HeldSince)
	}
	s.status.HeldBy, s.status.HeldSince = "", time.Time{}
	s.status.LastJudged = t
	s.status.Evaluated++
}
