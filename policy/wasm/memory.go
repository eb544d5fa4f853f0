package wasm

import (
	"github.com/tetratelabs/wazero/experimental"
)

// memory is the linear memory of one VM. The whole range that it may grow to is
// reserved at once, outside the Go heap, so that it never moves, costs the
// garbage collector nothing, and is given back to the system when the VM closes.
// The system fills pages in when they are first touched.
type memory struct {
	whole []byte
	freed bool
	// tenant pays for what is in use, so far charged.
	tenant  *tenantData
	charged uint64
	// refused: there was no more for the tenant.
	refused bool
}

// allocator hands its memory to one instance.
type allocator struct{ memory memory }

// Allocate implements experimental.MemoryAllocator. The rewritten module's
// maximum is the limit, so that limit is all there is to check. It cannot refuse;
// what it lacks shows in Reallocate.
func (a *allocator) Allocate(_, limit uint64) experimental.LinearMemory {
	whole, err := reserve(limit)
	if err == nil {
		a.memory.whole = whole
	}
	return &a.memory
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.whole)) {
		return nil
	}
	if size > m.charged {
		if !m.tenant.grow(int64(size - m.charged)) {
			m.refused = true
			return nil
		}
		m.charged = size
	}
	return m.whole[:size:len(m.whole)]
}

// Free implements experimental.LinearMemory. Whoever started the instance calls
// it too when that failed, which the engine may or may not have done.
func (m *memory) Free() {
	if m.freed || m.whole == nil {
		return
	}
	m.freed = true
	m.tenant.memory.Add(-int64(m.charged))
	release(m.whole)
	m.whole = nil
}
