package jwks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"

	"github.com/weirmesh/weir/examples/plugins/standard/jwks"
)

// keyed is a policy that lets those pass whose field x-key is among the keys. A set of
// keys is words behind "keys:".
type keyed struct {
	source *jwks.Source
	keys   []string
}

func newKeyed(c jwks.Config) (sdk.Handler, error) {
	k := &keyed{}
	k.source = jwks.New(c, k.use)
	return k, nil
}

func (k *keyed) use(set string) error {
	list, ok := strings.CutPrefix(set, "keys:")
	if !ok {
		return errors.New("it is no key set")
	}
	k.keys = strings.Fields(list)
	return nil
}

func (k *keyed) OnTick() { k.source.Tick() }

func (k *keyed) OnRequest(r *sdk.Request) sdk.Action {
	key := r.Header.Get("x-key")
	if !k.source.Ready() {
		return k.source.Await(r, func(ready bool) sdk.Action {
			if !ready {
				return r.Respond(503, nil, nil)
			}
			return k.judge(r, key)
		})
	}
	if !k.has(key) {
		return k.source.Renew(r, func(bool) sdk.Action { return k.judge(r, key) })
	}
	return k.judge(r, key)
}

func (k *keyed) has(key string) bool {
	return strings.Contains(" "+strings.Join(k.keys, " ")+" ", " "+key+" ")
}

func (k *keyed) judge(r *sdk.Request, key string) sdk.Action {
	if !k.has(key) {
		return r.Respond(401, nil, nil)
	}
	return sdk.Continue
}

// issuer publishes keys, and counts who asks.
type issuer struct {
	set   string
	down  bool
	asked int
}

func (i *issuer) answer(policytest.Message) (policytest.Message, error) {
	i.asked++
	if i.down {
		return policytest.Message{}, errors.New("connection refused")
	}
	return policytest.Message{Body: i.set}, nil
}

// proxy is many sandboxes of the policy.
type proxy struct {
	t         *testing.T
	host      *policytest.Host
	issuer    *issuer
	sandboxes []*policytest.Policy
}

const many = 100

func newProxy(t *testing.T, i *issuer) *proxy {
	p := &proxy{t: t, host: policytest.NewHost(), issuer: i}
	p.host.Service("idp", i.answer)
	for range many {
		p.sandboxes = append(p.sandboxes, policytest.StartOn(t, p.host, newKeyed, config))
	}
	return p
}

const config = `{"service": "idp", "url": "https://issuer.example/keys", "refresh": 300, "keep": 3600, "timeout": 5, "wait": 5, "maxBytes": 100}`

// ask has a request with that key come to every sandbox, and returns what it is answered.
func (p *proxy) ask(key string) (status string) {
	p.t.Helper()
	for i, sandbox := range p.sandboxes {
		x := sandbox.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("x-key", key)}})
		if i > 0 && x.Status() != status {
			p.t.Fatalf("sandbox %d answers %s, the one before %s", i, x.Status(), status)
		}
		status = x.Status()
	}
	return status
}

// pass lets time pass; the first sandbox is the one that ticks.
func (p *proxy) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		p.host.Advance(min(d, time.Second))
		p.sandboxes[0].Tick()
	}
}

func (p *proxy) want(what, key, status string, asked int) {
	p.t.Helper()
	if got := p.ask(key); got != status || p.issuer.asked != asked {
		p.t.Errorf("%s: %s, and the issuer was asked %d times; want %s, %d", what, got, p.issuer.asked, status, asked)
	}
}

// TestAHundredSandboxesFetchOnce, and again when the keys are due.
func TestAHundredSandboxesFetchOnce(t *testing.T) {
	p := newProxy(t, &issuer{set: "keys: a"})
	p.want("at the beginning", "a", "200", 1)
	p.pass(299 * time.Second)
	p.want("before they are due", "a", "200", 1)
	p.issuer.set = "keys: b"
	p.pass(2 * time.Second)
	p.want("the new key", "b", "200", 2)
	p.want("the old one", "a", "401", 2)
}

// TestUnknownKeys make the keys be fetched, but not for whoever makes them up.
func TestUnknownKeys(t *testing.T) {
	p := newProxy(t, &issuer{set: "keys: a"})
	p.issuer.set = "keys: a b"
	p.want("just fetched", "b", "401", 1)
	p.pass(11 * time.Second)
	p.want("a while later", "b", "200", 2)
	p.want("a key that is made up", "x", "401", 2)
	for i := range 60 {
		p.host.Advance(time.Second)
		p.ask(fmt.Sprintf("x%d", i))
	}
	if p.issuer.asked > 2+6 {
		t.Errorf("in a minute of keys that are made up the issuer was asked %d times", p.issuer.asked-2)
	}
	p.want("a known key meanwhile", "a", "200", p.issuer.asked)
}

