package fleetfile

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"felhom.eu/hub/internal/calendar"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/notify"
	"felhom.eu/hub/internal/outbound"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/yamlfile"
)

// Channel is a way by which people are told of events. It has a URL or a SealedURL.
type Channel struct {
	Name        string            `yaml:"name" required:"true" pattern:"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" doc:"Unique among the channels of this file; a sealed URL is bound to it."`
	URL         string            `yaml:"url,omitempty" doc:"Where to, if nothing of it is secret: alertmanager+http://10.0.0.9:9093, smtp://mail.example.com?from=hub@example.com&to=ops@example.com."`
	SealedURL   *SealedURL        `yaml:"sealedUrl,omitempty" doc:"Where to, encrypted; written by hub fleet seal-url."`
	Events      []string          `yaml:"events,omitempty,flow" pattern:"^[a-z][a-z0-9_]{0,63}$" doc:"The types of events to tell of: the hub's own and those of controllerEvents. What ends an alarm goes where the alarm went, and need not be named. Left out: all."`
	MinSeverity string            `yaml:"minSeverity,omitempty" oneof:"info|warning|critical" doc:"The least severity to tell of: info, warning (the default) or critical."`
	Labels      map[string]string `yaml:"labels,omitempty,flow" doc:"Words that go with each message of a webhook and each alert of an Alertmanager, for those who route by them: team: ops. Chats and mail show none. An open alert of an Alertmanager is ended under the labels of now: change them while nothing is open."`
}

// SealedURL is the URL of a channel, encrypted.
type SealedURL struct {
	SealedTo []string `yaml:"sealedTo,flow" required:"true" pattern:"^[0-9a-f]{16}$" doc:"For every recipient the first 16 hex digits of the SHA-256 of its public string."`
	Sealed   string   `yaml:"sealed" required:"true" doc:"The URL, encrypted by age with its owner and channel inside."`
}

// Outbound is what channels may reach beside public addresses.
type Outbound struct {
	Allow []string `yaml:"allow,omitempty,flow" doc:"Private networks that channels may reach: 10.1.0.0/16. All others are refused."`
}

const (
	maxChannels    = 16
	maxOutbound    = 64
	defaultMinimum = "warning"
)

// readChannels reads the channels of a file.
func (r *reader) readChannels(owner hub.Owner, channels []Channel) []*hub.Channel {
	defer r.mark("channel", len(r.problems))
	if len(channels) > maxChannels {
		r.report("spec.notify", fmt.Sprintf("%d channels; at most %d", len(channels), maxChannels), "")
		return nil
	}
	var out []*hub.Channel
	for i, c := range channels {
		at := channelPath(i, "")
		r.checkChannelName(channels, i)
		r.checkChannelEvents(at, c.Events)
		r.checkLabels(at+".labels", c.Labels)
		channel := &hub.Channel{Owner: owner, MinSeverity: cmp.Or(c.MinSeverity, defaultMinimum), Labels: c.Labels}
		if hub.ValidCustomerName(c.Name) {
			channel.Name = c.Name
		}
		for _, name := range c.Events {
			if !eventType.MatchString(name) {
				name = ""
			}
			channel.Events = append(channel.Events, hub.EventType(name))
		}
		if channel.URL = r.readAddress(at, owner, c); r.isInside(channel.URL) {
			r.inside = append(r.inside, i)
		}
		if r.opener == nil {
			r.addresses = append(r.addresses, c.address())
		}
		out = append(out, channel)
	}
	return out
}

// channelPath is the place of a field of channel i, or of the channel.
func channelPath(i int, field string) string {
	at := fmt.Sprintf("spec.notify[%d]", i)
	if field != "" {
		at += "." + field
	}
	return at
}

// address tells where a channel leads to from where another does.
func (c Channel) address() [sha256.Size]byte {
	if c.SealedURL != nil {
		return sha256.Sum256([]byte(strings.TrimSpace(c.SealedURL.Sealed)))
	}
	return sha256.Sum256([]byte(c.URL))
}

// What may be a URL that was put in a wrong place is repeated in no message, nor kept.

func (r *reader) checkChannelName(channels []Channel, i int) {
	name, at := channels[i].Name, channelPath(i, "name")
	first := slices.IndexFunc(channels, func(c Channel) bool { return c.Name == name })
	switch {
	case name == "": // reported
	case !hub.ValidCustomerName(name):
		r.report(at, at+" is no name of a channel", nameRule)
	case first < i:
		r.report(at, fmt.Sprintf("channel %q stands twice", name), fmt.Sprintf("first in line %d", r.doc.Position(channelPath(first, "name")).Line))
		r.mark("duplicate", len(r.problems)-1)
	}
}

