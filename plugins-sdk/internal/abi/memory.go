package abi

import "unsafe"

// What the host returns it writes into memory that it asks the plugin for,
// during the very call that returns it. Small pieces are cut off a chunk, and a
// chunk that is used up is left to whoever still holds a piece of it. So a
// returned string is as immutable and as long-lived as any other, and a
// hundred of them cost one allocation.
const chunkSize = 4 << 10

// memory is what the plugin hands out to its host.
type memory struct {
	chunk []byte
	// handed is the last piece given out. No host call returns more than one,
	// and this reference keeps it from the collector until it is taken.
	handed []byte
}

// allocate returns n bytes for the host to fill; never nil.
func (m *memory) allocate(n int) unsafe.Pointer {
	switch {
	case n > chunkSize/4:
		m.handed = make([]byte, n)
	default:
		n = max(n, 1)
		if n > len(m.chunk) {
			m.chunk = make([]byte, chunkSize)
		}
		m.handed, m.chunk = m.chunk[:n:n], m.chunk[n:]
	}
	return unsafe.Pointer(unsafe.SliceData(m.handed))
}

// take returns what the host says it filled. An address is never made from the
// host's number: it only has to be the one given out.
func (m *memory) take(address, n uint32) []byte {
	filled := m.handed
	m.handed = nil
	if n == 0 {
		return nil
	}
	if int(n) > len(filled) || address != uint32(uintptr(unsafe.Pointer(unsafe.SliceData(filled)))) {
		panic("sdk: the host returned memory that it was not given")
	}
	return filled[:n:n]
}
