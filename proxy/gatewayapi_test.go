package proxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// The Gateway API's specification of HTTPRoute and GRPCRoute, sentence by
// sentence: documents of its own, and what becomes of requests.

// documented reads the rules of routes, in the Gateway API's words. Services are
// named a to d.
func documented(t testing.TB, documents string) (all []resource.Message) {
	t.Helper()
	items, err := manifest.Parse("routes.yaml", []byte(documents))
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		resource.Normalize(item.Resource)
		for _, v := range resource.Validate(item.Resource) {
			t.Fatalf("%s in\n%s", v, documents)
		}
		all = append(all, resource.Body(item.Resource))
	}
	return all
}

// httpRoute is the document of an HTTPRoute: "name host,host" and its rules.
func httpRoute(head, rules string) string { return routeDocument("HTTPRoute", head, rules) }
func grpcRoute(head, rules string) string { return routeDocument("GRPCRoute", head, rules) }

func routeDocument(kind, head, rules string) string {
	name, hosts, _ := strings.Cut(head, " ")
	hostnames := ""
	if hosts != "" {
		hostnames = fmt.Sprintf("hostnames: [%s], ", quoted(strings.Split(hosts, ",")))
	}
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: %s\nmetadata: {name: %s}\nspec: {parentRefs: [{name: public}], %srules: [%s]}\n---\n",
		kind, name, hostnames, rules)
}

// listening is the document of a Gateway with one listener.
func listening(listener string) string {
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: public}\n"+
		"spec: {gatewayClassName: weir, listeners: [{name: http, protocol: HTTP, %s}]}\n---\n", listener)
}

func quoted(names []string) string {
	for i := range names {
		names[i] = `"` + names[i] + `"`
	}
	return strings.Join(names, ", ")
}

// to is a rule's part that sends requests to a service.
func to(service string) string { return fmt.Sprintf("backendRefs: [{name: %s, port: 80}]", service) }

func on(match, service string) string { return fmt.Sprintf("{matches: [%s], %s}", match, to(service)) }

type sentence struct {
	says   string
	routes string
	// ask is "METHOD host/path", then fields as "Name: value"; want what answers:
	// the service's name and what it saw ("a h/path"), or "status location".
	asked [][2]string
}

func TestGatewayAPISpecification(t *testing.T) {
	// X-A, a response header of the service, is what response filters change.
	named := func(name string) string {
		return upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-A", "1")
			fields := []string{}
			for k, v := range r.Header {
				if strings.HasPrefix(k, "X-") && !strings.HasPrefix(k, "X-Forwarded") && k != "X-Request-Id" {
					fields = append(fields, fmt.Sprintf(" %s=%s", k, strings.Join(v, ",")))
				}
			}
			slices.Sort(fields)
			fmt.Fprintf(w, "%s %s%s%s", name, r.Host, r.URL, strings.Join(fields, ""))
		})
	}
	services := []resource.Message{}
	for _, n := range []string{"a", "b", "c", "d"} {
		services = append(services, service(n, named(n)))
	}
	services = append(services, service("empty"))
	for _, table := range [][]sentence{hostSentences, matchSentences, precedenceSentences, filterSentences, redirectSentences, backendSentences, grpcSentences} {
		for _, s := range table {
			t.Run(s.says, func(t *testing.T) {
				e := startEdge(t, append(slices.Clone(services), documented(t, s.routes)...)...)
				for _, c := range s.asked {
					if got := e.ask(t, c[0]); got != c[1] {
						t.Errorf("%s: got %q, not %q", c[0], got, c[1])
					}
				}
			})
		}
	}
}

