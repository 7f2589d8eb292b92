package hub

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Lifecycle is what an operator wants of a host.
type Lifecycle string

// The life cycle of a host. A retired host does not exist for agents.
const (
	Active  Lifecycle = "active"
	Paused  Lifecycle = "paused" // reports are taken, the switch does not watch
	Retired Lifecycle = "retired"
)

// Thresholds are the lengths of silence after which a host is stale and down.
// A zero field means "as above": the host's falls back to its customer's, that
// to the fleet's, that to the configuration's.
type Thresholds struct{ StaleAfter, DownAfter time.Duration }

// Or returns t with its zero fields taken from fallback.
func (t Thresholds) Or(fallback Thresholds) Thresholds {
	if t.StaleAfter == 0 {
		t.StaleAfter = fallback.StaleAfter
	}
	if t.DownAfter == 0 {
		t.DownAfter = fallback.DownAfter
	}
	return t
}

// Host is one Proxmox host as the fleet repository names it.
type Host struct {
	ID          string
	Customer    string
	DisplayName string
	Labels      map[string]string
	Lifecycle   Lifecycle
	Monitor     Thresholds // as written on the host; see Fleet.Thresholds
	Deadlines   Deadlines  // as written on the host; see Fleet.Deadlines
	Maintenance []Window   // its own; see Fleet.Windows
	EnrollBy    time.Time  // when its first report is due; zero: never
	Keys        []Key
	Desired     []byte // inert JSON; no code path leads from here to an agent
	DRRecord    []byte // inert JSON
	File        string // path within the fleet folder
	Blob        string // git's id of the content it was read from; empty: from a plain folder
}

// Customer owns hosts.
type Customer struct {
	Name        string
	DisplayName string
	Blocked     bool
	Monitor     Thresholds
	Deadlines   Deadlines
	Maintenance []Window
	Channels    []*Channel // by which it is told of its own events
	Language    string     // of its messages: en or de; empty: en
	TimeZone    string     // IANA name, of the times in its messages; empty: UTC
	Keys        []Key
	File        string
}

// FleetSpec is what a Fleet is made of.
type FleetSpec struct {
	Name      string
	Revision  string // the commit's id; empty when read from a plain folder
	Monitor   Thresholds
	Deadlines Deadlines
	Keys      []Key // global keys
	Customers []*Customer
	Hosts     []*Host

	Maintenance      []Window
	Channels         []*Channel     // the operators'
	Language         string         // of their messages: en or de; empty: en
	TimeZone         string         // IANA name, of the times in their messages; empty: UTC
	Outbound         []netip.Prefix // private networks that channels may reach
	ControllerEvents []EventType    // that controllers may send; nil: DefaultControllerEvents

	AllowRemoval int // guards.allowRemoval; see RemovalHeld
}

// Fleet is the whole register at one revision. It is immutable: readers share
// it without a lock, a change makes a new one.
type Fleet struct {
	spec      FleetSpec
	hosts     map[string]*Host
	customers map[string]*Customer
	keys      map[Digest]*Key // of the owners' own lists
	enrolled  int
}

