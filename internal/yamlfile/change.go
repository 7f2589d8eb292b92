package yamlfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Edit is one change of a file.
type Edit struct {
	// Path names the value that changes, as for Document.Position.
	Path string
	// Value is what stands there afterwards; nil takes the item of a list, or the
	// key of a mapping, away.
	Value any
	// After is the key beside it behind which a missing key is written; where
	// that is missing too, the new one comes last.
	After string
}

// Apply returns data, the content of file, with the edits made one after the
// other: each path means the file as the edits before it left it. Mappings that
// are missing on the way are made. A list or mapping keeps its style, flow or
// block; an emptied list is written []. Everything else keeps its formatting
// and its comments, those above a removed item included; only where the place
// is written in a form that cannot be edited as text is the file rendered anew,
// with its comments.
func Apply(file string, data []byte, edits ...Edit) ([]byte, error) {
	for _, e := range edits {
		var err error
		if data, err = e.apply(file, data); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (e Edit) apply(file string, data []byte) ([]byte, error) {
	doc, want, err := editable(file, data)
	if err != nil {
		return nil, err
	}
	steps := splitPath(e.Path)
	if len(steps) == 0 {
		return nil, fmt.Errorf("%s: an edit needs a path", file)
	}
	var edited []byte
	if e.Value == nil {
		if err = removeNode(want, steps); err == nil {
			edited = removeText(doc, data, steps)
		}
	} else {
		var value yaml.Node
		if err = value.Encode(e.Value); err == nil {
			err = setNode(want, steps, e.After, &value)
		}
		if err == nil {
			edited = setText(doc, data, steps, e.After, &value)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", file, e.Path, err)
	}
	out, err := verified(edited, want)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}

// setNode puts value where steps lead to from n. It gives value the style of
// what stood there.
func setNode(n *yaml.Node, steps []string, after string, value *yaml.Node) error {
	name := steps[len(steps)-1]
	parent, err := reach(n, steps[:len(steps)-1], yaml.MappingNode)
	if err != nil {
		return err
	}
	if parent.Kind != yaml.MappingNode {
		return fmt.Errorf("%s has no place in %s", name, kindName(parent.Kind))
	}
	key, old := child(parent, name)
	if key == nil {
		at := len(parent.Content)
		for i := 0; i < len(parent.Content); i += 2 {
			if parent.Content[i].Value == after {
				at = i + 2
			}
		}
		if len(parent.Content) == 0 {
			parent.Style = 0 // {} grows into lines
		}
		parent.Content = slices.Insert(parent.Content, at, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, value)
		return nil
	}
	if old.Kind == value.Kind && len(old.Content) > 0 {
		value.Style |= old.Style & yaml.FlowStyle
	}
	comments := *old
	*old = *value
	old.HeadComment, old.LineComment, old.FootComment = comments.HeadComment, comments.LineComment, comments.FootComment
	return nil
}

// removeNode takes away the item or key that steps lead to from n.
func removeNode(n *yaml.Node, steps []string) error {
	around, last := lookup(n, steps[:len(steps)-1]), steps[len(steps)-1]
	switch {
	case around == nil:
	case around.Kind == yaml.MappingNode:
		for i := 0; i < len(around.Content); i += 2 {
			if around.Content[i].Value == last {
				around.Content = slices.Delete(around.Content, i, i+2)
				return nil
			}
		}
	case around.Kind == yaml.SequenceNode:
		if i, err := strconv.Atoi(last); err == nil && i >= 0 && i < len(around.Content) {
			around.Content = slices.Delete(around.Content, i, i+1)
			return nil
		}
	}
	return errors.New("there is nothing to take away")
}

// lookup returns the node that steps lead to from n, or nil.
func lookup(n *yaml.Node, steps []string) *yaml.Node {
	for _, step := range steps {
		if n == nil {
			return nil
		}
		_, n = child(n, step)
	}
	return n
}

// setText does what setNode does, on the text. It returns nil where it does
// not know how.
func setText(doc *Document, data []byte, steps []string, after string, value *yaml.Node) []byte {
	parent := lookup(doc.root, steps[:len(steps)-1])
	if parent == nil || parent.Kind != yaml.MappingNode || parent.Style&yaml.FlowStyle != 0 || len(parent.Content) == 0 {
		return nil
	}
	name := steps[len(steps)-1]
	text, entry := newLines(data), renderEntry(name, value)
	key, old := child(parent, name)
	if key != nil {
		written, ok := strings.CutPrefix(entry, name+":")
		if !ok {
			return nil
		}
		return text.replaceValue(key, old, written)
	}
	last, lastValue := parent.Content[len(parent.Content)-2], parent.Content[len(parent.Content)-1]
	if k, v := child(parent, after); k != nil {
		last, lastValue = k, v
	}
	return text.insert(text.entryEnd(last, lastValue), parent.Column, entry)
}

// removeText does what removeNode does, on the text. It returns nil where it
// does not know how.
func removeText(doc *Document, data []byte, steps []string) []byte {
	path := steps[:len(steps)-1]
	list := lookup(doc.root, path)
	if list.Style&yaml.FlowStyle != 0 {
		return nil
	}
	if list.Kind == yaml.MappingNode {
		return removeKey(list, data, steps[len(steps)-1])
	}
	if len(list.Content) == 1 {
		if len(path) == 0 {
			return nil
		}
		return setText(doc, data, path, "", &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle})
	}
	_, item := child(list, steps[len(steps)-1])
	text := newLines(data)
	dash := strings.Repeat(" ", list.Column-1) + "-"
	first := item.Line
	for first > list.Line && !strings.HasPrefix(text[first-1], dash) {
		first-- // the dash may stand in a line of its own
	}
	end := text.blockEnd(item.Line, list.Column)
	return []byte(strings.Join(slices.Concat(text[:first-1], text[end:]), ""))
}

// removeKey does so with a key of a block mapping: one of several, and not behind
// the dash of an item.
func removeKey(mapping *yaml.Node, data []byte, name string) []byte {
	key, value := child(mapping, name)
	text := newLines(data)
	if len(mapping.Content) == 2 || strings.TrimLeft(text[key.Line-1][:key.Column-1], " ") != "" {
		return nil
	}
	return []byte(strings.Join(slices.Concat(text[:key.Line-1], text[text.entryEnd(key, value):]), ""))
}

// renderEntry returns the lines "name: value" of a block mapping.
func renderEntry(name string, value *yaml.Node) string {
	return render(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, value}})
}

