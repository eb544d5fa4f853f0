package consumer_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/consumer"
	"github.com/weirmesh/weir/consumer/apikey"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

var noon = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

func meta(name string) *weirv1.Metadata { return &weirv1.Metadata{Name: name, Tenant: "default"} }

func app(name, organization string) *weirv1.Resource {
	return resource.Wrap(&weirv1.App{Metadata: meta(name), Spec: &weirv1.AppSpec{Organization: organization}})
}

func credential(name, app, key string, expires ...time.Time) *weirv1.Resource {
	sum := apikey.Sum(key)
	spec := &weirv1.CredentialSpec{App: app, Sha256: hex.EncodeToString(sum[:])}
	for _, t := range expires {
		spec.ExpireTime = timestamppb.New(t)
	}
	return resource.Wrap(&weirv1.Credential{Metadata: meta(name), Spec: spec})
}

func plan(name string, apis ...string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Plan{Metadata: meta(name), Spec: &weirv1.PlanSpec{Apis: apis, Limits: []*weirv1.PlanLimit{
		{Name: "minute", Requests: 100, Window: durationpb.New(time.Minute), Exact: true}}}})
}

func subscription(name, app, plan string, state weirv1.SubscriptionSpec_State) *weirv1.Resource {
	return resource.Wrap(&weirv1.Subscription{Metadata: meta(name), Spec: &weirv1.SubscriptionSpec{App: app, Plan: plan, State: state}})
}

const (
	active    = weirv1.SubscriptionSpec_ACTIVE
	suspended = weirv1.SubscriptionSpec_SUSPENDED
	cancelled = weirv1.SubscriptionSpec_CANCELLED
)

func gone(kind, name string) resource.Ref {
	return resource.Ref{Kind: kind, Tenant: "default", Name: name}
}

// say is what is said of a key, in a line.
func say(r *consumer.Registry, api, key string) string {
	c, verdict := r.Tenant("default").Find(api, []byte(key), noon)
	if (c != nil) != (verdict == consumer.Accepted) {
		return fmt.Sprintf("%v and %v", verdict, c)
	}
	if c == nil {
		return verdict.String()
	}
	return fmt.Sprintf("%s of %s by %s to %s, limits %d", c.Credential, c.App, c.Subscription, c.Plan, len(c.Limits))
}

