package resource_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// read makes a resource from its spec in YAML with protobuf's enum names.
func read(t *testing.T, kind, spec string) *weirv1.Resource {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(spec), &value); err != nil {
		t.Fatalf("%s\n%v", spec, err)
	}
	return readBody(t, kind, map[string]any{"metadata": map[string]any{"name": "x"}, "spec": value})
}

func readBody(t *testing.T, kind string, body any) *weirv1.Resource {
	t.Helper()
	data, err := json.Marshal(map[string]any{strings.ToLower(kind[:1]) + kind[1:]: body})
	if err != nil {
		t.Fatal(err)
	}
	r := new(weirv1.Resource)
	if err := protojson.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// expect compares violations with the beginnings of their text, one a line.
func expect(t *testing.T, r *weirv1.Resource, want ...string) {
	t.Helper()
	resource.Normalize(r)
	found := resource.Validate(r)
	for i, v := range found {
		if i >= len(want) || !strings.HasPrefix(v.String(), want[i]) {
			t.Errorf("unexpected violation: %s", v)
		}
	}
	for _, w := range want[min(len(found), len(want)):] {
		t.Errorf("missing violation: %s", w)
	}
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestWhatIsValid(t *testing.T) {
	for _, c := range []struct{ name, kind, spec string }{
		{"a gateway", "Gateway", `{listeners: [{name: http, port: 8080, protocol: HTTP}]}`},
		{"one port of every address, in two spellings", "Gateway", `{listeners: [{name: a, port: 80, protocol: HTTP, address: "::"}, {name: b, port: 80, protocol: HTTP, hostname: b.example}]}`},
		{"one port, told apart by hostname", "Gateway", `{listeners: [
			{name: a, port: 80, protocol: HTTP, hostname: a.example},
			{name: b, port: 80, protocol: HTTP, hostname: "*.b.example"}, {name: c, port: 80, protocol: HTTP}]}`},
		{"one port on two addresses", "Gateway", `{listeners: [
			{name: a, port: 80, protocol: HTTP, address: 127.0.0.1}, {name: b, port: 80, protocol: HTTP, address: "::1"}]}`},
		{"a selector", "Gateway", `{selector: {weir.example/zone: a_1}, listeners: [{name: http, port: 1, protocol: HTTP}]}`},
		{"listeners that speak HTTPS", "Gateway", `{listeners: [
			{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}, {kind: Certificate, name: d}]}},
			{name: b, port: 443, hostname: b.example, protocol: HTTPS, tls: {mode: TERMINATE, profile: MODERN, minVersion: TLS_1_3, certificateRefs: [{name: c}]}}]}`},
		{"a self-signed certificate", "Certificate", `{hostnames: [shop.example, "*.shop.example", localhost, 127.0.0.1, "::1"], selfSigned: {}}`},
		{"a service", "Service", `{protocol: HTTP, connectTimeout: 1s, endpoints: [
			{address: "127.0.0.1:9001", labels: {version: v1}, weight: 0}, {address: "[::1]:9001"}, {address: "Books_1.internal:80"},
			{address: "books.internal:80"}], subsets: [{name: v1, labels: {version: v1}}]}`},
		{"a service without endpoints yet", "Service", `{}`},
		{"a route that matches all", "Route", `{parentRefs: [{name: public}], rules: [{backendRefs: [{name: b}]}]}`},
		{"hostnames", "Route", `{parentRefs: [{name: p, sectionName: http, port: 80}, {name: p0}, {name: p}],
			hostnames: [shop.example, "*.example.com", localhost], rules: [{}]}`},
		{"matches", "Route", `{parentRefs: [{name: p}], rules: [{name: all, matches: [
			{path: {}}, {path: {type: EXACT, value: "/a/b;c=1/%C3%A4"}}, {path: {type: REGULAR_EXPRESSION, value: "/v[0-9]+/.*"}},
			{headers: [{name: X-Canary, value: "yes"}, {name: y, type: REGULAR_EXPRESSION, value: "a|b"}], method: PROPFIND},
			{queryParams: [{name: "q[]", value: ""}]}]}]}`},
		{"every filter", "Route", `{parentRefs: [{name: p}], rules: [{matches: [{path: {value: /a}}], backendRefs: [{name: b, weight: 0}], filters: [
			{type: REQUEST_HEADER_MODIFIER, requestHeaderModifier: {set: [{name: a, value: "1"}], add: [{name: b, value: "1"}, {name: b, value: "2"}], remove: [c]}},
			{responseHeaderModifier: {remove: [server]}},
			{urlRewrite: {hostname: b.internal, path: {type: REPLACE_PREFIX_MATCH}}}]}]}`},
		{"cors", "Route", `{parentRefs: [{name: p}], rules: [{filters: [{cors: {allowOrigins: ["https://shop.example", "http://*.shop.example:8080", "https://*", "http://127.0.0.1:3000", "http://localhost"],
			allowMethods: [PUT, PATCH], allowHeaders: ["*"], exposeHeaders: [X-A], allowCredentials: true, maxAge: 600}}]}]}`},
		{"two mirrors", "Route", `{parentRefs: [{name: p}], rules: [{filters: [{requestMirror: {backendRef: {name: a, subset: v2}, percent: 0}},
			{type: REQUEST_MIRROR, requestMirror: {backendRef: {name: a}, fraction: {numerator: 1, denominator: 1000}}}]}]}`},
		{"compression", "Route", `{parentRefs: [{name: p}], rules: [{filters: [{compression: {}}]}, {filters: [{compression: {algorithms: [br, gzip], minLength: 0, types: [text/*, application/*+json, image/svg+xml]}}]}]}`},
		{"faults", "Route", `{parentRefs: [{name: p}], rules: [{filters: [{fault: {delay: {fixed: 0.4s, percent: 0.1}, abort: {grpcStatus: 0, percent: 100}}},
			{fault: {headers: [{name: x, value: "1"}], bandwidth: {bytesPerSecond: 1}, disconnect: {}, abort: {status: 599}}}]}]}`},
		{"a redirect", "Route", `{parentRefs: [{name: p}], rules: [{filters: [{requestRedirect: {scheme: https, port: 8443, statusCode: 308, path: {replaceFullPath: /new}}}]}]}`},
		{"timeouts and retries", "Route", `{parentRefs: [{name: p}], rules: [{timeouts: {request: 5s, backendRequest: 5s}, retry: {codes: [502, 503], attempts: 3, backoff: 0.1s}, hedging: {delay: 0.05s, attempts: 4}}]}`},
		{"a plugin", "Plugin", `{digest: "` + digest + `", limits: {memoryBytes: 65536, fuel: 1}}`},
		{"a policy", "Policy", `{targetRefs: [{kind: Route, name: a}, {kind: Gateway, name: a, sectionName: http}], plugin: stamp, config: {n: 1}, failureMode: OPEN, stage: AUTHN}`},
		{"a policy of all routes, and one of a service", "Policy", `{targetRefs: [{kind: Tenant}, {kind: Service, name: a, sectionName: v2}], plugin: p}`},
		{"a firewall", "Policy", `{targetRefs: [{kind: Route, name: a}], waf: {}}`},
		{"a firewall with all that it may say", "Policy", `{targetRefs: [{kind: Gateway, name: a}], stage: AUTHZ, failureMode: OPEN, waf: {mode: BLOCK,
			paranoiaLevel: 2, anomalyThreshold: 10, outboundThreshold: 8, bodyLimit: 65536, oversize: PARTIAL, inspectResponse: true, responseBodyLimit: 65536,
			exclusions: [{ruleIds: [942100], ruleRanges: [{first: 932000, last: 932999}], tags: [attack-sqli, paranoia-level/2],
				paths: [{value: /admin}, {type: REGULAR_EXPRESSION, value: "/a/[0-9]+"}], parameters: [q, "json.a.b"], headers: [x-query], cookies: [session]}],
			rules: "SecAction \"id:1,phase:1,pass\""}}`},
		{"a policy whose plugin calls services", "Policy", `{targetRefs: [{kind: Route, name: a}], plugin: p, services: [{name: users}, {name: users, subset: v2, as: "outbound|80||users.local"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, read(t, c.kind, c.spec)) })
	}
}

func TestGatewayIsRefused(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{}`, `spec.listeners: needs at least one listener`},
		{`{listeners: [{port: 1, protocol: HTTP}]}`, `spec.listeners[0].name: is required`},
		{`{listeners: [{name: "a b", port: 1, protocol: HTTP}]}`, `spec.listeners[0].name: "a b" is not a name: use lower-case letters, digits and '-', beginning and ending with a letter or digit, such as "a-b"`},
		{`{listeners: [{name: a, protocol: HTTP}]}`, `spec.listeners[0].port: must be from 1 to 65535, not 0`},
		{`{listeners: [{name: a, port: 65536, protocol: HTTP}]}`, `spec.listeners[0].port: must be from 1 to 65535, not 65536`},
		{`{listeners: [{name: a, port: 1}]}`, `spec.listeners[0].protocol: is required: HTTP`},
		{`{listeners: [{name: a, port: 1, protocol: TCP, hostname: a.example}]}`, `spec.listeners[0].hostname: is not for TCP`},
		{`{listeners: [{name: a, port: 1, protocol: TLS}]}`, `spec.listeners[0].tls: is required for TLS`},
		{`{listeners: [{name: a, port: 1, protocol: TLS, tls: {}}]}`, `spec.listeners[0].tls.certificateRefs: needs at least one Certificate`},
		{`{listeners: [{name: a, port: 1, protocol: TLS, tls: {mode: PASSTHROUGH, profile: MODERN}}]}`, `spec.listeners[0].tls: has nothing but its mode`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, proxyProtocol: {}}]}`, `spec.listeners[0].proxyProtocol.trustedCidrs: needs at least one address or network`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, proxyProtocol: {trustedCidrs: [10.0.0.0/33]}}]}`, `spec.listeners[0].proxyProtocol.trustedCidrs[0]: "10.0.0.0/33" is not an address or a network`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, proxyProtocol: {trustedCidrs: ["::1"], headerTimeout: 0s}}]}`, `spec.listeners[0].proxyProtocol.headerTimeout: must be more than 0`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, hostname: a.example}, {name: b, port: 1, protocol: HTTP, proxyProtocol: {trustedCidrs: [10.1.2.3]}}]}`, `spec.listeners[1].proxyProtocol: must be as that of the listener "a"`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, hostname: a.example}, {name: b, port: 1, protocol: HTTP, connectionLimits: {maxConnections: 5}}]}`, `spec.listeners[1].connectionLimits: must be as those of the listener "a"`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, connectionLimits: {maxConnections: 4294967295}}]}`, `spec.listeners[0].connectionLimits.maxConnections: must be at most`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS}]}`, `spec.listeners[0].tls: is required for HTTPS`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, tls: {certificateRefs: [{name: c}]}}]}`, `spec.listeners[0].tls: is for protocol HTTPS and TLS, not for HTTP`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {}}]}`, `spec.listeners[0].tls.certificateRefs: needs at least one Certificate`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}, http3: true, proxyProtocol: {trustedCidrs: ["10.0.0.1"]}}]}`, `spec.listeners[0].http3: is not for a listener with proxyProtocol, whose headers say by TCP alone who the client is`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, http3: true}]}`, `spec.listeners[0].http3: HTTP/3 is for a listener with protocol HTTPS: it is never spoken in the clear`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {mode: PASSTHROUGH, certificateRefs: [{name: c}]}}]}`, `spec.listeners[0].tls.mode: Passthrough is for protocol TLS, not for HTTPS`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {certificateRefs: [{kind: Secret, name: c}]}}]}`, `spec.listeners[0].tls.certificateRefs[0].kind: must be Certificate, not "Secret"`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {certificateRefs: [{name: c}, {name: c}]}}]}`, `spec.listeners[0].tls.certificateRefs[1].name: the certificate "c" is there twice`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {profile: MODERN, minVersion: TLS_1_2, certificateRefs: [{name: c}]}}]}`, `spec.listeners[0].tls.minVersion: must not be TLS_1_2 with the profile MODERN`},
		{`{listeners: [{name: a, port: 1, protocol: HTTPS, tls: {certificateRefs: [{name: c}], clientValidation: {}}}]}`, `spec.listeners[0].tls.clientValidation.caCertificates: is required`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, hostname: a.example}, {name: b, port: 1, protocol: HTTPS, hostname: b.example, tls: {certificateRefs: [{name: c}]}}]}`, `spec.listeners[1].protocol: port 1 speaks HTTP for the listener "a"`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, address: localhost}]}`, `spec.listeners[0].address: "localhost" is not an IP address to bind`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP}, {name: a, port: 2, protocol: HTTP}]}`, `spec.listeners[1].name: the listener "a" is there twice`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP}, {name: b, port: 1, protocol: HTTP}]}`, `spec.listeners[1].port: port 1 is taken by the listener "a"`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP}, {name: b, port: 1, protocol: HTTP, address: 127.0.0.1}]}`, `spec.listeners[1].address: port 1 is taken by the listener "a", and one of the two binds every address`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, address: 0.0.0.0}, {name: b, port: 1, protocol: HTTP, address: "::1"}]}`, `spec.listeners[1].address: port 1 is taken by the listener "a", and one of the two binds every address`},
		{`{listeners: [{name: a, port: 1, protocol: HTTP, address: "::1"}, {name: b, port: 1, protocol: HTTP, address: "0:0:0:0:0:0:0:1"}]}`, `spec.listeners[1].port: port 1 is taken by the listener "a"`},
		{`{selector: {zone: "a b"}, listeners: [{name: a, port: 1, protocol: HTTP}]}`, `spec.selector["zone"]: "a b" is not a label value`},
	} {
		t.Run(c.want, func(t *testing.T) { expect(t, read(t, "Gateway", c.spec), c.want) })
	}
}

func TestHostnameIsRefused(t *testing.T) {
	for host, want := range map[string]string{
		"":                    "is empty",
		"Shop.example":        `"Shop.example" must be lower case: "shop.example"`,
		"shop.example:80":     `"shop.example:80" must not hold a port`,
		"http://shop.example": `"http://shop.example" is a URL`,
		"127.0.0.1":           `"127.0.0.1" is an IP address`,
		"[::1]":               `"[::1]" is an IP address`,
		"shop.example.":       `"shop.example." must not end with a dot`,
		"*":                   `"*": a wildcard is one leading label`,
		"a.*.example":         `"a.*.example": a wildcard is one leading label`,
		"*shop.example":       `"*shop.example": a wildcard is one leading label`,
		"shop_1.example":      `"shop_1.example" is not a hostname`,
		"a..b":                `"a..b" is not a hostname`,
	} {
		t.Run(host, func(t *testing.T) {
			r := read(t, "Route", `{parentRefs: [{name: p}], rules: [{}]}`)
			r.GetRoute().Spec.Hostnames = []string{host}
			expect(t, r, "spec.hostnames[0]: "+want)
		})
	}
}

func TestServiceIsRefused(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{protocol: HTTP2, sendProxyProtocol: V2}`, `spec.sendProxyProtocol: is not for protocol HTTP2, whose connections carry requests of many clients`},
		{`{protocol: HTTP3}`, `spec.tls: is required by protocol HTTP3, which is never spoken in the clear: tls: {} checks the service's certificate by its name and the system's authorities`},
		{`{endpoints: [{}]}`, `spec.endpoints[0].address: is required`},
		{`{endpoints: [{address: localhost}]}`, `spec.endpoints[0].address: "localhost" has no port`},
		{`{endpoints: [{address: "::1"}]}`, `spec.endpoints[0].address: "::1" has no port`},
		{`{endpoints: [{address: "fe80::1:zz:80"}]}`, `spec.endpoints[0].address: "fe80::1:zz:80": "fe80::1:zz" is neither`},
		{`{endpoints: [{address: "http://books:80/"}]}`, `spec.endpoints[0].address: "http://books:80/" must be "host:port"`},
		{`{endpoints: [{address: "books:0"}]}`, `spec.endpoints[0].address: "books:0": the port must be from 1 to 65535, not "0"`},
		{`{endpoints: [{address: "books:http"}]}`, `spec.endpoints[0].address: "books:http": the port must be from 1 to 65535, not "http"`},
		{`{endpoints: [{address: "2001:db8::1:fffff"}]}`, `spec.endpoints[0].address: "2001:db8::1:fffff": the port must be`},
		{`{endpoints: [{address: "[127.0.0.1]:80"}]}`, `spec.endpoints[0].address: "[127.0.0.1]:80": [127.0.0.1] is not an IPv6 address`},
		{`{endpoints: [{address: "bo oks:80"}]}`, `spec.endpoints[0].address: "bo oks:80": "bo oks" is neither an IP address nor a DNS name`},
		{`{endpoints: [{address: "a:1"}, {address: "a:1"}]}`, `spec.endpoints[1].address: the endpoint "a:1" is there twice`},
		{`{endpoints: [{address: "a:1", weight: 1000001}]}`, `spec.endpoints[0].weight: must be at most 1000000`},
		{`{subsets: [{name: v1}]}`, `spec.subsets[0].labels: needs at least one label`},
		{`{subsets: [{name: v1, labels: {a: b}}, {name: v1, labels: {a: c}}]}`, `spec.subsets[1].name: the subset "v1" is there twice`},
		{`{connectTimeout: -1s}`, `spec.connectTimeout: must not be negative, not -1s`},
		{`{tls: {hostname: "*.example.com"}}`, `spec.tls.hostname: "*.example.com"`},
		{`{tls: {hostname: "10.0.0.1"}}`, `spec.tls.hostname: "10.0.0.1" is an IP address`},
		{`{tls: {caCertificates: "none"}}`, `spec.tls.caCertificates: holds 0 certificates in PEM; 1 to`},
		{`{tls: {caCertificateRefs: [{}]}}`, `spec.tls.caCertificateRefs[0].name: is required`},
		{`{tls: {caCertificateRefs: [{name: a}, {name: a}]}}`, `spec.tls.caCertificateRefs[1].name: the certificate "a" is there twice`},
		{`{tls: {clientCertificateRef: {kind: Secret, name: a}}}`, `spec.tls.clientCertificateRef.kind: must be Certificate, not "Secret"`},
		{`{tls: {subjectAltNames: ["spiffe://"]}}`, `spec.tls.subjectAltNames[0]: "spiffe://" is neither a DNS name nor a URI`},
		{`{tls: {subjectAltNames: [a.example, a.example]}}`, `spec.tls.subjectAltNames[1]: the name "a.example" is there twice`},
		{`{tls: {subjectAltNames: [a.example], insecureSkipVerify: true}}`, `spec.tls.insecureSkipVerify: stands beside subjectAltNames`},
		{`{connectTimeout: 0s}`, `spec.connectTimeout: must be more than 0`},
	} {
		t.Run(c.want, func(t *testing.T) { expect(t, read(t, "Service", c.spec), c.want) })
	}
}

