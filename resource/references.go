package resource

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// KindBlob is the kind of a [Ref] to content by its digest. Blobs are not
// declared, so no resource is of this kind, and they belong to no tenant.
const KindBlob = "Blob"

// Reference is one place where a resource names another one.
type Reference struct {
	// Field is where the name stands, such as spec.rules[0].backendRefs[0].name.
	Field Path
	// To must exist.
	To Ref
	// Part, unless empty, must exist inside To: a listener of a Gateway, a
	// rule of a Route, a subset of a Service. PartField is where it is named.
	Part      string
	PartField Path
	// Port, unless 0, is a port that a listener of To must have; with a Part,
	// that very listener.
	Port      uint32
	PortField Path
	// Use is what a Route asks of the listeners of To.
	Use Use
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
				at := Path("spec.listeners").Index(i).Field("tls").Field("certificateRefs").Index(j)
				if !yield(Reference{Field: at.Field("name"), To: Ref{Kind: cmp.Or(c.GetKind(), KindCertificate), Name: c.GetName()}}) {
					return
				}
			}
		}
	}
}

func routeReferences(spec *weirv1.RouteSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		use := useOf(spec)
		for i, p := range spec.GetParentRefs() {
			at := Path("spec.parentRefs").Index(i)
			if !yield(Reference{
				Field: at.Field("name"), To: Ref{Kind: cmp.Or(p.GetKind(), KindGateway), Name: p.GetName()},
				Part: p.GetSectionName(), PartField: at.Field("sectionName"),
				Port: p.GetPort(), PortField: at.Field("port"),
				Use: use,
			}) {
				return
			}
		}
		for i, rule := range spec.GetRules() {
			for j, b := range rule.GetBackendRefs() {
				at := Path("spec.rules").Index(i).Field("backendRefs").Index(j)
				if !yield(Reference{
					Field: at.Field("name"), To: Ref{Kind: cmp.Or(b.GetKind(), KindService), Name: b.GetName()},
					Part: b.GetSubset(), PartField: at.Field("subset"),
				}) {
					return
				}
			}
			for j, f := range rule.GetFilters() {
				b := f.GetRequestMirror().GetBackendRef()
				at := Path("spec.rules").Index(i).Field("filters").Index(j).Field("requestMirror").Field("backendRef")
				if !yield(Reference{
					Field: at.Field("name"), To: Ref{Kind: cmp.Or(b.GetKind(), KindService), Name: b.GetName()},
					Part: b.GetSubset(), PartField: at.Field("subset"),
				}) {
					return
				}
			}
		}
	}
}

func serviceReferences(spec *weirv1.ServiceSpec) iter.Seq[Reference] {
	const at = Path("spec.tls")
	return func(yield func(Reference) bool) {
		for i, c := range spec.GetTls().GetCaCertificateRefs() {
			at := at.Field("caCertificateRefs").Index(i)
			if !yield(Reference{Field: at.Field("name"), To: Ref{Kind: cmp.Or(c.GetKind(), KindCertificate), Name: c.GetName()}}) {
				return
			}
		}
		c := spec.GetTls().GetClientCertificateRef()
		if c.GetName() == "" {
			return
		}
		yield(Reference{Field: at.Field("clientCertificateRef").Field("name"), To: Ref{Kind: cmp.Or(c.GetKind(), KindCertificate), Name: c.GetName()}})
	}
}

func policyReferences(spec *weirv1.PolicySpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		if !targetReferences(spec.GetTargetRefs(), yield) {
			return
		}
		if spec.GetWaf() == nil && !yield(Reference{Field: "spec.plugin", To: Ref{Kind: KindPlugin, Name: spec.GetPlugin()}}) {
			return
		}
		for i, g := range spec.GetServices() {
			at := Path("spec.services").Index(i)
			if !yield(Reference{
				Field: at.Field("name"), To: Ref{Kind: KindService, Name: g.GetName()},
				Part: g.GetSubset(), PartField: at.Field("subset"),
			}) {
				return
			}
		}
	}
}

func apiReferences(spec *weirv1.ApiSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		if !yield(Reference{Field: "spec.contractRef.name", To: Ref{Kind: KindContract, Name: spec.GetContractRef().GetName()}}) {
			return
		}
		targetReferences(spec.GetTargetRefs(), yield)
	}
}

func oneReference(at Path, kind, name string) iter.Seq[Reference] {
	return func(yield func(Reference) bool) { yield(Reference{Field: at, To: Ref{Kind: kind, Name: name}}) }
}

func planReferences(spec *weirv1.PlanSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		for i, name := range spec.GetApis() {
			if !yield(Reference{Field: Path("spec.apis").Index(i), To: Ref{Kind: KindApi, Name: name}}) {
				return
			}
		}
	}
}

func subscriptionReferences(spec *weirv1.SubscriptionSpec) iter.Seq[Reference] {
	return func(yield func(Reference) bool) {
		_ = yield(Reference{Field: "spec.app", To: Ref{Kind: KindApp, Name: spec.GetApp()}}) &&
			yield(Reference{Field: "spec.plan", To: Ref{Kind: KindPlan, Name: spec.GetPlan()}})
	}
}

// targetReferences yields what something is attached to, and reports whether more is
// wanted. A Tenant is there because the resource is.
func targetReferences(targets []*weirv1.TargetRef, yield func(Reference) bool) bool {
	for i, t := range targets {
		at := Path("spec.targetRefs").Index(i)
		if t.GetKind() != KindTenant && !yield(Reference{
			Field: at.Field("name"), To: Ref{Kind: t.GetKind(), Name: t.GetName()},
			Part: t.GetSectionName(), PartField: at.Field("sectionName"),
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
		module := func(at Path, digest string) bool {
			return yield(Reference{Field: at, To: Ref{Kind: KindBlob, Name: digest}})
		}
		if !module("spec.digest", spec.GetDigest()) {
			return
		}
		if c := spec.GetCanary(); c.GetDigest() != "" && !module("spec.canary.digest", c.GetDigest()) {
			return
		}
		for i, v := range p.GetStatus().GetVersions() {
			if v.GetDigest() != spec.GetDigest() && !module(Path("status.versions").Index(i).Field("digest"), v.GetDigest()) {
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
			return ref.PartField, fmt.Sprintf("%s has no %s %q%s", ref.To, word, ref.Part, meant(ref.Part, parts)), true
		}
	}
	if ref.Port != 0 && !listens(target, ref.Part, ref.Port) {
		which := "listener"
		if ref.Part != "" {
			which = fmt.Sprintf("listener %q", ref.Part)
		}
		return ref.PortField, fmt.Sprintf("%s has no %s on port %d", ref.To, which, ref.Port), true
	}
	if target.GetGateway() != nil && ref.To.Kind == KindGateway && strings.HasPrefix(string(ref.Field), "spec.parentRefs") {
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
