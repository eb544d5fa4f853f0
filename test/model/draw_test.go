package model

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/test/edge"
)

// draw makes what a run is made of, by its seed.
type draw struct{ *rand.Rand }

func pick[E any](d draw, from ...E) E { return from[d.IntN(len(from))] }

var (
	services = []string{"s0", "s1", "s2"}
	subsets  = []string{"v1", "v2"} // of each of these
	shadows  = []string{"m0", "m1"} // what is mirrored goes to them
)

func (d draw) route(name string) *weirv1.Route {
	r := edge.Route(name, "/", services[0])
	r.Spec.Hostnames = pick(d, nil, nil, []string{"a.example"}, []string{"*.example"}, []string{"b.a.example", "c"}, []string{"*.a.example"})
	r.Spec.Rules = nil
	for range 1 + d.IntN(3) {
		rule := &weirv1.RouteRule{Filters: d.filters()}
		for range 1 + d.IntN(2) {
			rule.Matches = append(rule.Matches, d.match())
		}
		if !redirects(rule) {
			rule.BackendRefs = d.backends()
		}
		r.Spec.Rules = append(r.Spec.Rules, rule)
	}
	for _, rule := range r.Spec.Rules {
		rewritePrefixOnly(rule)
	}
	return r
}

func redirects(rule *weirv1.RouteRule) bool {
	for _, f := range rule.Filters {
		if f.RequestRedirect != nil {
			return true
		}
	}
	return false
}

// rewritePrefixOnly: a prefix is replaced only where all matches are by one.
func rewritePrefixOnly(rule *weirv1.RouteRule) {
	for _, f := range rule.Filters {
		for _, p := range []*weirv1.PathModifier{f.GetUrlRewrite().GetPath(), f.GetRequestRedirect().GetPath()} {
			if p.GetType() == weirv1.PathModifier_REPLACE_PREFIX_MATCH {
				for _, m := range rule.Matches {
					m.Path.Type = weirv1.PathMatch_PATH_PREFIX
				}
			}
		}
	}
}

func (d draw) match() *weirv1.RouteMatch {
	m := &weirv1.RouteMatch{
		Path: &weirv1.PathMatch{
			Type:  pick(d, weirv1.PathMatch_EXACT, weirv1.PathMatch_PATH_PREFIX, weirv1.PathMatch_PATH_PREFIX),
			Value: pick(d, "/", "/p", "/p/q", "/p/q/r"),
		},
		Method: pick(d, "", "", "", "GET", "POST"),
	}
	if d.IntN(4) == 0 {
		m.Headers = append(m.Headers, &weirv1.HeaderMatch{Name: pick(d, "X-A", "x-a"), Value: pick(d, "1", "2")})
	}
	return m
}

func (d draw) backends() (all []*weirv1.BackendRef) {
	for _, i := range d.Perm(len(services))[:1+d.IntN(len(services))] {
		b := &weirv1.BackendRef{Name: services[i], Subset: pick(d, "", "", "v1", "v2")}
		if d.IntN(2) == 0 {
			weight := uint32(d.IntN(4))
			b.Weight = &weight
		}
		all = append(all, b)
	}
	return all
}

func (d draw) filters() (all []*weirv1.RouteFilter) {
	if d.IntN(2) == 0 {
		all = append(all, &weirv1.RouteFilter{RequestHeaderModifier: d.modifier()})
	}
	if d.IntN(2) == 0 {
		all = append(all, &weirv1.RouteFilter{ResponseHeaderModifier: d.modifier()})
	}
	switch d.IntN(5) {
	case 0:
		all = append(all, &weirv1.RouteFilter{RequestRedirect: &weirv1.RequestRedirect{
			Scheme: pick(d, "", "", "http", "https"), Hostname: pick(d, "", "", "r.example"),
			Port: pick(d, uint32(0), 0, 80, 443, 8443), StatusCode: pick(d, uint32(0), 301, 308), Path: d.path()}})
	case 1:
		all = append(all, &weirv1.RouteFilter{UrlRewrite: &weirv1.UrlRewrite{Hostname: pick(d, "", "w.example"), Path: d.path()}})
	}
	if d.IntN(3) == 0 {
		all = append(all, &weirv1.RouteFilter{Cors: &weirv1.Cors{
			AllowOrigins:     pick(d, []string{"*"}, []string{"https://o.example"}, []string{"https://*.example", "http://p.example:8080"}),
			AllowMethods:     pick(d, nil, []string{"*"}, []string{"PUT", "DELETE"}),
			AllowCredentials: pick(d, false, true)}})
	}
	for _, i := range d.Perm(len(shadows))[:max(0, d.IntN(2+len(shadows))-1)] {
		mirror := &weirv1.RequestMirror{BackendRef: &weirv1.BackendRef{Name: shadows[i]}}
		if d.IntN(4) == 0 {
			mirror.Percent = new(uint32) // none
		}
		all = append(all, &weirv1.RouteFilter{RequestMirror: mirror})
	}
	for _, f := range all { // one that says nothing is refused
		if w := f.UrlRewrite; w != nil && w.Hostname == "" && w.Path == nil {
			w.Hostname = "w.example"
		}
		if r := f.RequestRedirect; r != nil && r.Scheme == "" && r.Hostname == "" && r.Port == 0 && r.Path == nil {
			r.Hostname = "r.example" // it would lead to itself
		}
	}
	return all
}

func (d draw) path() *weirv1.PathModifier {
	switch d.IntN(3) {
	case 0:
		return nil
	case 1:
		return &weirv1.PathModifier{Type: weirv1.PathModifier_REPLACE_FULL_PATH, ReplaceFullPath: pick(d, "/", "/full", "/full/path")}
	}
	return &weirv1.PathModifier{Type: weirv1.PathModifier_REPLACE_PREFIX_MATCH, ReplacePrefixMatch: pick(d, "/", "/new", "/new/", "/n/e/w")}
}

func (d draw) modifier() *weirv1.HeaderModifier {
	m := new(weirv1.HeaderModifier)
	for i, name := range d.Perm(3)[:1+d.IntN(3)] { // of one name, one thing is done
		field := &weirv1.HeaderValue{Name: []string{"X-A", "x-b", "X-C"}[name], Value: fmt.Sprintf("m%d", i)}
		switch d.IntN(3) {
		case 0:
			m.Set = append(m.Set, field)
		case 1:
			m.Add = append(m.Add, field)
		default:
			m.Remove = append(m.Remove, field.Name)
		}
	}
	return m
}

func (d draw) question() question {
	q := question{
		method: pick(d, "GET", "GET", "POST", "PUT"),
		host:   pick(d, "a.example", "b.a.example", "x.example", "c", "d"),
		path:   pick(d, "/", "/p", "/p/", "/p/q", "/p/q/r", "/p/q/r/s", "/pq", "/z"),
		query:  pick(d, "", "", "?k=v", "?k=/p"),
		fields: http.Header{},
		origin: pick(d, "", "", "https://o.example", "https://a.o.example", "http://p.example:8080", "http://p.example", "null"),
	}
	switch {
	case q.method == "POST" || q.method == "PUT":
		q.body = pick(d, "", "x", strings.Repeat("a body of some length ", 400))
	case q.origin != "" && d.IntN(4) == 0:
		q.method, q.wants = "OPTIONS", pick(d, "GET", "POST", "PUT")
	}
	for range d.IntN(3) {
		q.fields.Add(pick(d, "X-A", "X-B"), pick(d, "1", "2"))
	}
	return q
}
