package bookshop

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func TestManifest(t *testing.T) {
	items, err := manifest.Parse("bookshop.yaml", Manifest)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[resource.Ref]bool{}
	for _, plugin := range []string{"apikey", "ratelimit", "transform"} {
		declared[resource.Ref{Kind: resource.KindPlugin, Tenant: resource.DefaultTenant, Name: plugin}] = true
	}
	for _, item := range items {
		resource.Normalize(item.Resource)
		for _, v := range resource.Validate(item.Resource) {
			t.Errorf("%v: %v", resource.Of(item.Resource), v)
		}
		declared[resource.Of(item.Resource)] = true
	}
	for _, item := range items {
		for ref := range resource.References(item.Resource) {
			if !declared[ref.To] {
				t.Errorf("%v refers to %v, which is not declared", resource.Of(item.Resource), ref.To)
			}
		}
	}
}

func TestTheManifestNamesWhatRuns(t *testing.T) {
	items, err := manifest.Parse("bookshop.yaml", Manifest)
	if err != nil {
		t.Fatal(err)
	}
	var declared, running []string
	for _, item := range items {
		if service := item.Resource.GetService(); service != nil {
			declared = append(declared, service.GetMetadata().GetName())
		}
	}
	for _, i := range Instances() {
		running = append(running, i.Service)
	}
	if running = slices.Compact(running); !slices.Equal(declared, running) {
		t.Errorf("declared %v\nrunning  %v", declared, running)
	}
}

func TestPoliciesRunInStages(t *testing.T) {
	items, err := manifest.Parse("bookshop.yaml", Manifest)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]weirv1.PolicySpec_Stage{
		"apikey": weirv1.PolicySpec_AUTHN, "ratelimit": weirv1.PolicySpec_LIMIT, "transform": weirv1.PolicySpec_TRANSFORM,
	}
	for _, item := range items {
		if p := item.Resource.GetPolicy().GetSpec(); p != nil {
			if p.Stage != want[p.Plugin] {
				t.Errorf("%s runs at %v, want %v", p.Plugin, p.Stage, want[p.Plugin])
			}
			delete(want, p.Plugin)
		}
	}
	if len(want) > 0 {
		t.Errorf("no policy uses %v", want)
	}
}

// meshed is the shop, whose services reach books without a mesh between.
func meshed(t *testing.T) []Instance {
	t.Helper()
	mux := http.NewServeMux()
	booksV1(mux, nil)
	books := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "books.mesh" {
			t.Errorf("the proxy is asked for %s", r.URL)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(books.Close)
	client := throughProxy(books.Listener.Addr().String())
	t.Cleanup(client.CloseIdleConnections)
	return instances(func(string) *http.Client { return client })
}

func find(t *testing.T, service, version string) http.Handler {
	t.Helper()
	for _, i := range meshed(t) {
		if i.Service == service && i.Version == version {
			return i.Handler
		}
	}
	t.Fatalf("there is no %s %s", service, version)
	return nil
}

func ask(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		service, version, path string
		status                 int
		has, lacks             string
	}{
		{"books", "v1", "/books", 200, `"title":"Upstream"`, "isbn13"},
		{"books", "v2", "/books", 200, `"isbn13":"9780000000033"`, "\x00"},
		{"books", "v1", "/books/2", 200, "Locks, Dams", "Upstream"},
		{"books", "v1", "/books/none", 404, "There is no such book", "Upstream"},
		{"reviews", "v1", "/reviews/1", 200, "mud", "stars"},
		{"reviews", "v2", "/reviews/1", 200, `"stars":3`, "\x00"},
		{"reviews", "v1", "/reviews/3", 200, "[]", "null"},
		{"reviews", "v1", "/reviews/9", 404, "There is no such book", "[]"},
		{"orders", "v1", "/orders", 200, "[]", "null"},
		{"orders", "v1", "/orders/1", 404, "no such order", "total"},
	} {
		w := ask(find(t, c.service, c.version), "GET", c.path, "")
		body := w.Body.String()
		if w.Code != c.status || !strings.Contains(body, c.has) || strings.Contains(body, c.lacks) {
			t.Errorf("%s %s, GET %s: %d %s", c.service, c.version, c.path, w.Code, body)
		}
		if got := w.Header().Get("X-Served-By"); got != c.service+"-"+c.version {
			t.Errorf("%s %s, GET %s: served by %q", c.service, c.version, c.path, got)
		}
	}
}

// Who cannot ask the books service says so, and not that there is no book.
func TestWithoutTheMesh(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }))
	defer refusing.Close()
	for _, proxy := range []string{closed.Listener.Addr().String(), refusing.Listener.Addr().String()} {
		for _, i := range instances(func(string) *http.Client { return throughProxy(proxy) })[2:] {
			method, path := "GET", "/reviews/1"
			if i.Service == "orders" {
				method, path = "POST", "/orders"
			}
			if w := ask(i.Handler, method, path, `{"book": "1", "quantity": 1}`); w.Code != 502 {
				t.Errorf("%s: %d %s", i.Name(), w.Code, w.Body)
			}
			i.mesh.CloseIdleConnections()
		}
	}
}

