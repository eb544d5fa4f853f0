package plugintest

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// edit is where in its file a case's golden fuel stands, or would stand. Lines
// and columns count from 1, columns in characters.
type edit struct {
	line, column int
	old          string // what stands there
	text         string // what is written, with the number
	ok           bool
}

// newEdit looks for the place in a case: where fuel is, else at the beginning of
// expect, else before the case's first key.
func newEdit(n *yaml.Node) edit {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return edit{}
	}
	expect := valueOf(n, "expect")
	if expect == nil {
		return insertion(n, "expect: {fuel: %d}")
	}
	if expect.Kind != yaml.MappingNode {
		return edit{} // an alias: it is another case's, too
	}
	if fuel := valueOf(expect, "fuel"); fuel != nil {
		return edit{line: fuel.Line, column: fuel.Column, old: fuel.Value, text: "%d", ok: fuel.Kind == yaml.ScalarNode}
	}
	if len(expect.Content) == 0 {
		return edit{}
	}
	return insertion(expect, "fuel: %d")
}

// insertion puts an entry before the first one of a mapping.
func insertion(n *yaml.Node, text string) edit {
	first := n.Content[0]
	if n.Style&yaml.FlowStyle != 0 {
		return edit{line: first.Line, column: first.Column, text: text + ", ", ok: true}
	}
	return edit{line: first.Line, column: first.Column, text: text + "\n" + strings.Repeat(" ", first.Column-1), ok: true}
}

func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// Accept takes the fuel that a case burned for what it should burn, as Update has
// written.
func (r *Result) Accept() {
	if !r.golden() || !r.edit.ok {
		return
	}
	r.expect.Fuel = &r.Fuel
	r.Problems = nil
	r.fuel(&r.expect)
	r.OK = len(r.Problems) == 0
}

// Update writes the fuel that the results burned into the file that their cases
// were read from, and leaves the rest of it as it is. Cases that expect a failure,
// or bound their fuel with maxFuel alone, are left alone; so are those that
// failed for another reason than fuel. It returns the new text and how many cases
// it changed.
func Update(data []byte, results []Result) ([]byte, int, error) {
	lines := strings.SplitAfter(string(data), "\n")
	results = slices.Clone(results)
	slices.SortFunc(results, func(a, b Result) int { // the last first: places stay what they are
		if n := b.edit.line - a.edit.line; n != 0 {
			return n
		}
		return b.edit.column - a.edit.column
	})
	changed := 0
	for _, r := range results {
		if !r.golden() {
			continue
		}
		e := r.edit
		if !e.ok || e.line > len(lines) {
			return nil, 0, fmt.Errorf("%s:%d: there is no place for its fuel: write expect: {fuel: %d}", r.File, r.Line, r.Fuel)
		}
		line := []rune(lines[e.line-1])
		at := e.column - 1
		if at > len(line) || !strings.HasPrefix(string(line[at:]), e.old) {
			return nil, 0, fmt.Errorf("%s:%d: its fuel is not where it was", r.File, e.line)
		}
		rest := string(line[at:])[len(e.old):]
		lines[e.line-1] = string(line[:at]) + fmt.Sprintf(e.text, r.Fuel) + rest
		changed++
	}
	return []byte(strings.Join(lines, "")), changed, nil
}
