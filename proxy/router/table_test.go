package router_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/resource"
)

// parents reads "gateway/section:port" words.
func parents(r *weirv1.Route, text string) *weirv1.Route {
	r.Spec.ParentRefs = nil
	for word := range strings.FieldsSeq(text) {
		p := new(weirv1.ParentRef)
		name, port, _ := strings.Cut(word, ":")
		fmt.Sscan(port, &p.Port)
		p.Name, p.SectionName, _ = strings.Cut(name, "/")
		r.Spec.ParentRefs = append(r.Spec.ParentRefs, p)
	}
	return r
}

func TestListeners(t *testing.T) {
	gateways := []*weirv1.Gateway{
		gateway("public", "http:80", "shop:80 shop.example", "wild:80 *.example", "deep:80 *.a.example", "alt:81"),
		gateway("inner", "http:82", "also:80"),
	}
	tab := newTable(t, gateways,
		parents(route("everywhere", "", on("/every")), "public"),
		parents(route("named", "", on("/named")), "public/shop"),
		parents(route("port", "", on("/port")), "public:81"),
		parents(route("both", "", on("/both")), "public/http inner/http"),
		parents(route("host", "shop.example b.example", on("/host")), "public"),
		parents(route("stranger", "shop.example", on("/stranger")), "public/deep"),
		parents(route("orphan", "", on("/")), "nobody"),
		parents(route("twice", "", on("/twice")), "public/http inner/also"),
		parents(route("merged", "", on("/merged")), "inner/also"),
	)
	for _, c := range []struct {
		port                uint16
		request, rule, name string
	}{
		{80, "GET any.where/every", "everywhere/0", "http"},
		{80, "GET shop.example/every", "everywhere/0", "shop"},
		{80, "GET b.example/every", "everywhere/0", "wild"},
		{80, "GET x.a.example/every", "everywhere/0", "deep"},
		{81, "GET shop.example/every", "everywhere/0", "alt"},
		{82, "GET shop.example/every", "", ""},
		{83, "GET shop.example/every", "", ""},
		{80, "GET shop.example/named", "named/0", "shop"},
		{80, "GET b.example/named", "", ""},
		{81, "GET b.example/port", "port/0", "alt"},
		{80, "GET b.example/port", "", ""},
		{80, "GET else/both", "both/0", "http"},
		{82, "GET else/both", "both/0", "http"},
		{80, "GET shop.example/both", "", ""}, // the listener "shop" is chosen, and nothing falls back to "http"
		{80, "GET shop.example/host", "host/0", "shop"},
		{80, "GET b.example/host", "host/0", "wild"},
		{81, "GET b.example/host", "host/0", "alt"},
		{80, "GET c.example/host", "", ""},
		{80, "GET shop.example/stranger", "", ""},
		{80, "GET else/twice", "twice/0", "also"}, // gateways of one age go by the alphabet
		{80, "GET else/merged", "merged/0", "also"},
	} {
		hit, ok := tab.Match(c.port, request(c.request))
		if !ok {
			hit.Rule, hit.Listener = new(router.Rule[string]), new(router.Listener)
		}
		if hit.Rule.Value != c.rule || hit.Listener.Name != c.name {
			t.Errorf("port %d, %s: got rule %q by listener %q, want %q by %q",
				c.port, c.request, hit.Rule.Value, hit.Listener.Name, c.rule, c.name)
		}
	}
}

func TestListenerWithAddressHearsOnlyWhatArrivesThere(t *testing.T) {
	g := gateway("public", "all:80", "local:80")
	g.Spec.Listeners[1].Address = "127.0.0.1"
	tab := newTable(t, []*weirv1.Gateway{g},
		parents(route("all", "", on()), "public/all"), parents(route("local", "", on()), "public/local"))
	for local, want := range map[string]string{"127.0.0.1": "local/0", "::ffff:127.0.0.1": "local/0", "10.0.0.1": "all/0", "::1": "all/0"} {
		x := request("GET h/")
		x.Local = netip.AddrPortFrom(netip.MustParseAddr(local), 80)
		if got := match(tab, 80, x); got != want {
			t.Errorf("arrived at %s: got rule %q, want %q", local, got, want)
		}
	}
}

