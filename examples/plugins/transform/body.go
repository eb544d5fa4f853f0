package main

import (
	"encoding/json"
	"fmt"
	"slices"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// bodyEdit is a bodyConfig made ready.
type bodyEdit struct {
	rename  map[string]string
	targets map[string]bool // what is renamed to
	drop    map[string]bool // what is removed, and what is set anew
	set     []pair          // names quoted, values as JSON
}

// newBodyEdit returns nil when there is nothing to do.
func newBodyEdit(c bodyConfig) (*bodyEdit, error) {
	if len(c.Rename)+len(c.Remove)+len(c.Set) == 0 {
		return nil, nil
	}
	e := &bodyEdit{rename: map[string]string{}, targets: map[string]bool{}, drop: map[string]bool{}}
	for from, to := range c.Rename {
		if from != to {
			e.rename[from], e.targets[to] = to, true
		}
	}
	for _, name := range c.Remove {
		e.drop[name] = true
	}
	values := map[string]string{}
	for name, value := range c.Set {
		if !json.Valid(value) {
			return nil, fmt.Errorf("responseBody.set.%s: not JSON", name)
		}
		e.drop[name] = true
		values[name] = string(value)
	}
	for _, p := range sorted(values) {
		e.set = append(e.set, pair{string(sdk.AppendJSON(nil, p.name)), p.value})
	}
	return e, nil
}

// apply returns the edited document, or false for one that it leaves alone:
// what is neither an object nor an array of objects, and what is not JSON.
func (e *bodyEdit) apply(doc []byte) ([]byte, bool) {
	s := scanner{doc: doc}
	out := make([]byte, 0, len(doc)+128)
	s.space()
	switch s.peek() {
	case '{':
		out = e.object(&s, out)
	case '[':
		out = e.array(&s, out)
	default:
		return nil, false
	}
	s.space()
	return out, !s.broken && s.at == len(doc)
}

func (e *bodyEdit) array(s *scanner, out []byte) []byte {
	s.expect('[')
	out = append(out, '[')
	for first := true; s.more(']', first); first = false {
		if !first {
			out = append(out, ',')
		}
		if s.peek() == '{' {
			out = e.object(s, out)
		} else {
			out = append(out, s.value()...)
		}
	}
	return append(out, ']')
}

func (e *bodyEdit) object(s *scanner, out []byte) []byte {
	s.expect('{')
	out = append(out, '{')
	start := len(out)
	// replaced are members that give way if one is renamed to their name.
	var replaced []member
	var renamed []string
	for first := true; s.more('}', first); first = false {
		m := s.member()
		if to, ok := e.rename[m.name]; ok {
			m.name, m.quoted = to, sdk.AppendJSON(nil, to)
			renamed = append(renamed, to)
		} else if e.targets[m.name] {
			replaced = append(replaced, m)
			continue
		}
		out = e.pass(out, start, m)
	}
	for _, m := range replaced {
		if !slices.Contains(renamed, m.name) {
			out = e.pass(out, start, m)
		}
	}
	for _, p := range e.set {
		out = append(append(append(comma(out, start), p.name...), ':'), p.value...)
	}
	return append(out, '}')
}

// pass writes a member that is not dropped.
func (e *bodyEdit) pass(out []byte, start int, m member) []byte {
	if e.drop[m.name] {
		return out
	}
	return append(append(append(comma(out, start), m.quoted...), ':'), m.value...)
}

func comma(out []byte, start int) []byte {
	if len(out) > start {
		return append(out, ',')
	}
	return out
}
