package listener

import (
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/wire"
)

// beginsHTTP2 reports whether a connection in the clear begins as one of HTTP/2
// does. No request of HTTP/1.1 begins with "PRI ".
func (c *conn) beginsHTTP2() bool {
	if c.secured != nil || !http2.IsPreface(c.wire.Buffered()) {
		return false
	}
	c.wire.ReadUntil(time.Now().Add(c.listener.cfg.Head))
	for len(c.wire.Buffered()) < len("PRI ") {
		if c.wire.Fill(wire.SmallBuffer, wire.SmallBuffer) != nil {
			return false
		}
		if !http2.IsPreface(c.wire.Buffered()) {
			return false
		}
	}
	return true
}

// serveHTTP2 serves a connection to its end.
func (c *conn) serveHTTP2() {
	l := c.listener
	config := http2.Config{
		Take: func() http2.Place { return l.take() }, Give: func(p http2.Place) { l.give(p.(*place)) },
		Logger: l.cfg.Logger, Idle: l.cfg.Idle, Head: l.cfg.Head, Stall: l.cfg.Stall, WebSocket: true,
		Scheme: c.scheme, Client: c.client, Local: c.local, TLS: c.facts(),
	}
	h := http2.NewConn(c.wire, config)
	c.http2.Store(h)
	// Whoever closes the listener says so before it asks for this: one of the two
	// sees the other.
	if l.draining.Load() {
		h.Drain()
	}
	if l.cutting.Load() {
		return
	}
	if h.Run() {
		c.lingerBriefly()
	}
}

func (c *conn) facts() *exchange.TLS {
	if c.secured == nil {
		return nil
	}
	return c.secured.facts
}
