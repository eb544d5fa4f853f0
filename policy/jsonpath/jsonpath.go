// Package jsonpath reads and changes JSON where a path says, without reading the
// rest: numbers of any size, the order of members and what nobody asked for stay
// as they are.
//
//	order.items[*].price   a path: names, positions, * for all of them
//	$['a b'][0]            the same in the long form
//
// Paths are those queries of RFC 9535 that name members and elements; the root "$"
// may be left out. What a path leads through and is not there is created by Set,
// as objects, and is nothing to the others. A member that is there twice is changed
// twice, and read from where it stands last, as most readers do.
//
// A document is checked to be JSON before anything is done, so that a change never
// makes something valid of what was not. Work is linear in the document for each
// edit, and depth is bounded.
package jsonpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxSteps = 32
	maxDepth = 256
)

// Path is a path that was read.
type Path []step

type step struct {
	kind kind
	name string
	at   int
}

type kind uint8

const (
	named kind = iota
	indexed
	all
)

// Parse reads a path.
func Parse(text string) (Path, error) {
	var p Path
	rest := strings.TrimPrefix(text, "$")
	for first := rest == text; rest != ""; first = false {
		var s step
		var err error
		switch {
		case rest[0] == '[':
			s, rest, err = bracketed(rest[1:])
		case rest[0] == '.' || first:
			s, rest, err = dotted(strings.TrimPrefix(rest, "."))
		default:
			err = fmt.Errorf("%q: want . or [", rest)
		}
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", text, err)
		}
		if p = append(p, s); len(p) > maxSteps {
			return nil, fmt.Errorf("path %q has more than %d steps", text, maxSteps)
		}
	}
	return p, nil
}

func dotted(rest string) (step, string, error) {
	end := strings.IndexAny(rest, ".[")
	if end < 0 {
		end = len(rest)
	}
	name := rest[:end]
	switch {
	case name == "":
		return step{}, "", errors.New("a name is missing")
	case name == "*":
		return step{kind: all}, rest[end:], nil
	}
	return step{name: name}, rest[end:], nil
}

func bracketed(rest string) (step, string, error) {
	if rest != "" && (rest[0] == '\'' || rest[0] == '"') {
		end := strings.Index(rest[1:], rest[:1]+"]")
		if end < 0 {
			return step{}, "", errors.New("a quote or bracket is not closed")
		}
		return step{name: rest[1 : end+1]}, rest[end+3:], nil
	}
	inside, rest, closed := strings.Cut(rest, "]")
	if !closed {
		return step{}, "", errors.New("a bracket is not closed")
	}
	if inside == "*" {
		return step{kind: all}, rest, nil
	}
	at, err := strconv.Atoi(inside)
	if err != nil || at < 0 {
		return step{}, "", fmt.Errorf("[%s]: want a position, * or a name in quotes", inside)
	}
	return step{kind: indexed, at: at}, rest, nil
}

// errNotJSON is returned for documents that are none.
var errNotJSON = errors.New("not JSON")

func check(doc []byte) error {
	if depth(doc) > maxDepth {
		return fmt.Errorf("JSON is nested more than %d deep", maxDepth)
	}
	if !json.Valid(doc) {
		return errNotJSON
	}
	return nil
}

// depth is how deep brackets nest. Those in strings are not counted.
func depth(doc []byte) (deepest int) {
	d := 0
	for at := 0; at < len(doc); at++ {
		switch doc[at] {
		case '"':
			at = text(doc, at) - 1
		case '{', '[':
			d++
			deepest = max(deepest, d)
		case '}', ']':
			d--
		}
	}
	return deepest
}

// Get returns what stands at each path, nil where there is nothing: the bytes as
// they are in the document. Of several the first is meant.
func Get(doc []byte, paths []Path) ([][]byte, error) {
	if err := check(doc); err != nil {
		return nil, err
	}
	values := make([][]byte, len(paths))
	for i, p := range paths {
		values[i] = p.in(bytes.TrimSpace(doc))
	}
	return values, nil
}

func (p Path) in(value []byte) (found []byte) {
	if len(p) == 0 {
		return value
	}
	step, i := &p[0], 0
	children(value, func(name, child []byte) bool {
		if step.is(name, i) {
			if below := p[1:].in(child); below != nil {
				found = below
			}
		}
		i++
		return found == nil || step.kind == named
	})
	return found
}

// is reports whether a step leads to a member, or to the element at a position.
func (s *step) is(name []byte, i int) bool {
	switch s.kind {
	case named:
		return name != nil && equal(name, s.name)
	case indexed:
		return name == nil && i == s.at
	}
	return true
}

