//go:build unix && (!linux || race)

package wire

// Package syscall's calls tell the race detector that what was written before
// the one comes before what is read after the other, as package net's do, whose
// they are too.

import "syscall"

// read is read(2) on a socket that never blocks, tried again when interrupted.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// write is write(2) on such a socket.
func write(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
