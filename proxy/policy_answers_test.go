package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// native is a policy that consists of functions; it makes itself, and is its
// own filter.
type native struct {
	spec     policy.Spec
	request  func(x *exchange.Exchange) policy.Verdict
	reqBody  func(chunk *[]byte, end bool) policy.Verdict
	response func(x *exchange.Exchange) policy.Verdict
	resBody  func(chunk *[]byte, end bool) policy.Verdict
}

func (n *native) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	n.spec = spec
	return n, nil
}

func (n *native) Spec() policy.Spec            { return n.spec }
func (n *native) Release()                     {}
func (n *native) Close(*exchange.Exchange)     {}
func (n *native) NewFilter() policy.Filter     { return n }
func (*native) Begin(*exchange.Exchange) error { return nil }
func (n *native) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	return n.request(x), nil
}
func (n *native) OnRequestBody(_ *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	return n.reqBody(chunk, end), nil
}
func (n *native) OnResponse(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	return n.response(x), nil
}
func (n *native) OnResponseBody(_ *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	return n.resBody(chunk, end), nil
}

func (n *native) Phases() (p policy.Phases) {
	for phase, wanted := range map[policy.Phases]bool{policy.RequestHead: n.request != nil, policy.RequestBody: n.reqBody != nil,
		policy.ResponseHead: n.response != nil, policy.ResponseBody: n.resBody != nil} {
		if wanted {
			p |= phase
		}
	}
	return p
}

// startEdgeUnder starts a proxy whose one route runs a policy.
func startEdgeUnder(t *testing.T, n *native, addr string) *edge {
	t.Helper()
	return startEdgeWithPolicy(t, n, service("s", addr), route("r", "/", "s"))
}

// startEdgeWithPolicy has a policy on route r.
func startEdgeWithPolicy(t *testing.T, n *native, resources ...resource.Message) *edge {
	t.Helper()
	return startEdgeWith(t, func(c *proxy.Config) { c.Policies = n }, append(resources,
		&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "native"}, Spec: &weirv1.PluginSpec{}},
		&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "p"}, Spec: &weirv1.PolicySpec{
			Plugin: "native", TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}}})...)
}

// change is a policy that changes the request's head.
func change(f func(x *exchange.Exchange)) *native {
	return &native{request: func(x *exchange.Exchange) policy.Verdict { f(x); return policy.Continue }}
}

