// Package handler serves HTTP/2 to the handlers of net/http, in place of its own
// server, which costs twice as much for a call.
//
//	http.Server ─TLS, h2─▶ http2.Conn ─▶ place ─▶ http.Handler
//	                          ◀─ answer (http.ResponseWriter)
//
// # Promises
//
//   - A handler finds what it would find with net/http's server: headers,
//     trailers of both sides, flushing, both directions at once, a context that
//     ends with the client's interest, http.ErrAbortHandler.
//   - A handler that answers at once costs no goroutine beside the stream's, and
//     one write.
//   - Shutdown and Close of the http.Server hold for these connections too.
//
// What it does not offer: 1xx answers (but 100 Continue, by itself), push, and
// deadlines by way of http.ResponseController. Bodies may be paused for Stall.
package handler

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/wire"
)

const (
	// Stall is how long either side of a call may say nothing of a body that it is
	// in the midst of: as good as for ever, for who watches.
	Stall = time.Hour
	// linger is how long a client is given to read why its connection ends.
	linger = 500 * time.Millisecond
)

// Configure makes a server, which does not serve yet, serve HTTP/2 over TLS by
// this package. Its IdleTimeout and ReadHeaderTimeout hold.
func Configure(server *http.Server, logger *slog.Logger) {
	s := &serving{logger: logger, conns: map[*http2.Conn]struct{}{}}
	s.places.New = func() any { return new(place) }
	server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": s.serve}
	server.RegisterOnShutdown(s.drain)
}

// serving are the connections of one server.
type serving struct {
	logger *slog.Logger
	places sync.Pool

	mu       sync.Mutex
	conns    map[*http2.Conn]struct{}
	draining bool
}

// contextual is the handler that net/http gives who takes a connection over.
type contextual interface{ BaseContext() context.Context }

// serve serves a connection to its end. net/http closes it.
func (s *serving) serve(server *http.Server, tlsConn *tls.Conn, handler http.Handler) {
	ctx := context.Background()
	if c, ok := handler.(contextual); ok {
		ctx = c.BaseContext()
	}
	state := tlsConn.ConnectionState()
	c := &client{handler: handler, ctx: ctx, tls: &state, address: tlsConn.RemoteAddr().String()}
	w := wire.New(tlsConn)
	h := http2.NewConn(w, http2.Config{
		Take: func() http2.Place { return s.take(c) }, Give: s.give, Logger: s.logger,
		Idle: server.IdleTimeout, Head: server.ReadHeaderTimeout, Stall: Stall,
		Scheme: []byte("https"), Client: addrPort(tlsConn.RemoteAddr()), Local: addrPort(tlsConn.LocalAddr()),
		TLS: new(exchange.TLS),
	})
	s.enter(h)
	polite := h.Run()
	s.leave(h)
	if polite {
		_ = tlsConn.CloseWrite()
		_ = tlsConn.SetReadDeadline(time.Now().Add(linger))
		_, _ = io.Copy(io.Discard, tlsConn)
	}
	w.Free()
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

func (s *serving) enter(h *http2.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[h] = struct{}{}
	if s.draining {
		h.Drain()
	}
}

func (s *serving) leave(h *http2.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, h)
}

func (s *serving) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for h := range s.conns {
		h.Drain()
	}
}

func (s *serving) take(c *client) *place {
	p := s.places.Get().(*place)
	p.client = c
	return p
}

func (s *serving) give(taken http2.Place) {
	p := taken.(*place)
	if p.cancel != nil {
		p.cancel() // of one that was never served, too: or its connection would keep it
	}
	p.x.Reset()
	p.client, p.ctx, p.cancel = nil, nil, nil
	s.places.Put(p)
}
