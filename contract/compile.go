package contract

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/weirmesh/weir/contract/schema"
)

// maxReferences is how many references may lead to one another.
const maxReferences = 32

// compiler makes a Contract of a document.
type compiler struct {
	doc      *document
	values   map[string]any
	version  version
	schemas  [2]*schema.Compiler // by way
	shapes   map[shapeKey]*shape
	problems Problems
}

// Compile checks a document, JSON or YAML, and compiles it. The error is [Problems].
func Compile(text []byte) (*Contract, error) {
	doc, err := read(text)
	if err != nil {
		return nil, err
	}
	c := &compiler{doc: doc, shapes: map[shapeKey]*shape{}}
	if c.values, err = doc.values(); err != nil {
		return nil, err
	}
	var wrong string
	if c.version, wrong = versionOf(c.values); wrong != "" {
		c.note("/openapi", wrong)
		return nil, c.problems
	}
	if c.outside(c.values, ""); len(c.problems) > 0 { // the shape would be blamed instead
		return nil, c.problems.named()
	}
	shape, err := checkShape(c.values, c.version)
	if err != nil {
		return nil, err
	}
	for _, p := range shape {
		c.note(p.Pointer, p.Reason)
	}
	if len(c.problems) > 0 { // what follows relies on the shape
		return nil, c.problems.named()
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	made := c.contract()
	if len(c.problems) > 0 {
		return nil, c.problems.named()
	}
	return made, nil
}

// Check says what is wrong with a document; nil: nothing.
func Check(text []byte) Problems {
	_, err := Compile(text)
	var problems Problems
	if err != nil && !errors.As(err, &problems) {
		problems = Problems{{Reason: err.Error()}}
	}
	return problems
}

// named sorts problems and keeps the first.
func (p Problems) named() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	p = slices.Compact(p)
	if len(p) > maxProblems {
		more := len(p) - maxProblems
		p = append(p[:maxProblems:maxProblems], Problem{Reason: fmt.Sprintf("and %d more", more)})
	}
	return p
}

func (c *compiler) note(pointer, reason string) {
	line, column := c.doc.place(pointer)
	c.problems = append(c.problems, Problem{Line: line, Column: column, Pointer: pointer, Reason: reason})
}

// noteError notes what a schema's compiler says.
func (c *compiler) noteError(pointer string, err error) {
	var p schema.Problem
	if errors.As(err, &p) {
		c.note(p.Pointer, p.Reason)
		return
	}
	c.note(pointer, err.Error())
}

// outside notes references to other documents. What stands in examples is data.
func (c *compiler) outside(x any, at string) {
	switch v := x.(type) {
	case []any:
		for i, sub := range v {
			c.outside(sub, at+"/"+strconv.Itoa(i))
		}
	case map[string]any:
		if to, ok := v["$ref"].(string); ok && !strings.HasPrefix(to, "#") {
			c.note(at+"/$ref", "it refers to another document: put all into one (bundle)")
		}
		for _, name := range names(v) {
			switch name {
			case "example", "examples", "default", "enum", "const":
			default:
				c.outside(v[name], at+"/"+schema.Escape(name))
			}
		}
	}
}

// prepare makes the two forms of the document that schemas are compiled from.
func (c *compiler) prepare() error {
	for _, w := range []way{toService, toClient} {
		values, err := c.doc.values()
		if err != nil {
			return err
		}
		p := preparer{doc: values, version: c.version, way: w}
		p.document()
		if c.schemas[w], err = schema.NewCompiler(values, c.version.dialect()); err != nil {
			return Problems{{Reason: err.Error()}}
		}
	}
	return nil
}

func (c *compiler) schema(pointer string, w way) *schema.Schema {
	s, err := c.schemas[w].Compile(pointer)
	if err != nil {
		c.noteError(pointer, err)
	}
	return s
}

// node is an object of the document and where it stands.
type node struct {
	pointer string
	fields  map[string]any
}

func (n node) child(name string) (node, bool) {
	fields, ok := n.fields[name].(map[string]any)
	return node{n.pointer + "/" + schema.Escape(name), fields}, ok
}

func (n node) text(name string) string {
	s, _ := n.fields[name].(string)
	return s
}

func (n node) flag(name string) bool {
	b, _ := n.fields[name].(bool)
	return b
}

// follow goes where an object refers to.
func (c *compiler) follow(n node) node {
	for range maxReferences {
		to, ok := n.fields["$ref"].(string)
		if !ok {
			return n
		}
		pointer := decodeFragment(strings.TrimPrefix(to, "#"))
		v, ok := find(c.values, pointer)
		fields, isObject := v.(map[string]any)
		if !ok || !isObject {
			c.note(n.pointer+"/$ref", "there is nothing at "+to)
			return node{pointer: n.pointer}
		}
		n = node{pointer, fields}
	}
	c.note(n.pointer, "references lead to one another")
	return node{pointer: n.pointer}
}

