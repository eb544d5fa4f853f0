package nodeapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func meta(name string, revision uint64) *weirv1.Metadata {
	return &weirv1.Metadata{Name: name, Tenant: resource.DefaultTenant, Revision: revision}
}

// certificate has a key.
func certificate(name string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Certificate{Metadata: meta(name, 1), Material: &weirv1.CertificateMaterial{Chain: [][]byte{{1}}, Key: []byte("secret of " + name)}})
}

// showing is a Service of endpoints that are shown a Certificate.
func showing(name, own string) *weirv1.Resource {
	s := service(name)
	resource.Meta(s).Revision = 1
	s.GetService().Spec.Tls = &weirv1.UpstreamTLS{Hostname: name + ".example", ClientCertificateRef: &weirv1.CertificateRef{Name: own}}
	s.GetService().Spec.Subsets = []*weirv1.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}}}
	return s
}

func keyedApi(name string, revision uint64, routes ...string) *weirv1.Resource {
	spec := &weirv1.ApiSpec{Authentication: &weirv1.ApiAuthentication{ApiKey: &weirv1.ApiKey{}}}
	for _, r := range routes {
		spec.TargetRefs = append(spec.TargetRefs, onRoute(r))
	}
	return resource.Wrap(&weirv1.Api{Metadata: meta(name, revision), Spec: spec})
}

// Keys, and what policies are told, go to the sidecars of those alone who may call.
func TestWhatASidecarMayNotCallIsWithheld(t *testing.T) {
	shop, reviews := besides("default", "shop"), besides("default", "reviews")
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{
		service("shop"), service("reviews"), showing("bank", "for-bank"), certificate("for-bank"), instance("bank-1", "bank", 1),
		attached("on-bank", "sign", onService("bank")), plugin("sign", "d1"),
		meshRoute("to-bank", "bank", "bank"), attached("on-route", "count", onRoute("to-bank")), plugin("count", "d2"),
		keyedApi("banking", 1, "to-bank"), resource.Wrap(&weirv1.App{Metadata: meta("app", 1)}),
	}})
	scopes := map[string]*scope{"shop": newScope(shop, g), "reviews": newScope(reviews, g)}
	change := func(c Change) {
		c.Revision = g.revision + 1
		for _, r := range c.Puts {
			resource.Meta(r).Revision = c.Revision
		}
		touched := g.apply(c)
		for _, s := range scopes {
			s.change(c.Revision, touched)
		}
	}
	all := []string{"Api banking", "App app", "Certificate for-bank", "Instance bank-1", "Plugin count", "Plugin sign", "Policy on-bank", "Policy on-route",
		"Route to-bank", "Service bank", "Service reviews", "Service shop"}
	little := []string{"Route to-bank", "Service bank", "Service reviews", "Service shop"}
	require := func(when, whose string, want []string, whole bool) {
		t.Helper()
		for as, s := range map[string]*scope{"changed": scopes[whose], "drawn anew": newScope(scopes[whose].audience, g)} {
			if diff := cmp.Diff(want, memberNames(s)); diff != "" {
				t.Errorf("%s: %s, %s: %s", when, whose, as, diff)
			}
			bank := s.members[g.at(ref("Service", "bank"))].GetService()
			if got := len(bank.GetSpec().GetEndpoints()) > 0; got != whole || bank.GetStatus().GetWithheld() == whole || (bank.GetSpec().GetTls() != nil) != whole {
				t.Errorf("%s: %s, %s: the service is %v", when, whose, as, bank)
			}
		}
	}
	require("without a rule", "shop", all, true)
	require("without a rule", "reviews", all, true)
	change(Change{Puts: []*weirv1.Resource{accessRule("bank", "bank", "spiffe://td/ns/default/svc/shop")}})
	require("with a rule", "shop", all, true)
	require("with a rule", "reviews", little, false)
	change(Change{Puts: []*weirv1.Resource{accessRule("bank", "bank", "spiffe://td/ns/*/svc/reviews")}})
	require("with another", "shop", little, false)
	require("with another", "reviews", all, true)
	change(Change{Puts: []*weirv1.Resource{accessRule("bank", "bank")}})
	require("with one for nobody", "shop", little, false)
	change(Change{Deletes: []resource.Ref{ref("AccessRule", "bank")}})
	require("without again", "shop", all, true)

	// The Route leads elsewhere: nobody comes to the bank.
	change(Change{Puts: []*weirv1.Resource{meshRoute("to-bank", "bank", "shop")}})
	onRouteOnly := []string{"Api banking", "App app", "Plugin count", "Policy on-route", "Route to-bank", "Service bank", "Service reviews", "Service shop"}
	require("with a route that leads elsewhere", "reviews", onRouteOnly, false)
	change(Change{Puts: []*weirv1.Resource{calling(attached("on-route", "count", onRoute("to-bank")), "bank")}})
	granted := slices.Insert(slices.Clone(onRouteOnly), 2, "Certificate for-bank", "Instance bank-1")
	require("and a policy that may call it", "reviews", granted, true)
}

