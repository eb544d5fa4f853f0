package router_test

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/resource"
)

// model is the rules of the package's page, read literally: look at every
// listener, then at every match of every route, and keep the best.
type model struct {
	gateways, routes map[string]proto.Message
}

// rank holds what decides, most important first; the larger wins.
type rank []int

func (m *model) match(port uint16, x *exchange.Exchange) string {
	host := modelHost(string(x.Request.Authority))
	listener, found := m.listener(port, host)
	if !found {
		return ""
	}
	best, won := rank(nil), ""
	for _, name := range sorted(m.routes) {
		r := m.routes[name].(*weirv1.Route)
		hostname, fits := m.hostname(r, port, listener, host)
		if !fits {
			continue
		}
		for i, rule := range r.Spec.Rules {
			matches := rule.Matches
			if len(matches) == 0 {
				matches = []*weirv1.RouteMatch{{}}
			}
			for _, match := range matches {
				path, fits := modelFits(match, x)
				if !fits {
					continue
				}
				got := slices.Concat(hostRank(hostname), path, rank{
					len(match.Method), len(match.Headers), len(match.QueryParams), -int(r.Metadata.CreateTime.AsTime().Unix()),
				})
				// Only a strictly better one displaces: names, rules and
				// matches are looked at in order.
				if won == "" || slices.Compare(got, best) > 0 {
					best, won = got, fmt.Sprintf("%s/%d", name, i)
				}
			}
		}
	}
	return won
}

func sorted(m map[string]proto.Message) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// listener is the most specific hostname of a listener that fits.
func (m *model) listener(port uint16, host string) (hostname string, found bool) {
	for _, g := range m.gateways {
		for _, l := range g.(*weirv1.Gateway).Spec.Listeners {
			if l.Port == uint32(port) && hostFits(l.Hostname, host) &&
				(!found || slices.Compare(hostRank(l.Hostname), hostRank(hostname)) > 0) {
				hostname, found = l.Hostname, true
			}
		}
	}
	return hostname, found
}

// hostname is the route's most specific hostname that fits, provided that the
// route is attached to a listener with that port and hostname.
func (m *model) hostname(r *weirv1.Route, port uint16, listener, host string) (best string, found bool) {
	attached := false
	for _, p := range r.Spec.ParentRefs {
		g, ok := m.gateways[p.Name].(*weirv1.Gateway)
		if !ok {
			continue
		}
		for _, l := range g.Spec.Listeners {
			attached = attached || l.Port == uint32(port) && l.Hostname == listener &&
				(p.SectionName == "" || p.SectionName == l.Name) && (p.Port == 0 || p.Port == l.Port)
		}
	}
	hostnames := r.Spec.Hostnames
	if len(hostnames) == 0 {
		hostnames = []string{""}
	}
	for _, h := range hostnames {
		if attached && hostFits(h, host) && (!found || slices.Compare(hostRank(h), hostRank(best)) > 0) {
			best, found = h, true
		}
	}
	return best, found
}

func hostRank(hostname string) rank {
	if strings.HasPrefix(hostname, "*") {
		return rank{0, len(hostname)}
	}
	return rank{len(hostname), 0}
}

func hostFits(hostname, host string) bool {
	if suffix, ok := strings.CutPrefix(hostname, "*"); ok {
		return strings.HasSuffix(host, suffix) && len(host) > len(suffix)
	}
	return hostname == "" || hostname == host
}

func modelHost(authority string) string {
	if host, _, err := net.SplitHostPort(authority); err == nil {
		authority = host
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(authority, "[]"), "."))
}

// modelFits returns the rank of the path: exact 4; an expression 3 and its length, but
// 1 where any first segment fits; a prefix 2 and its length, but 0 for "/".
func modelFits(m *weirv1.RouteMatch, x *exchange.Exchange) (path rank, fits bool) {
	raw, rawQuery, _ := strings.Cut(string(x.Request.Path), "?")
	value := m.GetPath().GetValue()
	if value == "" {
		value = "/"
	}
	switch m.GetPath().GetType() {
	case weirv1.PathMatch_EXACT:
		path, fits = rank{4, 0}, raw == value
	case weirv1.PathMatch_REGULAR_EXPRESSION:
		path, fits = rank{3, len(value)}, whole(value, raw)
		if strings.HasPrefix(value, "/[^/]+/") {
			path[0] = 1
		}
	default:
		value = strings.TrimRight(value, "/")
		path, fits = rank{2, len(value)}, strings.HasPrefix(raw+"/", value+"/")
		if value == "" {
			path[0] = 0
		}
	}
	fits = fits && (m.Method == "" || m.Method == string(x.Request.Method))
	for _, h := range m.Headers {
		var values []string
		for v := range x.Request.Fields.Values(h.Name) {
			values = append(values, string(v))
		}
		joined := strings.Join(values, ", ")
		fits = fits && values != nil && (h.Type == weirv1.HeaderMatch_REGULAR_EXPRESSION && whole(h.Value, joined) || h.Value == joined)
	}
	query, _ := url.ParseQuery(rawQuery)
	for _, p := range m.QueryParams {
		first := query.Get(p.Name)
		fits = fits && query.Has(p.Name) && (p.Type == weirv1.QueryParamMatch_REGULAR_EXPRESSION && whole(p.Value, first) || p.Value == first)
	}
	return path, fits
}

