package proxy_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/policy/api"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
)

const booksDocument = `
openapi: 3.1.0
info: {title: Books, version: "1"}
paths:
  /books:
    get:
      operationId: listBooks
      parameters: [{name: limit, in: query, schema: {type: integer, maximum: 100}}]
      responses: {"200": {description: all, content: {application/json: {schema: {type: array, items: {type: string}}}}}}
    post:
      operationId: addBook
      requestBody:
        required: true
        content: {application/json: {schema: {type: object, required: [title], properties: {title: {type: string, maxLength: 5}}}}}
      responses: {"201": {description: there}}
`

func apiOf(state weirv1.ApiSpec_State, change ...func(*weirv1.ApiSpec)) *weirv1.Api {
	a := &weirv1.Api{Metadata: &weirv1.Metadata{Name: "books"}, Spec: &weirv1.ApiSpec{
		Version: "v1", State: state, TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}, ContractRef: &weirv1.ContractRef{Name: "books"}}}
	for _, c := range change {
		c(a.Spec)
	}
	return a
}

func contractOf(text string) *weirv1.Contract {
	return &weirv1.Contract{Metadata: &weirv1.Metadata{Name: "books"}, Spec: &weirv1.ContractSpec{Openapi: text}}
}

// startAPI starts an edge with an Api before a service that tells what it got, or
// answers what ?answer= says.
func startAPI(t *testing.T, a *weirv1.Api, more ...resource.Message) (*edge, *api.Host) {
	host := api.NewHost(api.Config{Logger: slog.New(slog.DiscardHandler)})
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		if answer := r.URL.Query().Get("answer"); answer != "" {
			io.WriteString(w, answer)
			return
		}
		if r.Method == "POST" {
			w.WriteHeader(http.StatusCreated)
		}
		json.NewEncoder(w).Encode([]string{r.Method, string(body)})
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.Policies = host }, append([]resource.Message{
		service("s", addr), route("r", "/", "s"), contractOf(booksDocument), a}, more...)...)
	return e, host
}

