package deadman

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// SightOptions are the parts of a Sight. All but Now and Every are needed.
type SightOptions struct {
	Timing   Timing
	Refusing func() (cause blind.Cause, why string) // why a report sent now would not be accepted; "": it would
	Memory   Memory                                 // where the log is kept
	Journal  Journal                                // by which intervals reach ClickHouse
	Now      func() time.Time                       // with a monotonic reading; default time.Now
	Every    Every                                  // default: by a time.Ticker
	Logger   *slog.Logger
}

// Sight keeps the log of blind time. It looks every Timing.Pulse whether the hub
// could accept a report, and writes down that it looked: a pause over Timing.Gap
// is blind time, be it that the process did not run, that it or the machine stood
// still, or that the clock was set. NewSight is inert; it is safe for concurrent
// use.
type Sight struct {
	o SightOptions

	mu        sync.Mutex
	looked    time.Time // the last look, by the wall clock; zero: none yet
	written   time.Time // the last look that was written down
	log       *blind.Log
	closed    []blind.Interval // all that is kept, oldest first
	unwritten []blind.Interval // of these, what is not in the journal yet
	open      *opening         // reports are being refused
}

// opening is blind time that goes on.
type opening struct {
	From  time.Time   `json:"from"`
	Cause blind.Cause `json:"cause"`
	Goes  bool        `json:"goes_on,omitempty"` // right after blind time of another cause
	why   string
}

// counts reports whether it is long enough until t. Agents try again within seconds:
// a short refusal is no blind time.
func (o *opening) counts(t time.Time, gap time.Duration) bool { return o.Goes || t.Sub(o.From) > gap }

// Names and forms of what Memory keeps.
const (
	aliveState = "alive"
	blindState = "blind"
)

type aliveMemory struct {
	Looked time.Time `json:"looked"`
	Open   *opening  `json:"open,omitempty"`
}

type blindMemory struct {
	Closed    []blind.Interval
	Unwritten []blind.Interval
}

// keptBlind is how far back the log reaches in memory: a host that was heard of
// before is long down.
const keptBlind = 90 * 24 * time.Hour

// NewSight returns a Sight that has not looked yet.
func NewSight(o SightOptions) *Sight {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Every == nil {
		o.Every = ticking
	}
	return &Sight{o: o}
}

// Run looks until ctx ends, and then once more.
func (s *Sight) Run(ctx context.Context) {
	s.Look()
	s.o.Every(ctx, s.o.Timing.Pulse, s.Look)
	s.Look()
}

// Look notes whether a report sent now would be accepted.
func (s *Sight) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
}

// Log looks, and returns the log of blind time, complete up to t; or why there
// can be no judgement now. It returns the same log until there is more.
func (s *Sight) Log(t time.Time) (*blind.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	if s.open != nil {
		return nil, fmt.Errorf("the hub accepts no reports since %s: %s", stamp(s.open.From), s.open.why)
	}
	if ahead := t.Sub(s.looked); ahead > s.o.Timing.Gap {
		return nil, fmt.Errorf("%s is %s ahead of the clock", stamp(t), ahead)
	}
	return s.log, nil
}

// Blind returns the intervals that are kept, oldest first.
func (s *Sight) Blind() []blind.Interval {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Intervals()
}

func (s *Sight) look() {
	now := s.o.Now().Round(0).UTC().Truncate(time.Millisecond)
	before := s.looked
	if before.IsZero() {
		before = s.remember(now)
	} else if now.Sub(before) > s.o.Timing.Gap {
		s.close(blind.Interval{From: before, To: now, Cause: blind.Suspended})
	}
	s.looked = now
	switch cause, why := s.o.Refusing(); {
	case cause != "" && s.open == nil:
		// It may have begun right after the look before.
		s.open = &opening{From: earlier(before, now), Cause: cause, why: why}
	case cause == "" && s.open != nil:
		if s.open.counts(now, s.o.Timing.Gap) {
			s.close(blind.Interval{From: s.open.From, To: now, Cause: s.open.Cause})
		}
		s.open = nil
	case cause != "" && cause != s.open.Cause && s.open.counts(now, s.o.Timing.Gap):
		s.close(blind.Interval{From: s.open.From, To: now, Cause: s.open.Cause})
		s.open = &opening{From: now, Cause: cause, Goes: true, why: why}
	case cause != "":
		s.open.Cause, s.open.why = cause, why
	}
	if now.Sub(s.written) >= s.o.Timing.Pulse/2 || now.Before(s.written) {
		s.write(aliveState, aliveMemory{now, s.open})
		s.written = now
	}
	s.tell()
}

// remember reads what an earlier run kept, and returns when that last looked. If
// this is not known, all time before now was blind.
func (s *Sight) remember(now time.Time) time.Time {
	var alive aliveMemory
	var kept blindMemory
	err := errors.Join(s.read(blindState, &kept), s.read(aliveState, &alive))
	s.closed, s.unwritten = kept.Closed, kept.Unwritten
	s.log = blind.New(s.closed...)
	if alive.Looked.IsZero() {
		if err != nil {
			s.o.Logger.Warn("when the hub last ran is not known: silence counts from now on", "error", err)
		}
		s.closed = append(s.closed, blind.Interval{From: time.UnixMilli(0).UTC(), To: now, Cause: blind.ProcessDown})
		s.log = blind.New(s.closed...)
		s.write(blindState, blindMemory{s.closed, s.unwritten})
		return now
	}
	if o := alive.Open; o != nil && o.counts(alive.Looked, s.o.Timing.Gap) {
		s.close(blind.Interval{From: o.From, To: alive.Looked, Cause: o.Cause})
	}
	if now.Sub(alive.Looked) > s.o.Timing.Gap {
		s.close(blind.Interval{From: alive.Looked, To: now, Cause: blind.ProcessDown})
		return now
	}
	return alive.Looked
}

// close adds blind time that is over.
func (s *Sight) close(i blind.Interval) {
	s.o.Logger.Warn("the hub could not have accepted reports; silence in this time does not count", "cause", i.Cause, "from", i.From, "to", i.To)
	s.log = s.log.Since(i.To.Add(-keptBlind)).Add(i)
	s.closed = s.log.Intervals()
	s.unwritten = append(s.unwritten, i)
	s.write(blindState, blindMemory{s.closed, s.unwritten})
}

// tell brings new blind time on its way to ClickHouse.
func (s *Sight) tell() {
	if len(s.unwritten) == 0 || s.open != nil {
		return
	}
	records := make([]spool.Record, len(s.unwritten))
	for n, i := range s.unwritten {
		body, err := wire.EncodeBlind(i)
		if err != nil {
			s.o.Logger.Error("blind time cannot be written", "error", err)
			return
		}
		records[n] = spool.Record{Kind: hub.KindBlind, Body: body}
	}
	if _, err := s.o.Journal.Append(context.Background(), records...); err != nil {
		s.o.Logger.Debug("blind time is not in the journal yet", "error", err)
		return
	}
	s.unwritten = nil
	s.write(blindState, blindMemory{s.closed, nil})
}

func (s *Sight) read(name string, into any) error {
	data, err := s.o.Memory.ReadState(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	return err
}

// write keeps a state; where it cannot, a crash makes more time blind, not less.
func (s *Sight) write(name string, state any) {
	data, err := json.Marshal(state)
	if err == nil {
		err = s.o.Memory.WriteState(name, data)
	}
	if err != nil {
		s.o.Logger.Warn("the log of blind time could not be written down", "error", err)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