func TestTenantsKeepToTheirGateways(t *testing.T) {
	g, r := gateway("public", "http:80"), route("a", "", on())
	g.Metadata.Tenant = "acme"
	if got := match(newTable(t, []*weirv1.Gateway{g}, r), 80, request("GET h/")); got != "" {
		t.Errorf("a route of the default tenant is attached to a gateway of acme: %s", got)
	}
	r.Metadata.Tenant = "acme"
	tab := newTable(t, []*weirv1.Gateway{g}, r)
	hit, ok := tab.Match(80, request("GET h/"))
	if want := (resource.Ref{Kind: "Route", Tenant: "acme", Name: "a"}); !ok || hit.Rule.Route != want {
		t.Errorf("got %+v, want a rule of %v", hit, want)
	}
}

// A listener that carries no HTTP is attached to by name alone, so that one that is
// added to a gateway does not take the routes that are there.
func TestWhatCarriesNoHTTPHasToBeNamed(t *testing.T) {
	for _, protocol := range []weirv1.Listener_Protocol{weirv1.Listener_TCP, weirv1.Listener_TLS} {
		g := gateway("public", "http:80", "raw:81")
		g.Spec.Listeners[1].Protocol = protocol
		unnamed, section, port := route("unnamed", "", on()), route("section", "", on()), route("port", "", on())
		section.Spec.ParentRefs[0].SectionName, port.Spec.ParentRefs[0].Port = "raw", 81
		for want, r := range map[string]*weirv1.Route{"": unnamed, "section/0": section, "port/0": port} {
			if got := match(newTable(t, []*weirv1.Gateway{g}, r), 81, request("GET h/")); got != want {
				t.Errorf("%s: the route %s is matched as %q", protocol, r.Metadata.Name, got)
			}
		}
	}
}

// A socket carries HTTP or it does not: as its oldest listener says.
func TestListenersThatDisagree(t *testing.T) {
	web, raw := gateway("a", "http:80"), gateway("b", "raw:80")
	raw.Spec.Listeners[0].Protocol = weirv1.Listener_TCP
	httpRoute, rawRoute := route("web", "", on("/web")), route("raw", "", on())
	httpRoute.Spec.ParentRefs = []*weirv1.ParentRef{{Name: "a"}}
	rawRoute.Spec.ParentRefs = []*weirv1.ParentRef{{Name: "b", SectionName: "raw"}}
	tab := newTable(t, []*weirv1.Gateway{web, raw}, httpRoute, rawRoute)
	if got := match(tab, 80, request("GET h/web")); got != "web/0" {
		t.Errorf("got %q", got)
	}
	if got := match(tab, 80, request("GET h/other")); got != "" {
		t.Errorf("a route for bytes has a request: %q", got)
	}
	if n := len(slices.Collect(tab.Listeners())); n != 2 {
		t.Errorf("%d listeners are known of", n)
	}
}

func TestWithLeavesTheOlderTable(t *testing.T) {
	first := newTable(t, public(), route("a", "x.example", on("/a")), route("b", "x.example", on("/b")))
	second, err := first.With(router.Change{
		Routes:  []*weirv1.Route{route("a", "x.example", on("/a2")), route("c", "y.example", on())},
		Removed: []resource.Ref{{Kind: "Route", Tenant: "default", Name: "b"}, {Kind: "Route", Name: "unknown"}},
	}, func(r *weirv1.Route, rule int) (string, error) { return "new " + r.Metadata.Name, nil })
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][2]string{
		"GET x.example/a":  {"a/0", ""},
		"GET x.example/a2": {"", "new a"},
		"GET x.example/b":  {"b/0", ""},
		"GET y.example/":   {"", "new c"},
	} {
		for i, tab := range []*table{first, second} {
			if got := match(tab, 80, request(line)); got != want[i] {
				t.Errorf("table %d, %s: got rule %q, want %q", i+1, line, got, want[i])
			}
		}
	}
}

func TestWithCompilesOnlyWhatIsGiven(t *testing.T) {
	first := newTable(t, public(), route("a", "", on("/a"), on("/a2")), route("b", "", on("/b")))
	compiled := map[string]int{}
	count := func(r *weirv1.Route, rule int) (string, error) {
		compiled[r.Metadata.Name]++
		return label(r, rule)
	}
	for _, change := range []router.Change{
		{Routes: []*weirv1.Route{route("a", "", on("/a"), on("/a2"))}},
		{Gateways: []*weirv1.Gateway{gateway("public", "http:80", "more:81")}},
		{Removed: []resource.Ref{{Kind: "Route", Name: "b"}}},
	} {
		next, err := first.With(change, count)
		if err != nil {
			t.Fatal(err)
		}
		first = next
	}
	if want := map[string]int{"a": 2}; !maps.Equal(compiled, want) {
		t.Errorf("compiled %v, want %v", compiled, want)
	}
	if got := match(first, 81, request("GET h/a")); got != "a/0" {
		t.Errorf("on the gateway's new listener: got rule %q", got)
	}
	if n := len(slices.Collect(first.All())); n != 2 {
		t.Errorf("got %d rules, want 2", n)
	}
	if rules := first.Rules(resource.Ref{Kind: "Route", Name: "a"}); len(rules) != 2 || rules[1].Value != "a/1" {
		t.Errorf("got rules %v of a", rules)
	}
}

