//go:build unix && !linux

package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ended reports whether the peer has closed the connection. Behind what is still
// to be read the end is not seen here.
func ended(fd int) bool {
	var b [1]byte
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	return errno == 0 && n == 0 || errno != 0 && errno != unix.EAGAIN
}
