package listener

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// StreamHandler serves connections that carry no HTTP.
type StreamHandler interface {
	// ServeStream serves one to its end. When ctx ends, and its socket has been
	// closed by then, there is no more time.
	ServeStream(ctx context.Context, s *Stream)
}

// Stream is a client's connection that carries no HTTP. Who serves it reads and
// writes Conn, which the listener closes when ServeStream returns.
type Stream struct {
	entry
	state atomic.Int32
	ctx   context.Context
	end   context.CancelFunc
}

func newStream(e entry) *Stream {
	s := &Stream{entry: e}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

// Conn is the client's socket.
func (s *Stream) Conn() net.Conn { return s.socket }

// Client and Local are the two ends of the connection.
func (s *Stream) Client() netip.AddrPort { return s.client }

// Local is the end of it that is ours.
func (s *Stream) Local() netip.AddrPort { return s.local }

// Handshake is how long a client may take to say what it wants, and then again to
// shake hands.
func (s *Stream) Handshake() time.Duration { return s.listener.cfg.Handshake }

func (s *Stream) closeIfIdle() {
	if s.state.CompareAndSwap(idle, gone) {
		_ = s.socket.Close()
	}
}

func (*Stream) isTold() bool { return false }

func (s *Stream) cut() {
	s.end()
	_ = s.socket.Close()
}

func (s *Stream) serve() {
	defer s.listener.forget(s)
	defer s.end()
	defer func() {
		_ = s.socket.Close()
		if p := recover(); p != nil {
			s.listener.cfg.Logger.Error("connection panicked; it is closed", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if s.enter(func() bool { return s.state.Load() == gone }) && s.state.CompareAndSwap(idle, busy) {
		s.listener.cfg.Streams.ServeStream(s.ctx, s)
	}
}

// replay is a connection of which something was read already.
type replay struct {
	net.Conn
	said []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.said) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.said)
	if r.said = r.said[n:]; len(r.said) == 0 {
		r.said = nil
	}
	return n, nil
}

// Secure shakes hands with a client that has said something already. It is bounded
// like the handshakes of connections that carry HTTP.
func (s *Stream) Secure(said []byte, config *tls.Config) (*tls.Conn, *exchange.TLS, error) {
	l := s.listener
	until := time.Now().Add(l.cfg.Handshake)
	if !l.takePlace(until) {
		l.unsecured.Add(1)
		return nil, nil, context.DeadlineExceeded
	}
	defer func() { <-l.handshakes }()
	_ = s.socket.SetDeadline(until)
	c := tls.Server(&replay{s.socket, said}, config)
	if err := c.HandshakeContext(s.ctx); err != nil {
		l.unsecured.Add(1)
		return nil, nil, err
	}
	_ = s.socket.SetDeadline(time.Time{})
	return c, factsOf(c.ConnectionState(), nil), nil
}