// equal compares a name as it is written with one that is meant.
func equal(quoted []byte, name string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == name
	}
	var meant string
	return json.Unmarshal(quoted, &meant) == nil && meant == name
}

// Op is what an edit does.
type Op uint8

// The operations.
const (
	// Set replaces a value, or makes it.
	Set Op = iota
	// Remove takes members and elements away.
	Remove
	// Rename gives a member another name, in place of one that had it.
	Rename
)

// Edit is one change. Value is JSON for Set, and the new name for Rename.
type Edit struct {
	Op    Op
	Path  Path
	Value []byte
}

// Check says what is wrong with an edit.
func (e *Edit) Check() error {
	switch {
	case e.Op > Rename:
		return errors.New("no such operation")
	case e.Op != Set && len(e.Path) == 0:
		return errors.New("the document as a whole can only be set")
	case e.Op == Set && check(e.Value) != nil:
		return fmt.Errorf("the value is %w", errNotJSON)
	case e.Op == Rename && e.Path[len(e.Path)-1].kind != named:
		return errors.New("only a member has a name")
	}
	return nil
}

// Apply makes the changes, one after the other, and returns a new document that is
// no longer than most.
func Apply(doc []byte, edits []Edit, most int) ([]byte, error) {
	if err := check(doc); err != nil {
		return nil, err
	}
	doc = bytes.TrimSpace(doc)
	for i := range edits {
		w := writer{edit: &edits[i], most: most, out: make([]byte, 0, len(doc)+len(edits[i].Value))}
		w.value(doc, edits[i].Path)
		if len(w.out) > most {
			return nil, fmt.Errorf("the document would be longer than %d bytes", most)
		}
		doc = w.out
	}
	return doc, nil
}

// writer copies a document and makes one change.
type writer struct {
	edit *Edit
	most int
	out  []byte
}

// value writes what becomes of a value, which the path leads on from.
func (w *writer) value(value []byte, p Path) {
	if len(w.out) > w.most {
		return // it is given up
	}
	if len(p) == 0 {
		w.out = append(w.out, w.edit.Value...)
		return
	}
	if value[0] != '{' && value[0] != '[' {
		w.out = append(w.out, value...)
		return
	}
	w.out = append(w.out, value[0])
	start, i, there := len(w.out), 0, false
	taken := w.renames(value, p)
	children(value, func(name, child []byte) bool {
		switch {
		case p[0].is(name, i):
			there = true
			w.child(start, name, child, p)
		case taken && equal(name, string(w.edit.Value)): // gives way
		default:
			w.member(start, name)
			w.out = append(w.out, child...)
		}
		i++
		return true
	})
	if w.edit.Op == Set && !there && p[0].kind == named && value[0] == '{' {
		w.create(start, p)
	}
	w.out = append(w.out, value[len(value)-1])
}

// renames reports whether this object has a member that is to be renamed, so that
// others of its new name give way.
func (w *writer) renames(value []byte, p Path) (found bool) {
	if w.edit.Op != Rename || len(p) != 1 || value[0] != '{' || p[0].name == string(w.edit.Value) {
		return false
	}
	children(value, func(name, _ []byte) bool {
		found = p[0].is(name, 0)
		return !found
	})
	return found
}

// child writes what becomes of one that the path leads to.
func (w *writer) child(start int, name, child []byte, p Path) {
	last := len(p) == 1
	switch {
	case last && w.edit.Op == Remove:
	case last && w.edit.Op == Rename:
		w.member(start, quoted(string(w.edit.Value)))
		w.out = append(w.out, child...)
	default:
		w.member(start, name)
		w.value(child, p[1:])
	}
}

// create writes a member, and the objects below it, that were not there.
func (w *writer) create(start int, p Path) {
	for _, s := range p[1:] {
		if s.kind != named {
			return // an array cannot be guessed
		}
	}
	w.member(start, quoted(p[0].name))
	for _, s := range p[1:] {
		w.out = append(append(append(w.out, '{'), quoted(s.name)...), ':')
	}
	w.out = append(w.out, w.edit.Value...)
	w.out = append(w.out, bytes.Repeat([]byte{'}'}, len(p)-1)...)
}

// member writes what stands before a value: a comma, a name.
func (w *writer) member(start int, name []byte) {
	if len(w.out) > start {
		w.out = append(w.out, ',')
	}
	if name != nil {
		w.out = append(append(w.out, name...), ':')
	}
}

func quoted(name string) []byte {
	b, _ := json.Marshal(name) // a string: no error
	return b
}
