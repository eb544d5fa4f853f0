package resource

import (
	"fmt"
	"strings"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A route is judged as the Gateway API v1 judges an HTTPRoute, so that what is
// valid there and uses only what Weir serves is valid here.
func (c *check) route(spec *weirv1.RouteSpec) {
	const at = Path("spec")
	c.count(at.Field("parentRefs"), len(spec.GetParentRefs()), 1, maxEntries, "Gateway or Service to attach to, such as {name: public}")
	parents := map[string]bool{}
	for i, p := range spec.GetParentRefs() {
		at := at.Field("parentRefs").Index(i)
		c.parentRef(at, p)
		c.unique(parents, at, attachment(p.GetName(), p.GetSectionName(), p.GetPort()), "the parent")
	}
	c.count(at.Field("hostnames"), len(spec.GetHostnames()), 0, maxList, "hostname")
	hosts := map[string]bool{}
	for i, h := range spec.GetHostnames() {
		at := at.Field("hostnames").Index(i)
		c.syntax(at, checkHostname(h, true))
		c.unique(hosts, at, h, "the hostname")
	}
	c.count(at.Field("rules"), len(spec.GetRules()), 1, maxList, "rule")
	names := map[string]bool{}
	for i, rule := range spec.GetRules() {
		at := at.Field("rules").Index(i)
		c.optional(at.Field("name"), rule.GetName(), checkLabel)
		c.unique(names, at.Field("name"), rule.GetName(), "the rule")
		c.rule(at, rule)
	}
}

func (c *check) parentRef(at Path, p *weirv1.ParentRef) {
	switch p.GetKind() {
	case "", KindGateway:
	case KindService: // it acts on what the mesh sends there
		if p.GetSectionName() != "" || p.GetPort() != 0 {
			c.add(at, "a Service as a parent has neither sectionName nor port")
		}
	default:
		c.add(at.Field("kind"), "a route is attached to a Gateway or a Service, not to %q", p.GetKind())
	}
	c.syntax(at.Field("name"), checkLabel(p.GetName()))
	c.optional(at.Field("sectionName"), p.GetSectionName(), checkLabel)
	if p.GetPort() != 0 {
		c.syntax(at.Field("port"), checkPort(p.GetPort()))
	}
}

func (c *check) rule(at Path, rule *weirv1.RouteRule) {
	c.count(at.Field("matches"), len(rule.GetMatches()), 0, maxList, "match")
	for i, m := range rule.GetMatches() {
		c.match(at.Field("matches").Index(i), m)
	}
	c.tunnels(at, rule)
	c.filters(at, rule)
	c.count(at.Field("backendRefs"), len(rule.GetBackendRefs()), 0, maxEntries, "backend")
	for i, b := range rule.GetBackendRefs() {
		at := at.Field("backendRefs").Index(i)
		c.backend(at, b)
		c.weight(at.Field("weight"), b.GetWeight())
	}
	c.timeouts(at.Field("timeouts"), rule.GetTimeouts())
	c.retry(at.Field("retry"), rule.GetRetry())
	if h := rule.GetHedging(); h != nil {
		c.hedging(at.Field("hedging"), h)
	}
}

// tunnels: a rule that serves CONNECT has none of what only requests have, and
// serves nothing else, so that it reads as what it is.
func (c *check) tunnels(at Path, rule *weirv1.RouteRule) {
	const why = "is not for CONNECT, which opens a tunnel"
	connects := 0
	for i, m := range rule.GetMatches() {
		if m.GetMethod() != methodConnect {
			continue
		}
		connects++
		at := at.Field("matches").Index(i)
		if p := m.GetPath(); p != nil && (p.GetType() != weirv1.PathMatch_PATH_PREFIX || p.GetValue() != "/") { // as Kubernetes exports it
			c.add(at.Field("path"), "is not for CONNECT, which has no path")
		}
		if len(m.GetQueryParams()) > 0 {
			c.add(at.Field("queryParams"), "is not for CONNECT, which has no query")
		}
	}
	if connects == 0 {
		return
	}
	if connects < len(rule.GetMatches()) {
		c.add(at.Field("matches"), "ask for CONNECT and for other requests; give each a rule of its own")
	}
	if rule.GetRetry() != nil {
		c.add(at.Field("retry"), why)
	}
	if rule.GetHedging() != nil {
		c.add(at.Field("hedging"), why)
	}
	for i, f := range rule.GetFilters() {
		if f.GetUrlRewrite() != nil || f.GetRequestMirror() != nil || f.GetCors() != nil {
			c.add(at.Field("filters").Index(i), why)
		}
	}
}

const methodConnect = "CONNECT"

func (c *check) backend(at Path, b *weirv1.BackendRef) {
	if k := b.GetKind(); k != "" && k != KindService {
		c.add(at.Field("kind"), "a backend is a Service, not a %q", k)
	}
	c.syntax(at.Field("name"), checkLabel(b.GetName()))
	c.optional(at.Field("subset"), b.GetSubset(), checkLabel)
}

func (c *check) match(at Path, m *weirv1.RouteMatch) {
	if p := m.GetPath(); p != nil {
		c.path(at.Field("path").Field("value"), p)
	}
	c.headerMatches(at.Field("headers"), m.GetHeaders())
	c.count(at.Field("queryParams"), len(m.GetQueryParams()), 0, maxEntries, "query parameter")
	params := map[string]bool{}
	for i, q := range m.GetQueryParams() {
		c.queryParam(at.Field("queryParams").Index(i), q, params)
	}
	c.optional(at.Field("method"), m.GetMethod(), checkMethod)
}

func (c *check) path(at Path, p *weirv1.PathMatch) {
	if p.GetType() == weirv1.PathMatch_REGULAR_EXPRESSION {
		c.syntax(at, checkRegexp(p.GetValue()))
	} else {
		c.syntax(at, checkPath(p.GetValue()))
	}
}

func (c *check) headerMatches(at Path, matches []*weirv1.HeaderMatch) {
	c.count(at, len(matches), 0, maxEntries, "header")
	headers := map[string]bool{}
	for i, h := range matches {
		at := at.Index(i)
		c.syntax(at.Field("name"), checkHeaderName(h.GetName()))
		c.unique(headers, at.Field("name"), strings.ToLower(h.GetName()), "the header")
		if h.GetType() == weirv1.HeaderMatch_REGULAR_EXPRESSION {
			c.syntax(at.Field("value"), checkRegexp(h.GetValue()))
		} else {
			c.syntax(at.Field("value"), checkHeaderValue(h.GetValue()))
		}
	}
}

func (c *check) queryParam(at Path, q *weirv1.QueryParamMatch, seen map[string]bool) {
	switch name := q.GetName(); {
	case name == "":
		c.add(at.Field("name"), "is required")
	case len(name) > 256:
		c.add(at.Field("name"), "is %d bytes long; a parameter's name has at most 256", len(name))
	}
	c.unique(seen, at.Field("name"), q.GetName(), "the query parameter")
	switch value := q.GetValue(); {
	case q.GetType() == weirv1.QueryParamMatch_REGULAR_EXPRESSION:
		c.syntax(at.Field("value"), checkRegexp(value))
	case len(value) > 1024:
		c.add(at.Field("value"), "is %d bytes long; a parameter's value has at most 1024", len(value))
	}
}

func (c *check) timeouts(at Path, t *weirv1.RouteTimeouts) {
	c.duration(at.Field("request"), t.GetRequest())
	c.duration(at.Field("backendRequest"), t.GetBackendRequest())
	c.atLeast(at.Field("idle"), t.GetIdle(), time.Second)
	request, backend := t.GetRequest().AsDuration(), t.GetBackendRequest().AsDuration()
	if request > 0 && backend > request {
		c.add(at.Field("backendRequest"), "must not be longer than request (%s), not %s", request, backend)
	}
}

func (c *check) retry(at Path, r *weirv1.RouteRetry) {
	c.count(at.Field("codes"), len(r.GetCodes()), 0, maxEntries, "code")
	codes := map[string]bool{}
	for i, code := range r.GetCodes() {
		at := at.Field("codes").Index(i)
		if code < 400 || code > 599 {
			c.add(at, "must be a status from 400 to 599, not %d", code)
		}
		c.unique(codes, at, fmt.Sprint(code), "the code")
	}
	statuses := map[string]bool{}
	for i, status := range r.GetGrpcStatuses() {
		at := at.Field("grpcStatuses").Index(i)
		if status == weirv1.RouteRetry_GRPC_STATUS_UNSPECIFIED {
			c.add(at, "is required: a status such as UNAVAILABLE")
		}
		c.unique(statuses, at, status.String(), "the status")
	}
	if n := r.GetAttempts(); n > maxAttempts {
		c.add(at.Field("attempts"), "must be at most %d, not %d", maxAttempts, n)
	}
	c.duration(at.Field("backoff"), r.GetBackoff())
}

func (c *check) hedging(at Path, h *weirv1.RouteHedging) {
	if h.GetDelay() == nil {
		c.add(at.Field("delay"), "is required: how long an answer may take before another endpoint is asked, such as \"50ms\"")
	}
	c.atLeast(at.Field("delay"), h.GetDelay(), time.Millisecond)
	if n := h.GetAttempts(); n > maxHedges {
		c.add(at.Field("attempts"), "must be at most %d, not %d", maxHedges, n)
	}
}

// attachment is how a reference to a part of a resource reads, such as
// "public/http:8080".
func attachment(name, section string, port uint32) string {
	if section != "" {
		name += "/" + section
	}
	if port != 0 {
		name += fmt.Sprintf(":%d", port)
	}
	return name
}

// english joins words as a sentence does.
func english(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
