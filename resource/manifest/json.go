package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/resource"
)

// maxLenient bounds JSON that protojson does not take as it is; reading it
// again with places costs some hundred bytes for each of its values.
const maxLenient = 1 << 20

// UnmarshalJSON reads any message of the vocabulary from JSON: all that
// protojson takes, and in it the spellings that files may use, and resources
// that stand without an envelope: {"kind": "Route", …} for {"route": {…}}.
// Unknown fields are refused.
func UnmarshalJSON(data []byte, m proto.Message) error {
	strict := protojson.Unmarshal(data, m)
	if strict == nil {
		return nil
	}
	if len(data) > maxLenient {
		return fmt.Errorf("%w (the spellings of files are read in JSON of up to %d MiB, not in this of %.1f)",
			strict, maxLenient>>20, float64(len(data))/(1<<20))
	}
	var document yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(yamlEscapes(data))).Decode(&document); err != nil || len(document.Content) != 1 {
		return strict
	}
	d := &decoder{budget: budgetFor(data), places: map[resource.Path]place{}}
	value := d.message("", document.Content[0], m.ProtoReflect().Descriptor(), 0)
	if len(d.problems) > 0 {
		return d.problems
	}
	proto.Reset(m)
	return decodeJSON(value, m)
}

// escapes finds in JSON what YAML writes in another way: a slash, and a pair of
// escapes for what lies beyond the basic plane. It also finds the escaped
// backslash, so as to step over it.
var escapes = regexp.MustCompile(`\\\\|\\/|\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}`)

// yamlEscapes makes JSON into the YAML that it nearly is. Lines stay what they
// are.
func yamlEscapes(data []byte) []byte {
	if !escapes.Match(data) || !json.Valid(data) {
		return data
	}
	return escapes.ReplaceAllFunc(data, func(match []byte) []byte {
		var s string
		if err := json.Unmarshal([]byte(`"`+string(match)+`"`), &s); err != nil || s == `\` {
			return match
		}
		return fmt.Appendf(nil, `\U%08X`, []rune(s)[0])
	})
}