// NewFleet indexes spec, which it owns from then on. It fails on what cannot be
// indexed: an id, a name or a key that stands twice, or a host without its
// customer. (Loaders report such mistakes with their places; this is the
// backstop.) Keys of retired hosts are left out: they are unknown. So are keys
// without a digest, which a fleet read without an identity has.
func NewFleet(spec FleetSpec) (*Fleet, error) {
	f := &Fleet{
		spec:      spec,
		hosts:     make(map[string]*Host, len(spec.Hosts)),
		customers: make(map[string]*Customer, len(spec.Customers)),
		keys:      make(map[Digest]*Key, len(spec.Hosts)),
	}
	slices.SortFunc(f.spec.Hosts, func(a, b *Host) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(f.spec.Customers, func(a, b *Customer) int { return strings.Compare(a.Name, b.Name) })
	if err := f.addKeys(spec.Keys); err != nil {
		return nil, err
	}
	for _, c := range spec.Customers {
		if _, twice := f.customers[c.Name]; twice {
			return nil, fmt.Errorf("customer %s stands twice", c.Name)
		}
		f.customers[c.Name] = c
		if err := f.addKeys(c.Keys); err != nil {
			return nil, err
		}
	}
	for _, h := range spec.Hosts {
		if err := f.addHost(h); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Fleet) addHost(h *Host) error {
	if _, twice := f.hosts[h.ID]; twice {
		return fmt.Errorf("host %s stands twice", h.ID)
	}
	if _, ok := f.customers[h.Customer]; !ok {
		return fmt.Errorf("host %s: there is no customer %s", h.ID, h.Customer)
	}
	f.hosts[h.ID] = h
	if h.Lifecycle == Retired {
		return nil
	}
	f.enrolled++
	return f.addKeys(h.Keys)
}

func (f *Fleet) addKeys(keys []Key) error {
	for i := range keys {
		k := &keys[i]
		if k.Digest == (Digest{}) {
			continue // read without an identity: nobody can use it
		}
		if other, twice := f.keys[k.Digest]; twice {
			return fmt.Errorf("key %s of %s is the same as key %s of %s", k.ID, k.Owner, other.ID, other.Owner)
		}
		f.keys[k.Digest] = k
	}
	return nil
}

// Revision returns the commit this fleet was read from.
func (f *Fleet) Revision() string { return f.spec.Revision }

// Name returns the fleet's name.
func (f *Fleet) Name() string { return f.spec.Name }

// Host returns the host with this id, retired ones included.
func (f *Fleet) Host(id string) (*Host, bool) {
	h, ok := f.hosts[id]
	return h, ok
}

// Enrolled returns the host with this id unless it is retired.
func (f *Fleet) Enrolled(id string) (*Host, bool) {
	h, ok := f.hosts[id]
	return h, ok && h.Lifecycle != Retired
}

// Customer returns the customer of this name.
func (f *Fleet) Customer(name string) (*Customer, bool) {
	c, ok := f.customers[name]
	return c, ok
}

// Key returns the key with this digest. Whether it is valid now is for the
// caller to ask (Key.ValidAt).
func (f *Fleet) Key(d Digest) (Key, bool) {
	if k, ok := f.keys[d]; ok {
		return *k, true
	}
	return Key{}, false
}

// Keys returns the global keys.
func (f *Fleet) Keys() []Key { return f.spec.Keys }

// Monitor returns the thresholds of the whole fleet, as written.
func (f *Fleet) Monitor() Thresholds { return f.spec.Monitor }

// Locale returns the language and the time zone, as written, in which the owner of a
// channel is told; both are empty where it has none, or is not there.
func (f *Fleet) Locale(owner Owner) (language, timeZone string) {
	if owner.Kind == OwnerFleet {
		return f.spec.Language, f.spec.TimeZone
	}
	if c, ok := f.customers[owner.Name]; ok {
		return c.Language, c.TimeZone
	}
	return "", ""
}

// AllowRemoval returns how many hosts the commit may remove; see RemovalHeld.
func (f *Fleet) AllowRemoval() int { return f.spec.AllowRemoval }

// Hosts yields every host in the order of ids, retired ones included.
func (f *Fleet) Hosts() iter.Seq[*Host] { return slices.Values(f.spec.Hosts) }

// HostsOf returns the ids of a customer's hosts that are not retired, in their order:
// those greater than after, at most limit; and whether more follow.
func (f *Fleet) HostsOf(customer, after string, limit int) (ids []string, more bool) {
	for _, h := range f.spec.Hosts {
		if h.Customer != customer || h.Lifecycle == Retired || h.ID <= after {
			continue
		}
		if len(ids) == limit {
			return ids, true
		}
		ids = append(ids, h.ID)
	}
	return ids, false
}

// Customers yields every customer in the order of names.
func (f *Fleet) Customers() iter.Seq[*Customer] { return slices.Values(f.spec.Customers) }

// Len returns the number of hosts that are not retired.
func (f *Fleet) Len() int { return f.enrolled }

// Thresholds returns what holds for h: its own, else its customer's, else the
// fleet's, else base.
func (f *Fleet) Thresholds(h *Host, base Thresholds) Thresholds {
	t := h.Monitor
	if c, ok := f.customers[h.Customer]; ok {
		t = t.Or(c.Monitor)
	}
	return t.Or(f.spec.Monitor).Or(base)
}

// Problem is one mistake in a fleet folder, at a place a person can open.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Rule    string `json:"rule,omitempty"`    // short fixed word for scripts, as "secret"; empty: none of its own
	Warning bool   `json:"warning,omitempty"` // worth a look; the hub takes the file all the same
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// String returns "file:line:column: message (hint)", with "warning: " before the
// message of a warning; what is unknown is left out.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, ":%d", p.Column)
		}
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

const (
	maxHostID       = 128
	maxCustomerName = 63
)

const lowerAlnum = "abcdefghijklmnopqrstuvwxyz0123456789"

// ValidHostID reports whether id is 1–128 characters of [a-z0-9][a-z0-9.-]*.
func ValidHostID(id string) bool {
	return id != "" && len(id) <= maxHostID &&
		strings.IndexByte(lowerAlnum, id[0]) >= 0 &&
		strings.Trim(id, lowerAlnum+".-") == ""
}

// ValidGuestID reports whether id is "<host_id>/<vmid>", as [GuestID] writes it.
func ValidGuestID(id string) bool {
	_, _, ok := ParseGuestID(id)
	return ok
}

// ParseGuestID takes a guest id apart.
func ParseGuestID(id string) (hostID string, vmid uint32, ok bool) {
	hostID, number, _ := strings.Cut(id, "/")
	n, err := strconv.ParseUint(number, 10, 32)
	ok = err == nil && n > 0 && number[0] != '0' && number[0] != '+' && ValidHostID(hostID)
	return hostID, uint32(n), ok
}

// ValidCustomerName reports whether name matches
// [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?.
func ValidCustomerName(name string) bool {
	return name != "" && len(name) <= maxCustomerName &&
		strings.Trim(name, lowerAlnum+"-") == "" &&
		name[0] != '-' && name[len(name)-1] != '-'
}
