package schema

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	neturl "net/url"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Dialect is which JSON Schema a document speaks.
type Dialect int

// The dialects of OpenAPI 3.0, which says draft 5 and means draft 4, and 3.1.
const (
	Draft4 Dialect = iota
	Draft2020
)

// base is the URL that a document has for the library. Nothing is loaded from it.
const base = "contract:///document"

// Compiler compiles the schemas of one document.
type Compiler struct {
	library *jsonschema.Compiler
	made    map[*jsonschema.Schema]*Schema
	err     error
}

// NewCompiler returns a compiler for a document: what JSON decodes to, with
// [json.Number]. It keeps the document.
func NewCompiler(document any, d Dialect) (*Compiler, error) {
	c := &Compiler{library: jsonschema.NewCompiler(), made: map[*jsonschema.Schema]*Schema{}}
	c.library.DefaultDraft(jsonschema.Draft2020)
	if d == Draft4 {
		c.library.DefaultDraft(jsonschema.Draft4)
	}
	c.library.AssertFormat()
	for _, f := range formats {
		c.library.RegisterFormat(f)
	}
	c.library.UseLoader(jsonschema.SchemeURLLoader{})
	if err := c.library.AddResource(base, document); err != nil {
		return nil, err
	}
	return c, nil
}

// Compile compiles the schema that a pointer (RFC 6901) leads to.
func (c *Compiler) Compile(pointer string) (*Schema, error) {
	from, err := c.library.Compile(base + "#" + escape(pointer))
	if err != nil {
		return nil, compileError(err)
	}
	s := c.schema(from)
	return s, c.err
}

