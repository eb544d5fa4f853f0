// Package manifest turns the files that people write into resources, and
// resources into files that people like to read.
//
// A file is YAML of one or more documents, or JSON. [Parse] walks the nodes of
// each document beside the descriptors of its kind, so that every problem is
// found in one go and bears its place:
//
//	shop.yaml:7:21: spec.rules[0].matches[0].path.type: unknown value "Prefix"; did you mean "PathPrefix"?
//
// What the walk has accepted, protojson decodes; [resource.Validate] then
// judges the outcome, and each [Item] can say where in its file a field stands,
// so that what a server refuses later is told in the same form.
//
// Enumerations are read in the Gateway API's spelling (PathPrefix) and in
// protobuf's (PATH_PREFIX), durations as "1h30m" and as "5400s".
//
// Documents of the Kubernetes Gateway API are read, too: see package gatewayapi.
//
// Input is bounded: a file by [MaxBytes], nesting by maxDepth, and the nodes
// visited by the file's size, so that aliases cannot multiply.
package manifest

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

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest/gatewayapi"
)

// MaxBytes is the size of the biggest file that is read: some modules of stock
// Go, as base64, and what points at them.
const MaxBytes = 64 << 20

// Item is one resource and where it was declared.
type Item struct {
	// Resource is what was written; resource.Normalize fills in the rest.
	Resource *weirv1.Resource
	File     string
	Line     int

	places map[resource.Path]place
}

// Problem tells what is wrong at a place of this item's file. A field that was
// not written is placed where its parent stands.
func (i Item) Problem(field, message string) Problem {
	at := resource.Path(field)
	for {
		if p, ok := i.places[at]; ok {
			return Problem{File: i.File, Line: p.line, Column: p.column, Field: field, Message: message}
		}
		if at == "" {
			return Problem{File: i.File, Line: i.Line, Field: field, Message: message}
		}
		at = at.Parent()
	}
}

// Problem is one thing that is wrong with a file.
type Problem struct {
	File         string
	Line, Column int
	Field        string
	Message      string
}

// Error is "file:line:column: field: message"; what is not known is left out.
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:", p.Line)
		}
		if p.Column > 0 {
			fmt.Fprintf(&b, "%d:", p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	return b.String() + p.Message
}

// Problems is all that is wrong, in the order of the files.
type Problems []Problem

// Error has a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Parse reads all resources of a file. The error is Problems.
func Parse(file string, data []byte) ([]Item, error) {
	if len(data) > MaxBytes {
		return nil, Problems{{File: file, Message: fmt.Sprintf("is longer than %d MiB, the most that a file may have: split it", MaxBytes>>20)}}
	}
	p := parser{file: file, budget: budgetFor(data)}
	decoder := yaml.NewDecoder(bytes.NewReader(yamlEscapes(data)))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.problems = append(p.problems, syntaxProblem(file, err))
			break
		}
		if len(document.Content) == 1 {
			p.root(document.Content[0])
		}
	}
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, p.problems
	}
	return p.items, nil
}

