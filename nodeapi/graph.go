package nodeapi

import (
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Change is what one revision, or several in a row, did to what is declared.
type Change struct {
	Revision uint64
	// Reset: Puts is all there is.
	Reset   bool
	Puts    []*weirv1.Resource
	Deletes []resource.Ref
}

// graph is what is declared, and who refers to whom. Scopes are drawn from it.
type graph struct {
	revision uint64
	nodes    map[resource.Ref]*node
	tenants  map[string]*tenant
}

// tenant is what concerns all Routes of one.
type tenant struct {
	policies map[*node]struct{} // that are attached to all of them
	// Who may call. A scope with an Api of the tenant that asks for a key has all of them.
	consumers map[*node]struct{}
}

// node is one resource, or the place of one that others refer to and that is
// not there.
type node struct {
	ref       resource.Ref
	resource  *weirv1.Resource // nil: not there
	keyless   *weirv1.Resource // the same without its private key; nil: it has none
	bare      *weirv1.Resource // what withheld has made of it; nil: it was not asked yet
	refersTo  []*node
	referrers map[*node]struct{}
	tenant    *tenant
}

// The order in which it is decided what belongs to a scope: each kind depends
// on those before it alone.
const (
	rankGateway = iota
	rankRoute
	rankPolicy
	rankService
	rankCertificate
	rankPlugin
	rankPluginTrust
	rankApi
	rankContract
	rankApp
	rankPlan
	rankCredential
	rankSubscription
	rankInstance
	rankAccessRule
	ranks
)

func rankOf(kind string) (rank int, ok bool) {
	switch kind {
	case resource.KindGateway:
		return rankGateway, true
	case resource.KindCertificate:
		return rankCertificate, true
	case resource.KindRoute:
		return rankRoute, true
	case resource.KindService:
		return rankService, true
	case resource.KindPolicy:
		return rankPolicy, true
	case resource.KindPlugin:
		return rankPlugin, true
	case resource.KindPluginTrust:
		return rankPluginTrust, true
	case resource.KindApi:
		return rankApi, true
	case resource.KindContract:
		return rankContract, true
	case resource.KindApp:
		return rankApp, true
	case resource.KindPlan:
		return rankPlan, true
	case resource.KindCredential:
		return rankCredential, true
	case resource.KindSubscription:
		return rankSubscription, true
	case resource.KindInstance:
		return rankInstance, true
	case resource.KindAccessRule:
		return rankAccessRule, true
	}
	return 0, false
}

func newGraph() *graph {
	return &graph{nodes: map[resource.Ref]*node{}, tenants: map[string]*tenant{}}
}

// apply takes a change in and returns the nodes whose place in a scope, or
// whose content, it may have changed.
func (g *graph) apply(c Change) map[*node]struct{} {
	touched := map[*node]struct{}{}
	deletes := c.Deletes
	if c.Reset {
		deletes = g.missingFrom(c.Puts)
	}
	for _, ref := range deletes {
		if n := g.nodes[ref]; n != nil && n.resource != nil {
			g.set(n, nil, touched)
		}
	}
	for _, r := range c.Puts {
		ref := resource.Of(r)
		if _, known := rankOf(ref.Kind); !known {
			continue // of no kind that a proxy could use
		}
		n := g.at(ref)
		if n.resource != nil && revisionOf(n.resource) == revisionOf(r) {
			continue // a reset repeats what is known
		}
		g.set(n, r, touched)
	}
	g.revision = c.Revision
	for n := range touched {
		g.forget(n)
	}
	return touched
}

func (g *graph) missingFrom(puts []*weirv1.Resource) []resource.Ref {
	there := make(map[resource.Ref]struct{}, len(puts))
	for _, r := range puts {
		there[resource.Of(r)] = struct{}{}
	}
	var missing []resource.Ref
	for ref := range g.nodes {
		if _, ok := there[ref]; !ok {
			missing = append(missing, ref)
		}
	}
	return missing
}

// set gives a node its resource. What it referred to and now refers to is
// touched too: it may have lost or won its reason to be in a scope.
func (g *graph) set(n *node, r *weirv1.Resource, touched map[*node]struct{}) {
	touched[n] = struct{}{}
	for _, to := range n.refersTo {
		delete(to.referrers, n)
		touched[to] = struct{}{}
	}
	n.resource, n.keyless, n.bare, n.refersTo = r, bareKey(r), nil, nil
	delete(n.tenant.policies, n)
	delete(n.tenant.consumers, n)
	if r != nil && resource.IsConsumer(n.ref.Kind) {
		n.tenant.consumers[n] = struct{}{}
	}
	if resource.Attachment(resource.Targets(r), resource.Ref{Kind: resource.KindTenant}, "") != nil {
		n.tenant.policies[n] = struct{}{}
	}
	if r == nil {
		return
	}
	for reference := range resource.References(r) {
		g.link(n, reference.To, touched)
	}
	if r.GetPlugin() != nil { // whether it is there or not
		g.link(n, resource.TrustRef(n.ref.Tenant), touched)
	}
}

func (g *graph) link(n *node, ref resource.Ref, touched map[*node]struct{}) {
	if _, known := rankOf(ref.Kind); !known {
		return
	}
	to := g.at(ref)
	if slices.Contains(n.refersTo, to) {
		return
	}
	n.refersTo = append(n.refersTo, to)
	to.referrers[n] = struct{}{}
	touched[to] = struct{}{}
}

func (g *graph) at(ref resource.Ref) *node {
	n := g.nodes[ref]
	if n == nil {
		of := g.tenants[ref.Tenant]
		if of == nil { // which is kept: tenants are few
			of = &tenant{policies: map[*node]struct{}{}, consumers: map[*node]struct{}{}}
			g.tenants[ref.Tenant] = of
		}
		n = &node{ref: ref, referrers: map[*node]struct{}{}, tenant: of}
		g.nodes[ref] = n
	}
	return n
}

// forget drops a node that is nothing to anyone.
func (g *graph) forget(n *node) {
	if n.resource == nil && len(n.referrers) == 0 {
		delete(g.nodes, n.ref)
	}
}
