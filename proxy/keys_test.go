package proxy_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/consumer"
	"github.com/weirmesh/weir/consumer/apikey"
	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/api"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// keyHost makes policies of Apis, counts what it has made, and has one more that tells
// the service who calls: what a policy of a later stage sees.
type keyHost struct {
	*api.Host
	made atomic.Int64
}

func (h *keyHost) Make(ctx context.Context, spec policy.Spec, services policy.Services) (policy.Policy, error) {
	h.made.Add(1)
	switch spec.Native {
	case "":
		return teller{spec: spec}, nil
	case policy.Quota:
		return known{spec: spec}, nil // nobody is limited
	}
	return h.Host.Make(ctx, spec, services)
}

type teller struct {
	policy.NoBodies
	spec policy.Spec
}

func (p teller) Spec() policy.Spec        { return p.spec }
func (p teller) Phases() policy.Phases    { return policy.RequestHead }
func (p teller) NewFilter() policy.Filter { return p }
func (p teller) Release()                 {}

func (p teller) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if c := x.Consumer; c != nil {
		x.Request.Fields.Set([]byte("X-App"), x.Copy(c.Organization, "/", c.App, "/", c.Credential, " by ", c.Subscription, " to ", c.Plan))
	}
	return policy.Continue, nil
}

func (p teller) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

// keyedEdge is an edge with an Api that asks for keys, before a service that answers
// with the head that it got.
type keyedEdge struct {
	*edge
	host  *keyHost
	asked *atomic.Int64 // how often the service was

	declared []resource.Message
}

func startKeyed(t testing.TB, change func(*proxy.Config), more ...resource.Message) keyedEdge {
	consumers, asked := consumer.NewRegistry(), new(atomic.Int64)
	h := &keyHost{Host: api.NewHost(api.Config{Logger: slog.New(slog.DiscardHandler), Consumers: consumers})}
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		json.NewEncoder(w).Encode(r.Header)
	})
	declared := append([]resource.Message{
		service("s", addr), route("r", "/", "s"), keyedAPI("books", ""), appOf("demo"), planOf("free", "books"), subscriptionOf("demo-free", "demo", "free"),
		credentialOf("demo-1", "demo", "k1"),
	}, more...)
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.Policies, c.Consumers = h, consumers
		change(c)
	}, declared...)
	return keyedEdge{e, h, asked, declared}
}

func unchanged(*proxy.Config) {}

func keyedAPI(name, header string, change ...func(*weirv1.ApiSpec)) *weirv1.Api {
	a := apiOf(weirv1.ApiSpec_PUBLISHED, change...)
	a.Metadata.Name = name
	if len(change) == 0 {
		a.Spec.ContractRef = nil
	}
	a.Spec.Authentication = &weirv1.ApiAuthentication{ApiKey: &weirv1.ApiKey{Header: header}}
	return a
}

func appOf(name string) *weirv1.App {
	return &weirv1.App{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.AppSpec{Organization: "acme"}}
}

func planOf(name string, apis ...string) *weirv1.Plan {
	return &weirv1.Plan{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PlanSpec{Apis: apis}}
}

func subscriptionOf(name, app, plan string) *weirv1.Subscription {
	return &weirv1.Subscription{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.SubscriptionSpec{App: app, Plan: plan}}
}

func credentialOf(name, app, key string) *weirv1.Credential {
	sum := apikey.Sum(key)
	return &weirv1.Credential{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.CredentialSpec{App: app, Sha256: hex.EncodeToString(sum[:])}}
}