func (r *reader) checkChannelEvents(at string, names []string) {
	if r.doc.Has(at+".events") && len(names) == 0 && !r.reported(at+".events") {
		r.report(at+".events", at+".events is empty: nobody would be told", "left out: all events")
	}
	for i, name := range names {
		item := fmt.Sprintf("%s.events[%d]", at, i)
		switch {
		case name == "": // empty items are reported
		case !eventType.MatchString(name):
			r.report(item, item+" is no type of an event", "lowercase letters, digits and underscores; at most 64, a letter first")
		case slices.Index(names, name) < i:
			r.report(item, fmt.Sprintf("%s stands twice", name), "")
			r.mark("duplicate", len(r.problems)-1)
		}
	}
}

// readAddress returns the URL of a channel, or says what is wrong with it. It is
// empty, too, where it is sealed and nothing can be opened.
func (r *reader) readAddress(at string, owner hub.Owner, c Channel) hub.Secret {
	seal := "hub fleet seal-url " + owner.String() + " " + c.Name
	if !hub.ValidCustomerName(c.Name) {
		seal = "hub fleet seal-url " + owner.String() + " NAME"
	}
	switch given := r.doc.Has(at + ".url"); {
	case given && c.SealedURL != nil:
		r.report(at+".url", at+" has both url and sealedUrl", "take one away")
	case c.SealedURL != nil:
		return r.openURL(at+".sealedUrl", owner, c, seal)
	case r.doc.Has(at+".sealedUrl") || r.doc.Has(at+".url") && r.reported(at+".url"): // no mapping, no text
	case c.URL == "":
		if c.Name != "" || !r.reported(at) { // else it is no channel at all
			r.report(at, at+" has neither url nor sealedUrl", "seal one with: "+seal)
		}
	case len(c.URL) > maxURL:
		r.report(at+".url", fmt.Sprintf("%s.url is longer than %d bytes", at, maxURL), "")
	case holdsSecret(c.URL):
		r.report(at+".url", "a secret in the clear: the URL of a channel", "take it out, have the secret replaced, and seal the new URL with: "+seal)
		r.mark("secret", len(r.problems)-1)
	default:
		return r.checkURL(at+".url", hub.NewSecret(c.URL))
	}
	return hub.Secret{}
}

const maxURL = seal.MaxURL

// openURL checks a sealed URL and opens it, where it can.
func (r *reader) openURL(at string, owner hub.Owner, c Channel, hint string) hub.Secret {
	if c.Name == "" || c.SealedURL.Sealed == "" || !r.checkSealedTo(at, c.SealedURL.SealedTo) {
		return hub.Secret{}
	}
	switch {
	case r.opener == nil && r.trusted:
	case r.opener == nil:
		r.checkForm(at, "the URL of channel "+c.Name, c.SealedURL.SealedTo, c.SealedURL.Sealed)
	default:
		opened, err := r.opener.OpenURL(owner, c.Name, c.SealedURL.Sealed)
		r.checkOpened(at, fmt.Sprintf("the URL of channel %s of %s", c.Name, owner), c.SealedURL.SealedTo, err, "seal it anew with: "+hint)
		if err == nil {
			return r.checkURL(at+".sealed", opened)
		}
	}
	return hub.Secret{}
}