// decodeFragment is the pointer that a URL's fragment is (RFC 6901, section 6).
func decodeFragment(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// names are those of an object, sorted.
func names[V any](fields map[string]V) []string { return slices.Sorted(maps.Keys(fields)) }

func (c *compiler) contract() *Contract {
	info := object(c.values["info"])
	made := &Contract{bases: c.bases()}
	made.Title, _ = info["title"].(string)
	made.Version, _ = info["version"].(string)
	paths := node{"/paths", object(c.values["paths"])}
	byName := map[string]string{}
	for _, template := range names(paths.fields) {
		item, ok := paths.child(template)
		if !ok || !strings.HasPrefix(template, "/") { // an extension
			continue
		}
		parsed, wrong := parseTemplate(template)
		if wrong != "" {
			c.note(item.pointer, wrong)
			continue
		}
		item = c.follow(item)
		for _, method := range methods {
			if _, ok := item.child(method); !ok {
				continue
			}
			o := c.operation(item, template, method, parsed)
			if at, twice := byName[o.Name]; twice {
				c.note(item.pointer+"/"+method, "the operationId "+strconv.Quote(o.Name)+" is also that of "+at)
			}
			byName[o.Name] = o.Method + " " + o.Path
			made.operations = append(made.operations, o)
			if clash := made.paths.add(parsed, o); clash != "" {
				c.note(item.pointer, "it is the same path as "+clash)
			}
		}
	}
	return made
}

// bases are the paths of the servers.
func (c *compiler) bases() []string {
	var all []string
	for i, s := range list(c.values["servers"]) {
		server := node{"/servers/" + strconv.Itoa(i), object(s)}
		text := server.text("url")
		variables, _ := server.child("variables")
		for name := range variables.fields {
			v, _ := variables.child(name)
			text = strings.ReplaceAll(text, "{"+name+"}", v.text("default"))
		}
		u, err := url.Parse(text)
		if err != nil {
			c.note(server.pointer+"/url", "it is no URL")
			continue
		}
		all = append(all, strings.TrimSuffix(u.EscapedPath(), "/"))
	}
	if len(all) == 0 {
		all = []string{""}
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }) // the longest first
	return slices.Compact(all)
}

func (c *compiler) operation(item node, template, method string, parsed []segment) *Operation {
	n, _ := item.child(method)
	o := &Operation{Method: strings.ToUpper(method), Path: template, Deprecated: n.flag("deprecated"), responses: map[string]*response{}}
	o.Name = cmp.Or(n.text("operationId"), o.Method+" "+template)
	if strings.ContainsFunc(o.Name, unicode.IsControl) {
		c.note(n.pointer+"/operationId", "has control characters")
	}
	o.parameters = c.parameters(item, n)
	c.checkPathParameters(n.pointer, parsed, o.parameters)
	if body, ok := n.child("requestBody"); ok {
		body = c.follow(body)
		o.required = body.flag("required")
		o.body = c.contents(body, toService)
	}
	responses, _ := n.child("responses")
	for _, status := range names(responses.fields) {
		if r, ok := responses.child(status); ok && !strings.HasPrefix(status, "x-") {
			o.responses[strings.ToUpper(status)] = c.response(c.follow(r))
		}
	}
	return o
}

func (c *compiler) response(n node) *response {
	r := &response{body: c.contents(n, toClient)}
	headers, _ := n.child("headers")
	for _, name := range names(headers.fields) {
		if strings.EqualFold(name, "Content-Type") {
			continue // OpenAPI says so
		}
		h, _ := headers.child(name)
		if p := c.parameter(c.follow(h), name, inHeader, toClient); p != nil {
			r.headers = append(r.headers, p)
		}
	}
	return r
}

// parameters are a path's, and an operation's, which stand before those.
func (c *compiler) parameters(item, operation node) (all []*parameter) {
	type key struct{ in, name string }
	seen := map[key]bool{}
	for _, of := range []node{operation, item} {
		here := map[key]bool{}
		for i, v := range list(of.fields["parameters"]) {
			n := c.follow(node{of.pointer + "/parameters/" + strconv.Itoa(i), object(v)})
			k := key{n.text("in"), n.text("name")}
			if k.in == "header" {
				k.name = strings.ToLower(k.name)
			}
			if here[k] {
				c.note(n.pointer, fmt.Sprintf("the %s parameter %s is there twice", k.in, k.name))
			}
			here[k] = true
			if seen[k] || k.in == "header" && (k.name == "accept" || k.name == "content-type" || k.name == "authorization") {
				continue // OpenAPI says of these fields that they are no parameters
			}
			seen[k] = true
			if p := c.parameter(n, n.text("name"), k.in, toService); p != nil {
				all = append(all, p)
			}
		}
	}
	return all
}

func (c *compiler) checkPathParameters(at string, parsed []segment, parameters []*parameter) {
	for _, s := range parsed {
		if s.name != "" && !slices.ContainsFunc(parameters, func(p *parameter) bool { return p.in == inPath && p.name == s.name }) {
			c.note(at, fmt.Sprintf("the path's {%s} is no parameter", s.name))
		}
	}
	for _, p := range parameters {
		if p.in == inPath && !slices.ContainsFunc(parsed, func(s segment) bool { return s.name == p.name }) {
			c.note(at, fmt.Sprintf("the path has no {%s}", p.name))
		}
	}
}