// A request that is not as the contract says is refused, with a pointer and the rule;
// others pass, in one piece or in many.
func TestContracts(t *testing.T) {
	e, _ := startAPI(t, apiOf(weirv1.ApiSpec_PUBLISHED))
	for name, c := range map[string]struct {
		method, path, kind, body string
		chunked                  bool
		status                   int
		rule                     string // "in pointer rule"
	}{
		"a list":                   {method: "GET", path: "/books?limit=1", status: 200},
		"too many":                 {method: "GET", path: "/books?limit=101", status: 400, rule: "query limit  maximum"},
		"no number":                {method: "GET", path: "/books?limit=x", status: 400, rule: "query limit  type"},
		"another path":             {method: "GET", path: "/other", status: 400, rule: "path   paths"},
		"another method":           {method: "PUT", path: "/books", status: 400, rule: "method   method"},
		"a book":                   {method: "POST", path: "/books", kind: "application/json", body: `{"title": "a"}`, status: 201},
		"a book in chunks":         {method: "POST", path: "/books", kind: "application/json", body: `{"title": "a"}`, chunked: true, status: 201},
		"a title too long":         {method: "POST", path: "/books", kind: "application/json", body: `{"title": "abcdef"}`, status: 400, rule: "body  /title maxLength"},
		"the same in chunks":       {method: "POST", path: "/books", kind: "application/json", body: `{"title": "abcdef"}`, chunked: true, status: 400, rule: "body  /title maxLength"},
		"no title":                 {method: "POST", path: "/books", kind: "application/json", body: `{}`, status: 400, rule: "body   required"},
		"no JSON":                  {method: "POST", path: "/books", kind: "application/json", body: `{`, status: 400, rule: "body   json"},
		"a name twice":             {method: "POST", path: "/books", kind: "application/json", body: `{"title": "abcdef", "title": "a"}`, status: 400, rule: "body   json"},
		"deep":                     {method: "POST", path: "/books", kind: "application/json", body: strings.Repeat(`{"a":`, 10_000), status: 400, rule: "body   json"},
		"no body":                  {method: "POST", path: "/books", status: 400, rule: "body   required"},
		"another type":             {method: "POST", path: "/books", kind: "text/plain", body: "x", status: 400, rule: "header Content-Type  content"},
		"huge":                     {method: "POST", path: "/books", kind: "application/json", body: `{"title": "` + strings.Repeat("x", 1<<20) + `"}`, status: 413},
		"huge, and nobody says so": {method: "POST", path: "/books", kind: "application/json", body: `{"title": "` + strings.Repeat("x", 1<<20) + `"}`, chunked: true, status: 413},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func() *http.Request {
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
					if c.chunked {
						body = struct{ io.Reader }{body}
					}
				}
				req := newRequest(t, c.method, e.url(c.path), body)
				if c.kind != "" {
					req.Header.Set("Content-Type", c.kind)
				}
				return req
			}
			// A client that still writes when it is answered may find the connection
			// closed before it reads why.
			for tries := 0; c.status == 413 && tries < 100; tries++ {
				resp, err := http.DefaultClient.Do(ask())
				if err == nil {
					resp.Body.Close()
					if resp.StatusCode != 413 {
						t.Errorf("got %s", resp.Status)
					}
					return
				}
			}
			resp, text := do(t, http.DefaultClient, ask())
			if resp.StatusCode != c.status {
				t.Fatalf("got %s %s", resp.Status, text)
			}
			if c.status == 201 && !strings.Contains(text, `\"title\": \"a\"`) {
				t.Errorf("the service got %s", text)
			}
			if c.rule == "" {
				return
			}
			var problem struct {
				Type   string
				Errors []struct{ In, Name, Pointer, Rule, Detail string }
			}
			if err := json.Unmarshal([]byte(text), &problem); err != nil || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("got %s", text)
			}
			v := problem.Errors[0]
			if got := v.In + " " + v.Name + " " + v.Pointer + " " + v.Rule; got != c.rule || problem.Type != "urn:weir:problem:contract_violated" {
				t.Errorf("got %q, want %q: %s", got, c.rule, text)
			}
		})
	}
}

// What is only reported passes, and answers are compared where that is wanted.
func TestContractModes(t *testing.T) {
	const bad = "/books?limit=1000"
	answers := "/books?answer=" // of any kind
	for name, c := range map[string]struct {
		v    *weirv1.ApiValidation
		path string
		want int
	}{
		"enforced":                     {&weirv1.ApiValidation{}, bad, 400},
		"reported":                     {&weirv1.ApiValidation{Request: weirv1.ApiValidation_REPORT}, bad, 200},
		"off":                          {&weirv1.ApiValidation{Request: weirv1.ApiValidation_OFF}, bad, 200},
		"an answer":                    {&weirv1.ApiValidation{Response: weirv1.ApiValidation_ENFORCE}, answers + `["a"]`, 200},
		"an answer that is wrong":      {&weirv1.ApiValidation{Response: weirv1.ApiValidation_ENFORCE}, answers + `[1]`, 502},
		"it is reported":               {&weirv1.ApiValidation{Response: weirv1.ApiValidation_REPORT}, answers + `[1]`, 200},
		"of requests that are not":     {&weirv1.ApiValidation{Request: weirv1.ApiValidation_OFF, Response: weirv1.ApiValidation_ENFORCE}, answers + `[1]`, 502},
		"a path that there is none of": {&weirv1.ApiValidation{Request: weirv1.ApiValidation_REPORT, Response: weirv1.ApiValidation_ENFORCE}, "/other?answer=1", 200},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := startAPI(t, apiOf(weirv1.ApiSpec_PUBLISHED, func(s *weirv1.ApiSpec) { s.Validation = c.v }))
			if resp, body := get(t, e.url(c.path)); resp.StatusCode != c.want {
				t.Errorf("got %s %s, want %d", resp.Status, body, c.want)
			}
		})
	}
}

