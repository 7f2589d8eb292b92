package fleetfile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/seal"
	"felhom.eu/hub/internal/yamlfile"
)

// file is what is known of one file: once it is read, at most one of fleet,
// customer and host is set, all nil where nothing could be made of it.
type file struct {
	name     string
	blob     string // git's id of the content; empty: not known
	read     bool
	tooLarge bool
	locked   bool // a seal that no identity opens
	fleet    *hub.FleetSpec
	customer *hub.Customer
	host     *hub.Host
	problems []hub.Problem

	// seals are the digests of the ciphertexts, as the owner's Keys: what tells
	// keys apart that were not opened. With an opener there are none.
	seals [][sha256.Size]byte

	// Of the owner's Channels: in the same way what tells their addresses apart, and
	// those, by their places, that fleet.yaml has to allow since they are inside.
	addresses [][sha256.Size]byte
	inside    []int
}

// reader parses one file.
type reader struct {
	*stage
	*file
	doc *yamlfile.Document
}

func (s *stage) parse(f *file, data []byte) {
	r := reader{stage: s, file: f}
	r.doc, r.problems = yamlfile.Parse(f.name, data, maxFileBytes)
	if r.doc == nil {
		return
	}
	switch role, _, _ := placeOf(f.name); role {
	case hostRole:
		r.readHost()
	case customerRole:
		r.readCustomer()
	default:
		r.readFleet()
	}
}

func (r *reader) decode(into any) { r.problems = append(r.problems, r.doc.Decode(into)...) }

func (r *reader) report(at, message, hint string) {
	r.problems = append(r.problems, r.doc.Problem(at, message, hint))
}

func (r *reader) readHost() {
	var f HostFile
	r.decode(&f)
	folder := path.Base(path.Dir(path.Dir(r.name)))
	id := strings.TrimSuffix(path.Base(r.name), ".yaml")
	if !hub.ValidHostID(id) {
		r.report("metadata.name", fmt.Sprintf("the file's name %q is no host id", id),
			"lowercase letters, digits, dots and dashes; at most 128, a letter or digit first")
	}
	r.agree("metadata.name", f.Metadata.Name, id, "the file")
	r.agree("metadata.customer", f.Metadata.Customer, folder, "the folder")
	r.checkLabels("metadata.labels", f.Metadata.Labels)
	r.checkText("spec.displayName", f.Spec.DisplayName)
	r.checkRetired(f.Spec)
	r.checkObject("spec.desired", f.Spec.Desired)
	r.checkObject("spec.drRecord", f.Spec.DRRecord)
	h := &hub.Host{
		ID: id, Customer: folder, DisplayName: f.Spec.DisplayName, Labels: r.labels.share(f.Metadata.Labels),
		Lifecycle: lifecycle(f.Spec.State), Monitor: r.thresholds(f.Spec.Monitor),
		Deadlines: r.deadlines(f.Spec.Deadlines), Maintenance: r.readWindows(hub.HostOwner(id), f.Spec.Maintenance),
		Desired: f.Spec.Desired, DRRecord: f.Spec.DRRecord, File: r.name, Blob: r.blob,
	}
	if f.Spec.EnrollBy != nil {
		h.EnrollBy = f.Spec.EnrollBy.UTC().Truncate(time.Millisecond)
	}
	h.Keys = r.readKeys(hub.HostOwner(id), f.Spec.Keys, h.Lifecycle != hub.Retired)
	r.host = h
}

// lifecycle is one of the constants where it can be: a fleet of 100,000 hosts
// need not hold as many copies of "active".
func lifecycle(state string) hub.Lifecycle {
	switch l := hub.Lifecycle(state); l {
	case "", hub.Active:
		return hub.Active
	case hub.Paused:
		return hub.Paused
	case hub.Retired:
		return hub.Retired
	default:
		return l // reported by Decode
	}
}

// labelSets shares equal sets of labels between hosts: most hosts of a fleet
// have one of a few.
type labelSets struct {
	mu    sync.Mutex
	known map[string]map[string]string
}

const maxLabelSets = 10_000

func (s *labelSets) share(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	var name strings.Builder
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&name, "%q%q", key, labels[key])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.known[name.String()]; ok {
		return known
	}
	if s.known == nil || len(s.known) >= maxLabelSets {
		s.known = map[string]map[string]string{}
	}
	s.known[name.String()] = labels
	return labels
}

