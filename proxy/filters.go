package proxy

import (
	"bytes"
	"fmt"
	"strconv"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/compress"
	"github.com/weirmesh/weir/proxy/cors"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/fault"
	"github.com/weirmesh/weir/proxy/mirror"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/telemetry"
)

// filters are a rule's filters. Their order is ours, not that of the
// declaration:
//
//	CORS preflights ─▶ policies ─▶ faults ─▶ redirect ─▶ request headers ─▶ rewrite ─▶ mirror ─▶ service
//	client ◀─ bandwidth ◀─ compression ◀─ CORS ◀─ policies ◀─ response headers ◀─ service
type filters struct {
	request, response headerModifier
	redirect          *redirect
	rewrite           *rewrite
	cors              *cors.Policy
	compression       *compress.Rule
	faults            []*fault.Rule
	faultCounts       [fault.Kinds]*telemetry.Counter // where there are faults
	mirrors           []*mirror.Target
}

type field struct{ name, value []byte }

type headerModifier struct {
	set, add []field
	remove   []string
}

// apply sets, adds, then removes.
func (m *headerModifier) apply(fields *exchange.Fields) {
	for _, f := range m.set {
		fields.Set(f.name, f.value)
	}
	for _, f := range m.add {
		fields.Add(f.name, f.value)
	}
	for _, name := range m.remove {
		fields.Del(name)
	}
}

func (m *headerModifier) merge(spec *weirv1.HeaderModifier) {
	for _, h := range spec.GetSet() {
		m.set = append(m.set, field{[]byte(h.GetName()), []byte(h.GetValue())})
	}
	for _, h := range spec.GetAdd() {
		m.add = append(m.add, field{[]byte(h.GetName()), []byte(h.GetValue())})
	}
	m.remove = append(m.remove, spec.GetRemove()...)
}

type redirect struct {
	scheme, hostname string
	path             *pathModifier
	port             uint32
	status           int
}

type rewrite struct {
	hostname []byte
	path     *pathModifier
}

// pathModifier replaces the path, or the prefix that the match was by.
type pathModifier struct {
	prefix bool
	value  string
}

func (p *Proxy) compileFilters(r *rule, tenant string, specs []*weirv1.RouteFilter) (f *filters, err error) {
	if len(specs) == 0 {
		return nil, nil
	}
	f = new(filters)
	for _, spec := range specs {
		if err := p.compileTraffic(r, f, tenant, spec); err != nil {
			return nil, err
		}
		f.request.merge(spec.GetRequestHeaderModifier())
		f.response.merge(spec.GetResponseHeaderModifier())
		if r := spec.GetRequestRedirect(); r != nil {
			f.redirect = &redirect{scheme: r.GetScheme(), hostname: r.GetHostname(), port: r.GetPort(), status: int(r.GetStatusCode())}
			if f.redirect.status == 0 {
				f.redirect.status = 302
			}
			if f.redirect.path, err = compilePath(r.GetPath()); err != nil {
				return f, err
			}
		}
		if r := spec.GetUrlRewrite(); r != nil {
			f.rewrite = &rewrite{hostname: []byte(r.GetHostname())}
			if f.rewrite.path, err = compilePath(r.GetPath()); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}

func compilePath(spec *weirv1.PathModifier) (*pathModifier, error) {
	switch {
	case spec == nil:
		return nil, nil
	case spec.GetType() == weirv1.PathModifier_REPLACE_PREFIX_MATCH:
		return &pathModifier{true, spec.GetReplacePrefixMatch()}, nil
	case spec.GetType() == weirv1.PathModifier_REPLACE_FULL_PATH:
		return &pathModifier{false, spec.GetReplaceFullPath()}, nil
	}
	return nil, fmt.Errorf("path modifier has no type")
}

// modify returns the new path, the query kept.
func (m *pathModifier) modify(x *exchange.Exchange, hit *router.Hit[*rule]) []byte {
	path, query := x.Request.Path, []byte(nil)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path, query = path[:i], path[i:]
	}
	if !m.prefix {
		return x.Copy(m.value, string(query))
	}
	rest := path
	if hit.Path == router.Prefix {
		rest = path[min(len(hit.Prefix), len(path)):]
	}
	// Segments join with one slash: /a replaced by /b/ in /a/c is /b/c.
	value := m.value
	for len(value) > 0 && value[len(value)-1] == '/' {
		value = value[:len(value)-1]
	}
	slash := ""
	if value == "" && (len(rest) == 0 || rest[0] != '/') || len(rest) > 0 && rest[0] != '/' {
		slash = "/"
	}
	return x.Copy(value, slash, string(rest), string(query))
}

func (r *rewrite) apply(x *exchange.Exchange, hit *router.Hit[*rule]) {
	if len(r.hostname) > 0 {
		x.Request.Authority = r.hostname
	}
	if r.path != nil {
		x.Request.Path = r.path.modify(x, hit)
	}
}

// answer makes the response a redirect (Gateway API, HTTPRequestRedirectFilter).
func (r *redirect) answer(x *exchange.Exchange, hit *router.Hit[*rule]) {
	scheme := r.scheme
	if scheme == "" {
		scheme = string(x.Request.Scheme)
	}
	host, port := splitPort(string(x.Request.Authority))
	if r.hostname != "" {
		host = r.hostname
	}
	switch {
	case r.port != 0:
		port = strconv.FormatUint(uint64(r.port), 10)
	case r.scheme != "":
		port = "" // the scheme's own
	case port != "":
		port = strconv.Itoa(int(hit.Listener.Port))
	}
	if port != "" && !(scheme == "http" && port == "80") && !(scheme == "https" && port == "443") {
		host += ":" + port
	}
	path := x.Request.Path
	if r.path != nil {
		path = r.path.modify(x, hit)
	}
	x.Answer(r.status, nil)
	x.Details = "redirect"
	x.Response.Fields.Add([]byte("Location"), x.Copy(scheme, "://", host, string(path)))
}

// splitPort cuts the port off an authority.
func splitPort(authority string) (host, port string) {
	for i := len(authority) - 1; i >= 0; i-- {
		switch c := authority[i]; {
		case c == ':':
			return authority[:i], authority[i+1:]
		case c < '0' || c > '9':
			return authority, ""
		}
	}
	return authority, ""
}
