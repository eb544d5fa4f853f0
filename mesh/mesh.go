// Package mesh is what a sidecar's proxy serves: it makes of what is declared about
// services what a proxy knows how to serve.
//
//	Services, Routes, Instances … ─▶ View ─▶ Gateways, Routes … ─▶ proxy
//
// Inbound is a listener that speaks HTTP/3 and HTTP/2 with mutual TLS, and leads to the
// service beside the sidecar. Outbound is one that speaks plain HTTP to that service,
// and leads to each Service of its tenant by its host, such as books.mesh: through the
// Routes whose parent that Service is, and without one to the Service itself.
//
// # Promises
//
//   - What is made bears names that nobody can declare, so that it is in nobody's way.
//   - A View that is told the same again changes nothing.
//   - Everything else passes through untouched: policies, plugins, certificates.
package mesh

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// The names of what a View makes. None is a DNS label, as those of declarations are.
const (
	// Inbound and Outbound are Gateways; the Route of inbound has its name.
	Inbound  = "mesh.inbound"
	Outbound = "mesh.outbound"
	// Local is the Service beside the sidecar.
	Local = "mesh.local"
	// Suffix ends the hosts of services, and the names of Routes to those that have
	// none.
	Suffix = ".mesh"
)

// Made tells whether a Route is a View's own: what concerns all Routes of a tenant
// does not concern it.
func Made(route string) bool { return strings.Contains(route, ".") }

// Config says whose sidecar it is.
type Config struct {
	Tenant, Service string
	// Address is where the service itself takes requests.
	Address string
	// Inbound and Outbound are where the sidecar listens.
	Inbound, Outbound string
}

// Update is a change of what is declared, and of what is made of it.
type Update struct {
	Snapshot bool
	Revision uint64
	Puts     []*weirv1.Resource
	Deletes  []resource.Ref
}

// View is what is declared, as a sidecar serves it. One goroutine uses it.
type View struct {
	cfg      Config
	listen   [2]*weirv1.Resource // the two Gateways
	declared map[resource.Ref]*weirv1.Resource
	made     map[resource.Ref]*weirv1.Resource // as it was told last
}

// New returns a view of nothing.
func New(cfg Config) (*View, error) {
	v := &View{cfg: cfg, declared: map[resource.Ref]*weirv1.Resource{}, made: map[resource.Ref]*weirv1.Resource{}}
	for i, l := range []struct {
		name, address string
		protocol      weirv1.Listener_Protocol
	}{{Inbound, cfg.Inbound, weirv1.Listener_HTTPS}, {Outbound, cfg.Outbound, weirv1.Listener_HTTP}} {
		host, port, err := net.SplitHostPort(l.address)
		if err != nil {
			return nil, fmt.Errorf("listen for the mesh: %w", err)
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("listen for the mesh: %q has no port", l.address)
		}
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if host != "" && net.ParseIP(host) == nil {
			return nil, fmt.Errorf("listen for the mesh: %q names no IP address", l.address)
		}
		v.listen[i] = resource.Wrap(&weirv1.Gateway{Metadata: v.named(l.name, 1), Spec: &weirv1.GatewaySpec{
			Listeners: []*weirv1.Listener{{Name: "mesh", Address: host, Port: uint32(number), Protocol: l.protocol}},
		}})
	}
	return v, nil
}

func (v *View) named(name string, revision uint64) *weirv1.Metadata {
	return &weirv1.Metadata{Tenant: v.cfg.Tenant, Name: name, Revision: revision}
}

