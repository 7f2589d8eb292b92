package wire

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"felhom.eu/hub/internal/hub"
)

const (
	maxDepth        = 64
	maxVersion      = 64 // characters
	maxRejectedItem = 1 << 10
	maxRejected     = 1000 // per report, so that a body of bad items stays small in memory
)

// reader reads the body of an agent or a controller, a member of the top level at a
// time. Methods that return an error refuse the whole body; the others call reject.
type reader struct {
	cursor            // over the value of the member
	identityOnly bool // items and sections, which never refuse a body, are passed over

	names    set[string] // at the top level
	err      error       // the first that refuses the body
	rejected []hub.RejectedItem
	unlisted int // rejected beyond maxRejected
}

// read calls member for every member of the top level, with the cursor at its value,
// until one refuses the body. It judges the whole text before any of its parts: a
// mistake of syntax goes before all others.
func (r *reader) read(text string, member func(name string) error) error {
	deepest, valid := scan(text, func(name, value string) {
		if r.err == nil {
			r.cursor = cursor{text: value}
			r.err = r.named(unquote(name), member)
		}
	})
	switch {
	case !valid:
		return invalid("not_json", "the body is not one valid JSON text in UTF-8")
	case deepest > maxDepth:
		return invalid("too_deep", "the body nests deeper than 64 levels")
	case text[skipSpace(text, 0)] != '{':
		return invalid("not_object", "the body is not a JSON object")
	}
	return r.err
}

func (r *reader) named(name string, member func(name string) error) error {
	if !r.names.add(name) {
		return invalid("duplicate_name", "a name stands twice at the top level")
	}
	return member(name)
}

func invalid(reason, message string) error {
	return &hub.Error{Code: hub.Invalid, Reason: reason, Message: message}
}

// textOf and bytesOf look at the same memory in the other way: nobody may write to
// it. Copies of every body and of every guest's specification were most of what
// reading allocated.
func textOf(body []byte) string { return unsafe.String(unsafe.SliceData(body), len(body)) }

func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

// stringValue consumes the value ahead; ok says that it is a string.
func (r *reader) stringValue() (said string, ok bool) {
	raw := r.value()
	if raw[0] != '"' {
		return "", false
	}
	return unquote(raw), true
}

// reportedAt consumes the sender's clock.
func (r *reader) reportedAt() (time.Time, error) {
	said, ok := r.stringValue()
	at, err := parseTime(said)
	if !ok || err != nil {
		return time.Time{}, invalid("identity", "reported_at is not an RFC 3339 time")
	}
	return at, nil
}

// version consumes the version of what reports.
func (r *reader) version(name string) (string, error) {
	version, ok := r.stringValue()
	if !ok || utf8.RuneCountInString(version) > maxVersion {
		return "", invalid("identity", name+" is a string of at most 64 characters")
	}
	return version, nil
}

// foldsTo reports whether case or Unicode folding makes name equal to one of the
// names that identify what is read.
func foldsTo(name string, identity ...string) bool {
	folded := ligatures.Replace(strings.Map(func(r rune) rune {
		return unicode.ToLower(unicode.ToUpper(r)) // ſ, K and ı go both ways
	}, name))
	for _, id := range identity {
		if folded == id {
			return true
		}
	}
	return false
}

// ligatures are the full foldings that produce letters of those names.
var ligatures = strings.NewReplacer("ﬅ", "st", "ﬆ", "st", "ß", "ss")

// list reads a section that is a list: each call of item consumes one element
// and says why it does not count, or nil. Absent, null and empty are the same.
func (r *reader) list(section string, item func() error) {
	switch kind := r.kind(); {
	case r.identityOnly, kind == 'n':
		return
	case kind == '[':
	default:
		r.reject(section, -1, "not a list", r.value())
		return
	}
	position := 0
	for r.enter(); r.more(); position++ {
		start := r.pos
		if err := item(); err != nil {
			r.reject(section, position, err.Error(), r.text[start:r.pos])
		}
	}
}

// section reads an optional object whose mistakes never cost the report.
func (r *reader) section(name string, read func(object cursor) error) {
	if r.identityOnly {
		return
	}
	raw, unique := r.uniqueValue()
	var err error
	switch {
	case raw[0] == 'n':
		return
	case raw[0] != '{':
		err = errNotObject
	case !unique:
		err = errNameTwice
	default:
		err = read(cursor{text: raw})
	}
	if err != nil {
		r.reject(name, -1, err.Error(), raw)
	}
}

// reject notes a part of the body that is left out.
func (r *reader) reject(section string, position int, reason, raw string) {
	if len(r.rejected) == maxRejected {
		r.unlisted++
		return
	}
	if n := maxRejectedItem; len(raw) > n {
		for !utf8.RuneStart(raw[n]) {
			n--
		}
		raw = raw[:n]
	}
	r.rejected = append(r.rejected, hub.RejectedItem{
		Section: section, Position: position, Reason: reason, Item: bytesOf(raw),
	})
}

// rejects returns what was left out. Where it was more than is listed, the last note
// is the count of those that found no room.
func (r *reader) rejects() []hub.RejectedItem {
	if r.unlisted > 0 {
		r.rejected[maxRejected-1] = hub.RejectedItem{
			Section: r.rejected[maxRejected-1].Section, Position: -1,
			Reason: fmt.Sprintf("%d more items were rejected", r.unlisted+1),
		}
	}
	return r.rejected
}
