package store

import (
	"fmt"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Bounds of the help in a refusal, so that one with thousands of violations is
// still cheap to make: every member makes it.
const (
	maxSuggestions = 10
	maxCandidates  = 2000
	maxReferrers   = 3
)

// checkReferences: what is put refers to nothing that will not be there.
func (p *plan) checkReferences() {
	for _, c := range p.changes {
		if c.now == nil {
			continue
		}
		for ref := range resource.References(c.now) {
			p.checkReference(c.ref, ref)
		}
	}
}

func (p *plan) checkReference(from resource.Ref, ref resource.Reference) {
	if ref.To.Kind == resource.KindBlob {
		if b, ok := p.blobs.Get([]byte(ref.To.Name)); !ok || !b.whole() {
			p.refuse(from, ref.Field(), NotFound, "nothing with the digest %s is stored: push it first", ref.To.Name)
		}
		return
	}
	target, deleted := p.outcome(ref.To)
	switch {
	case deleted:
		p.refuse(from, ref.Field(), NotFound, "%s is deleted by the same change", ref.To)
	case target == nil:
		p.refuse(from, ref.Field(), NotFound, "there is no %s%s", ref.To, p.suggestion(ref.To))
	default:
		if field, message, lacks := ref.Lack(target); lacks {
			p.refuse(from, field, NotFound, "%s", message)
		}
	}
}

// outcome is a resource as the plan leaves it.
func (p *plan) outcome(ref resource.Ref) (r *weirv1.Resource, deleted bool) {
	if c := p.change(ref); c != nil {
		return c.now, c.now == nil
	}
	r, _ = p.resources.Get(resourceKey(ref))
	return r, false
}

// checkReferrers: nothing that stays as it is refers to what goes.
func (p *plan) checkReferrers() {
	for _, c := range p.changes {
		if c.old == nil || !c.changed() || c.now != nil && keepsParts(c.old, c.now) {
			continue
		}
		var broken []string
		more := 0
		for _, from := range scan(p.referrers.Root(), referrersPrefix(c.ref), nil) {
			if p.change(from) != nil {
				continue // goes too, or was checked as it will be
			}
			message := p.brokenBy(c, from)
			switch {
			case message == "":
			case len(broken) == maxReferrers:
				more++
			default:
				broken = append(broken, message)
			}
		}
		if more > 0 {
			broken = append(broken, fmt.Sprintf("%d more", more))
		}
		if broken != nil {
			p.refuse(c.ref, "", InUse, "%s", strings.Join(broken, "; "))
		}
	}
}

// brokenBy says how a change breaks the references of a resource, "" if it
// does not.
func (p *plan) brokenBy(c *change, from resource.Ref) string {
	r, _ := p.resources.Get(resourceKey(from))
	for ref := range resource.References(r) {
		if ref.To != c.ref {
			continue
		}
		if c.now == nil {
			return fmt.Sprintf("%s refers to it at %s", from, ref.Field())
		}
		if field, message, lacks := ref.Lack(c.now); lacks {
			return fmt.Sprintf("%s would point at nothing at %s: %s", from, field, message)
		}
	}
	return ""
}

// keepsParts: all that could be named inside the old resource can be in the
// new one. It spares an update the look at thousands of referrers.
func keepsParts(old, now *weirv1.Resource) bool {
	_, before := resource.Parts(old)
	_, after := resource.Parts(now)
	for _, name := range before {
		if !slices.Contains(after, name) {
			return false
		}
	}
	for _, l := range old.GetGateway().GetSpec().GetListeners() {
		if !slices.ContainsFunc(now.GetGateway().GetSpec().GetListeners(), func(n *weirv1.Listener) bool {
			return n.GetName() == l.GetName() && n.GetPort() == l.GetPort() && n.GetProtocol() == l.GetProtocol()
		}) {
			return false
		}
	}
	return true
}

// suggestion is the end of a sentence about a resource that is not there.
func (p *plan) suggestion(ref resource.Ref) string {
	if p.suggested++; p.suggested > maxSuggestions {
		return ""
	}
	var names []string
	for _, c := range p.changes {
		if c.ref.Kind == ref.Kind && c.ref.Tenant == ref.Tenant && c.now != nil {
			names = append(names, c.ref.Name)
		}
	}
	for _, r := range scan(p.resources.Root(), []byte(ref.Kind+separator+ref.Tenant+separator), nil) {
		if len(names) == maxCandidates {
			break
		}
		if other := resource.Of(r); p.change(other) == nil {
			names = append(names, other.Name)
		}
	}
	if near := resource.Nearest(ref.Name, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}