// escape makes a pointer the fragment of a URL.
func escape(pointer string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/!$&'()*+,;=:@"
	var b strings.Builder
	for _, c := range []byte(pointer) {
		if strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Problem is what is wrong with a schema.
type Problem struct {
	Pointer string // into the document
	Reason  string
}

func (p Problem) Error() string { return p.Pointer + ": " + p.Reason }

// compileError takes the library's words to a place in the document.
func compileError(err error) error {
	var invalid *jsonschema.SchemaValidationError
	var pattern *jsonschema.InvalidRegexError
	var pointer *jsonschema.JSONPointerNotFoundError
	var wrong *jsonschema.ValidationError
	switch {
	case errors.As(err, &invalid) && errors.As(invalid.Err, &wrong):
		for len(wrong.Causes) > 0 {
			wrong = wrong.Causes[0]
		}
		return Problem{Pointer: within(invalid.URL) + pointerTo(wrong.InstanceLocation), Reason: words(wrong)}
	case errors.As(err, &pattern):
		return Problem{Pointer: within(pattern.URL), Reason: fmt.Sprintf("pattern %q: %v", pattern.Regex, pattern.Err)}
	case errors.As(err, &pointer):
		return Problem{Pointer: within(pointer.URL), Reason: "there is nothing"}
	}
	return err
}

// within is the pointer of one of the document's URLs.
func within(url string) string {
	_, fragment, _ := strings.Cut(url, "#")
	if plain, err := neturl.PathUnescape(fragment); err == nil {
		return plain
	}
	return fragment
}

func pointerTo(location []string) string {
	var b strings.Builder
	for _, token := range location {
		b.WriteByte('/')
		b.WriteString(Escape(token))
	}
	return b.String()
}

var tokens = strings.NewReplacer("~", "~0", "/", "~1")

// Escape is how a name stands in a pointer.
func Escape(token string) string { return tokens.Replace(token) }

// schema makes one of the library's ours, with all that it leads to.
func (c *Compiler) schema(from *jsonschema.Schema) *Schema {
	if from == nil {
		return nil
	}
	if s := c.made[from]; s != nil {
		return s
	}
	s := &Schema{at: "#" + within(from.Location), always: from.Bool}
	c.made[from] = s // before what it leads to, which may be itself
	s.types = typesOf(from.Types)
	s.enum, s.konst = c.enumOf(from)
	s.format = from.Format
	s.ref = c.schema(cmp.Or(from.Ref, from.RecursiveRef))
	s.only = from.Ref != nil && from.DraftVersion < 2019
	if d := from.DynamicRef; d != nil {
		c.dynamic(s, d)
	}
	s.not, s.all, s.any, s.one = c.schema(from.Not), c.schemas(from.AllOf), c.schemas(from.AnyOf), c.schemas(from.OneOf)
	s.when, s.then, s.orElse = c.schema(from.If), c.schema(from.Then), c.schema(from.Else)
	s.objects, s.arrays = c.objectsOf(from), c.arraysOf(from)
	s.strings, s.numbers = textsOf(from), numbersOf(from)
	return s
}

func (c *Compiler) schemas(from []*jsonschema.Schema) (all []*Schema) {
	for _, s := range from {
		all = append(all, c.schema(s))
	}
	return all
}

// dynamic takes a dynamic reference for what it is where nothing is dynamic.
func (c *Compiler) dynamic(s *Schema, d *jsonschema.DynamicRef) {
	if d.Anchor != "" && d.Ref.DynamicAnchor == d.Anchor {
		c.err = errors.Join(c.err, Problem{Pointer: strings.TrimPrefix(s.at, "#"), Reason: "$dynamicRef to a $dynamicAnchor is not supported: say $ref"})
	}
	s.ref = c.schema(d.Ref)
}

func typesOf(from *jsonschema.Types) (t types) {
	if from != nil {
		for _, name := range from.ToStrings() {
			t |= typeNames[name]
		}
	}
	return t
}

func (c *Compiler) enumOf(from *jsonschema.Schema) (enum map[string]bool, konst *string) {
	if from.Enum != nil {
		enum = map[string]bool{}
		for _, v := range from.Enum.Values {
			enum[c.canonical(from, v)] = true
		}
	}
	if from.Const != nil {
		one := c.canonical(from, *from.Const)
		konst = &one
	}
	return enum, konst
}

// canonical reads a value of the document as those of requests are read.
func (c *Compiler) canonical(from *jsonschema.Schema, v any) string {
	b, err := json.Marshal(v)
	if err == nil {
		var r Reader
		var read Value
		if read, err = r.Read(b); err == nil {
			return string(read.appendCanonical(nil))
		}
	}
	c.err = errors.Join(c.err, Problem{Pointer: within(from.Location), Reason: err.Error()})
	return ""
}

func atLeast(n *int) int {
	if n == nil {
		return -1
	}
	return *n
}

func (c *Compiler) objectsOf(from *jsonschema.Schema) *objects {
	o := &objects{
		least: atLeast(from.MinProperties), most: atLeast(from.MaxProperties), required: from.Required,
		properties: map[string]*Schema{}, additional: c.orBool(from.AdditionalProperties), names: c.schema(from.PropertyNames),
		dependent: map[string][]string{}, dependents: map[string]*Schema{}, unevaluated: c.schema(from.UnevaluatedProperties),
	}
	for name, s := range from.Properties {
		o.properties[name] = c.schema(s)
	}
	for pattern, s := range from.PatternProperties {
		o.patterns = append(o.patterns, patterned{pattern, c.schema(s)})
	}
	slices.SortFunc(o.patterns, func(a, b patterned) int { return cmp.Compare(a.pattern.String(), b.pattern.String()) })
	for name, d := range from.Dependencies {
		switch d := d.(type) {
		case []string:
			o.dependent[name] = d
		case *jsonschema.Schema:
			o.dependents[name] = c.schema(d)
		}
	}
	for name, names := range from.DependentRequired {
		o.dependent[name] = names
	}
	for name, s := range from.DependentSchemas {
		o.dependents[name] = c.schema(s)
	}
	if o.least < 0 && o.most < 0 && len(o.required)+len(o.properties)+len(o.patterns)+len(o.dependent)+len(o.dependents) == 0 &&
		o.additional == nil && o.names == nil && o.unevaluated == nil {
		return nil
	}
	return o
}

// orBool is what stands where a schema or a truth value may.
func (c *Compiler) orBool(from any) *Schema {
	switch from := from.(type) {
	case bool:
		return &Schema{always: &from}
	case *jsonschema.Schema:
		return c.schema(from)
	}
	return nil
}

func (c *Compiler) arraysOf(from *jsonschema.Schema) *arrays {
	a := &arrays{
		least: atLeast(from.MinItems), most: atLeast(from.MaxItems), unique: from.UniqueItems,
		contains: c.schema(from.Contains), leastThere: max(atLeast(from.MinContains), -1), mostThere: atLeast(from.MaxContains),
		containsCounts: from.DraftVersion >= 2020, unevaluated: c.schema(from.UnevaluatedItems),
	}
	if a.leastThere < 0 {
		a.leastThere = 1
	}
	switch items := from.Items.(type) { // before 2020
	case *jsonschema.Schema:
		a.items = c.schema(items)
	case []*jsonschema.Schema:
		a.prefix, a.items = c.schemas(items), c.orBool(from.AdditionalItems)
	}
	if from.DraftVersion >= 2020 {
		a.prefix, a.items = c.schemas(from.PrefixItems), c.schema(from.Items2020)
	}
	if a.least < 0 && a.most < 0 && !a.unique && a.contains == nil && len(a.prefix) == 0 && a.items == nil && a.unevaluated == nil {
		return nil
	}
	return a
}

func textsOf(from *jsonschema.Schema) *texts {
	if from.MinLength == nil && from.MaxLength == nil && from.Pattern == nil {
		return nil
	}
	return &texts{least: atLeast(from.MinLength), most: atLeast(from.MaxLength), pattern: from.Pattern}
}

func numbersOf(from *jsonschema.Schema) *numbers {
	n := &numbers{least: boundOf(from.Minimum), most: boundOf(from.Maximum), above: boundOf(from.ExclusiveMinimum),
		below: boundOf(from.ExclusiveMaximum), multiple: from.MultipleOf}
	if *n == (numbers{}) {
		return nil
	}
	return n
}

func boundOf(r *big.Rat) *bound {
	if r == nil {
		return nil
	}
	b := &bound{rat: r}
	b.float, b.precise = r.Float64()
	if b.whole = r.IsInt() && r.Num().IsInt64(); b.whole {
		b.small = r.Num().Int64()
	}
	return b
}

// words are the library's for what is wrong.
func words(wrong *jsonschema.ValidationError) string {
	if _, nothing := wrong.ErrorKind.(*kind.FalseSchema); nothing {
		return "nothing may stand here"
	}
	return wrong.ErrorKind.LocalizedString(message.NewPrinter(language.English))
}
