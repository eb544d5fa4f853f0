package proxy

import (
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// desired is what the proxy was told, whether it is in force or not.
type desired struct {
	resources map[resource.Ref]*weirv1.Resource
	// users says who depends on a resource: routes on services and gateways,
	// these on certificates, plugins on whom their tenant trusts, policies on plugins
	// and services, and what a policy is attached to on the policy.
	users map[resource.Ref]map[resource.Ref]struct{}
	// changed is what is not yet in force; consumers is that part of it which says who
	// may call.
	changed, consumers map[resource.Ref]struct{}
}

func newDesired() *desired {
	return &desired{
		resources: map[resource.Ref]*weirv1.Resource{},
		users:     map[resource.Ref]map[resource.Ref]struct{}{},
		changed:   map[resource.Ref]struct{}{},
		consumers: map[resource.Ref]struct{}{},
	}
}

func (d *desired) merge(u Update) {
	if u.Snapshot {
		kept := map[resource.Ref]bool{}
		for _, r := range u.Puts {
			kept[resource.Of(r)] = true
		}
		for ref := range d.resources {
			if !kept[ref] {
				d.remove(ref)
			}
		}
	}
	for _, ref := range u.Deletes {
		d.remove(ref)
	}
	for _, r := range u.Puts {
		d.put(r)
	}
}

func (d *desired) put(r *weirv1.Resource) {
	ref := resource.Of(r)
	if old := d.resources[ref]; old != nil {
		if u, v := resource.Meta(old).GetRevision(), resource.Meta(r).GetRevision(); u == v && u != 0 && hasKey(old) == hasKey(r) {
			return // a snapshot repeats what is known
		}
		d.unlink(ref, old)
	}
	d.resources[ref] = r
	for to := range uses(r) {
		if d.users[to] == nil {
			d.users[to] = map[resource.Ref]struct{}{}
		}
		d.users[to][ref] = struct{}{}
	}
	d.touch(ref, r)
}

func (d *desired) remove(ref resource.Ref) {
	old := d.resources[ref]
	if old == nil {
		return
	}
	d.unlink(ref, old)
	delete(d.resources, ref)
	d.touch(ref, old)
}

func (d *desired) unlink(ref resource.Ref, old *weirv1.Resource) {
	for to := range uses(old) {
		delete(d.users[to], ref)
		if len(d.users[to]) == 0 {
			delete(d.users, to)
		}
	}
	d.touch(ref, old)
}

// touch notes a change, and that what a policy or an Api is attached to changes with it.
func (d *desired) touch(ref resource.Ref, r *weirv1.Resource) {
	if resource.IsConsumer(ref.Kind) { // no route is compiled with it
		d.consumers[ref] = struct{}{}
		return
	}
	d.changed[ref] = struct{}{}
	for _, t := range resource.Targets(r) {
		d.changed[resource.Ref{Kind: t.GetKind(), Tenant: ref.Tenant, Name: t.GetName()}] = struct{}{}
	}
}

// settled: all that was changed is in force.
func (d *desired) settled() { clear(d.changed) }

// uses yields what a resource depends on.
func uses(r *weirv1.Resource) map[resource.Ref]struct{} {
	tenant := resource.Of(r).Tenant
	to := map[resource.Ref]struct{}{}
	add := func(kind, def, name string) {
		if kind == "" {
			kind = def
		}
		to[resource.Ref{Kind: kind, Tenant: tenant, Name: name}] = struct{}{}
	}
	switch {
	case r.GetGateway() != nil:
		for _, l := range r.GetGateway().GetSpec().GetListeners() {
			for _, c := range l.GetTls().GetCertificateRefs() {
				add(c.GetKind(), resource.KindCertificate, c.GetName())
			}
		}
	case r.GetRoute() != nil:
		for _, p := range r.GetRoute().GetSpec().GetParentRefs() {
			add(p.GetKind(), resource.KindGateway, p.GetName())
		}
		for _, rule := range r.GetRoute().GetSpec().GetRules() {
			for _, b := range rule.GetBackendRefs() {
				add(b.GetKind(), resource.KindService, b.GetName())
			}
			for _, f := range rule.GetFilters() {
				if b := f.GetRequestMirror().GetBackendRef(); b != nil {
					add(b.GetKind(), resource.KindService, b.GetName())
				}
			}
		}
	case r.GetService() != nil:
		for ref := range resource.References(r) {
			to[ref.To] = struct{}{}
		}
	case r.GetPlugin() != nil:
		to[resource.TrustRef(tenant)] = struct{}{}
	case r.GetPolicy() != nil:
		if plugin := r.GetPolicy().GetSpec().GetPlugin(); plugin != "" {
			add(resource.KindPlugin, "", plugin)
		}
		for _, s := range r.GetPolicy().GetSpec().GetServices() {
			add(resource.KindService, "", s.GetName())
		}
		for _, t := range r.GetPolicy().GetSpec().GetTargetRefs() {
			add(t.GetKind(), resource.KindRoute, t.GetName())
		}
	case r.GetApi() != nil:
		for ref := range resource.References(r) {
			to[ref.To] = struct{}{}
		}
	}
	return to
}

// dirty is what must be compiled anew: every changed gateway, and every route
// that changed or uses something that did.
func (d *desired) dirty() (gateways, routes, gone []resource.Ref) {
	seen, tenants := map[resource.Ref]struct{}{}, map[string]struct{}{}
	var visit func(ref resource.Ref)
	visit = func(ref resource.Ref) {
		if _, ok := seen[ref]; ok {
			return
		}
		seen[ref] = struct{}{}
		_, there := d.resources[ref]
		switch {
		case ref.Kind == resource.KindTenant:
			tenants[ref.Tenant] = struct{}{}
		case ref.Kind == resource.KindRoute || ref.Kind == resource.KindGateway:
			switch {
			case !there:
				gone = append(gone, ref)
			case ref.Kind == resource.KindRoute:
				routes = append(routes, ref)
			default:
				gateways = append(gateways, ref)
			}
		}
		for user := range d.users[ref] {
			switch {
			case ref.Kind == resource.KindCertificate && user.Kind == resource.KindGateway:
				continue // it changes what that shows, not what it routes
			case ref.Kind == resource.KindRoute:
				continue // a policy or an Api that is attached to it; that did not change
			case (ref.Kind == resource.KindGateway || ref.Kind == resource.KindTenant) && user.Kind == resource.KindPolicy:
				continue
			case user.Kind == resource.KindPolicy || user.Kind == resource.KindApi: // on its plugin, a service that it was granted, its contract
				for _, t := range resource.Targets(d.resources[user]) {
					visit(resource.Ref{Kind: t.GetKind(), Tenant: user.Tenant, Name: t.GetName()})
				}
			default:
				visit(user)
			}
		}
	}
	for ref := range d.changed {
		visit(ref)
	}
	for tenant := range tenants {
		for ref := range d.resources {
			if ref.Kind == resource.KindRoute && ref.Tenant == tenant {
				visit(ref)
			}
		}
	}
	for _, list := range [][]resource.Ref{gateways, routes, gone} {
		slices.SortFunc(list, resource.Ref.Compare)
	}
	return gateways, routes, gone
}

// securityChanged: the sockets that speak TLS must be compiled anew.
func (d *desired) securityChanged() bool {
	for ref := range d.changed {
		if ref.Kind == resource.KindGateway || ref.Kind == resource.KindCertificate {
			return true
		}
	}
	return false
}

// policiesOn returns the policies attached to a resource, or to a section of it.
func (d *desired) policiesOn(target resource.Ref, section string) []resource.Attached {
	var on []resource.Attached
	for user := range d.users[target] {
		p := d.resources[user].GetPolicy()
		if by := resource.Attachment(p.GetSpec().GetTargetRefs(), target, section); by != nil {
			on = append(on, resource.Attached{Policy: p, By: by})
		}
	}
	return on
}

// hasKey: a Certificate comes with its key only while somebody shows it, whatever
// its revision.
func hasKey(r *weirv1.Resource) bool { return len(r.GetCertificate().GetMaterial().GetKey()) > 0 }
