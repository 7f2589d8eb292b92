package deadman

import (
	"fmt"
	"slices"
	"time"

	"felhom.eu/hub/internal/hub"
)

// Input is all that an evaluation goes by.
type Input struct {
	*Rule
	Evidence []Evidence                      // of the hosts that may change, and of the guests; of each one at most
	Known    func(guests bool) Knowledge     // called where a host fell silent, or a guest's controller
	Host     func(id string) (seen HostSeen) // of a guest: as it was before the evaluation
	Hold     Hold                            // as the last evaluation left it
}

// Knowledge is what the switch knows of all hosts, or of all controllers.
type Knowledge struct {
	Census Census
	Recent []Silence // recorded ones that were told of and go on; older ones may be left out that began more than Mass before all new ones
}

// Decided is the new state of a host, and the events of the change in their
// order.
type Decided struct {
	State  hub.HostState
	Events []hub.Event
}

// Outcome is what an evaluation decided. It must become durable as a whole, or
// host by host with the events that it is folded into before.
type Outcome struct {
	Mass   []hub.Event // mass silences, the operators' first
	Hosts  []Decided   // those that changed, hosts before guests
	Held   int         // hosts whose silence is kept back: the whole fleet fell silent
	Hold   Hold
	Failed map[string]error // hosts that could not be judged
}

// Decide makes one evaluation: of the hosts, and then of the guests, whose trouble
// may be that of their host. It is a pure function of its input.
func Decide(in Input) Outcome {
	out := Outcome{Hold: in.Hold, Failed: map[string]error{}}
	hosts, guests := split(in.Evidence)
	in.Evidence = hosts
	decideHosts(in, &out)
	if in.Evidence = guests; len(guests) > 0 {
		seeHosts(in, out.Hosts)
		decideGuests(in, &out)
	}
	return out
}

func split(evidence []Evidence) (hosts, guests []Evidence) {
	for _, e := range evidence {
		if e.guest() {
			guests = append(guests, e)
		} else {
			hosts = append(hosts, e)
		}
	}
	return hosts, guests
}

func decideHosts(in Input, out *Outcome) {
	decided, silences := decideEach(in, nil, out.Failed)
	if len(silences) > 0 {
		known := in.Known(false)
		recent := goingOn(known.Recent, decided)
		held, event, hold := holdBack(append(near(recent, silences, in.Mass), silences...), known.Census, in.Rule, in.Hold)
		out.Held, out.Hold = len(held), hold
		if event != nil {
			out.Mass = append(out.Mass, *event)
		}
		if len(held) > 0 {
			decided, silences = decideEach(in, held, out.Failed)
		}
		if len(silences) > 0 {
			out.Mass = append(out.Mass, fold(append(near(recent, silences, in.Mass), silences...), known.Census, in.Rule)...)
		}
	}
	out.Hosts = decided
}

// seeHosts gives each guest what is known of its host, by what was just decided.
func seeHosts(in Input, decided []Decided) {
	states := make(map[string]*hub.HostState, len(decided))
	for i := range decided {
		states[decided[i].State.HostID] = &decided[i].State
	}
	for i := range in.Evidence {
		e := &in.Evidence[i]
		seen := in.Host(hostOf(e.HostID))
		if state, ok := states[hostOf(e.HostID)]; ok {
			seen.State = state
		}
		e.Host = &seen
	}
}

// decideGuests needs no hold: the hub hears the host of a guest whose silence is its
// own.
func decideGuests(in Input, out *Outcome) {
	decided, silences := decideEach(in, nil, out.Failed)
	if len(silences) > 0 {
		known := in.Known(true)
		recent := goingOn(known.Recent, decided)
		out.Mass = append(out.Mass, fold(append(near(recent, silences, in.Mass), silences...), known.Census, in.Rule)...)
	}
	out.Hosts = append(out.Hosts, decided...)
}

// decideEach decides host by host. Whatever goes wrong with one leaves the
// others as they are.
func decideEach(in Input, held map[string]bool, failed map[string]error) ([]Decided, []Silence) {
	var decided []Decided
	var from []int // the evidence of each
	for i, e := range in.Evidence {
		e.Held = e.Held || held[e.HostID]
		state, events, err := guarded(e, in.Rule)
		if err != nil {
			failed[e.HostID] = err
			continue
		}
		if state != nil {
			decided, from = append(decided, Decided{*state, events}), append(from, i)
		}
	}
	var silences []Silence
	for i := range decided {
		e, d := in.Evidence[from[i]], &decided[i]
		for k := range d.Events {
			event := &d.Events[k]
			if event.Muted() {
				continue
			}
			switch event.Type {
			case hub.HostStale, hub.HostDown, hub.HostFlapping, hub.ControllerStale, hub.ControllerDown, hub.ControllerFlapping:
				late := toldLate(event, &d.State)
				silences = append(silences, Silence{
					HostID: e.HostID, Customer: e.CustomerID, Site: e.Site, At: event.At, Last: d.State.Last, New: true,
					Late:  late,
					Worse: !late && event.Type == e.name(hub.HostDown) && e.Previous.State != hub.OK && !e.LastAt.After(e.Previous.LastAt),
					event: event, state: &d.State,
				})
			}
		}
	}
	return decided, silences
}

// goingOn returns the recorded silences that this evaluation does not end.
func goingOn(recent []Silence, decided []Decided) []Silence {
	over := map[string]bool{}
	for _, d := range decided {
		for _, e := range d.Events {
			if e.Type == hub.HostRecovered || e.Type == hub.ControllerRecovered {
				over[d.State.HostID] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(recent), func(s Silence) bool { return over[s.HostID] })
}

// near returns the recorded silences that may be part of one run with a new one.
func near(recent, fresh []Silence, within time.Duration) []Silence {
	oldest := slices.MinFunc(fresh, bySilence).At.Add(-within)
	return slices.DeleteFunc(slices.Clone(recent), func(s Silence) bool { return s.At.Before(oldest) })
}

// stepHost is Step; a test has it fail.
var stepHost = Step

// guarded is Step; a panic is the one host's failure.
func guarded(e Evidence, r *Rule) (state *hub.HostState, events []hub.Event, err error) {
	defer func() {
		if p := recover(); p != nil {
			state, events, err = nil, nil, fmt.Errorf("panic: %v", p)
		}
	}()
	state, events = stepHost(e, r)
	return state, events, nil
}

// Told returns the silences of a recorded state that were told of and go on.
func Told(s *hub.HostState, customer, site string) []Silence {
	if s.State == hub.OK || s.Silent {
		return nil // this is also what was muted and never told
	}
	began := s.Silences[hub.FlapMemory-1]
	silence := Silence{HostID: s.HostID, Customer: customer, Site: site, At: began, Last: s.Last}
	var told []Silence
	if !began.IsZero() {
		told = append(told, silence)
	}
	if s.State == hub.Down && s.Since.After(began) && s.MutedBy == "" {
		silence.At, silence.Worse = s.Since, true
		told = append(told, silence)
	}
	if len(told) > 0 {
		told[len(told)-1].Fold = s.Fold
	}
	return told
}
