package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// WriteYAML writes resources as the documents of one file.
func WriteYAML(w io.Writer, resources ...*weirv1.Resource) error {
	documents := make([]*yaml.Node, len(resources))
	for i, r := range resources {
		var err error
		if documents[i], err = bodyNode(r); err != nil {
			return err
		}
	}
	return encodeYAML(w, documents...)
}

// WriteJSON writes one resource as an object, in the spelling of WriteYAML.
func WriteJSON(w io.Writer, r *weirv1.Resource) error {
	n, err := bodyNode(r)
	if err != nil {
		return err
	}
	return encodeJSON(w, n)
}

// WriteList writes resources as one JSON object with items, which Parse reads too.
func WriteList(w io.Writer, resources []*weirv1.Resource) error {
	items := &yaml.Node{Kind: yaml.SequenceNode}
	for _, r := range resources {
		n, err := bodyNode(r)
		if err != nil {
			return err
		}
		items.Content = append(items.Content, n)
	}
	return encodeJSON(w, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		textNode("apiVersion"), textNode(resource.APIVersion), textNode("kind"), textNode("List"), textNode("items"), items}})
}

// WriteMessageJSON writes any message of the vocabulary in the same spelling.
func WriteMessageJSON(w io.Writer, m proto.Message) error {
	return encodeJSON(w, messageNode(m.ProtoReflect()))
}

// WriteMessageYAML writes any message of the vocabulary in the same spelling.
func WriteMessageYAML(w io.Writer, m proto.Message) error {
	return encodeYAML(w, messageNode(m.ProtoReflect()))
}

func encodeYAML(w io.Writer, documents ...*yaml.Node) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	for _, n := range documents {
		if err := encoder.Encode(n); err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
	}
	return encoder.Close()
}

// bodyNode opens the envelope.
func bodyNode(r *weirv1.Resource) (*yaml.Node, error) {
	body := resource.Body(r)
	if body == nil {
		return nil, errors.New("write resource: it is of a kind that this version does not know")
	}
	return messageNode(body.ProtoReflect()), nil
}

// messageNode lays a message out in the order of its declaration, which is
// apiVersion, kind, metadata, spec, status. What is unset is left out.
func messageNode(m protoreflect.Message) *yaml.Node {
	switch v := m.Interface().(type) {
	case *durationpb.Duration:
		return textNode(durationText(v.AsDuration()))
	case *timestamppb.Timestamp:
		return textNode(v.AsTime().Format(time.RFC3339Nano))
	case *structpb.Struct:
		return freeNode(v.AsMap())
	case *structpb.Value:
		return freeNode(v.AsInterface())
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); m.Has(field) {
			n.Content = append(n.Content, textNode(field.JSONName()), fieldNode(m.Get(field), field))
		}
	}
	return n
}

func fieldNode(value protoreflect.Value, field protoreflect.FieldDescriptor) *yaml.Node {
	switch {
	case field.IsMap():
		n := &yaml.Node{Kind: yaml.MappingNode}
		byKey := map[string]protoreflect.Value{}
		value.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
			byKey[key.String()] = v
			return true
		})
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			n.Content = append(n.Content, textNode(key), singleNode(byKey[key], field.MapValue()))
		}
		return n
	case field.IsList():
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range value.List().Len() {
			n.Content = append(n.Content, singleNode(value.List().Get(i), field))
		}
		return n
	}
	return singleNode(value, field)
}

func singleNode(value protoreflect.Value, field protoreflect.FieldDescriptor) *yaml.Node {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return messageNode(value.Message())
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			return textNode(spell(known))
		}
		return scalarNode("!!int", strconv.Itoa(int(value.Enum())))
	case protoreflect.StringKind:
		return textNode(value.String())
	case protoreflect.BytesKind:
		text, _ := json.Marshal(value.Bytes())
		return textNode(strings.Trim(string(text), `"`))
	case protoreflect.BoolKind:
		return scalarNode("!!bool", strconv.FormatBool(value.Bool()))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return numberNode(value.Float())
	}
	return scalarNode("!!int", value.String())
}

// freeNode lays out what has no schema, keys sorted.
func freeNode(value any) *yaml.Node {
	switch v := value.(type) {
	case nil:
		return scalarNode("!!null", "null")
	case bool:
		return scalarNode("!!bool", strconv.FormatBool(v))
	case float64:
		return numberNode(v)
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, element := range v {
			n.Content = append(n.Content, freeNode(element))
		}
		return n
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, textNode(key), freeNode(v[key]))
		}
		return n
	}
	return textNode(fmt.Sprint(value))
}

func scalarNode(tag, text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
}

func numberNode(f float64) *yaml.Node {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return scalarNode("!!int", strconv.FormatInt(int64(f), 10))
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		return scalarNode("!!int", text)
	}
	return scalarNode("!!float", text)
}

// textNode quotes what another YAML parser might take for something else; the
// encoder does so for what its own would.
func textNode(s string) *yaml.Node {
	n := scalarNode("!!str", s)
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		n.Style = yaml.DoubleQuotedStyle
	}
	if strings.Contains(s, "\n") {
		n.Style = yaml.LiteralStyle
	}
	return n
}

// durationText is "1h30m", not "1h30m0s".
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func encodeJSON(w io.Writer, n *yaml.Node) error {
	var compact, indented bytes.Buffer
	if err := appendJSON(&compact, n); err != nil {
		return err
	}
	if err := json.Indent(&indented, compact.Bytes(), "", "  "); err != nil {
		return fmt.Errorf("indent JSON: %w", err)
	}
	indented.WriteByte('\n')
	_, err := w.Write(indented.Bytes())
	return err
}

func appendJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, n.Content[i]); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := appendJSON(b, n.Content[i+1]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, element := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, element); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	default:
		if n.Tag != "!!str" {
			b.WriteString(n.Value)
			return nil
		}
		encoder := json.NewEncoder(b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(n.Value); err != nil {
			return fmt.Errorf("write text: %w", err)
		}
	}
	return nil
}

// WriteMessagesJSON writes messages as one array, in the same spelling.
func WriteMessagesJSON[M proto.Message](w io.Writer, all []M) error {
	return encodeJSON(w, sequenceNode(all))
}

// WriteMessagesYAML writes messages as one sequence, in the same spelling.
func WriteMessagesYAML[M proto.Message](w io.Writer, all []M) error {
	return encodeYAML(w, sequenceNode(all))
}

func sequenceNode[M proto.Message](all []M) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, m := range all {
		n.Content = append(n.Content, messageNode(m.ProtoReflect()))
	}
	return n
}