// Who shows a key of an App that may call passes, and nobody else; the service sees no
// key, and policies that follow see who it is.
func TestAPIKeys(t *testing.T) {
	long := strings.Repeat("k", apikey.MaxBytes+1)
	expired := credentialOf("demo-old", "demo", "kold")
	expired.Spec.ExpireTime = timestamppb.New(time.Now().Add(-time.Second))
	lasting := credentialOf("demo-new", "demo", "knew")
	lasting.Spec.ExpireTime = timestamppb.New(time.Now().Add(time.Hour))
	suspended := subscriptionOf("late-free", "late", "free")
	suspended.Spec.State = weirv1.SubscriptionSpec_SUSPENDED
	e := startKeyed(t, unchanged, expired, lasting, appOf("idle"), credentialOf("idle-1", "idle", "kidle"),
		appOf("late"), suspended, credentialOf("late-1", "late", "klate"), plugins("tell")[0], attach("tell", "tell", "Route", "r", weirv1.PolicySpec_AUTHZ))
	for name, c := range map[string]struct {
		fields []string
		status int
		code   string // or who it is
	}{
		"a key":                   {[]string{"x-api-key", "k1"}, 200, "acme/demo/demo-1 by demo-free to free"},
		"in another spelling":     {[]string{"X-API-Key", "k1"}, 200, "acme/demo/demo-1 by demo-free to free"},
		"one that lasts":          {[]string{"x-api-key", "knew"}, 200, "acme/demo/demo-new by demo-free to free"},
		"no key":                  {nil, 401, "api_key_missing"},
		"in another field":        {[]string{"Authorization", "k1"}, 401, "api_key_missing"},
		"an empty one":            {[]string{"x-api-key", ""}, 401, "api_key_missing"},
		"one that nobody has":     {[]string{"x-api-key", "k2"}, 401, "api_key_unknown"},
		"in another case":         {[]string{"x-api-key", "K1"}, 401, "api_key_unknown"},
		"one that is too long":    {[]string{"x-api-key", long}, 401, "api_key_unknown"},
		"one that has expired":    {[]string{"x-api-key", "kold"}, 401, "api_key_unknown"},
		"the same twice":          {[]string{"x-api-key", "k1", "x-api-key", "k1"}, 401, "api_key_unknown"},
		"another and the right":   {[]string{"x-api-key", "k2", "X-Api-Key", "k1"}, 401, "api_key_unknown"},
		"an empty and the right":  {[]string{"x-api-key", "", "X-Api-Key", "k1"}, 401, "api_key_unknown"},
		"two in one field":        {[]string{"x-api-key", "k1, k1"}, 401, "api_key_unknown"},
		"no subscription":         {[]string{"x-api-key", "kidle"}, 403, "no_subscription"},
		"one that is suspended":   {[]string{"x-api-key", "klate"}, 403, "no_subscription"},
		"what the key is kept as": {[]string{"x-api-key", credentialOf("", "", "k1").GetSpec().GetSha256()}, 401, "api_key_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			before := e.asked.Load()
			req := newRequest(t, "GET", e.url("/books"), nil)
			for i := 0; i < len(c.fields); i += 2 {
				req.Header[c.fields[i]] = append(req.Header[c.fields[i]], c.fields[i+1]) // as it is written
			}
			resp, body := do(t, http.DefaultClient, req)
			if resp.StatusCode != c.status {
				t.Fatalf("got %s %s", resp.Status, body)
			}
			if c.status == 200 {
				if !strings.Contains(body, c.code) || strings.Contains(strings.ToLower(body), "api-key") {
					t.Errorf("the service got %s", body)
				}
				return
			}
			if e.asked.Load() != before {
				t.Error("the service was asked")
			}
			if want := map[int]string{401: `ApiKey realm="books"`}[c.status]; resp.Header.Get("WWW-Authenticate") != want {
				t.Errorf("WWW-Authenticate is %q", resp.Header.Get("WWW-Authenticate"))
			}
			if !strings.Contains(body, `"type":"urn:weir:problem:`+c.code+`"`) || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %s", body)
			}
		})
	}
}

