package upstream

import (
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// tunnelIdle is how long a service may be silent once it speaks WebSocket. A
// peer whose host is gone is noticed long before that.
const tunnelIdle = time.Hour

// tunnel is a stream whose service speaks WebSocket.
type tunnel struct{ *Stream }

var _ exchange.Tunnel = tunnel{}

// beginTunnel: what follows the head is no message. The route's timeouts were
// for the answer; the conversation has none.
func (s *Stream) beginTunnel(x *exchange.Exchange, head int) {
	s.body.BeginUntilClose(s.link.Conn)
	s.framing.KeepAlive, s.bodied = false, true
	s.link.Discard(-head)
	s.head = s.link.Detach(head) // reading on would overwrite it
	l := s.link
	s.body.Idle = func() { l.ReadUntil(time.Now().Add(tunnelIdle)) }
	x.Response.Tunnel = tunnel{s}
}

// PeerUntil is until when the sidecar that a conversation is with is who it has proven to
// be; zero: it is with none.
func (s *Stream) PeerUntil() time.Time {
	if s.link == nil || s.pool.key.TLS.SidecarsOf == "" {
		return time.Time{}
	}
	if leaf := s.link.peer(); leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

// Next implements exchange.Body.
func (t tunnel) Next() ([]byte, error) { return t.body.Next() }

// Length implements exchange.Body.
func (t tunnel) Length() int64 { return -1 }

// Ready reports whether Next will not have to wait.
func (t tunnel) Ready() bool { return t.body.Ready() }

// Send implements exchange.Tunnel.
func (t tunnel) Send(p []byte) error {
	t.link.WriteUntil(time.Now().Add(t.opts.Stall))
	if err := t.link.Write(p); err != nil {
		return err
	}
	return t.link.Flush()
}

// CloseSend implements exchange.Tunnel.
func (t tunnel) CloseSend() { wire.CloseWrite(t.link.Net()) }