// A version is served as its state says, from one moment to the next.
func TestLifecycle(t *testing.T) {
	when := timestamppb.New(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	ends := timestamppb.New(time.Date(2027, 7, 1, 12, 0, 0, 0, time.UTC))
	dated := func(s *weirv1.ApiSpec) {
		s.Deprecation = &weirv1.ApiDeprecation{At: when, Sunset: ends, Successor: "https://shop.example/v2"}
	}
	e, host := startAPI(t, apiOf(weirv1.ApiSpec_DRAFT, dated))
	const link = `<https://shop.example/v2>; rel="successor-version"`
	for _, c := range []struct {
		state                       weirv1.ApiSpec_State
		status                      int
		deprecation, sunset, linked string
	}{
		{weirv1.ApiSpec_STATE_UNSPECIFIED, 404, "", "", ""},
		{weirv1.ApiSpec_PUBLISHED, 200, "", "", ""},
		{weirv1.ApiSpec_DEPRECATED, 200, "@1798761600", "Thu, 01 Jul 2027 12:00:00 GMT", link},
		{weirv1.ApiSpec_RETIRED, 410, "", "", link},
		{weirv1.ApiSpec_PUBLISHED, 200, "", "", ""},
		{weirv1.ApiSpec_DRAFT, 404, "", "", ""},
	} {
		e.apply(apiOf(c.state, dated))
		resp, body := get(t, e.url("/books"))
		h := resp.Header
		if resp.StatusCode != c.status || h.Get("Deprecation") != c.deprecation || h.Get("Sunset") != c.sunset || h.Get("Link") != c.linked {
			t.Errorf("%v: got %s %s %v", c.state, resp.Status, body, h)
		}
		if c.status == 410 && !strings.Contains(body, `"successor":"https://shop.example/v2"`) {
			t.Errorf("got %s", body)
		}
	}
	e.apply(apiOf(weirv1.ApiSpec_DEPRECATED, dated))
	if resp, _ := get(t, e.url("/books?limit=x")); resp.StatusCode != 400 || resp.Header.Get("Deprecation") == "" {
		t.Errorf("a request that is refused: %s, %v", resp.Status, resp.Header)
	}
	e.revision++
	if err := e.Update(t.Context(), proxy.Update{Revision: e.revision, Deletes: []resource.Ref{
		{Kind: resource.KindApi, Tenant: "default", Name: "books"}, {Kind: resource.KindContract, Tenant: "default", Name: "books"}}}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return host.Documents() == 0 }, func() string { return "the document is kept" })
	if resp, _ := get(t, e.url("/books?limit=x")); resp.StatusCode != 200 || resp.Header.Get("Deprecation") != "" {
		t.Errorf("without an Api: %s, %v", resp.Status, resp.Header)
	}
}

// A document is compiled once for all that use it, and a new one counts at once.
func TestContractsChange(t *testing.T) {
	second := route("r2", "/books/x", "s")
	a := apiOf(weirv1.ApiSpec_PUBLISHED, func(s *weirv1.ApiSpec) {
		s.TargetRefs = append(s.TargetRefs, &weirv1.TargetRef{Kind: "Route", Name: "r2"})
	})
	e, host := startAPI(t, a, second)
	if n := host.Documents(); n != 1 {
		t.Errorf("%d documents are compiled", n)
	}
	e.apply(contractOf(strings.Replace(booksDocument, "maximum: 100", "maximum: 1000", 1)))
	if resp, body := get(t, e.url("/books?limit=1000")); resp.StatusCode != 200 {
		t.Errorf("got %s %s", resp.Status, body)
	}
	waitFor(t, func() bool { return host.Documents() == 1 }, func() string { return "the old document is kept" })
}