// A key is known, or it is not, from one change to the next.
func TestWhoCalls(t *testing.T) {
	r := consumer.NewRegistry()
	r.Apply([]*weirv1.Resource{app("demo", "acme"), plan("free", "books"), subscription("demo-free", "demo", "free", 0), credential("demo-1", "demo", "k1")}, nil)
	for _, c := range []struct {
		what    string
		puts    []*weirv1.Resource
		deletes []resource.Ref
		api     string
		key     string
		want    string
	}{
		{what: "a key", key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "another", key: "k2", want: "unknown"},
		{what: "none", key: "", want: "unknown"},
		{what: "an Api that the Plan has not", api: "orders", key: "k1", want: "no_subscription"},
		{what: "the Plan has it now", puts: []*weirv1.Resource{plan("free", "books", "orders")}, api: "orders", key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "a second Subscription that comes first", puts: []*weirv1.Resource{plan("gold", "books"), subscription("demo-a", "demo", "gold", active)}, key: "k1", want: "demo-1 of demo by demo-a to gold, limits 1"},
		{what: "it has not this Api", api: "orders", key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "it is suspended", puts: []*weirv1.Resource{subscription("demo-a", "demo", "gold", suspended)}, key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "the other is cancelled", puts: []*weirv1.Resource{subscription("demo-free", "demo", "free", cancelled)}, key: "k1", want: "no_subscription"},
		{what: "it is for another App now", puts: []*weirv1.Resource{app("other", ""), subscription("demo-free", "other", "free", active)}, key: "k1", want: "no_subscription"},
		{what: "and back", puts: []*weirv1.Resource{subscription("demo-free", "demo", "free", active)}, key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "the Plan is gone", deletes: []resource.Ref{gone("Plan", "free")}, key: "k1", want: "no_subscription"},
		{what: "and back", puts: []*weirv1.Resource{plan("free", "books")}, key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "the App is gone", deletes: []resource.Ref{gone("App", "demo")}, key: "k1", want: "unknown"},
		{what: "and back", puts: []*weirv1.Resource{app("demo", "acme")}, key: "k1", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "the key is another", puts: []*weirv1.Resource{credential("demo-1", "demo", "k9")}, key: "k1", want: "unknown"},
		{what: "that one", key: "k9", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "two are of one key", puts: []*weirv1.Resource{credential("demo-0", "demo", "k9")}, key: "k9", want: "demo-0 of demo by demo-free to free, limits 1"},
		{what: "the first has expired", puts: []*weirv1.Resource{credential("demo-0", "demo", "k9", noon)}, key: "k9", want: "demo-1 of demo by demo-free to free, limits 1"},
		{what: "the second is revoked", deletes: []resource.Ref{gone("Credential", "demo-1")}, key: "k9", want: "expired"},
		{what: "it lasts longer", puts: []*weirv1.Resource{credential("demo-0", "demo", "k9", noon.Add(1))}, key: "k9", want: "demo-0 of demo by demo-free to free, limits 1"},
		{what: "it is revoked", deletes: []resource.Ref{gone("Credential", "demo-0")}, key: "k9", want: "unknown"},
		{what: "what is not there is revoked", deletes: []resource.Ref{gone("Credential", "demo-0"), gone("App", "x"), gone("Plan", "x"), gone("Subscription", "x"), gone("Route", "x")}, key: "k9", want: "unknown"},
		{what: "a sum that is none", puts: []*weirv1.Resource{resource.Wrap(&weirv1.Credential{Metadata: meta("odd"), Spec: &weirv1.CredentialSpec{App: "demo", Sha256: "00"}})}, key: "", want: "unknown"},
	} {
		if c.api == "" {
			c.api = "books"
		}
		r.Apply(c.puts, c.deletes)
		if got := say(r, c.api, c.key); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// Tenants do not know each other's keys.
func TestTenantsAreApart(t *testing.T) {
	r := consumer.NewRegistry()
	puts := []*weirv1.Resource{app("demo", ""), plan("free", "books"), subscription("s", "demo", "free", active), credential("c", "demo", "k")}
	r.Apply(puts, nil)
	other := r.Tenant("other")
	if _, verdict := other.Find("books", []byte("k"), noon); verdict != consumer.Unknown {
		t.Errorf("another tenant says %v", verdict)
	}
	if other.Allows("demo", "books") || !r.Tenant("default").Allows("demo", "books") || r.Tenant("default").Allows("nobody", "books") {
		t.Error("who allows whom")
	}
}

// model says the same as the registry, slowly.
type model map[resource.Ref]*weirv1.Resource

func (m model) say(api, key string) string {
	digest := apikey.Sum(key)
	names := slices.Sorted(maps.Keys(m.byName(resource.KindCredential)))
	verdict := "unknown"
	for _, name := range names {
		c := m[gone(resource.KindCredential, name)].GetCredential().GetSpec()
		switch {
		case c.GetSha256() != hex.EncodeToString(digest[:]):
			continue
		case c.GetExpireTime() != nil && !noon.Before(c.GetExpireTime().AsTime()):
			verdict = "expired"
			continue
		case m[gone(resource.KindApp, c.GetApp())] == nil:
			continue
		}
		for _, of := range slices.Sorted(maps.Keys(m.byName(resource.KindSubscription))) {
			s := m[gone(resource.KindSubscription, of)].GetSubscription().GetSpec()
			p := m[gone(resource.KindPlan, s.GetPlan())].GetPlan().GetSpec()
			if s.GetApp() == c.GetApp() && (s.GetState() == active || s.GetState() == 0) && slices.Contains(p.GetApis(), api) {
				return fmt.Sprintf("%s of %s by %s to %s, limits %d", name, c.GetApp(), of, s.GetPlan(), len(p.GetLimits()))
			}
		}
		return "no_subscription"
	}
	return verdict
}

func (m model) byName(kind string) map[string]bool {
	names := map[string]bool{}
	for ref := range m {
		if ref.Kind == kind {
			names[ref.Name] = true
		}
	}
	return names
}

// Whatever is declared in whatever order, the registry says what one would find by
// looking through all of it.
func TestAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		draw := rand.New(rand.NewPCG(seed, 1))
		r, m := consumer.NewRegistry(), model{}
		pick := func(prefix string) string { return fmt.Sprint(prefix, draw.IntN(5)) }
		for step := range 300 {
			var puts []*weirv1.Resource
			var deletes []resource.Ref
			touched := map[resource.Ref]bool{}
			for range 1 + draw.IntN(4) {
				var put *weirv1.Resource
				switch draw.IntN(4) {
				case 0:
					put = app(pick("a"), pick("org"))
				case 1:
					put = plan(pick("p"), pick("api"), pick("api"))
				case 2:
					put = subscription(pick("s"), pick("a"), pick("p"), weirv1.SubscriptionSpec_State(draw.IntN(4)))
				default:
					put = credential(pick("c"), pick("a"), pick("k"), [][]time.Time{nil, {noon}, {noon.Add(time.Hour)}}[draw.IntN(3)]...)
				}
				ref := resource.Of(put)
				if touched[ref] {
					continue
				}
				touched[ref] = true
				if draw.IntN(3) == 0 {
					deletes = append(deletes, ref)
					delete(m, ref)
				} else {
					puts = append(puts, put)
					m[ref] = put
				}
			}
			r.Apply(puts, deletes)
			for range 8 {
				api, key := pick("api"), pick("k")
				if got, want := say(r, api, key), m.say(api, key); got != want {
					t.Fatalf("seed %d, step %d, %s calls %s: got %q, want %q", seed, step, key, api, got, want)
				}
			}
		}
	}
}

