package abi

import "encoding/binary"

// Edit is a kind of change that weir.edit takes.
type Edit byte

// The kinds of change.
const (
	EditSet Edit = iota
	EditAdd
	EditDel
)

// AppendEdit encodes a change behind dst: its kind in a byte, the lengths of name and
// value (32 bits, little endian), and both.
func AppendEdit(dst []byte, kind Edit, name, value string) []byte {
	dst = append(dst, byte(kind))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(name)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	return append(append(dst, name...), value...)
}

// Edits calls f for each of the changes that AppendEdit has encoded.
func Edits(b []byte, f func(kind Edit, name, value string)) {
	for len(b) > 0 {
		n, v := binary.LittleEndian.Uint32(b[1:]), binary.LittleEndian.Uint32(b[5:])
		text := b[9:][:n+v]
		f(Edit(b[0]), Text(text[:n]), Text(text[n:]))
		b = b[9+n+v:]
	}
}
