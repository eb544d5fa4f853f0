package resource

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// KindBlob is the kind of a [Ref] to content by its digest. Blobs are not
// declared, so no resource is of this kind, and they belong to no tenant.
const KindBlob = "Blob"

// Reference is one place where a resource names another one.
type Reference struct {
	// To must exist.
	To Ref
	// Part, unless empty, must exist inside To: a listener of a Gateway, a
	// rule of a Route, a subset of a Service.
	Part string
	// Port, unless 0, is a port that a listener of To must have; with a Part,
	// that very listener.
	Port uint32
	// Use is what a Route asks of the listeners of To.
	Use Use
	// Authority: To is a Certificate that others are checked by; its key is not
	// asked for.
	Authority bool

	at place
	// name and part are the fields of what is at that place which hold the name, and
	// that of the part; "": the place itself does.
	name, part Path
}

// Field is where the name stands, such as spec.rules[0].backendRefs[0].name.
func (ref Reference) Field() Path { return ref.at.path(ref.name) }

// PartField is where the part is named.
func (ref Reference) PartField() Path { return ref.at.path(ref.part) }

// PortField is where the port is.
func (ref Reference) PortField() Path { return ref.at.path("port") }

// place is where in a resource a reference stands, as far as it is a field, or an
// element of a list, or of a list in an element. It is written out for those who
// complain: what is stored is gone through again and again, and hardly ever wrong.
type place struct {
	field, inner, last Path
	i, j               int // elements of field and inner, counted from 1; 0: neither
}

func (p place) path(end Path) Path {
	path := p.field
	if p.i > 0 {
		path = path.Index(p.i - 1)
	}
	for _, next := range []Path{p.inner, p.last, end} {
		if next == "" {
			continue
		}
		path = path.Field(string(next))
		if next == p.inner && p.j > 0 {
			path = path.Index(p.j - 1)
		}
	}
	return path
}

// References yields all that a resource refers to, in the order of its fields.
// A name that is left empty refers to nothing; [Validate] asks for it.
func References(r *weirv1.Resource) iter.Seq[Reference] {
	tenant := Of(r).Tenant
	return func(yield func(Reference) bool) {
		for ref := range references(r) {
			if ref.To.Kind != KindBlob {
				ref.To.Tenant = tenant
			}
			if ref.To.Name != "" && !yield(ref) {
				return
			}
		}
	}
}

// references leaves out the tenant, which is always the resource's own.
func references(r *weirv1.Resource) iter.Seq[Reference] {
	switch k := r.GetKind().(type) {
	case *weirv1.Resource_Gateway:
		return gatewayReferences(k.Gateway.GetSpec())
	case *weirv1.Resource_Route:
		return routeReferences(k.Route.GetSpec())
	case *weirv1.Resource_Service:
		return serviceReferences(k.Service.GetSpec())
	case *weirv1.Resource_Policy:
		return policyReferences(k.Policy.GetSpec())
	case *weirv1.Resource_Plugin:
		return pluginReferences(k.Plugin)
	case *weirv1.Resource_Api:
		return apiReferences(k.Api.GetSpec())
	case *weirv1.Resource_Credential:
		return oneReference("spec.app", KindApp, k.Credential.GetSpec().GetApp())
	case *weirv1.Resource_Plan:
		return planReferences(k.Plan.GetSpec())
	case *weirv1.Resource_Subscription:
		return subscriptionReferences(k.Subscription.GetSpec())
	case *weirv1.Resource_Instance:
		return oneReference("spec.service", KindService, k.Instance.GetSpec().GetService())
	case *weirv1.Resource_AccessRule:
		return oneReference("spec.service", KindService, k.AccessRule.GetSpec().GetService())
	}
	return func(func(Reference) bool) {}
}

