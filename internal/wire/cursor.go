package wire

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// cursor walks JSON text that is known to be valid: it looks for the ends of
// values, never for mistakes. Every byte is visited once.
type cursor struct {
	text string
	pos  int // between calls: at a value, a name, or a closing bracket
}

func (c *cursor) skipSpace() { c.pos = skipSpace(c.text, c.pos) }

// kind returns the first byte of the value ahead: '{', '[', '"', a digit or
// '-', or the t, f, n of a literal.
func (c *cursor) kind() byte { return c.text[c.pos] }

// enter steps into the object or array ahead. Calls of more must follow until
// it says false.
func (c *cursor) enter() {
	c.pos++
	c.skipSpace()
}

// more reports whether the object or array has another member or element, at
// which the cursor then stands; otherwise the cursor has left it.
func (c *cursor) more() bool {
	c.skipSpace()
	switch c.text[c.pos] {
	case '}', ']':
		c.pos++
		return false
	case ',':
		c.pos++
		c.skipSpace()
	}
	return true
}

// name consumes a member's name and colon; the cursor stands at the value.
func (c *cursor) name() string {
	raw := c.value()
	c.skipSpace()
	c.pos++ // the colon
	c.skipSpace()
	return unquote(raw)
}

// value consumes the value ahead and returns it as sent.
func (c *cursor) value() string {
	start := c.pos
	switch c.kind() {
	case '"':
		c.skipString()
	case '{', '[':
		c.skipNested()
	default:
		c.skipScalar()
	}
	return c.text[start:c.pos]
}

// uniqueValue is value that also reports whether no object within names a
// member twice.
func (c *cursor) uniqueValue() (raw string, unique bool) {
	start := c.pos
	switch c.kind() {
	case '{':
		unique = true
		var names set[string]
		for c.enter(); c.more(); {
			fresh := names.add(c.name())
			_, inner := c.uniqueValue()
			unique = unique && fresh && inner
		}
	case '[':
		unique = true
		for c.enter(); c.more(); {
			_, inner := c.uniqueValue()
			unique = unique && inner
		}
	default:
		return c.value(), true
	}
	return c.text[start:c.pos], unique
}

func (c *cursor) skipString() {
	for c.pos++; c.text[c.pos] != '"'; c.pos++ {
		if c.text[c.pos] == '\\' {
			c.pos++
		}
	}
	c.pos++
}

func (c *cursor) skipScalar() {
	for c.pos < len(c.text) {
		switch c.text[c.pos] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return
		}
		c.pos++
	}
}

func (c *cursor) skipNested() {
	for depth := 0; ; {
		switch c.text[c.pos] {
		case '"':
			c.skipString()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		c.pos++
		if depth == 0 {
			return
		}
	}
}

// unquote returns what a valid JSON string says.
func unquote(raw string) string {
	if strings.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	said, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "" // cannot be: the text is valid
	}
	return string(said)
}

func isNumber(raw string) bool { return raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9' }

// set remembers what was added. A few members need no allocation; many stay
// fast, whatever a sender makes up.
type set[K comparable] struct {
	few  [12]K
	n    int
	many map[K]struct{}
}

// add reports whether k is new to the set.
func (s *set[K]) add(k K) bool {
	for i := range s.n {
		if s.few[i] == k {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = k
		s.n++
		return true
	}
	if _, there := s.many[k]; there {
		return false
	}
	if s.many == nil {
		s.many = make(map[K]struct{})
	}
	s.many[k] = struct{}{}
	return true
}
