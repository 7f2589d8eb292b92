package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Marshal renders v, a struct with the tags that Decode reads (and yaml.v3's
// flags omitempty and flow), as a file: comment lines first, then the keys in
// the order of the fields.
func Marshal(v any, comments ...string) ([]byte, error) {
	var out bytes.Buffer
	for _, c := range comments {
		out.WriteString("# " + c + "\n")
	}
	err := encode(&out, v)
	return out.Bytes(), err
}

func encode(out *bytes.Buffer, v any) error {
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return enc.Close()
}

// Append returns data, the content of file, with item as the new last item of
// the list at path. A list that is empty or missing is begun. Everything else
// keeps its formatting and its comments; only where the place is written in a
// form that cannot be added to as text (a flow list with items, say) the file
// is rendered anew, with its comments.
func Append(file string, data []byte, path string, item any) ([]byte, error) {
	doc, want, err := editable(file, data)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	if err := node.Encode(item); err != nil {
		return nil, err
	}
	if err := appendNode(want, splitPath(path), &node); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", file, path, err)
	}
	out, err := verified(appendText(doc, data, path, &node), want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}

// editable parses a file that is to be edited; want is a copy of its top node,
// for the edit to be made on.
func editable(file string, data []byte) (doc *Document, want *yaml.Node, err error) {
	doc, problems := Parse(file, data, len(data))
	if len(problems) > 0 {
		return nil, nil, fmt.Errorf("%s: mend this first", problems[0])
	}
	if want = clone(doc.root); want == nil {
		want = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	return doc, want, nil
}

// errNoEdit means that a file is written in a way (yaml.v3 cannot render every
// file that it reads) that leaves the edit to a person.
var errNoEdit = errors.New("cannot be edited by a program: write the change by hand")

// verified returns the edited text. That was worked out from lines and columns:
// it is believed only when it reads as wanted. Otherwise (or where it is nil)
// what is wanted is rendered anew, and that is believed no sooner.
func verified(edited []byte, want *yaml.Node) ([]byte, error) {
	if edited != nil && reads(edited, want) {
		return edited, nil
	}
	var out bytes.Buffer
	if err := encode(&out, want); err != nil || !reads(out.Bytes(), want) {
		return nil, errNoEdit
	}
	return out.Bytes(), nil
}

func reads(text []byte, want *yaml.Node) bool {
	got, err := parseNode(text)
	return err == nil && sameValue(got, want)
}

// appendNode adds item to the list that steps lead to from n, making what is
// missing on the way.
func appendNode(n *yaml.Node, steps []string, item *yaml.Node) error {
	list, err := reach(n, steps, yaml.SequenceNode)
	if err != nil {
		return err
	}
	if list.Kind != yaml.SequenceNode {
		return fmt.Errorf("must be a list, not %s", kindName(list.Kind))
	}
	if len(list.Content) == 0 {
		list.Style = 0
	}
	list.Content = append(list.Content, item)
	return nil
}

// reach returns what steps lead to from n. What is missing on the way is made:
// mappings, and last one of the given kind.
func reach(n *yaml.Node, steps []string, last yaml.Kind) (*yaml.Node, error) {
	for i, step := range steps {
		_, value := child(n, step)
		switch {
		case value == nil && n.Kind != yaml.MappingNode:
			return nil, fmt.Errorf("%s has no place in %s", step, kindName(n.Kind))
		case value == nil:
			if len(n.Content) == 0 {
				n.Style = 0 // {} grows into lines
			}
			value = &yaml.Node{}
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: step}, value)
		}
		if value.Kind == 0 || isNull(value) {
			*value = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", HeadComment: value.HeadComment,
				LineComment: value.LineComment, FootComment: value.FootComment}
			if i == len(steps)-1 && last == yaml.SequenceNode {
				value.Kind, value.Tag = last, "!!seq"
			}
		}
		n = value
	}
	return n, nil
}

// appendText does what appendNode does, on the text. It returns nil where it
// does not know how.
func appendText(doc *Document, data []byte, path string, item *yaml.Node) []byte {
	if doc.root == nil {
		return nil
	}
	steps := splitPath(path)
	parent := doc.root
	for _, step := range steps[:len(steps)-1] {
		if _, parent = child(parent, step); parent == nil {
			return nil
		}
	}
	if parent.Kind != yaml.MappingNode || parent.Style&yaml.FlowStyle != 0 || len(parent.Content) == 0 {
		return nil
	}
	name := steps[len(steps)-1]
	key, list := child(parent, name)
	text := newLines(data)
	switch {
	case key == nil:
		last := parent.Content[len(parent.Content)-2]
		at := text.blockEnd(last.Line, parent.Column)
		return text.insert(at, parent.Column, name+":\n"+indent(renderItem(item), 2))
	case len(list.Content) == 0:
		if !text.clearValue(key, list) {
			return nil
		}
		return text.insert(key.Line, key.Column+2, renderItem(item))
	case list.Kind == yaml.SequenceNode && list.Style&yaml.FlowStyle == 0:
		last := list.Content[len(list.Content)-1]
		return text.insert(text.blockEnd(last.Line, list.Column), list.Column, renderItem(item))
	}
	return nil
}

func renderItem(item *yaml.Node) string {
	return render(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}})
}

func render(n *yaml.Node) string {
	var out bytes.Buffer
	_ = encode(&out, n) // made by Node.Encode: cannot fail
	return out.String()
}

func indent(text string, by int) string {
	pad := strings.Repeat(" ", by)
	var out strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			out.WriteString(pad)
		}
		out.WriteString(line)
	}
	return out.String()
}

// lines is a file cut into lines, each with its end. Lines count from 1.
type lines []string

func newLines(data []byte) lines {
	text := string(data)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return slices.Collect(strings.Lines(text))
}

// blockEnd returns the last line of the block item that begins in line first
// at column: all that follows and is indented deeper belongs to it.
func (l lines) blockEnd(first, column int) int {
	end := first
	for i := first + 1; i <= len(l); i++ {
		content := strings.TrimLeft(l[i-1], " ")
		deeper := len(l[i-1])-len(content) >= column
		switch {
		case strings.TrimSpace(content) == "":
		case deeper:
			end = i
		case !strings.HasPrefix(content, "#"):
			return end
		}
	}
	return end
}

// emptyValue is an empty list or a null as it is written after a key.
var emptyValue = regexp.MustCompile(`^(\s*)(\[\s*\]|~|null)`)

// clearValue removes the empty value written after key, and reports whether it
// could.
func (l lines) clearValue(key, value *yaml.Node) bool {
	if value.Kind != yaml.SequenceNode && !isNull(value) {
		return false
	}
	line := l[key.Line-1]
	after := key.Column - 1 + len(key.Value) // a quoted key does not match below
	if !isASCII(line[:min(after, len(line))]) || !strings.HasPrefix(line[min(after, len(line)):], ":") {
		return false
	}
	head, tail := line[:after+1], line[after+1:]
	l[key.Line-1] = head + emptyValue.ReplaceAllString(tail, "")
	return true
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7e }) < 0
}

// insert returns the file with text after line, moved right to column.
func (l lines) insert(line, column int, text string) []byte {
	moved := indent(text, column-1)
	return []byte(strings.Join(slices.Concat(l[:line], []string{moved}, l[line:]), ""))
}

func clone(n *yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		c.Content[i] = clone(item)
	}
	return &c
}

// sameValue reports whether two trees mean the same; style and comments do not
// count.
func sameValue(a, b *yaml.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value &&
		slices.EqualFunc(a.Content, b.Content, sameValue)
}