func (r *reader) readCustomer() {
	var f CustomerFile
	r.decode(&f)
	folder := path.Base(path.Dir(r.name))
	if !hub.ValidCustomerName(folder) {
		r.report("metadata.name", fmt.Sprintf("the folder's name %q is no customer name", folder), nameRule)
	}
	r.agree("metadata.name", f.Metadata.Name, folder, "the folder")
	r.checkText("spec.displayName", f.Spec.DisplayName)
	r.customer = &hub.Customer{
		Name: folder, DisplayName: f.Spec.DisplayName, Blocked: f.Spec.Status == "blocked",
		Monitor: r.thresholds(f.Spec.Monitor), File: r.name,
		Deadlines: r.deadlines(f.Spec.Deadlines), Maintenance: r.readWindows(hub.CustomerOwner(folder), f.Spec.Maintenance),
		Channels: r.readChannels(hub.CustomerOwner(folder), f.Spec.Notify),
		Language: f.Spec.Language, TimeZone: r.readZone(f.Spec.TimeZone),
		Keys: r.readKeys(hub.CustomerOwner(folder), f.Spec.Keys, true),
	}
}

const nameRule = "lowercase letters, digits and dashes; at most 63, no dash first or last"

func (r *reader) readFleet() {
	var f FleetFile
	r.decode(&f)
	if name := f.Metadata.Name; name != "" && !hub.ValidCustomerName(name) {
		r.report("metadata.name", fmt.Sprintf("%q is no name of a fleet", name), nameRule)
	}
	if f.Spec.Guards.AllowRemoval < 0 {
		r.report("spec.guards.allowRemoval", "spec.guards.allowRemoval must not be negative", "")
	}
	r.fleet = &hub.FleetSpec{
		Name: f.Metadata.Name, Monitor: r.thresholds(f.Spec.Monitor),
		Deadlines:        r.deadlines(f.Spec.Deadlines),
		Maintenance:      r.readWindows(hub.FleetOwner(), f.Spec.Maintenance),
		ControllerEvents: r.readControllerEvents(f.Spec.ControllerEvents),
		Channels:         r.readChannels(hub.FleetOwner(), f.Spec.Notify),
		Language:         f.Spec.Language,
		TimeZone:         r.readZone(f.Spec.TimeZone),
		Outbound:         r.readOutbound(f.Spec.Outbound.Allow),
		Keys:             r.readKeys(hub.FleetOwner(), f.Spec.Keys, true),
		AllowRemoval:     f.Spec.Guards.AllowRemoval,
	}
}

// agree reports a name that differs from the one of the file or folder.
func (r *reader) agree(at, got, want, what string) {
	defer r.mark("name", len(r.problems))
	if got != "" && got != want {
		r.report(at, fmt.Sprintf("%s is %q, but %s is named %q", at, got, what, want), "")
	}
}

const maxText = 256

// TextMistake says what is wrong with a displayName or the value of a label:
// "" when nothing is. They are at most 256 printable characters.
func TextMistake(text string) string {
	if n := utf8.RuneCountInString(text); n > maxText {
		return fmt.Sprintf("has %d characters; at most %d", n, maxText)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return "holds a character that cannot be printed"
	}
	return ""
}

func (r *reader) checkText(at, text string) {
	if mistake := TextMistake(text); mistake != "" {
		r.report(at, at+" "+mistake, "")
	}
}

var (
	labelKey    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)
	fingerprint = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

func (r *reader) checkLabels(list string, labels map[string]string) {
	for key, value := range labels {
		at := list + "[" + key + "]"
		if !labelKey.MatchString(key) {
			r.report(at, fmt.Sprintf("%q is no name of a label", key),
				"letters, digits and . _ / - between them; at most 63")
		}
		r.checkText(at, value)
	}
}

func (r *reader) checkObject(at string, text yamlfile.JSON) {
	if len(text) > 0 && text[0] != '{' {
		r.report(at, at+" must be a mapping", "")
	}
}

func (r *reader) thresholds(m *Monitor) hub.Thresholds {
	if m == nil {
		return hub.Thresholds{}
	}
	for at, d := range map[string]time.Duration{"spec.monitor.staleAfter": m.StaleAfter, "spec.monitor.downAfter": m.DownAfter} {
		if d < 0 {
			r.report(at, at+" must not be negative", "")
		}
	}
	return hub.Thresholds{StaleAfter: m.StaleAfter, DownAfter: m.DownAfter}
}