func TestOrders(t *testing.T) {
	shop := find(t, "orders", "v1")
	for body, status := range map[string]int{
		`{"book": "1", "quantity": 2}`:          201,
		`{"book": "1", "quantity": 0}`:          422,
		`{"book": "1", "quantity": 101}`:        422,
		`{"book": "none", "quantity": 1}`:       422,
		`{"book": 1}`:                           400,
		`no`:                                    400,
		`"` + strings.Repeat("x", 70<<10) + `"`: 400,
	} {
		if w := ask(shop, "POST", "/orders", body, "X-Consumer", "alice"); w.Code != status {
			t.Errorf("an order of %.40s got %d %s, want %d", body, w.Code, w.Body, status)
		}
	}
	if w := ask(shop, "GET", "/orders/1", "", "X-Consumer", "alice"); !strings.Contains(w.Body.String(), `"total":3700,"margin":1880`) {
		t.Errorf("alice's order is %s", w.Body)
	}
	if w := ask(shop, "GET", "/orders/1", "", "X-Consumer", "bob"); w.Code != 404 {
		t.Errorf("bob sees alice's order: %s", w.Body)
	}
	for range 150 {
		ask(shop, "POST", "/orders", `{"book": "1", "quantity": 1}`, "X-Consumer", "alice")
	}
	var kept []order
	if err := json.Unmarshal(ask(shop, "GET", "/orders", "", "X-Consumer", "alice").Body.Bytes(), &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept) != keptOrders || kept[len(kept)-1].ID != "151" {
		t.Errorf("%d orders are kept, up to %v", len(kept), kept[len(kept)-1])
	}
	for i := range 2 * keptConsumers {
		ask(shop, "POST", "/orders", `{"book": "1", "quantity": 1}`, "X-Consumer", strconv.Itoa(i))
	}
	if w := ask(shop, "POST", "/orders", `{"book": "1", "quantity": 1}`, "X-Consumer", "late"); w.Code != 503 {
		t.Errorf("one consumer too many got %d", w.Code)
	}
}

// document is the part of OpenAPI that these tests read.
type document struct {
	OpenAPI string `yaml:"openapi"`
	Info    struct {
		Title, Version string
	}
	Paths map[string]map[string]struct {
		Parameters []struct {
			Name, Example string
		}
		Responses map[string]struct {
			Content map[string]struct {
				Schema schema
			}
		}
	}
	Components struct {
		Schemas map[string]schema
	}
}

type schema struct {
	Ref        string `yaml:"$ref"`
	Items      *schema
	Required   []string
	Properties map[string]any
}

func TestEveryServiceKeepsItsDocument(t *testing.T) {
	for _, i := range meshed(t) {
		t.Run(i.Name(), func(t *testing.T) {
			w := ask(i.Handler, "GET", "/openapi.yaml", "")
			var doc document
			if err := yaml.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Header().Get("Content-Type") != "application/yaml" {
				t.Fatalf("got %d %v, %v", w.Code, w.Header(), err)
			}
			if doc.OpenAPI != "3.1.0" || !strings.HasPrefix(i.Version, "v"+doc.Info.Version[:1]) {
				t.Errorf("it is OpenAPI %s of version %s", doc.OpenAPI, doc.Info.Version)
			}
			if i.Service == "orders" {
				ask(i.Handler, "POST", "/orders", `{"book": "1", "quantity": 1}`)
			}
			checked := 0
			for path, operations := range doc.Paths {
				get := operations["get"]
				for _, p := range get.Parameters {
					path = strings.ReplaceAll(path, "{"+p.Name+"}", p.Example)
				}
				answer := ask(i.Handler, "GET", path, "")
				described := get.Responses[strconv.Itoa(answer.Code)].Content[answer.Header().Get("Content-Type")]
				checked += checkAgainst(t, path, &doc, described.Schema, answer.Body.Bytes())
			}
			if checked == 0 {
				t.Error("nothing was checked")
			}
		})
	}
}

// checkAgainst looks for required members, and for those that are not described.
func checkAgainst(t *testing.T, path string, doc *document, s schema, body []byte) int {
	t.Helper()
	var objects []map[string]any
	if s.Items != nil {
		s = *s.Items
		if err := json.Unmarshal(body, &objects); err != nil {
			t.Fatalf("GET %s: %v in %s", path, err, body)
		}
	} else {
		var object map[string]any
		if err := json.Unmarshal(body, &object); err != nil {
			t.Fatalf("GET %s: %v in %s", path, err, body)
		}
		objects = append(objects, object)
	}
	s, found := doc.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	if !found {
		t.Fatalf("GET %s: the answer is not described", path)
	}
	for _, object := range objects {
		for _, name := range s.Required {
			if _, ok := object[name]; !ok {
				t.Errorf("GET %s: no %s in %v", path, name, object)
			}
		}
		for name := range object {
			if _, ok := s.Properties[name]; !ok {
				t.Errorf("GET %s: %s is not described", path, name)
			}
		}
	}
	return len(objects)
}

func TestServe(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	addresses := make(chan string, 5)
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, slog.New(slog.DiscardHandler), Instances(), func(string) (net.Listener, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				addresses <- l.Addr().String()
			}
			return l, err
		})
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 5 {
		resp, err := client.Get("http://" + <-addresses + "/openapi.yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("got %s", resp.Status)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestRunSomeOfIt(t *testing.T) {
	if err := Run(t.Context(), slog.New(slog.DiscardHandler), "books-v1", "books-v3"); err == nil || !strings.Contains(err.Error(), "no books-v3") {
		t.Errorf("got %v", err)
	}
}

func TestServeAllOrNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	var opened []net.Listener
	err := serve(t.Context(), slog.New(slog.DiscardHandler), Instances(), func(string) (net.Listener, error) {
		if len(opened) == 2 {
			return nil, net.ErrClosed
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		opened = append(opened, l)
		return l, err
	})
	if err == nil || !strings.Contains(err.Error(), "open reviews v1") {
		t.Errorf("got %v", err)
	}
	for _, l := range opened {
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = conn.Close()
			t.Errorf("%s is still open", l.Addr())
		}
	}
}
