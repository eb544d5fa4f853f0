//go:build linux && !race

package wire

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A system call that may block tells the scheduler so, before and after, which
// costs as much as a small one itself. These cannot: MSG_DONTWAIT sees to that,
// whatever mode the socket is in. But while they copy, a collection that wants to
// begin waits for them, and other goroutines for the processor; so what is large
// goes the ordinary way. The race detector knows of memory only what the ordinary
// calls tell it: for it there is sys_other.go.
const direct = 16 << 10

// read is read(2) on a socket that never blocks, tried again when interrupted.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := receive(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func receive(fd int, p []byte) (int, error) {
	if len(p) == 0 || len(p) > direct {
		return unix.Read(fd, p)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT, 0, 0)
	return counted(n, errno)
}

// write is write(2) on such a socket.
func write(fd int, p []byte) (int, error) {
	for {
		n, err := send(fd, p)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func send(fd int, p []byte) (int, error) {
	if len(p) == 0 || len(p) > direct {
		return unix.Write(fd, p)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return counted(n, errno)
}

// counted is what both return. The frequent errors are constants, so that they are
// not allocated.
func counted(n uintptr, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return -1, errAgain
	}
	return -1, errno
}

var errAgain error = unix.EAGAIN
