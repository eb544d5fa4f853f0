package contract

import (
	"slices"
	"strings"
)

// way is which way a schema's values go. What is readOnly is not to be in requests,
// and no request lacks it; what is writeOnly is the same of responses.
type way int

const (
	toService way = iota
	toClient
)

// preparer rewrites the schemas of a document so that JSON Schema's meaning is
// OpenAPI's. It knows where schemas stand, so that nothing else is taken for one.
type preparer struct {
	doc     map[string]any
	version version
	way     way
}

func (p *preparer) document() {
	components := object(p.doc["components"])
	for _, s := range object(components["schemas"]) {
		p.schema(s)
	}
	for _, part := range []string{"parameters", "headers"} {
		for _, x := range object(components[part]) {
			p.parameter(x)
		}
	}
	for _, b := range object(components["requestBodies"]) {
		p.content(object(b)["content"])
	}
	for _, r := range object(components["responses"]) {
		p.answer(r)
	}
	for _, part := range []any{p.doc["paths"], components["pathItems"]} {
		for _, item := range object(part) {
			p.pathItem(item)
		}
	}
}

func (p *preparer) pathItem(x any) {
	item := object(x)
	for _, one := range list(item["parameters"]) {
		p.parameter(one)
	}
	for _, method := range methods {
		operation := object(item[method])
		for _, one := range list(operation["parameters"]) {
			p.parameter(one)
		}
		p.content(object(operation["requestBody"])["content"])
		for _, r := range object(operation["responses"]) {
			p.answer(r)
		}
	}
}

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// parameter is one, or a header, which has the same fields.
func (p *preparer) parameter(x any) {
	if s, ok := object(x)["schema"]; ok {
		p.schema(s)
	}
	p.content(object(x)["content"])
}

func (p *preparer) answer(x any) {
	for _, h := range object(object(x)["headers"]) {
		p.parameter(h)
	}
	p.content(object(x)["content"])
}

func (p *preparer) content(x any) {
	for _, media := range object(x) {
		if s, ok := object(media)["schema"]; ok {
			p.schema(s)
		}
	}
}

// What stands in a schema and is one, or a list or an object of them.
var (
	oneSchema = []string{"not", "additionalProperties", "items", "contains", "propertyNames", "if", "then", "else",
		"unevaluatedItems", "unevaluatedProperties", "additionalItems", "contentSchema"}
	schemaLists = []string{"allOf", "anyOf", "oneOf", "prefixItems"}
	schemaMaps  = []string{"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)

func (p *preparer) schema(x any) {
	s, ok := x.(map[string]any)
	if !ok {
		return
	}
	if _, isReference := s["$ref"]; isReference && p.version == v30 {
		return // what stands beside it does not count
	}
	for _, k := range oneSchema {
		p.schema(s[k])
	}
	for _, k := range schemaLists {
		for _, sub := range list(s[k]) {
			p.schema(sub)
		}
	}
	for _, k := range schemaMaps {
		for _, sub := range object(s[k]) {
			p.schema(sub)
		}
	}
	p.withoutTheOtherWay(s)
	if p.version == v30 {
		nullable(s)
	}
}

// withoutTheOtherWay takes out of what is required what the other side gives.
func (p *preparer) withoutTheOtherWay(s map[string]any) {
	required := list(s["required"])
	if required == nil {
		return
	}
	mark := "readOnly"
	if p.way == toClient {
		mark = "writeOnly"
	}
	properties := object(s["properties"])
	left := slices.DeleteFunc(slices.Clone(required), func(name any) bool {
		text, _ := name.(string)
		marked, _ := p.resolved(properties[text])[mark].(bool)
		return marked
	})
	if len(left) == 0 { // an empty list is none in draft 4
		delete(s, "required")
	} else {
		s["required"] = left
	}
}

// resolved follows the references from one schema to another, and its first allOf
// alone, as those write who want to say more beside a reference in 3.0.
func (p *preparer) resolved(x any) map[string]any {
	s := object(x)
	for range maxReferences {
		to, ok := s["$ref"].(string)
		if !ok || !strings.HasPrefix(to, "#/") {
			break
		}
		next, _ := find(p.doc, decodeFragment(to[1:]))
		s = object(next)
	}
	return s
}

// nullable is JSON Schema's null.
func nullable(s map[string]any) {
	if yes, _ := s["nullable"].(bool); !yes {
		return
	}
	delete(s, "nullable")
	if one, ok := s["type"].(string); ok {
		s["type"] = []any{one, "null"}
		if values := list(s["enum"]); values != nil && !slices.Contains(values, nil) {
			s["enum"] = append(values, nil)
		}
	}
}

// object and list are what a value is, nil if it is none.
func object(x any) map[string]any {
	o, _ := x.(map[string]any)
	return o
}

func list(x any) []any {
	l, _ := x.([]any)
	return l
}
