package transform

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

func TestHeaders(t *testing.T) {
	before := policytest.Fields("x-a", "1", "x-a", "2", "x-b", "3", "server", "books/1")
	for _, c := range []struct {
		name, edit string
		want       policytest.Header
	}{
		{"set replaces every value", `{"set": {"X-A": "9"}}`, policytest.Fields("x-a", "9", "x-b", "3", "server", "books/1")},
		{"add keeps them", `{"add": {"x-b": "4"}}`, policytest.Fields("x-a", "1", "x-a", "2", "x-b", "3", "server", "books/1", "x-b", "4")},
		{"remove takes all", `{"remove": ["X-A", "x-none"]}`, policytest.Fields("x-b", "3", "server", "books/1")},
		{"rename keeps repeated values", `{"rename": {"x-a": "x-c"}}`, policytest.Fields("x-b", "3", "server", "books/1", "x-c", "1", "x-c", "2")},
		{"rename replaces its target", `{"rename": {"x-b": "x-a"}}`, policytest.Fields("server", "books/1", "x-a", "3")},
		{"rename of nothing does nothing", `{"rename": {"x-none": "x-a"}}`, before},
		{"rename, remove, set, add", `{"rename": {"x-b": "x-c"}, "remove": ["x-a"], "set": {"x-a": "5"}, "add": {"x-a": "6"}}`,
			policytest.Fields("server", "books/1", "x-c", "3", "x-a", "5", "x-a", "6")},
	} {
		for side, of := range map[string]func(policytest.Exchange) policytest.Header{
			"request":  func(x policytest.Exchange) policytest.Header { return x.Request.Header },
			"response": func(x policytest.Exchange) policytest.Header { return x.Response.Header },
		} {
			t.Run(side+"/"+c.name, func(t *testing.T) {
				p := policytest.Start(t, newTransform, `{"`+side+`": `+c.edit+`}`)
				x := p.Do(policytest.Exchange{
					Request:  policytest.Message{Header: slices.Clone(before)},
					Response: policytest.Message{Header: append(policytest.Fields(":status", "200"), before...)},
				})
				got := slices.DeleteFunc(of(x), func(f sdk.Field) bool { return f.Name == ":status" })
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("got  %v\nwant %v", got, c.want)
				}
			})
		}
	}
}

const editBook = `{"responseBody": {"rename": {"isbn13": "isbn"}, "remove": ["cost"], "set": {"currency": "EUR", "tags": [1, {"a": null}]}}}`

// tail is what editBook sets.
const tail = `"currency":"EUR","tags":[1, {"a": null}]`

var bodyCases = []struct{ name, body, want string }{
	{"an object", `{"isbn13": "978", "cost": 3.10, "title": "Weirs"}`, `{"isbn":"978","title": "Weirs",` + tail + `}`},
	{"what passes stays as it is", `{ "a" :1,"b":  2 , "cost": 3, "d": 4 }`, `{"a" :1,"b":  2,"d": 4,` + tail + `}`},
	{"an array of objects", ` [ {"cost":1} , {"title":"x"}, 7, "s"] `, ` [ {` + tail + `} , {"title":"x",` + tail + `}, 7, "s"] `},
	{"an empty object", `{ }`, `{` + tail + `}`},
	{"an empty array", `[ ]`, `[ ]`},
	{"a value that is set again", `{"currency": "USD"}`, `{` + tail + `}`},
	{"only the top level", `{"book": {"cost": 1, "isbn13": "\"}"}}`, `{"book": {"cost": 1, "isbn13": "\"}"},` + tail + `}`},
	{"numbers as they are written", `{"n": 12345678901234567890.10E+3}`, `{"n": 12345678901234567890.10E+3,` + tail + `}`},
	{"rename replaces its target", `{"isbn": "old", "title": "x", "isbn13": "978"}`, `{"title": "x","isbn":"978",` + tail + `}`},
	{"rename of nothing keeps its target", `{"isbn": "old", "title": "x"}`, `{"title": "x","isbn": "old",` + tail + `}`},
	{"a name with an escape", `{"c\u006fst": 1, "a\"b": 2, "\\": 3}`, `{"a\"b": 2, "\\": 3,` + tail + `}`},
	{"a string", `"cost"`, `"cost"`},
	{"a broken object", `{"cost": 1, `, `{"cost": 1, `},
	{"a missing colon", `{"cost" 1}`, `{"cost" 1}`},
	{"a missing value", `{"cost": }`, `{"cost": }`},
	{"a comma too many", `{"cost": 1,}`, `{"cost": 1,}`},
	{"a string without end", `{"cost": "1\"}`, `{"cost": "1\"}`},
	{"something behind the end", `{"cost": 1} x`, `{"cost": 1} x`},
	{"nothing but space", ` `, ` `},
}

