//go:build unix && (!linux || race)

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

// write is write(2) on such a socket.
func write(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Write(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
