package relay

import (
	"net"

	"golang.org/x/sys/unix"
)

// moved is how many bytes a socket's peer has acknowledged and sent, as the kernel
// counts them: also those that a splice under way has not told of.
func moved(c net.Conn) (n int64) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // fails only on a closed connection
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int64(info.Bytes_acked + info.Bytes_received)
		}
	})
	return n
}
