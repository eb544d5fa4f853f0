package nodeapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func names(rs map[resource.Ref]*weirv1.Resource) []string {
	all := []string{}
	for ref := range rs {
		all = append(all, ref.String())
	}
	slices.Sort(all)
	return all
}

func memberNames(s *scope) []string {
	rs := map[resource.Ref]*weirv1.Resource{}
	for n, r := range s.members {
		rs[n.ref] = r
	}
	return names(rs)
}

func onGateway(name string) *weirv1.TargetRef { return &weirv1.TargetRef{Kind: "Gateway", Name: name} }
func onRoute(name string) *weirv1.TargetRef   { return &weirv1.TargetRef{Kind: "Route", Name: name} }
func onService(name string) *weirv1.TargetRef { return &weirv1.TargetRef{Kind: "Service", Name: name} }
func onTenant() *weirv1.TargetRef             { return &weirv1.TargetRef{Kind: "Tenant"} }

// calling lets a policy call services.
func calling(policy *weirv1.Resource, services ...string) *weirv1.Resource {
	spec := policy.GetPolicy().GetSpec()
	for _, name := range services {
		spec.Services = append(spec.Services, &weirv1.ServiceGrant{Name: name})
	}
	return policy
}

func TestScopeHoldsWhatItsProxiesNeed(t *testing.T) {
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{
		gateway("all", nil), gateway("eu", map[string]string{"region": "eu"}), gateway("us", map[string]string{"region": "us"}),
		route("everywhere", "all", "books"), route("europe", "eu", "books", "prices"), route("america", "us", "quotes"),
		service("books"), service("prices"), service("quotes"), service("unused"),
		attached("on-all", "stamp", onGateway("all")), attached("on-europe", "limit", onRoute("europe")), attached("on-america", "key", onRoute("america")),
		plugin("stamp", "d1"), plugin("limit", "d2"), plugin("key", "d3"), plugin("spare", "d4"),
		service("login"), calling(attached("on-prices", "stamp", onService("prices")), "login"), attached("on-unused", "stamp", onService("unused")),
		attached("everybody", "stamp", onTenant()),
	}})
	for name, c := range map[string]struct {
		labels map[string]string
		want   []string
	}{
		"no labels": {nil, []string{
			"Gateway all", "Plugin stamp", "Policy everybody", "Policy on-all", "Route everywhere", "Service books",
		}},
		"a label that one gateway wants": {map[string]string{"region": "eu", "rack": "7"}, []string{
			"Gateway all", "Gateway eu", "Plugin limit", "Plugin stamp", "Policy everybody", "Policy on-all", "Policy on-europe", "Policy on-prices",
			"Route europe", "Route everywhere", "Service books", "Service login", "Service prices",
		}},
		"a value that no gateway wants": {map[string]string{"region": "mars"}, []string{
			"Gateway all", "Plugin stamp", "Policy everybody", "Policy on-all", "Route everywhere", "Service books",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, memberNames(newScope(audience{labels: c.labels, kinds: resource.NewerKinds}, g))); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestTenantsDoNotMix(t *testing.T) {
	g := newGraph()
	foreign := service("books")
	resource.Meta(foreign).Tenant = "other"
	g.apply(Change{Revision: 1, Puts: []*weirv1.Resource{gateway("all", nil), route("r", "all", "books"), foreign}})
	want := []string{"Gateway all", "Route r"}
	if diff := cmp.Diff(want, memberNames(newScope(audience{kinds: resource.NewerKinds}, g))); diff != "" {
		t.Fatal(diff)
	}
}

// naive is what a scope should hold, worked out from scratch.
func naive(labels map[string]string, all map[resource.Ref]*weirv1.Resource) map[resource.Ref]*weirv1.Resource {
	in := map[resource.Ref]*weirv1.Resource{}
	refers := func(from *weirv1.Resource, kinds ...string) bool {
		for to := range resource.References(from) {
			if in[to.To] != nil && slices.Contains(kinds, to.To.Kind) {
				return true
			}
		}
		return false
	}
	referred := func(to resource.Ref, by string) bool {
		for from, r := range in {
			for reference := range resource.References(r) {
				if from.Kind == by && reference.To == to {
					return true
				}
			}
		}
		return false
	}
	runs := func(p *weirv1.PolicySpec) bool {
		for _, t := range p.GetTargetRefs() {
			target := resource.Ref{Kind: t.GetKind(), Tenant: resource.DefaultTenant, Name: t.GetName()}
			switch t.GetKind() {
			case "Tenant":
				for ref := range in {
					if ref.Kind == "Route" {
						return true
					}
				}
			case "Service":
				if referred(target, "Route") {
					return true
				}
			default:
				if in[target] != nil {
					return true
				}
			}
		}
		return false
	}
	granted := func(service string) bool {
		for _, r := range in {
			for _, g := range r.GetPolicy().GetSpec().GetServices() {
				if g.GetName() == service {
					return true
				}
			}
		}
		return false
	}
	for _, kind := range []string{"Gateway", "Route", "Policy", "Service", "Plugin"} {
		for ref, r := range all {
			if ref.Kind != kind {
				continue
			}
			wanted := false
			switch kind {
			case "Gateway":
				wanted = satisfies(labels, r.GetGateway().GetSpec().GetSelector())
			case "Route":
				wanted = refers(r, "Gateway")
			case "Policy":
				wanted = runs(r.GetPolicy().GetSpec())
			case "Service":
				wanted = referred(ref, "Route") || granted(ref.Name)
			case "Plugin":
				wanted = referred(ref, "Policy")
			}
			if wanted {
				in[ref] = r
			}
		}
	}
	return in
}

// Whatever happens to the declarations, the scopes that follow step by step
// hold what scopes made from scratch hold, and so does a proxy that was sent
// the changes alone.
func TestScopesFollow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		labelSets := []map[string]string{nil, {"region": "eu"}, {"region": "us", "tier": "1"}}
		g := newGraph()
		var scopes []*scope
		var proxies []*held
		var read []uint64
		for _, labels := range labelSets {
			scopes = append(scopes, newScope(audience{labels: labels, kinds: resource.NewerKinds}, g))
			proxies = append(proxies, newHeld())
			read = append(read, 0)
		}
		all := map[resource.Ref]*weirv1.Resource{}
		for revision := uint64(1); revision < 30; revision++ {
			c := randomChange(t, revision, all)
			touched := g.apply(c)
			for i, s := range scopes {
				s.change(revision, touched)
				want := naive(labelSets[i], all)
				if diff := cmp.Diff(names(want), memberNames(s)); diff != "" {
					t.Fatalf("revision %d, labels %v: %s", revision, labelSets[i], diff)
				}
				deliver(t, s, proxies[i], &read[i])
				for ref, r := range want {
					if got := proxies[i].resources[ref]; !proto.Equal(got, r) {
						t.Fatalf("revision %d: the proxy holds %v, want %v", revision, got, r)
					}
				}
				if diff := cmp.Diff(names(want), names(proxies[i].resources)); diff != "" {
					t.Fatalf("revision %d: the proxy: %s", revision, diff)
				}
				if fresh := newScope(audience{labels: labelSets[i], kinds: resource.NewerKinds}, g); fresh.digest != s.digest {
					t.Fatalf("revision %d: the digest has drifted", revision)
				}
			}
		}
		for ref, n := range g.nodes {
			if n.resource == nil && len(n.referrers) == 0 {
				t.Fatalf("%s is nothing to anyone and still kept", ref)
			}
		}
	})
}

