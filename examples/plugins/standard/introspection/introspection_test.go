package introspection

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

const shared = `{"service": "idp", "url": "https://issuer.example/introspect", "client": {"id": "gateway", "secret": "s3cret"}, "stale": 120, "cache": {"entries": 64}}`

// server knows tokens, and counts who asks about which.
type server struct {
	active map[string]bool
	down   bool
	asked  map[string]int
}

func (s *server) answer(request policytest.Message) (policytest.Message, error) {
	form, err := url.ParseQuery(request.Body)
	if err != nil {
		return policytest.Message{}, err
	}
	token := form.Get("token")
	s.asked[token]++
	if s.down {
		return policytest.Message{}, errors.New("connection refused")
	}
	return policytest.Message{Body: fmt.Sprintf(`{"active": %t, "sub": "alice"}`, s.active[token])}, nil
}

// proxy is several sandboxes of the policy.
type proxy struct {
	t         *testing.T
	host      *policytest.Host
	server    *server
	sandboxes []*policytest.Policy
}

func newProxy(t *testing.T) *proxy {
	p := &proxy{t: t, host: policytest.NewHost(), server: &server{active: map[string]bool{"good": true}, asked: map[string]int{}}}
	p.host.Service("idp", p.server.answer)
	for range 8 {
		p.sandboxes = append(p.sandboxes, policytest.StartOn(t, p.host, newIntrospection, shared))
	}
	return p
}

func (p *proxy) want(what, token, status string, asked int) {
	p.t.Helper()
	for _, sandbox := range p.sandboxes {
		x := sandbox.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("authorization", "Bearer "+token)}})
		if x.Status() != status {
			p.t.Fatalf("%s: %s, want %s", what, x.Status(), status)
		}
	}
	if got := p.server.asked[token]; got != asked {
		p.t.Errorf("%s: the server was asked %d times, want %d", what, got, asked)
	}
}

// TestAServerIsAskedOnceForAllSandboxes, and again when an answer has had its time.
func TestAServerIsAskedOnceForAllSandboxes(t *testing.T) {
	p := newProxy(t)
	p.want("a good token", "good", "200", 1)
	p.want("a bad one", "bad", "401", 1)
	p.host.Advance(11 * time.Second)
	p.want("a good token, a while later", "good", "200", 1)
	p.want("a bad one, a while later", "bad", "401", 2)
	p.server.active["good"] = false
	p.host.Advance(50 * time.Second)
	p.want("a token that was revoked", "good", "401", 2)
}

// TestAServerThatIsDown: it is not asked for each request, and tokens that were good are
// good for a while.
func TestAServerThatIsDown(t *testing.T) {
	p := newProxy(t)
	p.want("before", "good", "200", 1)
	p.server.down = true
	p.want("a token that nobody knows", "other", "503", 1)
	p.host.Advance(61 * time.Second)
	p.want("one that was good just now", "good", "200", 2)
	p.host.Advance(120 * time.Second)
	p.want("one that was good long ago", "good", "503", 3)
	p.server.down = false
	p.host.Advance(2 * time.Second)
	p.want("afterwards", "good", "200", 4)
}

// TestWhatIsKeptIsBounded: whoever makes up tokens fills no more than the table, and
// does not drive out those that are good.
func TestWhatIsKeptIsBounded(t *testing.T) {
	p := newProxy(t)
	p.sandboxes = p.sandboxes[:1]
	p.want("before", "good", "200", 1)
	for i := range 1000 {
		p.want("a token that is made up", fmt.Sprintf("made-up-%d", i), "401", 1)
	}
	if n := p.host.SharedKeys(); n > 64 {
		t.Errorf("%d values are kept", n)
	}
	p.want("after a thousand that are made up", "good", "200", 1)
}

// TestAnotherConfiguration does not use what was decided under the old one.
func TestAnotherConfiguration(t *testing.T) {
	p := newProxy(t)
	p.want("before", "good", "200", 1)
	strict := strings.Replace(shared, `"stale"`, `"require": {"scope": ["orders"]}, "stale"`, 1)
	p.sandboxes = []*policytest.Policy{policytest.StartOn(t, p.host, newIntrospection, strict)}
	p.want("after", "good", "403", 2)
}
