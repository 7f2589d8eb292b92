package deadman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/spool"
	"felhom.eu/hub/internal/wire"
)

// outside is what a Sight sees and where it writes.
type outside struct {
	now     time.Time
	cause   blind.Cause
	full    bool // the journal takes nothing
	kept    map[string][]byte
	journal []string
}

func (o *outside) ReadState(name string) ([]byte, error) {
	if data, ok := o.kept[name]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (o *outside) WriteState(name string, data []byte) error { o.kept[name] = data; return nil }

func (o *outside) Append(_ context.Context, records ...spool.Record) ([]hub.Receipt, error) {
	if o.full {
		return nil, errors.New("full")
	}
	for _, r := range records {
		i, err := wire.DecodeBlind(r.Body)
		if err != nil || r.Kind != hub.KindBlind {
			return nil, fmt.Errorf("kind %d: %w", r.Kind, err)
		}
		o.journal = append(o.journal, fmt.Sprintf("%s %s-%s", i.Cause, i.From.Sub(start), i.To.Sub(start)))
	}
	return nil, nil
}

func (o *outside) sight() *Sight {
	return NewSight(SightOptions{Timing: TimingFor(30*time.Minute, 0), Memory: o, Journal: o, Logger: slog.New(slog.DiscardHandler),
		Refusing: func() (blind.Cause, string) { return o.cause, "why" }, Now: func() time.Time { return o.now }})
}

// lookEvery has s look now, and every 10 s until d.
func (o *outside) lookEvery(s *Sight, d time.Duration) {
	s.Look()
	for o.now.Before(at(d)) {
		o.now = o.now.Add(min(10*time.Second, at(d).Sub(o.now)))
		s.Look()
	}
}

func TestBlindTimeOfEachCause(t *testing.T) {
	o := &outside{now: start, kept: map[string][]byte{}}
	s := o.sight()
	o.lookEvery(s, time.Minute)
	if log, err := s.Log(o.now); err != nil || log.Blind(start, o.now) != 0 || log.Ready(start.AddDate(-9, 0, 0), start) != 0 {
		t.Fatalf("what was before the first look is not blind, or what came after is: %v", err)
	}

	o.now = at(time.Minute + 30*time.Second) // no pause: exactly as long as may be
	s = o.sight()
	o.lookEvery(s, 2*time.Minute)
	o.now = at(2*time.Minute + 31*time.Second)
	s = o.sight() // down for 31 s
	o.lookEvery(s, 5*time.Minute)
	o.now = at(65 * time.Minute)
	s.Look() // stood still for an hour
	o.cause, o.full = blind.SpoolFull, true
	o.lookEvery(s, 66*time.Minute)
	if _, err := s.Log(o.now); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("it judges while the spool refuses: %v", err)
	}
	o.cause = ""
	o.lookEvery(s, 67*time.Minute)
	o.cause, o.full = blind.NotReady, false
	o.lookEvery(s, 67*time.Minute+10*time.Second)
	o.cause = "" // too short to count
	o.lookEvery(s, 68*time.Minute)
	o.cause = blind.AuthBroken
	o.lookEvery(s, 70*time.Minute)
	o.cause, o.now = "", at(72*time.Minute)
	s = o.sight() // died while it refused
	s.Look()
	want := []string{
		"process_down 2m0s-2m31s", "suspended 5m0s-1h5m0s", "spool_full 1h5m0s-1h6m0s",
		"auth_broken 1h8m0s-1h10m0s", "process_down 1h10m0s-1h12m0s",
	}
	if got := strings.Join(o.journal, ", "); got != strings.Join(want, ", ") {
		t.Errorf("written:\n%s\nwant:\n%s", got, strings.Join(want, ", "))
	}
	log, err := s.Log(o.now)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := log.Blind(start, o.now), 31*time.Second+time.Hour+time.Minute+4*time.Minute; got != want {
		t.Errorf("blind for %s, want %s", got, want)
	}
	if again, _ := s.Log(o.now); again != log {
		t.Error("the log is another, and nothing was added")
	}
}

func TestP18_ClockJumps(t *testing.T) {
	o := &outside{now: start, kept: map[string][]byte{}}
	s := o.sight()
	o.lookEvery(s, time.Minute)
	o.now = at(24*time.Hour + time.Minute)
	log, err := s.Log(o.now)
	if err != nil || log.Ready(at(time.Minute), o.now) != 0 {
		t.Errorf("a jump ahead counts as silence: %v", err)
	}
	o.now = at(2 * time.Minute)
	if log, err = s.Log(o.now); err != nil || log.Ready(at(time.Minute), o.now) != 0 {
		t.Errorf("after the jump back: %v", err)
	}
	if _, err := s.Log(at(time.Hour)); err == nil {
		t.Error("it judges an instant that the clock has not reached")
	}
}

// Blind time whose cause changes is one blind time: each part has its own cause, and
// no part is lost for being short.
func TestBlindTimeWhoseCauseChanges(t *testing.T) {
	o := &outside{now: start, kept: map[string][]byte{}}
	s := o.sight()
	o.lookEvery(s, time.Minute)
	for _, part := range []struct {
		cause blind.Cause
		until time.Duration
	}{
		{blind.NotReady, time.Minute + 20*time.Second}, // too short to stand alone
		{blind.AuthBroken, 3 * time.Minute}, {blind.SpoolFull, 3*time.Minute + 10*time.Second}, {blind.AuthBroken, 3*time.Minute + 20*time.Second},
		{"", 5 * time.Minute},
	} {
		o.cause = part.cause
		o.lookEvery(s, part.until)
	}
	log, err := s.Log(o.now)
	if err != nil || log.Blind(start, o.now) != 140*time.Second {
		t.Errorf("blind for %s, %v", log.Blind(start, o.now), err)
	}
	if got, want := strings.Join(o.journal, ", "), "auth_broken 1m0s-3m0s, spool_full 3m0s-3m10s, auth_broken 3m10s-3m20s"; got != want {
		t.Errorf("written %s, want %s", got, want)
	}
}
