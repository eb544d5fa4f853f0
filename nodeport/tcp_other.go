//go:build !linux

package nodeport

import "net"

// tuneTCP lets a silent connection end soon after the other end is gone.
func tuneTCP(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: int(idleTimeout/keepAlive) - 1})
	}
}
