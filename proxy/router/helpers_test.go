package router_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/router"
)

// A rule's value in these tests is "route/index".
type table = router.Table[string]

func label(r *weirv1.Route, rule int) (string, error) {
	return fmt.Sprintf("%s/%d", r.GetMetadata().GetName(), rule), nil
}

func newTable(t testing.TB, gateways []*weirv1.Gateway, routes ...*weirv1.Route) *table {
	t.Helper()
	made, err := new(table).With(router.Change{Gateways: gateways, Routes: routes}, label)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// gateway has listeners written as "name:port hostname".
func gateway(name string, listeners ...string) *weirv1.Gateway {
	g := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.GatewaySpec{}}
	for _, text := range listeners {
		var l weirv1.Listener
		where, hostname, _ := strings.Cut(text, " ")
		l.Name, where, _ = strings.Cut(where, ":")
		fmt.Sscan(where, &l.Port)
		l.Hostname, l.Protocol = hostname, weirv1.Listener_HTTP
		g.Spec.Listeners = append(g.Spec.Listeners, &l)
	}
	return g
}

// public is a gateway that takes every host on port 80.
func public() []*weirv1.Gateway { return []*weirv1.Gateway{gateway("public", "http:80")} }

// route has a rule for each list of matches and the parent "public".
func route(name, hostnames string, rules ...[]*weirv1.RouteMatch) *weirv1.Route {
	r := &weirv1.Route{
		Metadata: &weirv1.Metadata{Name: name},
		Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Name: "public"}},
			Hostnames:  strings.Fields(hostnames),
		},
	}
	for _, matches := range rules {
		r.Spec.Rules = append(r.Spec.Rules, &weirv1.RouteRule{Matches: matches})
	}
	return r
}

func born(r *weirv1.Route, second int) *weirv1.Route {
	r.Metadata.CreateTime = timestamppb.New(time.Unix(int64(second), 0))
	return r
}

// on reads matches, each written as words: a path ("/x" prefix, "=/x" exact,
// "~/x" expression), METHOD, "header:value", "header~pattern", "?name=value",
// "?name~pattern".
func on(texts ...string) (matches []*weirv1.RouteMatch) {
	for _, text := range texts {
		matches = append(matches, parseMatch(text))
	}
	return matches
}

func parseMatch(text string) *weirv1.RouteMatch {
	m := new(weirv1.RouteMatch)
	for _, word := range strings.Fields(text) {
		at := strings.IndexAny(word, ":=~")
		switch {
		case word[0] == '/':
			m.Path = &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: word}
		case word[0] == '=':
			m.Path = &weirv1.PathMatch{Type: weirv1.PathMatch_EXACT, Value: word[1:]}
		case word[0] == '~':
			m.Path = &weirv1.PathMatch{Type: weirv1.PathMatch_REGULAR_EXPRESSION, Value: word[1:]}
		case at < 0:
			m.Method = word
		case word[0] == '?':
			p := &weirv1.QueryParamMatch{Name: word[1:at], Value: word[at+1:]}
			if word[at] == '~' {
				p.Type = weirv1.QueryParamMatch_REGULAR_EXPRESSION
			}
			m.QueryParams = append(m.QueryParams, p)
		default:
			h := &weirv1.HeaderMatch{Name: word[:at], Value: word[at+1:]}
			if word[at] == '~' {
				h.Type = weirv1.HeaderMatch_REGULAR_EXPRESSION
			}
			m.Headers = append(m.Headers, h)
		}
	}
	return m
}

// request is written as "METHOD host/path?query", and fields as "name: value".
func request(line string, fields ...string) *exchange.Exchange {
	x := new(exchange.Exchange)
	method, target, _ := strings.Cut(line, " ")
	host, path, _ := strings.Cut(target, "/")
	x.Request.Method, x.Request.Authority, x.Request.Path = []byte(method), []byte(host), []byte("/"+path)
	x.Local = netip.MustParseAddrPort("127.0.0.1:80")
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		x.Request.Fields.Add([]byte(name), []byte(value))
	}
	return x
}
