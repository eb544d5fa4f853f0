package contract

import (
	"bytes"
	"iter"
	"mime"
	"net/url"
	"strconv"
	"strings"

	"github.com/weirmesh/weir/contract/schema"
)

// Fields are a head's.
type Fields interface {
	Values(name string) iter.Seq[[]byte]
}

// Checker checks requests and responses. It may be used again, by one goroutine at a
// time.
type Checker struct {
	values schema.Checker
	text   []byte
}

func violation(in, name, rule, detail string) *Violation {
	return &Violation{In: in, Name: name, Violation: schema.Violation{Rule: rule[strings.LastIndexByte(rule, '/')+1:], Schema: "#/" + rule, Detail: detail}}
}

// Request checks the head of a request: its parameters, and whether the body is of a
// type that is taken, if there is one.
func (c *Checker) Request(m *Match, path []byte, fields Fields, hasBody bool) (all []Violation) {
	var query url.Values
	if _, text, ok := bytes.Cut(path, []byte("?")); ok {
		var err error
		if query, err = url.ParseQuery(string(text)); err != nil {
			all = append(all, *violation("query", "", "parameters", "it is not encoded as it ought to be"))
		}
	}
	var jar map[string]string
	for _, p := range m.Operation.parameters {
		if p.in == inCookie && jar == nil {
			jar = cookies(fields.Values("cookie"))
		}
		all = c.parameter(all, p, p.given(m, query, fields, jar), query)
	}
	switch o := m.Operation; {
	case hasBody && o.body != nil:
		if _, _, v := o.body.of(fields); v != nil {
			all = append(all, *v)
		}
	case o.required && !hasBody:
		all = append(all, Violation{In: "body", Violation: schema.Violation{Rule: "required", Schema: "#/paths/" + schema.Escape(o.Path) + "/" +
			strings.ToLower(o.Method) + "/requestBody/required", Detail: "it is missing"}})
	}
	return all
}

// given looks a parameter up.
func (p *parameter) given(m *Match, query url.Values, fields Fields, jar map[string]string) given {
	switch p.in {
	case inPath:
		v, ok := m.value(p.name)
		return given{[]string{v}, ok}
	case inQuery:
		if p.isSpread() {
			pairs := p.pairs(nil, query)
			return given{[]string{""}, len(pairs) > 0}
		}
		v, ok := query[p.name]
		return given{v, ok}
	case inHeader:
		return headerOf(fields, p.name)
	}
	v, ok := jar[p.name]
	return given{[]string{v}, ok}
}

// isSpread: its value is in parameters of other names.
func (p *parameter) isSpread() bool {
	return p.style == "deepObject" || !p.json && p.explode && p.style == "form" && p.shape.is("object")
}

// headerOf joins the lines of a field (RFC 9110, section 5.3).
func headerOf(fields Fields, name string) given {
	var lines []string
	for v := range fields.Values(name) {
		lines = append(lines, string(v))
	}
	return given{[]string{strings.Join(lines, ",")}, len(lines) > 0}
}

func (c *Checker) parameter(all []Violation, p *parameter, g given, query url.Values) []Violation {
	if !g.there {
		if p.required {
			all = append(all, Violation{In: p.in, Name: p.name, Violation: schema.Violation{Rule: "required", Schema: p.rule + "/required", Detail: "it is missing"}})
		}
		return all
	}
	if p.schema == nil || p.mayBeEmpty && len(g.texts) == 1 && g.texts[0] == "" {
		return all
	}
	c.text = p.appendValue(c.text[:0], g, query)
	return c.check(all, p.in, p.name, p.rule, p.schema, c.text)
}

// check checks a text of JSON.
func (c *Checker) check(all []Violation, in, name, rule string, s *schema.Schema, text []byte) []Violation {
	v, err := c.values.Read(text)
	if err != nil {
		return append(all, Violation{In: in, Name: name, Violation: schema.Violation{Rule: "json", Schema: rule, Detail: "it is not JSON that is taken: " + err.Error()}})
	}
	wrong, err := c.values.Check(s, &v)
	if err != nil {
		return append(all, Violation{In: in, Name: name, Violation: schema.Violation{Rule: "budget", Schema: rule, Detail: err.Error()}})
	}
	for _, w := range wrong {
		all = append(all, Violation{In: in, Name: name, Violation: w})
	}
	return all
}

// media is what a body says that it is.
type media struct {
	kind       string
	attributes map[string]string
}

// of finds which content a body is.
func (all contents) of(fields Fields) (c *content, is media, wrong *Violation) {
	var said string
	for v := range fields.Values("content-type") {
		said = string(v)
		break
	}
	if said == "" {
		is.kind = "application/octet-stream" // RFC 9110, section 8.3
		if c = all.find(is.kind); c == nil {
			wrong = violation("header", "Content-Type", "content", "it is missing: want "+all.String())
		}
		return c, is, wrong
	}
	var err error
	if is.kind, is.attributes, err = mime.ParseMediaType(said); err != nil {
		return nil, is, violation("header", "Content-Type", "content", "it is no media type")
	}
	if c = all.find(is.kind); c == nil {
		wrong = violation("header", "Content-Type", "content", "the contract has "+all.String()+" here")
	}
	return c, is, wrong
}

// Body checks the body of a request.
func (c *Checker) Body(m *Match, fields Fields, body []byte) []Violation {
	return c.body(nil, m.Operation.body, fields, body)
}

func (c *Checker) body(all []Violation, taken contents, fields Fields, body []byte) []Violation {
	if taken == nil {
		return all
	}
	of, is, wrong := taken.of(fields)
	if wrong != nil {
		return append(all, *wrong)
	}
	if of.schema == nil {
		return all
	}
	text := body
	switch {
	case isJSON(is.kind):
	case is.kind == "application/x-www-form-urlencoded", is.kind == "multipart/form-data":
		var err error
		if text, err = of.appendForm(c.text[:0], is, body); err != nil {
			return append(all, Violation{In: "body", Violation: schema.Violation{Rule: "form", Schema: of.rule, Detail: err.Error()}})
		}
		c.text = text
	case strings.HasPrefix(is.kind, "text/"):
		c.text = of.shape.appendJSON(c.text[:0], string(body))
		text = c.text
	default:
		return all // what is in it is not for us to read
	}
	return c.check(all, "body", "", of.rule+"/schema", of.schema, text)
}

// Response checks an answer: its status, its fields and its body. Without a body, as
// for HEAD, say so.
func (c *Checker) Response(m *Match, status int, fields Fields, body []byte, hasBody bool) (all []Violation) {
	r := m.Operation.answer(status)
	if r == nil {
		return append(all, *violation("status", strconv.Itoa(status), "responses", "the contract has no such answer"))
	}
	for _, p := range r.headers {
		all = c.parameter(all, p, headerOf(fields, p.name), nil)
	}
	if !hasBody || len(body) == 0 && len(r.body) == 0 {
		return all
	}
	return c.body(all, r.body, fields, body)
}

// TakesBody reports whether the body of an answer with that status is looked at.
func (m *Match) TakesBody(status int) bool {
	r := m.Operation.answer(status)
	return r != nil && r.body != nil
}

func (o *Operation) answer(status int) *response {
	for _, key := range []string{strconv.Itoa(status), strconv.Itoa(status/100) + "XX", "DEFAULT"} {
		if r := o.responses[key]; r != nil {
			return r
		}
	}
	return nil
}
