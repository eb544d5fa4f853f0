package proxy_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// marker is a native policy: it writes its name into the request and the
// response, and does what its plugin is called: "deny" answers, "fail" fails.
type marker struct {
	maker *markers
	spec  policy.Spec
	open  atomic.Int64
}

// markers makes them and counts what is alive.
type markers struct {
	mu       sync.Mutex
	alive    int
	made     int
	released []*marker
}

func (m *markers) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	if spec.Plugin == "broken" {
		return nil, errors.New("it does not start")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive++
	m.made++
	return &marker{maker: m, spec: spec}, nil
}

func (p *marker) Spec() policy.Spec        { return p.spec }
func (p *marker) Phases() policy.Phases    { return policy.RequestHead | policy.ResponseHead }
func (p *marker) NewFilter() policy.Filter { return p }
func (p *marker) Begin(*exchange.Exchange) error {
	p.open.Add(1)
	return nil
}

func (p *marker) Release() {
	p.maker.mu.Lock()
	defer p.maker.mu.Unlock()
	p.maker.alive--
	p.maker.released = append(p.maker.released, p)
}

func (p *marker) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	switch p.spec.Plugin {
	case "deny":
		x.Answer(403, []byte("no"))
		return policy.Respond, nil
	case "fail":
		return policy.Continue, errors.New("broken on purpose")
	}
	seen := x.Request.Fields.Get("X-Seen")
	x.Request.Fields.Set([]byte("X-Seen"), x.Copy(string(seen), p.spec.Name, " "))
	return policy.Continue, nil
}

func (p *marker) OnResponse(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	seen := x.Response.Fields.Get("X-Back")
	x.Response.Fields.Set([]byte("X-Back"), x.Copy(string(seen), p.spec.Name, " "))
	return policy.Continue, nil
}

func (*marker) OnRequestBody(*exchange.Exchange, *[]byte, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

func (*marker) OnResponseBody(*exchange.Exchange, *[]byte, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}
func (p *marker) Close(*exchange.Exchange) { p.open.Add(-1) }

func attach(name, plugin, kind, to string, stage weirv1.PolicySpec_Stage, mode ...weirv1.PolicySpec_FailureMode) *weirv1.Policy {
	p := &weirv1.Policy{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PolicySpec{
		TargetRefs: []*weirv1.TargetRef{{Kind: kind, Name: to}}, Plugin: plugin, Stage: stage}}
	if len(mode) > 0 {
		p.Spec.FailureMode = mode[0]
	}
	return p
}

func plugins(names ...string) (all []resource.Message) {
	for _, n := range names {
		all = append(all, &weirv1.Plugin{Metadata: &weirv1.Metadata{Name: n}, Spec: &weirv1.PluginSpec{Digest: "sha256:" + n}})
	}
	return all
}

// with makes a proxy with policies.
func with(m policy.Maker) func(*proxy.Config) {
	return func(c *proxy.Config) { c.Policies = m }
}

func seen(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Seen")) }

func TestPoliciesRunInOrder(t *testing.T) {
	base := append(plugins("mark", "deny", "fail"), service("s", upstreamServer(t, seen)), route("r", "/", "s"))
	const unset, authn, limit, transform = weirv1.PolicySpec_STAGE_UNSPECIFIED, weirv1.PolicySpec_AUTHN, weirv1.PolicySpec_LIMIT, weirv1.PolicySpec_TRANSFORM
	for _, c := range []struct {
		name     string
		policies []resource.Message
		status   int
		body     string
		back     string
	}{
		{"none", nil, 200, "", ""},
		{"by stage, then name", []resource.Message{
			attach("b", "mark", "Route", "r", transform), attach("a", "mark", "Route", "r", unset),
			attach("z", "mark", "Route", "r", authn), attach("m", "mark", "Route", "r", limit)},
			200, "z m a b", "b a m z"},
		{"a gateway's before a route's", []resource.Message{
			attach("a", "mark", "Route", "r", authn), attach("z", "mark", "Gateway", "public", authn), attach("b", "mark", "Gateway", "public", transform)},
			200, "z a b", "b a z"},
		{"one that answers ends it", []resource.Message{
			attach("first", "mark", "Route", "r", authn), attach("no", "deny", "Route", "r", limit), attach("last", "mark", "Route", "r", transform)},
			403, "no", "first"},
		{"one that fails CLOSED", []resource.Message{
			attach("first", "mark", "Route", "r", authn), attach("bad", "fail", "Route", "r", limit, weirv1.PolicySpec_CLOSED)},
			500, "", "first"},
		{"one that fails OPEN", []resource.Message{
			attach("first", "mark", "Route", "r", authn), attach("bad", "fail", "Route", "r", limit, weirv1.PolicySpec_OPEN), attach("last", "mark", "Route", "r", transform)},
			200, "first last", "last first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEdgeWith(t, with(new(markers)), append(base, c.policies...)...)
			resp, body := get(t, e.url("/"))
			if resp.StatusCode != c.status || c.status != 500 && body != c.body || resp.Header.Get("X-Back") != c.back {
				t.Errorf("got %d %q, back %q", resp.StatusCode, body, resp.Header.Get("X-Back"))
			}
		})
	}
}

// TestWhatPoliciesAreAttachedTo: the tenant, a Gateway or a listener, a Route or a rule,
// a Service or a subset. With several services only the policies of the one that is
// asked run.
func TestWhatPoliciesAreAttachedTo(t *testing.T) {
	answer := func(name string) *weirv1.Endpoint {
		return &weirv1.Endpoint{Address: upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+": "+r.Header.Get("X-Seen")) }),
			Labels: map[string]string{"version": name}}
	}
	books, reviews := service("books"), service("reviews")
	books.Spec.Endpoints = []*weirv1.Endpoint{answer("books")}
	reviews.Spec.Endpoints = []*weirv1.Endpoint{answer("v1"), answer("v2")}
	for _, name := range []string{"v1", "v2"} {
		reviews.Spec.Subsets = append(reviews.Spec.Subsets, &weirv1.Subset{Name: name, Labels: map[string]string{"version": name}})
	}
	r := route("r", "/books", "books")
	r.Spec.Rules[0].Name = "read"
	shared := route("r", "/reviews", "reviews").Spec.Rules[0]
	shared.Name, shared.BackendRefs = "shared", []*weirv1.BackendRef{{Name: "reviews", Subset: "v1"}, {Name: "reviews", Subset: "v2"}, {Name: "books"}}
	r.Spec.Rules = append(r.Spec.Rules, shared)
	on := func(name, kind, target, section string) *weirv1.Policy {
		p := attach(name, "mark", kind, target, weirv1.PolicySpec_AUTHN)
		p.Spec.TargetRefs[0].SectionName = section
		return p
	}
	tenant, ofBooks := on("tenant", "Tenant", "", ""), on("books", "Service", "books", "")
	maker := new(markers)
	e := startEdgeWith(t, with(maker), append(plugins("mark"), books, reviews, r, tenant, ofBooks,
		on("gateway", "Gateway", "public", ""), on("listener", "Gateway", "public", "http"), on("route", "Route", "r", ""), on("rule", "Route", "r", "shared"),
		on("reviews", "Service", "reviews", ""), on("canary", "Service", "reviews", "v2"))...)
	all := func(path string, n int) map[string]int {
		got := map[string]int{}
		for range n {
			_, body := get(t, e.url(path))
			got[strings.TrimSpace(body)]++
		}
		return got
	}
	want := func(what string, got map[string]int, bodies ...string) {
		t.Helper()
		for _, body := range bodies {
			if got[body] == 0 {
				t.Errorf("%s: none is %q: %v", what, body, got)
			}
		}
		if len(got) != len(bodies) {
			t.Errorf("%s: %v", what, got)
		}
	}
	want("one service", all("/books", 3), "books: tenant gateway listener route books")
	want("several", all("/reviews", 30), "v1: tenant gateway listener route rule reviews",
		"v2: tenant gateway listener route rule canary reviews", "books: tenant gateway listener route rule books")

	// What is changed, or goes, is at once so for all that it is attached to.
	changed := on("tenant", "Route", "nowhere", "")
	e.apply(changed)
	want("no policy of the tenant", all("/books", 3), "books: gateway listener route books")
	e.apply(tenant, on("books", "Service", "reviews", "v1"))
	want("a policy that moved", all("/books", 3), "books: tenant gateway listener route")
	want("a policy that moved", all("/reviews", 30), "v1: tenant gateway listener route rule books reviews",
		"v2: tenant gateway listener route rule canary reviews", "books: tenant gateway listener route rule")
	other := route("other", "/other", "books")
	e.apply(other)
	want("a new route", all("/other", 3), "books: tenant gateway listener")
}

