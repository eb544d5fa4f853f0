package jsonpath

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

const order = `{"id": 12345678901234567890, "items": [{"price": 1.50, "n": 1}, {"price": 2}], "to": {"name": "Ann \"A\"", "a b": null}, "to": {"name": "Bo"}}`

func parse(t testing.TB, path string) Path {
	t.Helper()
	p, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGet(t *testing.T) {
	for path, want := range map[string]string{
		"id":               "12345678901234567890",
		"$.id":             "12345678901234567890",
		"items[1].price":   "2",
		"$.items[*].price": "1.50",
		"items.*.n":        "1",
		"to.name":          `"Bo"`, // that which stands last
		"$['to']['a b']":   "null",
		`["to"].name`:      `"Bo"`,
		"items[2]":         "",
		"items.price":      "",
		"id.x":             "",
		"none":             "",
		"$":                order,
	} {
		values, err := Get([]byte(order), []Path{parse(t, path)})
		if err != nil || string(values[0]) != want {
			t.Errorf("%s is %s (%v), want %s", path, values, err, want)
		}
	}
}

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name, doc string
		op        Op
		path      string
		value     string
		want      string
	}{
		{"replace", `{"a": 1, "b": 2}`, Set, "a", `"x"`, `{"a":"x","b":2}`},
		{"make", `{"b": 2}`, Set, "a", `[1]`, `{"b":2,"a":[1]}`},
		{"make, with what leads there", `{}`, Set, "a.b.c", `true`, `{"a":{"b":{"c":true}}}`},
		{"no array is made", `{}`, Set, "a[0]", `true`, `{}`},
		{"an element", `[1, 2]`, Set, "[1]", `3`, `[1,3]`},
		{"every element", `[{"a":1},{"a":2},7]`, Set, "[*].b", `0`, `[{"a":1,"b":0},{"a":2,"b":0},7]`},
		{"below what is no object", `{"a": 7}`, Set, "a.b", `1`, `{"a":7}`},
		{"the whole", `{"a": 7}`, Set, "$", `[]`, `[]`},
		{"remove the first", `{"a":1,"b":2}`, Remove, "a", "", `{"b":2}`},
		{"remove the last", `{"a":1,"b":2}`, Remove, "b", "", `{"a":1}`},
		{"remove all", `{"a":1,"b":[]}`, Remove, "*", "", `{}`},
		{"remove both of one name", `{"a":1,"b":2,"a":3}`, Remove, "a", "", `{"b":2}`},
		{"remove by an escaped name", `{"\u0061":1,"b":2}`, Remove, "a", "", `{"b":2}`},
		{"remove an element", `[1,2,3]`, Remove, "[1]", "", `[1,3]`},
		{"remove below", `{"l":[{"a":1,"b":2},{"a":3}]}`, Remove, "l[*].a", "", `{"l":[{"b":2},{}]}`},
		{"rename", `{"a": 1, "b": 2}`, Rename, "a", "c", `{"c":1,"b":2}`},
		{"rename in place of another", `{"a": 1, "b": 2}`, Rename, "a", "b", `{"b":1}`},
		{"rename what is not there", `{"b": 2}`, Rename, "a", "b", `{"b":2}`},
		{"a name with quotes", `{"a": 1}`, Rename, "a", `"`, `{"\"":1}`},
		{"large numbers stay", `{"a": 12345678901234567890.10}`, Set, "b", `1`, `{"a":12345678901234567890.10,"b":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Edit{c.op, parse(t, c.path), []byte(c.value)}
			if err := e.Check(); err != nil {
				t.Fatal(err)
			}
			got, err := Apply([]byte(c.doc), []Edit{e}, 1<<20)
			if err != nil || string(got) != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, path := range []string{".", "a..b", "a[", "a[-1]", "a[x]", "a['b]", "$a", "a.[0]" + "x", strings.Repeat("a.", 40) + "a"} {
		if p, err := Parse(path); err == nil {
			t.Errorf("path %q is read as %v", path, p)
		}
	}
	for _, doc := range []string{"", "{", `{"a":1}x`, `{"a":}`, "nul", strings.Repeat("[", 300) + strings.Repeat("]", 300)} {
		if _, err := Apply([]byte(doc), nil, 1<<20); err == nil {
			t.Errorf("%q is changed", doc)
		}
		if _, err := Get([]byte(doc), nil); err == nil {
			t.Errorf("%q is read", doc)
		}
	}
	long := Edit{Set, parse(t, "[*]"), bytes.Repeat([]byte("1"), 100)}
	if _, err := Apply([]byte("[1,2,3]"), []Edit{long}, 200); err == nil {
		t.Error("a document grows without bound")
	}
	for name, e := range map[string]Edit{
		"no operation":      {Op: 7},
		"remove everything": {Op: Remove},
		"set what is none":  {Op: Set, Value: []byte("{")},
		"rename an element": {Op: Rename, Path: parse(t, "[0]"), Value: []byte("a")},
	} {
		if e.Check() == nil {
			t.Errorf("%s is allowed", name)
		}
	}
}

// FuzzApply: what is made of JSON is JSON, and what is none stays untouched.
func FuzzApply(f *testing.F) {
	f.Add(order, "to.name", uint8(0), `"x"`)
	f.Add(order, "items[*].price", uint8(1), "")
	f.Add(`{"a":{"\u0062":[]}}`, "$.a['b']", uint8(2), "c")
	f.Fuzz(func(t *testing.T, doc, path string, op uint8, value string) {
		p, err := Parse(path)
		if err != nil {
			return
		}
		e := Edit{Op(op), p, []byte(value)}
		if e.Check() != nil {
			return
		}
		got, err := Apply([]byte(doc), []Edit{e}, 1<<16)
		if err == nil && !json.Valid(got) {
			t.Errorf("%s of %q made %q of %q", path, value, got, doc)
		}
		values, err := Get([]byte(doc), []Path{p})
		if err == nil && values[0] != nil && !json.Valid(values[0]) {
			t.Errorf("%s of %q is %q", path, doc, values[0])
		}
	})
}
