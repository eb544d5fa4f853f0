package contract

import (
	"bytes"
	"fmt"
	"iter"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
)

// head is the fields of a request, as net/http has them.
type head http.Header

func (h head) Values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, v := range h[textproto.CanonicalMIMEHeaderKey(name)] {
			if !yield([]byte(v)) {
				return
			}
		}
	}
}

func fields(lines ...string) head {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return head(h)
}

const shop = `
openapi: 3.1.0
info: {title: Shop, version: "1"}
servers: [{url: "https://shop.example/v1"}, {url: "/{stage}", variables: {stage: {default: test}}}]
paths:
  /books:
    parameters:
    - {name: X-Tenant, in: header, required: true, schema: {type: string, pattern: "^[a-z]+$"}}
    get:
      operationId: listBooks
      parameters:
      - {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100}}
      - {name: tag, in: query, schema: {type: array, items: {type: string, enum: [new, used]}, maxItems: 2}}
      - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}}}
      - {name: piped, in: query, style: pipeDelimited, explode: false, schema: {type: array, items: {type: boolean}}}
      - {name: filter, in: query, style: deepObject, explode: true, schema: {type: object, properties: {pages: {type: integer}}, additionalProperties: false}}
      - {name: where, in: query, content: {application/json: {schema: {type: object, required: [a]}}}}
      - {name: session, in: cookie, schema: {type: string, minLength: 4}}
      - {name: X-Numbers, in: header, schema: {type: array, items: {type: number}}}
      - {name: either, in: query, schema: {anyOf: [{type: integer}, {type: string, enum: [all]}]}}
      - {name: flag, in: query, allowEmptyValue: true, schema: {type: boolean}}
      - {name: text, in: query, schema: {type: string, minLength: 1}}
      responses:
        "200":
          description: all
          headers: {X-Count: {required: true, schema: {type: integer}}}
          content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/Book"}}}}
        4XX: {description: wrong}
    post:
      requestBody: {$ref: "#/components/requestBodies/Book"}
      responses: {"201": {description: there}, default: {description: else}}
  /books/{isbn}:
    get:
      parameters: [{$ref: "#/components/parameters/isbn"}]
      responses: {"200": {description: it, content: {application/json: {schema: {$ref: "#/components/schemas/Book"}}}}}
  /books/latest:
    get: {operationId: latest, responses: {"200": {description: it}}}
  /books/{isbn}/cover.{format}:
    get:
      parameters:
      - {$ref: "#/components/parameters/isbn"}
      - {name: format, in: path, required: true, schema: {enum: [png, jpeg]}}
      responses: {"200": {description: it}}
  /upload:
    post:
      requestBody:
        content:
          application/x-www-form-urlencoded: {schema: {type: object, required: [n], properties: {n: {type: integer}, tags: {type: array, items: {type: string}, maxItems: 2}}}}
          multipart/form-data: {schema: {type: object, required: [n, file], properties: {n: {type: integer}, file: {type: string}}}}
          text/*: {schema: {type: string, maxLength: 5}}
          application/octet-stream: {}
      responses: {"200": {description: it}}
components:
  parameters:
    isbn: {name: isbn, in: path, required: true, schema: {type: string, pattern: "^[0-9]{3}$"}}
  requestBodies:
    Book: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Book"}}}}
  schemas:
    Book:
      type: object
      required: [id, title, secret]
      properties:
        id: {type: integer, readOnly: true}
        title: {type: string}
        secret: {type: string, writeOnly: true}
        next: {$ref: "#/components/schemas/Book"}
`

