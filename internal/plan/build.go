package plan

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/yamlfile"
)

// Options name what is compared; New takes none of it from the folders.
type Options struct {
	Base, Head string    // commits, for the reader
	Onto       string    // commit to merge into, where that is not Base
	Path       string    // of the fleet folder in the head
	Now        time.Time // what "expires soon" counts from
}

// soon is how long before its end a key is pointed out.
const soon = 14 * 24 * time.Hour

// New compares two fleet folders. Each is given as one or more file systems of the
// same folder, of which as many are read at once; no base is an empty folder, as
// before the first commit. The error is for what is no mistake of the head: a
// file could not be read.
func New(base, head []fs.FS, o Options) (*Plan, error) {
	b := &builder{
		Plan: &Plan{
			Base: o.Base, Head: o.Head, Onto: o.Onto, Path: o.Path, now: o.Now,
			Structural: []hub.Problem{}, Mistakes: []Mistake{}, Warnings: []Warning{},
			Hosts: []HostChange{}, Customers: []CustomerChange{}, Keys: []KeyChange{}, Thresholds: []ThresholdChange{},
			Deadlines: []DeadlineChange{}, Windows: []WindowChange{}, Events: []EventChange{}, Channels: []ChannelChange{},
			Settings: []ValueChange{}, Recipients: []RecipientChange{}, Specs: []SpecChange{}, Reports: []Report{},
			desired: map[string]hostSpec{},
		},
		base: newSide(base, true), head: newSide(head, false),
		bad: map[string]bool{}, more: map[string]*fleetfile.Single{},
	}
	for _, step := range []func() error{b.find, b.parse, b.readRecipients, b.readAffected, b.judge} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	b.compareFleets()
	b.compareCustomers()
	b.compareHosts()
	b.compareThresholds()
	b.compareDeadlines()
	if err := b.guard(); err != nil {
		return nil, err
	}
	b.finish()
	return b.Plan, nil
}

// builder makes a Plan.
type builder struct {
	*Plan
	base, head side
	changes    []change
	unread     []unread // hosts' files that are the same on both sides, sorted

	affected []unread                     // those for whose hosts something else holds above
	more     map[string]*fleetfile.Single // those of unread that had to be read, by path
	bad      map[string]bool              // hosts' files of the head with mistakes, by path
	reached  map[string]reach             // hosts of the head by customer; nil: not counted yet
}

// unread is a host's file that was not parsed.
type unread struct{ name, customer, id string }

// side is what is known of one of the two folders.
type side struct {
	fsys       fs.FS // the first of views; nil: an empty folder
	views      []fs.FS
	inForce    bool
	fleet      *fleetfile.Single            // nil: missing
	customers  map[string]*fleetfile.Single // all, by name
	hosts      map[string]*fleetfile.Single // of changed files, by id
	recipients []seal.Recipient
}

func newSide(views []fs.FS, inForce bool) side {
	s := side{views: views, inForce: inForce, customers: map[string]*fleetfile.Single{}, hosts: map[string]*fleetfile.Single{}}
	if len(views) > 0 {
		s.fsys = views[0]
	}
	return s
}

// add puts a file where it belongs.
func (s *side) add(f *fleetfile.Single) {
	if _, id, ok := fleetfile.HostAt(f.Name); ok {
		s.hosts[id] = f
	} else if name, ok := fleetfile.CustomerAt(f.Name); ok {
		s.customers[name] = f
	} else {
		s.fleet = f
	}
}

// find lists the files that differ, those that do not, and what is wrong with
// the shape of the head.
func (b *builder) find() error {
	var files fleetfile.Files
	err := spread(2, 2, func(_, i int) (err error) {
		if i == 0 {
			b.changes, err = changes(b.base.fsys, b.head.fsys)
		} else {
			files, err = fleetfile.List(b.head.fsys)
		}
		return err
	})
	b.Structural = files.Problems
	for _, name := range files.Names {
		if customer, id, ok := fleetfile.HostAt(name); ok && !b.changed(name) {
			b.unread = append(b.unread, unread{name, customer, id})
		}
	}
	return err
}

func (b *builder) changed(name string) bool {
	_, found := slices.BinarySearchFunc(b.changes, name, func(c change, name string) int { return cmp.Compare(c.path, name) })
	return found
}

