package upstream

import (
	"net"
	"net/netip"

	"github.com/weirmesh/weir/proxy/proxyproto"
)

// ends are the two ends of a client's connection, which a PROXY protocol header
// tells the endpoint of.
type ends struct{ client, local netip.AddrPort }

// personal: connections of the pool are for one client each, because they began
// with who that is.
func (p *Pool) personal() bool { return p.key.Proxy != proxyproto.None }

// maxPersonal is how many connections of a personal pool are kept: most are never
// asked for again.
const maxPersonal = 128

// introduce says who the client is, before anything else.
func (p *Pool) introduce(c net.Conn, who ends) error {
	if !p.personal() {
		return nil
	}
	_, err := c.Write(proxyproto.Append(nil, p.key.Proxy, who.client, who.local))
	return err
}

// takeAny is take, of those that are for a client.
func (p *Pool) takeAny(who ends, look bool) *link {
	if p.personal() {
		return p.takeFor(who, look)
	}
	return p.take(look)
}

// takeFor is take for a personal pool.
func (p *Pool) takeFor(who ends, look bool) *link {
	for {
		l := p.removeFor(who)
		if l == nil {
			return nil
		}
		if look && !l.Alive() {
			discard(l)
			continue
		}
		p.reuses.Add(1)
		return l
	}
}

func (p *Pool) removeFor(who ends) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		if l := p.idle[i]; l.who == who {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return l
		}
	}
	return nil
}

// keepPersonal keeps a connection for its client's next exchange, unless others
// wait for its place. The caller holds p.mu; what it gets is to be discarded.
func (p *Pool) keepPersonal(l *link) (drop *link) {
	if p.closed || len(p.gate.waiting) > 0 {
		return l
	}
	if len(p.idle) >= maxPersonal {
		drop = p.idle[0]
		p.idle = append(p.idle[:0], p.idle[1:]...)
	}
	p.idle = append(p.idle, l)
	return drop
}

// takePlaceOfIdle takes the place of the connection that has been idle longest, of
// another client's. The caller holds p.mu.
func (p *Pool) takePlaceOfIdle() bool {
	if !p.personal() || len(p.idle) == 0 {
		return false
	}
	l := p.idle[0]
	p.idle = append(p.idle[:0], p.idle[1:]...)
	l.pool = nil // its place is the caller's, who holds the lock
	_ = l.Close()
	l.Free()
	return true
}