// A change counts from the moment on at which it is acknowledged, and costs no route a
// compilation.
func TestKeysChange(t *testing.T) {
	e := startKeyed(t, unchanged)
	made := e.host.made.Load()
	want := func(what string, status int, key string) {
		t.Helper()
		if resp, body := get(t, e.url("/books"), "x-api-key", key); resp.StatusCode != status {
			t.Errorf("%s: got %s %s, want %d", what, resp.Status, body, status)
		}
	}
	del := func(kind, name string) {
		t.Helper()
		e.revision++
		if err := e.Update(t.Context(), proxy.Update{Revision: e.revision, Deletes: []resource.Ref{{Kind: kind, Tenant: "default", Name: name}}}); err != nil {
			t.Fatal(err)
		}
	}
	want("at first", 200, "k1")
	e.apply(credentialOf("demo-2", "demo", "k2"))
	want("one more key", 200, "k2")
	del(resource.KindCredential, "demo-1")
	want("revoked", 401, "k1")
	want("the other stays", 200, "k2")
	suspended := subscriptionOf("demo-free", "demo", "free")
	suspended.Spec.State = weirv1.SubscriptionSpec_SUSPENDED
	e.apply(suspended)
	want("suspended", 403, "k2")
	e.apply(subscriptionOf("demo-free", "demo", "free"))
	want("active", 200, "k2")
	e.apply(planOf("free", "other"))
	want("the Plan has it no more", 403, "k2")
	e.apply(planOf("free", "other", "books"))
	want("the Plan has it", 200, "k2")
	del(resource.KindApp, "demo")
	want("the App is gone", 401, "k2")
	if n := e.host.made.Load(); n != made {
		t.Errorf("%d policies were made anew", n-made)
	}
}

// A snapshot is all that there is: a key that is not in it is no key.
func TestKeysInSnapshots(t *testing.T) {
	e := startKeyed(t, unchanged)
	gateway := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}}}}
	for _, c := range []struct {
		keys []string
		want int
	}{{[]string{"k1", "k2"}, 200}, {[]string{"k2"}, 401}, {[]string{"k1"}, 200}, {nil, 401}} {
		e.revision++
		u := proxy.Update{Snapshot: true, Revision: e.revision, Puts: []*weirv1.Resource{resource.Wrap(gateway)}}
		for _, m := range e.declared {
			if _, is := m.(*weirv1.Credential); !is {
				u.Puts = append(u.Puts, resource.Wrap(m))
			}
		}
		for _, key := range c.keys {
			u.Puts = append(u.Puts, resource.Wrap(credentialOf("of-"+key, "demo", key)))
		}
		if err := e.Update(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if resp, _ := get(t, e.url("/books"), "x-api-key", "k1"); resp.StatusCode != c.want {
			t.Errorf("with %v: got %s", c.keys, resp.Status)
		}
	}
}

// A key that is revoked is refused even where the update that says so is.
func TestRevokedWhateverElseFails(t *testing.T) {
	e := startKeyed(t, unchanged)
	e.revision++
	err := e.Update(t.Context(), proxy.Update{Revision: e.revision,
		Puts:    []*weirv1.Resource{resource.Wrap(route("broken", "/x", "nowhere"))},
		Deletes: []resource.Ref{{Kind: resource.KindCredential, Tenant: "default", Name: "demo-1"}}})
	if err == nil {
		t.Fatal("a route to nowhere was taken")
	}
	if resp, _ := get(t, e.url("/books"), "x-api-key", "k1"); resp.StatusCode != 401 {
		t.Errorf("got %s", resp.Status)
	}
}

// An Api asks for keys from one moment to the next, and asks no more; a version that is
// no more asks nobody.
func TestKeysComeAndGo(t *testing.T) {
	e := startKeyed(t, unchanged)
	want := func(what string, status int, fields ...string) {
		t.Helper()
		if resp, body := get(t, e.url("/books"), fields...); resp.StatusCode != status {
			t.Errorf("%s: got %s %s, want %d", what, resp.Status, body, status)
		}
	}
	want("asked for", 401)
	open := keyedAPI("books", "")
	open.Spec.Authentication = nil
	e.apply(open)
	want("not asked for", 200)
	e.apply(keyedAPI("books", "authorization"))
	want("in another field", 200, "Authorization", "k1")
	want("not in the first", 401, "x-api-key", "k1")
	e.apply(keyedAPI("books", "", func(s *weirv1.ApiSpec) { s.State, s.ContractRef = weirv1.ApiSpec_RETIRED, nil }))
	want("retired", 410)
	e.apply(keyedAPI("books", "", func(s *weirv1.ApiSpec) { s.State, s.ContractRef = weirv1.ApiSpec_DRAFT, nil }))
	want("a draft", 404)
}

