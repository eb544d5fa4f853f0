package resource

import (
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func (c *check) instance(spec *weirv1.InstanceSpec) {
	const at = Path("spec")
	c.syntax(at.Field("service"), checkLabel(spec.GetService()))
	c.syntax(at.Field("node"), checkLabel(spec.GetNode()))
	c.syntax(at.Field("address"), checkEndpoint(spec.GetAddress()))
	c.labels(at.Field("labels"), spec.GetLabels())
}

func (c *check) accessRule(spec *weirv1.AccessRuleSpec) {
	const allows = Path("spec.allow")
	c.syntax("spec.service", checkLabel(spec.GetService()))
	c.count(allows, len(spec.GetAllow()), 0, maxEntries, "entry")
	for i, a := range spec.GetAllow() {
		at := allows.Index(i)
		for list, n := range map[string]int{"from": len(a.GetFrom()), "methods": len(a.GetMethods()), "paths": len(a.GetPaths())} {
			c.count(at.Field(list), n, 0, maxEntries, "entry")
		}
		for j, id := range a.GetFrom() {
			if !strings.HasPrefix(id, "spiffe://") || strings.ContainsAny(id, " \t\r\n") {
				c.add(at.Field("from").Index(j), "must be a SPIFFE ID, such as \"spiffe://example.org/ns/default/svc/shop\", not %q", id)
			}
		}
		for j, m := range a.GetMethods() {
			c.syntax(at.Field("methods").Index(j), checkMethod(m))
		}
		for j, p := range a.GetPaths() {
			if star := strings.IndexByte(p, '*'); !strings.HasPrefix(p, "/") || star >= 0 && star != len(p)-1 {
				c.add(at.Field("paths").Index(j), "must be a path that begins with '/' and may end with '*', not %q", p)
			}
		}
	}
}

// MatchesID tells whether a SPIFFE ID is meant by an entry of an AccessRule. They are
// compared segment by segment. "*" is any segment, and at the end all that follows, of
// which there is some.
func MatchesID(pattern, id string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, "/")
		s, restS, moreS := strings.Cut(id, "/")
		switch {
		case p == "*" && !moreP:
			return id != ""
		case p != s && (p != "*" || s == ""), moreP != moreS:
			return false
		case !moreP:
			return true
		}
		pattern, id = restP, restS
	}
}
