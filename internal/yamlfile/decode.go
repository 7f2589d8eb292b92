package yamlfile

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"felhom.eu/hub/internal/hub"
)

// JSON is a part of a file that is kept and not understood: Decode stores the
// value as JSON, members in the order of the file.
type JSON []byte

var jsonType = reflect.TypeFor[JSON]()

// Decode fills the struct that into points to and returns every mistake.
//
// A field takes the key named by its tag `yaml:"key"`; fields without one are
// left alone. Fields are texts, bools, numbers, time.Time (RFC 3339),
// time.Duration (see ParseDuration), types with UnmarshalText, JSON, and
// structs, pointers, slices and string-keyed maps of these. What the file does
// not name keeps the value it had, and so does a key with nothing after it.
//
// Two more tags are checked: `required:"true"` for a key that must be there and
// not be an empty text, and `oneof:"a|b"` for the only texts allowed. (Schema reads them too.)
func (d *Document) Decode(into any) []hub.Problem {
	dec := decoder{doc: d}
	v := reflect.ValueOf(into).Elem()
	if d.root == nil {
		dec.required(v.Type(), nil, nil, "")
	} else {
		dec.value(d.root, v, "", nil)
	}
	Sort(dec.problems)
	return dec.problems
}

type decoder struct {
	doc      *Document
	problems []hub.Problem
}

func (d *decoder) report(n *yaml.Node, hint, format string, args ...any) {
	d.problems = append(d.problems, d.doc.problemAt(n, "value", fmt.Sprintf(format, args...), hint))
}

// value stores n in v. around is the key that holds n, nil at the top.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, around *yaml.Node) {
	switch t := v.Type(); {
	case n.Kind == yaml.AliasNode || isNull(n):
		// Parse has reported the alias; null is "not given".
	case t == jsonType:
		d.json(n, v, path)
	case isScalar(t):
		d.scalar(n, v, path)
	case t.Kind() == reflect.Pointer:
		target := reflect.New(t.Elem())
		if !v.IsNil() {
			target.Elem().Set(v.Elem())
		}
		d.value(n, target.Elem(), path, around)
		v.Set(target)
	case t.Kind() == reflect.Struct:
		if d.is(n, yaml.MappingNode, path) {
			d.structure(n, v, path, around)
		}
	case t.Kind() == reflect.Slice:
		if d.is(n, yaml.SequenceNode, path) {
			d.slice(n, v, path)
		}
	case t.Kind() == reflect.Map:
		if d.is(n, yaml.MappingNode, path) {
			d.mapping(n, v, path)
		}
	default:
		panic("yamlfile: cannot decode into a " + t.String()) // a mistake of the program's
	}
}

// is reports whether n is of the kind, or says that it is not.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, path string) bool {
	if n.Kind != kind {
		d.report(n, "", "%s must be %s, not %s", orTop(path), kindName(kind), kindName(n.Kind))
	}
	return n.Kind == kind
}

func kindName(kind yaml.Kind) string {
	switch kind {
	case yaml.MappingNode:
		return "a mapping (lines of key: value)"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

func orTop(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func join(path, key string) string {
	switch {
	case strings.ContainsAny(key, ".[]"):
		return path + "[" + key + "]"
	case path == "":
		return key
	default:
		return path + "." + key
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if !d.is(n, yaml.ScalarNode, path) {
		return
	}
	if n.Style != 0 && wantsNoQuotes(v.Type()) {
		d.report(n, "take the quotes away", "%s must be %s, not a text", path, plainName(v.Kind()))
		return
	}
	if err := setScalar(v, n.Value); err != nil {
		d.report(n, "", "%s: %v", path, err)
	}
}

// wantsNoQuotes reports whether t is a bool or a number, and no type with a
// text of its own ("30m").
func wantsNoQuotes(t reflect.Type) bool {
	return (t.Kind() == reflect.Bool || isNumber(t)) && t != durationType &&
		!reflect.PointerTo(t).Implements(textUnmarshalerType)
}

func plainName(kind reflect.Kind) string {
	if kind == reflect.Bool {
		return "true or false"
	}
	return "a number"
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string, around *yaml.Node) {
	fields := fieldsOf(v.Type())
	seen := make(map[string]bool, len(fields))
	for key, value := range pairs(n) {
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || seen[key.Value] {
			continue // reported by Parse
		}
		seen[key.Value] = true
		f, known := fields[key.Value]
		if !known {
			d.unknown(key, path, fields)
			continue
		}
		before := len(d.problems)
		d.value(value, v.Field(f.index), join(path, key.Value), key)
		if len(d.problems) == before && len(f.oneof) > 0 && value.Kind == yaml.ScalarNode && !isNull(value) {
			d.oneof(value, join(path, key.Value), f.oneof)
		}
	}
	d.required(v.Type(), n, around, path)
}

func (d *decoder) unknown(key *yaml.Node, path string, fields map[string]field) {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	where := ""
	if path != "" {
		where = " in " + path
	}
	d.problems = append(d.problems, d.doc.problemAt(key, "unknown-key",
		fmt.Sprintf("unknown key %q%s", key.Value, where), suggest(key.Value, names)))
}

func (d *decoder) oneof(n *yaml.Node, path string, allowed []string) {
	for _, a := range allowed {
		if n.Value == a {
			return
		}
	}
	if len(allowed) == 1 {
		d.report(n, "", "%s must be %s, not %q", path, allowed[0], n.Value)
		return
	}
	d.report(n, didYouMean(n.Value, allowed), "%s must be one of %s, not %q", path, strings.Join(allowed, ", "), n.Value)
}

// required reports the keys that n (nil: an empty file) must have and has not.
func (d *decoder) required(t reflect.Type, n, around *yaml.Node, path string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("required") == "" {
			continue
		}
		if n != nil {
			if _, value := child(n, tagName(f)); value != nil && !isEmpty(value) {
				continue
			}
		}
		at := around
		if at == nil {
			at = n
		}
		d.problems = append(d.problems, d.doc.problemAt(at, "missing", join(path, tagName(f))+" is missing", ""))
	}
}

// isEmpty reports whether n is nothing, or a text without a character.
func isEmpty(n *yaml.Node) bool { return isNull(n) || n.Kind == yaml.ScalarNode && n.Value == "" }

func (d *decoder) slice(n *yaml.Node, v reflect.Value, path string) {
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		if isNull(item) {
			d.report(item, "", "%s is empty", at)
			continue
		}
		d.value(item, items.Index(i), at, item)
	}
	v.Set(items)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	m := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	for key, value := range pairs(n) {
		if key.Kind != yaml.ScalarNode {
			continue // reported by Parse
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(value, item, join(path, key.Value), key)
		m.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), item)
	}
	v.Set(m)
}

// field is what the tags of a struct's field say.
type field struct {
	index int
	oneof []string
}

func tagName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func fieldsOf(t reflect.Type) map[string]field {
	fields := make(map[string]field, t.NumField())
	for i := range t.NumField() {
		if name := tagName(t.Field(i)); name != "" && name != "-" {
			fields[name] = field{index: i, oneof: oneofOf(t.Field(i))}
		}
	}
	return fields
}

func oneofOf(f reflect.StructField) []string {
	if tag := f.Tag.Get("oneof"); tag != "" {
		return strings.Split(tag, "|")
	}
	return nil
}
