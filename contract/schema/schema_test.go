package schema

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func mustCompile(t testing.TB, text string, d Dialect) *Schema {
	t.Helper()
	s, err := compiled([]byte(text), "", d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check lists what is wrong: pointer, rule and, where it is wanted, what is said.
func check(t testing.TB, s *Schema, text string) []string {
	t.Helper()
	var c Checker
	v, err := c.Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := c.Check(s, &v)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, w := range wrong {
		all = append(all, fmt.Sprintf("%s %s: %s", w.Pointer, w.Schema, w.Detail))
	}
	return all
}

const book = `{
  "type": "object", "required": ["title", "isbn"], "additionalProperties": false,
  "properties": {
    "title": {"type": "string", "minLength": 1, "maxLength": 5},
    "isbn": {"type": "string", "pattern": "^[0-9]{10}$"},
    "pages": {"type": "integer", "minimum": 1, "exclusiveMaximum": 5000},
    "price": {"type": "number", "multipleOf": 0.01},
    "tags": {"type": "array", "maxItems": 2, "uniqueItems": true, "items": {"enum": ["new", "used"]}},
    "a/b": {"const": 1},
    "kind": {"oneOf": [{"type": "string"}, {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}]},
    "id": {"anyOf": [{"type": "integer"}, {"type": "string", "format": "uuid"}]}
  }
}`

// What is wrong is said with a pointer to the value, one to the rule, and in words that
// repeat nothing of the value.
func TestViolations(t *testing.T) {
	s := mustCompile(t, book, Draft2020)
	for _, c := range []struct{ value, want string }{
		{`{"title": "a", "isbn": "1234567890"}`, ""},
		{`[]`, ` #/type: want object, got array`},
		{`{"isbn": "1234567890"}`, ` #/required: "title" is missing`},
		{`{}`, ` #/required: "title" is missing;  #/required: "isbn" is missing`},
		{`{"title": "", "isbn": "1234567890"}`, `/title #/properties/title/minLength: has 0 characters, fewer than 1`},
		{`{"title": "äöüßé€", "isbn": "1"}`, `/title #/properties/title/maxLength: has 6 characters, more than 5; /isbn #/properties/isbn/pattern: does not match ^[0-9]{10}$`},
		{`{"title": "a", "isbn": "1234567890", "pages": 0}`, `/pages #/properties/pages/minimum: is less than 1`},
		{`{"title": "a", "isbn": "1234567890", "pages": 5e3}`, `/pages #/properties/pages/exclusiveMaximum: is not less than 5000`},
		{`{"title": "a", "isbn": "1234567890", "pages": 1.5}`, `/pages #/properties/pages/type: want integer, got number`},
		{`{"title": "a", "isbn": "1234567890", "pages": 1.0}`, ``},
		{`{"title": "a", "isbn": "1234567890", "price": 12.99}`, ``},
		{`{"title": "a", "isbn": "1234567890", "price": 12.999}`, `/price #/properties/price/multipleOf: is no multiple of 1/100`},
		{`{"title": "a", "isbn": "1234567890", "tags": ["new", "old"]}`, `/tags/1 #/properties/tags/items/enum: is none of the values that are allowed`},
		{`{"title": "a", "isbn": "1234567890", "tags": ["new", "new"]}`, `/tags #/properties/tags/uniqueItems: elements 0 and 1 are equal`},
		{`{"title": "a", "isbn": "1234567890", "tags": ["new", "used", "new"]}`, `/tags #/properties/tags/maxItems: has 3 elements, more than 2; /tags #/properties/tags/uniqueItems: elements 0 and 2 are equal`},
		{`{"title": "a", "isbn": "1234567890", "a/b": 2}`, `/a~1b #/properties/a~1b/const: is not the one value that is allowed`},
		{`{"title": "a", "isbn": "1234567890", "more": 2}`, ` #/additionalProperties: "more" is not declared`},
		{`{"title": "a", "isbn": "1234567890", "kind": {}}`, `/kind #/properties/kind/oneOf/1/required: "name" is missing`},
		{`{"title": "a", "isbn": "1234567890", "kind": 1}`, `/kind #/properties/kind/oneOf: is none of 2 alternatives`},
		{`{"title": "a", "isbn": "1234567890", "id": "x"}`, `/id #/properties/id/anyOf/1/format: is no uuid: must have 5 elements`},
	} {
		if got := strings.Join(check(t, s, c.value), "; "); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.value, got, c.want)
		}
	}
}

