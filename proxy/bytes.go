package proxy

import (
	"context"
	"net"
	"sync"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/service"
)

// Bytes implements policy.Services.
func (g *granted) Bytes(name string) (policy.Bytes, error) {
	b := g.backends[name]
	switch {
	case b == nil || g.proxy.calling.Err() != nil:
		return nil, policy.ErrNotGranted
	case !b.bytes:
		return nil, policy.ErrNotBytes
	}
	g.refs.Add(1)
	return &policyBytes{of: g, backend: b}, nil
}

// policyBytes is one question of a policy's to a service of bytes.
type policyBytes struct {
	of      *granted
	backend *backend
	permits service.Permits
}

// Same implements policy.Bytes.
func (b *policyBytes) Same() any { return b.backend }

// Begin implements policy.Bytes.
func (b *policyBytes) Begin() error {
	if !b.permits.Begin(b.backend.Backend) {
		return errOverloaded
	}
	return nil
}

// Close implements policy.Bytes.
func (b *policyBytes) Close() {
	b.permits.End()
	b.of.leave()
}

// Connect implements policy.Bytes: by the same balancing, health, limits and TLS as
// the connections that a listener relays.
func (b *policyBytes) Connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.of.proxy.calling, cancel)()
	up, failed := connectTo(ctx, b.backend, new(exchange.Exchange))
	if failed != nil {
		return nil, failed
	}
	b.of.refs.Add(1)
	c := &policyConn{Conn: up, of: b.of}
	c.stop = context.AfterFunc(b.of.proxy.calling, func() { up.Close() })
	return c, nil
}

// policyConn holds the service that it leads to.
type policyConn struct {
	net.Conn
	of   *granted
	stop func() bool
	once sync.Once
}

// Close closes the connection. Only the first counts.
func (c *policyConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.stop()
		c.of.leave()
	})
	return err
}