// parse reads the changed files, and fleet.yaml and the customers' always.
func (b *builder) parse() error {
	var before, after []job
	for _, c := range b.changes {
		if !ofTheFleet(c.path) {
			continue
		}
		b.FilesChanged++
		if c.path == fleetfile.RecipientsPath {
			continue
		}
		if c.inBase {
			before = append(before, job{path: c.path, hash: c.baseHash})
		}
		if c.inHead {
			after = append(after, job{path: c.path, hash: c.headHash})
		}
	}
	common, err := b.common()
	if err != nil {
		return err
	}
	err = errors.Join(b.base.parse(before, &b.base), b.head.parse(after, &b.head))
	return errors.Join(err, b.head.parse(common, &b.base, &b.head))
}

// parse reads files of one side and adds them to some.
func (s *side) parse(jobs []job, into ...*side) error {
	jobs = s.fastest(jobs)
	parsed := make([]*fleetfile.Single, len(jobs))
	err := spread(len(s.views), len(jobs), func(worker, i int) (err error) {
		parsed[i], err = s.read(worker, jobs[i].path)
		return err
	})
	for _, f := range parsed {
		for _, to := range into {
			if f != nil {
				to.add(f)
			}
		}
	}
	return err
}

func ofTheFleet(name string) bool {
	_, isCustomer := fleetfile.CustomerAt(name)
	_, _, isHost := fleetfile.HostAt(name)
	return isHost || isCustomer || name == fleetfile.FleetPath || name == fleetfile.RecipientsPath
}

// job is a file to read.
type job struct {
	path string
	hash string // git's id of the content; empty: not known
}

// fastest puts jobs in the order in which their side reads them fastest, where
// it knows one.
func (s *side) fastest(jobs []job) []job {
	fsys, ok := s.fsys.(interface{ ReadOrder(ids []string) []int })
	if !ok {
		return jobs
	}
	ids := make([]string, len(jobs))
	for i, j := range jobs {
		ids[i] = j.hash
	}
	sorted := make([]job, 0, len(jobs))
	for _, i := range fsys.ReadOrder(ids) {
		sorted = append(sorted, jobs[i])
	}
	return sorted
}

// common lists fleet.yaml and the customers' files that are the same on both
// sides; some may not be there.
func (b *builder) common() ([]job, error) {
	list := []job{{path: fleetfile.FleetPath}}
	customers, err := readDir(b.head.fsys, path.Dir(path.Dir(fleetfile.CustomerPath("x"))))
	for _, e := range customers {
		list = append(list, job{path: fleetfile.CustomerPath(e.Name())})
	}
	return slices.DeleteFunc(list, func(j job) bool { return b.changed(j.path) }), err
}