// TestSidecarsOfAServiceShareAScope whatever they say of themselves, and nobody else's.
func TestSidecarsOfAServiceShareAScope(t *testing.T) {
	h := newHub(newDeclared(), nil)
	one, other := besides("default", "shop"), besides("default", "shop")
	other.labels = nil
	if h.join(one) != h.join(other) {
		t.Error("two sidecars of a service have a scope each")
	}
	for _, a := range []audience{besides("default", "books"), besides("acme", "shop"), {kinds: resource.NewerKinds}} {
		if h.join(one) == h.join(a) {
			t.Errorf("%v has the scope of another", a)
		}
	}
}

// beside is what a sidecar should hold, worked out from scratch from what is documented.
func beside(own string, all map[resource.Ref]*weirv1.Resource) map[resource.Ref]*weirv1.Resource {
	in := map[resource.Ref]*weirv1.Resource{}
	of := func(kind string, do func(name string, r *weirv1.Resource)) {
		for ref, r := range all {
			if ref.Kind == kind {
				do(ref.Name, r)
			}
		}
	}
	keep := func(kind, name string) {
		if at := ref(kind, name); all[at] != nil {
			in[at] = all[at]
		}
	}
	may := func(service string) (may bool) {
		ruled := false
		of("AccessRule", func(_ string, r *weirv1.Resource) {
			if r.GetAccessRule().GetSpec().GetService() == service {
				ruled = true
				for _, a := range r.GetAccessRule().GetSpec().GetAllow() {
					may = may || a.GetFrom()[0] == "spiffe://td/ns/default/svc/"+own
				}
			}
		})
		return may || !ruled || service == own
	}
	// Where requests for the hosts of Services go, and which Routes do something.
	sentTo, does := map[string]bool{}, map[string]bool{}
	taken := map[string]bool{}
	of("Route", func(name string, r *weirv1.Resource) {
		for _, p := range r.GetRoute().GetSpec().GetParentRefs() {
			if p.GetKind() != "Service" {
				return
			}
			taken[p.GetName()] = true
		}
		keep("Route", name)
		for _, rule := range r.GetRoute().GetSpec().GetRules() {
			for _, b := range rule.GetBackendRefs() {
				sentTo[b.GetName()] = true
				does[name] = does[name] || may(b.GetName())
			}
		}
	})
	of("Service", func(name string, r *weirv1.Resource) {
		if !taken[name] {
			sentTo[name] = true
		}
	})
	called := map[string]bool{} // by policies
	of("Policy", func(name string, r *weirv1.Resource) {
		for _, t := range r.GetPolicy().GetSpec().GetTargetRefs() {
			if t.GetKind() == "Route" && in[ref("Route", t.GetName())] != nil && does[t.GetName()] ||
				t.GetKind() == "Service" && all[ref("Service", t.GetName())] != nil && sentTo[t.GetName()] && may(t.GetName()) {
				keep("Policy", name)
				keep("Plugin", r.GetPolicy().GetSpec().GetPlugin())
				for _, g := range r.GetPolicy().GetSpec().GetServices() {
					called[g.GetName()] = true
				}
			}
		}
	})
	keyed := false
	of("Api", func(name string, r *weirv1.Resource) {
		for _, t := range r.GetApi().GetSpec().GetTargetRefs() {
			if in[ref("Route", t.GetName())] != nil && does[t.GetName()] {
				keep("Api", name)
				keyed = true
			}
		}
	})
	of("App", func(name string, _ *weirv1.Resource) {
		if keyed {
			keep("App", name)
		}
	})
	of("AccessRule", func(name string, r *weirv1.Resource) {
		if r.GetAccessRule().GetSpec().GetService() == own {
			keep("AccessRule", name)
		}
	})
	whole, shown := map[string]bool{}, map[string]bool{}
	of("Service", func(name string, r *weirv1.Resource) {
		keep("Service", name)
		whole[name] = name == own || may(name) && (sentTo[name] || called[name])
		if tls := r.GetService().GetSpec().GetTls(); whole[name] && tls != nil {
			keep("Certificate", tls.GetClientCertificateRef().GetName())
			shown[tls.GetClientCertificateRef().GetName()] = true
			for _, ca := range tls.GetCaCertificateRefs() {
				keep("Certificate", ca.GetName())
			}
		}
		if !whole[name] {
			bare := resource.Wrap(&weirv1.Service{Metadata: meta(name, resource.Meta(r).GetRevision()+1<<63), Spec: new(weirv1.ServiceSpec),
				Status: &weirv1.ServiceStatus{Withheld: true}})
			for _, s := range r.GetService().GetSpec().GetSubsets() {
				bare.GetService().Spec.Subsets = append(bare.GetService().Spec.Subsets, &weirv1.Subset{Name: s.GetName()})
			}
			in[ref("Service", name)] = bare
		}
	})
	of("Certificate", func(name string, r *weirv1.Resource) {
		if in[ref("Certificate", name)] != nil && !shown[name] {
			bare := proto.CloneOf(r)
			bare.GetCertificate().Material.Key = nil
			resource.Meta(bare).Revision += 1 << 63
			in[ref("Certificate", name)] = bare
		}
	})
	of("Instance", func(name string, r *weirv1.Resource) {
		if whole[r.GetInstance().GetSpec().GetService()] {
			keep("Instance", name)
		}
	})
	return in
}

