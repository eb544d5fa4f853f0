package sdk

import (
	"math"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Body is the part of a body that a method is shown.
type Body struct {
	buffer abi.BufferType
	size   int
	start  uint32 // where the part begins; not 0 at an end that trailers follow
	held   bool   // the method has held it
}

// Len counts the bytes shown.
func (b *Body) Len() int { return b.size }

// Bytes returns a copy of them.
func (b *Body) Bytes() []byte {
	if b.size == 0 {
		return nil
	}
	bytes, s := abi.GetBuffer(b.buffer, b.start, uint32(b.size))
	if s != abi.OK && s != abi.NotFound {
		Warnf("read body: %v", s)
	}
	return bytes
}

// Replace puts data in their place. Say so in the head: delete content-length
// in OnRequest or OnResponse when a body may change its length.
func (b *Body) Replace(data []byte) {
	if s := abi.SetBuffer(b.buffer, b.start, math.MaxUint32, data); s != abi.OK {
		Warnf("replace body: %v", s)
		return
	}
	b.size = len(data)
}
