package wasm

import "github.com/weirmesh/weir/policy/wasm/abi"

// body is the chunk that a filter's callback looks at. The guest's changes go
// into memory of the filter's own, of which there are two, because a second
// change is made of the first.
type body struct {
	view        []byte
	mine, spare []byte
	shown       bool
}

func (b *body) show(chunk []byte) { b.view, b.shown = chunk, true }

// taken is the chunk as the guest leaves it, valid until the next is shown.
func (b *body) taken() []byte {
	b.shown = false
	return b.view
}

// splice replaces a range of the chunk.
func (b *body) splice(start, size uint32, data []byte) abi.Status {
	n := uint32(len(b.view))
	start = min(start, n)
	size = min(size, n-start)
	if int(n-size)+len(data) > maxBodyBytes {
		return abi.BadArgument
	}
	next := append(b.spare[:0], b.view[:start]...)
	next = append(next, data...)
	next = append(next, b.view[start+size:]...)
	b.mine, b.spare = next, b.mine
	b.view = next
	return abi.OK
}

func (b *body) reset() {
	mine, spare := b.mine[:0], b.spare[:0]
	if cap(mine) > keptScratch {
		mine = nil
	}
	if cap(spare) > keptScratch {
		spare = nil
	}
	*b = body{mine: mine, spare: spare}
}