// Update takes a change in and returns what it changes for the proxy.
func (v *View) Update(u Update) Update {
	if u.Snapshot {
		clear(v.declared)
	}
	for _, ref := range u.Deletes {
		delete(v.declared, ref)
	}
	for _, r := range u.Puts {
		v.declared[resource.Of(r)] = r
	}
	out := Update{Revision: u.Revision}
	next := v.make()
	for ref, r := range next {
		if old := v.made[ref]; old == nil || old != r && !proto.Equal(old, r) {
			out.Puts = append(out.Puts, r)
		} else {
			next[ref] = old
		}
	}
	for ref := range v.made {
		if next[ref] == nil {
			out.Deletes = append(out.Deletes, ref)
		}
	}
	slices.SortFunc(out.Puts, func(a, b *weirv1.Resource) int { return resource.Of(a).Compare(resource.Of(b)) })
	slices.SortFunc(out.Deletes, resource.Ref.Compare)
	v.made = next
	return out
}

// make is all that the proxy is to know.
func (v *View) make() map[resource.Ref]*weirv1.Resource {
	all := maps.Clone(v.declared)
	put := func(r *weirv1.Resource) { all[resource.Of(r)] = r }
	routed := map[string]bool{} // Services with Routes of their own
	for ref, r := range v.declared {
		if ref.Kind != resource.KindRoute {
			continue
		}
		delete(all, ref)
		parents := serviceParents(r.GetRoute())
		if len(parents) == 0 {
			continue
		}
		for _, name := range parents {
			routed[name] = true
		}
		put(v.outbound(r.GetRoute(), parents))
	}
	for ref, r := range v.declared {
		s := r.GetService()
		if s == nil || ref.Tenant != v.cfg.Tenant || routed[ref.Name] || s.GetSpec().GetProtocol() == weirv1.ServiceSpec_TCP {
			continue
		}
		ref := resource.Ref{Kind: resource.KindRoute, Tenant: ref.Tenant, Name: ref.Name + Suffix}
		if all[ref] = v.made[ref]; all[ref] == nil { // its name is all that it is made of
			all[ref] = v.toService(s)
		}
	}
	put(v.listen[0])
	put(v.listen[1])
	put(v.local())
	put(resource.Wrap(&weirv1.Route{Metadata: v.named(Inbound, 1), Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: Inbound}},
		Rules:      []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: Local}}}},
	}}))
	return all
}

func serviceParents(r *weirv1.Route) (names []string) {
	for _, p := range r.GetSpec().GetParentRefs() {
		if p.GetKind() == resource.KindService {
			names = append(names, p.GetName())
		}
	}
	return names
}

// outbound is a Route as it acts on what is sent to its parents. Its own hostnames say
// nothing there.
func (v *View) outbound(declared *weirv1.Route, parents []string) *weirv1.Resource {
	r := proto.CloneOf(declared)
	r.Spec.ParentRefs = []*weirv1.ParentRef{{Name: Outbound}}
	r.Spec.Hostnames = nil
	for _, name := range parents {
		r.Spec.Hostnames = append(r.Spec.Hostnames, name+Suffix)
	}
	return resource.Wrap(r)
}

// toService is the Route to a Service that has none.
func (v *View) toService(s *weirv1.Service) *weirv1.Resource {
	name := s.GetMetadata().GetName()
	return resource.Wrap(&weirv1.Route{Metadata: v.named(name+Suffix, 1), Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: Outbound}},
		Hostnames:  []string{name + Suffix},
		Rules:      []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: name}}}},
	}})
}

// local is the service beside the sidecar, which speaks what is declared of it, in the
// clear.
func (v *View) local() *weirv1.Resource {
	own := v.declared[resource.Ref{Kind: resource.KindService, Tenant: v.cfg.Tenant, Name: v.cfg.Service}].GetService()
	spec := &weirv1.ServiceSpec{Endpoints: []*weirv1.Endpoint{{Address: v.cfg.Address}}}
	if own.GetSpec().GetProtocol() == weirv1.ServiceSpec_HTTP2 {
		spec.Protocol = weirv1.ServiceSpec_HTTP2
	}
	revision := cmp.Or(own.GetMetadata().GetRevision(), 1)
	return resource.Wrap(&weirv1.Service{Metadata: v.named(Local, revision), Spec: spec})
}