// ask sends "METHOD host/path; Name: value; …".
func (e *edge) ask(t *testing.T, request string) string {
	t.Helper()
	parts := strings.Split(request, "; ")
	method, target, _ := strings.Cut(parts[0], " ")
	host, path, _ := strings.Cut(target, "/")
	req := newRequest(t, method, e.url("/"+path), nil)
	req.Host = host
	for _, f := range parts[1:] {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Add(name, value)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if l := resp.Header.Get("Location"); l != "" || resp.StatusCode != 200 {
		return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", l))
	}
	text := make([]byte, 512)
	n, _ := resp.Body.Read(text)
	if a := resp.Header.Values("X-A"); !slices.Equal(a, []string{"1"}) {
		return string(text[:n]) + " < " + strings.Join(a, ",")
	}
	return string(text[:n])
}

var hostSentences = []sentence{
	{"Implementations MUST ignore any port value specified in the HTTP Host header while performing a match and MUST forward this header unmodified to the backend",
		httpRoute("r a.example", "{"+to("a")+"}"),
		[][2]string{{"GET a.example:8080/", "a a.example:8080/"}, {"GET A.Example/", "a A.Example/"}, {"GET b.example/", "404"}}},
	{"a match for *.example.com would match both test.example.com, and foo.test.example.com, but not example.com",
		httpRoute("r *.example.com", "{"+to("a")+"}"),
		[][2]string{{"GET test.example.com/", "a test.example.com/"}, {"GET foo.test.example.com/", "a foo.test.example.com/"}, {"GET example.com/", "404"}}},
	{"precedence must be given to rules from the HTTPRoute with the largest number of characters in a matching non-wildcard hostname",
		httpRoute("wild *.example.com", on(`{path: {type: Exact, value: /x}}`, "a")) + httpRoute("exact test.example.com", "{"+to("b")+"}"),
		[][2]string{{"GET test.example.com/x", "b test.example.com/x"}, {"GET other.example.com/x", "a other.example.com/x"}}},
	{"then, of characters in a matching hostname",
		httpRoute("short *.com", "{"+to("a")+"}") + httpRoute("long *.example.com", "{"+to("b")+"}") + httpRoute("none", "{"+to("c")+"}"),
		[][2]string{{"GET a.example.com/", "b a.example.com/"}, {"GET a.other.com/", "a a.other.com/"}, {"GET other/", "c other/"}}},
	{"any HTTPRoute hostnames that do not match the Listener hostname MUST be ignored",
		listening(`port: 80, hostname: "*.example.com"`) +
			httpRoute("r test.example.com,test.example.net", "{"+to("a")+"}"),
		[][2]string{{"GET test.example.com/", "a test.example.com/"}, {"GET test.example.net/", "404"}}},
	{"a Listener with test.example.com as the hostname matches HTTPRoutes that have specified *.example.com",
		listening("port: 80, hostname: test.example.com") +
			httpRoute("r *.example.com", "{"+to("a")+"}"),
		[][2]string{{"GET test.example.com/", "a test.example.com/"}, {"GET other.example.com/", "404"}}},
}

var matchSentences = []sentence{
	{"If no matches are specified, the default is a prefix path match on /",
		httpRoute("r", "{"+to("a")+"}"), [][2]string{{"DELETE h/any?x", "a h/any?x"}}},
	{"a request must satisfy EITHER of the two conditions",
		httpRoute("r", on(`{path: {value: /foo}, headers: [{name: version, value: v2}]}, {path: {value: /v2/foo}}`, "a")),
		[][2]string{{"GET h/foo/bar; Version: v2", "a h/foo/bar"}, {"GET h/foo", "404"}, {"GET h/v2/foo", "a h/v2/foo"}}},
	{"Multiple match types are ANDed together",
		httpRoute("r", on(`{path: {value: /foo}, method: POST, headers: [{name: a, value: "1"}, {name: b, value: "2"}], queryParams: [{name: q, value: x}]}`, "a")),
		[][2]string{{"POST h/foo?q=x; a: 1; b: 2", "a h/foo?q=x"}, {"GET h/foo?q=x; a: 1; b: 2", "404"}, {"POST h/foo?q=y; a: 1; b: 2", "404"},
			{"POST h/foo?q=x; a: 1", "404"}, {"POST h/fo?q=x; a: 1; b: 2", "404"}}},
	{"the paths /abc, /abc/, and /abc/def would all match the prefix /abc, but the path /abcd would not",
		httpRoute("r", on(`{path: {type: PathPrefix, value: /abc}}`, "a")),
		[][2]string{{"GET h/abc", "a h/abc"}, {"GET h/abc/", "a h/abc/"}, {"GET h/abc/def", "a h/abc/def"}, {"GET h/abcd", "404"}}},
	{"Exact: matches the URL path exactly and with case sensitivity",
		httpRoute("r", on(`{path: {type: Exact, value: /abc}}`, "a")),
		[][2]string{{"GET h/abc?q", "a h/abc?q"}, {"GET h/abc/", "404"}, {"GET h/Abc", "404"}}},
	{"Name matching MUST be case-insensitive",
		httpRoute("r", on(`{headers: [{name: X-Version, value: One}]}`, "a")),
		[][2]string{{"GET h/; x-VERSION: One", "a h/ X-Version=One"}, {"GET h/; X-Version: one", "404"}}},
	{"query parameters: it is recommended that implementations should match against the first value of the param",
		httpRoute("r", on(`{queryParams: [{name: v, value: "1"}]}`, "a")),
		[][2]string{{"GET h/?v=1&v=2", "a h/?v=1&v=2"}, {"GET h/?v=2&v=1", "404"}, {"GET h/?V=1", "404"}}},
	{"When no rules matching a request have been successfully attached to the parent a HTTP 404 status code MUST be returned",
		httpRoute("r", on(`{path: {value: /only}}`, "a")), [][2]string{{"GET h/other", "404"}}},
}

var precedenceSentences = []sentence{
	{"precedence must be given to the match having: Exact path match",
		httpRoute("r", on(`{path: {value: /a/b}, method: GET, headers: [{name: x, value: "1"}]}`, "a")+", "+on(`{path: {type: Exact, value: /a/b}}`, "b")),
		[][2]string{{"GET h/a/b; x: 1", "b h/a/b"}, {"GET h/a/b/; x: 1", "a h/a/b/"}}},
	{"Prefix path match with largest number of characters",
		httpRoute("r", on(`{path: {value: /a}, method: GET}`, "a")+", "+on(`{path: {value: /a/b}}`, "b")),
		[][2]string{{"GET h/a/b/c", "b h/a/b/c"}, {"GET h/a/c", "a h/a/c"}}},
	{"Method match",
		httpRoute("r", on(`{headers: [{name: x, value: "1"}, {name: y, value: "1"}]}`, "a")+", "+on(`{method: GET}`, "b")),
		[][2]string{{"GET h/; x: 1; y: 1", "b h/"}, {"POST h/; x: 1; y: 1", "a h/"}}},
	{"Largest number of header matches",
		httpRoute("r", on(`{headers: [{name: x, value: "1"}], queryParams: [{name: q, value: "1"}]}`, "a")+", "+on(`{headers: [{name: x, value: "1"}, {name: y, value: "1"}]}`, "b")),
		[][2]string{{"GET h/?q=1; x: 1; y: 1", "b h/?q=1"}, {"GET h/?q=1; x: 1", "a h/?q=1"}}},
	{"Largest number of query param matches",
		httpRoute("r", on(`{queryParams: [{name: q, value: "1"}]}`, "a")+", "+on(`{queryParams: [{name: q, value: "1"}, {name: r, value: "1"}]}`, "b")),
		[][2]string{{"GET h/?q=1&r=1", "b h/?q=1&r=1"}, {"GET h/?q=1", "a h/?q=1"}}},
	{"across all rules specified on applicable Routes",
		httpRoute("first", on(`{path: {value: /a}}`, "a")) + httpRoute("second", on(`{path: {value: /a/b}}`, "b")),
		[][2]string{{"GET h/a/b", "b h/a/b"}}},
	{"The Route appearing first in alphabetical order by {namespace}/{name}",
		httpRoute("zebra", "{"+to("a")+"}") + httpRoute("ape", "{"+to("b")+"}"), [][2]string{{"GET h/", "b h/"}}},
	{"matching precedence MUST be granted to the FIRST matching rule (in list order)",
		httpRoute("r", "{"+to("a")+"}, {"+to("b")+"}"), [][2]string{{"GET h/", "a h/"}}},
}

// filtering is a rule with filters that are given as "Type {…}".
func filtering(prefix, backend string, filters ...string) string {
	var list []string
	for _, f := range filters {
		kind, value, _ := strings.Cut(f, " ")
		field := strings.ToLower(kind[:1]) + kind[1:]
		if kind == "URLRewrite" {
			field = "urlRewrite"
		}
		list = append(list, fmt.Sprintf("{type: %s, %s: %s}", kind, field, value))
	}
	if backend != "" {
		backend = to(backend)
	} else {
		backend = "backendRefs: []"
	}
	return httpRoute("r", fmt.Sprintf("{matches: [{path: {value: %s}}], filters: [%s], %s}", prefix, strings.Join(list, ", "), backend))
}

// replaced is a rewrite of a prefix: one row of the specification's table.
func replaced(path, prefix, by, want string) sentence {
	return sentence{fmt.Sprintf("ReplacePrefixMatch: %s, prefix %s, replaced by %q: %s", path, prefix, by, want),
		filtering(prefix, "a", fmt.Sprintf("URLRewrite {path: {type: ReplacePrefixMatch, replacePrefixMatch: %q}}", by)),
		[][2]string{{"GET h" + path, "a h" + want}, {"GET h" + path + "?q", "a h" + want + "?q"}}}
}

var filterSentences = []sentence{
	{"Set overwrites the request with the given header; Add appends to any existing values; Remove the given header(s)",
		filtering("/", "a", `RequestHeaderModifier {set: [{name: x-set, value: bar}], add: [{name: x-add, value: "bar,baz"}], remove: [x-one, X-Three]}`),
		[][2]string{{"GET h/; X-Set: foo; X-Add: foo; X-One: foo; X-Two: bar; X-Three: baz", "a h/ X-Add=foo,bar,baz X-Set=bar X-Two=bar"},
			{"GET h/", "a h/ X-Add=bar,baz X-Set=bar"}}},
	{"ResponseHeaderModifier modifies response headers",
		filtering("/", "a", `ResponseHeaderModifier {add: [{name: x-a, value: "2"}]}`), [][2]string{{"GET h/", "a h/ < 1,2"}}},
	{"ResponseHeaderModifier sets", filtering("/", "a", `ResponseHeaderModifier {set: [{name: X-A, value: "2"}]}`), [][2]string{{"GET h/", "a h/ < 2"}}},
	{"ResponseHeaderModifier removes", filtering("/", "a", `ResponseHeaderModifier {remove: [x-a]}`), [][2]string{{"GET h/", "a h/ < "}}},
	{"Hostname is the value to be used to replace the Host header value during forwarding",
		filtering("/", "a", `URLRewrite {hostname: one.example}`), [][2]string{{"GET h:81/x?q", "a one.example/x?q"}}},
	{"ReplaceFullPath specifies the value with which to replace the full path of a request",
		filtering("/one", "a", `URLRewrite {path: {type: ReplaceFullPath, replaceFullPath: /two}}`), [][2]string{{"GET h/one/x?q=1", "a h/two?q=1"}}},
	replaced("/foo/bar", "/foo", "/xyz", "/xyz/bar"), replaced("/foo/bar", "/foo", "/xyz/", "/xyz/bar"), replaced("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
	replaced("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"), replaced("/foo", "/foo", "/xyz", "/xyz"), replaced("/foo/", "/foo", "/xyz", "/xyz/"),
	replaced("/foo/bar", "/foo", "", "/bar"), replaced("/foo/", "/foo", "", "/"), replaced("/foo", "/foo", "", "/"),
	replaced("/foo/", "/foo", "/", "/"), replaced("/foo", "/foo", "/", "/"), replaced("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
	{"All filters are expected to be compatible with each other",
		filtering("/", "a", `ResponseHeaderModifier {set: [{name: X-A, value: "2"}]}`, `URLRewrite {hostname: one.example}`,
			`RequestHeaderModifier {set: [{name: X-B, value: "3"}]}`, `RequestMirror {backendRef: {name: b, port: 80}}`),
		[][2]string{{"GET h/", "a one.example/ X-B=3 < 2"}}},
}

var redirectSentences = []sentence{
	{"StatusCode: 302 is the default; when empty, the hostname in the Host header and the request path are used as-is",
		filtering("/", "", `RequestRedirect {scheme: https}`), [][2]string{{"GET h/a/b?q", "302 https://h/a/b?q"}}},
	{"If redirect scheme is not-empty, the redirect port MUST be the well-known port associated with the redirect scheme",
		filtering("/", "", `RequestRedirect {scheme: https, statusCode: 301}`), [][2]string{{"GET h:8080/", "301 https://h/"}}},
	{"A Location header that will use HTTPS and port 443: no port",
		filtering("/", "", `RequestRedirect {scheme: https, port: 443}`), [][2]string{{"GET h/", "302 https://h/"}}},
	{"A Location header that will use HTTP and port 80: no port",
		filtering("/", "", `RequestRedirect {port: 80}`), [][2]string{{"GET h/", "302 http://h/"}}},
	{"If redirect scheme is empty, the redirect port MUST be the Gateway Listener port",
		listening("port: 8080") + filtering("/", "", `RequestRedirect {hostname: n.example, statusCode: 307}`),
		[][2]string{{"GET h:8080/", "307 http://n.example:8080/"}, {"GET h:9999/", "307 http://n.example:8080/"}}},
	{"but a client that named no port came by the scheme's own, whatever a packet filter made of it (Weir's addition)",
		listening("port: 8080") + filtering("/", "", `RequestRedirect {hostname: n.example}`), [][2]string{{"GET h/", "302 http://n.example/"}}},
	{"Port is the port to be used in the value of the Location header",
		filtering("/", "", `RequestRedirect {port: 8443, scheme: https, statusCode: 308}`), [][2]string{{"GET h/", "308 https://h:8443/"}}},
	{"Path: ReplacePrefixMatch", filtering("/foo", "", `RequestRedirect {statusCode: 303, path: {type: ReplacePrefixMatch, replacePrefixMatch: /bar}}`),
		[][2]string{{"GET h/foo/x?q", "303 http://h/bar/x?q"}, {"GET h/foo", "303 http://h/bar"}}},
	{"Path: ReplaceFullPath", filtering("/foo", "", `RequestRedirect {path: {type: ReplaceFullPath, replaceFullPath: /bar}}`), [][2]string{{"GET h/foo/x?q", "302 http://h/bar?q"}}},
}

var backendSentences = []sentence{
	{"If weight is set to 0, no traffic should be forwarded for this entry",
		httpRoute("r", "{backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80}]}"), [][2]string{{"GET h/", "b h/"}, {"GET h/", "b h/"}, {"GET h/", "b h/"}}},
	{"If all entries in BackendRefs are invalid, all traffic which matches this rule MUST receive a 500 status code",
		httpRoute("r", "{backendRefs: [{name: a, port: 80, weight: 0}]}"), [][2]string{{"GET h/", "500"}}},
	{"no backendRefs, and no filters that answer", httpRoute("r", "{}"), [][2]string{{"GET h/", "500"}}},
	{"When a HTTPBackendRef refers to a Service that has no ready endpoints, implementations SHOULD return a 503",
		httpRoute("r", "{"+to("empty")+"}"), [][2]string{{"GET h/", "503"}}},
	{"A zero-valued timeout (0s) MUST be interpreted as disabling the timeout",
		httpRoute("r", "{"+to("a")+", timeouts: {request: 0s, backendRequest: 0s}}"), [][2]string{{"GET h/", "a h/"}}},
}

var grpcSentences = []sentence{
	{"GRPCRoute: Exact service and method", grpcRoute("r", on(`{method: {service: foo.Bar, method: Login}}`, "a")),
		[][2]string{{"POST h/foo.Bar/Login", "a h/foo.Bar/Login"}, {"POST h/foo.Bar/Logout", "404"}, {"POST h/foo.Bar/login", "404"}}},
	{"GRPCRoute: a service alone matches all of its methods", grpcRoute("r", on(`{method: {service: foo.Bar}}`, "a")),
		[][2]string{{"POST h/foo.Bar/Login", "a h/foo.Bar/Login"}, {"POST h/foo.Barista/Login", "404"}}},
	{"GRPCRoute: a method alone matches that of all services", grpcRoute("r", on(`{method: {method: Login}}`, "a")),
		[][2]string{{"POST h/foo.Bar/Login", "a h/foo.Bar/Login"}, {"POST h/x.Y/Login", "a h/x.Y/Login"}, {"POST h/x.Y/LoginNow", "404"}}},
	{"GRPCRoute: RegularExpression", grpcRoute("r", on(`{method: {type: RegularExpression, service: "foo[.].*", method: "Log(in|out)"}}`, "a")),
		[][2]string{{"POST h/foo.Bar/Logout", "a h/foo.Bar/Logout"}, {"POST h/bar.Foo/Login", "404"}}},
	{"GRPCRoute: method and headers are ANDed", grpcRoute("r", on(`{method: {service: foo.Bar, method: Login}, headers: [{name: version, value: "2"}]}`, "a")),
		[][2]string{{"POST h/foo.Bar/Login; Version: 2", "a h/foo.Bar/Login"}, {"POST h/foo.Bar/Login", "404"}}},
	{"GRPCRoute: If no matches are specified, the implementation MUST match every gRPC request", grpcRoute("r", "{"+to("a")+"}"),
		[][2]string{{"POST h/foo.Bar/Login", "a h/foo.Bar/Login"}}},
	{"GRPCRoute: Characters in a matching method, then header matches",
		grpcRoute("r", on(`{method: {service: foo.Bar}, headers: [{name: x, value: "1"}]}`, "a")+", "+on(`{method: {service: foo.Bar, method: Login}}`, "b")+", "+
			on(`{method: {service: foo.Bar, method: Login}, headers: [{name: x, value: "1"}]}`, "c")),
		[][2]string{{"POST h/foo.Bar/Login; x: 1", "c h/foo.Bar/Login"}, {"POST h/foo.Bar/Login", "b h/foo.Bar/Login"}, {"POST h/foo.Bar/Else; x: 1", "a h/foo.Bar/Else"}}},
}
