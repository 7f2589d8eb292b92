package hub

import (
	"net/netip"
	"slices"
)

// Channel is a way by which people are told of events.
type Channel struct {
	Name        string      // unique within its owner
	Owner       Owner       // of the fleet, which is told of everything, or a customer, which is told of its own
	URL         Secret      // see package notify; empty where the fleet was read without an identity
	Events      []EventType // nil: every type
	MinSeverity string      // info, warning or critical
	Labels      map[string]string
}

// ID is "<owner>/<name>": fleet/ops, customer/acme/chat.
func (c *Channel) ID() string { return c.Owner.String() + "/" + c.Name }

// severities from the least on.
var severities = []string{"info", "warning", "critical"}

// SeverityRank orders severities; a word that is none comes first.
func SeverityRank(s string) int { return slices.Index(severities, s) }

// Wants reports whether an event that alarms or informs is for this channel, whosever
// it is. What ends an alarm goes where the alarm went, and is not asked for.
func (c *Channel) Wants(e *Event) bool {
	return (c.Events == nil || slices.Contains(c.Events, e.Type)) && SeverityRank(e.Severity()) >= SeverityRank(c.MinSeverity)
}

// ChannelsFor returns the channels that may be told of an event of a customer, or of
// the operators' where customer is empty: the customer's own, and the fleet's.
func (f *Fleet) ChannelsFor(customer string) []*Channel {
	var own []*Channel
	if c, ok := f.customers[customer]; ok {
		own = c.Channels
	}
	return slices.Concat(own, f.spec.Channels)
}

// Channels returns the fleet's own channels, the operators'.
func (f *Fleet) Channels() []*Channel { return f.spec.Channels }

// Outbound returns the private networks that channels may reach.
func (f *Fleet) Outbound() []netip.Prefix { return f.spec.Outbound }