func TestRouteIsRefused(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{parentRefs: [{name: p}], rules: [{retry: {grpcStatuses: [UNAVAILABLE, UNAVAILABLE]}}]}`, `spec.rules[0].retry.grpcStatuses[1]: the status "UNAVAILABLE" is there twice`},
		{`{rules: [{}]}`, `spec.parentRefs: needs at least one Gateway`},
		{`{parentRefs: [{name: p}]}`, `spec.rules: needs at least one rule`},
		{`{parentRefs: [{name: p, kind: Service, port: 80}], rules: [{}]}`, `spec.parentRefs[0]: a Service as a parent has neither sectionName nor port`},
		{`{parentRefs: [{name: p, kind: Host}], rules: [{}]}`, `spec.parentRefs[0].kind: a route is attached to a Gateway or a Service, not to "Host"`},
		{`{parentRefs: [{name: p, port: 70000}], rules: [{}]}`, `spec.parentRefs[0].port: must be from 1 to 65535`},
		{`{parentRefs: [{name: p}, {kind: Gateway, name: p}], rules: [{}]}`, `spec.parentRefs[1]: the parent "p" is there twice`},
		{`{parentRefs: [{name: p}], hostnames: [a.b, a.b], rules: [{}]}`, `spec.hostnames[1]: the hostname "a.b" is there twice`},
		{`{parentRefs: [{name: p}], rules: [{name: a}, {name: a}]}`, `spec.rules[1].name: the rule "a" is there twice`},
	} {
		t.Run(c.want, func(t *testing.T) { expect(t, read(t, "Route", c.spec), c.want) })
	}
}

func TestRuleIsRefused(t *testing.T) {
	const in = "spec.rules[0]."
	for _, c := range []struct{ rule, want string }{
		{`{matches: [{path: {value: books}}]}`, `matches[0].path.value: "books" must start with "/": "/books"`},
		{`{matches: [{path: {type: EXACT}}]}`, `matches[0].path.value: is required`},
		{`{matches: [{path: {value: /a//b}}]}`, `matches[0].path.value: "/a//b" must not contain "//"`},
		{`{matches: [{path: {value: /a/..}}]}`, `matches[0].path.value: "/a/.." must not contain "." or ".."`},
		{`{matches: [{path: {value: /a/./b}}]}`, `matches[0].path.value: "/a/./b" must not contain "." or ".."`},
		{`{matches: [{path: {value: /a%2Fb}}]}`, `matches[0].path.value: "/a%2Fb" must not contain an encoded slash`},
		{`{matches: [{path: {value: "/a?b"}}]}`, `matches[0].path.value: "/a?b" must be a path alone`},
		{`{matches: [{path: {value: "/a/*"}}]}`, `matches[0].path.value: "/a/*": a path holds no wildcard`},
		{`{matches: [{path: {value: "/a b"}}]}`, `matches[0].path.value: "/a b" holds " "`},
		{`{matches: [{path: {value: "/a%zz"}}]}`, `matches[0].path.value: "/a%zz" holds "%"`},
		{`{matches: [{path: {type: REGULAR_EXPRESSION, value: "/(a"}}]}`, `matches[0].path.value: "/(a" is not a regular expression (RE2 syntax): missing closing )`},
		{`{matches: [{path: {type: REGULAR_EXPRESSION, value: "(?=a)"}}]}`, `matches[0].path.value: "(?=a)" is not a regular expression`},
		{`{matches: [{path: {type: REGULAR_EXPRESSION, value: "a{1001}"}}]}`, `matches[0].path.value: "a{1001}" is not a regular expression`},
		{`{matches: [{path: {type: REGULAR_EXPRESSION}}]}`, `matches[0].path.value: is required`},
		{`{matches: [{method: CONNECT, path: {type: EXACT, value: /}}]}`, `matches[0].path: is not for CONNECT`},
		{`{matches: [{method: CONNECT, queryParams: [{name: a, value: b}]}]}`, `matches[0].queryParams: is not for CONNECT`},
		{`{matches: [{method: CONNECT}, {method: GET}]}`, `matches: ask for CONNECT and for other requests`},
		{`{matches: [{method: CONNECT}], retry: {attempts: 2}}`, `retry: is not for CONNECT`},
		{`{matches: [{method: CONNECT}], hedging: {delay: 1s, attempts: 2}}`, `hedging: is not for CONNECT`},
		{`{matches: [{method: CONNECT}], filters: [{urlRewrite: {hostname: a.example}}]}`, `filters[0]: is not for CONNECT`},
		{`{matches: [{method: get}]}`, `matches[0].method: "get" must be upper case: "GET"`},
		{`{matches: [{method: "G T"}]}`, `matches[0].method: "G T" is not an HTTP method`},
		{`{matches: [{headers: [{value: a}]}]}`, `matches[0].headers[0].name: is required`},
		{`{matches: [{headers: [{name: ":path", value: a}]}]}`, `matches[0].headers[0].name: ":path" is not a header name`},
		{`{matches: [{headers: [{name: a, value: "a\r\nb: c"}]}]}`, `matches[0].headers[0].value: "a\r\nb: c" holds the control character "\r"`},
		{`{matches: [{headers: [{name: a, value: " a"}]}]}`, `matches[0].headers[0].value: " a" must not begin or end with a blank`},
		{`{matches: [{headers: [{name: a, value: "1"}, {name: A, value: "2"}]}]}`, `matches[0].headers[1].name: the header "a" is there twice`},
		{`{matches: [{headers: [{name: a, type: REGULAR_EXPRESSION, value: "["}]}]}`, `matches[0].headers[0].value: "[" is not a regular expression`},
		{`{matches: [{queryParams: [{value: a}]}]}`, `matches[0].queryParams[0].name: is required`},
		{`{matches: [{queryParams: [{name: a, value: "1"}, {name: a, value: "2"}]}]}`, `matches[0].queryParams[1].name: the query parameter "a" is there twice`},
		{`{backendRefs: [{name: b, kind: Route}]}`, `backendRefs[0].kind: a backend is a Service, not a "Route"`},
		{`{backendRefs: [{name: B}]}`, `backendRefs[0].name: "B" is not a name`},
		{`{backendRefs: [{name: b, subset: "v 1"}]}`, `backendRefs[0].subset: "v 1" is not a name`},
		{`{backendRefs: [{name: b, weight: 1000001}]}`, `backendRefs[0].weight: must be at most 1000000`},
		{`{timeouts: {request: -1s}}`, `timeouts.request: must not be negative, not -1s`},
		{`{timeouts: {request: 1s, backendRequest: 2s}}`, `timeouts.backendRequest: must not be longer than request (1s), not 2s`},
		{`{hedging: {}}`, `hedging.delay: is required`},
		{`{hedging: {delay: 0s}}`, `hedging.delay: must be at least 1ms, not 0s`},
		{`{hedging: {delay: 1s, attempts: 5}}`, `hedging.attempts: must be at most 4, not 5`},
		{`{retry: {codes: [200]}}`, `retry.codes[0]: must be a status from 400 to 599, not 200`},
		{`{retry: {codes: [503, 503]}}`, `retry.codes[1]: the code "503" is there twice`},
		{`{retry: {attempts: 17}}`, `retry.attempts: must be at most 16, not 17`},
		{`{retry: {backoff: -1s}}`, `retry.backoff: must not be negative`},
	} {
		t.Run(c.want, func(t *testing.T) {
			expect(t, read(t, "Route", `{parentRefs: [{name: p}], rules: [`+c.rule+`]}`), in+c.want)
		})
	}
}

func TestFilterIsRefused(t *testing.T) {
	const in = "spec.rules[0].filters[0]"
	for _, c := range []struct{ filter, want string }{
		{`{}`, `: is empty`},
		{`{type: URL_REWRITE, requestRedirect: {port: 1}}`, `.type: is URLRewrite, so urlRewrite must be set`},
		{`{requestHeaderModifier: {remove: [a]}, responseHeaderModifier: {remove: [a]}}`, `: sets requestHeaderModifier and responseHeaderModifier: a filter does one thing`},
		{`{requestHeaderModifier: {}}`, `.requestHeaderModifier: is empty`},
		{`{requestHeaderModifier: {set: [{name: "a b", value: c}]}}`, `.requestHeaderModifier.set[0].name: "a b" is not a header name`},
		{`{requestHeaderModifier: {set: [{name: a, value: "b\n"}]}}`, `.requestHeaderModifier.set[0].value: "b\n" holds the control character "\n"`},
		{`{requestHeaderModifier: {set: [{name: a, value: b}, {name: A, value: c}]}}`, `.requestHeaderModifier.set[1].name: the header "a" is there twice`},
		{`{requestHeaderModifier: {remove: [Content-Length]}}`, `.requestHeaderModifier.remove[0]: "Content-Length" is the proxy's own`},
		{`{requestHeaderModifier: {set: [{name: Host, value: b}]}}`, `.requestHeaderModifier.set[0].name: "Host" is set by a URLRewrite filter`},
		{`{responseHeaderModifier: {add: [{name: Transfer-Encoding, value: chunked}]}}`, `.responseHeaderModifier.add[0].name: "Transfer-Encoding" is the proxy's own`},
		{`{requestRedirect: {}}`, `.requestRedirect: would send the client to where it is`},
		{`{requestRedirect: {scheme: ftp}}`, `.requestRedirect.scheme: must be http or https, not "ftp"`},
		{`{requestRedirect: {hostname: "*.a.b"}}`, `.requestRedirect.hostname: "*.a.b" must be one host`},
		{`{requestRedirect: {port: 65536}}`, `.requestRedirect.port: must be from 1 to 65535`},
		{`{requestRedirect: {port: 1, statusCode: 200}}`, `.requestRedirect.statusCode: must be 301, 302, 303, 307 or 308, not 200`},
		{`{urlRewrite: {}}`, `.urlRewrite: is empty`},
		{`{urlRewrite: {path: {}}}`, `.urlRewrite.path.type: is required: ReplaceFullPath or ReplacePrefixMatch`},
		{`{urlRewrite: {path: {replaceFullPath: a}}}`, `.urlRewrite.path.replaceFullPath: "a" must start with "/"`},
		{`{urlRewrite: {path: {type: REPLACE_FULL_PATH, replaceFullPath: /a, replacePrefixMatch: /b}}}`, `.urlRewrite.path.replacePrefixMatch: cannot stand beside type ReplaceFullPath`},
		{`{urlRewrite: {path: {type: REPLACE_PREFIX_MATCH, replaceFullPath: /a, replacePrefixMatch: /b}}}`, `.urlRewrite.path.replaceFullPath: cannot stand beside type ReplacePrefixMatch`},
	} {
		t.Run(c.want, func(t *testing.T) {
			expect(t, read(t, "Route", `{parentRefs: [{name: p}], rules: [{filters: [`+c.filter+`]}]}`), in+c.want)
		})
	}
}

func TestFiltersThatDoNotStandTogether(t *testing.T) {
	const redirect, rewrite = `{requestRedirect: {port: 1}}`, `{urlRewrite: {hostname: a.b}}`
	for _, c := range []struct {
		rule string
		want []string
	}{
		{`{filters: [` + redirect + `], backendRefs: [{name: b}]}`, []string{`spec.rules[0].backendRefs: cannot stand beside a RequestRedirect filter`}},
		{`{filters: [` + redirect + `, ` + rewrite + `]}`, []string{`spec.rules[0].filters: URLRewrite cannot stand beside RequestRedirect`}},
		{`{filters: [` + rewrite + `, ` + rewrite + `]}`, []string{`spec.rules[0].filters[1]: a rule has one URLRewrite filter at most`}},
		{`{matches: [{path: {value: /a}}, {path: {type: EXACT, value: /b}}], filters: [{urlRewrite: {path: {replacePrefixMatch: /c}}}]}`,
			[]string{`spec.rules[0].filters[0].urlRewrite.path.type: ReplacePrefixMatch needs a prefix to replace, but matches[1].path is not of type PathPrefix`}},
	} {
		t.Run(c.want[0], func(t *testing.T) {
			expect(t, read(t, "Route", `{parentRefs: [{name: p}], rules: [`+c.rule+`]}`), c.want...)
		})
	}
}

func TestPluginAndPolicyAreRefused(t *testing.T) {
	for _, c := range []struct{ kind, spec, want string }{
		{"Plugin", `{}`, `spec.digest: is required`},
		{"Plugin", `{digest: "sha256:ABC"}`, `spec.digest: "sha256:ABC" is not`},
		{"Plugin", `{digest: "` + digest + `", limits: {memoryBytes: 1}}`, `spec.limits.memoryBytes: must be from 65536 to 1073741824, not 1`},
		{"Plugin", `{digest: "` + digest + `", limits: {fuel: 10000000001}}`, `spec.limits.fuel: must be at most`},
		{"Policy", `{plugin: p}`, `spec.targetRefs: needs at least one Tenant, Gateway, Route or Service`},
		{"Policy", `{plugin: p, targetRefs: [{name: a}]}`, `spec.targetRefs[0].kind: is required`},
		{"Policy", `{plugin: p, targetRefs: [{kind: Plugin, name: a}]}`, `spec.targetRefs[0].kind: a policy is attached to its Tenant, a Gateway, a Route or a Service, not to "Plugin"`},
		{"Policy", `{plugin: p, targetRefs: [{kind: Tenant, name: shop}]}`, `spec.targetRefs[0]: has neither a name nor a section`},
		{"Policy", `{plugin: p, targetRefs: [{kind: Service}]}`, `spec.targetRefs[0].name: is required`},
		{"Policy", `{plugin: p, targetRefs: [{kind: Route, name: a}, {kind: Route, name: a}]}`, `spec.targetRefs[1]: the target "Route a" is there twice`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}]}`, `spec.plugin: is required`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], plugin: p, services: [{}]}`, `spec.services[0].name: is required`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], plugin: p, waf: {}}`, `spec.plugin: a policy is the use of a plugin or of the web application firewall (waf), not of both`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {}, config: {a: 1}}`, `spec.config: is for plugins; the firewall's settings stand in waf`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {}, services: [{name: a}]}`, `spec.services: is for plugins`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {paranoiaLevel: 5}}`, `spec.waf.paranoiaLevel: must be from 1 to 4, not 5; leave it out for 1`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {bodyLimit: 786433}}`, `spec.waf.bodyLimit: must be from 1 to 786432, not 786433; leave it out for 131072`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {mode: DETECT, oversize: REJECT}}`, `spec.waf.oversize: must not be REJECT in mode DETECT`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {responseBodyLimit: 1}}`, `spec.waf.responseBodyLimit: has no meaning without inspectResponse: true`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {exclusions: [{paths: [{value: /a}]}]}}`, `spec.waf.exclusions[0]: needs ruleIds, ruleRanges or tags`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {exclusions: [{ruleIds: [0]}]}}`, `spec.waf.exclusions[0].ruleIds[0]: is the number of a rule, such as 942100, not 0`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {exclusions: [{ruleRanges: [{first: 2, last: 1}]}]}}`, `spec.waf.exclusions[0].ruleRanges[0].last: must not be less than first, which is 2`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {exclusions: [{tags: ["a'b"]}]}}`, `spec.waf.exclusions[0].tags[0]: "a'b" holds "'"`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {exclusions: [{ruleIds: [1], parameters: ["a,b"]}]}}`, `spec.waf.exclusions[0].parameters[0]: "a,b" holds ","`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], waf: {exclusions: [{ruleIds: [1], paths: [{value: "a"}]}]}}`, `spec.waf.exclusions[0].paths[0].value: "a" must start with "/"`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], plugin: p, services: [{name: a}, {name: b, as: a}]}`, `spec.services[1]: what the plugin calls the service "a" is there twice`},
		{"Policy", `{targetRefs: [{kind: Route, name: a}], plugin: p, services: [{name: a, as: "` + strings.Repeat("x", 257) + `"}]}`, `spec.services[0].as: must have at most 256 bytes, not 257`},
	} {
		t.Run(c.want, func(t *testing.T) { expect(t, read(t, c.kind, c.spec), c.want) })
	}
}

