package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weirmesh/weir/resource"
)

// maxDepth bounds nesting; the vocabulary itself is less than 10 deep, so this
// is for the configuration of policies.
const maxDepth = 64

// budgetFor bounds how many nodes are visited. A node takes at least a byte,
// so only aliases can exhaust it.
func budgetFor(data []byte) int {
	return 100_000 + 2*len(data)
}

// place is where a field stands: a scalar by its value, the rest by their key.
type place struct {
	line, column int
}

func placeOf(n *yaml.Node) place {
	return place{n.Line, n.Column}
}

// decoder walks nodes beside descriptors. It returns values that json.Marshal
// turns into what protojson reads, without those that it noted a problem for.
type decoder struct {
	budget   int
	spent    bool
	places   map[resource.Path]place
	problems Problems
}

func (d *decoder) note(n *yaml.Node, at resource.Path, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		Line: n.Line, Column: n.Column, Field: string(at), Message: fmt.Sprintf(format, args...)})
}

// enter counts a node, and says whether the walk may go on below it.
func (d *decoder) enter(at resource.Path, n *yaml.Node, depth int) bool {
	if d.budget--; d.budget < 0 {
		if !d.spent {
			d.note(n, at, "the aliases of this file repeat too much: write it out, or split it")
		}
		d.spent = true
		return false
	}
	if depth > maxDepth {
		d.note(n, at, "is nested more than %d deep", maxDepth)
		return false
	}
	return true
}

// entry is one key of a mapping.
type entry struct {
	key, value *yaml.Node
}

// entries lists the keys of a mapping, those of its merge keys (<<) after its
// own, which win.
func (d *decoder) entries(at resource.Path, n *yaml.Node, depth int) []entry {
	if !d.enter(at, n, depth) {
		return nil
	}
	seen := map[string]*yaml.Node{}
	var own, merged []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := target(n.Content[i]), n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.note(key, at, "%s; a key is a string", describe(key))
		case key.Tag == "!!merge":
			merged = append(merged, d.merged(at, target(value), depth+1)...)
		case seen[key.Value] != nil:
			d.note(key, at.Field(key.Value), "is there twice; first on line %d", seen[key.Value].Line)
		default:
			seen[key.Value] = key
			own = append(own, entry{key, value})
		}
	}
	for _, e := range merged {
		if seen[e.key.Value] == nil {
			seen[e.key.Value] = e.key
			own = append(own, e)
		}
	}
	return own
}

func (d *decoder) merged(at resource.Path, n *yaml.Node, depth int) []entry {
	switch n.Kind {
	case yaml.MappingNode:
		return d.entries(at, n, depth)
	case yaml.SequenceNode:
		var all []entry
		for _, element := range n.Content {
			if e := target(element); e.Kind == yaml.MappingNode {
				all = append(all, d.entries(at, e, depth+1)...)
			}
		}
		return all
	}
	d.note(n, at, "%s; << merges a mapping", describe(n))
	return nil
}

// message reads a mapping as a message. Well-known types have a form of their own.
func (d *decoder) message(at resource.Path, n *yaml.Node, md protoreflect.MessageDescriptor, depth int) any {
	n = target(n)
	switch md.FullName() {
	case "google.protobuf.Duration":
		return d.duration(at, n)
	case "google.protobuf.Timestamp":
		return d.timestamp(at, n)
	case "google.protobuf.Value":
		return d.free(at, n, depth)
	}
	if n.Kind != yaml.MappingNode {
		d.note(n, at, "%s; a mapping is expected", describe(n))
		return nil
	}
	if md.FullName() == "google.protobuf.Struct" {
		return d.free(at, n, depth)
	}
	if md.FullName() == "weir.v1.Resource" {
		if kind := scalarAt(n, "kind"); kind != "" {
			return d.bare(at, n, kind, depth)
		}
	}
	out := map[string]any{}
	for _, e := range d.entries(at, n, depth) {
		d.messageField(at, e, md, out, depth)
	}
	return out
}

// bare reads a resource that stands without its envelope, as in a file.
func (d *decoder) bare(at resource.Path, n *yaml.Node, kind string, depth int) any {
	_, body, ok := resource.New(kind)
	if !ok {
		d.note(valueAt(n, "kind"), at.Field("kind"), "unknown kind %q; %s", kind, suggest(kind, resource.Kinds()))
		return nil
	}
	return map[string]any{strings.ToLower(kind): d.message(at, n, body.ProtoReflect().Descriptor(), depth)}
}

