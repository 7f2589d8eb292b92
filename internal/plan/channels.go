package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
)

// placed is a channel with what tells its address from another one.
type placed struct {
	*hub.Channel
	address [32]byte
}

func channelsOf(f *fleetfile.Single) map[string]placed {
	byName := map[string]placed{}
	if f != nil {
		for i, c := range f.Channels() {
			byName[c.Name] = placed{c, f.Address(i)}
		}
	}
	return byName
}

// compareChannels compares the channels of an owner.
func (b *builder) compareChannels(owner hub.Owner, before, after *fleetfile.Single) {
	old, now := channelsOf(before), channelsOf(after)
	for _, name := range union(old, now) {
		from, was := old[name]
		to, is := now[name]
		c := ChannelChange{Owner: owner.String(), Channel: name, Change: "changed"}
		if was {
			c.From, c.Kind = toldOf(from.Channel), fleetfile.KindOf(from.URL)
		}
		if is {
			c.To, c.Kind = toldOf(to.Channel), fleetfile.KindOf(to.URL)
		}
		switch {
		case !was:
			c.Change = "added"
		case !is:
			c.Change = "removed"
		case from.address != to.address:
			c.Address = "has another address"
			if from.URL.Empty() && to.URL.Empty() {
				c.Address += ", or is sealed anew"
			}
		case c.From == c.To:
			continue
		}
		b.Channels = append(b.Channels, c)
	}
	if len(old) > 0 && len(now) == 0 {
		who := "the operators are told of nothing"
		if owner.Kind == hub.OwnerCustomer {
			who = "this customer is told of nothing; the operators' channels are"
		}
		b.Warnings = append(b.Warnings, Warning{owner.String(), "its last channel goes: " + who})
	}
}

// toldOf says of what a channel is told: "host_down: warning and worse (team=ops)".
func toldOf(c *hub.Channel) string {
	text := map[string]string{"info": "everything", "critical": "critical only"}[c.MinSeverity]
	if text == "" {
		text = c.MinSeverity + " and worse"
	}
	if len(c.Events) > 0 {
		types := make([]string, len(c.Events))
		for i, t := range c.Events {
			types[i] = string(t)
		}
		slices.Sort(types)
		text = strings.Join(types, ", ") + ": " + text
	}
	if len(c.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
			labels = append(labels, key+"="+c.Labels[key])
		}
		text += fmt.Sprintf(" (%s)", strings.Join(labels, ", "))
	}
	return text
}

// compareOutbound notes other private networks that channels may reach.
func (b *builder) compareOutbound(before, after []netip.Prefix) {
	text := func(list []netip.Prefix) string {
		texts := make([]string, len(list))
		for i, p := range list {
			texts[i] = p.String()
		}
		slices.Sort(texts)
		return strings.Join(texts, ", ")
	}
	b.setting("outbound.allow", text(before), text(after))
}
