package service

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/weirmesh/weir/proxy/balancer"
	"github.com/weirmesh/weir/proxy/resolve"
)

// resolve looks up what is a name; nil for an address. The names of this host
// itself are left to the dialler, which knows both of its addresses and takes
// the one that answers.
func (r *Registry) resolve(cfg Config, address string, changed func()) *resolve.Hold {
	host, _, err := net.SplitHostPort(address)
	if _, notAddress := netip.ParseAddr(host); err != nil || notAddress == nil || isLocalhost(host) {
		return nil
	}
	return r.with.Names.Acquire(resolve.Key{Host: host, Network: cfg.Network, Refresh: cfg.Refresh}, changed)
}

func isLocalhost(host string) bool {
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") // RFC 6761, section 6.3
}

// renew makes a new view of what is known now, and reports whether it is going
// to change with time alone.
func (b *Backend) renew() (growing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	endpoints, gone := b.refresh()
	v := &View{endpoints: endpoints}
	members := make([]balancer.Member, len(endpoints))
	for i, e := range endpoints {
		members[i], growing = b.member(e, growing)
	}
	weights, panic := balancer.Weigh(members, b.cfg.Balance.Terms)
	v.panic = panic
	if len(endpoints) == 1 && weights[0] > 0 {
		v.sole = endpoints[0]
	} else {
		v.picker = b.picker(endpoints, weights)
	}
	before := b.view.Swap(v)
	for _, e := range gone { // nobody picks them any more
		b.drop(e)
	}
	if log := b.registry.with.Logger; before != nil && before.panic != panic {
		if panic {
			log.Warn("too few endpoints are healthy, all are used", "service", b.cfg.Name, "endpoints", len(endpoints))
		} else {
			log.Info("enough endpoints are healthy again", "service", b.cfg.Name, "endpoints", len(endpoints))
		}
	}
	return growing
}

// member is what the balancer knows of an endpoint.
func (b *Backend) member(e *Endpoint, growing bool) (balancer.Member, bool) {
	m := balancer.Member{Weight: e.weight, Healthy: !e.ill, Local: e.local}
	if e.member == nil {
		return m, growing
	}
	healthy, since := e.member.Health()
	m.Healthy = healthy && !e.ill
	if s := b.cfg.Balance; s.Window > 0 {
		m.Grown = balancer.Grown(float64(time.Since(since))/float64(s.Window), s.Aggression, s.LeastShare)
		growing = growing || m.Healthy && m.Grown < 1
	}
	return m, growing
}

func (b *Backend) picker(endpoints []*Endpoint, weights []uint32) balancer.Picker {
	names := make([]string, len(endpoints))
	for i, e := range endpoints {
		names[i] = e.Pool.Address()
	}
	s := b.cfg.Balance
	switch s.Policy {
	case RoundRobin:
		return balancer.NewRoundRobin(weights)
	case Random:
		return balancer.NewRandom(weights)
	case RingHash:
		if r := balancer.NewRing(names, weights, s.Ring); s.HashFactor == 0 {
			return r
		} else {
			return balancer.NewBounded(r, s.HashFactor, loads(endpoints))
		}
	case Maglev:
		if m := balancer.NewMaglev(names, weights); s.HashFactor == 0 {
			return m
		} else {
			return balancer.NewBounded(m, s.HashFactor, loads(endpoints))
		}
	}
	return balancer.NewLeastRequest(weights, loads(endpoints))
}

// loads tells the balancer how many requests each endpoint is at work on.
type loads []*Endpoint

func (l loads) InFlight(i int) int64 { return l[i].Pool.InFlight() }

// refresh brings the live endpoints up to date with what is declared and
// resolved, and returns them in order, and those that are gone. The caller holds
// b.mu.
func (b *Backend) refresh() (endpoints, gone []*Endpoint) {
	before := b.live
	b.live = map[string]*Endpoint{}
	for i, d := range b.cfg.Endpoints {
		addresses := b.addresses(i)
		for _, address := range addresses {
			id := d.Key.Address + " " + address
			e := before[id]
			if e == nil {
				e = b.add(d, id, address)
			}
			delete(before, id)
			e.weight = float64(d.Weight) / float64(len(addresses))
			b.live[id] = e
			endpoints = append(endpoints, e)
		}
	}
	for _, e := range before {
		gone = append(gone, e)
	}
	return endpoints, gone
}

// addresses of a declared endpoint: its own, or those of its name once they are
// known.
func (b *Backend) addresses(i int) []string {
	declared := b.cfg.Endpoints[i].Key.Address
	if b.names[i] == nil {
		return []string{declared}
	}
	found := b.names[i].Addresses()
	if len(found) == 0 {
		return []string{declared}
	}
	_, port, _ := net.SplitHostPort(declared) // resolve has split it before
	all := make([]string, len(found))
	for k, a := range found {
		all[k] = net.JoinHostPort(a.String(), port)
	}
	return all
}

func (b *Backend) add(d Declared, id, address string) *Endpoint {
	key := d.Key
	key.Address = address
	e := &Endpoint{Pool: b.registry.with.Pools.Acquire(key), id: id, local: d.Zone != "" && d.Zone == b.cfg.Zone, ill: d.Unhealthy}
	if b.seat != nil && !d.Unchecked {
		e.member = b.seat.Add(address)
	}
	return e
}

func (b *Backend) drop(e *Endpoint) {
	if e.member != nil {
		b.seat.Remove(e.member)
	}
	b.registry.with.Pools.Release(e.Pool)
}
