//go:build unix

package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// read is read(2) on a socket that never blocks, tried again when interrupted.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// write is write(2) on a socket that never blocks.
func write(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Write(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// readable reports whether a byte, the end of the stream or an error waits.
func readable(raw syscall.RawConn) bool {
	waits := true
	err := raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waits = err != unix.EAGAIN
	})
	return err != nil || waits
}
