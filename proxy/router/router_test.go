package router_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/resource"
)

type matchCase struct {
	name    string
	routes  []*weirv1.Route
	request string
	fields  []string
	want    string // "route/rule", "" for none
}

func testMatch(t *testing.T, cases []matchCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, others := range [][]*weirv1.Route{nil, crowd(c.routes)} {
				tab := newTable(t, public(), append(others, c.routes...)...)
				if got := match(tab, 80, request(c.request, c.fields...)); got != c.want {
					t.Errorf("%s %q among %d others: got rule %q, want %q", c.request, c.fields, len(others), got, c.want)
				}
			}
		})
	}
}

// crowd is a route under the same hostnames with enough rules that paths are
// indexed. It fits no request of the tests.
func crowd(beside []*weirv1.Route) []*weirv1.Route {
	hostnames := map[string]bool{}
	for _, r := range beside {
		for _, h := range r.Spec.Hostnames {
			hostnames[h] = true
		}
	}
	var matches []string
	for i := range 10 {
		matches = append(matches, fmt.Sprintf("/%d NEVER", i), fmt.Sprintf("=/%d NEVER", i), fmt.Sprintf("/a-long/prefix/%d NEVER", i), "~/.* NEVER", "NEVER")
	}
	named := slices.Collect(maps.Keys(hostnames))
	return []*weirv1.Route{route("crowd", strings.Join(named, " "), on(matches...)), route("crowd2", "", on(matches...))}
}

func match(t *table, port uint16, x *exchange.Exchange) string {
	if hit, ok := t.Match(port, x); ok {
		return hit.Rule.Value
	}
	return ""
}

func routes(r ...*weirv1.Route) []*weirv1.Route { return r }

func TestHosts(t *testing.T) {
	exact, wild := route("exact", "shop.example", on()), route("wild", "*.shop.example", on())
	testMatch(t, []matchCase{
		{"no hostnames: every host", routes(route("a", "", on())), "GET x.example/", nil, "a/0"},
		{"no hostnames: no host", routes(route("a", "", on())), "GET /", nil, "a/0"},
		{"exact", routes(exact), "GET shop.example/", nil, "exact/0"},
		{"another host", routes(exact), "GET shop.examples/", nil, ""},
		{"a host below", routes(exact), "GET a.shop.example/", nil, ""},
		{"case", routes(exact), "GET ShOP.Example/", nil, "exact/0"},
		{"declared in upper case", routes(route("a", "SHOP.Example", on())), "GET shop.example/", nil, "a/0"},
		{"port", routes(exact), "GET shop.example:8080/", nil, "exact/0"},
		{"trailing dot", routes(exact), "GET shop.example./", nil, "exact/0"},
		{"trailing dot and port", routes(exact), "GET shop.example.:80/", nil, "exact/0"},
		{"IPv6 literal", routes(route("a", "", on())), "GET [::1]:80/", nil, "a/0"},
		{"IPv6 literal is not its last group", routes(route("a", "*.1", on())), "GET [::1]/", nil, ""},
		{"IPv6 literal left open", routes(route("a", "", on())), "GET [::1/", nil, "a/0"},
		{"wildcard: one label", routes(wild), "GET a.shop.example/", nil, "wild/0"},
		{"wildcard: two labels", routes(wild), "GET a.b.shop.example/", nil, "wild/0"},
		{"wildcard: none", routes(wild), "GET shop.example/", nil, ""},
		{"wildcard: an empty label", routes(wild), "GET .shop.example/", nil, ""},
		{"wildcard: whole labels", routes(wild), "GET a.bookshop.example/", nil, ""},
		{"exact before wildcard", routes(route("w", "*.example", on("=/x")), route("e", "shop.example", on("/"))),
			"GET shop.example/x", nil, "e/0"},
		{"longest wildcard first", routes(route("short", "*.example", on("=/x")), route("long", "*.b.example", on("/"))),
			"GET a.b.example/x", nil, "long/0"},
		{"wildcard before none", routes(route("none", "", on("=/x")), wild), "GET a.shop.example/x", nil, "wild/0"},
		{"no rule under the exact host: the wildcard", routes(exact, route("e", "a.shop.example", on("/only")), wild),
			"GET a.shop.example/", nil, "wild/0"},
		{"no rule under any host: none", routes(route("e", "shop.example", on("/only")), route("n", "", on("/other"))),
			"GET shop.example/", nil, ""},
		{"one of several hostnames", routes(route("a", "x.example shop.example", on())), "GET shop.example/", nil, "a/0"},
		{"longer than any name", routes(route("a", "", on())), "GET " + long("a.", 300) + "/", nil, "a/0"},
	})
}

func long(s string, n int) (out string) {
	for range n {
		out += s
	}
	return out
}

