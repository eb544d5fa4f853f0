package resource

import (
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// filterNames are the types as the Gateway API spells them, and their fields.
var filterNames = map[weirv1.RouteFilter_Type][2]string{
	weirv1.RouteFilter_REQUEST_HEADER_MODIFIER:  {"RequestHeaderModifier", "requestHeaderModifier"},
	weirv1.RouteFilter_RESPONSE_HEADER_MODIFIER: {"ResponseHeaderModifier", "responseHeaderModifier"},
	weirv1.RouteFilter_REQUEST_REDIRECT:         {"RequestRedirect", "requestRedirect"},
	weirv1.RouteFilter_URL_REWRITE:              {"URLRewrite", "urlRewrite"},
	weirv1.RouteFilter_CORS:                     {"CORS", "cors"},
	weirv1.RouteFilter_REQUEST_MIRROR:           {"RequestMirror", "requestMirror"},
	weirv1.RouteFilter_COMPRESSION:              {"Compression", "compression"},
	weirv1.RouteFilter_FAULT:                    {"Fault", "fault"},
}

// repeatable lists the types that a rule may have more than one of.
var repeatable = map[weirv1.RouteFilter_Type]bool{
	weirv1.RouteFilter_TYPE_UNSPECIFIED: true,
	weirv1.RouteFilter_REQUEST_MIRROR:   true,
	weirv1.RouteFilter_FAULT:            true,
}

// filters: most types once; a redirect answers by itself, so nothing that
// concerns a backend stands beside it.
func (c *check) filters(at Path, rule *weirv1.RouteRule) {
	c.count(at.Field("filters"), len(rule.GetFilters()), 0, maxEntries, "filter")
	types := map[weirv1.RouteFilter_Type]bool{}
	for i, f := range rule.GetFilters() {
		at := at.Field("filters").Index(i)
		c.filter(at, f, rule)
		if types[f.GetType()] && !repeatable[f.GetType()] {
			c.add(at, "a rule has one %s filter at most: join the two", filterNames[f.GetType()][0])
		}
		types[f.GetType()] = true
	}
	if !types[weirv1.RouteFilter_REQUEST_REDIRECT] {
		return
	}
	if len(rule.GetBackendRefs()) > 0 {
		c.add(at.Field("backendRefs"), "cannot stand beside a RequestRedirect filter, which answers by itself")
	}
	if types[weirv1.RouteFilter_URL_REWRITE] {
		c.add(at.Field("filters"), "URLRewrite cannot stand beside RequestRedirect: put the path into the redirect")
	}
}

func (c *check) filter(at Path, f *weirv1.RouteFilter, rule *weirv1.RouteRule) {
	set := filterTypes(f)
	switch {
	case len(set) == 0 && f.GetType() == weirv1.RouteFilter_TYPE_UNSPECIFIED:
		c.add(at, "is empty: set %s", english(filterFields()))
		return
	case len(set) > 1:
		c.add(at, "sets %s and %s: a filter does one thing, so make them two filters",
			filterNames[set[0]][1], filterNames[set[1]][1])
	case f.GetType() != weirv1.RouteFilter_TYPE_UNSPECIFIED && !slices.Contains(set, f.GetType()):
		names, known := filterNames[f.GetType()]
		if !known {
			return // a number without a name is noted elsewhere
		}
		c.add(at.Field("type"), "is %s, so %s must be set", names[0], names[1])
	}
	c.headerModifier(at.Field("requestHeaderModifier"), f.GetRequestHeaderModifier(), true)
	c.headerModifier(at.Field("responseHeaderModifier"), f.GetResponseHeaderModifier(), false)
	c.redirect(at.Field("requestRedirect"), f.GetRequestRedirect(), rule)
	c.rewrite(at.Field("urlRewrite"), f.GetUrlRewrite(), rule)
	c.cors(at.Field("cors"), f.GetCors())
	c.mirror(at.Field("requestMirror"), f.GetRequestMirror())
	c.compression(at.Field("compression"), f.GetCompression())
	c.fault(at.Field("fault"), f.GetFault())
}

// filterFields lists the fields that a filter may set, in their order.
func filterFields() []string {
	fields := make([]string, 0, len(filterNames))
	for i := range len(filterNames) {
		fields = append(fields, filterNames[weirv1.RouteFilter_Type(i+1)][1])
	}
	return fields
}

// framing lists the headers that say where a message ends or belong to one
// connection. The proxy alone writes them.
var framing = []string{"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
	"transfer-encoding", "upgrade"}

func (c *check) headerModifier(at Path, m *weirv1.HeaderModifier, request bool) {
	if m == nil {
		return
	}
	if len(m.GetSet())+len(m.GetAdd())+len(m.GetRemove()) == 0 {
		c.add(at, "is empty: give set, add or remove")
	}
	set := map[string]bool{}
	c.count(at.Field("set"), len(m.GetSet()), 0, maxEntries, "header")
	for i, h := range m.GetSet() {
		at := at.Field("set").Index(i)
		c.modified(at.Field("name"), h.GetName(), request)
		c.unique(set, at.Field("name"), strings.ToLower(h.GetName()), "the header")
		c.syntax(at.Field("value"), checkHeaderValue(h.GetValue()))
	}
	c.count(at.Field("add"), len(m.GetAdd()), 0, maxEntries, "header")
	for i, h := range m.GetAdd() {
		at := at.Field("add").Index(i)
		c.modified(at.Field("name"), h.GetName(), request)
		c.syntax(at.Field("value"), checkHeaderValue(h.GetValue()))
	}
	c.count(at.Field("remove"), len(m.GetRemove()), 0, maxEntries, "header")
	for i, name := range m.GetRemove() {
		c.modified(at.Field("remove").Index(i), name, request)
	}
}

func (c *check) modified(at Path, name string, request bool) {
	c.syntax(at, checkHeaderName(name))
	switch lower := strings.ToLower(name); {
	case slices.Contains(framing, lower):
		c.add(at, "%q is the proxy's own: it says where a message ends, or belongs to one connection", name)
	case lower == "host" && request:
		c.add(at, "%q is set by a URLRewrite filter: urlRewrite: {hostname: …}", name)
	}
}

func (c *check) redirect(at Path, r *weirv1.RequestRedirect, rule *weirv1.RouteRule) {
	if r == nil {
		return
	}
	if r.GetScheme() == "" && r.GetHostname() == "" && r.GetPort() == 0 && r.GetPath() == nil {
		c.add(at, "would send the client to where it is: give scheme, hostname, port or path")
	}
	switch r.GetScheme() {
	case "", "http", "https":
	default:
		c.add(at.Field("scheme"), "must be http or https, not %q", r.GetScheme())
	}
	c.optional(at.Field("hostname"), r.GetHostname(), func(s string) string { return checkHostname(s, false) })
	if r.GetPort() != 0 {
		c.syntax(at.Field("port"), checkPort(r.GetPort()))
	}
	switch r.GetStatusCode() {
	case 0, 301, 302, 303, 307, 308:
	default:
		c.add(at.Field("statusCode"), "must be 301, 302, 303, 307 or 308, not %d", r.GetStatusCode())
	}
	c.pathModifier(at.Field("path"), r.GetPath(), rule)
}

func (c *check) rewrite(at Path, r *weirv1.UrlRewrite, rule *weirv1.RouteRule) {
	if r == nil {
		return
	}
	if r.GetHostname() == "" && r.GetPath() == nil {
		c.add(at, "is empty: give hostname or path")
	}
	c.optional(at.Field("hostname"), r.GetHostname(), func(s string) string { return checkHostname(s, false) })
	c.pathModifier(at.Field("path"), r.GetPath(), rule)
}

func (c *check) pathModifier(at Path, m *weirv1.PathModifier, rule *weirv1.RouteRule) {
	if m == nil {
		return
	}
	full, prefix := at.Field("replaceFullPath"), at.Field("replacePrefixMatch")
	switch m.GetType() {
	case weirv1.PathModifier_REPLACE_FULL_PATH:
		c.syntax(full, checkPath(m.GetReplaceFullPath()))
		if m.GetReplacePrefixMatch() != "" {
			c.add(prefix, "cannot stand beside type ReplaceFullPath")
		}
	case weirv1.PathModifier_REPLACE_PREFIX_MATCH:
		c.optional(prefix, m.GetReplacePrefixMatch(), checkPath)
		if m.GetReplaceFullPath() != "" {
			c.add(full, "cannot stand beside type ReplacePrefixMatch")
		}
		for i, match := range rule.GetMatches() {
			if !isPrefix(match.GetPath()) {
				c.add(at.Field("type"), "ReplacePrefixMatch needs a prefix to replace, but matches[%d].path is not of type PathPrefix", i)
			}
		}
	default:
		c.add(at.Field("type"), "is required: ReplaceFullPath or ReplacePrefixMatch")
	}
}
