package http2

import (
	"net"

	"github.com/weirmesh/weir/proxy/wire"
)

// ClientOn is the client's side of a connection that has yet to begin.
func ClientOn(c net.Conn) *Client {
	client := newClient(wire.New(c), schemeClear, func() {})
	client.room.Store(1)
	return client
}