func TestConsumersAndMeshAreRefused(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	for _, c := range []struct{ kind, spec, want string }{
		{"Api", `{version: v1, targetRefs: [{name: a}], authentication: {}}`, `spec.authentication: needs a way: apiKey: {}`},
		{"Api", `{version: v1, targetRefs: [{name: a}], authentication: {apiKey: {header: "a b"}}}`, `spec.authentication.apiKey.header: `},
		{"Api", `{version: v1, targetRefs: [{name: a}], authentication: {apiKey: {}, consumerHeader: "a b"}}`, `spec.authentication.consumerHeader: `},
		{"Api", `{version: v1, targetRefs: [{name: a}], authentication: {apiKey: {}, consumerHeader: X-API-Key}}`, `spec.authentication.consumerHeader: is where the key is`},
		{"App", `{organization: "a b"}`, `spec.organization: "a b" is not a name`},
		{"Credential", `{sha256: "` + sum + `"}`, `spec.app: is required`},
		{"Credential", `{app: demo, sha256: "0a"}`, `spec.sha256: must be the SHA-256 of the key`},
		{"Credential", `{app: demo, sha256: "` + sum + `", prefix: "0123456789abcdefg"}`, `spec.prefix: has 17 bytes; the most is 16`},
		{"Plan", `{}`, `spec.apis: needs at least one Api`},
		{"Plan", `{apis: [a, a]}`, `spec.apis[1]: the Api "a" is there twice`},
		{"Plan", `{apis: [a], limits: [{name: x, window: 1s}]}`, `spec.limits[0].requests: must be 1 to`},
		{"Plan", `{apis: [a], limits: [{name: x, requests: 1}]}`, `spec.limits[0].window: must be 1 s to 31 days`},
		{"Plan", `{apis: [a], limits: [{name: x, requests: 1, window: 1.5s}]}`, `spec.limits[0].window: must be 1 s to 31 days`},
		{"Plan", `{apis: [a], limits: [{name: x, requests: 1, window: 1s}, {name: x, requests: 2, window: 2s}]}`, `spec.limits[1].name: the limit "x" is there twice`},
		{"Subscription", `{app: demo}`, `spec.plan: is required`},
		{"Instance", `{service: books, node: books-1, address: "10.0.0.7"}`, `spec.address: "10.0.0.7" has no port`},
		{"AccessRule", `{}`, `spec.service: is required`},
		{"AccessRule", `{service: books, allow: [{from: [shop]}]}`, `spec.allow[0].from[0]: must be a SPIFFE ID`},
		{"AccessRule", `{service: books, allow: [{methods: ["GET "]}]}`, `spec.allow[0].methods[0]: `},
		{"AccessRule", `{service: books, allow: [{paths: ["/a*b"]}]}`, `spec.allow[0].paths[0]: must be a path that begins with '/'`},
	} {
		t.Run(c.kind, func(t *testing.T) { expect(t, read(t, c.kind, c.spec), c.want) })
	}
	for kind, spec := range map[string]string{
		"Api":          `{version: v1, targetRefs: [{name: a}], authentication: {apiKey: {header: x-key}}}`,
		"App":          `{organization: acme}`,
		"Credential":   `{app: demo, sha256: "` + sum + `", prefix: wk_0a1b, expireTime: "2027-01-01T00:00:00Z"}`,
		"Plan":         `{apis: [books], limits: [{name: minute, requests: 100, window: 60s, exact: true}]}`,
		"Subscription": `{app: demo, plan: free, state: ACTIVE}`,
		"Instance":     `{service: books, node: books-1, address: "10.0.0.7:9443", labels: {version: v1}}`,
		"AccessRule":   `{service: books, allow: [{from: ["spiffe://weir/ns/default/svc/shop"], methods: [GET], paths: ["/v1/*", "/health"]}]}`,
	} {
		t.Run(kind+" is well", func(t *testing.T) { expect(t, read(t, kind, spec)) })
	}
}

