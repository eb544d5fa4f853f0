package mesh

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func newView(t *testing.T) *View {
	t.Helper()
	v, err := New(Config{Tenant: "default", Service: "books", Address: "127.0.0.1:9001", Inbound: "10.0.0.1:7443", Outbound: "127.0.0.1:7480"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func named(name string, revision uint64) *weirv1.Metadata {
	return &weirv1.Metadata{Tenant: "default", Name: name, Revision: revision}
}

func service(name string, revision uint64, protocol weirv1.ServiceSpec_Protocol) *weirv1.Resource {
	return resource.Wrap(&weirv1.Service{Metadata: named(name, revision), Spec: &weirv1.ServiceSpec{Protocol: protocol}})
}

func route(name string, revision uint64, parents ...*weirv1.ParentRef) *weirv1.Resource {
	return resource.Wrap(&weirv1.Route{Metadata: named(name, revision), Spec: &weirv1.RouteSpec{ParentRefs: parents, Hostnames: []string{"shop.example"},
		Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: "till"}}}}}})
}

// told is what an update says, in short: "+Route till.mesh (till.mesh)", "-Route x".
func told(u Update) (lines []string) {
	for _, r := range u.Puts {
		line := "+" + resource.Of(r).String()
		if hosts := r.GetRoute().GetSpec().GetHostnames(); len(hosts) > 0 {
			line += " (" + strings.Join(hosts, " ") + ")"
		}
		lines = append(lines, line)
	}
	for _, ref := range u.Deletes {
		lines = append(lines, "-"+ref.String())
	}
	return lines
}

// What is declared, step by step, and what the proxy is told of it.
func TestAView(t *testing.T) {
	v := newView(t)
	onTill := &weirv1.ParentRef{Kind: "Service", Name: "till"}
	onBooks := &weirv1.ParentRef{Kind: "Service", Name: "books"}
	onGateway := &weirv1.ParentRef{Name: "public"}
	foreign := service("theirs", 1, 0)
	resource.Meta(foreign).Tenant = "other"
	ref := func(kind, name string) resource.Ref { return resource.Ref{Kind: kind, Tenant: "default", Name: name} }
	for i, step := range []struct {
		update Update
		want   []string
	}{
		{Update{Snapshot: true}, []string{"+Gateway mesh.inbound", "+Gateway mesh.outbound", "+Route mesh.inbound", "+Service mesh.local"}},
		{Update{Puts: []*weirv1.Resource{service("till", 1, 0), service("bytes", 1, weirv1.ServiceSpec_TCP), foreign}},
			[]string{"+Route till.mesh (till.mesh)", "+Service bytes", "+Service till", "+Service other/theirs"}},
		{Update{Puts: []*weirv1.Resource{service("till", 1, 0)}}, nil},
		{Update{Puts: []*weirv1.Resource{route("split", 2, onTill, onGateway)}}, []string{"+Route split (till.mesh)", "-Route till.mesh"}},
		{Update{Puts: []*weirv1.Resource{route("split", 3, onTill, onBooks)}}, []string{"+Route split (till.mesh books.mesh)"}},
		{Update{Puts: []*weirv1.Resource{route("public", 4, onGateway)}}, nil},
		{Update{Puts: []*weirv1.Resource{service("books", 5, weirv1.ServiceSpec_HTTP2)}}, []string{"+Service books", "+Service mesh.local"}},
		{Update{Deletes: []resource.Ref{ref("Route", "split")}}, []string{"+Route books.mesh (books.mesh)", "+Route till.mesh (till.mesh)", "-Route split"}},
		{Update{Snapshot: true, Puts: []*weirv1.Resource{service("books", 5, weirv1.ServiceSpec_HTTP2)}},
			[]string{"-Route till.mesh", "-Service bytes", "-Service till", "-Service other/theirs"}},
	} {
		step.update.Revision = uint64(i + 1)
		got := told(v.Update(step.update))
		if slices.Sort(got); !cmp.Equal(sorted(step.want), got) {
			t.Errorf("step %d: %s", i, cmp.Diff(sorted(step.want), got))
		}
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func TestAddressesToListenAt(t *testing.T) {
	for _, c := range []struct{ inbound, want string }{
		{":7443", ""}, {"0.0.0.0:7443", ""}, {"[::1]:7443", ""}, {"localhost:7443", ""},
		{"10.0.0.1", "missing port"}, {"10.0.0.1:0", "no port"}, {"10.0.0.1:http", "no port"}, {"host.example:7443", "no IP address"},
	} {
		_, err := New(Config{Tenant: "default", Service: "books", Inbound: c.inbound, Outbound: "127.0.0.1:1"})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.inbound, err, c.want)
		}
	}
}
