package nodeapi

import (
	"maps"
	"slices"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// scope is what proxies with certain labels must know, and how that changed of
// late. The hub's lock guards all but history and snapshot.
type scope struct {
	audience
	members map[*node]*weirv1.Resource
	routes  map[*tenant]int // how many of the members are Routes of whom
	keyed   map[*tenant]int // how many are Apis that ask for a key
	digest  digest

	streams   int
	idleSince time.Time

	history  *history
	snapshot snapshot
}

func newScope(of audience, g *graph) *scope {
	of.labels, of.kinds = maps.Clone(of.labels), slices.Clone(of.kinds)
	s := &scope{audience: of, members: map[*node]*weirv1.Resource{}, routes: map[*tenant]int{}, keyed: map[*tenant]int{}}
	roots := map[*node]struct{}{}
	for _, n := range g.nodes {
		if n.ref.Kind == resource.KindGateway || of.isSidecar() && n.ref.Tenant == of.tenant {
			roots[n] = struct{}{}
		}
	}
	s.follow(roots)
	s.history = newHistory(position{g.revision, s.digest})
	return s
}

// kindsKnown are those of the newer kinds that a proxy says it knows, and this server
// does, too.
func kindsKnown(said []string) (known []string) {
	for _, kind := range resource.NewerKinds {
		if slices.Contains(said, kind) {
			known = append(known, kind)
		}
	}
	return known
}

// change takes in what the graph was just changed by, and appends what it means
// to the scope's proxies to their history.
func (s *scope) change(revision uint64, touched map[*node]struct{}) {
	puts, deletes := s.follow(touched)
	s.history.append(encodeChange(s.history.end(), position{revision, s.digest}, puts, deletes))
}

// follow works out which members a change of the graph adds, alters or takes
// away. It costs what the change touches, not what the scope holds.
func (s *scope) follow(touched map[*node]struct{}) (puts []*weirv1.Resource, deletes []resource.Ref) {
	var dirty [ranks]map[*node]struct{}
	for rank := range dirty {
		dirty[rank] = map[*node]struct{}{}
	}
	mark := func(n *node, after int) {
		if rank, ok := rankOf(n.ref.Kind); ok && rank > after {
			dirty[rank][n] = struct{}{}
		}
	}
	markPoliciesOn := func(service *node, after int) {
		for from := range service.referrers {
			if from.ref.Kind == resource.KindPolicy {
				mark(from, after)
			}
		}
	}
	for n := range touched {
		mark(n, -1)
		if n.ref.Kind == resource.KindService { // maybe a Route has taken it up
			markPoliciesOn(n, -1)
		}
		if s.isSidecar() {
			markServedBy(n, mark)
		}
	}
	for rank := range dirty {
		for n := range dirty[rank] {
			was, now := s.members[n], s.wants(n)
			if asksForKey(was) != asksForKey(n.resource) || now != (was != nil) && asksForKey(n.resource) > 0 {
				for c := range n.tenant.consumers {
					mark(c, rank)
				}
			}
			as := s.shown(n)
			switch {
			case now && was != as:
				s.put(n, was, as)
				puts = append(puts, as)
			case !now && was != nil:
				s.remove(n, was)
				deletes = append(deletes, n.ref)
			}
			if now == (was != nil) && isWithheld(was) == isWithheld(as) {
				continue
			}
			// It came or went, or most of it did, and with it perhaps those that hang on it.
			for _, to := range n.refersTo {
				mark(to, rank)
			}
			for from := range n.referrers {
				mark(from, rank)
			}
			if n.ref.Kind == resource.KindRoute {
				for _, to := range n.refersTo {
					markPoliciesOn(to, rank)
				}
				for p := range n.tenant.policies {
					mark(p, rank)
				}
			}
		}
	}
	sortResources(puts)
	slices.SortFunc(deletes, resource.Ref.Compare)
	return puts, deletes
}

// markServedBy marks what hangs on the Routes that a change may have made do something at
// a sidecar, or nothing: they are those that lead to a Service that was touched.
func markServedBy(n *node, mark func(n *node, after int)) {
	onRoute := func(route *node) {
		for from := range route.referrers {
			mark(from, rankRoute)
		}
	}
	switch n.ref.Kind {
	case resource.KindRoute:
		onRoute(n)
	case resource.KindService:
		for from := range n.referrers {
			if from.ref.Kind == resource.KindRoute {
				onRoute(from)
			}
		}
	}
}

func (s *scope) put(n *node, was, as *weirv1.Resource) {
	if was != nil {
		s.digest.toggle(n.ref, revisionOf(was))
	}
	s.digest.toggle(n.ref, revisionOf(as))
	s.members[n] = as
	if was == nil && n.ref.Kind == resource.KindRoute {
		s.routes[n.tenant]++
	}
	s.keyed[n.tenant] += asksForKey(as) - asksForKey(was)
}

// asksForKey is 1 for an Api that does.
func asksForKey(r *weirv1.Resource) int {
	if r.GetApi().GetSpec().GetAuthentication() != nil {
		return 1
	}
	return 0
}

func (s *scope) remove(n *node, was *weirv1.Resource) {
	s.digest.toggle(n.ref, revisionOf(was))
	delete(s.members, n)
	if n.ref.Kind == resource.KindRoute {
		s.routes[n.tenant]--
	}
	s.keyed[n.tenant] -= asksForKey(was)
}

// wants tells whether a resource belongs to the scope, given that the kinds
// before its own are decided.
func (s *scope) wants(n *node) bool {
	if n.resource == nil {
		return false
	}
	if s.isSidecar() {
		if wanted, decided := s.sidecarWants(n); decided {
			return wanted
		}
	}
	switch n.ref.Kind {
	case resource.KindGateway:
		return satisfies(s.labels, n.resource.GetGateway().GetSpec().GetSelector())
	case resource.KindCertificate:
		return s.hasWhole(maps.Keys(n.referrers), resource.KindGateway, resource.KindService)
	case resource.KindRoute:
		return s.hasAny(slices.Values(n.refersTo), resource.KindGateway)
	case resource.KindPolicy:
		return s.runs(n)
	case resource.KindService:
		return s.hasAny(maps.Keys(n.referrers), resource.KindRoute) || s.isGranted(n)
	case resource.KindPlugin:
		return s.hasAny(maps.Keys(n.referrers), resource.KindPolicy)
	case resource.KindApi:
		return slices.Contains(s.kinds, resource.KindApi) && slices.ContainsFunc(n.refersTo, func(to *node) bool {
			return to.ref.Kind == resource.KindRoute && s.serves(to)
		})
	case resource.KindContract:
		return s.hasAny(maps.Keys(n.referrers), resource.KindApi)
	case resource.KindApp, resource.KindCredential, resource.KindPlan, resource.KindSubscription: // see resource.IsConsumer
		return slices.Contains(s.kinds, n.ref.Kind) && s.keyed[n.tenant] > 0
	case resource.KindInstance:
		return slices.Contains(s.kinds, resource.KindInstance) && s.hasWhole(slices.Values(n.refersTo), resource.KindService)
	case resource.KindPluginTrust:
		return slices.Contains(s.kinds, resource.KindPluginTrust) && s.hasAny(maps.Keys(n.referrers), resource.KindPlugin)
	}
	return false
}

// runs tells whether a policy runs somewhere in the scope.
func (s *scope) runs(n *node) bool {
	if s.isSidecar() {
		return s.runsBeside(n)
	}
	if s.hasAny(slices.Values(n.refersTo), resource.KindGateway, resource.KindRoute) {
		return true
	}
	if _, all := n.tenant.policies[n]; all && s.routes[n.tenant] > 0 {
		return true
	}
	return slices.ContainsFunc(n.refersTo, func(to *node) bool {
		return to.ref.Kind == resource.KindService && s.hasAny(maps.Keys(to.referrers), resource.KindRoute) &&
			slices.ContainsFunc(n.resource.GetPolicy().GetSpec().GetTargetRefs(), func(t *weirv1.TargetRef) bool {
				return t.GetKind() == resource.KindService && t.GetName() == to.ref.Name
			})
	})
}

// isGranted tells whether a policy of the scope may call the service.
func (s *scope) isGranted(n *node) bool {
	for from := range n.referrers {
		if s.members[from] != nil && slices.ContainsFunc(from.resource.GetPolicy().GetSpec().GetServices(), func(g *weirv1.ServiceGrant) bool {
			return g.GetName() == n.ref.Name
		}) {
			return true
		}
	}
	return false
}

// shown is what the scope's proxies are sent of a resource: a Certificate by
// which they only check others comes without its key, and see withholds.
func (s *scope) shown(n *node) *weirv1.Resource {
	switch {
	case n.ref.Kind == resource.KindService && n.resource != nil && s.isSidecar() && s.withholds(n):
		return n.withheld()
	case n.keyless == nil:
		return n.resource
	}
	for from := range n.referrers {
		if s.isWhole(from) && needsKey(from.resource, n.ref) {
			return n.resource
		}
	}
	return n.keyless
}

// needsKey tells whether a resource names a Certificate otherwise than as an
// authority.
func needsKey(from *weirv1.Resource, to resource.Ref) bool {
	for r := range resource.References(from) {
		if r.To == to && !r.Authority {
			return true
		}
	}
	return false
}

func (s *scope) hasAny(nodes func(func(*node) bool), kinds ...string) bool {
	for n := range nodes {
		if slices.Contains(kinds, n.ref.Kind) && s.members[n] != nil {
			return true
		}
	}
	return false
}

// hasWhole is hasAny for those of which the scope holds more than that they are there.
func (s *scope) hasWhole(nodes func(func(*node) bool), kinds ...string) bool {
	for n := range nodes {
		if slices.Contains(kinds, n.ref.Kind) && s.isWhole(n) {
			return true
		}
	}
	return false
}

func satisfies(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func sortResources(rs []*weirv1.Resource) {
	slices.SortFunc(rs, func(a, b *weirv1.Resource) int { return resource.Of(a).Compare(resource.Of(b)) })
}

// snapshot is the newest one that was encoded for a scope. Whoever needs one
// while it is being encoded waits and shares it.
type snapshot struct {
	mu    sync.Mutex
	frame *frame
	// next is where in the history to go on from.
	next uint64
}