func TestContractAndApiAreRefused(t *testing.T) {
	api := func(more string) string { return `{version: v1, targetRefs: [{name: a}], ` + more + `}` }
	for _, c := range []struct{ kind, spec, want string }{
		{"Contract", `{}`, `spec.openapi: is required`},
		{"Contract", `{openapi: x, openapiFile: a.yaml}`, `spec.openapiFile: is there beside openapi`},
		{"Api", `{targetRefs: [{name: a}]}`, `spec.version: must have 1 to 64 bytes`},
		{"Api", `{version: v1}`, `spec.targetRefs: needs at least one Route`},
		{"Api", `{version: v1, targetRefs: [{kind: Gateway, name: a}]}`, `spec.targetRefs[0].kind: an Api is Routes, not a Gateway`},
		{"Api", `{version: v1, targetRefs: [{name: a}, {name: a}]}`, `spec.targetRefs[1]: the target "a" is there twice`},
		{"Api", api(`validation: {request: ENFORCE}`), `spec.contractRef: is required for validation`},
		{"Api", api(`contractRef: {name: c}, validation: {maxBodyBytes: 67108865}`), `spec.validation.maxBodyBytes: must be at most 67108864`},
		{"Api", api(`state: DEPRECATED`), `spec.deprecation.at: is required in state DEPRECATED`},
		{"Api", api(`deprecation: {at: "2027-01-01T00:00:00Z", sunset: "2026-01-01T00:00:00Z"}`), `spec.deprecation.sunset: must not be before deprecation.at`},
		{"Api", api(`deprecation: {successor: "a b"}`), `spec.deprecation.successor: must be a URL`},
		{"Api", api("deprecation: {successor: 'https://a/\\b'}"), `spec.deprecation.successor: must be a URL`},
		{"Api", api(`deprecation: {successor: "https://a/>;x"}`), `spec.deprecation.successor: must be a URL`},
	} {
		t.Run(c.want, func(t *testing.T) { expect(t, read(t, c.kind, c.spec), c.want) })
	}
	expect(t, read(t, "Api", api(`state: DEPRECATED, contractRef: {name: c}, validation: {response: REPORT}, deprecation: {at: "2027-01-01T00:00:00Z", sunset: "2027-07-01T00:00:00Z", successor: "/v2"}`)))
}