// TestAPolicyThatIsAttachedTwiceRunsOnce, where it is attached most widely.
func TestAPolicyThatIsAttachedTwiceRunsOnce(t *testing.T) {
	twice := attach("twice", "mark", "Gateway", "public", weirv1.PolicySpec_AUTHN)
	twice.Spec.TargetRefs = append(twice.Spec.TargetRefs, &weirv1.TargetRef{Kind: "Route", Name: "r"}, &weirv1.TargetRef{Kind: "Tenant"})
	e := startEdgeWith(t, with(new(markers)), append(plugins("mark"), service("s", upstreamServer(t, seen)), route("r", "/", "s"), twice)...)
	if _, body := get(t, e.url("/")); body != "twice" {
		t.Errorf("%q", body)
	}
}

func TestPolicyThatDoesNotStartRefusesTheUpdate(t *testing.T) {
	maker := new(markers)
	e := startEdgeWith(t, with(maker), append(plugins("mark", "broken"), service("s", upstreamServer(t, seen)), route("r", "/", "s"),
		attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))...)
	if err := e.try(attach("b", "broken", "Route", "r", weirv1.PolicySpec_LIMIT)); err == nil {
		t.Fatal("it was accepted")
	}
	if _, body := get(t, e.url("/")); body != "a" {
		t.Errorf("the policies in force changed: %q", body)
	}
	if maker.alive != 1 {
		t.Errorf("%d policies are alive: what a refused update made is released", maker.alive)
	}
}

// A policy lives exactly as long as a request can still reach it.
func TestPoliciesAreReleased(t *testing.T) {
	maker := new(markers)
	e := startEdgeWith(t, with(maker), append(plugins("mark"), service("s", upstreamServer(t, seen)), route("r", "/", "s"),
		attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))...)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var failed atomic.Int64
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				resp, err := http.Get(e.url("/"))
				if err != nil {
					failed.Add(1)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					failed.Add(1)
				}
			}
		})
	}
	for range 300 {
		e.apply(route("r", "/", "s"))
	}
	stop()
	load.Wait()
	http.DefaultClient.CloseIdleConnections()
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if failed.Load() > 0 {
		t.Errorf("%d requests failed", failed.Load())
	}
	if maker.alive != 0 || maker.made != 301 {
		t.Errorf("%d of %d policies were not released", maker.alive, maker.made)
	}
	for _, p := range maker.released {
		if n := p.open.Load(); n != 0 {
			t.Fatalf("a policy was released with %d filters open", n)
		}
	}
}