// The service is told who calls, where that is asked for, and not by who calls.
func TestTheServiceIsToldWhoCalls(t *testing.T) {
	e := startKeyed(t, unchanged)
	telling := keyedAPI("books", "")
	telling.Spec.Authentication.ConsumerHeader = "x-consumer"
	for _, c := range []struct {
		api  *weirv1.Api
		want string
	}{{keyedAPI("books", ""), `"X-Consumer":["root"]`}, {telling, `"X-Consumer":["demo"]`}} {
		e.apply(c.api)
		if _, body := get(t, e.url("/books"), "x-api-key", "k1", "X-Consumer", "root"); !strings.Contains(body, c.want) {
			t.Errorf("the service got %s, want %s", body, c.want)
		}
	}
}

// Two Apis on one rule: both must be what the App may call.
func TestKeysOfTwoApis(t *testing.T) {
	e := startKeyed(t, unchanged, keyedAPI("more", ""))
	for _, c := range []struct {
		apis []string
		want int
	}{{[]string{"books"}, 403}, {[]string{"more"}, 403}, {[]string{"more", "books"}, 200}} {
		e.apply(planOf("free", c.apis...))
		if resp, body := get(t, e.url("/books"), "x-api-key", "k1"); resp.StatusCode != c.want || strings.Contains(body, "X-Api-Key") {
			t.Errorf("%v: got %s %s", c.apis, resp.Status, body)
		}
	}
	if resp, _ := get(t, e.url("/books")); resp.StatusCode != 401 {
		t.Errorf("got %s", resp.Status)
	}
}

// Of two Apis on one rule it is the called one's Subscription that counts.
func TestTheCalledApisSubscriptionCounts(t *testing.T) {
	c := new(counted)
	e := startKeyed(t, metered(c), contractOf(booksDocument), keyedAPI("books", "", func(*weirv1.ApiSpec) {}), keyedAPI("all", ""),
		planOf("whole", "all"), subscriptionOf("a-whole", "demo", "whole"))
	e.apply(keyedAPI("books", "", func(a *weirv1.ApiSpec) { a.Validation = nil }))
	for what, want := range map[string]string{
		"/books?limit=3": "demo-free default/books listBooks 200", // it has the operation, though "all" comes first
		"/songs":         "a-whole default/all - 400",             // nobody's operation: the first Api's
	} {
		get(t, e.url(what), "x-api-key", "k1")
		if got := c.take(); got[want] != 1 {
			t.Errorf("%s: counted %v, want %q", what, got, want)
		}
	}
	e.apply(keyedAPI("all", "", func(a *weirv1.ApiSpec) { a.ContractRef, a.Validation = nil, nil }))
	e.apply(subscriptionOf("a-whole", "demo", "free")) // to none that has "all"
	if resp, body := get(t, e.url("/books?limit=3"), "x-api-key", "k1"); resp.StatusCode != 403 {
		t.Errorf("without a Subscription to each: %s %s", resp.Status, body)
	}
}

// A browser asks whether it may before it has a key to show, and may read why it may not.
func TestPreflightsNeedNoKey(t *testing.T) {
	r := route("r", "/", "s")
	r.Spec.Rules[0].Filters = []*weirv1.RouteFilter{{Type: weirv1.RouteFilter_CORS, Cors: &weirv1.Cors{AllowOrigins: []string{"https://shop.example"}, AllowHeaders: []string{"x-api-key"}}}}
	e := startKeyed(t, unchanged)
	e.apply(r)
	req := newRequest(t, "OPTIONS", e.url("/books"), nil)
	for name, value := range map[string]string{"Origin": "https://shop.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"} {
		req.Header.Set(name, value)
	}
	if resp, body := do(t, http.DefaultClient, req); resp.StatusCode/100 != 2 || resp.Header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("the preflight: %s %v %s", resp.Status, resp.Header, body)
	}
	if resp, _ := get(t, e.url("/books"), "Origin", "https://shop.example"); resp.StatusCode != 401 || resp.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("without a key: %s %v", resp.Status, resp.Header)
	}
	if resp, _ := do(t, http.DefaultClient, newRequest(t, "OPTIONS", e.url("/books"), nil)); resp.StatusCode != 401 {
		t.Errorf("what is no preflight: %s", resp.Status)
	}
}

