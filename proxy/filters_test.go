package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func pair(name, value string) *weirv1.HeaderValue {
	return &weirv1.HeaderValue{Name: name, Value: value}
}

// seenBy answers with what the service saw of a request.
func seenBy(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Old", "1")
	w.Header().Set("X-Gone", "1")
	fmt.Fprintf(w, "%s %s", r.Host, r.URL)
	for _, name := range []string{"X-Set", "X-Add", "X-Drop"} {
		if v, ok := r.Header[name]; ok {
			fmt.Fprintf(w, " %s=%s", name, strings.Join(v, ","))
		}
	}
}

func TestHeaderFilters(t *testing.T) {
	e := startEdge(t, service("s", upstreamServer(t, seenBy)), route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Filters = []*weirv1.RouteFilter{
			{RequestHeaderModifier: &weirv1.HeaderModifier{Set: []*weirv1.HeaderValue{pair("X-Set", "a")},
				Add: []*weirv1.HeaderValue{pair("x-add", "2")}, Remove: []string{"x-drop"}}},
			{ResponseHeaderModifier: &weirv1.HeaderModifier{Set: []*weirv1.HeaderValue{pair("X-Old", "2")},
				Add: []*weirv1.HeaderValue{pair("X-New", "3")}, Remove: []string{"x-gone"}}},
		}
	}))
	resp, body := get(t, e.url("/p"), "Host", "h", "X-Set", "b", "X-Add", "1", "X-Drop", "1")
	if body != "h /p X-Set=a X-Add=1,2" {
		t.Errorf("the service saw %q", body)
	}
	if h := resp.Header; h.Get("X-Old") != "2" || h.Get("X-New") != "3" || h.Get("X-Gone") != "" {
		t.Errorf("the client saw %v", h)
	}
}

func TestRewritesAndRedirects(t *testing.T) {
	prefix := func(to string) *weirv1.PathModifier {
		return &weirv1.PathModifier{Type: weirv1.PathModifier_REPLACE_PREFIX_MATCH, ReplacePrefixMatch: to}
	}
	full := func(to string) *weirv1.PathModifier {
		return &weirv1.PathModifier{Type: weirv1.PathModifier_REPLACE_FULL_PATH, ReplaceFullPath: to}
	}
	rewrite := func(host string, path *weirv1.PathModifier) *weirv1.RouteFilter {
		return &weirv1.RouteFilter{UrlRewrite: &weirv1.UrlRewrite{Hostname: host, Path: path}}
	}
	redirect := func(r *weirv1.RequestRedirect) *weirv1.RouteFilter {
		return &weirv1.RouteFilter{RequestRedirect: r}
	}
	e := startEdge(t, service("s", upstreamServer(t, seenBy)))
	for i, c := range []struct {
		match, ask string
		filter     *weirv1.RouteFilter
		want       string // "host path" at the service, or "status location"
	}{
		{"/foo", "/foo/bar?q=1", rewrite("", prefix("/xyz")), "h /xyz/bar?q=1"},
		{"/foo", "/foo/bar", rewrite("", prefix("/xyz/")), "h /xyz/bar"},
		{"/foo/", "/foo/bar", rewrite("", prefix("/xyz")), "h /xyz/bar"},
		{"/foo", "/foo", rewrite("", prefix("/xyz")), "h /xyz"},
		{"/foo", "/foo/", rewrite("", prefix("/xyz")), "h /xyz/"},
		{"/foo", "/foo/bar", rewrite("", prefix("/")), "h /bar"},
		{"/foo", "/foo", rewrite("", prefix("/")), "h /"},
		{"/foo", "/foo?q", rewrite("", prefix("")), "h /?q"},
		{"/", "/a", rewrite("", prefix("/v1")), "h /v1/a"},
		{"/foo", "/foo/bar?q=1", rewrite("other", full("/one")), "other /one?q=1"},
		{"/foo", "/foo/x?q", redirect(&weirv1.RequestRedirect{Scheme: "https"}), "302 https://h/foo/x?q"},
		{"/foo", "/foo", redirect(&weirv1.RequestRedirect{Hostname: "n.example", StatusCode: 301}), "301 http://n.example/foo"},
		{"/foo", "/foo", redirect(&weirv1.RequestRedirect{Port: 8443, Scheme: "https"}), "302 https://h:8443/foo"},
		{"/foo", "/foo", redirect(&weirv1.RequestRedirect{Port: 443, Scheme: "https"}), "302 https://h/foo"},
		{"/foo", "/foo/bar", redirect(&weirv1.RequestRedirect{Path: prefix("/new"), StatusCode: 308}), "308 http://h/new/bar"},
		{"/foo", "/foo/bar", redirect(&weirv1.RequestRedirect{Path: full("/new")}), "302 http://h/new"},
	} {
		t.Run(fmt.Sprint(i, " ", c.match, " ", c.want), func(t *testing.T) {
			e.t = t
			e.apply(route("r", c.match, "s", func(r *weirv1.RouteRule) {
				r.Filters = []*weirv1.RouteFilter{c.filter}
				if c.filter.RequestRedirect != nil {
					r.BackendRefs = nil
				}
			}))
			resp, body := get(t, e.url(c.ask), "Host", "h")
			if location := resp.Header.Get("Location"); location != "" {
				body = fmt.Sprint(resp.StatusCode, " ", location)
			}
			if body != c.want {
				t.Errorf("got %q", body)
			}
		})
	}
	e.t = t
}