func TestPaths(t *testing.T) {
	foo := routes(route("a", "", on("/foo")))
	testMatch(t, []matchCase{
		{"prefix: itself", foo, "GET h/foo", nil, "a/0"},
		{"prefix: with a slash", foo, "GET h/foo/", nil, "a/0"},
		{"prefix: below", foo, "GET h/foo/bar/baz", nil, "a/0"},
		{"prefix: with a query", foo, "GET h/foo?bar=/", nil, "a/0"},
		{"prefix: whole segments", foo, "GET h/foobar", nil, ""},
		{"prefix: case", foo, "GET h/Foo", nil, ""},
		{"prefix: never decoded", foo, "GET h/fo%6f", nil, ""},
		{"prefix: its trailing slash does not count", routes(route("a", "", on("/foo/"))), "GET h/foo", nil, "a/0"},
		{"prefix: / is every path", routes(route("a", "", on("/"))), "GET h/foo", nil, "a/0"},
		{"prefix: longer than the path", routes(route("a", "", on("/foo/bar"))), "GET h/foo", nil, ""},
		{"prefix: the longest", routes(route("a", "", on("/"), on("/foo"), on("/foo/bar"))), "GET h/foo/bar/x", nil, "a/2"},
		{"prefix: the next but one when the longest has another method",
			routes(route("a", "", on("/"), on("/foo"), on("/foo/bar POST"))), "GET h/foo/bar/x", nil, "a/1"},
		{"prefix: many slashes", routes(route("a", "", on("/foo"))), "GET h" + long("/", 5000), nil, ""},
		{"exact", routes(route("a", "", on("=/foo"))), "GET h/foo?x", nil, "a/0"},
		{"exact: with a slash", routes(route("a", "", on("=/foo"))), "GET h/foo/", nil, ""},
		{"exact: below", routes(route("a", "", on("=/foo"))), "GET h/foo/bar", nil, ""},
		{"expression: the whole path", routes(route("a", "", on("~/v[0-9]+"))), "GET h/v12", nil, "a/0"},
		{"expression: not a part of it", routes(route("a", "", on("~/v[0-9]+"))), "GET h/v12/x", nil, ""},
		{"expression: with choices", routes(route("a", "", on("~/a|/b"))), "GET h/bc", nil, ""},
		{"expression: without the query", routes(route("a", "", on("~/v[0-9]+"))), "GET h/v12?x=y", nil, "a/0"},
		{"exact before prefix", routes(route("a", "", on("/foo GET"), on("=/foo"))), "GET h/foo", nil, "a/1"},
		{"exact before expression", routes(route("a", "", on("~/fo+ GET"), on("=/foo"))), "GET h/foo", nil, "a/1"},
		{"expression before prefix", routes(route("a", "", on("/foo GET"), on("~/fo+"))), "GET h/foo", nil, "a/1"},
		{"expression before the prefix /", routes(route("a", "", on("/ GET"), on("GET"), on("~/fo+"))), "GET h/foo", nil, "a/2"},
		{"longest expression first", routes(route("a", "", on("~/f.*"), on("~/foo.*"))), "GET h/foo", nil, "a/1"},
		{"exact with another method: prefix", routes(route("a", "", on("=/foo POST"), on("/foo"))), "GET h/foo", nil, "a/1"},
	})
}

func TestMethodsHeadersAndParams(t *testing.T) {
	testMatch(t, []matchCase{
		{"method", routes(route("a", "", on("POST"))), "POST h/", nil, "a/0"},
		{"another method", routes(route("a", "", on("POST"))), "GET h/", nil, ""},
		{"methods have case", routes(route("a", "", on("GET"))), "get h/", nil, ""},
		{"header", routes(route("a", "", on("x-v:1"))), "GET h/", []string{"X-V: 1"}, "a/0"},
		{"header: another value", routes(route("a", "", on("x-v:1"))), "GET h/", []string{"x-v: 11"}, ""},
		{"header: absent", routes(route("a", "", on("x-v~.*"))), "GET h/", nil, ""},
		{"header: empty", routes(route("a", "", on("x-v~.*"))), "GET h/", []string{"x-v: "}, "a/0"},
		{"header: all of them", routes(route("a", "", on("x-v:1 x-w:2"))), "GET h/", []string{"x-v: 1"}, ""},
		{"header: expression, whole value", routes(route("a", "", on("x-v~[0-9]"))), "GET h/", []string{"x-v: 12"}, ""},
		{"header: several fields are one value", routes(route("a", "", on("x-v~a,.b"))), "GET h/",
			[]string{"x-v: a", "y: 1", "X-V: b"}, "a/0"},
		{"header: one of several fields is not the value", routes(route("a", "", on("x-v:a"))), "GET h/",
			[]string{"x-v: a", "x-v: b"}, ""},
		{"header: named twice, the first counts", routes(route("a", "", on("x-v:1 X-V:2"))), "GET h/", []string{"x-v: 1"}, "a/0"},
		{"param", routes(route("a", "", on("?v=1"))), "GET h/?u=2&v=1", nil, "a/0"},
		{"param: another value", routes(route("a", "", on("?v=1"))), "GET h/?v=12", nil, ""},
		{"param: absent", routes(route("a", "", on("?v~.*"))), "GET h/?w", nil, ""},
		{"param: without a value", routes(route("a", "", on("?v="))), "GET h/?v", nil, "a/0"},
		{"param: names have case", routes(route("a", "", on("?v=1"))), "GET h/?V=1", nil, ""},
		{"param: decoded", routes(route("a", "", on(`?n~a\sb/c`))), "GET h/?%6e=a+b%2Fc", nil, "a/0"},
		{"param: malformed escapes stand for themselves", routes(route("a", "", on("?n=%zz%4"))), "GET h/?n=%zz%4", nil, "a/0"},
		{"param: the first counts", routes(route("a", "", on("?n=2"))), "GET h/?n=1&n=2", nil, ""},
		{"param: empty pairs are none", routes(route("a", "", on("?n=2"))), "GET h/?&&n=2", nil, "a/0"},
		{"param: not from the path", routes(route("a", "", on("?n=2"))), "GET h/n=2", nil, ""},
		{"any of a rule's matches", routes(route("a", "", on("POST", "x-v:1"))), "GET h/", []string{"x-v: 1"}, "a/0"},
	})
}

