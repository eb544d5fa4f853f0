package proxy

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/service"
	"github.com/weirmesh/weir/proxy/upstream"
	"github.com/weirmesh/weir/proxy/wire"
)

// connect opens the tunnel that a client asks for by CONNECT (RFC 9110, section
// 9.3.6). It leads to an endpoint of the rule's service, whatever the client calls
// what it wants to be connected to: nobody gets further than routes lead.
func (s *session) connect(x *exchange.Exchange, r *rule) *Error {
	b := s.backend(r)
	if b == nil {
		return errNoBackend
	}
	x.Service = b.Service()
	if b.shared {
		return errBytes
	}
	if !s.permits.Begin(b.Backend) {
		return errOverloaded
	}
	life := s.life.now()
	ctx := life
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(life, x.Start.Add(r.timeout))
		defer cancel()
	}
	up, err := connectTo(ctx, b, x)
	if err != nil {
		return err
	}
	t := &tunnel{up: up, buffer: make([]byte, wire.SmallBuffer), gone: make(chan struct{})}
	s.tunnel.Store(t)
	if life.Err() != nil { // as Cut may have been too early to see it
		t.close(true)
	}
	x.Answer(200, nil)
	x.Response.Tunnel = t
	return nil
}

// connectUnrouted is for CONNECT where no rule serves it. What the service beside a
// sidecar calls that way, because it takes the outbound listener for a proxy as others are,
// is HTTP as it would have sent there without: so the tunnel leads to that listener, where
// each request in it is one like any other.
func (s *session) connectUnrouted(x *exchange.Exchange, port uint16) *Error {
	switch m := s.proxy.cfg.Mesh; {
	case m == nil || m.Outbound == 0 || m.Outbound != port || x.Protocol > exchange.HTTP11:
		return errConnect
	case !s.generation.table.Names(port, x):
		return errNoService
	case bytes.HasSuffix(x.Request.Authority, []byte(":443")):
		return errConnectTLS
	}
	x.Answer(200, nil)
	x.Response.Home = true
	return nil
}

// connectTo makes a connection to one of a service's endpoints. One that cannot be
// reached is no reason to give up: nothing was said yet.
func connectTo(ctx context.Context, b *backend, x *exchange.Exchange) (*upstream.Connection, *Error) {
	key, _ := b.affinity.key(x)
	var tried service.Tried
	failed := errNoEndpoint
	for range 1 + freshTries {
		e := b.Pick(key, &tried)
		if e == nil {
			return nil, failed
		}
		tried.Add(e)
		x.Endpoint = e.Pool.Address()
		up, err := e.Pool.Connect(ctx, b.Queue(), x.Client, x.Local)
		if err == nil {
			e.Report(200)
			return up, nil
		}
		failed = upstreamError(err)
		if errors.Is(err, upstream.ErrFull) {
			b.Exhausted()
			return nil, failed
		}
		if ctx.Err() != nil {
			return nil, failed
		}
		e.Report(0)
	}
	return nil, failed
}

// tunnel is a connection to an endpoint for one client's bytes.
type tunnel struct {
	up     *upstream.Connection
	buffer []byte
	filled bool // by the last read
	gone   chan struct{}
	once   sync.Once
}

var _ exchange.HalfOpen = (*tunnel)(nil)

// Next implements exchange.Body. The buffer grows with what there is to read, so
// that thousands who are silent cost little.
func (t *tunnel) Next() ([]byte, error) {
	if t.filled && len(t.buffer) < wire.LargeBuffer {
		t.buffer = make([]byte, 2*len(t.buffer))
	}
	if err := t.up.SetReadDeadline(time.Now().Add(exchange.TunnelIdle)); err != nil {
		return nil, err
	}
	n, err := t.up.Read(t.buffer)
	if t.filled = n == len(t.buffer); n > 0 {
		return t.buffer[:n], nil // an error comes again
	}
	return nil, err
}

// Length implements exchange.Body.
func (*tunnel) Length() int64 { return -1 }

// Send implements exchange.Tunnel.
func (t *tunnel) Send(p []byte) error {
	if err := t.up.SetWriteDeadline(time.Now().Add(exchange.TunnelIdle)); err != nil {
		return err
	}
	_, err := t.up.Write(p)
	return err
}

// CloseSend implements exchange.Tunnel.
func (t *tunnel) CloseSend() { wire.CloseWrite(t.up.Conn) }

// close ends the connection, so that the endpoint sees it break where it has
// broken: by a reset of TCP, with no word of TLS (RFC 9113, section 8.5).
// Only the first counts.
func (t *tunnel) close(broken bool) {
	t.once.Do(func() {
		close(t.gone)
		if broken {
			breakOff(sideOf(t.up.Conn).Socket)
		}
		_ = t.up.Close() // there is no one to tell
	})
}

// Gone implements exchange.HalfOpen.
func (t *tunnel) Gone() <-chan struct{} { return t.gone }
