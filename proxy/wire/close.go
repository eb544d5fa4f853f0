package wire

import "net"

// CloseWrite tells a connection's peer that nothing more will be said, where its kind
// can. It fails only where there is no one to tell.
func CloseWrite(c net.Conn) {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