// deliver hands a proxy what came to its scope since, as a stream would.
func deliver(t *rapid.T, s *scope, h *held, read *uint64) {
	for {
		f, _, ok := s.history.at(*read)
		if !ok {
			t.Fatal("the history is shorter than the test")
		}
		if f == nil {
			return
		}
		*read++
		c := &received{}
		for _, part := range f.parts {
			whole, err := c.add(arrived(t, part))
			if err != nil {
				t.Fatal(err)
			}
			if !whole {
				continue
			}
			if err := h.receive(c); err != nil {
				t.Fatal(err)
			}
			h.accept()
		}
	}
}

// randomChange alters a few resources of a small world, in all and in the
// change that it returns. Now and then the change is a reset.
func randomChange(t *rapid.T, revision uint64, all map[resource.Ref]*weirv1.Resource) Change {
	c := Change{Revision: revision}
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		var r *weirv1.Resource
		n := name.Draw(t, "name")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			r = gateway(n, rapid.SampledFrom([]map[string]string{nil, {"region": "eu"}, {"region": "us"}, {"tier": "2"}}).Draw(t, "selector"))
		case 1:
			r = route(n, name.Draw(t, "parent"), rapid.SliceOfN(name, 0, 2).Draw(t, "backends")...)
		case 2:
			r = service(n)
		case 3:
			r = attached(n, name.Draw(t, "plugin"), rapid.SampledFrom([]*weirv1.TargetRef{
				onGateway("a"), onGateway("b"), onRoute("a"), onRoute("c"), onService("a"), onService("b"), onTenant()}).Draw(t, "target"))
			calling(r, rapid.SliceOfNDistinct(name, 0, 2, rapid.ID).Draw(t, "grants")...)
		case 4:
			r = plugin(n, fmt.Sprint(revision))
		}
		c.takeIn(t, r, all)
	}
	return c.orReset(t, all)
}

