package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"felhom.eu/hub/internal/hub"
)

// compareSpec compares an inert part of a host by its values.
func (b *builder) compareSpec(h *hub.Host, name string, before, after []byte) {
	if bytes.Equal(before, after) {
		return
	}
	d := differ{report: func(path string, from, to any) {
		b.Specs = append(b.Specs, SpecChange{Host: h.ID, Customer: h.Customer, Path: path, From: encode(from), To: encode(to)})
	}}
	d.compare(name, value(before), value(after))
}

// absent is a value that is not there, which null is.
type absent struct{}

// value decodes JSON that was checked; numbers keep every digit.
func value(text []byte) any {
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if len(text) == 0 || dec.Decode(&v) != nil {
		return absent{}
	}
	return v
}

// encode is the inverse of value; nil for what is absent.
func encode(v any) json.RawMessage {
	if v == (absent{}) {
		return nil
	}
	text, _ := json.Marshal(v) // it was JSON
	return text
}

// differ walks two JSON values and reports where they differ.
type differ struct {
	report func(path string, a, b any)
	common bool // only what both have
}

func (d differ) compare(path string, a, b any) {
	if d.common && (a == (absent{}) || b == (absent{})) {
		return
	}
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			d.objects(path, x, y)
			return
		}
	case []any:
		if y, ok := b.([]any); ok {
			d.lists(path, x, y)
			return
		}
	case json.Number:
		if y, ok := b.(json.Number); ok && sameNumber(x, y) {
			return
		}
	case absent:
		if b == a {
			return
		}
	default: // text, bool or null
		switch b.(type) {
		case string, bool, nil:
			if a == b {
				return
			}
		}
	}
	d.report(path, a, b)
}

func (d differ) objects(path string, a, b map[string]any) {
	for _, name := range union(a, b) {
		d.compare(member(path, name), at(a, name), at(b, name))
	}
}

func at(m map[string]any, name string) any {
	if v, ok := m[name]; ok {
		return v
	}
	return absent{}
}

func member(path, name string) string {
	if name == "" || strings.ContainsAny(name, ".[] \"") {
		return path + "[" + strconv.Quote(name) + "]"
	}
	return path + "." + name
}

// lists matches the objects of two lists by what names them; other lists are
// one value.
func (d differ) lists(path string, a, b []any) {
	for _, name := range []string{"vmid", "id", "name"} {
		x, ok := byName(a, name)
		y, ok2 := byName(b, name)
		if !ok || !ok2 || len(a)+len(b) == 0 {
			continue
		}
		for _, key := range union(x, y) {
			d.compare(fmt.Sprintf("%s[%s=%s]", path, name, key), at(x, key), at(y, key))
		}
		return
	}
	if !bytes.Equal(encode(a), encode(b)) {
		d.report(path, a, b)
	}
}

// byName returns the objects of a list by their member name; false where an item
// is no object, or has none, or not its own.
func byName(list []any, name string) (map[string]any, bool) {
	items := make(map[string]any, len(list))
	for _, item := range list {
		object, ok := item.(map[string]any)
		if !ok {
			return nil, false
		}
		var key string
		switch v := object[name].(type) {
		case json.Number:
			key = v.String()
		case string:
			key = v
		default:
			return nil, false
		}
		if _, twice := items[key]; twice {
			return nil, false
		}
		items[key] = object
	}
	return items, true
}

// sameNumber compares as written, and 4096 with 4096.0 by value.
func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	if !strings.ContainsAny(a.String()+b.String(), ".eE") {
		return false
	}
	x, err := a.Float64()
	y, err2 := b.Float64()
	return err == nil && err2 == nil && x == y
}

// differences compares a desired spec with a report, where both have a value.
func differences(desired, body []byte) []Difference {
	found := map[string]Difference{}
	d := differ{common: true, report: func(path string, a, b any) {
		path = strings.TrimPrefix(path, ".")
		found[path] = Difference{Path: path, Desired: encode(a), Reported: encode(b)}
	}}
	d.compare("", value(desired), value(body))
	list := make([]Difference, 0, len(found))
	for _, path := range slices.Sorted(maps.Keys(found)) {
		list = append(list, found[path])
	}
	return list
}