func whole(pattern, s string) bool {
	return regexp.MustCompile("^(" + pattern + ")$").MatchString(s)
}

var (
	hostnames = []string{"", "a.b", "x.a.b", "*.b", "*.a.b", "c"}
	authority = []string{"a.b", "A.b:80", "x.a.b", "y.a.b", "z.b.", "c", "x.y.a.b", "[::1]:80", "d"}
	paths     = []string{"", "/", "/p", "/p/", "/p/q", "/p/q/r", "=/p", "=/p/q", "~/p.*", "~/p/q", "~/.", "~/.+", "~/[^/]+/q", "~/[^/]+/q.*"}
	targets   = []string{"", "p", "p/", "p/q", "p/q/r", "pq", "p/q?a=1", "p?a=1&b=2", "?b=%32&a=2", "p/q/r/s?b=+2"}
	extras    = []string{"", "GET", "POST", "x:1", "y~1.*", "x:1 y:2", "?a=1", "?a~.", "?a=1 ?b=2", "GET x:1", "GET ?b=2"}
	sections  = []string{"one", "two", "three"}
)

func pick[E any](t *rapid.T, from []E) E { return rapid.SampledFrom(from).Draw(t, "pick") }

func some[E any](t *rapid.T, upTo int, draw func() E) (s []E) {
	for range rapid.IntRange(0, upTo).Draw(t, "count") {
		s = append(s, draw())
	}
	return s
}

func drawGateway(t *rapid.T, name string) *weirv1.Gateway {
	g := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: name}, Spec: new(weirv1.GatewaySpec)}
	for _, section := range sections {
		g.Spec.Listeners = append(g.Spec.Listeners, &weirv1.Listener{
			Name: section, Port: pick(t, []uint32{80, 80, 81}), Hostname: pick(t, hostnames),
		})
	}
	return g
}

func drawRoute(t *rapid.T, name string) *weirv1.Route {
	r := route(name, "", some(t, 3, func() []*weirv1.RouteMatch {
		return on(some(t, 2, func() string { return pick(t, paths) + " " + pick(t, extras) })...)
	})...)
	r.Spec.Hostnames = some(t, 2, func() string { return pick(t, hostnames[1:]) })
	r.Spec.ParentRefs = some(t, 2, func() *weirv1.ParentRef {
		return &weirv1.ParentRef{
			Name:        pick(t, []string{"g", "h"}),
			SectionName: pick(t, []string{"", "", "one", "two"}),
			Port:        pick(t, []uint32{0, 0, 80, 81}),
		}
	})
	return born(r, rapid.IntRange(0, 2).Draw(t, "age"))
}

// step changes the model and says how.
func (m *model) step(t *rapid.T) (c router.Change) {
	for _, name := range []string{"g", "h"} {
		switch rapid.IntRange(0, 9).Draw(t, "gateway") {
		case 0:
			delete(m.gateways, name)
			c.Removed = append(c.Removed, resource.Ref{Kind: resource.KindGateway, Name: name})
		case 1:
			g := drawGateway(t, name)
			m.gateways[name], c.Gateways = g, append(c.Gateways, g)
		}
	}
	for i := range 6 {
		name := fmt.Sprintf("r%d", i)
		switch rapid.IntRange(0, 5).Draw(t, "route") {
		case 0:
			delete(m.routes, name)
			c.Removed = append(c.Removed, resource.Ref{Kind: resource.KindRoute, Name: name})
		case 1, 2:
			r := drawRoute(t, name)
			m.routes[name], c.Routes = r, append(c.Routes, r)
		}
	}
	return c
}

func (m *model) check(t *rapid.T, tab *table) {
	for range 12 {
		x := request(pick(t, []string{"GET ", "POST "})+pick(t, authority)+"/"+pick(t, targets),
			some(t, 3, func() string { return pick(t, []string{"x: 1", "X: 2", "y: 1", "y: 2"}) })...)
		port := pick(t, []uint16{80, 80, 81, 82})
		if got, want := match(tab, port, x), m.match(port, x); got != want {
			t.Fatalf("port %d, %s %s%s %v: got rule %q, want %q\ngateways %v\nroutes %v", port, x.Request.Method,
				x.Request.Authority, x.Request.Path, x.Request.Fields, got, want, m.gateways, m.routes)
		}
	}
}

// Whatever the changes, every table answers as the model of its time does: the
// newest, and the older ones that it shares its parts with.
func TestTablesAnswerAsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := &model{gateways: map[string]proto.Message{}, routes: map[string]proto.Message{}}
		first := router.Change{}
		for _, name := range []string{"g", "h"} {
			g := drawGateway(t, name)
			now.gateways[name], first.Gateways = g, append(first.Gateways, g)
		}
		tab, err := new(table).With(first, label)
		if err != nil {
			t.Fatal(err)
		}
		type past struct {
			model model
			table *table
		}
		var older []past
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			tab, err = tab.With(now.step(t), label)
			if err != nil {
				t.Fatal(err)
			}
			now.check(t, tab)
			older = append(older, past{model{cloneMap(now.gateways), cloneMap(now.routes)}, tab})
		}
		for _, p := range older {
			p.model.check(t, p.table)
		}
	})
}

func cloneMap(m map[string]proto.Message) map[string]proto.Message {
	c := map[string]proto.Message{}
	for k, v := range m {
		c[k] = v
	}
	return c
}
