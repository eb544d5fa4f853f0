package resource

import (
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func attached(kind, name, section string, stage weirv1.PolicySpec_Stage, policy string) Attached {
	t := &weirv1.TargetRef{Kind: kind, Name: name, SectionName: section}
	return Attached{Policy: &weirv1.Policy{Metadata: &weirv1.Metadata{Name: policy}, Spec: &weirv1.PolicySpec{
		TargetRefs: []*weirv1.TargetRef{t}, Stage: stage}}, By: t}
}

// TestChain: stages before levels, levels before names, and nothing twice.
func TestChain(t *testing.T) {
	const none = weirv1.PolicySpec_STAGE_UNSPECIFIED
	both := attached(KindGateway, "g", "", none, "both")
	chain := Chain(
		[]Attached{attached(KindTenant, "", "", none, "z-tenant")},
		[]Attached{attached(KindGateway, "g", "", weirv1.PolicySpec_TRANSFORM, "y-gateway"), both},
		[]Attached{attached(KindRoute, "r", "", weirv1.PolicySpec_AUTHZ, "x-route"), both, attached(KindRoute, "r", "", none, "a-route")},
		[]Attached{attached(KindService, "s", "", weirv1.PolicySpec_AUTHN, "w-service")},
	)
	var names []string
	for _, a := range chain {
		names = append(names, a.Policy.GetMetadata().GetName())
	}
	if got, want := strings.Join(names, " "), "w-service x-route z-tenant both y-gateway a-route"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestAttachment: a section is attached to by its name, or with all of its resource.
func TestAttachment(t *testing.T) {
	all := attached(KindRoute, "r", "", 0, "p").Policy
	rule := attached(KindRoute, "r", "pay", 0, "p").Policy
	tenant := attached(KindTenant, "", "", 0, "p").Policy
	for _, c := range []struct {
		policy   *weirv1.Policy
		to       Ref
		section  string
		attached bool
	}{
		{all, Ref{Kind: KindRoute, Name: "r"}, "pay", true},
		{all, Ref{Kind: KindRoute, Name: "r"}, "", true},
		{all, Ref{Kind: KindRoute, Name: "other"}, "", false},
		{all, Ref{Kind: KindService, Name: "r"}, "", false},
		{rule, Ref{Kind: KindRoute, Name: "r"}, "pay", true},
		{rule, Ref{Kind: KindRoute, Name: "r"}, "get", false},
		{rule, Ref{Kind: KindRoute, Name: "r"}, "", false},
		{tenant, Ref{Kind: KindTenant, Tenant: "shop"}, "", true},
		{tenant, Ref{Kind: KindRoute, Name: "r"}, "", false},
	} {
		if got := Attachment(c.policy.GetSpec().GetTargetRefs(), c.to, c.section) != nil; got != c.attached {
			t.Errorf("%v to %v %q: %v", c.policy.GetSpec().GetTargetRefs(), c.to, c.section, got)
		}
	}
}