func TestHeaderIsRefused(t *testing.T) {
	type object = map[string]any
	for _, c := range []struct {
		name string
		body object
		want []string
	}{
		{"no metadata", object{}, []string{"metadata.name: is required"}},
		{"another kind", object{"kind": "Route", "metadata": object{"name": "x"}}, []string{`kind: must be "Service"`}},
		{"another version", object{"apiVersion": "v1", "metadata": object{"name": "x"}}, []string{`apiVersion: must be "weir/v1", not "v1"`}},
		{"a name too long", object{"metadata": object{"name": strings.Repeat("x", 64)}}, []string{"metadata.name: is 64 bytes long"}},
		{"a tenant in capitals", object{"metadata": object{"name": "x", "tenant": "ACME"}}, []string{`metadata.tenant: "ACME" is not a name`}},
		{"labels", object{"metadata": object{"name": "x", "labels": object{"a b": "c", "d": "e/f", "-/g": ""}}},
			[]string{`metadata.labels["-/g"]: "-/g": "-" before`, `metadata.labels["a b"]: "a b" is not a label key`, `metadata.labels["d"]: "e/f" is not a label value`}},
		{"too big", object{"metadata": object{"name": "x", "annotations": object{"a": strings.Repeat("x", resource.MaxBytes)}}}, []string{"is 262"}},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, readBody(t, "Service", c.body), c.want...) })
	}
}

