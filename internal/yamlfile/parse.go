package yamlfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"felhom.eu/hub/internal/hub"
)

// maxDepth is how deep a file may nest.
const maxDepth = 64

// Position is a place in a file; both count from 1. The column counts
// characters, as editors do.
type Position struct{ Line, Column int }

// Document is one parsed file.
type Document struct {
	file string
	root *yaml.Node // nil: the file is empty
}

// Parse reads data, the content of file (a name for messages only). More than
// limit bytes are refused before anything is read.
//
// The document is nil where the text is not YAML. Where it is YAML of a kind
// that this package refuses, both the document and the problems are returned,
// so that Decode can add its own.
func Parse(file string, data []byte, limit int) (*Document, []hub.Problem) {
	if len(data) > limit {
		return nil, []hub.Problem{{File: file, Rule: "size", Message: fmt.Sprintf("the file has %d bytes; at most %d are read", len(data), limit)}}
	}
	if at := invalidUTF8(data); at.Line > 0 {
		return nil, []hub.Problem{{File: file, Line: at.Line, Column: at.Column, Rule: "syntax", Message: "not valid UTF-8"}}
	}
	root, err := parseNode(data)
	if err != nil {
		return nil, []hub.Problem{syntaxProblem(file, data, err)}
	}
	doc := &Document{file: file, root: root}
	c := checker{doc: doc}
	if root != nil {
		c.check(root, 0)
	}
	if c.tooDeep {
		return nil, c.problems
	}
	return doc, c.problems
}

// secondDocument is where another document begins.
type secondDocument Position

func (secondDocument) Error() string { return "a second document begins: a file holds one" }

