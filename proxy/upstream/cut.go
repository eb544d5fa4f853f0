package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
)

// Peered is a Conn that knows who has proven to be at its other end, and can be broken
// with all that is under way on it.
type Peered interface {
	Peer() *x509.Certificate
	// Abort breaks the connection. Anyone may call it, also when it has ended.
	Abort()
}

var errShutOut = errors.New("the endpoint is shut out of the mesh")

// Cut breaks the connections to sidecars whose certificate is meant, whatever is under way
// on them, and returns how many. One that is made meanwhile is judged by JoinMesh's
// function when it can be found here: one of the two sees it.
func (r *Registry) Cut(which func(*x509.Certificate) bool) (cut int) {
	r.mu.Lock()
	var pools []*Pool
	for _, p := range r.pools {
		if p.key.TLS.SidecarsOf != "" {
			pools = append(pools, p)
		}
	}
	r.mu.Unlock()
	for _, p := range pools {
		cut += p.cut(which)
		if t := p.beside(); t != nil {
			cut += t.cut(which)
		}
	}
	return cut
}

func (p *Pool) cut(which func(*x509.Certificate) bool) (cut int) {
	p.mu.Lock()
	var shared []Peered
	for _, m := range p.shared.members {
		if c, ok := m.Conn.(Peered); ok && which(c.Peer()) {
			shared = append(shared, c)
		}
	}
	var idle []*link
	for l, leaf := range p.peers {
		if !which(leaf) {
			continue
		}
		cut++
		if i := slices.Index(p.idle, l); i >= 0 {
			p.idle = slices.Delete(p.idle, i, i+1)
			idle = append(idle, l)
		} else {
			l.Abort() // whoever has it closes it, after the lock is free
		}
	}
	p.mu.Unlock()
	for _, l := range idle {
		discard(l)
	}
	for _, c := range shared {
		c.Abort()
	}
	return cut + len(shared)
}

// refuses tells whether the peer of a new connection was shut out since the handshake.
// Where the caller holds p.mu until the connection is among the pool's, cut sees it else.
func (p *Pool) refuses(c Conn) bool {
	peered, ok := c.(Peered)
	return ok && p.registry.refuses != nil && p.registry.refuses(peered.Peer())
}

// note has a connection to a sidecar found by cut until it is discarded.
func (p *Pool) note(l *link) error {
	if p.key.TLS.SidecarsOf == "" {
		return nil
	}
	leaf := l.peer()
	if leaf == nil {
		return nil
	}
	p.mu.Lock()
	if p.peers == nil {
		p.peers = map[*link]*x509.Certificate{}
	}
	p.peers[l], l.noted = leaf, p
	p.mu.Unlock()
	if p.registry.refuses != nil && p.registry.refuses(leaf) {
		return errShutOut
	}
	return nil
}

// peer is the certificate of the sidecar at the other end; nil: it has shown none.
func (l *link) peer() *x509.Certificate {
	secured, ok := l.Net().(*tls.Conn)
	if !ok {
		return nil
	}
	return secured.ConnectionState().PeerCertificates[0]
}

// forget is called before a link is closed: nobody breaks it any more.
func (l *link) forget() {
	if p := l.noted; p != nil {
		p.mu.Lock()
		delete(p.peers, l)
		p.mu.Unlock()
	}
}
