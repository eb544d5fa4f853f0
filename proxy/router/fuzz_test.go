package router_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Whatever stands in a request line, Match ends, and finds what was declared
// for it: the catch-all at the least.
func FuzzMatch(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "a.example:80", "/p/q?n=1&m=%32"}, {"OPTIONS", "", "*"}, {"CONNECT", "[::1]:443", ""},
		{"GET", "[", "/%"}, {"GET", "..", "//?&=&%2"}, {"GET", ":", "/p/?n=+%zz"}, {"", "A.EXAMPLE.", "p"},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), []byte(seed[2]))
	}
	tab := newTable(f, public(), route("r", "*.example a.example", on("/p/q", "=/p", "~/p/.*", "?n~[0-9]+", "POST")), route("all", "", on()))
	declared := map[string]proto.Message{}
	for _, r := range []*weirv1.Route{
		route("r", "*.example a.example", on("/p/q", "=/p", "~/p/.*", "?n~[0-9]+", "POST")), route("all", "", on()),
	} {
		declared[r.Metadata.Name] = r
	}
	f.Fuzz(func(t *testing.T, method, authority, path []byte) {
		x := new(exchange.Exchange)
		x.Request.Method, x.Request.Authority, x.Request.Path = method, authority, path
		hit, ok := tab.Match(80, x)
		if !ok {
			t.Fatalf("%q %q %q: no rule, not even the catch-all", method, authority, path)
		}
		if hit.Rule.Value == "all/0" {
			return
		}
		for _, m := range declared["r"].(*weirv1.Route).Spec.Rules[0].Matches {
			if m.QueryParams != nil {
				return // the model's parser refuses what Match takes as it stands
			}
			if _, fits := modelFits(m, x); fits {
				return
			}
		}
		t.Fatalf("%q %q %q: got rule %q, which does not fit", method, authority, path, hit.Rule.Value)
	})
}