// parseNode returns the one document's top node, or nil for an empty file.
func parseNode(data []byte) (root *yaml.Node, err error) {
	defer func() { // yaml.v3 panics on some malformed input
		if r := recover(); r != nil {
			root, err = nil, fmt.Errorf("cannot be read as YAML: %v", r)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, secondDocument{second.Line, second.Column}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if root = document.Content[0]; isNull(root) && root.Anchor == "" {
		return nil, nil
	}
	return root, nil
}

var (
	// syntaxLine takes the line out of a message of yaml.v3, which types no error.
	syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// lineBreak is what YAML ends a line at.
	lineBreak = regexp.MustCompile(`\r\n|[\n\r\x{85}\x{2028}\x{2029}]`)
	// unclosed are the messages whose line counts from 0, and may be that of
	// the block around the mistake.
	unclosed = regexp.MustCompile(`expected (node content|'-' indicator|key|',' or '[\]}]')$`)
)

func syntaxProblem(file string, data []byte, err error) hub.Problem {
	p := hub.Problem{File: file, Rule: "syntax", Message: err.Error()}
	if second, ok := errors.AsType[secondDocument](err); ok {
		p.Rule, p.Line, p.Column = "yaml-feature", second.Line, second.Column
	}
	m := syntaxLine.FindStringSubmatch(p.Message)
	if m == nil {
		return p
	}
	p.Line, _ = strconv.Atoi(m[1]) // no line: 0
	p.Message = "not YAML: " + p.Message[len(m[0]):]
	if unclosed.MatchString(p.Message) {
		p.Line = min(p.Line, len(lineBreak.FindAll(data, -1))) + 1 // the end of the text may be meant
		p.Hint = "here, or in what begins here"
	}
	return p
}

// invalidUTF8 returns where data stops being UTF-8; the zero Position where it
// does not.
func invalidUTF8(data []byte) Position {
	valid := 0
	for valid < len(data) {
		r, size := utf8.DecodeRune(data[valid:])
		if r == utf8.RuneError && size == 1 {
			lines := lineBreak.Split(string(data[:valid]), -1)
			return Position{Line: len(lines), Column: utf8.RuneCountInString(lines[len(lines)-1]) + 1}
		}
		valid += size
	}
	return Position{}
}

// checker finds what YAML allows and this package does not.
type checker struct {
	doc      *Document
	problems []hub.Problem
	tooDeep  bool
}

func (c *checker) report(n *yaml.Node, rule, message, hint string) {
	c.problems = append(c.problems, c.doc.problemAt(n, rule, message, hint))
}

func (c *checker) check(n *yaml.Node, depth int) {
	if depth > maxDepth {
		if !c.tooDeep {
			c.report(n, "syntax", fmt.Sprintf("nested deeper than %d levels", maxDepth), "")
		}
		c.tooDeep = true
		return
	}
	switch {
	case n.Kind == yaml.AliasNode:
		c.report(n, "yaml-feature", fmt.Sprintf("alias *%s: aliases are not allowed", n.Value), "write the value out")
	case n.Anchor != "":
		c.report(n, "yaml-feature", fmt.Sprintf("anchor &%s: anchors are not allowed", n.Anchor), "")
	case n.Style&yaml.TaggedStyle != 0:
		c.report(n, "yaml-feature", fmt.Sprintf("tag %s: tags are not allowed", n.Tag), "")
	}
	if n.Kind == yaml.MappingNode {
		c.checkKeys(n)
	}
	for _, child := range n.Content {
		c.check(child, depth+1)
	}
}

func (c *checker) checkKeys(n *yaml.Node) {
	lines := make(map[string]int, len(n.Content)/2)
	for key := range pairs(n) {
		switch {
		case key.Kind != yaml.ScalarNode:
			c.report(key, "yaml-feature", "a key must be a plain text", "")
		case key.Tag == "!!merge":
			c.report(key, "yaml-feature", "merge keys (<<) are not allowed", "write the keys out")
		case lines[key.Value] > 0:
			c.report(key, "duplicate", fmt.Sprintf("key %q stands twice", key.Value), fmt.Sprintf("first in line %d", lines[key.Value]))
		default:
			lines[key.Value] = key.Line
		}
	}
}

// pairs yields the keys and values of a mapping.
func pairs(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (d *Document) problemAt(n *yaml.Node, rule, message, hint string) hub.Problem {
	p := hub.Problem{File: d.file, Line: 1, Column: 1, Rule: rule, Message: message, Hint: hint}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	return p
}

// Position returns where the value at path stands: "spec.keys[0].sealed". A
// key that holds dots is written in brackets: "labels[a.b]". Where there is no
// such value it is the place of the nearest one around it.
func (d *Document) Position(path string) Position {
	n, _ := d.find(path)
	if n == nil {
		return Position{Line: 1, Column: 1}
	}
	return Position{Line: n.Line, Column: n.Column}
}

// Has reports whether there is a value at path that is not empty.
func (d *Document) Has(path string) bool {
	n, found := d.find(path)
	return found && !isNull(n)
}

// Problem makes a problem at the place of the value at path; see Position.
func (d *Document) Problem(path, message, hint string) hub.Problem {
	at := d.Position(path)
	return hub.Problem{File: d.file, Line: at.Line, Column: at.Column, Message: message, Hint: hint}
}

// find returns the value at path; where it is missing, the key of (or, in a
// list, the item) around it, and false.
func (d *Document) find(path string) (*yaml.Node, bool) {
	n, around := d.root, d.root
	for _, step := range splitPath(path) {
		if n == nil {
			return around, false
		}
		key, value := child(n, step)
		if value == nil {
			return around, false
		}
		n, around = value, cmp.Or(key, value)
	}
	return n, n != nil
}

// child returns the member or item of n that step names, with its key if it
// has one.
func child(n *yaml.Node, step string) (key, value *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for key, value := range pairs(n) {
			if key.Value == step {
				return key, value
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return nil, n.Content[i]
		}
	}
	return nil, nil
}

// splitPath takes "a.b[0][c.d]" to pieces: a, b, 0, c.d.
func splitPath(path string) []string {
	var steps []string
	for path != "" {
		if inner, ok := strings.CutPrefix(path, "["); ok {
			step, rest, _ := strings.Cut(inner, "]")
			steps, path = append(steps, step), strings.TrimPrefix(rest, ".")
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			return append(steps, path)
		}
		steps, path = append(steps, path[:end]), strings.TrimPrefix(path[end:], ".")
	}
	return steps
}

// Sort puts problems in the order in which a person reads them: by file, line,
// column and message.
func Sort(problems []hub.Problem) {
	slices.SortFunc(problems, func(a, b hub.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
}
