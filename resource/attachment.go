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

// Attachment is the target by which a policy is attached to a resource, or to a section
// of it; nil: it is not.
func Attachment(p *weirv1.Policy, to Ref, section string) *weirv1.TargetRef {
	for _, t := range p.GetSpec().GetTargetRefs() {
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
