package router

import (
	"maps"
	"net/netip"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Change is what differs between two tables.
type Change struct {
	// Gateways and Routes are added, or replace those of the same name, each
	// name once. A route that is given is compiled anew, even when it is the
	// same: that is how a caller renews a rule's value.
	Gateways []*weirv1.Gateway
	Routes   []*weirv1.Route
	// Removed names gateways and routes that are no more; what is not there
	// is ignored.
	Removed []resource.Ref
}

// group is the listeners that serve as one: same port, address and hostname.
type group[T any] struct {
	hosts hosts[*bucket[T]]
	owner *edit
}

// With returns a table with the change made; t stays as it is. compile is
// called for each rule of each route in the change. Its error, or that of an
// expression that is none, leaves no new table; what compile made until then
// is the caller's to release.
func (t *Table[T]) With(change Change, compile func(route *weirv1.Route, rule int) (T, error)) (*Table[T], error) {
	added := make([]*route[T], 0, len(change.Routes))
	for _, spec := range change.Routes {
		r, err := compileRoute(spec, compile)
		if err != nil {
			return nil, err
		}
		added = append(added, r)
	}
	// In the order of precedence most insertions are appends.
	slices.SortStableFunc(added, (*route[T]).compare)

	next := *t
	e := new(edit)
	removed := next.updateRoutes(e, change.Removed, added)
	relisten, err := next.updateGateways(change)
	if err != nil {
		return nil, err
	}
	if relisten {
		next.attachAll(e)
		return &next, nil
	}
	next.groups = slices.Clone(t.groups)
	for _, r := range removed {
		next.detach(e, r)
	}
	for _, r := range added {
		if current, _ := next.routes.getString(r.key); current == r {
			next.attach(e, r)
		}
	}
	return &next, nil
}

// updateRoutes changes which routes there are, and returns those that are
// attached in the older table and are no more.
func (t *Table[T]) updateRoutes(e *edit, refs []resource.Ref, added []*route[T]) (removed []*route[T]) {
	drop := func(k string) {
		if old, ok := t.routes.getString(k); ok {
			removed = append(removed, old)
			t.routes.delete(e, k)
		}
	}
	for _, ref := range refs {
		if ref.Kind == resource.KindRoute {
			drop(key(ref.Tenant, ref.Name))
		}
	}
	for _, r := range added {
		drop(r.key)
	}
	for _, r := range added {
		t.routes.set(e, r.key, r)
	}
	return removed
}

// updateGateways changes which gateways there are and reports whether the
// listeners are others by that; then the groups are made anew, and empty.
func (t *Table[T]) updateGateways(change Change) (relisten bool, err error) {
	gateways := maps.Clone(t.gateways)
	if gateways == nil {
		gateways = map[string]*weirv1.Gateway{}
	}
	for _, ref := range change.Removed {
		if ref.Kind == resource.KindGateway {
			delete(gateways, key(ref.Tenant, ref.Name))
		}
	}
	for _, g := range change.Gateways {
		gateways[keyOf(g.GetMetadata())] = g
	}
	listeners, err := compileListeners(gateways)
	if err != nil {
		return false, err
	}
	t.gateways = gateways
	if slices.EqualFunc(t.listeners, listeners, func(a placedListener, b *Listener) bool { return *a.Listener == *b }) {
		return false, nil
	}
	t.place(listeners)
	return true, nil
}

// place puts listeners into groups. Of a socket whose listeners disagree about
// whether it carries HTTP, only those that agree with the oldest are in one.
func (t *Table[T]) place(listeners []*Listener) {
	t.listeners, t.sites, t.groups = nil, map[uint16]*site{}, nil
	e := new(edit)
	streams := map[netip.AddrPort]bool{}
	for _, l := range listeners {
		socket, stream := netip.AddrPortFrom(l.Address, l.Port), resource.IsStream(l.Protocol)
		if first, ok := streams[socket]; !ok {
			streams[socket] = stream
		} else if first != stream {
			t.listeners = append(t.listeners, placedListener{l, noGroup})
			continue
		}
		s := t.sites[l.Port]
		if s == nil {
			s = newSite()
			t.sites[l.Port] = s
		}
		h := s.at(l.Address)
		number, ok := h.get(l.Hostname)
		if !ok || number == noGroup {
			number = len(t.groups)
			t.groups = append(t.groups, &group[T]{})
			h.set(e, l.Hostname, number)
		}
		t.listeners = append(t.listeners, placedListener{l, number})
	}
}

func (t *Table[T]) attachAll(e *edit) {
	ordered := slices.SortedFunc(t.routes.all(), (*route[T]).compare)
	for _, r := range ordered {
		t.attach(e, r)
	}
}

// attach and detach change the groups of the listeners that a route names.
func (t *Table[T]) attach(e *edit, r *route[T]) {
	t.places(r, func(l placedListener, hostname string) {
		b := t.ownBucket(e, l.group, hostname)
		for _, m := range r.matches {
			b.add(e, newCandidate(m, l.Listener))
		}
	})
}

func (t *Table[T]) detach(e *edit, r *route[T]) {
	t.places(r, func(l placedListener, hostname string) {
		b := t.ownBucket(e, l.group, hostname)
		for _, m := range r.matches {
			b.remove(e, m)
		}
		if b.empty() {
			t.groups[l.group].hosts.delete(e, hostname)
		}
	})
}

// places calls f for each hostname of the route in each group of listeners
// that it is attached to, with the group's first listener that it names.
func (t *Table[T]) places(r *route[T], f func(l placedListener, hostname string)) {
	type place struct {
		group    int
		hostname string
	}
	if len(r.matches) == 0 {
		return // no bucket is ever empty
	}
	var done map[place]bool
	for _, l := range t.listeners {
		if l.group == noGroup || !r.names(l.Listener) {
			continue
		}
		for _, hostname := range r.hostnames {
			if !intersect(l.Hostname, hostname) || done[place{l.group, hostname}] {
				continue
			}
			if done == nil {
				done = map[place]bool{}
			}
			done[place{l.group, hostname}] = true
			f(l, hostname)
		}
	}
}

// names reports whether one of the route's parentRefs means the listener. One that
// carries no HTTP has to be named.
func (r *route[T]) names(l *Listener) bool {
	return r.tenant == l.Gateway.Tenant && slices.ContainsFunc(r.parents, func(p *weirv1.ParentRef) bool {
		return (p.GetKind() == "" || p.GetKind() == resource.KindGateway) && p.GetName() == l.Gateway.Name &&
			(p.GetSectionName() == "" || p.GetSectionName() == l.Name) &&
			(p.GetPort() == 0 || p.GetPort() == uint32(l.Port)) &&
			(!resource.IsStream(l.Protocol) || p.GetSectionName() != "" || p.GetPort() != 0)
	})
}

// ownBucket returns the bucket of a hostname, safe to change.
func (t *Table[T]) ownBucket(e *edit, number int, hostname string) *bucket[T] {
	g := t.groups[number]
	if g.owner != e {
		copied := *g
		copied.owner = e
		g, t.groups[number] = &copied, &copied
	}
	old, ok := g.hosts.get(hostname)
	if !ok || old == nil {
		old = &bucket[T]{hostname: hostname, owner: e}
		g.hosts.set(e, hostname, old)
		return old
	}
	b := old.own(e)
	if b != old {
		g.hosts.set(e, hostname, b)
	}
	return b
}