// OpenAPI 3.0 speaks another dialect, and has formats of its own.
func TestDraft4AndFormats(t *testing.T) {
	s := mustCompile(t, `{"properties": {
		"n": {"type": "number", "minimum": 1, "exclusiveMinimum": true},
		"i": {"type": "integer", "format": "int32"}, "l": {"type": "integer", "format": "int64"},
		"b": {"type": "string", "format": "byte"}, "d": {"type": "string", "format": "date-time"}, "u": {"format": "unknown"}}}`, Draft4)
	for _, right := range []string{`{"n": 1.1}`, `{"i": -2147483648}`, `{"i": 2.147483647e9}`, `{"l": 9223372036854775807}`, `{"l": -9223372036854775808}`,
		`{"b": "aGk="}`, `{"d": "2026-01-01T00:00:00Z"}`, `{"u": "x"}`} {
		if wrong := check(t, s, right); wrong != nil {
			t.Errorf("%s: %v", right, wrong)
		}
	}
	for _, wrong := range []string{`{"n": 1}`, `{"i": 2147483648}`, `{"i": -2147483649}`, `{"l": 9223372036854775808}`, `{"l": 1e30}`, `{"b": "x"}`, `{"d": "2026-01-01"}`} {
		if check(t, s, wrong) == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                               "it ends too early",
		`{"a": 1`:                        "it ends too early",
		`{"a": 1} x`:                     "offset 8: more follows the value",
		`[1] [2]`:                        "offset 5: more follows the value",
		`{"a": 1, "a": 2}`:               "offset 9: a name is there twice",
		`{"a": 1, "\u0061": 2}`:          "offset 9: a name is there twice",
		"\"\xff\"":                       "offset 1: invalid UTF-8",
		`"\ud800"`:                       "offset 1: invalid surrogate pair",
		`{a: 1}`:                         "offset 1: invalid character",
		`[1,]`:                           "offset 2: invalid character",
		`01`:                             "offset 2: more follows",
		`NaN`:                            "invalid character",
		`1e401`:                          "offset 0: a number's exponent is beyond 400",
		`[1E-999999999999]`:              "offset 1: a number's exponent is beyond 400",
		strings.Repeat("9", 101):         "offset 0: a number has more than 100 digits",
		strings.Repeat("[", 65):          "values are nested deeper than 64",
		strings.Repeat(`{"a":`, 100_000): "values are nested deeper than 64",
	} {
		var r Reader
		if _, err := r.Read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30s: got %v, want %s", text, err, want)
		}
	}
	var r Reader
	if _, err := r.Read([]byte(strings.Repeat("[", 64) + strings.Repeat("]", 64))); err != nil {
		t.Error(err)
	}
}

func TestSchemasThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"type": "strin"}`:                                                   "/type: value must be one of",
		`{"properties": {"a": {"minLength": -1}}}`:                            "/properties/a/minLength: ",
		`{"properties": {"a": {"pattern": "(?=x)"}}}`:                         "/properties/a/pattern: ",
		`{"$ref": "#/nowhere"}`:                                               "/nowhere: there is nothing",
		`{"$ref": "https://other.example/x"}`:                                 "no URLLoader",
		`{"$ref": "file:///etc/passwd"}`:                                      "no URLLoader",
		`{"enum": [1e999]}`:                                                   "exponent",
		`{"$dynamicAnchor": "a", "properties": {"a": {"$dynamicRef": "#a"}}}`: "$dynamicRef",
	} {
		if _, err := compiled([]byte(text), "", Draft2020); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// Alternatives within alternatives would take for ever, and take no longer than
// their budget; what is merely recursive is checked.
func TestBudget(t *testing.T) {
	const bomb = `{"oneOf": [
		{"allOf": [{"properties": {"x": {"$ref": "#"}}}, {"required": ["a"]}]},
		{"allOf": [{"properties": {"x": {"$ref": "#"}}}, {"required": ["b"]}]},
		{"allOf": [{"properties": {"x": {"$ref": "#"}}}, {"required": ["c"]}]}]}`
	deep := strings.Repeat(`{"a": 1, "x": `, 40) + "{}" + strings.Repeat("}", 40)
	var c Checker
	v, err := c.Read([]byte(deep))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(mustCompile(t, bomb, Draft2020), &v); !errors.Is(err, ErrBudget) {
		t.Errorf("got %v", err)
	}
	const tree = `{"type": "object", "properties": {"x": {"$ref": "#"}, "a": {"type": "integer"}}, "additionalProperties": false}`
	if wrong := check(t, mustCompile(t, tree, Draft2020), deep); wrong != nil {
		t.Error(wrong)
	}
	for _, loop := range []string{`{"$ref": "#"}`, `{"allOf": [{"$ref": "#"}]}`, `{"not": {"$ref": "#"}, "anyOf": [{"$ref": "#"}]}`} {
		check(t, mustCompile(t, loop, Draft2020), `{}`) // it ends
	}
	many := "[" + strings.Repeat("1,", 200_000) + "1]"
	if wrong := check(t, mustCompile(t, `{"items": {"type": "integer", "minimum": 0}}`, Draft2020), many); wrong != nil {
		t.Error(wrong)
	}
	if wrong := check(t, mustCompile(t, `{"items": {"type": "string"}}`, Draft2020), many); len(wrong) != maxViolations {
		t.Errorf("%d are named", len(wrong))
	}
}

// A checker that is used again knows nothing of what it has seen.
func TestCheckersAreUsedAgain(t *testing.T) {
	s := mustCompile(t, book, Draft2020)
	var c Checker
	for i := range 100 {
		text := fmt.Sprintf(`{"title": "\u0061%d", "isbn": "1234567890", "tags": ["new"], "pages": %d}`, i, i)
		v, err := c.Read([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		wrong, err := c.Check(s, &v)
		if err != nil || (len(wrong) == 0) != (i > 0) {
			t.Errorf("%s: %v, %v", text, wrong, err)
		}
	}
}

// What the library takes is taken, and nothing else.
func FuzzAgainstTheLibrary(f *testing.F) {
	for _, seed := range []struct{ schema, value string }{
		{book, `{"title": "a", "isbn": "1234567890", "pages": 1, "id": 7}`},
		{`{"type": ["integer", "null"], "multipleOf": 2}`, `1e2`},
		{`{"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"maxProperties": 0}}`, `{"a": 1}`},
		{`{"prefixItems": [{"type": "string"}], "items": false, "contains": {"const": 1}, "minContains": 0}`, `["a", 1]`},
		{`{"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false}`, `{"a": 1, "b": 2}`},
		{`{"anyOf": [{"prefixItems": [true]}, {"items": {"type": "integer"}}], "unevaluatedItems": {"type": "string"}}`, `[1, "a"]`},
		{`{"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"b": {"minProperties": 3}}, "propertyNames": {"maxLength": 1}}`, `{"a": 1, "b": 2}`},
		{`{"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": {"$ref": "#"}}`, `{"ab": "x", "c": {}}`},
		{`{"not": {"enum": [1, "1", null, [1.0], {"a": 1}]}, "uniqueItems": true}`, `[[1], [1.0]]`},
		{`{"$defs": {"a": {"minimum": 1}}, "oneOf": [{"$ref": "#/$defs/a"}, {"maximum": 1}]}`, `1.00`},
	} {
		f.Add(seed.schema, seed.value, true)
		f.Add(seed.schema, seed.value, false)
	}
	f.Fuzz(func(t *testing.T, schema, value string, old bool) {
		if len(schema) > 2000 || strings.Contains(schema, "$schema") || strings.Contains(schema, "$id") || strings.Contains(schema, `"id"`) {
			return // another dialect than documents have, or another document
		}
		dialect, draft := Draft2020, jsonschema.Draft2020
		if old {
			dialect, draft = Draft4, jsonschema.Draft4
		}
		s, err := compiled([]byte(schema), "", dialect)
		if err != nil {
			return
		}
		var c Checker
		v, err := c.Read([]byte(value))
		if err != nil {
			return
		}
		wrong, err := c.Check(s, &v)
		if err != nil {
			return
		}
		by := jsonschema.NewCompiler()
		by.DefaultDraft(draft)
		by.AssertFormat()
		for _, f := range formats {
			by.RegisterFormat(f)
		}
		document, _ := jsonschema.UnmarshalJSON(strings.NewReader(schema))
		by.AddResource("x:///y", document)
		reference, err := by.Compile("x:///y")
		if err != nil {
			t.Fatalf("the library refuses it: %v", err)
		}
		read, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(value)))
		if err != nil {
			t.Fatalf("the library does not read it: %v", err)
		}
		if err := reference.Validate(read); (err == nil) != (len(wrong) == 0) {
			t.Errorf("schema %s\nvalue %s\ngot %v, the library says %v", schema, value, wrong, err)
		}
	})
}

// Whatever is read is JSON, and the same again when it is written.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{`{"a": [1, 2.5e3, "x\u00e9\n", true, null, {}]}`, `"\ud83d\ude00"`, `-0`, `1e-7`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Reader
		v, err := r.Read(slices.Clone(b))
		if err != nil {
			return
		}
		if _, err := jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
			t.Fatalf("%q is read: %v", b, err)
		}
		first := v.appendCanonical(nil)
		if w, err := again.Read(b); err != nil || !bytes.Equal(first, w.appendCanonical(nil)) {
			t.Errorf("%q is read differently again: %v", b, err)
		}
	})
}

// BenchmarkCheck: an order of 2 KB.
func BenchmarkCheck(b *testing.B) {
	s := mustCompile(b, `{"type": "object", "required": ["id", "lines"], "properties": {"id": {"type": "string", "format": "uuid"},
		"lines": {"type": "array", "items": {"type": "object", "required": ["isbn", "count", "price"], "additionalProperties": false, "properties": {
			"isbn": {"type": "string", "pattern": "^[0-9]{13}$"}, "count": {"type": "integer", "minimum": 1, "maximum": 99},
			"price": {"type": "number", "minimum": 0}, "gift": {"type": "boolean"}, "note": {"type": "string", "maxLength": 80}}}}}}`, Draft2020)
	text := []byte(`{"id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "lines": [` + strings.TrimSuffix(strings.Repeat(
		`{"isbn": "9780134190440", "count": 2, "price": 12.5, "gift": true, "note": "please wrap it"},`, 22), ",") + `]}`)
	var c Checker
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		v, err := c.Read(text)
		if err != nil {
			b.Fatal(err)
		}
		if wrong, err := c.Check(s, &v); wrong != nil || err != nil {
			b.Fatal(wrong, err)
		}
	}
}
