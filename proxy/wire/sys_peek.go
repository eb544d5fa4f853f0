//go:build unix

package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readable reports whether a byte, the end of the stream or an error waits. It
// is recv(2) that never blocks: made directly, because the address that
// unix.Recvfrom returns is allocated.
func readable(fd int) bool {
	var b [1]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	return errno != unix.EAGAIN
}