func gatewayReferences(spec *weirv1.GatewaySpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for i, l := range spec.GetListeners() {
			for j, c := range l.GetTls().GetCertificateRefs() {
				at := place{field: "spec.listeners", i: i + 1, inner: "tls.certificateRefs", j: j + 1}
				if !yield(Reference{at: at, name: "name", To: Ref{Kind: cmp.Or(c.GetKind(), KindCertificate), Name: c.GetName()}}) {
					return
				}
			}
		}
	}
}

const parentRefs = "spec.parentRefs"

func routeReferences(spec *weirv1.RouteSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		use := useOf(spec)
		for i, p := range spec.GetParentRefs() {
			if !yield(Reference{
				To:   Ref{Kind: cmp.Or(p.GetKind(), KindGateway), Name: p.GetName()},
				Part: p.GetSectionName(), Port: p.GetPort(), Use: use,
				at: place{field: parentRefs, i: i + 1}, name: "name", part: "sectionName",
			}) {
				return
			}
		}
		for i, rule := range spec.GetRules() {
			for j, b := range rule.GetBackendRefs() {
				if !yield(Reference{
					To: Ref{Kind: cmp.Or(b.GetKind(), KindService), Name: b.GetName()}, Part: b.GetSubset(),
					at: place{field: "spec.rules", i: i + 1, inner: "backendRefs", j: j + 1}, name: "name", part: "subset",
				}) {
					return
				}
			}
			for j, f := range rule.GetFilters() {
				b := f.GetRequestMirror().GetBackendRef()
				at := place{field: "spec.rules", i: i + 1, inner: "filters", j: j + 1, last: "requestMirror.backendRef"}
				if !yield(Reference{
					To: Ref{Kind: cmp.Or(b.GetKind(), KindService), Name: b.GetName()}, Part: b.GetSubset(),
					at: at, name: "name", part: "subset",
				}) {
					return
				}
			}
		}
	}
}

func serviceReferences(spec *weirv1.ServiceSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for i, c := range spec.GetTls().GetCaCertificateRefs() {
			at := place{field: "spec.tls.caCertificateRefs", i: i + 1}
			if !yield(Reference{at: at, name: "name", Authority: true, To: Ref{Kind: cmp.Or(c.GetKind(), KindCertificate), Name: c.GetName()}}) {
				return
			}
		}
		c := spec.GetTls().GetClientCertificateRef()
		if c.GetName() == "" {
			return
		}
		yield(Reference{at: place{field: "spec.tls.clientCertificateRef"}, name: "name", To: Ref{Kind: cmp.Or(c.GetKind(), KindCertificate), Name: c.GetName()}})
	}
}

func policyReferences(spec *weirv1.PolicySpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		if !targetReferences(spec.GetTargetRefs(), yield) {
			return
		}
		if spec.GetWaf() == nil && !yield(Reference{at: place{field: "spec.plugin"}, To: Ref{Kind: KindPlugin, Name: spec.GetPlugin()}}) {
			return
		}
		for i, g := range spec.GetServices() {
			if !yield(Reference{
				To: Ref{Kind: KindService, Name: g.GetName()}, Part: g.GetSubset(),
				at: place{field: "spec.services", i: i + 1}, name: "name", part: "subset",
			}) {
				return
			}
		}
	}
}

func apiReferences(spec *weirv1.ApiSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		if !yield(Reference{at: place{field: "spec.contractRef.name"}, To: Ref{Kind: KindContract, Name: spec.GetContractRef().GetName()}}) {
			return
		}
		targetReferences(spec.GetTargetRefs(), yield)
	}
}

func oneReference(at Path, kind, name string) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		yield(Reference{at: place{field: at}, To: Ref{Kind: kind, Name: name}})
	}
}

func planReferences(spec *weirv1.PlanSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for i, name := range spec.GetApis() {
			if !yield(Reference{at: place{field: "spec.apis", i: i + 1}, To: Ref{Kind: KindApi, Name: name}}) {
				return
			}
		}
	}
}

