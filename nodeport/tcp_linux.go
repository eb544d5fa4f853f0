package nodeport

import (
	"net"

	"golang.org/x/sys/unix"
)

// tuneTCP lets a connection end soon after the other end is gone: one that is
// silent by probes, one that has something to say because nothing is confirmed.
// What cannot be set is left as it is.
func tuneTCP(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: int(idleTimeout/keepAlive) - 1})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(idleTimeout.Milliseconds()))
	})
}