func TestPrecedence(t *testing.T) {
	young, old := born(route("a", "", on()), 20), born(route("b", "", on()), 10)
	twin := born(route("c", "", on()), 10)
	testMatch(t, []matchCase{
		{"a longer prefix before a method", routes(route("a", "", on("/x GET"), on("/x/y"))), "GET h/x/y", nil, "a/1"},
		{"a method before headers", routes(route("a", "", on("x:1 y:2"), on("GET"))), "GET h/", []string{"x: 1", "y: 2"}, "a/1"},
		{"more headers first", routes(route("a", "", on("x:1"), on("x:1 y:2"))), "GET h/", []string{"x: 1", "y: 2"}, "a/1"},
		{"headers before params", routes(route("a", "", on("?a=1 ?b=2"), on("x:1"))), "GET h/?a=1&b=2", []string{"x: 1"}, "a/1"},
		{"more params first", routes(route("a", "", on("?a=1"), on("?a=1 ?b=2"))), "GET h/?a=1&b=2", nil, "a/1"},
		{"a param before none", routes(route("a", "", on(), on("?a=1"))), "GET h/?a=1", nil, "a/1"},
		{"the oldest route", routes(young, old), "GET h/", nil, "b/0"},
		{"of one age, by name", routes(twin, old), "GET h/", nil, "b/0"},
		{"a better match of a younger route", routes(old, born(route("z", "", on("GET")), 30)), "GET h/", nil, "z/0"},
		{"the first rule", routes(route("a", "", on(), on())), "GET h/", nil, "a/0"},
		{"the name a header twice does not count", routes(route("a", "", on("x:1 X:1"), on("x:1 y:2"))), "GET h/",
			[]string{"x: 1", "y: 2"}, "a/1"},
	})
}

func TestHitSaysWhatFitted(t *testing.T) {
	tab := newTable(t, public(), route("a", "*.shop.example", on("/foo/", "=/foo", "~/f.x")), route("b", "", on()))
	listener := router.Listener{
		Gateway: resource.Ref{Kind: "Gateway", Tenant: "default", Name: "public"},
		Name:    "http", Port: 80, Protocol: weirv1.Listener_HTTP,
	}
	for _, c := range []struct {
		request, rule, prefix, hostname string
		kind                            router.PathKind
	}{
		{"GET a.shop.example/foo/x", "a/0", "/foo", "*.shop.example", router.Prefix},
		{"GET a.shop.example/foo", "a/0", "", "*.shop.example", router.Exact},
		{"GET a.shop.example/fox", "a/0", "", "*.shop.example", router.Regex},
		{"GET else.example/foo", "b/0", "", "", router.Prefix},
	} {
		hit, ok := tab.Match(80, request(c.request))
		if !ok {
			t.Fatalf("%s: no rule", c.request)
		}
		if hit.Rule.Value != c.rule || hit.Prefix != c.prefix || hit.Hostname != c.hostname || hit.Path != c.kind || *hit.Listener != listener {
			t.Errorf("%s: got %+v with rule %+v, want %+v", c.request, hit, hit.Rule, c)
		}
	}
}

// A tunnel is opened by a rule that names CONNECT, whatever else would win.
func TestConnectIsNamed(t *testing.T) {
	tab := newTable(t, public(), route("pages", "db.example", on("=/"), on("")), route("tunnel", "", on("CONNECT")))
	for _, connect := range []bool{false, true} {
		x := new(exchange.Exchange)
		x.Request.Method, x.Request.Authority, x.Request.Path = []byte("GET"), []byte("db.example:5432"), []byte("/")
		want := "pages/0"
		if x.Request.Connect = connect; connect {
			x.Request.Method = []byte("CONNECT")
			want = "tunnel/0"
		}
		if hit, ok := tab.Match(80, x); !ok || hit.Rule.Value != want {
			t.Errorf("CONNECT %v: got %v, want %s", connect, hit.Rule, want)
		}
	}
}