// Whatever a policy leaves of a request, one well-formed message is sent for
// it, or none.
func TestPoliciesCannotBreakFraming(t *testing.T) {
	add := func(name, value string) *native {
		return change(func(x *exchange.Exchange) { x.Request.Fields.Set([]byte(name), []byte(value)) })
	}
	for _, c := range []struct {
		name   string
		policy *native
		want   string
		seen   []string
	}{
		{"a transfer coding", add("Transfer-Encoding", "chunked"), "200 200", []string{"POST /x abc", "GET /x"}},
		{"a length", add("Content-Length", "0"), "200 200", []string{"POST /x abc", "GET /x"}},
		{"a connection option", add("Connection", "close"), "200 200", []string{"POST /x abc", "GET /x"}},
		{"a second host", add("Host", "b"), "200 200", []string{"POST /x abc", "GET /x"}},
		{"a field that breaks out", add("X", "a\r\n\r\nGET /admin HTTP/1.1"), "200 200", []string{"POST /x abc", "GET /x"}},
		{"a path that breaks out", change(func(x *exchange.Exchange) { x.Request.Path = []byte("/x HTTP/1.1\r\n\r\nGET /admin") }), "500 500", nil},
		{"a path that is none", change(func(x *exchange.Exchange) { x.Request.Path = nil }), "500 500", nil},
		{"a method that breaks out", change(func(x *exchange.Exchange) { x.Request.Method = []byte("GET /admin HTTP/1.1\r\n\r\nGET") }), "500 500", nil},
		{"CONNECT", change(func(x *exchange.Exchange) { x.Request.Method = []byte("CONNECT") }), "500 500", nil},
		{"an authority that breaks out", change(func(x *exchange.Exchange) { x.Request.Authority = []byte("a\r\nX: y") }), "500 500", nil},
		{"another body", change(func(x *exchange.Exchange) { x.Request.Body = exchange.Bytes([]byte("other")) }), "200!", []string{"POST /x other"}},
		{"no body", change(func(x *exchange.Exchange) { x.Request.Body = nil }), "200!", []string{"POST /x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startOrigin(t, nil)
			o.expect(t, c.seen...)
			e := startEdgeUnder(t, c.policy, o.addr)
			client := dial(t, e.addr)
			if strings.HasSuffix(c.want, "!") { // the body comes too late to be skipped
				client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n")
				if got := client.verdictsAfter("GET /admin HTTP/1.1\r\nHost: a\r\n\r\n1234567890"); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				return
			}
			client.send(postX + getX)
			client.CloseWrite()
			if got := client.verdicts(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// verdictsAfter reads one answer, sends something more, and reads the rest.
func (c *client) verdictsAfter(more string) string {
	c.t.Helper()
	resp, _ := c.answer("POST")
	verdict := fmt.Sprint(resp.StatusCode)
	if resp.Close {
		verdict += "!"
	}
	_, _ = io.WriteString(c, more) // may find the connection closed
	return strings.TrimSpace(verdict + " " + c.verdicts())
}

// A body that is here and that a policy dropped is skipped.
func TestDroppedBodyIsSkipped(t *testing.T) {
	o := startOrigin(t, nil)
	o.expect(t, "POST /x", "GET /x")
	e := startEdgeUnder(t, change(func(x *exchange.Exchange) { x.Request.Body = nil }), o.addr)
	client := dial(t, e.addr)
	client.send(postX + getX)
	client.CloseWrite()
	if got := client.verdicts(); got != "200 200" {
		t.Errorf("got %s", got)
	}
}

// A client that asked with HEAD gets no body, and one that asked with GET gets
// what was announced, whatever the service was asked with.
func TestPolicyChangesTheMethod(t *testing.T) {
	for _, c := range []struct{ asked, sent, body string }{
		{"HEAD", "GET", ""}, {"GET", "HEAD", ""}, {"GET", "POST", "POST /x"},
	} {
		o := startOrigin(t, nil)
		e := startEdgeUnder(t, change(func(x *exchange.Exchange) { x.Request.Method = []byte(c.sent) }), o.addr)
		client := dial(t, e.addr)
		for range 3 { // on one connection
			resp, body := client.exchange(c.asked + " /x HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp.StatusCode != 200 || strings.TrimSpace(body) != c.body {
				t.Errorf("%s for %s: %d %q", c.sent, c.asked, resp.StatusCode, body)
			}
		}
	}
}

// An interim status, or none at all, is no answer.
func TestPolicyAnswersWithNonsense(t *testing.T) {
	for _, status := range []int{0, 42, 100, 101, 1000} {
		n := &native{request: func(x *exchange.Exchange) policy.Verdict {
			x.Answer(status, []byte("GET /admin HTTP/1.1\r\n\r\n"))
			return policy.Respond
		}}
		e := startEdgeUnder(t, n, startOrigin(t, nil).addr)
		client := dial(t, e.addr)
		for range 2 {
			if resp, _ := client.exchange(getX); resp.StatusCode != 500 {
				t.Errorf("%d became %d", status, resp.StatusCode)
			}
		}
	}
}

// Who is to blame does not depend on who reads the body.
func TestBrokenBodiesUnderPolicies(t *testing.T) {
	hold := func(_ *[]byte, end bool) policy.Verdict { return policy.Hold }
	pass := func(*[]byte, bool) policy.Verdict { return policy.Continue }
	for name, n := range map[string]*native{
		"held":   {request: func(*exchange.Exchange) policy.Verdict { return policy.Hold }, reqBody: hold},
		"passed": {reqBody: pass},
		"unseen": {request: func(*exchange.Exchange) policy.Verdict { return policy.Continue }},
	} {
		t.Run("request, "+name, func(t *testing.T) {
			o := startOrigin(t, nil)
			o.expectOnly(t)
			e := startEdgeUnder(t, n, o.addr)
			for _, request := range []string{
				"Content-Length: 10\r\n\r\nabc",
				"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
				"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n\r\n",
			} {
				client := dial(t, e.addr)
				client.send("POST /x HTTP/1.1\r\nHost: a\r\n" + request)
				client.CloseWrite()
				if got := client.verdicts(); got != "400!" {
					t.Errorf("%q: got %s", request, got)
				}
			}
		})
	}
	t.Run("answer, held", func(t *testing.T) {
		addr := scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
		})
		e := startEdgeUnder(t, &native{response: func(*exchange.Exchange) policy.Verdict { return policy.Hold }, resBody: hold}, addr)
		if resp, body := dial(t, e.addr).exchange(getX); resp.StatusCode != 502 || !strings.Contains(body, "upstream_failed") {
			t.Errorf("got %d %s", resp.StatusCode, body)
		}
	})
}

// A policy that reads bodies changes nothing about how they arrive.
func TestBodiesThroughPolicies(t *testing.T) {
	pass := func(*[]byte, bool) policy.Verdict { return policy.Continue }
	o := startOrigin(t, nil)
	o.expect(t, "POST /x abc", "POST /x abcdef", "POST /x hello", "GET /x")
	e := startEdgeUnder(t, &native{reqBody: pass, resBody: pass}, o.addr)
	c := dial(t, e.addr)
	for _, request := range []string{postX, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"} {
		if resp, _ := c.exchange(request); resp.StatusCode != 200 {
			t.Errorf("got %d", resp.StatusCode)
		}
	}
	c.send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if resp := c.head("POST"); resp.StatusCode != 100 {
		t.Fatalf("got %d", resp.StatusCode)
	}
	if resp, body := c.exchange("hello"); resp.StatusCode != 200 || body != "POST /x hello" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body := c.exchange(getX); resp.StatusCode != 200 || strings.TrimSpace(body) != "GET /x" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
