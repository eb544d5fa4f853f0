package abi

import (
	"encoding/binary"
	"unsafe"
)

// Pairs travel as a count, the two lengths of each pair, and then each name
// and value followed by a zero byte; numbers are 32 bits, little endian.

// AppendPairs encodes n pairs behind dst.
func AppendPairs(dst []byte, n int, pair func(i int) (name, value string)) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	for i := range n {
		name, value := pair(i)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(name)))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	}
	for i := range n {
		name, value := pair(i)
		dst = append(append(dst, name...), 0)
		dst = append(append(dst, value...), 0)
	}
	return dst
}

// Pairs yields the encoded pairs; it stops where the encoding is broken. What
// it yields shares memory with b, which must not change any more.
func Pairs(b []byte, yield func(name, value string) bool) {
	if len(b) < 4 {
		return
	}
	n := int(binary.LittleEndian.Uint32(b))
	sizes := b[4:]
	if n < 0 || n > len(sizes)/8 {
		return
	}
	text := sizes[8*n:]
	for i := range n {
		name, rest, ok := cut(text, binary.LittleEndian.Uint32(sizes[8*i:]))
		if !ok {
			return
		}
		value, rest, ok := cut(rest, binary.LittleEndian.Uint32(sizes[8*i+4:]))
		if !ok || !yield(name, value) {
			return
		}
		text = rest
	}
}

// cut takes n bytes and the zero behind them.
func cut(b []byte, n uint32) (string, []byte, bool) {
	if uint64(n) >= uint64(len(b)) {
		return "", nil, false
	}
	return Text(b[:n]), b[n+1:], true
}

// Text is b as a string that shares its memory: b must not change any more.
func Text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