// Who looks up while it changes sees what was or what is: here, that exactly one of two
// Plans has the Api.
func TestChangesAreSeenAsAWhole(t *testing.T) {
	r := consumer.NewRegistry()
	change := func(has, not string) {
		r.Apply([]*weirv1.Resource{plan(has, "books"), plan(not, "other")}, nil)
	}
	r.Apply([]*weirv1.Resource{app("demo", ""), credential("c", "demo", "k"), subscription("a", "demo", "pa", active), subscription("b", "demo", "pb", active)}, nil)
	change("pa", "pb")
	stop, done := make(chan struct{}), sync.WaitGroup{}
	for range 4 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if c, verdict := r.Tenant("default").Find("books", []byte("k"), noon); verdict != consumer.Accepted || c.Plan != "p"+c.Subscription {
					t.Errorf("got %v, %+v", verdict, c)
					return
				}
			}
		})
	}
	for range 2_000 {
		change("pb", "pa")
		change("pa", "pb")
	}
	close(stop)
	done.Wait()
}

// many is a registry of n keys, each of an App of its own that all have one Plan.
func many(n int) (*consumer.Registry, []string) {
	puts, keys := manyDeclared(n)
	r := consumer.NewRegistry()
	r.Apply(puts, nil)
	return r, keys
}

func manyDeclared(n int) (puts []*weirv1.Resource, keys []string) {
	keys = make([]string, n)
	puts = []*weirv1.Resource{plan("free", "books")}
	for i := range keys {
		keys[i] = apikey.New()
		of := fmt.Sprint("app-", i)
		puts = append(puts, app(of, "acme"), credential(of, of, keys[i]), subscription(of, of, "free", active))
	}
	return puts, keys
}

// To look a key up allocates nothing, whether it is there or not.
func TestLookupDoesNotAllocate(t *testing.T) {
	r, keys := many(1_000)
	tenant := r.Tenant("default")
	var c *exchange.Consumer
	for name, key := range map[string]string{"known": keys[7], "unknown": "weir_nobody"} {
		b := []byte(key)
		tenant.Find("books", b, noon)
		if n := testing.AllocsPerRun(100, func() { c, _ = tenant.Find("books", b, noon) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	before, _ := tenant.Find("books", []byte(keys[7]), noon)
	r.Apply([]*weirv1.Resource{credential("more", "app-1", "x")}, nil)
	if c, _ = tenant.Find("books", []byte(keys[7]), noon); c != before {
		t.Error("a change of another key costs this one a consumer of its own")
	}
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(fmt.Sprint(n, " keys"), func(b *testing.B) {
			r, keys := many(n)
			tenant := r.Tenant("default")
			raw := make([][]byte, 64)
			for i := range raw {
				raw[i] = []byte(keys[i*len(keys)/len(raw)])
				tenant.Find("books", raw[i], noon)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tenant.Find("books", raw[i%len(raw)], noon)
				i++
			}
		})
	}
}

// BenchmarkChange is what one change costs among a hundred thousand keys.
func BenchmarkChange(b *testing.B) {
	r, _ := many(100_000)
	for name, puts := range map[string][]*weirv1.Resource{
		"a key": {credential("app-7", "app-7", "x")}, "an App": {app("app-7", "acme")}, "a Subscription": {subscription("app-7", "app-7", "free", active)},
		"the Plan of all": {plan("free", "books")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Apply(puts, nil)
			}
		})
	}
}

// BenchmarkLoad is what a hundred thousand keys, Apps and Subscriptions cost at the start.
func BenchmarkLoad(b *testing.B) {
	puts, _ := manyDeclared(100_000)
	b.ReportAllocs()
	for b.Loop() {
		consumer.NewRegistry().Apply(puts, nil)
	}
}