func TestWhatOnlyABinaryClientCanSend(t *testing.T) {
	expect(t, &weirv1.Resource{}, "the resource is of no kind: set one of Gateway, Service, Route, Plugin, Policy, Certificate, PluginTrust, Contract, Api, App, Credential, Plan, Subscription, Instance or AccessRule")

	r := read(t, "Policy", `{targetRefs: [{kind: Route, name: a}], plugin: p}`)
	r.GetPolicy().Spec.Stage = 99
	expect(t, r, "spec.stage: has the value 99, which this version does not know")

	r = read(t, "Gateway", `{listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]}`)
	r.GetGateway().Spec.Listeners[1].Protocol = 99
	expect(t, r, "spec.listeners[1].protocol: has the value 99, which this version does not know")

	r = read(t, "Route", `{parentRefs: [{name: p}], rules: [{matches: [{path: {value: /a}}], filters: [{}], timeouts: {}}]}`)
	rule := r.GetRoute().Spec.Rules[0]
	rule.Matches[0].Path.Type = 42
	rule.Filters[0].Type = 43
	rule.Timeouts.Request = &durationpb.Duration{Seconds: 1, Nanos: -1}
	resource.Normalize(r)
	found := map[string]bool{}
	for _, v := range resource.Validate(r) {
		found[v.Field] = true
	}
	for _, field := range []string{"spec.rules[0].matches[0].path.type", "spec.rules[0].filters[0].type", "spec.rules[0].timeouts.request"} {
		if !found[field] {
			t.Errorf("%s is not refused", field)
		}
	}
}

