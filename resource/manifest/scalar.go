package manifest

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/resource"
)

// scalar reads a string, a number, a truth value or the name of an enum.
func (d *decoder) scalar(at resource.Path, n *yaml.Node, field protoreflect.FieldDescriptor) any {
	switch field.Kind() {
	case protoreflect.EnumKind:
		return d.enum(at, n, field.Enum())
	case protoreflect.StringKind, protoreflect.BytesKind:
		if isText(n) {
			return n.Value
		}
		d.note(n, at, "%s; a string is expected, so write %q in quotes", describe(n), n.Value)
	case protoreflect.BoolKind:
		var value bool
		if n.Tag == "!!bool" && n.Decode(&value) == nil {
			return value
		}
		d.note(n, at, "%s; true or false is expected", describe(n))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		var value float64
		if (n.Tag == "!!int" || n.Tag == "!!float") && n.Decode(&value) == nil && !math.IsInf(value, 0) && !math.IsNaN(value) {
			return value
		}
		d.note(n, at, "%s; a number is expected", describe(n))
	default:
		return d.integer(at, n, field.Kind())
	}
	return nil
}

// integer reads a whole number; in quotes too, as protojson writes 64 bits.
func (d *decoder) integer(at resource.Path, n *yaml.Node, kind protoreflect.Kind) any {
	value, ok := wholeNumber(n)
	if !ok {
		d.note(n, at, "%s; a whole number is expected", describe(n))
		return nil
	}
	least, most := limits(kind)
	if value.Cmp(least) < 0 || value.Cmp(most) > 0 {
		d.note(n, at, "%s is out of range: from %s to %s", value, least, most)
		return nil
	}
	return json.Number(value.String())
}

func wholeNumber(n *yaml.Node) (*big.Int, bool) {
	if n.Tag != "!!int" && n.Tag != "!!str" || len(n.Value) > 40 {
		return nil, false
	}
	if n.Tag == "!!str" {
		return new(big.Int).SetString(n.Value, 10)
	}
	// YAML's forms: 0x1f, 0o17, 0b1, 1_000, and YAML 1.1's octal 017.
	return new(big.Int).SetString(n.Value, 0)
}

func limits(kind protoreflect.Kind) (least, most *big.Int) {
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return new(big.Int), big.NewInt(math.MaxUint32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return new(big.Int), new(big.Int).SetUint64(math.MaxUint64)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return big.NewInt(math.MinInt32), big.NewInt(math.MaxInt32)
	}
	return big.NewInt(math.MinInt64), big.NewInt(math.MaxInt64)
}

// enum reads a name in either spelling; YAML takes True for a truth value, so
// the tag does not count.
func (d *decoder) enum(at resource.Path, n *yaml.Node, ed protoreflect.EnumDescriptor) any {
	var names []string
	for i := range ed.Values().Len() {
		value := ed.Values().Get(i)
		if n.Value == string(value.Name()) || n.Value == camel(value.Name()) {
			return string(value.Name())
		}
		if !strings.HasSuffix(string(value.Name()), "_UNSPECIFIED") {
			names = append(names, spell(value))
		}
	}
	d.note(n, at, "unknown value %q; %s", n.Value, suggest(n.Value, names))
	return nil
}

// gatewayEnums are the enums that come from the Gateway API and are written in
// its spelling. The others are written as protobuf names.
var gatewayEnums = map[protoreflect.FullName]bool{
	"weir.v1.PathMatch.Type":       true,
	"weir.v1.HeaderMatch.Type":     true,
	"weir.v1.QueryParamMatch.Type": true,
	"weir.v1.RouteFilter.Type":     true,
	"weir.v1.PathModifier.Type":    true,
	"weir.v1.Condition.Status":     true,
	"weir.v1.ListenerTLS.Mode":     true,
}

// spell is how a value is written.
func spell(value protoreflect.EnumValueDescriptor) string {
	if gatewayEnums[value.Parent().FullName()] {
		return camel(value.Name())
	}
	return string(value.Name())
}

