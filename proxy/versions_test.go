package proxy_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/internal/signature"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// versioned makes policies that write their module's digest into the request; modules
// named "bad…" fail, and those named "broken…" cannot be made.
type versioned struct{ markers }

func (m *versioned) Make(ctx context.Context, spec policy.Spec, services policy.Services) (policy.Policy, error) {
	if strings.HasPrefix(spec.Digest, "broken") {
		return nil, errors.New("it does not start")
	}
	p, err := m.markers.Make(ctx, spec, services)
	return version{p}, err
}

type version struct{ policy.Policy }

func (v version) NewFilter() policy.Filter {
	return versionFilter{v.Policy.NewFilter(), v.Spec().Digest}
}

type versionFilter struct {
	policy.Filter
	digest string
}

func (f versionFilter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if strings.HasPrefix(f.digest, "bad") {
		return policy.Continue, errors.New("trapped")
	}
	x.Request.Fields.Set([]byte("X-Seen"), x.Copy(f.digest))
	return policy.Continue, nil
}

func stampPlugin(digest string, signatures ...*weirv1.PluginSignature) *weirv1.Plugin {
	return &weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "stamp"}, Spec: &weirv1.PluginSpec{Digest: digest, Signatures: signatures}}
}

// asked is the digest of the module that an exchange meets, or its status.
func asked(t *testing.T, e *edge) string {
	t.Helper()
	resp, body := get(t, e.url("/"))
	if resp.StatusCode != 200 {
		return resp.Status
	}
	return body
}

func stampEdge(t *testing.T, maker policy.Maker, change func(*proxy.Config), resources ...resource.Message) *edge {
	t.Helper()
	return startEdgeWith(t, func(c *proxy.Config) {
		c.Policies = maker
		if change != nil {
			change(c)
		}
	}, append([]resource.Message{service("s", upstreamServer(t, seen)), route("r", "/", "s"),
		attach("p", "stamp", "Route", "r", weirv1.PolicySpec_TRANSFORM)}, resources...)...)
}

type signingKey struct {
	private ed25519.PrivateKey
	public  ed25519.PublicKey
	pem     string
}