// anywhere lets all addresses through: which of those inside may be used, fleet.yaml
// says.
func anywhere() *outbound.Guard {
	return outbound.New([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
}

// CheckURL returns what is wrong with the URL of a channel, whatever it may reach;
// nil: nothing is. The error repeats nothing of it.
func CheckURL(channel hub.Secret) error {
	if len(channel.Reveal()) > maxURL {
		return fmt.Errorf("it is longer than %d bytes", maxURL)
	}
	return notify.Validate(channel, anywhere())
}

func (r *reader) checkURL(at string, channel hub.Secret) hub.Secret {
	if err := CheckURL(channel); err != nil {
		r.report(at, at+": "+err.Error(), "")
		return hub.Secret{}
	}
	return channel
}

// isInside reports whether a URL that is right names an address inside.
func (r *reader) isInside(channel hub.Secret) bool {
	return !channel.Empty() && errors.Is(notify.Validate(channel, nil), outbound.ErrForbidden)
}

// holdsSecret reports whether a URL is not for everybody to read: it has a login or a
// fragment, or is of a kind that is a secret as a whole.
func holdsSecret(text string) bool {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return strings.ContainsAny(text, "@#")
	}
	switch u.Scheme {
	case "smtp", "smtps":
		return u.User != nil || u.Fragment != ""
	case "alertmanager+http", "alertmanager+https":
		return u.User != nil || u.Fragment != "" || u.RawQuery != ""
	}
	kind, _, _ := strings.Cut(u.Scheme, "+")
	return u.User != nil || u.Fragment != "" || slices.Contains([]string{"webhook", "slack", "discord", "teams", "telegram"}, kind)
}

// KindOf names the kind of a channel by its URL: webhook, alertmanager, slack,
// discord, teams, telegram or mail; empty where the URL is not known.
func KindOf(channel hub.Secret) string {
	scheme, _, _ := strings.Cut(channel.Reveal(), ":")
	switch kind, _, _ := strings.Cut(strings.TrimSpace(scheme), "+"); kind {
	case "smtp", "smtps":
		return "mail"
	case "webhook", "alertmanager", "slack", "discord", "teams", "telegram":
		return kind
	}
	return ""
}

// readZone checks the name of a time zone.
func (r *reader) readZone(name string) string {
	const at = "spec.timeZone"
	if name == "" {
		return ""
	}
	_, err := r.schedules.zone(name)
	if mistake := (*calendar.Mistake)(nil); errors.As(err, &mistake) {
		r.report(at, at+": "+mistake.Message, mistake.Hint)
		r.mark("value", len(r.problems)-1)
	}
	return name
}

// readOutbound reads the private networks that channels may reach.
func (r *reader) readOutbound(texts []string) []netip.Prefix {
	const list = "spec.outbound.allow"
	defer r.mark("value", len(r.problems))
	if len(texts) > maxOutbound {
		r.report(list, fmt.Sprintf("%d networks; at most %d", len(texts), maxOutbound), "")
		return nil
	}
	var out []netip.Prefix
	for i, text := range texts {
		at := fmt.Sprintf("%s[%d]", list, i)
		prefix, err := netip.ParsePrefix(text)
		switch {
		case text == "": // empty items are reported
			continue
		case err != nil || prefix.Addr().Is4In6():
			r.report(at, fmt.Sprintf("%q is no network", text), "as 10.1.0.0/16, fd00:1::/64 or, for one address, 10.1.0.9/32")
			continue
		case prefix != prefix.Masked():
			r.report(at, fmt.Sprintf("%s has digits behind its %d bits", text, prefix.Bits()), "write "+prefix.Masked().String())
		case prefix.Bits() == 0:
			r.report(at, text+" is everything: the hub's own machine, and services that give away its identity", "name the networks that channels need")
			continue
		case slices.Contains(out, prefix):
			r.report(at, text+" stands twice", "")
			r.mark("duplicate", len(r.problems)-1)
		}
		out = append(out, prefix)
	}
	return out
}

// ownChannels finds channels that speak of events that nobody sends, and those that
// lead to an address inside that the fleet does not allow.
func (w *whole) ownChannels() {
	known := hub.OwnEvents()
	if w.spec.ControllerEvents != nil {
		known = append(known, w.spec.ControllerEvents...)
	} else {
		known = append(known, hub.DefaultControllerEvents()...)
	}
	guard := outbound.New(w.spec.Outbound)
	for name, f := range w.files {
		switch {
		case f.customer != nil:
			w.judgeChannels(name, f, f.customer.Channels, known, guard)
		case f.fleet != nil:
			w.judgeChannels(name, f, f.fleet.Channels, known, guard)
		}
	}
}

func (w *whole) judgeChannels(file string, f *file, channels []*hub.Channel, known []hub.EventType, guard *outbound.Guard) {
	for i, c := range channels {
		for j, t := range c.Events {
			if t == "" || slices.Contains(known, t) {
				continue // reported, or well
			}
			hint := "it is neither the hub's own nor in controllerEvents of " + FleetPath
			if near := yamlfile.Suggest(string(t), texts(known)); near != "" && !slices.Contains(hub.DefaultControllerEvents(), t) {
				hint = near
			}
			w.report(file, fmt.Sprintf("%s[%d]", channelPath(i, "events"), j), "channel", fmt.Sprintf("no event is of the type %s", t), hint)
		}
	}
	for _, i := range f.inside {
		if err := notify.Validate(channels[i].URL, guard); err != nil {
			w.report(file, channelPath(i, ""), "channel", fmt.Sprintf("channel %s leads to an address inside, or to one outside without encryption", channels[i].Name),
				"name its network in spec.outbound.allow of "+FleetPath+", if the hub may reach it")
		}
	}
}

func texts(types []hub.EventType) []string {
	list := make([]string, len(types))
	for i, t := range types {
		list[i] = string(t)
	}
	return list
}