// readKeys checks the keys of a file and opens them, where it can and should.
func (r *reader) readKeys(owner hub.Owner, keys []Key, open bool) []hub.Key {
	out := make([]hub.Key, 0, len(keys))
	first := make(map[string]int, len(keys))
	for i, k := range keys {
		at := fmt.Sprintf("spec.keys[%d]", i)
		if k.ID != "" && !hub.ValidKeyID(k.ID) {
			r.report(at+".id", fmt.Sprintf("%q is no key id", k.ID), "lowercase letters, digits and dashes, as k1; at most 32")
		}
		if j, twice := first[k.ID]; twice && k.ID != "" {
			r.report(at+".id", fmt.Sprintf("key id %q stands twice", k.ID),
				fmt.Sprintf("first in line %d", r.doc.Position(fmt.Sprintf("spec.keys[%d].id", j)).Line))
			r.mark("duplicate", len(r.problems)-1)
		} else {
			first[k.ID] = i
		}
		key := hub.Key{ID: k.ID, Owner: owner}
		if k.NotAfter != nil {
			key.NotAfter = *k.NotAfter
		}
		if k.Sealed != "" && k.ID != "" && r.checkSealedTo(at, k.SealedTo) {
			switch {
			case r.opener == nil && r.trusted: // it was looked at before
			case r.opener == nil:
				r.checkForm(at, "key "+k.ID, k.SealedTo, k.Sealed)
			case open:
				key.Digest = r.open(at, owner, k)
			}
		}
		out = append(out, key)
		if r.opener == nil {
			r.seals = append(r.seals, sha256.Sum256([]byte(strings.TrimSpace(k.Sealed))))
		}
	}
	return out
}

func (r *reader) checkSealedTo(at string, sealedTo []string) bool {
	defer r.mark("seal", len(r.problems))
	before := len(r.problems)
	for i, print := range sealedTo {
		item := fmt.Sprintf("%s.sealedTo[%d]", at, i)
		switch {
		case !fingerprint.MatchString(print):
			r.report(item, item+" is not the fingerprint of a recipient", "16 hex digits")
		case slices.Index(sealedTo, print) < i:
			r.report(item, fmt.Sprintf("recipient %s stands twice", print), "")
		}
	}
	return len(r.problems) == before
}

// open unseals a key, or says why it cannot.
func (r *reader) open(at string, owner hub.Owner, k Key) hub.Digest {
	digest, err := r.opener.Open(owner, k.ID, k.Sealed)
	r.checkOpened(at, fmt.Sprintf("key %s of %s", k.ID, owner), k.SealedTo, err, "make a new key with: hub fleet key add "+owner.String())
	return digest
}

// checkOpened reports why what is sealed at a place did not open, if it did not.
func (r *reader) checkOpened(at, what string, sealedTo []string, err error, hint string) {
	defer r.mark("seal", len(r.problems))
	if errors.Is(err, seal.ErrNoIdentity) {
		r.locked = true
		r.report(at+".sealed", fmt.Sprintf("none of the hub's identities opens %s; it was sealed to %s", what, r.nameAll(sealedTo)),
			"seal it to the hub's recipient, or give the hub the identity in fleet.identity_files")
	} else if err != nil {
		r.report(at+".sealed", fmt.Sprintf("%s: %v", what, err), hint)
	}
}

// checkForm checks what can be known of a seal without opening it.
func (r *reader) checkForm(at, what string, sealedTo []string, armored string) {
	defer r.mark("seal-recipients", len(r.problems))
	kinds, err := seal.Recipients(armored)
	if err != nil {
		r.report(at+".sealed", fmt.Sprintf("%s: %v", what, err), "")
		r.mark("seal", len(r.problems)-1)
		return
	}
	if len(kinds) != len(sealedTo) {
		r.report(at+".sealedTo", fmt.Sprintf("%s is sealed to %d recipients, but sealedTo names %d", what, len(kinds), len(sealedTo)), "")
		return
	}
	var missing []string
	unknown := slices.Clone(sealedTo)
	for _, recipient := range r.recipients {
		if i := slices.Index(unknown, recipient.Fingerprint()); i >= 0 {
			unknown = slices.Delete(unknown, i, i+1)
		} else {
			missing = append(missing, recipient.Fingerprint())
		}
	}
	const hint = "seal it again, to the recipients of " + RecipientsPath
	switch {
	case len(r.recipients) == 0: // reported there
	case len(missing) > 0:
		r.report(at+".sealedTo", fmt.Sprintf("%s is not sealed to %s", what, r.nameAll(missing)), hint)
	case len(unknown) > 0:
		r.report(at+".sealedTo", fmt.Sprintf("%s is sealed to %s, which %s does not name", what, r.nameAll(unknown), RecipientsPath), hint)
	case kinds[0] != r.recipients[0].Kind():
		r.report(at+".sealed", fmt.Sprintf("%s is sealed to recipients of the kind %s, but %s names %s", what, kinds[0], RecipientsPath, r.recipients[0].Kind()), hint)
	}
}

// nameAll names recipients by fingerprint, and by the beginning of their public
// string where recipients.txt has it.
func (r *reader) nameAll(prints []string) string {
	const shown = 16
	var names []string
	for _, print := range prints {
		i := slices.IndexFunc(r.recipients, func(known seal.Recipient) bool { return known.Fingerprint() == print })
		if i < 0 {
			names = append(names, print)
			continue
		}
		names = append(names, fmt.Sprintf("%s (%s…)", print, r.recipients[i].String()[:shown]))
	}
	return strings.Join(names, ", ")
}