func newSigningKey(t testing.TB) (k signingKey) {
	t.Helper()
	private, public, err := signature.NewKey()
	if err == nil {
		k.private, err = signature.ParsePrivate(private)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.public, k.pem = k.private.Public().(ed25519.PublicKey), string(public)
	return k
}

func (k signingKey) sign(digest string) *weirv1.PluginSignature {
	s := signature.Sign(k.private, "stamp", digest)
	return &weirv1.PluginSignature{Key: s.Key, Signature: s.Bytes}
}

func trusting(keys ...signingKey) *weirv1.PluginTrust {
	t := &weirv1.PluginTrust{Metadata: &weirv1.Metadata{Name: resource.TheTrust}, Spec: &weirv1.PluginTrustSpec{RequireSignatures: true}}
	for _, k := range keys {
		t.Spec.Keys = append(t.Spec.Keys, &weirv1.PluginKey{Name: "k", PublicKey: k.pem})
	}
	return t
}

// Servers that were taken over, or a disk, may say what they like: what is not signed
// does not run. What ran goes on, and nothing else is held up.
func TestUntrustedModulesDoNotRun(t *testing.T) {
	release, other := newSigningKey(t), newSigningKey(t)
	e := stampEdge(t, new(versioned), nil, trusting(release), stampPlugin("one", release.sign("one")))
	must := func(what, want, problem string) {
		t.Helper()
		if got := asked(t, e); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
		if got := e.Problem(); problem == "" && got != "" || !strings.Contains(got, problem) {
			t.Errorf("%s: the problem is %q, want %q", what, got, problem)
		}
	}
	must("signed", "one", "")
	e.apply(stampPlugin("two"))
	must("unsigned", "one", "Plugin stamp: module two is refused: it is not signed; trusted are \"k\"")
	e.apply(stampPlugin("two", other.sign("two")))
	must("another's", "one", "is not trusted")
	e.apply(stampPlugin("two", release.sign("one")))
	must("a signature of before", "one", "is not for a plugin named stamp with these bytes (two); one goes on")
	e.apply(service("elsewhere", upstreamServer(t, seen)), route("q", "/q", "elsewhere"))
	if resp, _ := get(t, e.url("/q")); resp.StatusCode != 200 {
		t.Error("it holds up what has nothing to do with it")
	}
	e.apply(stampPlugin("two", release.sign("two")))
	must("signed at last", "two", "")
	e.apply(trusting(other))
	must("its key was taken out", "two", "module two is refused: it is signed by ed25519:")
	e.apply(trusting(other, release))
	must("its key is back", "two", "")

	fresh := stampEdge(t, new(versioned), nil, trusting(release), stampPlugin("two", other.sign("two")))
	if got := asked(t, fresh); got != "500 Internal Server Error" || !strings.Contains(fresh.Problem(), "its policies fail") {
		t.Errorf("at a start there is nothing to go on with: got %s, %q", got, fresh.Problem())
	}
	open := attach("p", "stamp", "Route", "r", weirv1.PolicySpec_TRANSFORM, weirv1.PolicySpec_OPEN)
	fresh.apply(open)
	if got := asked(t, fresh); got != "" {
		t.Errorf("failureMode OPEN: got %s", got)
	}
	fresh.apply(trusting(other))
	if got := asked(t, fresh); got != "two" || fresh.Problem() != "" {
		t.Errorf("once it is trusted: got %s, %q", got, fresh.Problem())
	}
}

// A proxy's own keys count whatever the servers declare.
func TestOwnPluginKeys(t *testing.T) {
	own, other := newSigningKey(t), newSigningKey(t)
	e := stampEdge(t, new(versioned), func(c *proxy.Config) { c.PluginKeys = []ed25519.PublicKey{own.public} },
		trusting(other), stampPlugin("one", own.sign("one"), other.sign("one")))
	if got := asked(t, e); got != "one" {
		t.Fatalf("got %s, %s", got, e.Problem())
	}
	e.apply(stampPlugin("two", other.sign("two")))
	if got := asked(t, e); got != "one" || !strings.Contains(e.Problem(), "1 of this proxy's own") {
		t.Errorf("got %s, %q", got, e.Problem())
	}
}

func canaryOf(percent float64, digest string, start int64) *weirv1.Plugin {
	p := stampPlugin("one")
	p.Spec.Canary = &weirv1.PluginCanary{Digest: digest, Percent: percent}
	p.Status = &weirv1.PluginStatus{Trial: &weirv1.PluginTrial{Digest: digest, Percent: percent, State: weirv1.PluginTrial_RUNNING,
		StartTime: &timestamppb.Timestamp{Seconds: start}}}
	return p
}

func (e *edge) report(t *testing.T) *weirv1.PluginReport {
	t.Helper()
	all := e.Canaries()
	if len(all) != 1 {
		t.Fatalf("%d reports: %v", len(all), all)
	}
	return all[0]
}

func TestCanary(t *testing.T) {
	maker := new(versioned)
	e := stampEdge(t, maker, nil, canaryOf(50, "two", 1))
	met := map[string]int{}
	for range 200 {
		met[asked(t, e)]++
	}
	if met["one"]+met["two"] != 200 || met["one"] < 50 || met["two"] < 50 {
		t.Errorf("met %v", met)
	}
	r := e.report(t)
	if int(r.GetCanary().GetExchanges()) != met["two"] || int(r.GetStable().GetExchanges()) != met["one"] || r.GetAborted() != "" || r.GetTenant() != "default" || r.GetName() != "stamp" {
		t.Errorf("met %v, reports %v", met, r)
	}
	// What else changes takes nothing away from the trial.
	e.apply(route("r", "/", "s"))
	if got := e.report(t); got.GetCanary().GetExchanges() != r.GetCanary().GetExchanges() {
		t.Errorf("after a change: %v", got)
	}
	// The servers' verdict ends it.
	over := canaryOf(50, "two", 1)
	over.Status.Trial.State = weirv1.PluginTrial_ABORTED
	e.apply(over)
	for range 50 {
		if got := asked(t, e); got != "one" {
			t.Fatalf("met %s", got)
		}
	}
	if got := e.Canaries(); len(got) != 0 {
		t.Errorf("reports %v", got)
	}
	if err := e.Shutdown(t.Context()); err != nil || maker.alive != 0 {
		t.Errorf("%d policies are alive, %v", maker.alive, err)
	}
}

// A canary that fails costs three exchanges, its own, and no more.
func TestFailingCanaryIsGivenUp(t *testing.T) {
	e := stampEdge(t, new(versioned), nil, canaryOf(50, "bad", 1))
	met := map[string]int{}
	for range 100 {
		met[asked(t, e)]++
	}
	if met["500 Internal Server Error"] != 3 || met["one"] != 97 {
		t.Errorf("met %v", met)
	}
	if got := e.report(t); got.GetCanary().GetFailures() != 3 || !strings.Contains(got.GetAborted(), "3 failures in 3 exchanges") {
		t.Errorf("reports %v", got)
	}
	// The same canary once more is a trial of its own.
	e.apply(canaryOf(100, "bad", 2))
	if got := asked(t, e); got != "500 Internal Server Error" {
		t.Errorf("got %s", got)
	}
}

// What is wrong with the service is nobody's fault here; what is wrong with the canary's
// answers is found out.
func TestCanaryThatBreaksAnswers(t *testing.T) {
	e := startEdgeWith(t, with(new(versioned)), service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Seen") == "two" {
			w.WriteHeader(503)
		}
		io.WriteString(w, r.Header.Get("X-Seen"))
	})), route("r", "/", "s"), attach("p", "stamp", "Route", "r", weirv1.PolicySpec_TRANSFORM), canaryOf(50, "two", 1))
	for range 1000 {
		asked(t, e)
		if e.report(t).GetAborted() != "" {
			break
		}
	}
	got := e.report(t)
	if !strings.Contains(got.GetAborted(), "exchanges answered with 5xx") || got.GetCanary().GetExchanges() < 50 || got.GetCanary().GetExchanges() > 200 {
		t.Errorf("reports %v", got)
	}
}

