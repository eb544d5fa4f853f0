package proxy_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// stuck is a maker that does not come to an end, as when a large plugin is
// compiled.
type stuck struct{ begun, end chan struct{} }

func (m *stuck) Make(context.Context, policy.Spec, policy.Services) (policy.Policy, error) {
	close(m.begun)
	<-m.end
	return nil, errors.New("it took too long")
}

// The admin address answers while an update takes its time.
func TestTheAdminAddressDoesNotWaitForAnUpdate(t *testing.T) {
	m := &stuck{make(chan struct{}), make(chan struct{})}
	e := startEdgeWith(t, func(c *proxy.Config) { c.Policies, c.AdminAddress = m, "127.0.0.1:0" },
		append(plugins("mark"), service("s", upstreamServer(t, seen)), route("r", "/", "s"))...)
	done := make(chan error)
	go func() { done <- e.try(attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN)) }()
	<-m.begun
	client := http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/metrics", "/readyz", "/debug/config"} {
		resp, err := client.Get("http://" + e.AdminAddr() + path)
		if err != nil {
			t.Error(err)
			continue
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	close(m.end)
	if err := <-done; err == nil {
		t.Error("the update is in force")
	}
}

// What no route matches is counted, too: under no route.
func TestWhatHasNoRouteIsCounted(t *testing.T) {
	e := startEdgeWith(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" },
		service("s", upstreamServer(t, seen)), route("r", "/a", "s"))
	get(t, e.url("/b"))
	const want = `weir_requests_total{code="404",route=""} 1`
	var text string
	waitFor(t, func() bool { _, text = get(t, "http://"+e.AdminAddr()+"/metrics"); return strings.Contains(text, want) },
		func() string { return want + " is not in " + text })
}

// told is a policy that tells what it is shown of the caller.
type told struct {
	marker
	what chan string
}

func (p *told) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	p.spec, p.maker = spec, new(markers)
	return p, nil
}
func (p *told) NewFilter() policy.Filter     { return p }
func (*told) Begin(*exchange.Exchange) error { return nil }
func (*told) Close(*exchange.Exchange)       {}
func (p *told) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	f := &x.Request.Fields
	p.what <- string(f.Get("x-forwarded-for")) + " " + string(f.Get("x-forwarded-host")) + " " + string(f.Get("x-forwarded-proto")) + " " +
		string(f.Get("forwarded"))
	if string(f.Get("x-request-id")) != string(x.ID) {
		p.what <- "another's id"
	}
	return policy.Continue, nil
}

// Policies decide by who asks, so they must not see what a client made up either.
func TestPoliciesDoNotSeeWhatAClientSaysOfItself(t *testing.T) {
	p := &told{what: make(chan string, 2)}
	e := startEdgeWith(t, with(p), append(plugins("mark"), service("s", upstreamServer(t, seen)), route("r", "/", "s"),
		attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))...)
	get(t, e.url("/"), "X-Forwarded-For", "192.0.2.7", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
		"X-Request-Id", "made-up", "Forwarded", "for=192.0.2.7")
	close(p.what)
	for what := range p.what {
		if what != "127.0.0.1 "+e.addr+" http " {
			t.Errorf("it sees %q", what)
		}
	}
}

// holder is a policy that waits for the request's body.
type holder struct{ told }

func (p *holder) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	p.spec, p.maker = spec, new(markers)
	return p, nil
}
func (*holder) Phases() policy.Phases          { return policy.RequestHead | policy.RequestBody }
func (p *holder) NewFilter() policy.Filter     { return p }
func (*holder) Begin(*exchange.Exchange) error { return nil }
func (*holder) OnRequest(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Hold, nil
}
func (*holder) OnRequestBody(*exchange.Exchange, *[]byte, bool) (policy.Verdict, error) {
	return policy.Hold, nil
}

// A route's timeout holds for a client that takes its time with the body, also
// while a policy waits for that.
func TestTimeoutHoldsWhileAPolicyWaitsForTheBody(t *testing.T) {
	limit := func(r *weirv1.RouteRule) {
		r.Timeouts = &weirv1.RouteTimeouts{Request: duration(100 * time.Millisecond)}
	}
	e := startEdgeWith(t, with(new(holder)), append(plugins("mark"), service("s", upstreamServer(t, seen)), route("r", "/", "s", limit),
		attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))...)
	c := dial(t, e.addr)
	began := time.Now()
	resp, body := c.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
	if resp.StatusCode != 408 || !strings.Contains(body, "body_timeout") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if d := time.Since(began); d < 100*time.Millisecond {
		t.Errorf("it fired early, after %v", d)
	}
}