// read parses a file; nil: it is not there, or no file, which List reports.
func (s *side) read(worker int, name string) (*fleetfile.Single, error) {
	data, err := fs.ReadFile(s.views[worker], name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return fleetfile.ParseSingle(name, data, s.inForce), nil
}

func (b *builder) readRecipients() error {
	var problems []hub.Problem
	var err error
	b.head.recipients, problems, err = fleetfile.ReadRecipients(b.head.fsys)
	b.Structural = append(b.Structural, problems...)
	if err == nil && b.base.fsys != nil {
		b.base.recipients, _, err = fleetfile.ReadRecipients(b.base.fsys)
	}
	if len(problems) > 0 {
		b.head.recipients = b.base.recipients // what it would be is not known
	}
	return err
}

// judge finds the mistakes of the head.
func (b *builder) judge() error {
	parsed := slices.Collect(maps.Values(b.head.hosts))
	parsed = slices.AppendSeq(parsed, maps.Values(b.head.customers))
	parsed = slices.AppendSeq(parsed, maps.Values(b.more))
	if b.head.fleet != nil {
		parsed = append(parsed, b.head.fleet)
	}
	structural, bad, err := fleetfile.Judge(b.head.fsys, parsed, b.suspects(), b.inForce())
	b.Structural = withoutWarnings(append(b.Structural, structural...))
	for _, f := range bad {
		b.bad[f.Name] = true
		for _, p := range withoutWarnings(f.Problems) {
			b.Mistakes = append(b.Mistakes, Mistake{Host: f.HostID, Kept: f.Kept, Problem: p})
		}
	}
	slices.SortStableFunc(b.Mistakes, func(x, y Mistake) int { return cmp.Compare(x.File, y.File) })
	return err
}

// suspects are the unread files that contradict another by their names alone: an
// id that stands twice, a customer that is not there.
func (b *builder) suspects() (names []string) {
	twice := make(map[string]int, len(b.unread)+len(b.head.hosts))
	for _, u := range b.unread {
		twice[u.id]++
	}
	for id := range b.head.hosts {
		twice[id]++
	}
	for _, u := range b.unread {
		if b.more[u.name] == nil && (twice[u.id] > 1 || b.head.customers[u.customer] == nil) {
			names = append(names, u.name)
		}
	}
	return names
}

// inForce is the base as far as it was read: where the last good record of a
// host with a bad file comes from.
func (b *builder) inForce() *hub.Fleet {
	spec := hub.FleetSpec{}
	for _, f := range b.base.customers {
		if f.Customer != nil {
			spec.Customers = append(spec.Customers, f.Customer)
		}
	}
	add := func(f *fleetfile.Single) {
		if f.Host != nil && len(f.Problems) == 0 {
			spec.Hosts = append(spec.Hosts, f.Host)
		}
	}
	for _, f := range b.base.hosts {
		add(f)
	}
	for _, f := range b.more {
		add(f)
	}
	fleet, err := hub.NewFleet(spec)
	if err != nil {
		return nil // the base itself was never in force
	}
	return fleet
}

func withoutWarnings(list []hub.Problem) []hub.Problem {
	list = slices.DeleteFunc(list, func(p hub.Problem) bool { return p.Warning })
	yamlfile.Sort(list)
	return append([]hub.Problem{}, list...)
}

// compareFleets compares fleet.yaml and recipients.txt.
func (b *builder) compareFleets() {
	before, after := fleetOf(b.base.fleet), fleetOf(b.head.fleet)
	b.setting("name", before.Name, after.Name)
	b.setting("guards.allowRemoval", strconv.Itoa(before.AllowRemoval), strconv.Itoa(after.AllowRemoval))
	b.monitor("", before.Monitor, after.Monitor)
	b.deadlineSettings("", before.Deadlines, after.Deadlines)
	b.compareEvents(before, after)
	b.compareWindows(hub.FleetOwner(), before.Maintenance, after.Maintenance)
	b.setting("language", before.Language, after.Language)
	b.setting("timeZone", before.TimeZone, after.TimeZone)
	b.compareOutbound(before.Outbound, after.Outbound)
	if b.base.fleet != b.head.fleet {
		b.compareKeys(hub.FleetOwner(), b.base.fleet, b.head.fleet)
		b.compareChannels(hub.FleetOwner(), b.base.fleet, b.head.fleet)
	}
	for _, r := range b.base.recipients {
		if !hasRecipient(b.head.recipients, r) {
			b.Recipients = append(b.Recipients, recipientChange("removed", r))
		}
	}
	for _, r := range b.head.recipients {
		if !hasRecipient(b.base.recipients, r) {
			b.Recipients = append(b.Recipients, recipientChange("added", r))
		}
	}
}

func hasRecipient(list []seal.Recipient, r seal.Recipient) bool {
	return slices.ContainsFunc(list, func(other seal.Recipient) bool { return other.String() == r.String() })
}

func fleetOf(f *fleetfile.Single) hub.FleetSpec {
	if f == nil || f.Fleet == nil {
		return hub.FleetSpec{}
	}
	return *f.Fleet
}

func (b *builder) setting(name, from, to string) {
	if from != to {
		b.Settings = append(b.Settings, ValueChange{name, from, to})
	}
}

// monitor notes thresholds that a customer's file or fleet.yaml names otherwise.
func (b *builder) monitor(prefix string, before, after hub.Thresholds) {
	b.setting(prefix+"monitor.staleAfter", length(before.StaleAfter), length(after.StaleAfter))
	b.setting(prefix+"monitor.downAfter", length(before.DownAfter), length(after.DownAfter))
}

// compareCustomers compares the customers' own files.
func (b *builder) compareCustomers() {
	for _, name := range union(b.base.customers, b.head.customers) {
		before, after := b.base.customers[name], b.head.customers[name]
		if before == after {
			continue
		}
		from, to := customerOf(before), customerOf(after)
		add := func(change, from, to string) {
			b.Customers = append(b.Customers, CustomerChange{Customer: name, Change: change, From: from, To: to})
		}
		switch {
		case after == nil:
			add("removed", from.DisplayName, "")
			continue
		case before == nil:
			add("added", "", to.DisplayName)
		case from.DisplayName != to.DisplayName:
			add("renamed", from.DisplayName, to.DisplayName)
		}
		if from.Blocked != to.Blocked {
			add(map[bool]string{true: "blocked", false: "unblocked"}[to.Blocked], "", "")
		}
		b.monitor("customer "+name+" ", from.Monitor, to.Monitor)
		b.deadlineSettings("customer "+name+" ", from.Deadlines, to.Deadlines)
		b.compareWindows(hub.CustomerOwner(name), from.Maintenance, to.Maintenance)
		b.setting("customer "+name+" language", from.Language, to.Language)
		b.setting("customer "+name+" timeZone", from.TimeZone, to.TimeZone)
		b.compareChannels(hub.CustomerOwner(name), before, after)
		b.compareKeys(hub.CustomerOwner(name), before, after)
	}
}

func customerOf(f *fleetfile.Single) hub.Customer {
	if f == nil || f.Customer == nil {
		return hub.Customer{}
	}
	return *f.Customer
}

// union returns the names in either map, sorted.
func union[V any](a, b map[string]V) []string {
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// finish sorts, and says in one line what it is about.
func (b *builder) finish() {
	b.sortWarnings()
	slices.SortStableFunc(b.Hosts, func(x, y HostChange) int {
		return cmp.Or(cmp.Compare(hostRank(x.Change), hostRank(y.Change)), cmp.Compare(x.Customer, y.Customer), cmp.Compare(x.Host, y.Host), cmp.Compare(x.Label, y.Label))
	})
	slices.SortStableFunc(b.Keys, func(x, y KeyChange) int {
		return cmp.Or(cmp.Compare(ownerRank(x.Owner), ownerRank(y.Owner)), cmp.Compare(x.Owner, y.Owner))
	})
	slices.SortStableFunc(b.Windows, func(x, y WindowChange) int {
		return cmp.Or(cmp.Compare(ownerRank(x.Owner), ownerRank(y.Owner)), cmp.Compare(x.Owner, y.Owner), cmp.Compare(x.Window, y.Window))
	})
	slices.SortStableFunc(b.Channels, func(x, y ChannelChange) int {
		return cmp.Or(cmp.Compare(ownerRank(x.Owner), ownerRank(y.Owner)), cmp.Compare(x.Owner, y.Owner), cmp.Compare(x.Channel, y.Channel))
	})
	b.collectHosts()
	switch {
	case len(b.Structural) > 0:
		b.Verdict = Rejected
	case b.Guard.Held:
		b.Verdict = Held
	case b.empty():
		b.Verdict = Nothing
	default:
		b.Verdict = Applies
	}
	b.Summary = b.summary()
}

func (p *Plan) sortWarnings() {
	slices.SortFunc(p.Warnings, func(x, y Warning) int {
		return cmp.Or(cmp.Compare(x.Owner, y.Owner), cmp.Compare(x.Message, y.Message))
	})
}

func (p *Plan) empty() bool {
	return len(p.Mistakes)+len(p.Hosts)+len(p.Customers)+len(p.Keys)+len(p.Thresholds)+
		len(p.Deadlines)+len(p.Windows)+len(p.Events)+len(p.Channels)+len(p.Settings)+len(p.Recipients)+len(p.Specs) == 0
}

// collectHosts notes the hosts that the plan is about, for AddReports.
func (b *builder) collectHosts() {
	note := func(id string) {
		spec := hostSpec{}
		if f := b.base.hosts[id]; f != nil && f.Host != nil {
			spec.customer = f.Host.Customer
		}
		if f := b.head.hosts[id]; f != nil && f.Host != nil {
			spec = hostSpec{f.Host.Customer, f.Host.Desired}
		}
		b.desired[id] = spec
	}
	for _, h := range b.Hosts {
		note(h.Host)
	}
	for _, s := range b.Specs {
		note(s.Host)
	}
	for _, k := range b.Keys {
		if id := hostID(k.Owner); id != "" {
			note(id)
		}
	}
	for _, t := range b.Thresholds {
		for _, id := range t.Hosts {
			note(id)
		}
	}
}

var hostOrder = []string{"removed", "retired", "enrolled", "reinstated", "paused", "unpaused", "moved", "renamed", "labelled", "recorded", "forgotten", "repaired"}

func hostRank(change string) int { return slices.Index(hostOrder, change) }

// ownerRank puts the fleet before customers and those before hosts.
func ownerRank(owner string) int {
	kind, _, _ := strings.Cut(owner, "/")
	return slices.Index([]string{"fleet", "customer", "host"}, kind)
}