// TestAnIssuerThatIsDown: old keys are good for as long as they are to be kept.
func TestAnIssuerThatIsDown(t *testing.T) {
	i := &issuer{set: "keys: a"}
	p := newProxy(t, i)
	i.down = true
	p.pass(3590 * time.Second)
	p.want("nearly too old", "a", "200", i.asked)
	if i.asked > 70 {
		t.Errorf("it was asked %d times in an hour", i.asked)
	}
	if n := strings.Count(strings.Join(p.host.Logged(), "\n"), "cannot be fetched"); n != 1 {
		t.Errorf("its failure is logged %d times", n)
	}
	p.pass(20 * time.Second)
	p.sandboxes = p.sandboxes[:2]
	if got := p.ask("a"); got != "503" {
		t.Errorf("too old: %s", got)
	}
	i.down = false
	p.pass(time.Minute)
	p.want("it is there again", "a", "200", i.asked)
}

// TestBadSets change nothing.
func TestBadSets(t *testing.T) {
	for name, set := range map[string]string{"what is no set": "<html>", "too long a set": "keys: " + strings.Repeat("a ", 100)} {
		i := &issuer{set: "keys: a"}
		p := newProxy(t, i)
		i.set = set
		p.pass(10 * time.Minute)
		p.want(name, "a", "200", i.asked)
		if n := strings.Count(strings.Join(p.host.Logged(), "\n"), "cannot be fetched"); n != 1 {
			t.Errorf("%s is logged %d times", name, n)
		}
	}
}

// TestRequestsWaitForTheFirstKeys, for as long as they are told to.
func TestRequestsWaitForTheFirstKeys(t *testing.T) {
	i := &issuer{set: "keys: a", down: true}
	p := newProxy(t, i)
	tries := i.asked
	p.host.Service("idp", func(m policytest.Message) (policytest.Message, error) {
		i.down = i.asked < tries+1
		return i.answer(m)
	})
	p.want("a second and a failure later", "a", "200", tries+2)
	down := newProxy(t, &issuer{down: true})
	down.sandboxes = down.sandboxes[:1]
	if got := down.ask("a"); got != "503" {
		t.Errorf("an issuer that is down: %s", got)
	}
}

// TestAnotherSource: a policy whose issuer has changed does not use the keys of the old
// one, and the sandboxes that still serve under the old configuration keep theirs.
func TestAnotherSource(t *testing.T) {
	p := newProxy(t, &issuer{set: "keys: a"})
	p.want("the old issuer", "a", "200", 1)
	p.issuer.set = "keys: b"
	changed := policytest.StartOn(t, p.host, newKeyed, strings.Replace(config, "/keys", "/other", 1))
	old := p.sandboxes
	p.sandboxes = []*policytest.Policy{changed}
	p.want("the new issuer's key", "b", "200", 2)
	p.want("the old issuer's key", "a", "401", 2)
	p.sandboxes = old
	p.want("the old issuer's key, in a sandbox of before", "a", "200", 2)
	p.want("the new issuer's key, in a sandbox of before", "b", "401", 2)
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for config, want := range map[string]string{
		`{"url": "https://a/"}`: "service: missing", `{"service": "a"}`: "either the url",
		`{"service": "a", "url": "https://a/", "issuer": "https://a"}`:             "either the url",
		`{"service": "a", "url": "ftp://a/"}`:                                      "want https://HOST/PATH",
		`{"service": "a", "url": "https://u:p@a/"}`:                                "want https://HOST/PATH",
		`{"service": "a", "url": "https://a/", "refresh": 0}`:                      "refresh",
		`{"service": "a", "url": "https://a/", "refresh": 60, "keep": 59}`:         "keep",
		`{"service": "a", "issuer": "https://a", "refresh": 60, "timeout": 61}`:    "timeout",
		`{"service": "a", "issuer": "https://a", "refresh": 60, "maxBytes": 1e6}`:  "maxBytes",
		`{"service": "a", "issuer": "https://a#b", "refresh": 60, "maxBytes": 10}`: "issuer: want https://HOST/PATH",
	} {
		if got := policytest.Refusal(t, func(c checked) (sdk.Handler, error) { return &keyed{}, nil }, config); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

// checked is the configuration with its defaults and checks.
type checked struct{ jwks.Config }

func (c *checked) Default()        { c.Config = jwks.Default() }
func (c *checked) Validate() error { return c.Check() }
