package nodeapi

import (
	"slices"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// What a sidecar is sent rests on its certificate alone. It serves one service, and calls
// others as that service. So it is sent its own Service with the AccessRules of that, the
// Routes of its tenant whose parent is a Service, and each Service that those, or its
// host, lead to and that lets its service in: whole, with its Instances, its
// Certificates, and the policies on it. Of any other Service it is sent that it is there.

// sidecarWants is scope.wants where a sidecar's needs are others than an edge's.
func (s *scope) sidecarWants(n *node) (wanted, decided bool) {
	own := n.ref.Tenant == s.tenant
	switch n.ref.Kind {
	case resource.KindGateway:
		return false, true
	case resource.KindRoute:
		return own && inMesh(n.resource.GetRoute()), true
	case resource.KindService:
		return own, true
	case resource.KindAccessRule:
		return own && slices.Contains(s.kinds, resource.KindAccessRule) && n.resource.GetAccessRule().GetSpec().GetService() == s.service, true
	}
	if !own { // whatever another tenant attaches
		return false, true
	}
	return false, false
}

// lets tells whether a Service's AccessRules may let the sidecar's service in. It goes by
// who calls alone: what is called is for the callee to look at.
func (s *scope) lets(service *node) bool {
	if service.ref.Name == s.service {
		return true
	}
	ruled := false
	for from := range service.referrers {
		rule := from.resource.GetAccessRule()
		if rule == nil {
			continue
		}
		ruled = true
		for _, a := range rule.GetSpec().GetAllow() {
			if len(a.GetFrom()) == 0 || slices.ContainsFunc(a.GetFrom(), func(p string) bool { return resource.MatchesID(p, s.identity) }) {
				return true
			}
		}
	}
	return !ruled
}

// isBackend tells whether a Service is sent requests: by a Route of the mesh, or by its
// host where no such Route takes that.
func isBackend(service *node) bool {
	byHost := service.resource.GetService().GetSpec().GetProtocol() != weirv1.ServiceSpec_TCP
	for from := range service.referrers {
		route := from.resource.GetRoute()
		if !inMesh(route) {
			continue
		}
		if leadsTo(route, service.ref.Name) {
			return true
		}
		byHost = byHost && !hasParent(route, service.ref.Name)
	}
	return byHost
}

// withholds tells whether a sidecar is sent of a Service only that it is there.
func (s *scope) withholds(service *node) bool {
	if service.ref.Name == s.service {
		return false
	}
	return !s.lets(service) || !isBackend(service) && !s.isGranted(service)
}

// runsBeside is scope.runs at a sidecar.
func (s *scope) runsBeside(policy *node) bool {
	if _, all := policy.tenant.policies[policy]; all && s.routes[policy.tenant] > 0 {
		return true
	}
	targets := policy.resource.GetPolicy().GetSpec().GetTargetRefs()
	return slices.ContainsFunc(policy.refersTo, func(to *node) bool {
		switch to.ref.Kind {
		case resource.KindRoute:
			return s.serves(to)
		case resource.KindService: // which it may only have been granted
			return to.resource != nil && s.lets(to) && isBackend(to) && slices.ContainsFunc(targets, func(t *weirv1.TargetRef) bool {
				return t.GetKind() == resource.KindService && t.GetName() == to.ref.Name
			})
		}
		return false
	})
}

// serves tells whether a Route of the scope does anything there: at a sidecar it does
// nothing where all that it leads to is withheld.
func (s *scope) serves(route *node) bool {
	if s.members[route] == nil || !s.isSidecar() {
		return s.members[route] != nil
	}
	for _, rule := range route.resource.GetRoute().GetSpec().GetRules() {
		if len(rule.GetBackendRefs()) == 0 {
			return true
		}
	}
	return slices.ContainsFunc(route.refersTo, func(to *node) bool {
		return to.ref.Kind == resource.KindService && isBackendOf(route.resource.GetRoute(), to.ref.Name) && s.lets(to)
	})
}

// isWhole tells whether the scope holds all of a resource but a key.
func (s *scope) isWhole(n *node) bool {
	as := s.members[n]
	return as != nil && !isWithheld(as)
}

func isWithheld(as *weirv1.Resource) bool { return as.GetService().GetStatus().GetWithheld() }

// withheld is what is left of a Service for whom it is withheld from: that it is there,
// and what Routes may name of it.
func (n *node) withheld() *weirv1.Resource {
	if n.bare == nil {
		declared := n.resource.GetService()
		bare := &weirv1.Service{
			ApiVersion: declared.GetApiVersion(), Kind: declared.GetKind(),
			Metadata: &weirv1.Metadata{Name: n.ref.Name, Tenant: n.ref.Tenant, Revision: marked(revisionOf(n.resource))},
			Spec:     &weirv1.ServiceSpec{Protocol: declared.GetSpec().GetProtocol()},
			Status:   &weirv1.ServiceStatus{Withheld: true},
		}
		for _, subset := range declared.GetSpec().GetSubsets() {
			bare.Spec.Subsets = append(bare.Spec.Subsets, &weirv1.Subset{Name: subset.GetName()})
		}
		n.bare = resource.Wrap(bare)
	}
	return n.bare
}

// marked is the revision of a copy with something left out. No change is of such a
// revision, so whoever holds one of the two does not take it for the other.
func marked(revision uint64) uint64 { return revision | 1<<63 }

// inMesh tells whether a Route acts on what is sent to a Service.
func inMesh(r *weirv1.Route) bool {
	return slices.ContainsFunc(r.GetSpec().GetParentRefs(), func(p *weirv1.ParentRef) bool { return p.GetKind() == resource.KindService })
}

func hasParent(r *weirv1.Route, service string) bool {
	return slices.ContainsFunc(r.GetSpec().GetParentRefs(), func(p *weirv1.ParentRef) bool {
		return p.GetKind() == resource.KindService && p.GetName() == service
	})
}

func isBackendOf(r *weirv1.Route, service string) bool {
	return slices.ContainsFunc(r.GetSpec().GetRules(), func(rule *weirv1.RouteRule) bool {
		return slices.ContainsFunc(rule.GetBackendRefs(), func(b *weirv1.BackendRef) bool { return b.GetName() == service })
	})
}

// leadsTo counts mirrors, too.
func leadsTo(r *weirv1.Route, service string) bool {
	return isBackendOf(r, service) || slices.ContainsFunc(r.GetSpec().GetRules(), func(rule *weirv1.RouteRule) bool {
		return slices.ContainsFunc(rule.GetFilters(), func(f *weirv1.RouteFilter) bool {
			return f.GetRequestMirror().GetBackendRef().GetName() == service
		})
	})
}

// bareKey is a Certificate without its key, and nil for what has none.
func bareKey(r *weirv1.Resource) *weirv1.Resource {
	if len(r.GetCertificate().GetMaterial().GetKey()) == 0 {
		return nil
	}
	bare := proto.CloneOf(r)
	bare.GetCertificate().GetMaterial().Key = nil
	resource.Meta(bare).Revision = marked(revisionOf(r))
	return bare
}
