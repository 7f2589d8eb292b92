package outbox

import (
	"slices"
	"strings"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
	"felhom.eu/hub/internal/notify"
)

// compose finds the words of a letter for a channel, by the names that the fleet has
// now.
func compose(l *letter, ch *hub.Channel, fleet *hub.Fleet) notify.Message {
	if !l.digest {
		return composeEvent(l.events[0], ch, fleet)
	}
	m := composeDigest(l, ch, fleet)
	m.Parts = func() (parts []notify.Message) {
		for _, e := range l.events {
			parts = append(parts, composeEvent(e, ch, fleet))
		}
		return parts
	}
	return m
}

func composeEvent(e *hub.Event, ch *hub.Channel, fleet *hub.Fleet) notify.Message {
	in := message.Input{Event: *e, Names: message.Names{Customer: customerName(e.CustomerID, fleet)}, Reader: readerOf(ch, fleet)}
	if h := ownHost(e.HostID, e.CustomerID, fleet); h != nil {
		in.Names.Host, in.Links = h.DisplayName, message.LinksOf(h.Labels)
	}
	if e.LastSeen != nil {
		in.Names.Guest = e.LastSeen.GuestName
	}
	if len(e.Hosts) > 0 {
		in.Names.Hosts = make(map[string]string, len(e.Hosts))
		for _, id := range e.Hosts {
			if h := ownHost(id, e.CustomerID, fleet); h != nil {
				in.Names.Hosts[id] = h.DisplayName
			}
		}
	}
	return notify.Message{ID: e.ID, Event: *e, Names: in.Names, Links: in.Links, Text: message.Write(in), Labels: ch.Labels}
}

func composeDigest(l *letter, ch *hub.Channel, fleet *hub.Fleet) notify.Message {
	customer := customerName(l.customer, fleet)
	in := message.DigestInput{CustomerID: l.customer, Customer: customer, From: l.events[0].DetectedAt, To: l.events[0].DetectedAt, Reader: readerOf(ch, fleet)}
	for _, e := range l.events {
		if e.DetectedAt.Before(in.From) {
			in.From = e.DetectedAt
		}
		if e.DetectedAt.After(in.To) {
			in.To = e.DetectedAt
		}
		counted := message.Counted{Type: e.Type, Severity: e.Severity(), HostID: e.HostID}
		if h := ownHost(e.HostID, l.customer, fleet); h != nil {
			counted.Host = h.DisplayName
		}
		in.Events = append(in.Events, counted)
	}
	return notify.Message{
		ID: l.id, Event: hub.Event{ID: l.id, Type: notify.Digest, CustomerID: l.customer, At: in.From, DetectedAt: in.To},
		Count: len(l.events), Names: message.Names{Customer: customer}, Text: message.Digest(in), Labels: ch.Labels,
	}
}

func customerName(id string, fleet *hub.Fleet) string {
	if c, ok := fleet.Customer(id); ok {
		return c.DisplayName
	}
	return ""
}

// ownHost returns a host if it is still the customer's, or the event the operators':
// what another customer calls it is not for this one.
func ownHost(id, customer string, fleet *hub.Fleet) *hub.Host {
	if h, ok := fleet.Host(id); ok && (customer == "" || h.Customer == customer) {
		return h
	}
	return nil
}

// readerOf is who reads a channel: its owner, whosever the event is.
func readerOf(ch *hub.Channel, fleet *hub.Fleet) message.Reader {
	return message.ReaderOf(fleet.Locale(ch.Owner))
}

// channelNamed finds a channel of the fleet by its id; nil: it has none such.
func channelNamed(fleet *hub.Fleet, id string) *hub.Channel {
	i := strings.LastIndexByte(id, '/')
	owner, err := hub.ParseOwner(id[:max(i, 0)])
	if err != nil {
		return nil
	}
	channels := fleet.Channels()
	if owner.Kind != hub.OwnerFleet {
		c, ok := fleet.Customer(owner.Name)
		if !ok {
			return nil
		}
		channels = c.Channels
	}
	if i := slices.IndexFunc(channels, func(ch *hub.Channel) bool { return ch.ID() == id }); i >= 0 {
		return channels[i]
	}
	return nil
}