// The field that bore the key is not missed where the contract asks for it, and others are.
func TestKeysAndContracts(t *testing.T) {
	text := strings.Replace(booksDocument, "parameters: [", `parameters: [{name: X-Api-Key, in: header, required: true, schema: {type: string}}, `, 1)
	e := startKeyed(t, unchanged)
	e.apply(contractOf(text), keyedAPI("books", "", func(*weirv1.ApiSpec) {}))
	if resp, body := get(t, e.url("/books"), "x-api-key", "k1"); resp.StatusCode != 200 {
		t.Errorf("got %s %s", resp.Status, body)
	}
	if resp, body := get(t, e.url("/books?limit=x"), "x-api-key", "k1"); resp.StatusCode != 400 || strings.Contains(body, "X-Api-Key") {
		t.Errorf("got %s %s", resp.Status, body)
	}
	if resp, _ := get(t, e.url("/books?limit=x")); resp.StatusCode != 401 {
		t.Errorf("who shows no key is told about the contract: %s", resp.Status)
	}
}

// The log says who called, and a call of gRPC that shows no key gets a status of gRPC.
func TestKeysInLogsAndGRPC(t *testing.T) {
	j := new(journal)
	e := startKeyed(t, func(c *proxy.Config) {
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	})
	get(t, e.url("/books"), "x-api-key", "k1")
	if line := j.await(t); line["app"] != "demo" || line["subscription"] != "demo-free" || strings.Contains(fmt.Sprint(line), "k1") {
		t.Errorf("the log has %v", line)
	}
	get(t, e.url("/books"), "x-api-key", "k2")
	if line := j.await(t); line["app"] != nil || line["details"] != "api_key_unknown" {
		t.Errorf("the log has %v", line)
	}
	req := newRequest(t, "POST", "http://shop.example/books.Books/List", strings.NewReader(""))
	req.Header.Set("Content-Type", "application/grpc")
	if resp, _ := do(t, e.h2Client(false), req); resp.Header.Get("Grpc-Status") != "16" {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
}

// Where nobody knows keys, a Route whose Api asks for them is not served.
func TestKeysThatNobodyKnows(t *testing.T) {
	for name, host := range map[string]policy.Maker{"no registry": api.NewHost(api.Config{Logger: slog.New(slog.DiscardHandler)})} {
		t.Run(name, func(t *testing.T) {
			addr := upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") })
			e := startEdgeWith(t, func(c *proxy.Config) { c.Policies = host }, service("s", addr))
			if err := e.try(route("r", "/", "s"), keyedAPI("books", "")); err == nil {
				t.Error("it is taken")
			}
			if resp, body := get(t, e.url("/books"), "x-api-key", "k1"); resp.StatusCode != 404 {
				t.Errorf("got %s %s", resp.Status, body)
			}
		})
	}
}

// A request that bears a key allocates no more than one that needs none.
func TestKeysDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector pools forget on purpose")
	}
	e := startKeyed(t, unchanged)
	telling := keyedAPI("books", "")
	telling.Spec.Authentication.ConsumerHeader = "x-consumer"
	e.apply(service("s", plainOrigin(t)), telling)
	c := dial(t, e.addr)
	raw, buf := []byte("GET /books HTTP/1.1\r\nHost: shop.example\r\nX-Api-Key: k1\r\n\r\n"), make([]byte, 8<<10)
	if n := testing.AllocsPerRun(300, func() { roundTrip(t, c.TCPConn, raw, buf) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkKeys is BenchmarkProxy with an Api that asks for a key.
func BenchmarkKeys(b *testing.B) {
	e := startKeyed(b, unchanged)
	e.apply(service("s", plainOrigin(b)))
	request := []byte("GET /books HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\nX-Api-Key: k1\r\n\r\n")
	benchmarkRequest(b, e.addr, request)
}

// BenchmarkKeyChange is what one key more costs a proxy that has a hundred thousand.
func BenchmarkKeyChange(b *testing.B) {
	e := startKeyed(b, unchanged)
	var many []resource.Message
	for i := range 100_000 {
		many = append(many, credentialOf(fmt.Sprint("c-", i), "demo", fmt.Sprint("key-", i)))
	}
	e.apply(many...)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		e.apply(credentialOf("one-more", "demo", fmt.Sprint("other-", i)))
		i++
	}
}