// entryEnd returns the last line of an entry of a block mapping.
func (l lines) entryEnd(key, value *yaml.Node) int {
	if isBlock(value) && value.Kind == yaml.SequenceNode && value.Column == key.Column {
		// The items of a list may stand below their key's first letter.
		return l.blockEnd(value.Content[len(value.Content)-1].Line, value.Column)
	}
	return l.blockEnd(key.Line, key.Column)
}

// isBlock reports whether n is a list or mapping in lines of their own.
func isBlock(n *yaml.Node) bool {
	return n.Kind != yaml.ScalarNode && n.Style&yaml.FlowStyle == 0 && len(n.Content) > 0
}

// replaceValue returns the file with written, what a rendered entry has after
// its colon, in place of key's value. A comment behind the value stays. It
// returns nil where it does not know how.
func (l lines) replaceValue(key, old *yaml.Node, written string) []byte {
	text := strings.Join(l[key.Line-1:], "")
	colon := key.Column - 1 + len(key.Value)
	if key.Style != 0 || len(text) <= colon || !isASCII(text[:colon]) || text[colon] != ':' {
		return nil
	}
	start, end, ok := span(text, colon+1, key, old)
	if !ok {
		return nil
	}
	tail, _, _ := strings.Cut(text[end:], "\n")
	last := key.Line + strings.Count(text[:end], "\n")
	if isBlock(old) || old.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		last = l.entryEnd(key, old)
	}
	first, more, _ := strings.Cut(written, "\n")
	head := text[:start]
	switch {
	case first == "":
		head = strings.TrimRight(head, " ")
	case start > colon+1: // as far from the colon as it was
		first = strings.TrimPrefix(first, " ")
	}
	changed := head + first + tail + "\n" + indent(more, key.Column-1)
	return []byte(strings.Join(slices.Concat(l[:key.Line-1], []string{changed}, l[last:]), ""))
}

// span returns where value is written in text, which begins with the line of
// its key: of a block scalar only the head (|), of a block list or mapping the
// empty place after the colon.
func span(text string, afterColon int, key, value *yaml.Node) (start, end int, ok bool) {
	if isBlock(value) || isNull(value) && value.Value == "" {
		return afterColon, afterColon, true
	}
	if value.Line != key.Line || !isASCII(text[:min(value.Column, len(text))]) {
		return 0, 0, false
	}
	start = value.Column - 1
	rest := text[start:]
	length := -1
	switch {
	case value.Kind != yaml.ScalarNode:
		length = flowLength(rest)
	case value.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		length = quotedLength(rest)
	case value.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		length = len(rest) - len(strings.TrimLeft(rest, "|>+-0123456789"))
	case strings.HasPrefix(rest, value.Value):
		length = len(value.Value)
	}
	return start, start + length, length >= 0
}

// quotedLength returns the length of the quoted text that s begins with, or -1.
func quotedLength(s string) int {
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case quote == '"' && s[i] == '\\':
			i++
		case s[i] == quote && quote == '\'' && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return -1
}

// flowLength returns the length of the flow list or mapping that s begins
// with, or -1. A quote within a plain text misleads it.
func flowLength(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"', '\'':
			length := quotedLength(s[i:])
			if length < 0 {
				return -1
			}
			i += length - 1
		case '#':
			if s[i-1] == ' ' || s[i-1] == '\n' {
				i += max(strings.IndexByte(s[i:], '\n'), 0)
			}
		}
	}
	return -1
}