func TestCanaryThatCannotBeMade(t *testing.T) {
	key := newSigningKey(t)
	for _, c := range []struct {
		what   string
		canary *weirv1.Plugin
		trust  []resource.Message
		want   string
	}{
		{"broken", canaryOf(50, "broken", 1), nil, "cannot be made: it does not start"},
		{"unsigned", canaryOf(50, "two", 1), []resource.Message{trusting(key)}, "refused: it is not signed"},
	} {
		c.canary.Spec.Signatures = []*weirv1.PluginSignature{key.sign("one")}
		e := stampEdge(t, new(versioned), nil, append(c.trust, c.canary)...)
		for range 20 {
			if got := asked(t, e); got != "one" {
				t.Fatalf("%s: met %s", c.what, got)
			}
		}
		if got := e.report(t).GetAborted(); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q", c.what, got)
		}
	}
}

func TestCanaryMetrics(t *testing.T) {
	e := stampEdge(t, new(versioned), func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, canaryOf(100, "two", 1))
	asked(t, e)
	metrics := func() string {
		t.Helper()
		_, body := get(t, "http://"+e.AdminAddr()+"/metrics")
		return body
	}
	if got := metrics(); !strings.Contains(got, `weir_plugin_trial_exchanges_total{plugin="default/stamp",role="canary",version="two"} 1`) ||
		!strings.Contains(got, `weir_plugin_trial_aborted{plugin="default/stamp",version="two"} 0`) {
		t.Errorf("got %s", got)
	}
	e.apply(stampPlugin("two"))
	if got := metrics(); strings.Contains(got, "weir_plugin_trial_") {
		t.Error("versions that are not tried any more are still shown")
	}
}

// BenchmarkRulesOfASignedPlugin: a configuration of 1,000 rules with one plugin that is
// signed, where 64 keys are trusted, is compiled.
func BenchmarkRulesOfASignedPlugin(b *testing.B) {
	keys := make([]signingKey, 64)
	for i := range keys {
		keys[i] = newSigningKey(b)
	}
	plugin := stampPlugin("one", keys[63].sign("one"))
	resources := []resource.Message{trusting(keys...), plugin, service("s", "127.0.0.1:1")}
	for i := range 1000 {
		name := fmt.Sprintf("r%d", i)
		resources = append(resources, route(name, "/"+name, "s"))
	}
	resources = append(resources, attach("p", "stamp", "Gateway", "public", weirv1.PolicySpec_TRANSFORM))
	e := startEdgeWith(b, func(c *proxy.Config) { c.Policies = new(versioned) }, resources...)
	for b.Loop() {
		e.apply(plugin)
	}
}