// A configuration travels inside other messages, each of which leaves less of
// the nesting that a decoder allows.
func TestConfigurationIsNotTooDeep(t *testing.T) {
	nested := func(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }
	const policy = `{targetRefs: [{kind: Route, name: a}], plugin: p, config: {a: %s, b: {c: 1}}}`
	expect(t, read(t, "Policy", fmt.Sprintf(policy, nested(resource.MaxDepth))))
	expect(t, read(t, "Policy", fmt.Sprintf(policy, nested(resource.MaxDepth+1))), "spec.config: is nested more than 64 deep")
}

func TestTrafficFiltersAreRefused(t *testing.T) {
	const at = `spec.rules[0].filters[0]`
	for _, c := range []struct{ filter, want string }{
		{`{cors: {}}`, `.cors.allowOrigins: needs at least one origin`},
		{`{cors: {allowOrigins: ["*", "https://a.example"]}}`, `.cors.allowOrigins: "*" is every one, so it stands alone`},
		{`{cors: {allowOrigins: [a.example]}}`, `.cors.allowOrigins[0]: "a.example" has no scheme`},
		{`{cors: {allowOrigins: ["ftp://a.example"]}}`, `.cors.allowOrigins[0]: "ftp://a.example": the scheme must be http or https`},
		{`{cors: {allowOrigins: ["https://a.example/"]}}`, `.cors.allowOrigins[0]: "https://a.example/" is more than an origin`},
		{`{cors: {allowOrigins: ["https://a.*.example"]}}`, `.cors.allowOrigins[0]: "https://a.*.example": a wildcard stands at the front`},
		{`{cors: {allowOrigins: ["https://a.example:0"]}}`, `.cors.allowOrigins[0]: "https://a.example:0": the port must be from 1 to 65535, not "0"`},
		{`{cors: {allowOrigins: ["https://A.example"]}}`, `.cors.allowOrigins[0]: "https://A.example" must be lower case: "https://a.example"`},
		{`{cors: {allowOrigins: ["*"], allowMethods: [put]}}`, `.cors.allowMethods[0]: "put" must be upper case`},
		{`{cors: {allowOrigins: ["*"], allowHeaders: ["a b"]}}`, `.cors.allowHeaders[0]: "a b" is not a header name`},
		{`{cors: {allowOrigins: ["*"], exposeHeaders: [a, A]}}`, `.cors.exposeHeaders[1]: the entry "a" is there twice`},
		{`{requestMirror: {}}`, `.requestMirror.backendRef.name: is required`},
		{`{requestMirror: {backendRef: {name: a, weight: 1}}}`, `.requestMirror.backendRef.weight: has no meaning here`},
		{`{requestMirror: {backendRef: {name: a}, percent: 101}}`, `.requestMirror.percent: must be from 0 to 100, not 101`},
		{`{requestMirror: {backendRef: {name: a}, percent: 1, fraction: {numerator: 1}}}`, `.requestMirror.percent: cannot stand beside fraction`},
		{`{requestMirror: {backendRef: {name: a}, fraction: {numerator: 101}}}`, `.requestMirror.fraction.numerator: must not be more than the denominator, 100`},
		{`{requestMirror: {backendRef: {name: a}, fraction: {numerator: 0, denominator: 0}}}`, `.requestMirror.fraction.denominator: must be at least 1`},
		{`{compression: {algorithms: [gzp]}}`, `.compression.algorithms[0]: must be zstd, br or gzip, not "gzp"; did you mean "gzip"?`},
		{`{compression: {algorithms: [br, br]}}`, `.compression.algorithms[1]: the algorithm "br" is there twice`},
		{`{compression: {types: [text]}}`, `.compression.types[0]: "text" is not a media type`},
		{`{compression: {types: ["*/*"]}}`, `.compression.types[0]: "*/*" is not a media type`},
		{`{fault: {}}`, `.fault: does nothing: give delay, abort, bandwidth or disconnect`},
		{`{fault: {delay: {percent: 1}}}`, `.fault.delay.fixed: is required: how long, such as 400ms`},
		{`{fault: {delay: {fixed: 1s, percent: 100.5}}}`, `.fault.delay.percent: must be from 0 to 100, not 100.5`},
		{`{fault: {abort: {}}}`, `.fault.abort.status: must be from 200 to 599, not 0`},
		{`{fault: {abort: {status: 500, grpcStatus: 1}}}`, `.fault.abort.grpcStatus: cannot stand beside status`},
		{`{fault: {abort: {grpcStatus: 17}}}`, `.fault.abort.grpcStatus: must be from 0 to 16, not 17`},
		{`{fault: {bandwidth: {}}}`, `.fault.bandwidth.bytesPerSecond: is required, and at least 1`},
		{`{fault: {disconnect: {}, headers: [{name: a, value: "(", type: REGULAR_EXPRESSION}]}}`, `.fault.headers[0].value: "(" is not a regular expression`},
	} {
		t.Run(c.want, func(t *testing.T) {
			expect(t, read(t, "Route", `{parentRefs: [{name: p}], rules: [{filters: [`+c.filter+`]}]}`), at+c.want)
		})
	}
	expect(t, read(t, "Route", `{parentRefs: [{name: p}], rules: [{filters: [{compression: {}}, {compression: {}}]}]}`),
		`spec.rules[0].filters[1]: a rule has one Compression filter at most`)
}
