package nodeport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/weirmesh/weir/internal/pause"
)

// maxHeader is far more than the header of any request of a node.
const maxHeader = 16 << 10

// acceptTCP hands connections on. At the bound of handshakes it does not
// accept: peers wait in the kernel's queue.
func (p *Port) acceptTCP(ctx context.Context, web *http2Server) error {
	config := serverTLS(p.cfg.Identity, p.protocols(protoHTTP2)...)
	room := make(chan struct{}, maxHandshakes)
	for rest := acceptPause; ; {
		conn, err := p.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			// Out of descriptors, or the peer was gone again.
			p.cfg.Logger.Warn("connection not accepted", "error", err)
			if !pause.For(ctx, rest) {
				return ctx.Err()
			}
			rest = min(2*rest, time.Second)
			continue
		}
		rest = acceptPause
		if !p.take() {
			p.refusals.note(conn.RemoteAddr().String(), "TCP", errFull)
			_ = conn.Close()
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			p.release()
			return errors.Join(ctx.Err(), conn.Close())
		}
		p.running.Go(func() { p.serveTCP(ctx, conn, config, web, func() { <-room }) })
	}
}

const acceptPause = 5 * time.Millisecond

// serveTCP takes a connection as far as its protocol; done is called once the
// handshake is over.
func (p *Port) serveTCP(ctx context.Context, raw net.Conn, config *tls.Config, web *http2Server, done func()) {
	tuneTCP(raw)
	counted := &countedConn{Conn: raw, release: sync.OnceFunc(p.release)}
	conn := tls.Server(counted, config)
	handshake, cancel := context.WithTimeout(ctx, handshakeTimeout)
	err := conn.HandshakeContext(handshake)
	cancel()
	done()
	if err != nil {
		if refusedTCP(err) {
			p.refusals.note(raw.RemoteAddr().String(), "TCP", err)
		}
		_ = conn.Close()
		return
	}
	state := conn.ConnectionState()
	switch state.NegotiatedProtocol {
	case protoHTTP2:
		web.take(conn)
	case protoRaft:
		if id, err := memberOf(p.cfg.Identity, state); err == nil {
			p.cfg.Members.serveTCP(ctx, conn, id.Name, p.checkMember(id, state, raw.RemoteAddr().String(), "TCP"))
			return
		}
		_ = conn.Close()
	default:
		p.refusals.note(raw.RemoteAddr().String(), "TCP", errors.New("no protocol was agreed on"))
		_ = conn.Close()
	}
}

// refusedTCP tells whether a handshake failed for what one of the two said,
// rather than by the network.
func refusedTCP(err error) bool {
	var network *net.OpError
	if errors.As(err, &network) {
		return network.Op == "remote error"
	}
	return !errors.Is(err, io.EOF) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}

// countedConn is one connection less once it is closed.
type countedConn struct {
	net.Conn
	release func()
}

func (c *countedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// http2Server answers the node API on connections that it is given.
type http2Server struct {
	server http.Server
	given  chan net.Conn
	closed chan struct{}
	close  func()
	addr   net.Addr
	calls  gate
}

func newHTTP2Server(p *Port) *http2Server {
	s := &http2Server{given: make(chan net.Conn), closed: make(chan struct{}), addr: p.tcp.Addr()}
	s.close = sync.OnceFunc(func() { close(s.closed) })
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	s.server = http.Server{
		Handler:        s.counting(p),
		Protocols:      &protocols,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: 2 * firstWindow,
			MaxReceiveBufferPerStream:     firstWindow,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
		},
	}
	return s
}

// A silent HTTP/2 peer is asked whether it lives, and believed dead when it
// does not answer.
const (
	pingAfter   = keepAlive
	pingTimeout = idleTimeout - pingAfter
)

// counting keeps track of calls: net/http does not wait for them.
func (s *http2Server) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.calls.enter() {
			http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
			return
		}
		defer s.calls.leave()
		next.ServeHTTP(w, r)
	})
}

// serve runs until shutDown. The server sees a listener that yields what take
// was given.
func (s *http2Server) serve() error { return s.server.Serve(s) }

func (s *http2Server) take(conn net.Conn) {
	select {
	case s.given <- conn:
	case <-s.closed:
		_ = conn.Close()
	}
}

func (s *http2Server) Accept() (net.Conn, error) {
	select {
	case conn := <-s.given:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *http2Server) Close() error {
	s.close()
	return nil
}

func (s *http2Server) Addr() net.Addr { return s.addr }

func (s *http2Server) shutDown(grace context.Context) {
	_ = s.server.Shutdown(grace)
	_ = s.server.Close()
	s.close()
	s.calls.shut()
}
