package proxy_test

import (
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
)

// pretender is a policy that turns the request into another once its head was
// sent, while the body is.
type pretender struct{ marker }

func (p *pretender) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	p.spec, p.maker = spec, new(markers)
	return p, nil
}
func (*pretender) Phases() policy.Phases          { return policy.RequestBody }
func (p *pretender) NewFilter() policy.Filter     { return p }
func (*pretender) Begin(*exchange.Exchange) error { return nil }
func (*pretender) Close(*exchange.Exchange)       {}
func (*pretender) OnRequestBody(x *exchange.Exchange, _ *[]byte, _ bool) (policy.Verdict, error) {
	x.Request.Method = []byte("HEAD")
	return policy.Continue, nil
}

// How an answer is framed follows from what was asked, not from what a policy
// says was asked: else the answer's body would be the next one's head.
func TestAMethodThatIsChangedTooLateDoesNotMixUpAnswers(t *testing.T) {
	o := startOrigin(t, func(c net.Conn, r *http.Request, body string) bool {
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
		for i := range len(body) { // the body comes later than the head
			fmt.Fprintf(c, "%s", body[i:i+1])
		}
		return true
	})
	e := startEdgeWith(t, func(c *proxy.Config) { c.Policies = new(pretender) }, append(plugins("mark"), service("s", o.addr), route("r", "/", "s"),
		attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))...)
	for i := range 20 {
		body := fmt.Sprintf("request %d", i)
		resp, err := http.Post(e.url("/"), "text/plain", &slow{strings.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != body || resp.StatusCode != 200 {
			t.Fatalf("asked %q, got %d %q, %v", body, resp.StatusCode, got, err)
		}
	}
}

// slow is a body of unknown length.
type slow struct{ *strings.Reader }
