package upstream

// forWebSocket is the pool that an exchange goes by which may end in WebSocket: this one,
// or where its connections carry many exchanges to a sidecar, one beside it whose
// connections to that sidecar carry one each, by HTTP/1.1. A conversation may be long and
// full: on a connection of its own it holds up nobody, and nobody holds it up.
//
// The pool beside lives as long as this one, and is looked after with it.
func (p *Pool) forWebSocket() *Pool {
	if p.key.Protocol != Mesh {
		return p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnels == nil {
		key := p.key
		key.Protocol = HTTP1
		p.tunnels = p.registry.newPool(key)
		p.tunnels.closed = p.closed
	}
	return p.tunnels
}

// beside is the pool that forWebSocket has made; nil: none.
func (p *Pool) beside() *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tunnels
}
