package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ended reports whether the peer has closed the connection, or it broke, whatever
// is still to be read. It is poll(2) that never blocks.
func ended(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n > 0
}