func (d *decoder) messageField(at resource.Path, e entry, md protoreflect.MessageDescriptor, out map[string]any, depth int) {
	name := e.key.Value
	field := md.Fields().ByJSONName(name)
	if field == nil {
		field = md.Fields().ByTextName(name)
	}
	if field == nil {
		d.note(e.key, at.Field(name), "unknown field; %s", suggest(name, fieldNames(md)))
		return
	}
	at = at.Field(field.JSONName())
	if _, twice := out[field.JSONName()]; twice {
		d.note(e.key, at, "is there twice, in two spellings")
		return
	}
	value := target(e.value)
	d.places[at] = placeOf(value)
	if value.Kind != yaml.ScalarNode {
		d.places[at] = placeOf(e.key)
	}
	if isNull(value) && !isValue(field) {
		return // nothing written means unset
	}
	if decoded := d.field(at, value, field, depth+1); decoded != nil {
		out[field.JSONName()] = decoded
	}
}

func isValue(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && field.Message().FullName() == "google.protobuf.Value"
}

func fieldNames(md protoreflect.MessageDescriptor) []string {
	names := make([]string, md.Fields().Len())
	for i := range names {
		names[i] = md.Fields().Get(i).JSONName()
	}
	return names
}

func (d *decoder) field(at resource.Path, n *yaml.Node, field protoreflect.FieldDescriptor, depth int) any {
	switch {
	case field.IsMap():
		return d.mapField(at, n, field, depth)
	case !field.IsList():
		return d.single(at, n, field, depth)
	case n.Kind != yaml.SequenceNode:
		d.note(n, at, "%s; a list is expected: begin each element with \"- \"", describe(n))
		return nil
	}
	if !d.enter(at, n, depth) {
		return nil
	}
	list := make([]any, 0, len(n.Content))
	for i, element := range n.Content {
		at := at.Index(i)
		element = target(element)
		d.places[at] = placeOf(element)
		if isNull(element) {
			d.note(element, at, "is empty; an element is expected")
			continue
		}
		// An element that cannot be read keeps its place, so that the paths of
		// those behind it stay true.
		value := d.single(at, element, field, depth+1)
		if value == nil {
			value = blank(field)
		}
		list = append(list, value)
	}
	return list
}

// blank is the empty value of a list's element.
func blank(field protoreflect.FieldDescriptor) any {
	switch {
	case field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration":
		return "0s"
	case field.Message() != nil:
		return map[string]any{}
	case field.Kind() == protoreflect.StringKind:
		return ""
	}
	return 0
}

func (d *decoder) mapField(at resource.Path, n *yaml.Node, field protoreflect.FieldDescriptor, depth int) any {
	if n.Kind != yaml.MappingNode {
		d.note(n, at, "%s; a mapping is expected", describe(n))
		return nil
	}
	out := map[string]any{}
	for _, e := range d.entries(at, n, depth) {
		at := at.Key(e.key.Value)
		value := target(e.value)
		d.places[at] = placeOf(value)
		if field.MapKey().Kind() == protoreflect.StringKind && !isText(e.key) {
			d.note(e.key, at, "%s; a key is a string, so write %q in quotes", describe(e.key), e.key.Value)
			continue
		}
		if isNull(value) {
			d.note(value, at, "is empty; write \"\" if that is meant")
			continue
		}
		if decoded := d.single(at, value, field.MapValue(), depth+1); decoded != nil {
			out[e.key.Value] = decoded
		}
	}
	return out
}

// single reads a value that is neither list nor map.
func (d *decoder) single(at resource.Path, n *yaml.Node, field protoreflect.FieldDescriptor, depth int) any {
	if field.Message() != nil {
		if !d.enter(at, n, depth) {
			return nil
		}
		return d.message(at, n, field.Message(), depth)
	}
	if d.budget--; n.Kind != yaml.ScalarNode {
		d.note(n, at, "%s; %s is expected", describe(n), expected(field))
		return nil
	}
	return d.scalar(at, n, field)
}

// decodeJSON is where protojson has the last word.
func decodeJSON(value any, into proto.Message) error {
	if value == nil {
		return nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("read value: %w", err)
	}
	return protojson.Unmarshal(data, into)
}

// target follows aliases. A cycle ends where the depth does.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

func valueAt(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func scalarAt(n *yaml.Node, key string) string {
	value := valueAt(n, key)
	if value == nil || target(value).Kind != yaml.ScalarNode || isNull(target(value)) {
		return ""
	}
	return target(value).Value
}
