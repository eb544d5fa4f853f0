package contract

import (
	"bytes"
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/weirmesh/weir/contract/schema"
)

// Where parameters stand.
const (
	inPath   = "path"
	inQuery  = "query"
	inHeader = "header"
	inCookie = "cookie"
)

// parameter is a value outside of a body.
type parameter struct {
	in, name   string
	rule       string // where it is declared: a pointer with "#"
	required   bool
	mayBeEmpty bool
	style      string
	explode    bool
	schema     *schema.Schema
	shape      *shape
	json       bool // it is JSON as a whole
}

// shape is what a schema says of how a text is to be read: as which types, and the
// same of what it consists of.
type shape struct {
	types      []string
	items      *shape
	properties map[string]*shape
	rest       *shape // of properties that are not named
}

func (s *shape) is(name string) bool { return s != nil && slices.Contains(s.types, name) }

// property is the shape of one property.
func (s *shape) property(name string) *shape {
	if s == nil {
		return nil
	}
	if p := s.properties[name]; p != nil {
		return p
	}
	return s.rest
}

func (c *compiler) parameter(n node, name, in string, w way) *parameter {
	if n.fields == nil {
		return nil
	}
	p := &parameter{in: in, name: name, rule: "#" + n.pointer, required: n.flag("required") || in == inPath, mayBeEmpty: n.flag("allowEmptyValue")}
	at := n
	if content, ok := n.child("content"); ok {
		media := names(content.fields)
		if len(media) != 1 {
			c.note(content.pointer, "a parameter has one media type")
			return nil
		}
		at, _ = content.child(media[0])
		p.json = isJSON(media[0])
	}
	if _, ok := at.fields["schema"]; ok {
		p.schema = c.schema(at.pointer+"/schema", w)
		p.shape = c.shape(at.fields["schema"], shapeLevels)
	}
	p.style = map[string]string{inPath: "simple", inHeader: "simple", inQuery: "form", inCookie: "form"}[in]
	if s := n.text("style"); s != "" {
		p.style = s
	}
	p.explode = p.style == "form"
	if e, ok := n.fields["explode"].(bool); ok {
		p.explode = e
	}
	return p
}

// shapeLevels is how deep texts are nested: a form has fields, and these elements.
const shapeLevels = 2

// shapeKey is a schema of the document, and how many levels of it are wanted.
type shapeKey struct {
	schema uintptr
	levels int
}

// shape reads from a schema which types a text may be. Alternatives are taken
// together: that one of them holds is the schema's to say. Each schema is read once,
// however many refer to it.
func (c *compiler) shape(x any, levels int) *shape {
	s := c.resolvedSchema(x)
	if s == nil || levels < 0 {
		return nil
	}
	key := shapeKey{reflect.ValueOf(s).Pointer(), levels}
	if made := c.shapes[key]; made != nil {
		return made
	}
	made := &shape{properties: map[string]*shape{}}
	c.shapes[key] = made // before what it refers to, which may be itself
	switch t := s["type"].(type) {
	case string:
		made.types = []string{t}
	case []any:
		for _, one := range t {
			if text, ok := one.(string); ok {
				made.types = append(made.types, text)
			}
		}
	}
	if nullable, _ := s["nullable"].(bool); nullable {
		made.types = append(made.types, "null")
	}
	made.items, made.rest = c.shape(s["items"], levels-1), c.shape(s["additionalProperties"], levels-1)
	for name, sub := range object(s["properties"]) {
		made.properties[name] = c.shape(sub, levels-1)
	}
	for _, k := range []string{"allOf", "anyOf", "oneOf"} {
		for _, sub := range list(s[k]) {
			made.merge(c.shape(sub, levels))
		}
	}
	return made
}

func (s *shape) merge(other *shape) {
	if other == nil || other == s {
		return
	}
	s.types = append(s.types, other.types...)
	if s.items == nil {
		s.items = other.items
	}
	if s.rest == nil {
		s.rest = other.rest
	}
	for name, p := range other.properties {
		if s.properties[name] == nil {
			s.properties[name] = p
		}
	}
}

func (c *compiler) resolvedSchema(x any) map[string]any {
	p := preparer{doc: c.values}
	return p.resolved(x)
}

// appendJSON writes a text as the JSON value that it is of a shape. What it cannot be
// stays a string, so that the schema refuses it with the right words.
func (s *shape) appendJSON(b []byte, text string) []byte {
	switch {
	case s == nil || len(s.types) == 0 && len(s.properties) == 0:
		return appendString(b, text)
	case (s.is("integer") || s.is("number")) && isNumber(text), s.is("boolean") && (text == "true" || text == "false"),
		s.is("null") && (text == "null" || text == "" && !s.is("string")):
		if text == "" {
			text = "null"
		}
		return append(b, text...)
	}
	return appendString(b, text)
}

