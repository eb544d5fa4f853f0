package contract

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unsafe"

	"github.com/weirmesh/weir/contract/schema"
)

// segment is what stands between two slashes of a path's template: text, or a
// parameter that may have text around it.
type segment struct {
	before, name, after string // name is empty: before alone
}

// match takes the parameter's value out of a segment that was decoded.
func (s segment) match(text string) (value string, ok bool) {
	if len(text) <= len(s.before)+len(s.after) || !strings.HasPrefix(text, s.before) || !strings.HasSuffix(text, s.after) {
		return "", false // a parameter of the path is never empty
	}
	return text[len(s.before) : len(text)-len(s.after)], true
}

func parseTemplate(template string) (all []segment, wrong string) {
	seen := map[string]bool{}
	for part := range strings.SplitSeq(template[1:], "/") {
		before, rest, has := strings.Cut(part, "{")
		if !has {
			if strings.Contains(part, "}") {
				return nil, "a brace is closed that was not opened"
			}
			if plain, err := url.PathUnescape(part); err == nil {
				part = plain
			}
			all = append(all, segment{before: part})
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return nil, "a brace is not closed"
		case name == "":
			return nil, "a parameter has no name"
		case strings.ContainsAny(after, "{}"):
			return nil, "two parameters between two slashes are not understood"
		case seen[name]:
			return nil, fmt.Sprintf("{%s} is there twice", name)
		}
		seen[name] = true
		all = append(all, segment{before, name, after})
	}
	return all, ""
}

// paths finds operations by their path: text before parameters, at each slash.
type paths struct {
	text       map[string]*paths
	parameters []branch // those with more text around them first
	operations []*Operation
	named      [][]string // the names of the parameters on the way, for each operation
}

type branch struct {
	segment segment // without its name, which is each operation's own
	next    *paths
}

// add adds an operation. It returns the template of another that has the same path
// and method.
func (p *paths) add(parsed []segment, o *Operation) (clash string) {
	var given []string
	for _, s := range parsed {
		if s.name != "" {
			given = append(given, s.name)
		}
		p = p.below(s)
	}
	for _, other := range p.operations {
		if other.Path != o.Path {
			return other.Path // whatever its method: OpenAPI forbids it
		}
	}
	p.operations = append(p.operations, o)
	p.named = append(p.named, given)
	return ""
}

func (p *paths) below(s segment) *paths {
	if s.name == "" {
		if p.text == nil {
			p.text = map[string]*paths{}
		}
		if p.text[s.before] == nil {
			p.text[s.before] = &paths{}
		}
		return p.text[s.before]
	}
	for _, b := range p.parameters {
		if b.segment.before == s.before && b.segment.after == s.after {
			return b.next
		}
	}
	next := &paths{}
	p.parameters = append(p.parameters, branch{s, next})
	slices.SortStableFunc(p.parameters, func(a, b branch) int {
		return len(b.segment.before) + len(b.segment.after) - len(a.segment.before) - len(a.segment.after)
	})
	return next
}

// find goes down a path, and back where that leads nowhere. Each place of the tree is
// come to once at most, so that what it costs is bounded by the document.
func (p *paths) find(segments []string, values []string) (*paths, []string) {
	if len(segments) == 0 {
		if len(p.operations) > 0 {
			return p, values
		}
		return nil, nil
	}
	if next := p.text[segments[0]]; next != nil {
		if found, v := next.find(segments[1:], values); found != nil {
			return found, v
		}
	}
	for _, b := range p.parameters {
		value, ok := b.segment.match(segments[0])
		if !ok {
			continue
		}
		if found, v := b.next.find(segments[1:], append(values, value)); found != nil {
			return found, v
		}
	}
	return nil, nil
}

// Match is an operation that was found, with the values of its path.
type Match struct {
	Operation *Operation
	names     []string
	values    []string
}

func (m *Match) value(name string) (string, bool) {
	if i := slices.Index(m.names, name); i >= 0 {
		return m.values[i], true
	}
	return "", false
}

// Find finds the operation of a method and a path, which may have a query behind it.
// What there is none of is a violation: of the path, or of the method, with those
// that the path has.
func (c *Contract) Find(method, path []byte) (Match, *Violation) {
	var buffer [16]string
	found, values := c.place(string(path), buffer[:0], nil)
	if found == nil {
		return Match{}, violation("path", "", "paths", "the contract has no such path")
	}
	return found.choose(method, values)
}

// Operation finds the operation of a method and a path, which may have a query behind
// it; nil: there is none. It allocates nothing, but for a path that is long or encoded.
func (c *Contract) Operation(method, path []byte) *Operation {
	text := unsafe.String(unsafe.SliceData(path), len(path)) // nothing of it stays
	var segments, values [16]string
	found, _ := c.place(text, segments[:0], values[:0])
	if found == nil {
		return nil
	}
	for _, o := range found.operations {
		if o.Method == string(method) {
			return o
		}
	}
	return nil
}

// place finds where a path, which may have a query behind it, leads to, and the values
// on the way. Segments and values are put into the buffers.
func (c *Contract) place(path string, segments, values []string) (*paths, []string) {
	path, _, _ = strings.Cut(path, "?")
	for _, base := range c.bases {
		rest, below := strings.CutPrefix(path, base)
		if !below || !strings.HasPrefix(rest, "/") {
			continue
		}
		if found, values := c.paths.find(split(rest[1:], segments[:0]), values); found != nil {
			return found, values
		}
	}
	return nil, nil
}

func split(path string, into []string) []string {
	for part := range strings.SplitSeq(path, "/") {
		if strings.IndexByte(part, '%') >= 0 {
			if plain, err := url.PathUnescape(part); err == nil {
				part = plain
			}
		}
		into = append(into, part)
	}
	return into
}

func (p *paths) choose(method []byte, values []string) (Match, *Violation) {
	var there []string
	for i, o := range p.operations {
		if o.Method == string(method) {
			return Match{o, p.named[i], values}, nil
		}
		there = append(there, o.Method)
	}
	wrong := violation("method", "", "paths/"+schema.Escape(p.operations[0].Path), "the contract has "+strings.Join(there, ", ")+" there")
	wrong.Rule = "method"
	return Match{}, wrong
}