// camel is the Gateway API's spelling: PATH_PREFIX is PathPrefix, URL_REWRITE
// is URLRewrite, and CORS is CORS.
func camel(name protoreflect.Name) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(name), "_") {
		if word != "" && word != "URL" && word != "CORS" {
			word = word[:1] + strings.ToLower(word[1:])
		}
		b.WriteString(word)
	}
	return b.String()
}

func (d *decoder) duration(at resource.Path, n *yaml.Node) any {
	const form = `a duration is expected, such as "5s", "100ms" or "1h30m"`
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		d.note(n, at, "%s; %s", describe(n), form)
		return nil
	}
	if value, err := time.ParseDuration(n.Value); err == nil {
		text, err := protojson.Marshal(durationpb.New(value))
		if err == nil {
			return json.RawMessage(text)
		}
	}
	d.note(n, at, "%q: %s", n.Value, form)
	return nil
}

func (d *decoder) timestamp(at resource.Path, n *yaml.Node) any {
	if n.Kind == yaml.ScalarNode {
		if t, err := time.Parse(time.RFC3339Nano, n.Value); err == nil {
			return t.UTC().Format(time.RFC3339Nano)
		}
	}
	d.note(n, at, "%s; a time is expected, such as \"2026-11-01T12:00:00Z\"", describe(n))
	return nil
}

// free reads what has no schema: the configuration of a policy.
func (d *decoder) free(at resource.Path, n *yaml.Node, depth int) any {
	if n = target(n); n.Kind != yaml.MappingNode && !d.enter(at, n, depth) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for _, e := range d.entries(at, n, depth) {
			if !isText(e.key) {
				d.note(e.key, at, "%s; a key is a string, so write %q in quotes", describe(e.key), e.key.Value)
				continue
			}
			out[e.key.Value] = d.free(at.Field(e.key.Value), e.value, depth+1)
		}
		return out
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, element := range n.Content {
			list[i] = d.free(at.Index(i), element, depth+1)
		}
		return list
	}
	return d.freeScalar(at, n)
}

func (d *decoder) freeScalar(at resource.Path, n *yaml.Node) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool", "!!float":
		var value any
		if err := n.Decode(&value); err == nil {
			if f, ok := value.(float64); !ok || !math.IsInf(f, 0) && !math.IsNaN(f) {
				return value
			}
		}
		d.note(n, at, "%q is not a number that JSON can hold", n.Value)
		return nil
	case "!!int":
		value, ok := wholeNumber(n)
		if ok {
			// A Struct holds doubles: refuse what would silently change.
			if f, _ := new(big.Float).SetInt(value).Float64(); !math.IsInf(f, 0) {
				if back, exact := new(big.Float).SetFloat64(f).Int(nil); exact == big.Exact && back.Cmp(value) == 0 {
					return json.Number(value.String())
				}
			}
		}
		d.note(n, at, "%s is too large to be exact: write it in quotes", n.Value)
		return nil
	}
	if !isText(n) {
		d.note(n, at, "%s, which JSON does not have", describe(n))
		return nil
	}
	return n.Value
}

// isText: a date without quotes was meant as text.
func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "!!timestamp")
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "is a mapping"
	case yaml.SequenceNode:
		return "is a list"
	}
	switch n.Tag {
	case "!!null":
		return "is empty"
	case "!!str":
		return "is the text " + strconv.Quote(shorten(n.Value))
	case "!!int", "!!float":
		return "is the number " + shorten(n.Value)
	case "!!bool":
		return "is the truth value " + n.Value
	}
	return "is of type " + n.Tag
}

func shorten(s string) string {
	if runes := []rune(s); len(runes) > 60 {
		return string(runes[:60]) + "…"
	}
	return s
}

// expected says what a field takes.
func expected(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return "a string"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.EnumKind:
		var names []string
		for i := 1; i < field.Enum().Values().Len(); i++ {
			names = append(names, spell(field.Enum().Values().Get(i)))
		}
		return "one of " + strings.Join(names, ", ")
	}
	return "a number"
}