func appendString(b []byte, text string) []byte {
	encoded, _ := json.Marshal(strings.ToValidUTF8(text, "\ufffd")) // a string can always be written
	return append(b, encoded...)
}

// isNumber: as JSON writes numbers.
func isNumber(text string) bool {
	if text == "" || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return false
	}
	return json.Valid([]byte(text))
}

// appendList writes texts as an array.
func (s *shape) appendList(b []byte, texts []string) []byte {
	var items *shape
	if s != nil {
		items = s.items
	}
	b = append(b, '[')
	for i, t := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = items.appendJSON(b, t)
	}
	return append(b, ']')
}

// appendObject writes names and texts, one after the other, as an object.
func (s *shape) appendObject(b []byte, pairs []string) []byte {
	b = append(b, '{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, pairs[i]), ':')
		b = s.property(pairs[i]).appendJSON(b, pairs[i+1])
	}
	return append(b, '}')
}

// given is how a parameter stands in a request: its texts, still encoded as its style
// has it.
type given struct {
	texts []string
	there bool
}

// appendValue writes the parameter as JSON.
func (p *parameter) appendValue(b []byte, g given, all url.Values) []byte {
	switch {
	case p.json:
		return append(b, g.texts[0]...)
	case p.shape.is("array"):
		return p.shape.appendList(b, p.elements(g.texts))
	case p.shape.is("object") || p.shape != nil && len(p.shape.properties) > 0 && !p.shape.is("string"):
		return p.shape.appendObject(b, p.pairs(g.texts, all))
	}
	return p.shape.appendJSON(b, p.plain(g.texts[0]))
}

// plain takes off what the style puts before a value.
func (p *parameter) plain(text string) string {
	switch p.style {
	case "label":
		return strings.TrimPrefix(text, ".")
	case "matrix":
		return strings.TrimPrefix(text, ";"+p.name+"=")
	}
	return text
}

var separators = map[string]string{"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|", "label": ",", "matrix": ","}

// elements are those of an array.
func (p *parameter) elements(texts []string) []string {
	if p.in == inQuery && p.explode {
		return texts
	}
	text := texts[0]
	separator := separators[p.style]
	switch {
	case p.style == "label":
		if text = strings.TrimPrefix(text, "."); p.explode {
			separator = "."
		}
	case p.style == "matrix" && p.explode:
		return strings.Split(strings.TrimPrefix(text, ";"+p.name+"="), ";"+p.name+"=")
	case p.style == "matrix":
		text = strings.TrimPrefix(text, ";"+p.name+"=")
	}
	if text == "" {
		return nil
	}
	all := strings.Split(text, separator)
	if p.in == inHeader {
		for i := range all {
			all[i] = strings.TrimSpace(all[i])
		}
	}
	return all
}

// pairs are the names and values of an object.
func (p *parameter) pairs(texts []string, query url.Values) (all []string) {
	switch {
	case p.style == "deepObject":
		for _, key := range names(query) {
			if name, ok := strings.CutPrefix(key, p.name+"["); ok && strings.HasSuffix(name, "]") {
				all = append(all, strings.TrimSuffix(name, "]"), query[key][0])
			}
		}
	case p.in == inQuery && p.style == "form" && p.explode:
		for _, name := range names(p.shape.properties) {
			if v, ok := query[name]; ok {
				all = append(all, name, v[0])
			}
		}
	case p.explode: // name=value, separated
		for _, pair := range p.elements(texts) {
			name, value, _ := strings.Cut(pair, "=")
			all = append(all, name, value)
		}
	default:
		all = p.elements(texts)
	}
	return all
}

// isJSON reports whether a media type is JSON (RFC 6839, section 3.1).
func isJSON(media string) bool {
	kind := strings.ToLower(strings.TrimSpace(strings.SplitN(media, ";", 2)[0]))
	return kind == "application/json" || strings.HasSuffix(kind, "+json") || kind == "text/json"
}

// cookies reads a Cookie field's pairs.
func cookies(values func(func([]byte) bool)) map[string]string {
	all := map[string]string{}
	for v := range values {
		for pair := range bytes.SplitSeq(v, []byte(";")) {
			name, value, _ := strings.Cut(strings.TrimSpace(string(pair)), "=")
			if _, there := all[name]; !there {
				all[name] = strings.Trim(value, `"`)
			}
		}
	}
	return all
}