func TestWeights(t *testing.T) {
	name := func(n string) string {
		return upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, n) })
	}
	r := route("r", "/", "a", func(r *weirv1.RouteRule) {
		weight := func(n uint32) *uint32 { return &n }
		r.BackendRefs = []*weirv1.BackendRef{{Name: "a", Weight: weight(90)}, {Name: "b", Weight: weight(10)}, {Name: "c", Weight: weight(0)}}
	})
	e := startEdge(t, service("a", name("a")), service("b", name("b")), service("c", name("c")), r)
	count := map[string]int{}
	for range 100 {
		_, body := get(t, e.url("/"))
		count[body]++
	}
	if count["a"] != 90 || count["b"] != 10 {
		t.Errorf("a hundred requests went %v", count)
	}
}

func TestSubsets(t *testing.T) {
	name := func(n string) string {
		return upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, n) })
	}
	s := service("s", name("v1"), name("v2"))
	s.Spec.Endpoints[0].Labels = map[string]string{"version": "v1"}
	s.Spec.Endpoints[1].Labels = map[string]string{"version": "v2"}
	s.Spec.Subsets = []*weirv1.Subset{{Name: "two", Labels: map[string]string{"version": "v2"}}}
	e := startEdge(t, s, route("r", "/", "s", func(r *weirv1.RouteRule) { r.BackendRefs[0].Subset = "two" }))
	for range 4 {
		if _, body := get(t, e.url("/")); body != "v2" {
			t.Errorf("got %s", body)
		}
	}
}

func TestRetries(t *testing.T) {
	var calls atomic.Int64
	flaky := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1)%3 != 0 {
			w.WriteHeader(503)
			return
		}
		io.Copy(w, r.Body)
		io.WriteString(w, "at last")
	})
	e := startEdge(t, service("s", flaky), route("r", "/", "s", func(r *weirv1.RouteRule) {
		r.Retry = &weirv1.RouteRetry{Codes: []uint32{503}, Attempts: 2, Backoff: duration(time.Millisecond)}
	}))
	for _, c := range []struct {
		method, body string
		status       int
		calls        int64
		want         string
	}{
		{"GET", "", 200, 3, "at last"},
		{"PUT", "body ", 200, 3, "body at last"},
		{"POST", "body ", 503, 1, ""}, // may have had an effect
	} {
		calls.Store(0)
		req, _ := http.NewRequest(c.method, e.url("/"), strings.NewReader(c.body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || calls.Load() != c.calls || string(got) != c.want {
			t.Errorf("%s: got %d %q after %d tries", c.method, resp.StatusCode, got, calls.Load())
		}
	}
}

func TestDeadEndpointIsPassedOver(t *testing.T) {
	alive := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	e := startEdge(t, service("s", "127.0.0.1:1", alive), route("r", "/", "s"))
	for range 10 {
		resp, err := http.Post(e.url("/"), "text/plain", strings.NewReader("once"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "once" {
			t.Errorf("got %d %q: a request that was never sent goes to another endpoint", resp.StatusCode, body)
		}
	}
}
