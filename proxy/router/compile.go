package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// route is a compiled route, attached to nothing yet.
type route[T any] struct {
	key       string // "tenant/name"
	tenant    string
	created   time.Time
	hostnames []string // normal, each once; [""] for none
	parents   []*weirv1.ParentRef
	rules     []*Rule[T]
	matches   []*match[T]
}

// compare orders routes by age, then by the alphabet.
func (r *route[T]) compare(o *route[T]) int {
	return cmp.Or(r.created.Compare(o.created), strings.Compare(r.key, o.key))
}

// key is what resources of one kind are filed under.
func key(tenant, name string) string {
	return cmp.Or(tenant, resource.DefaultTenant) + "/" + name
}

func keyOf(m *weirv1.Metadata) string { return key(m.GetTenant(), m.GetName()) }

func compileRoute[T any](spec *weirv1.Route, compile func(*weirv1.Route, int) (T, error)) (*route[T], error) {
	meta := spec.GetMetadata()
	r := &route[T]{
		key:     keyOf(meta),
		tenant:  cmp.Or(meta.GetTenant(), resource.DefaultTenant),
		created: meta.GetCreateTime().AsTime(),
		parents: spec.GetSpec().GetParentRefs(),
	}
	for _, h := range spec.GetSpec().GetHostnames() {
		if h = normalHostname(h); !slices.Contains(r.hostnames, h) {
			r.hostnames = append(r.hostnames, h)
		}
	}
	if len(r.hostnames) == 0 {
		r.hostnames = []string{""}
	}
	for i, rule := range spec.GetSpec().GetRules() {
		if err := r.addRule(i, rule); err != nil {
			return nil, fmt.Errorf("compile route %s: rules[%d].%w", r.key, i, err)
		}
		// The caller's part comes last: what it makes may have to be released,
		// and nothing of this rule can fail after it.
		value, err := compile(spec, i)
		if err != nil {
			return nil, fmt.Errorf("compile route %s: rules[%d]: %w", r.key, i, err)
		}
		r.rules[i].Value = value
	}
	return r, nil
}

func (r *route[T]) addRule(i int, spec *weirv1.RouteRule) error {
	name := strings.TrimPrefix(r.key, r.tenant+"/")
	rule := &Rule[T]{
		Route: resource.Ref{Kind: resource.KindRoute, Tenant: r.tenant, Name: name},
		Index: i,
		Name:  spec.GetName(),
	}
	r.rules = append(r.rules, rule)
	specs := spec.GetMatches()
	if len(specs) == 0 {
		specs = []*weirv1.RouteMatch{{}}
	}
	for j, spec := range specs {
		m, err := compileMatch[T](spec)
		if err != nil {
			return fmt.Errorf("matches[%d].%w", j, err)
		}
		m.rule, m.route, m.index = rule, r, j
		r.matches = append(r.matches, m)
	}
	return nil
}

func compileMatch[T any](spec *weirv1.RouteMatch) (*match[T], error) {
	m := &match[T]{method: spec.GetMethod()}
	var err error
	path := cmp.Or(spec.GetPath().GetValue(), "/")
	switch spec.GetPath().GetType() {
	case weirv1.PathMatch_EXACT:
		m.kind, m.path = Exact, path
	case weirv1.PathMatch_REGULAR_EXPRESSION:
		m.kind, m.path = Regex, path
		if m.pattern, err = compilePattern(path); err != nil {
			return nil, fmt.Errorf("path.value: %w", err)
		}
	default:
		m.kind, m.path = Prefix, strings.TrimRight(path, "/")
	}
	for i, h := range spec.GetHeaders() {
		isRegex := h.GetType() == weirv1.HeaderMatch_REGULAR_EXPRESSION
		m.headers, err = addValueMatch(m.headers, strings.ToLower(h.GetName()), h.GetValue(), isRegex)
		if err != nil {
			return nil, fmt.Errorf("headers[%d].value: %w", i, err)
		}
	}
	for i, p := range spec.GetQueryParams() {
		isRegex := p.GetType() == weirv1.QueryParamMatch_REGULAR_EXPRESSION
		m.params, err = addValueMatch(m.params, p.GetName(), p.GetValue(), isRegex)
		if err != nil {
			return nil, fmt.Errorf("queryParams[%d].value: %w", i, err)
		}
	}
	return m, nil
}

// addValueMatch adds a match unless there is one of that name already.
func addValueMatch(to []valueMatch, name, value string, isRegex bool) ([]valueMatch, error) {
	if slices.ContainsFunc(to, func(v valueMatch) bool { return v.name == name }) {
		return to, nil
	}
	v := valueMatch{name: name, exact: value}
	if isRegex {
		var err error
		if v.pattern, err = compilePattern(value); err != nil {
			return nil, err
		}
	}
	return append(to, v), nil
}

// compilePattern compiles an expression that must fit the whole text.
func compilePattern(s string) (*regexp.Regexp, error) {
	// Alone first: "a)|(b" must not become valid by what is put around it.
	if _, err := regexp.Compile(s); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + s + `)\z`)
}

// placedListener is a listener and the group that serves it.
type placedListener struct {
	*Listener
	group int
}

// compileListeners lists the listeners, the oldest gateway's first.
func compileListeners(gateways map[string]*weirv1.Gateway) ([]*Listener, error) {
	ordered := make([]*weirv1.Gateway, 0, len(gateways))
	for _, g := range gateways {
		ordered = append(ordered, g)
	}
	slices.SortFunc(ordered, func(a, b *weirv1.Gateway) int {
		return cmp.Or(
			a.GetMetadata().GetCreateTime().AsTime().Compare(b.GetMetadata().GetCreateTime().AsTime()),
			strings.Compare(keyOf(a.GetMetadata()), keyOf(b.GetMetadata())),
		)
	})
	var listeners []*Listener
	for _, g := range ordered {
		for i, spec := range g.GetSpec().GetListeners() {
			l, err := compileListener(g, spec)
			if err != nil {
				return nil, fmt.Errorf("compile gateway %s: listeners[%d].%w", keyOf(g.GetMetadata()), i, err)
			}
			listeners = append(listeners, l)
		}
	}
	return listeners, nil
}

func compileListener(g *weirv1.Gateway, spec *weirv1.Listener) (*Listener, error) {
	l := &Listener{
		Gateway: resource.Ref{
			Kind:   resource.KindGateway,
			Tenant: cmp.Or(g.GetMetadata().GetTenant(), resource.DefaultTenant),
			Name:   g.GetMetadata().GetName(),
		},
		Name:     spec.GetName(),
		Port:     uint16(spec.GetPort()),
		Protocol: spec.GetProtocol(),
		Hostname: normalHostname(spec.GetHostname()),
	}
	if spec.GetPort() == 0 || spec.GetPort() > 65535 {
		return nil, fmt.Errorf("port: %d is not a port", spec.GetPort())
	}
	if spec.GetAddress() != "" {
		address, err := netip.ParseAddr(spec.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		if !address.IsUnspecified() {
			l.Address = address.Unmap()
		}
	}
	return l, nil
}