func TestBody(t *testing.T) {
	p := policytest.Start(t, newTransform, editBook)
	for _, c := range bodyCases {
		for cut, chunks := range map[string][]string{
			"whole":    {c.body},
			"in two":   {c.body[:len(c.body)/2], c.body[len(c.body)/2:]},
			"in bytes": strings.Split(c.body, ""),
		} {
			t.Run(c.name+"/"+cut, func(t *testing.T) {
				x := p.Do(policytest.Exchange{Response: policytest.Message{
					Header: policytest.Fields("content-type", "application/json; charset=utf-8", "content-length", "7", "etag", `"1"`),
					Chunks: chunks,
				}})
				if x.Response.Body != c.want {
					t.Errorf("got  %s\nwant %s", x.Response.Body, c.want)
				}
				if x.Response.Header.Get("content-length") != "" || x.Response.Header.Get("etag") != "" {
					t.Errorf("the head still speaks of the old body: %v", x.Response.Header)
				}
			})
		}
	}
}

func TestBodiesLeftAlone(t *testing.T) {
	const body = `{"cost": 1}`
	for name, c := range map[string]struct {
		config string
		header policytest.Header
	}{
		"not JSON":        {editBook, policytest.Fields("content-type", "text/html")},
		"no content type": {editBook, nil},
		"compressed":      {editBook, policytest.Fields("content-type", "application/json", "content-encoding", "gzip")},
		"a part":          {editBook, policytest.Fields(":status", "206", "content-type", "application/json", "content-range", "bytes 0-10/20")},
		"too long":        {`{"responseBody": {"maxBytes": 5, "remove": ["cost"]}}`, policytest.Fields("content-type", "application/json")},
		"said to be too long": {`{"responseBody": {"maxBytes": 5, "remove": ["cost"]}}`,
			policytest.Fields("content-type", "application/json", "content-length", "11")},
		"nothing to do": {`{}`, policytest.Fields("content-type", "application/json")},
	} {
		t.Run(name, func(t *testing.T) {
			x := policytest.Start(t, newTransform, c.config).Do(policytest.Exchange{
				Response: policytest.Message{Header: c.header, Chunks: []string{body[:4], body[4:]}},
			})
			if x.Response.Body != body {
				t.Errorf("got %s", x.Response.Body)
			}
			if want := c.header.Get("content-length"); x.Response.Header.Get("content-length") != want {
				t.Errorf("content-length is %q, want %q", x.Response.Header.Get("content-length"), want)
			}
		})
	}
}

func TestAsksForWholePlainAnswers(t *testing.T) {
	ask := policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("accept-encoding", "gzip", "range", "bytes=0-1")}}
	if got := policytest.Start(t, newTransform, editBook).Do(ask).Request.Header; len(got) != 0 {
		t.Errorf("the service is still asked with %v", got)
	}
	if got := policytest.Start(t, newTransform, `{}`).Do(ask).Request.Header; len(got) != 2 {
		t.Errorf("without a body to change, the service is asked with %v", got)
	}
}

func TestConfigurationsRefused(t *testing.T) {
	for name, c := range map[string]struct{ config, why string }{
		"a pseudo-field":    {`{"request": {"set": {":path": "/"}}}`, `request: ":path" is not a header name`},
		"a line break":      {`{"response": {"remove": ["a\r\nb"]}}`, `is not a header name`},
		"renamed to space":  {`{"response": {"rename": {"a": "b c"}}}`, `response: "b c" is not a header name`},
		"an unknown field":  {`{"requests": {}}`, `unknown field "requests"`},
		"no room":           {`{"responseBody": {"maxBytes": 0}}`, "responseBody.maxBytes: must be more than 0"},
		"a chain of names":  {`{"responseBody": {"rename": {"a": "b", "b": "c"}}}`, `"b" is renamed and renamed to`},
		"two to one name":   {`{"responseBody": {"rename": {"a": "c", "b": "c"}}}`, `"c" is renamed and renamed to`},
		"an empty add name": {`{"request": {"add": {"": "x"}}}`, `request: "" is not a header name`},
	} {
		if got := policytest.Refusal(t, newTransform, c.config); !strings.Contains(got, c.why) {
			t.Errorf("%s: refused with %q, want %q", name, got, c.why)
		}
	}
}

// FuzzBody compares with what encoding/json makes of the same document.
func FuzzBody(f *testing.F) {
	for _, c := range bodyCases {
		f.Add([]byte(c.body))
	}
	edit, err := newBodyEdit(bodyConfig{
		Rename: map[string]string{"a": "b"},
		Remove: []string{"c"},
		Set:    map[string]json.RawMessage{"d": json.RawMessage(`[1]`)},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got, ok := edit.apply(doc)
		var before any
		if json.Unmarshal(doc, &before) != nil {
			return // Not JSON: it is enough not to panic.
		}
		object, isObject := before.(map[string]any)
		_, isArray := before.([]any)
		if ok != (isObject || isArray) {
			t.Fatalf("edited %s: %v", doc, ok)
		}
		if !isObject {
			return
		}
		var after map[string]any
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s became %s: %v", doc, got, err)
		}
		if value, ok := object["a"]; ok {
			object["b"] = value
		}
		delete(object, "a")
		delete(object, "c")
		object["d"] = []any{1.0}
		if !reflect.DeepEqual(after, object) {
			t.Fatalf("%s became %s", doc, got)
		}
	})
}
