//go:build linux

package cluster

import (
	"context"
	"net"

	"github.com/weirmesh/weir/test/relay"
)

// relays stand before one member, for its UDP and its TCP, on the host outside.
type relays struct {
	address string
	udp     *relay.UDPRelay
	tcp     *relay.TCPRelay
}

func newRelays(c *cluster, m *member) *relays {
	c.t.Helper()
	address := c.outside.HostPort(nodePort + 100 + len(c.relays))
	socket, err := c.outside.ListenPacket(c.t.Context(), "udp", address)
	if err != nil {
		c.t.Fatal(err)
	}
	listener, err := c.outside.Listen(c.t.Context(), "tcp", address)
	if err != nil {
		c.t.Fatal(err)
	}
	dial := func(network string) relay.Dial {
		return func(ctx context.Context) (net.Conn, error) {
			return c.outside.Dial(ctx, network, m.host.HostPort(nodePort))
		}
	}
	return &relays{
		address: address,
		udp:     relay.UDP(c.t, c.seed, socket, dial("udp")),
		tcp:     relay.TCP(c.t, c.seed, listener, dial("tcp")),
	}
}
