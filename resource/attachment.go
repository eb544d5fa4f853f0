package resource

import (
	"cmp"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// KindTenant is what a policy is attached to that is for every Route of its tenant. It
// is no kind of resource, and has no name.
const KindTenant = "Tenant"

// Attached is a policy where it runs, and the target by which it came there.
type Attached struct {
	Policy *weirv1.Policy
	By     *weirv1.TargetRef
}

// Targets are what a policy or an Api is attached to; nothing else is to anything.
func Targets(r *weirv1.Resource) []*weirv1.TargetRef {
	if p := r.GetPolicy(); p != nil {
		return p.GetSpec().GetTargetRefs()
	}
	return r.GetApi().GetSpec().GetTargetRefs()
}

// Attachment is the target by which something is attached to a resource, or to a section
// of it; nil: it is not.
func Attachment(targets []*weirv1.TargetRef, to Ref, section string) *weirv1.TargetRef {
	for _, t := range targets {
		if t.GetKind() == to.Kind && t.GetName() == to.Name && (t.GetSectionName() == "" || t.GetSectionName() == section) {
			return t
		}
	}
	return nil
}

// Chain puts policies into the order in which they run: by stage, then the widest level
// first (the tenant's, the Gateway's, the Route's, the Service's), then by name. One that
// is attached at several levels runs once, at the widest.
func Chain(levels ...[]Attached) []Attached {
	var all []Attached
	seen := map[string]bool{}
	for _, level := range levels {
		level = slices.Clone(level)
		slices.SortFunc(level, func(a, b Attached) int {
			return strings.Compare(a.Policy.GetMetadata().GetName(), b.Policy.GetMetadata().GetName())
		})
		for _, a := range level {
			if name := a.Policy.GetMetadata().GetName(); !seen[name] {
				seen[name] = true
				all = append(all, a)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Attached) int { return cmp.Compare(StageOf(a.Policy), StageOf(b.Policy)) })
	return all
}

// StageOf is the stage that a policy runs in.
func StageOf(p *weirv1.Policy) weirv1.PolicySpec_Stage {
	if s := p.GetSpec().GetStage(); s != weirv1.PolicySpec_STAGE_UNSPECIFIED {
		return s
	}
	return weirv1.PolicySpec_TRANSFORM
}