func TestGatewayThatGoesTakesItsListenersAlong(t *testing.T) {
	tab := newTable(t, public(), route("a", "", on()))
	gone, err := tab.With(router.Change{Removed: []resource.Ref{{Kind: "Gateway", Name: "public"}}}, label)
	if err != nil {
		t.Fatal(err)
	}
	if got := match(gone, 80, request("GET h/")); got != "" {
		t.Errorf("without the gateway: got rule %q", got)
	}
	back, err := gone.With(router.Change{Gateways: public()}, label)
	if err != nil {
		t.Fatal(err)
	}
	if got := match(back, 80, request("GET h/")); got != "a/0" {
		t.Errorf("with the gateway again: got rule %q", got)
	}
}

func TestWithRefuses(t *testing.T) {
	address := gateway("public", "http:80")
	address.Spec.Listeners[0].Address = "localhost"
	for _, c := range []struct {
		name   string
		change router.Change
		want   string
	}{
		{"a path that is no expression", router.Change{Routes: routes(route("a", "", on(), on("~/(")))}, "route default/a: rules[1].matches[0].path.value: "},
		{"an expression that closes what is around it", router.Change{Routes: routes(route("a", "", on("~/a)|(b")))}, "rules[0].matches[0].path.value: "},
		{"a header that is no expression", router.Change{Routes: routes(route("a", "", on("/", "x:1 y~[")))}, "rules[0].matches[1].headers[1].value: "},
		{"a param that is no expression", router.Change{Routes: routes(route("a", "", on("?y~*")))}, "rules[0].matches[0].queryParams[0].value: "},
		{"what the caller refuses", router.Change{Routes: routes(route("refused", "", on()))}, "rules[0]: no backend"},
		{"a port that is none", router.Change{Gateways: []*weirv1.Gateway{gateway("public", "http:70000")}}, "gateway default/public: listeners[0].port: "},
		{"an address that is none", router.Change{Gateways: []*weirv1.Gateway{address}}, "listeners[0].address: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			made, err := newTable(t, public()).With(c.change, func(r *weirv1.Route, _ int) (string, error) {
				if r.Metadata.Name == "refused" {
					return "", errors.New("no backend")
				}
				return "", nil
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || made != nil {
				t.Errorf("got table %v and error %v, want none and %q", made, err, c.want)
			}
		})
	}
}

// Tables are read while newer ones are made from them.
func TestMatchWhileTablesAreMade(t *testing.T) {
	tab := newTable(t, public(), prefixes(200)...)
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for range 500 {
				if got, want := match(tab, 80, request(fmt.Sprintf("GET h.example/team-%d/service/v%d/x", i, i))), fmt.Sprintf("r%d/0", i); got != want {
					t.Errorf("got rule %q, want %q", got, want)
					return
				}
			}
		})
	}
	for i := range 200 {
		name := fmt.Sprintf("r%d", i)
		if _, err := tab.With(router.Change{Removed: []resource.Ref{{Kind: resource.KindRoute, Name: name}}}, label); err != nil {
			t.Error(err)
		}
	}
	readers.Wait()
}

// A host is named by the routes that there are, whatever they ask of a request.
func TestNames(t *testing.T) {
	first := newTable(t, public(), route("a", "x.example", on("/a POST")), route("b", "*.example", on()))
	second, err := first.With(router.Change{Removed: []resource.Ref{{Kind: "Route", Tenant: "default", Name: "a"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]bool{"GET X.example:80/": true, "GET y.example/": false, "GET other/": false} {
		if got := first.Names(80, request(line)); got != want {
			t.Errorf("%s: %v, want %v", line, got, want)
		}
		if first.Names(81, request(line)) || second.Names(80, request(line)) {
			t.Errorf("%s is named where nothing is", line)
		}
	}
}
