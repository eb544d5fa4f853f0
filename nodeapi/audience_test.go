package nodeapi

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func instance(name, service string, revision uint64) *weirv1.Resource {
	return resource.Wrap(&weirv1.Instance{Metadata: &weirv1.Metadata{Name: name, Revision: revision}, Spec: &weirv1.InstanceSpec{Service: service, Node: name, Address: "10.0.0.1:1"}})
}

// accessRule lets in those with an identity; none: nobody.
func accessRule(name, service string, from ...string) *weirv1.Resource {
	spec := &weirv1.AccessRuleSpec{Service: service}
	for _, id := range from {
		spec.Allow = append(spec.Allow, &weirv1.AccessAllow{From: []string{id}})
	}
	return resource.Wrap(&weirv1.AccessRule{Metadata: &weirv1.Metadata{Name: name, Revision: 1}, Spec: spec})
}

// besides is the audience of a service's sidecars.
func besides(tenant, service string) audience {
	id := identity.ID{TrustDomain: "td", Role: identity.RoleSidecar, Name: service + "-1", Tenant: tenant, Service: service}
	return audienceOf(id, &weirv1.Subscribe{Kinds: resource.NewerKinds, Labels: map[string]string{"version": "v1"}})
}

// meshRoute acts on what the mesh sends to a service.
func meshRoute(name, parent string, services ...string) *weirv1.Resource {
	r := route(name, parent, services...)
	r.GetRoute().GetSpec().GetParentRefs()[0].Kind = resource.KindService
	return r
}

// What edges and sidecars are sent of a mesh, and that it follows what changes.
func TestWhatTheMeshIsSent(t *testing.T) {
	foreign := service("theirs")
	resource.Meta(foreign).Tenant = "other"
	g := newGraph()
	g.apply(Change{Revision: 1, Reset: true, Puts: []*weirv1.Resource{
		gateway("all", nil), route("public", "all", "books"),
		service("books"), service("till"), foreign,
		instance("books-1", "books", 1), instance("till-1", "till", 1),
		accessRule("who-reads", "books"), accessRule("who-pays", "till", "spiffe://td/ns/default/svc/books"),
		meshRoute("split", "till", "till"), attached("on-split", "stamp", onRoute("split")), attached("on-public", "key", onRoute("public")),
		attached("on-till", "limit", onService("till")), plugin("stamp", "d1"), plugin("key", "d2"), plugin("limit", "d3"),
	}})
	earlier := slices.DeleteFunc(slices.Clone(resource.NewerKinds), func(k string) bool { return k == resource.KindInstance || k == resource.KindAccessRule })
	edge := audience{kinds: resource.NewerKinds}
	books := besides("default", "books")
	scopes := map[string]*scope{}
	for name, a := range map[string]audience{"edge": edge, "edge of an earlier version": {kinds: earlier}, "books": books,
		"a stranger": besides("nobody", "books")} {
		scopes[name] = newScope(a, g)
	}
	require := func(name string, want ...string) {
		t.Helper()
		for as, s := range map[string]*scope{"changed": scopes[name], "drawn anew": newScope(scopes[name].audience, g)} {
			if diff := cmp.Diff(want, memberNames(s), cmp.Transformer("", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Errorf("%s, %s: %s", name, as, diff)
			}
		}
	}
	ofEdge := []string{"Gateway all", "Plugin key", "Policy on-public", "Route public", "Service books"}
	ofBooks := []string{"AccessRule who-reads", "Instance books-1", "Instance till-1", "Plugin limit", "Plugin stamp", "Policy on-split", "Policy on-till",
		"Route split", "Service books", "Service till"}
	require("edge", slices.Insert(slices.Clone(ofEdge), 1, "Instance books-1")...)
	require("edge of an earlier version", ofEdge...)
	require("books", ofBooks...)
	require("a stranger")

	change := func(c Change) {
		c.Revision = g.revision + 1
		touched := g.apply(c)
		for _, s := range scopes {
			s.change(c.Revision, touched)
		}
	}
	change(Change{Puts: []*weirv1.Resource{instance("books-2", "books", 2)}})
	require("edge", "Gateway all", "Instance books-1", "Instance books-2", "Plugin key", "Policy on-public", "Route public", "Service books")
	change(Change{Deletes: []resource.Ref{ref("Instance", "books-1"), ref("Instance", "books-2"), ref("Route", "public"), ref("Policy", "on-public"), ref("Route", "split"), ref("Policy", "on-split")}})
	require("edge", "Gateway all")
	require("books", "AccessRule who-reads", "Instance till-1", "Plugin limit", "Policy on-till", "Service books", "Service till")
}

// Only sidecars have instances, at addresses that mean something to others.
func TestRegisterInstanceRefuses(t *testing.T) {
	c := startCluster(t)
	l := c.dial(c.enrol(identity.RoleEdge, "e1").ClientTLS)
	_, err := l.api.RegisterInstance(t.Context(), &weirv1.RegisterInstanceRequest{Address: "10.0.0.1:7443"})
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an edge: %v", err)
	}
	if _, err = l.api.WithdrawInstance(t.Context(), &weirv1.WithdrawInstanceRequest{}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an edge withdraws: %v", err)
	}
	for address, good := range map[string]bool{
		"10.0.0.1:7443": true, "[2001:db8::1]:7443": true, "books-1.internal:7443": true,
		"": false, ":7443": false, "0.0.0.0:7443": false, "[::]:7443": false, "10.0.0.1": false, "10.0.0.1:0": false, "10.0.0.1:70000": false,
		strings.Repeat("a", 300) + ":1": false,
	} {
		if err := checkInstance(&weirv1.RegisterInstanceRequest{Address: address}); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
	if checkInstance(&weirv1.RegisterInstanceRequest{Address: "10.0.0.1:1", Labels: map[string]string{"a": "b\n"}}) == nil {
		t.Error("a label with a line break passed")
	}
}
