package yamlfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"

	"gopkg.in/yaml.v3"
)

func (d *decoder) json(n *yaml.Node, v reflect.Value, path string) {
	var out bytes.Buffer
	before := len(d.problems)
	d.writeJSON(&out, n, path)
	if len(d.problems) == before {
		v.SetBytes(out.Bytes())
	}
}

func (d *decoder) writeJSON(out *bytes.Buffer, n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		first := true
		for key, value := range pairs(n) {
			if !first {
				out.WriteByte(',')
			}
			first = false
			writeJSONText(out, key.Value)
			out.WriteByte(':')
			d.writeJSON(out, value, join(path, key.Value))
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			d.writeJSON(out, item, fmt.Sprintf("%s[%d]", path, i))
		}
		out.WriteByte(']')
	case yaml.ScalarNode:
		d.writeJSONScalar(out, n, path)
	}
}

func (d *decoder) writeJSONScalar(out *bytes.Buffer, n *yaml.Node, path string) {
	switch n.Tag {
	case "!!null":
		out.WriteString("null")
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) { // as written: no digit is lost
			out.WriteString(n.Value)
			return
		}
		var number any // octal, hexadecimal, leading +, …
		err := n.Decode(&number)
		if f, ok := number.(float64); err != nil || ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
			d.report(n, "", "%s: %s is no number that JSON can hold", path, n.Value)
			return
		}
		text, _ := json.Marshal(number) // a finite number: cannot fail
		out.Write(text)
	case "!!bool":
		var b bool
		_ = n.Decode(&b) // the tag says that it is one
		fmt.Fprint(out, b)
	default:
		writeJSONText(out, n.Value)
	}
}

func writeJSONText(out *bytes.Buffer, text string) {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text)        // valid UTF-8 into memory: cannot fail
	out.Truncate(out.Len() - 1) // the newline that Encode adds
}
