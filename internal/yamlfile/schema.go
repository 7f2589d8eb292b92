package yamlfile

import (
	"encoding/json"
	"reflect"
	"time"
)

// schema is an ordered JSON Schema node, as far as Schema needs one.
type schema struct {
	Dialect     string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"`
	Const       string             `json:"const,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Format      string             `json:"format,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	MinLength   int                `json:"minLength,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty"` // false or a *schema
}

// Schema returns the JSON Schema (2020-12) of the files that Decode reads into
// a value like v, a struct. Beside Decode's tags it reads `doc:"…"`, shown by
// editors, and `pattern:"…"`, a regular expression that a text (or each text of
// a list) matches: Decode leaves the latter to its caller.
func Schema(title string, v any) []byte {
	s := schemaOf(reflect.TypeOf(v))
	s.Dialect, s.Title = "https://json-schema.org/draft/2020-12/schema", title
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("yamlfile: " + err.Error()) // strings and maps of them: cannot happen
	}
	return append(text, '\n')
}

const durationPattern = `^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`

func schemaOf(t reflect.Type) *schema {
	zero := 0
	switch {
	case t == jsonType:
		return &schema{Type: "object"}
	case t == durationType:
		return &schema{Type: []string{"string", "integer"}, Pattern: durationPattern}
	case t == reflect.TypeFor[time.Time]():
		return &schema{Type: "string", Format: "date-time"}
	case reflect.PointerTo(t).Implements(textUnmarshalerType):
		return &schema{Type: []string{"string", "integer"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Struct:
		return structSchema(t)
	case reflect.Slice:
		return &schema{Type: "array", Items: schemaOf(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", Additional: schemaOf(t.Elem())}
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Minimum: &zero}
	default:
		return &schema{Type: "integer"}
	}
}

func structSchema(t reflect.Type) *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
	for i := range t.NumField() {
		f := t.Field(i)
		name := tagName(f)
		if name == "" || name == "-" {
			continue
		}
		p := schemaOf(f.Type)
		p.Description = f.Tag.Get("doc")
		text := p
		if p.Items != nil {
			text = p.Items
		}
		if pattern := f.Tag.Get("pattern"); pattern != "" {
			text.Pattern = pattern
		}
		switch allowed := oneofOf(f); len(allowed) {
		case 0:
		case 1:
			p.Const = allowed[0]
		default:
			p.Enum = allowed
		}
		if f.Tag.Get("required") != "" {
			s.Required = append(s.Required, name)
			if p.Type == "string" && p.Pattern == "" && p.Const == "" {
				p.MinLength = 1
			}
		}
		s.Properties[name] = p
	}
	return s
}
