package access

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

const (
	shop = "spiffe://td/ns/default/svc/shop"
	till = "spiffe://td/ns/acme/svc/till"
	e1   = "spiffe://td/node/edge/e1"
)

func newFilter(t testing.TB, h *Host, allow ...*weirv1.AccessAllow) policy.Filter {
	t.Helper()
	config, err := proto.Marshal(&weirv1.AccessRuleSpec{Service: "books", Allow: allow})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Make(t.Context(), policy.Spec{Tenant: "default", Name: "books", Native: policy.Access, Config: string(config)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.NewFilter()
}

func counted(t *testing.T, h *Host) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(h)
	all, err := r.Gather()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0].GetMetric()[0].GetCounter().GetValue()
}

func request(caller, method, path string) *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Request.Method, x.Request.Path = []byte(method), []byte(path)
	if caller != "" {
		x.TLS = &exchange.TLS{Peer: &exchange.Peer{URIs: []string{caller}}}
	}
	return x
}

func TestWhoMayCall(t *testing.T) {
	reads := &weirv1.AccessAllow{From: []string{shop, "spiffe://td/node/edge/*"}, Methods: []string{"GET", "HEAD"}, Paths: []string{"/v1/*", "/health"}}
	acme := &weirv1.AccessAllow{From: []string{"spiffe://*/ns/acme/svc/*"}}
	anybody := &weirv1.AccessAllow{Paths: []string{"/open"}}
	for _, c := range []struct {
		name                 string
		allow                []*weirv1.AccessAllow
		caller, method, path string
		want                 bool
	}{
		{"it is named", []*weirv1.AccessAllow{reads}, shop, "GET", "/v1/list", true},
		{"an edge is one of them", []*weirv1.AccessAllow{reads}, e1, "HEAD", "/health", true},
		{"another path", []*weirv1.AccessAllow{reads}, shop, "GET", "/v2", false},
		{"the path of a longer one", []*weirv1.AccessAllow{reads}, shop, "GET", "/v1", false},
		{"more than an exact path", []*weirv1.AccessAllow{reads}, shop, "GET", "/health/x", false},
		{"the query is not the path", []*weirv1.AccessAllow{reads}, shop, "GET", "/health?x=/v1/", true},
		{"a query that looks like the path", []*weirv1.AccessAllow{reads}, shop, "GET", "/v2?/v1/", false},
		{"another method", []*weirv1.AccessAllow{reads}, shop, "POST", "/v1/list", false},
		{"methods are compared as they are", []*weirv1.AccessAllow{reads}, shop, "get", "/v1/list", false},
		{"another caller", []*weirv1.AccessAllow{reads}, till, "GET", "/v1/list", false},
		{"a caller that begins alike", []*weirv1.AccessAllow{reads}, shop + "s", "GET", "/v1/list", false},
		{"any of a tenant", []*weirv1.AccessAllow{reads, acme}, till, "DELETE", "/v9", true},
		{"a star is one segment in the middle", []*weirv1.AccessAllow{acme}, "spiffe://td/x/ns/acme/svc/till", "GET", "/", false},
		{"a star is something", []*weirv1.AccessAllow{acme}, "spiffe://td/ns/acme/svc/", "GET", "/", false},
		{"any caller", []*weirv1.AccessAllow{anybody}, till, "PUT", "/open", true},
		{"nobody is no caller", []*weirv1.AccessAllow{anybody}, "", "GET", "/open", false},
		{"a rule that allows none", nil, shop, "GET", "/v1/list", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := NewHost()
			f, x := newFilter(t, h, c.allow...), request(c.caller, c.method, c.path)
			verdict, err := f.OnRequest(x, true)
			if got := verdict == policy.Continue; err != nil || got != c.want {
				t.Fatalf("let in: %v, %v; want %v", got, err, c.want)
			}
			if c.want {
				return
			}
			body := ""
			for x.Response.Body != nil {
				chunk, err := x.Response.Body.Next()
				if body += string(chunk); err != nil {
					break
				}
			}
			if x.Response.Status != 403 || strings.Contains(body, "spiffe") || strings.Contains(body, "books") {
				t.Errorf("the answer is %d %s", x.Response.Status, body)
			}
			if n := counted(t, h); n != 1 {
				t.Errorf("%v are counted", n)
			}
		})
	}
}

func TestDecidingAllocatesNothing(t *testing.T) {
	r := &rules{allow: []*weirv1.AccessAllow{{From: []string{till, "spiffe://td/ns/*/svc/shop"}, Methods: []string{"GET"}, Paths: []string{"/v1/*"}}}}
	method, path := []byte("GET"), []byte("/v1/list")
	if n := testing.AllocsPerRun(100, func() {
		if !r.allows(shop, method, path) {
			t.Fatal("it is not allowed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
