package sdk

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// Schema is the JSON schema (2020-12) of a plugin's configuration.
func (p Plugin) Schema() []byte {
	if p.schema == nil {
		return nil
	}
	return p.schema()
}

// schema is a JSON schema, in the order in which people read one.
type schema struct {
	Dialect     string             `json:"$schema,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Default     any                `json:"default,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	// More says what other members are: a schema of a map's values, or false.
	More any `json:"additionalProperties,omitempty"`
}

func schemaOf[C any]() []byte {
	var c C
	if d, ok := any(&c).(interface{ Default() }); ok {
		d.Default()
	}
	s := describe(reflect.ValueOf(&c).Elem(), 0)
	s.Dialect = "https://json-schema.org/draft/2020-12/schema"
	text, err := json.Marshal(s)
	if err != nil {
		return nil // a default that is no JSON
	}
	return text
}

var (
	textReader = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonReader = reflect.TypeFor[json.Unmarshaler]()
)

// describe says what may stand where v does. A type that reads JSON by itself may be
// anything, and so may what is nested without an end.
func describe(v reflect.Value, depth int) *schema {
	const most = 16
	s, t := &schema{}, v.Type()
	pointer := reflect.PointerTo(t)
	switch {
	case pointer.Implements(jsonReader) || depth > most:
		return s
	case pointer.Implements(textReader):
		s.Type = "string"
		return s
	}
	switch t.Kind() {
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.String:
		s.Type = "string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.Type = "integer"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.Type, s.Minimum = "integer", new(int)
	case reflect.Float32, reflect.Float64:
		s.Type = "number"
	case reflect.Pointer:
		return describe(reflect.New(t.Elem()).Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			s.Type = "string"
			break
		}
		s.Type, s.Items = "array", describe(reflect.New(t.Elem()).Elem(), depth+1)
	case reflect.Map:
		s.Type, s.More = "object", describe(reflect.New(t.Elem()).Elem(), depth+1)
	case reflect.Struct:
		s.Type, s.Properties, s.More = "object", map[string]*schema{}, false
		s.members(v, depth)
	}
	if depth > 0 && !v.IsZero() && t.Kind() != reflect.Struct {
		s.Default = v.Interface()
	}
	return s
}

// members adds those of a struct; those of one that is embedded are its own.
func (s *schema) members(v reflect.Value, depth int) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			s.members(v.Field(i), depth)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		member := describe(v.Field(i), depth+1)
		member.Description = f.Tag.Get("about")
		if values := f.Tag.Get("oneof"); values != "" {
			member.Enum = strings.Split(values, ",")
		}
		s.Properties[name] = member
	}
}