func compileShop(t testing.TB) *Contract {
	t.Helper()
	c, err := Compile([]byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask lists what is wrong with a request, as a proxy would find it.
func ask(c *Contract, request string, h head, body []byte) string {
	method, path, _ := strings.Cut(request, " ")
	m, wrong := c.Find([]byte(method), []byte(path))
	if o := c.Operation([]byte(method), []byte(path)); o != m.Operation {
		return fmt.Sprintf("Operation finds %v, Find finds %v", o, m.Operation)
	}
	if wrong != nil {
		return wrong.String()
	}
	var by Checker
	all := by.Request(&m, []byte(path), h, body != nil)
	if body != nil && all == nil {
		all = append(all, by.Body(&m, h, body)...)
	}
	var lines []string
	for _, v := range all {
		lines = append(lines, v.String()+" ("+v.Rule+")")
	}
	return strings.Join(lines, "; ")
}

func TestRequests(t *testing.T) {
	c := compileShop(t)
	tenant := fields("X-Tenant: acme")
	for _, r := range []struct {
		request string
		h       head
		want    string
	}{
		{"GET /v1/books", tenant, ""},
		{"GET /test/books", tenant, ""},
		{"GET /books", tenant, "path: the contract has no such path"},
		{"GET /v1/books/", tenant, "path: the contract has no such path"}, // no parameter is empty
		{"GET /v1books", tenant, "path: the contract has no such path"},
		{"DELETE /v1/books", tenant, "method: the contract has GET, POST there"},
		{"GET /v1/books", fields(), "header X-Tenant: it is missing (required)"},
		{"GET /v1/books", fields("x-tenant: ACME"), "header X-Tenant: does not match ^[a-z]+$ (pattern)"},
		{"GET /v1/books?limit=10", tenant, ""},
		{"GET /v1/books?limit=0", tenant, "query limit: is less than 1 (minimum)"},
		{"GET /v1/books?limit=ten", tenant, "query limit: want integer, got string (type)"},
		{"GET /v1/books?limit=1e1", tenant, ""},
		{"GET /v1/books?limit=%zz", tenant, "query: it is not encoded as it ought to be (parameters)"},
		{"GET /v1/books?tag=new&tag=used", tenant, ""},
		{"GET /v1/books?tag=new&tag=old", tenant, "query tag /1: is none of the values that are allowed (enum)"},
		{"GET /v1/books?tag=new&tag=used&tag=new", tenant, "query tag: has 3 elements, more than 2 (maxItems)"},
		{"GET /v1/books?ids=1,2,3", tenant, ""},
		{"GET /v1/books?ids=1,b", tenant, "query ids /1: want integer, got string (type)"},
		{"GET /v1/books?piped=true|false", tenant, ""},
		{"GET /v1/books?piped=true|no", tenant, "query piped /1: want boolean, got string (type)"},
		{"GET /v1/books?filter[pages]=3", tenant, ""},
		{"GET /v1/books?filter[pages]=x", tenant, "query filter /pages: want integer, got string (type)"},
		{"GET /v1/books?filter[size]=3", tenant, `query filter: "size" is not declared (additionalProperties)`},
		{`GET /v1/books?where={"a":1}`, tenant, ""},
		{`GET /v1/books?where={"b":1}`, tenant, `query where: "a" is missing (required)`},
		{`GET /v1/books?where={`, tenant, "query where: it is not JSON that is taken: it ends too early (json)"},
		{"GET /v1/books?either=7", tenant, ""},
		{"GET /v1/books?either=all", tenant, ""},
		{"GET /v1/books?either=none", tenant, "query either: is none of the values that are allowed (enum)"},
		{"GET /v1/books?flag", tenant, ""},
		{"GET /v1/books?flag=maybe", tenant, "query flag: want boolean, got string (type)"},
		{"GET /v1/books?text=123", tenant, ""},
		{"GET /v1/books?text=", tenant, "query text: has 0 characters, fewer than 1 (minLength)"},
		{"GET /v1/books?unknown=1", tenant, ""},
		{"GET /v1/books", fields("X-Tenant: acme", "Cookie: a=b; session=abcd"), ""},
		{"GET /v1/books", fields("X-Tenant: acme", "Cookie: session=abc"), "cookie session: has 3 characters, fewer than 4 (minLength)"},
		{"GET /v1/books", fields("X-Tenant: acme", "X-Numbers: 1, 2.5", "X-Numbers: 3"), ""},
		{"GET /v1/books", fields("X-Tenant: acme", "X-Numbers: 1, two"), "header X-Numbers /1: want number, got string (type)"},
		{"GET /v1/books/123", fields(), ""},
		{"GET /v1/books/12%33", fields(), ""},
		{"GET /v1/books/12a", fields(), "path isbn: does not match ^[0-9]{3}$ (pattern)"},
		{"GET /v1/books/latest", fields(), ""},
		{"GET /v1/books/123/cover.png", fields(), ""},
		{"GET /v1/books/123/cover.gif", fields(), "path format: is none of the values that are allowed (enum)"},
		{"GET /v1/books/123/cover.", fields(), "path: the contract has no such path"},
	} {
		got := ask(c, r.request, r.h, nil)
		if got != r.want {
			t.Errorf("%s\ngot  %s\nwant %s", r.request, got, r.want)
		}
	}
}

func TestBodies(t *testing.T) {
	c := compileShop(t)
	jsonOf := func(kind string) head { return fields("X-Tenant: acme", "Content-Type: "+kind) }
	form := "--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n%s\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n\x00\x01\r\n--b--\r\n"
	for _, r := range []struct {
		request string
		h       head
		body    string
		want    string
	}{
		{"POST /v1/books", jsonOf("application/json"), `{"title": "a", "secret": "s"}`, ""},
		{"POST /v1/books", jsonOf("application/json; charset=utf-8"), `{"title": "a", "secret": "s", "id": 7}`, ""},
		{"POST /v1/books", jsonOf("application/json"), `{"secret": "s"}`, `body: "title" is missing (required)`},
		{"POST /v1/books", jsonOf("application/json"), `{"title": "a", "secret": "s", "next": {"title": 1, "secret": ""}}`, `body /next/title: want string, got number (type)`},
		{"POST /v1/books", jsonOf("application/json"), `{"title": "a"`, "body: it is not JSON that is taken: it ends too early (json)"},
		{"POST /v1/books", jsonOf("application/json"), strings.Repeat("[", 1000), "body: it is not JSON that is taken: offset 64: values are nested deeper than 64 (json)"},
		{"POST /v1/books", jsonOf("application/json"), ``, "body: it is not JSON that is taken: it ends too early (json)"},
		{"POST /v1/books", jsonOf("application/xml"), `<a/>`, "header Content-Type: the contract has application/json here (content)"},
		{"POST /v1/books", fields("X-Tenant: acme"), `{}`, "header Content-Type: it is missing: want application/json (content)"},
		{"POST /v1/upload", jsonOf("application/x-www-form-urlencoded"), "n=1&tags=a&tags=b", ""},
		{"POST /v1/upload", jsonOf("application/x-www-form-urlencoded"), "n=x&tags=a&tags=b&tags=c", "body /n: want integer, got string (type); body /tags: has 3 elements, more than 2 (maxItems)"},
		{"POST /v1/upload", jsonOf("application/x-www-form-urlencoded"), "tags=a", `body: "n" is missing (required)`},
		{"POST /v1/upload", jsonOf("multipart/form-data; boundary=b"), fmt.Sprintf(form, "1"), ""},
		{"POST /v1/upload", jsonOf("multipart/form-data; boundary=b"), fmt.Sprintf(form, "x"), "body /n: want integer, got string (type)"},
		{"POST /v1/upload", jsonOf("multipart/form-data"), fmt.Sprintf(form, "1"), "body: its boundary is missing (form)"},
		{"POST /v1/upload", jsonOf("text/plain"), "abc", ""},
		{"POST /v1/upload", jsonOf("text/plain"), "abcdef", "body: has 6 characters, more than 5 (maxLength)"},
		{"POST /v1/upload", fields(), "anything", ""},
	} {
		got := ask(c, r.request, r.h, []byte(r.body))
		if got != r.want {
			t.Errorf("%s %.60s\ngot  %s\nwant %s", r.request, r.body, got, r.want)
		}
	}
	if got := ask(c, "POST /v1/books", fields("X-Tenant: acme"), nil); got != "body: it is missing (required)" {
		t.Errorf("without a body: %s", got)
	}
}

func TestResponses(t *testing.T) {
	c := compileShop(t)
	for _, r := range []struct {
		request string
		status  int
		h       head
		body    string
		want    string
	}{
		{"GET /v1/books", 200, fields("Content-Type: application/json", "X-Count: 1"), `[{"id": 1, "title": "a"}]`, ""},
		{"GET /v1/books", 200, fields("Content-Type: application/json"), `[{"title": "a"}]`, `header X-Count: it is missing; body /0: "id" is missing`},
		{"GET /v1/books", 200, fields("Content-Type: application/json", "X-Count: many"), `[]`, `header X-Count: want integer, got string`},
		{"GET /v1/books", 200, fields("Content-Type: text/html", "X-Count: 0"), `<p>`, `header Content-Type: the contract has application/json here`},
		{"GET /v1/books", 404, fields(), "nothing", ""},
		{"GET /v1/books", 500, fields(), "", "status 500: the contract has no such answer"},
		{"POST /v1/books", 500, fields(), "", ""},
	} {
		method, path, _ := strings.Cut(r.request, " ")
		m, wrong := c.Find([]byte(method), []byte(path))
		if wrong != nil {
			t.Fatal(wrong)
		}
		var by Checker
		var lines []string
		for _, v := range by.Response(&m, r.status, r.h, []byte(r.body), true) {
			lines = append(lines, v.String())
		}
		if got := strings.Join(lines, "; "); got != r.want {
			t.Errorf("%s %d %s\ngot  %s\nwant %s", r.request, r.status, r.body, got, r.want)
		}
	}
}

// The older version has another dialect of schemas.
func TestVersion30(t *testing.T) {
	c, err := Compile([]byte(`{
	"openapi": "3.0.3", "info": {"title": "t", "version": "1"},
	"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}, "responses": {"200": {"description": "d"}}}}},
	"components": {"schemas": {"A": {"type": "object", "required": ["n"], "properties": {
		"n": {"type": "number", "minimum": 0, "exclusiveMinimum": true, "nullable": true},
		"e": {"type": "string", "nullable": true, "enum": ["a"]},
		"r": {"$ref": "#/components/schemas/B", "description": "does not count"}}},
		"B": {"type": "string", "maxLength": 1}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`{"n": 1, "e": null, "r": "x"}`: "",
		`{"n": null}`:                   "",
		`{"n": 0}`:                      "body /n: is not more than 0 (exclusiveMinimum)",
		`{"n": 1, "e": "b"}`:            "body /e: is none of the values that are allowed (enum)",
		`{"n": 1, "r": "xy"}`:           "body /r: has 2 characters, more than 1 (maxLength)",
		`{"n": 1, "r": null}`:           "body /r: want string, got null (type)",
	} {
		h := fields("Content-Type: application/json")
		if got := ask(c, "POST /a", h, []byte(body)); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", body, got, want)
		}
	}
}

// What is wrong with a document is said with its line and a pointer.
func TestDocumentsThatAreRefused(t *testing.T) {
	const start = "openapi: 3.1.0\ninfo: {title: t, version: '1'}\n"
	get := func(more string) string {
		return start + "paths:\n  /a/{id}:\n    get:\n      responses: {'200': {description: d}}\n" + more
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                              {"", "/: the document is neither YAML nor JSON: EOF"},
		"no object":                            {"[1]", "line 1: /: the document is no object"},
		"no YAML":                              {"a: [", "neither YAML nor JSON"},
		"no version":                           {"info: {}", `line 1: /openapi: "openapi" does not say the version`},
		"Swagger":                              {"swagger: '2.0'", "Swagger 2.0 is not understood"},
		"a version to come":                    {"openapi: 4.0.0", "OpenAPI 4.0.0 is not understood: 3.0 and 3.1 are"},
		"twice":                                {"openapi: 3.1.0\nopenapi: 3.1.0", "line 2: /openapi: it is there twice"},
		"no info":                              {"openapi: 3.1.0\npaths: {}", "missing property 'info'"},
		"an unknown field":                     {start + "paths: {}\nmore: 1", "line 4: /more: "},
		"a bad type":                           {get("      parameters:\n      - {name: id, in: path, required: true, schema: {type: strin}}"), "line 8: /paths/~1a~1{id}/get/parameters/0/schema/type: value must be one of"},
		"a bad pattern":                        {get("      parameters:\n      - {name: id, in: path, required: true, schema: {pattern: '(?<x'}}"), "line 8: /paths/~1a~1{id}/get/parameters/0/schema/pattern: "},
		"no parameter":                         {get(""), "line 5: /paths/~1a~1{id}/get: the path's {id} is no parameter"},
		"another parameter":                    {get("      parameters:\n      - {name: id, in: path, required: true, schema: {}}\n      - {name: no, in: path, required: true, schema: {}}"), "the path has no {no}"},
		"a parameter twice":                    {get("      parameters:\n      - {name: id, in: path, required: true, schema: {}}\n      - {name: id, in: path, required: true, schema: {}}"), "line 9: /paths/~1a~1{id}/get/parameters/1: the path parameter id is there twice"},
		"nothing there":                        {get("      parameters:\n      - {$ref: '#/components/parameters/x'}"), "line 8: /paths/~1a~1{id}/get/parameters/0/$ref: there is nothing at #/components/parameters/x"},
		"another document":                     {get("      parameters:\n      - {$ref: 'x.yaml#/a'}"), "line 8: /paths/~1a~1{id}/get/parameters/0/$ref: it refers to another document"},
		"a circle":                             {get("      parameters: [{$ref: '#/components/parameters/a'}]\n") + "components: {parameters: {a: {$ref: '#/components/parameters/b'}, b: {$ref: '#/components/parameters/a'}}}", "references lead to one another"},
		"the same path":                        {start + "paths:\n  /a/{x}: {parameters: [{name: x, in: path, required: true, schema: {}}], get: {responses: {'200': {description: d}}}}\n  /a/{y}: {parameters: [{name: y, in: path, required: true, schema: {}}], put: {responses: {'200': {description: d}}}}", "line 5: /paths/~1a~1{y}: it is the same path as /a/{x}"},
		"an operationId of control characters": {start + "paths:\n  /a: {get: {operationId: \"a\\0b\", responses: {'200': {description: d}}}}", `line 4: /paths/~1a/get/operationId: has control characters`},
		"the same operationId":                 {start + "paths:\n  /a: {get: {operationId: o, responses: {'200': {description: d}}}}\n  /b: {get: {operationId: o, responses: {'200': {description: d}}}}", `line 5: /paths/~1b/get: the operationId "o" is also that of GET /a`},
		"a brace":                              {start + "paths: {'/a/{x': {}}", "line 3: /paths/~1a~1{x: a brace is not closed"},
		"merge keys":                           {"a: &a {b: 1}\n<<: *a", "line 2: /: merge keys"},
		"a bomb":                               {"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]", "repeat too much"},
		"depth":                                {strings.Repeat("{a: ", 200) + strings.Repeat("}", 200), "nested deeper than 100"},
		"length":                               {strings.Repeat(" ", MaxDocument+1), "more than 2097152"},
	} {
		_, err := Compile([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %s", name, err, c.want)
		}
	}
}

// A schema that refers to itself in many ways takes no longer to compile than others.
func TestSchemasThatReferToThemselves(t *testing.T) {
	var properties, alternatives []string
	for i := range 30 {
		properties = append(properties, fmt.Sprintf(`p%d: {$ref: "#/components/schemas/A"}`, i))
		alternatives = append(alternatives, `{$ref: "#/components/schemas/B"}, {$ref: "#/components/schemas/A"}`)
	}
	document := `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /a:
    post:
      parameters: [{name: q, in: query, schema: {$ref: "#/components/schemas/B"}}]
      requestBody: {content: {application/x-www-form-urlencoded: {schema: {$ref: "#/components/schemas/A"}}, application/json: {schema: {$ref: "#/components/schemas/A"}}}}
      responses: {"200": {description: d}}
components:
  schemas:
    A: {type: object, properties: {n: {type: integer}, ` + strings.Join(properties, ", ") + `}}
    B: {anyOf: [{type: integer}, ` + strings.Join(alternatives, ", ") + `]}
`
	c, err := Compile([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	form := fields("Content-Type: application/x-www-form-urlencoded")
	if got := ask(c, "POST /a?q=7", form, []byte("n=1")); got != "" {
		t.Error(got)
	}
	if got := ask(c, "POST /a", form, []byte("n=x")); got != "body /n: want integer, got string (type)" {
		t.Error(got)
	}
}

func TestOperations(t *testing.T) {
	var all []string
	for _, o := range compileShop(t).Operations() {
		all = append(all, o.Name)
	}
	if got := strings.Join(all, ", "); got != "listBooks, POST /books, latest, GET /books/{isbn}, GET /books/{isbn}/cover.{format}, POST /upload" {
		t.Errorf("got %s", got)
	}
}

// Whatever a document is, it is compiled or refused; whatever a request is, it is
// checked.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(shop), "GET", "/v1/books?limit=1", []byte(`{}`))
	f.Add([]byte(`{"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": {}}`), "POST", "/", []byte(`a=b`))
	f.Fuzz(func(t *testing.T, document []byte, method, path string, body []byte) {
		c, err := Compile(document)
		if err != nil {
			return
		}
		ask(c, method+" "+path, fields("Content-Type: application/json"), body)
	})
}

// Whatever a client sends is checked against a document that has much of everything.
func FuzzRequest(f *testing.F) {
	c := compileShop(f)
	f.Add("GET", "/v1/books?tag=new&filter[pages]=1&where={}", "session=abcd", "application/json", []byte(`{"title": "a"}`))
	f.Add("POST", "/v1/upload", "", "multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=n\r\n\r\n1\r\n--b--"))
	f.Add("POST", "/v1/upload", "", "application/x-www-form-urlencoded", []byte("n=1&n=2&tags"))
	f.Fuzz(func(t *testing.T, method, path, cookie, kind string, body []byte) {
		ask(c, method+" "+path, fields("X-Tenant: acme", "Cookie: "+cookie, "Content-Type: "+kind, "X-Numbers: "+cookie), body)
	})
}

// BenchmarkRequest: a request with parameters and a body of 2 KB.
func BenchmarkRequest(b *testing.B) {
	c := compileShop(b)
	h := fields("X-Tenant: acme", "Content-Type: application/json")
	body := append(append([]byte(`{"title": "a", "secret": "s", "next": {"secret": "", "title": "`), bytes.Repeat([]byte("x"), 2000)...), `"}}`...)
	var by Checker
	b.ReportAllocs()
	for b.Loop() {
		m, wrong := c.Find([]byte("POST"), []byte("/v1/books?x=1"))
		if wrong != nil {
			b.Fatal(wrong)
		}
		if all := append(by.Request(&m, []byte("/v1/books?x=1"), h, true), by.Body(&m, h, body)...); all != nil {
			b.Fatal(all)
		}
	}
}

func TestOperationDoesNotAllocate(t *testing.T) {
	c := compileShop(t)
	method, path := []byte("GET"), []byte("/v1/books?limit=3")
	if o := c.Operation(method, path); o == nil || o.Path != "/books" {
		t.Fatalf("found %v", o)
	}
	if n := testing.AllocsPerRun(100, func() { c.Operation(method, path) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
