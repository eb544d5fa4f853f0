package resource

import (
	"cmp"

	"google.golang.org/protobuf/types/known/structpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// What a plugin may be allowed at most and needs at least.
const (
	minMemory = 64 << 10 // one page of linear memory
	maxMemory = 1 << 30
	maxFuel   = 10_000_000_000
)

func (c *check) plugin(spec *weirv1.PluginSpec) {
	const at = Path("spec")
	if spec.GetDigest() != "" || len(spec.GetModule()) == 0 {
		c.syntax(at.Field("digest"), checkDigest(spec.GetDigest()))
	}
	limits := at.Field("limits")
	if m := spec.GetLimits().GetMemoryBytes(); m != 0 && (m < minMemory || m > maxMemory) {
		c.add(limits.Field("memoryBytes"), "must be from %d to %d, not %d; leave it out for 16 MiB", minMemory, maxMemory, m)
	}
	if f := spec.GetLimits().GetFuel(); f > maxFuel {
		c.add(limits.Field("fuel"), "must be at most %d, not %d; leave it out for 10000000", int64(maxFuel), f)
	}
	c.signatures(at.Field("signatures"), spec.GetSignatures())
	if canary := spec.GetCanary(); canary != nil {
		c.canary(at.Field("canary"), spec.GetDigest(), canary)
	}
}

func (c *check) canary(at Path, stable string, canary *weirv1.PluginCanary) {
	c.syntax(at.Field("digest"), checkDigest(canary.GetDigest()))
	if canary.GetDigest() == stable && stable != "" {
		c.add(at.Field("digest"), "is the module in force itself")
	}
	if percent := canary.GetPercent(); !(percent > 0 && percent <= 100) {
		c.add(at.Field("percent"), "must be more than 0 and at most 100, not %v", percent)
	}
	c.signatures(at.Field("signatures"), canary.GetSignatures())
}

func (c *check) policy(spec *weirv1.PolicySpec) {
	const at = Path("spec")
	c.count(at.Field("targetRefs"), len(spec.GetTargetRefs()), 1, maxEntries, "Tenant, Gateway, Route or Service to attach to")
	targets := map[string]bool{}
	for i, t := range spec.GetTargetRefs() {
		at := at.Field("targetRefs").Index(i)
		switch t.GetKind() {
		case KindGateway, KindRoute, KindService:
			c.syntax(at.Field("name"), checkLabel(t.GetName()))
		case KindTenant:
			if t.GetName() != "" || t.GetSectionName() != "" {
				c.add(at, "has neither a name nor a section: a policy is attached to its own tenant, all of it")
			}
		case "":
			c.add(at.Field("kind"), "is required: Tenant, Gateway, Route or Service")
		default:
			c.add(at.Field("kind"), "a policy is attached to its Tenant, a Gateway, a Route or a Service, not to %q", t.GetKind())
		}
		c.optional(at.Field("sectionName"), t.GetSectionName(), checkLabel)
		c.unique(targets, at, t.GetKind()+" "+attachment(t.GetName(), t.GetSectionName(), 0), "the target")
	}
	if spec.GetWaf() != nil {
		c.native(at, spec)
		return
	}
	if spec.GetPlugin() == "" {
		c.add(at.Field("plugin"), "is required, or waf: a policy is the use of a plugin, or of the web application firewall")
	} else {
		c.syntax(at.Field("plugin"), checkLabel(spec.GetPlugin()))
	}
	c.grants(at.Field("services"), spec.GetServices())
	if config := spec.GetConfig(); config != nil && !shallow(structpb.NewStructValue(config), MaxDepth) {
		c.add(at.Field("config"), "is nested more than %d deep", MaxDepth)
	}
}

// maxAlias is how long a plugin's own name for a service may be.
const maxAlias = 256

func (c *check) grants(at Path, grants []*weirv1.ServiceGrant) {
	c.count(at, len(grants), 0, maxEntries, "service")
	called := map[string]bool{}
	for i, g := range grants {
		at := at.Index(i)
		c.syntax(at.Field("name"), checkLabel(g.GetName()))
		c.optional(at.Field("subset"), g.GetSubset(), checkLabel)
		if len(g.GetAs()) > maxAlias {
			c.add(at.Field("as"), "must have at most %d bytes, not %d", maxAlias, len(g.GetAs()))
		}
		c.unique(called, at, cmp.Or(g.GetAs(), g.GetName()), "what the plugin calls the service")
	}
}

// shallow tells whether a value nests no deeper than so many levels. It is the
// one value whose depth its author chooses, and whoever decodes it inside
// another message has fewer levels left than who decoded it before.
func shallow(v *structpb.Value, levels int) bool {
	if levels < 0 {
		return false
	}
	for _, inner := range v.GetStructValue().GetFields() {
		if !shallow(inner, levels-1) {
			return false
		}
	}
	for _, inner := range v.GetListValue().GetValues() {
		if !shallow(inner, levels-1) {
			return false
		}
	}
	return true
}
