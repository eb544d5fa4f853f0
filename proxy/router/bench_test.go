package router_test

import (
	"fmt"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/router"
)

// manyHosts is a route with two rules for each of n hosts.
func manyHosts(n int) []*weirv1.Route {
	all := make([]*weirv1.Route, n)
	for i := range all {
		all[i] = route(fmt.Sprintf("r%d", i), fmt.Sprintf("host-%d.example", i), on("/api"), on())
	}
	return all
}

func BenchmarkMatchExactHost(b *testing.B) {
	for _, n := range []int{1, 10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab := newTable(b, public(), manyHosts(n)...)
			x := request(fmt.Sprintf("GET host-%d.example:8080/api/books/17?page=2", n-1))
			b.ReportAllocs()
			for b.Loop() {
				tab.Match(80, x)
			}
		})
	}
}

// Every request is for another host, as in real traffic: the caches are cold.
func BenchmarkMatchSpreadHosts(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab := newTable(b, public(), manyHosts(n)...)
			x := request("GET h/api/books/17")
			authorities := make([][]byte, n)
			for i := range authorities {
				authorities[i] = fmt.Appendf(nil, "host-%d.example", i*7919%n)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Request.Authority = authorities[i%n]
				tab.Match(80, x)
			}
		})
	}
}

func BenchmarkMatchCatchAll(b *testing.B) {
	tab := newTable(b, public(), route("all", "", on()))
	x := request("GET 127.0.0.1:8080/api/books/17")
	b.ReportAllocs()
	for b.Loop() {
		tab.Match(80, x)
	}
}

func BenchmarkMatchWildcardHost(b *testing.B) {
	tab := newTable(b, public(), append(manyHosts(10_000), route("w", "*.wild.example", on("/api")))...)
	x := request("GET a.b.wild.example/api")
	b.ReportAllocs()
	for b.Loop() {
		tab.Match(80, x)
	}
}

// prefixes is n routes under one host, each with a prefix of its own.
func prefixes(n int) []*weirv1.Route {
	all := make([]*weirv1.Route, n)
	for i := range all {
		all[i] = route(fmt.Sprintf("r%d", i), "h.example", on(fmt.Sprintf("/team-%d/service/v%d", i, i%7)))
	}
	return all
}

func BenchmarkMatchPrefix(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab := newTable(b, public(), prefixes(n)...)
			x := request("GET h.example/team-5/service/v5/books/17/pages/3")
			b.ReportAllocs()
			for b.Loop() {
				tab.Match(80, x)
			}
		})
	}
}

// The worst paths there are: as many segments as fit into a large head.
func BenchmarkMatchPathOfSlashes(b *testing.B) {
	tab := newTable(b, public(), prefixes(10_000)...)
	x := request("GET h.example/" + strings.Repeat("/", 16<<10))
	b.ReportAllocs()
	for b.Loop() {
		tab.Match(80, x)
	}
}

func BenchmarkWith(b *testing.B) {
	for name, all := range map[string][]*weirv1.Route{
		"hosts":    manyHosts(30_000),
		"prefixes": prefixes(30_000),
		"headers":  sameEverything(30_000),
	} {
		tab := newTable(b, public(), all...)
		b.Run(name+"/one", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				change := router.Change{Routes: all[i%len(all) : i%len(all)+1]}
				if _, err := tab.With(change, label); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/all", func(b *testing.B) {
			for b.Loop() {
				newTable(b, public(), all...)
			}
		})
	}
}

// sameEverything is n routes that only a header tells apart.
func sameEverything(n int) []*weirv1.Route {
	all := make([]*weirv1.Route, n)
	for i := range all {
		all[i] = route(fmt.Sprintf("r%d", i), "h.example", on(fmt.Sprintf("x-team:%d", i)))
	}
	return all
}
