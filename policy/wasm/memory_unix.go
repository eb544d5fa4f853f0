//go:build unix

package wasm

import "golang.org/x/sys/unix"

func reserve(n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	return unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

func release(b []byte) {
	if len(b) > 0 {
		_ = unix.Munmap(b) // fails only for what is not mapped
	}
}