func subscriptionReferences(spec *weirv1.SubscriptionSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		_ = yield(Reference{at: place{field: "spec.app"}, To: Ref{Kind: KindApp, Name: spec.GetApp()}}) &&
			yield(Reference{at: place{field: "spec.plan"}, To: Ref{Kind: KindPlan, Name: spec.GetPlan()}})
	}
}

// targetReferences yields what something is attached to, and reports whether more is
// wanted. A Tenant is there because the resource is.
func targetReferences(targets []*weirv1.TargetRef, yield func(Reference) bool) bool {
	for i, t := range targets {
		if t.GetKind() != KindTenant && !yield(Reference{
			To: Ref{Kind: t.GetKind(), Name: t.GetName()}, Part: t.GetSectionName(),
			at: place{field: "spec.targetRefs", i: i + 1}, name: "name", part: "sectionName",
		}) {
			return false
		}
	}
	return true
}

// pluginReferences are the modules: the one in force, the canary, and the versions
// before, which stay for a rollback.
func pluginReferences(p *weirv1.Plugin) iter.Seq[Reference] {
	spec := p.GetSpec()
	return func(yield func(Reference) bool) {
		module := func(at place, digest string) bool {
			return yield(Reference{at: at, To: Ref{Kind: KindBlob, Name: digest}})
		}
		if !module(place{field: "spec.digest"}, spec.GetDigest()) {
			return
		}
		if c := spec.GetCanary(); c.GetDigest() != "" && !module(place{field: "spec.canary.digest"}, c.GetDigest()) {
			return
		}
		for i, v := range p.GetStatus().GetVersions() {
			if v.GetDigest() != spec.GetDigest() && !module(place{field: "status.versions", i: i + 1, last: "digest"}, v.GetDigest()) {
				return
			}
		}
	}
}

// Lack says which part of the target the reference asks for in vain: the field
// that asks, and a sentence. A reference that is whole lacks nothing.
func (ref Reference) Lack(target *weirv1.Resource) (field Path, message string, lacks bool) {
	if ref.Part != "" {
		word, parts := Parts(target)
		if !slices.Contains(parts, ref.Part) {
			return ref.PartField(), fmt.Sprintf("%s has no %s %q%s", ref.To, word, ref.Part, meant(ref.Part, parts)), true
		}
	}
	if ref.Port != 0 && !listens(target, ref.Part, ref.Port) {
		which := "listener"
		if ref.Part != "" {
			which = fmt.Sprintf("listener %q", ref.Part)
		}
		return ref.PortField(), fmt.Sprintf("%s has no %s on port %d", ref.To, which, ref.Port), true
	}
	if target.GetGateway() != nil && ref.To.Kind == KindGateway && ref.at.field == parentRefs {
		return ref.misfit(target)
	}
	return "", "", false
}

// Parts lists what can be named inside a resource, and the word for it.
func Parts(r *weirv1.Resource) (word string, names []string) {
	switch k := r.GetKind().(type) {
	case *weirv1.Resource_Gateway:
		for _, l := range k.Gateway.GetSpec().GetListeners() {
			names = append(names, l.GetName())
		}
		return "listener", names
	case *weirv1.Resource_Route:
		for _, rule := range k.Route.GetSpec().GetRules() {
			if rule.GetName() != "" {
				names = append(names, rule.GetName())
			}
		}
		return "rule", names
	case *weirv1.Resource_Service:
		for _, s := range k.Service.GetSpec().GetSubsets() {
			names = append(names, s.GetName())
		}
		return "subset", names
	}
	return "part", nil
}

func listens(r *weirv1.Resource, name string, port uint32) bool {
	for _, l := range r.GetGateway().GetSpec().GetListeners() {
		if l.GetPort() == port && (name == "" || l.GetName() == name) {
			return true
		}
	}
	return false
}

// meant is the end of a sentence about a name that is not there.
func meant(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}
