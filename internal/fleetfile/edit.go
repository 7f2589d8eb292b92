package fleetfile

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// KeyFile is a file that holds keys, as far as one must know it to change them.
type KeyFile struct {
	Name     string // path in the fleet folder
	Owner    hub.Owner
	Keys     []Key // the seals are not looked at
	Channels []Channel
	State    hub.Lifecycle
	Retired  *Retirement // of a host
	doc      *yamlfile.Document
	contents []byte
}

// ReadKeys reads the file named name, whose path in the fleet folder says of
// what kind it is and whose keys it holds. With a problem there is no KeyFile.
func ReadKeys(name string, data []byte) (*KeyFile, []hub.Problem) {
	doc, problems := yamlfile.Parse(name, data, maxFileBytes)
	if doc == nil {
		return nil, problems
	}
	f := &KeyFile{Name: name, Owner: ownerOf(name), State: hub.Active, doc: doc, contents: data}
	switch f.Owner.Kind {
	case hub.OwnerHost:
		var host HostFile
		problems = append(problems, doc.Decode(&host)...)
		f.Keys, f.Retired = host.Spec.Keys, host.Spec.Retired
		if host.Spec.State != "" {
			f.State = hub.Lifecycle(host.Spec.State)
		}
	case hub.OwnerCustomer:
		var customer CustomerFile
		problems = append(problems, doc.Decode(&customer)...)
		f.Keys, f.Channels = customer.Spec.Keys, customer.Spec.Notify
	default:
		var fleet FleetFile
		problems = append(problems, doc.Decode(&fleet)...)
		f.Keys, f.Channels = fleet.Spec.Keys, fleet.Spec.Notify
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return f, nil
}

// ValidAt reports whether the key may be used at t, as hub.Key says.
func (k Key) ValidAt(t time.Time) bool {
	return k.NotAfter == nil || hub.Key{NotAfter: *k.NotAfter}.ValidAt(t)
}

// ownerOf returns whose keys stand in the file of that path.
func ownerOf(name string) hub.Owner {
	switch role, _, _ := placeOf(name); role {
	case hostRole:
		return hub.HostOwner(strings.TrimSuffix(path.Base(name), ".yaml"))
	case customerRole:
		return hub.CustomerOwner(path.Base(path.Dir(name)))
	}
	return hub.FleetOwner()
}

// ChannelProblem makes a problem at a field ("sealedUrl.sealed") of channel i.
func (f *KeyFile) ChannelProblem(i int, field, message, hint string) hub.Problem {
	return f.doc.Problem(channelPath(i, field), message, hint)
}

// Problem makes a problem at a field ("sealed") of key i.
func (f *KeyFile) Problem(i int, field, message, hint string) hub.Problem {
	return f.doc.Problem(keyPath(i, field), message, hint)
}

func keyPath(i int, field string) string { return fmt.Sprintf("spec.keys[%d].%s", i, field) }

// Each of the following returns the file's new content. All the rest of it
// stays as it was written.

// AddKey adds k as the last key.
func (f *KeyFile) AddKey(k Key) ([]byte, error) {
	return yamlfile.Append(f.Name, f.contents, "spec.keys", k)
}

// Rotate adds k as the last key and gives each key that ends names, by its
// place, an end.
func (f *KeyFile) Rotate(k Key, ends map[int]time.Time) ([]byte, error) {
	var edits []yamlfile.Edit
	for i, end := range ends {
		edits = append(edits, yamlfile.Edit{Path: keyPath(i, "notAfter"), Value: end, After: "id"})
	}
	data, err := yamlfile.Apply(f.Name, f.contents, edits...)
	if err != nil {
		return nil, err
	}
	return yamlfile.Append(f.Name, data, "spec.keys", k)
}

// SetSeals puts new seals in place of those of the keys, and of the URLs of the
// channels, that are named by their places; of a key only SealedTo and Sealed are
// taken.
func (f *KeyFile) SetSeals(keys map[int]Key, urls map[int]SealedURL) ([]byte, error) {
	var edits []yamlfile.Edit
	for i, k := range keys {
		edits = append(edits, sealEdits(fmt.Sprintf("spec.keys[%d]", i), k.SealedTo, k.Sealed)...)
	}
	for i, u := range urls {
		edits = append(edits, sealEdits(channelPath(i, "sealedUrl"), u.SealedTo, u.Sealed)...)
	}
	return yamlfile.Apply(f.Name, f.contents, edits...)
}

func sealEdits(at string, sealedTo []string, sealed string) []yamlfile.Edit {
	return []yamlfile.Edit{{Path: at + ".sealedTo", Value: sealedTo}, {Path: at + ".sealed", Value: sealed}}
}

// SetURL gives the channel of this name a sealed URL, in place of the one it has, or
// adds the channel as the last one.
func (f *KeyFile) SetURL(name string, u SealedURL) ([]byte, error) {
	i := slices.IndexFunc(f.Channels, func(c Channel) bool { return c.Name == name })
	switch {
	case i < 0 && len(f.Channels) >= maxChannels:
		return nil, fmt.Errorf("%s has %d channels; at most %d", f.Name, len(f.Channels), maxChannels)
	case i < 0:
		return yamlfile.Append(f.Name, f.contents, "spec.notify", Channel{Name: name, SealedURL: &u})
	}
	edits := []yamlfile.Edit{{Path: channelPath(i, "sealedUrl"), Value: u, After: "name"}}
	if f.Channels[i].SealedURL != nil {
		edits = sealEdits(channelPath(i, "sealedUrl"), u.SealedTo, u.Sealed)
	}
	if f.doc.Has(channelPath(i, "url")) {
		edits = append(edits, yamlfile.Edit{Path: channelPath(i, "url")})
	}
	return yamlfile.Apply(f.Name, f.contents, edits...)
}

// RemoveKeys takes the keys at these places away; they are in rising order.
func (f *KeyFile) RemoveKeys(places []int) ([]byte, error) {
	var edits []yamlfile.Edit
	for gone, i := range places {
		edits = append(edits, yamlfile.Edit{Path: fmt.Sprintf("spec.keys[%d]", i-gone)})
	}
	return yamlfile.Apply(f.Name, f.contents, edits...)
}

// Retire sets the state of a host to retired and writes down why and when.
func (f *KeyFile) Retire(why Retirement) ([]byte, error) {
	return yamlfile.Apply(f.Name, f.contents,
		yamlfile.Edit{Path: "spec.state", Value: string(hub.Retired), After: "displayName"},
		yamlfile.Edit{Path: "spec.retired", Value: why, After: "state"})
}

// checkRetired checks what a host's file says of its retirement.
func (r *reader) checkRetired(spec HostSpec) {
	if spec.Retired == nil {
		return
	}
	r.checkText("spec.retired.reason", spec.Retired.Reason)
	if spec.State != string(hub.Retired) {
		r.report("spec.retired", "spec.retired stands in the file of a host that is not retired",
			"take it away, or write state: retired")
	}
}