// randomMeshChange is randomChange in a world of sidecars.
func randomMeshChange(t *rapid.T, revision uint64, all map[resource.Ref]*weirv1.Resource) Change {
	c := Change{Revision: revision}
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		var r *weirv1.Resource
		n := name.Draw(t, "name")
		switch rapid.IntRange(0, 8).Draw(t, "kind") {
		case 0:
			r = service(n)
			if rapid.Bool().Draw(t, "tls") {
				r = showing(n, name.Draw(t, "certificate"))
				r.GetService().Spec.Tls.CaCertificateRefs = []*weirv1.CertificateRef{{Name: name.Draw(t, "authority")}}
			}
		case 1:
			r = meshRoute(n, name.Draw(t, "parent"), rapid.SliceOfN(name, 1, 2).Draw(t, "backends")...)
		case 2:
			r = route(n, name.Draw(t, "gateway"), name.Draw(t, "backend"))
		case 3:
			r = attached(n, name.Draw(t, "plugin"), rapid.SampledFrom([]*weirv1.TargetRef{onRoute("a"), onRoute("b"), onService("a"), onService("b"), onService("c")}).Draw(t, "target"))
			calling(r, rapid.SliceOfNDistinct(name, 0, 1, rapid.ID).Draw(t, "grants")...)
		case 4:
			r = plugin(n, fmt.Sprint(revision))
		case 5:
			rules := rapid.SliceOfN(rapid.SampledFrom([]string{"spiffe://td/ns/default/svc/a", "spiffe://td/ns/default/svc/b"}), 0, 2).Draw(t, "from")
			r = accessRule(n, name.Draw(t, "of"), rules...)
		case 6:
			r = certificate(n)
		case 7:
			r = instance(n, name.Draw(t, "of"), revision)
		case 8:
			if r = keyedApi(n, revision, name.Draw(t, "on")); rapid.Bool().Draw(t, "app") {
				r = resource.Wrap(&weirv1.App{Metadata: meta(n, revision)})
			}
		}
		resource.Meta(r).Tenant = resource.DefaultTenant
		c.takeIn(t, r, all)
	}
	return c.orReset(t, all)
}

// Sidecars subscribe, leave and come back in a random order, at one server and at another
// that has just started, while what is declared changes. Whoever is there holds what its
// service needs, no more and no less, with each resource as it is meant for it.
func TestSidecarsHoldWhatTheirServicesNeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := map[resource.Ref]*weirv1.Resource{}
		var servers [2]*hub
		for i := range servers {
			servers[i] = newHub(nil, nil)
		}
		type subscriber struct {
			own   string
			scope *scope // nil: it is away
			held  *held
			read  uint64
		}
		var subscribers []*subscriber
		for _, own := range []string{"a", "a", "b", "c"} {
			subscribers = append(subscribers, &subscriber{own: own, held: newHeld()})
		}
		for revision := uint64(1); revision < 25; revision++ {
			c := randomMeshChange(t, revision, all)
			for _, h := range servers {
				h.apply(c)
			}
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				servers[1] = newHub(nil, nil)
				servers[1].apply(Change{Revision: revision, Reset: true, Puts: slices.Collect(maps.Values(all))})
				for _, s := range subscribers { // those that were with it are gone with it
					s.scope = nil
				}
			}
			for i, s := range subscribers {
				switch rapid.IntRange(0, 3).Draw(t, "moves") {
				case 0:
					s.scope = nil
				case 1:
					h := servers[rapid.IntRange(0, 1).Draw(t, "to")]
					s.scope = h.join(besides("default", s.own))
					s.read = resumed(t, h, s.scope, s.held)
				}
				if s.scope == nil {
					continue
				}
				deliver(t, s.scope, s.held, &s.read)
				want := beside(s.own, all)
				if diff := cmp.Diff(want, s.held.resources, protocmp.Transform()); diff != "" {
					t.Fatalf("revision %d, subscriber %d beside %s: %s", revision, i, s.own, diff)
				}
			}
		}
	})
}

// resumed does what a sender does first for a proxy that comes with what it holds, and
// returns the number of the frame to go on from.
func resumed(t *rapid.T, h *hub, s *scope, proxy *held) (next uint64) {
	take := func(f *frame) {
		c := &received{}
		for _, part := range f.parts {
			if _, err := c.add(arrived(t, part)); err != nil {
				t.Fatal(err)
			}
		}
		if err := proxy.receive(c); err != nil {
			t.Fatal(err)
		}
		proxy.accept()
	}
	if at := proxy.at; at.revision != 0 {
		if f, next, ok := comeback(s.history, at); ok {
			take(f)
			return next
		}
	}
	f, next := h.snapshot(s)
	take(f)
	return next
}