// Unique returns Problems for resources that are declared more than once.
func Unique(items []Item) error {
	var problems Problems
	first := map[resource.Ref]Item{}
	for _, item := range items {
		ref := resource.Of(item.Resource)
		if earlier, twice := first[ref]; twice {
			problems = append(problems, item.Problem("metadata.name",
				fmt.Sprintf("%s is declared twice; first at %s:%d", ref, earlier.File, earlier.Line)))
			continue
		}
		first[ref] = item
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxProblem places what the YAML parser says.
func syntaxProblem(file string, err error) Problem {
	text := err.Error()
	p := Problem{File: file}
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		p.Line, _ = strconv.Atoi(found[1])
		text = text[len(found[0]):]
	}
	p.Message = "not YAML: " + text
	return p
}

// parser reads the documents of one file.
type parser struct {
	file     string
	budget   int
	items    []Item
	problems Problems

	gatewayAPI *gatewayapi.Reader // once there is such a document
}

// root reads a document: a resource, a list of them, or {kind: List, items: …}.
func (p *parser) root(n *yaml.Node) {
	n = target(n)
	switch {
	case isNull(n):
	case n.Kind == yaml.SequenceNode:
		for _, element := range n.Content {
			p.resource(element)
		}
	case n.Kind == yaml.MappingNode && scalarAt(n, "kind") == "List":
		if items := valueAt(n, "items"); items != nil && target(items).Kind == yaml.SequenceNode {
			for _, element := range target(items).Content {
				p.resource(element)
			}
			return
		}
		p.note(n, "items", "a List needs items: a list of resources")
	default:
		p.resource(n)
	}
}

func (p *parser) note(n *yaml.Node, field, message string) {
	p.problems = append(p.problems, Problem{File: p.file, Line: n.Line, Column: n.Column, Field: field, Message: message})
}

func (p *parser) resource(n *yaml.Node) {
	if n = target(n); n.Kind != yaml.MappingNode {
		p.note(n, "", describe(n)+"; a resource is a mapping with apiVersion, kind, metadata and spec")
		return
	}
	d := &decoder{budget: p.budget, places: map[resource.Path]place{"": placeOf(n)}}
	if strings.HasPrefix(scalarAt(n, "apiVersion"), gatewayapi.Group) {
		if n = p.foreign(n, d); n == nil {
			return
		}
	}
	kind := scalarAt(n, "kind")
	r, body, ok := resource.New(kind)
	if !ok {
		p.unknownKind(n, kind)
		return
	}
	value := d.message("", n, body.ProtoReflect().Descriptor(), 0)
	p.budget = d.budget
	if err := decodeJSON(value, body); err != nil && len(d.problems) == 0 {
		d.note(n, "", "%s", err)
	}
	item := Item{Resource: r, File: p.file, Line: n.Line, places: d.places}
	for i := range d.problems {
		d.problems[i].File = p.file
	}
	p.problems = append(append(p.problems, d.problems...), item.violations(d.problems)...)
	p.items = append(p.items, item)
}

// foreign translates a document of the Gateway API; nil: it is of no kind that is
// read.
func (p *parser) foreign(n *yaml.Node, d *decoder) *yaml.Node {
	if p.gatewayAPI == nil {
		p.gatewayAPI = gatewayapi.NewReader()
	}
	translated := p.gatewayAPI.Translate(n,
		func(n *yaml.Node, field, message string) { d.note(n, resource.Path(field), "%s", message) },
		func(n *yaml.Node, field string) bool { return d.enter(resource.Path(field), n, 0) })
	if translated == nil {
		for _, problem := range d.problems {
			problem.File = p.file
			p.problems = append(p.problems, problem)
		}
	}
	return translated
}

func (p *parser) unknownKind(n *yaml.Node, kind string) {
	field := valueAt(n, "kind")
	if field == nil || kind == "" {
		p.note(n, "kind", "is required: "+strings.Join(resource.Kinds(), ", "))
		return
	}
	p.note(field, "kind", fmt.Sprintf("unknown kind %q; %s", kind, suggest(kind, resource.Kinds())))
}

// violations are what Validate finds, less what follows from a problem that is
// told already: a field that could not be read, or one that was misspelt.
func (i Item) violations(told []Problem) Problems {
	r := proto.CloneOf(i.Resource)
	resource.Normalize(r)
	var problems Problems
	for _, v := range resource.Validate(r) {
		field := resource.Path(v.Field)
		_, written := i.places[field]
		follows := slices.ContainsFunc(told, func(p Problem) bool {
			return within(p.Field, v.Field) || p.Field != "" && within(v.Field, p.Field) ||
				!written && resource.Path(p.Field).Parent() == field.Parent()
		})
		if !follows {
			problems = append(problems, i.Problem(v.Field, v.Message))
		}
	}
	return problems
}

// within: a field is within itself, and all are within the resource.
func within(field, outer string) bool {
	rest, ok := strings.CutPrefix(field, outer)
	return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// suggest names the likeliest candidate, or all of them.
func suggest(word string, candidates []string) string {
	if best := resource.Nearest(word, candidates); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if len(candidates) == 0 {
		return "none is expected here"
	}
	return "expected one of " + strings.Join(candidates, ", ")
}
