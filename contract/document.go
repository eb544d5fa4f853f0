package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/weirmesh/weir/contract/schema"
	"go.yaml.in/yaml/v3"
)

// What a document may be like. Aliases make much of little.
const (
	maxNodes = 400_000
	maxDepth = 100
)

// document is the text as a tree, and as values.
type document struct {
	root  *yaml.Node
	nodes int
}

// read reads YAML, which JSON is.
func read(text []byte) (*document, error) {
	if len(text) > MaxDocument {
		return nil, Problems{{Reason: fmt.Sprintf("the document has %d bytes, more than %d", len(text), MaxDocument)}}
	}
	var n yaml.Node
	from := yaml.NewDecoder(bytes.NewReader(text))
	if err := from.Decode(&n); err != nil {
		return nil, Problems{{Reason: "the document is neither YAML nor JSON: " + strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	d := &document{root: n.Content[0]}
	if d.root.Kind != yaml.MappingNode {
		return nil, Problems{{Line: d.root.Line, Column: d.root.Column, Reason: "the document is no object"}}
	}
	return d, nil
}

// values are what JSON would decode to, with [json.Number]. They are made anew each
// time, and are the caller's.
func (d *document) values() (map[string]any, error) {
	d.nodes = 0
	v, err := d.value(d.root, "", 0)
	if err != nil {
		return nil, Problems{*err}
	}
	return v.(map[string]any), nil
}

func (d *document) value(n *yaml.Node, at string, depth int) (any, *Problem) {
	refuse := func(reason string) (any, *Problem) {
		return nil, &Problem{Line: n.Line, Column: n.Column, Pointer: at, Reason: reason}
	}
	if d.nodes++; d.nodes > maxNodes {
		return refuse("the document is too large, or its aliases repeat too much")
	}
	if depth > maxDepth {
		return refuse(fmt.Sprintf("it is nested deeper than %d", maxDepth))
	}
	switch n.Kind {
	case yaml.AliasNode:
		return d.value(n.Alias, at, depth+1)
	case yaml.ScalarNode:
		return scalar(n), nil
	case yaml.SequenceNode:
		all := make([]any, 0, len(n.Content))
		for i, e := range n.Content {
			v, err := d.value(e, at+"/"+strconv.Itoa(i), depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	}
	return d.object(n, at, depth)
}

func (d *document) object(n *yaml.Node, at string, depth int) (any, *Problem) {
	all := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Tag == "!!merge":
			return nil, &Problem{Line: key.Line, Column: key.Column, Pointer: at, Reason: "merge keys (<<) are not understood: write it out"}
		case key.Kind != yaml.ScalarNode:
			return nil, &Problem{Line: key.Line, Column: key.Column, Pointer: at, Reason: "a name is no string"}
		}
		below := at + "/" + schema.Escape(key.Value)
		if _, twice := all[key.Value]; twice {
			return nil, &Problem{Line: key.Line, Column: key.Column, Pointer: below, Reason: "it is there twice"}
		}
		v, err := d.value(n.Content[i+1], below, depth+1)
		if err != nil {
			return nil, err
		}
		all[key.Value] = v
	}
	return all, nil
}

// scalar is what a scalar of YAML is in JSON. Dates are strings there.
func scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
		var i int64
		if n.Decode(&i) == nil {
			return json.Number(strconv.FormatInt(i, 10))
		}
	case "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
		var f float64
		if n.Decode(&f) == nil {
			if b, err := json.Marshal(f); err == nil { // it is finite
				return json.Number(b)
			}
		}
	}
	return n.Value
}

// place is where a pointer leads to, or where the way ends.
func (d *document) place(pointer string) (line, column int) {
	n := d.root
	line, column = n.Line, n.Column
	for _, token := range strings.Split(pointer, "/")[1:] {
		token = unescape(token)
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == token {
					next = n.Content[i+1]
					line, column = n.Content[i].Line, n.Content[i].Column
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(n.Content) {
				next = n.Content[i]
				line, column = next.Line, next.Column
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return line, column
}

var unescaping = strings.NewReplacer("~1", "/", "~0", "~")

func unescape(token string) string { return unescaping.Replace(token) }

// find is what a pointer leads to.
func find(root any, pointer string) (any, bool) {
	if pointer == "" {
		return root, true
	}
	at := root
	for _, token := range strings.Split(pointer, "/")[1:] {
		switch v := at.(type) {
		case map[string]any:
			next, ok := v[unescape(token)]
			if !ok {
				return nil, false
			}
			at = next
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			at = v[i]
		default:
			return nil, false
		}
	}
	return at, true
}
