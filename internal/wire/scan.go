package wire

import (
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting is where the library gives up too.
const maxNesting = 10_000

// scan judges the syntax of text in one pass: whether it is one JSON value in
// UTF-8, without lone surrogates and with nothing behind it; names may stand
// twice. It calls member for each member of an object at the top level, in order
// and as sent, up to the first mistake or the first value that nests deeper than
// maxDepth: what it hands out is valid. deepest is how deep the text nests.
//
// It is written by hand because every report passes here on its way to the
// acknowledgement: one pass does what took three, one of them the library's.
// FuzzScan holds it to the library's judgement.
func scan(text string, member func(name, value string)) (deepest int, ok bool) {
	var (
		few    [maxDepth]byte
		around = few[:0] // the brackets that are open
		pos    = skipSpace(text, 0)
		name   string // of the member at the top level
		start  int    // where its value begins
	)
	for {
		if len(around) > 0 && around[len(around)-1] == '{' {
			end, value := endOfName(text, pos)
			if end < 0 {
				return deepest, false
			}
			if len(around) == 1 {
				name, start = text[pos:end], value
			}
			pos = value
		}
		if pos == len(text) {
			return deepest, false
		}
		inside := false // an object or a list that holds something
		if bracket := text[pos]; bracket == '{' || bracket == '[' {
			deepest = max(deepest, len(around)+1)
			pos = skipSpace(text, pos+1)
			if inside = pos == len(text) || text[pos] != closing(bracket); inside {
				around = append(around, bracket)
			} else {
				pos++
			}
		} else {
			pos = endOfScalar(text, pos)
		}
		if pos < 0 || deepest > maxNesting {
			return deepest, false
		}
		// Behind a value: out of all that ends with it, to the next one.
		for !inside {
			if len(around) == 0 {
				return deepest, skipSpace(text, pos) == len(text)
			}
			if len(around) == 1 && around[0] == '{' && deepest <= maxDepth {
				member(name, text[start:pos])
			}
			bracket := around[len(around)-1]
			switch pos = skipSpace(text, pos); {
			case pos == len(text):
				return deepest, false
			case text[pos] == ',':
				pos, inside = skipSpace(text, pos+1), true
			case text[pos] == closing(bracket):
				around = around[:len(around)-1]
				pos++
			default:
				return deepest, false
			}
		}
	}
}

// closing returns the bracket that closes this one.
func closing(bracket byte) byte { return bracket + 2 }

func skipSpace(text string, pos int) int {
	for pos < len(text) && text[pos] <= ' ' && isSpace(text[pos]) {
		pos++
	}
	return pos
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// The functions below return where the thing at pos ends, -1 where it is none.

// endOfName is for a name and its colon; value is where the value begins.
func endOfName(text string, pos int) (end, value int) {
	if pos == len(text) || text[pos] != '"' {
		return -1, 0
	}
	if end = endOfString(text, pos); end < 0 {
		return -1, 0
	}
	if value = skipSpace(text, end); value == len(text) || text[value] != ':' {
		return -1, 0
	}
	return end, skipSpace(text, value+1)
}

func endOfScalar(text string, pos int) int {
	switch text[pos] {
	case '"':
		return endOfString(text, pos)
	case 't':
		return endOfLiteral(text, pos, "true")
	case 'f':
		return endOfLiteral(text, pos, "false")
	case 'n':
		return endOfLiteral(text, pos, "null")
	}
	return endOfNumber(text, pos)
}

func endOfLiteral(text string, pos int, literal string) int {
	if end := pos + len(literal); end <= len(text) && text[pos:end] == literal {
		return end
	}
	return -1
}

func endOfNumber(text string, pos int) int {
	if text[pos] == '-' {
		pos++
	}
	if pos < len(text) && text[pos] == '0' {
		pos++ // nothing but a fraction or an exponent may follow
	} else if pos = endOfDigits(text, pos); pos < 0 {
		return -1
	}
	if pos < len(text) && text[pos] == '.' {
		if pos = endOfDigits(text, pos+1); pos < 0 {
			return -1
		}
	}
	if pos < len(text) && text[pos]|0x20 == 'e' {
		if pos++; pos < len(text) && (text[pos] == '+' || text[pos] == '-') {
			pos++
		}
		pos = endOfDigits(text, pos)
	}
	return pos
}

func endOfDigits(text string, pos int) int {
	begin := pos
	for pos < len(text) && text[pos]-'0' <= 9 {
		pos++
	}
	if pos == begin {
		return -1
	}
	return pos
}

// endOfString looks at eight bytes at a time: strings are short, and where a loop
// over bytes ends cannot be foretold by the processor.
func endOfString(text string, pos int) int {
	for pos++; pos+8 <= len(text); {
		t := text[pos : pos+8]
		found := special(uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
			uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56)
		if found == 0 {
			pos += 8
			continue
		}
		if pos += bits.TrailingZeros64(found) / 8; text[pos] == '"' {
			return pos + 1
		}
		if pos = endOfSpecial(text, pos); pos < 0 {
			return -1
		}
	}
	for pos < len(text) {
		switch {
		case text[pos] == '"':
			return pos + 1
		case special(uint64(text[pos]))&0x80 == 0:
			pos++
		default:
			if pos = endOfSpecial(text, pos); pos < 0 {
				return -1
			}
		}
	}
	return -1
}

const (
	ones = 0x0101010101010101
	tops = ones * 0x80
)

// special has the top bit of each of the eight bytes set that is a quote, a
// backslash, a control character or no ASCII. Above the lowest such byte it may
// have more.
func special(eight uint64) uint64 {
	quote, backslash := eight^ones*'"', eight^ones*'\\'
	return (eight | (eight-ones*' ')&^eight | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops
}

// endOfSpecial is for what is special in a string and does not end it.
func endOfSpecial(text string, pos int) int {
	switch c := text[pos]; {
	case c == '\\':
		return endOfEscape(text, pos)
	case c < ' ':
		return -1
	}
	_, size := utf8.DecodeRuneInString(text[pos:])
	if size == 1 { // U+FFFD that was sent has three bytes
		return -1
	}
	return pos + size
}

func endOfEscape(text string, pos int) int {
	if pos+1 == len(text) {
		return -1
	}
	switch text[pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return pos + 2
	}
	const size = len(`\u0000`)
	first := escapedUnit(text[pos:])
	switch {
	case first < 0:
		return -1
	case !utf16.IsSurrogate(first):
		return pos + size
	}
	second := escapedUnit(text[pos+size:])
	if second < 0 || utf16.DecodeRune(first, second) == utf8.RuneError {
		return -1
	}
	return pos + 2*size
}

// escapedUnit returns the UTF-16 unit with whose escape text begins, -1 where it
// does not begin with one.
func escapedUnit(text string) rune {
	if len(text) < len(`\u0000`) || text[:2] != `\u` {
		return -1
	}
	var unit rune
	for _, c := range []byte(text[2:len(`\u0000`)]) {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		unit = unit<<4 | rune(c)
	}
	return unit
}