// takeIn puts a resource or deletes it, in the change and in all, unless the change has it
// already.
func (c *Change) takeIn(t *rapid.T, r *weirv1.Resource, all map[resource.Ref]*weirv1.Resource) {
	ref := resource.Of(r)
	if slices.ContainsFunc(c.Puts, func(p *weirv1.Resource) bool { return resource.Of(p) == ref }) || slices.Contains(c.Deletes, ref) {
		return
	}
	if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
		c.Deletes = append(c.Deletes, ref)
		delete(all, ref)
		return
	}
	resource.Meta(r).Revision = c.Revision
	c.Puts = append(c.Puts, r)
	all[ref] = r
}

// orReset is the change, or now and then a reset to all.
func (c Change) orReset(t *rapid.T, all map[resource.Ref]*weirv1.Resource) Change {
	if rapid.IntRange(0, 9).Draw(t, "reset") == 0 {
		return Change{Revision: c.Revision, Reset: true, Puts: slices.Collect(maps.Values(all))}
	}
	return c
}

// TestConsumersGoWhereAKeyIsAskedFor: proxies know who may call while an Api of theirs
// asks for a key, and nothing of them otherwise.
func TestConsumersGoWhereAKeyIsAskedFor(t *testing.T) {
	api := func(revision uint64, keyed bool) *weirv1.Resource {
		spec := &weirv1.ApiSpec{TargetRefs: []*weirv1.TargetRef{onRoute("books")}}
		if keyed {
			spec.Authentication = &weirv1.ApiAuthentication{ApiKey: &weirv1.ApiKey{}}
		}
		return resource.Wrap(&weirv1.Api{Metadata: &weirv1.Metadata{Name: "books", Revision: revision}, Spec: spec})
	}
	named := func(name string) *weirv1.Metadata { return &weirv1.Metadata{Name: name, Revision: 1} }
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{
		gateway("all", nil), route("books", "all", "books"), service("books"), api(1, false),
		resource.Wrap(&weirv1.App{Metadata: named("demo")}),
		resource.Wrap(&weirv1.Credential{Metadata: named("demo-1"), Spec: &weirv1.CredentialSpec{App: "demo"}}),
		resource.Wrap(&weirv1.Plan{Metadata: named("free"), Spec: &weirv1.PlanSpec{Apis: []string{"books"}}}),
		resource.Wrap(&weirv1.Subscription{Metadata: named("demo-free"), Spec: &weirv1.SubscriptionSpec{App: "demo", Plan: "free"}}),
		resource.Wrap(&weirv1.App{Metadata: &weirv1.Metadata{Tenant: "other", Name: "theirs", Revision: 1}}),
	}})
	without := []string{"Api books", "Gateway all", "Route books", "Service books"}
	with := []string{"Api books", "App demo", "Credential demo-1", "Gateway all", "Plan free", "Route books", "Service books", "Subscription demo-free"}
	s := newScope(audience{kinds: resource.NewerKinds}, g)
	for i, step := range []struct {
		change Change
		want   []string
	}{
		{Change{}, without},
		{Change{Puts: []*weirv1.Resource{api(2, true)}}, with},
		{Change{Puts: []*weirv1.Resource{api(3, true)}}, with},
		{Change{Puts: []*weirv1.Resource{api(4, false)}}, without},
		{Change{Puts: []*weirv1.Resource{api(5, true)}}, with},
		{Change{Deletes: []resource.Ref{{Kind: "Route", Tenant: "default", Name: "books"}}}, []string{"Gateway all"}},
	} {
		if i > 0 {
			step.change.Revision = uint64(i + 1)
			s.change(step.change.Revision, g.apply(step.change))
		}
		if diff := cmp.Diff(step.want, memberNames(s)); diff != "" {
			t.Fatalf("step %d: %s", i, diff)
		}
		if diff := cmp.Diff(step.want, memberNames(newScope(audience{kinds: resource.NewerKinds}, g))); diff != "" {
			t.Fatalf("step %d, drawn anew: %s", i, diff)
		}
	}
}
