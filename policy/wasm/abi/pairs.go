package abi

import (
	"encoding/binary"
	"errors"
)

// Bounds on a list of pairs that a guest sends.
const (
	MaxPairs      = 1024
	MaxPairsBytes = 1 << 20
)

var errPairs = errors.New("malformed list of pairs")

// AppendPairs appends n pairs as they travel: a count, the lengths, then names
// and values, each with a zero byte after it. Names are made lower-case, as
// guests expect them.
func AppendPairs(dst []byte, n int, at func(i int) (name, value []byte)) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	for i := range n {
		name, value := at(i)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(name)))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(value)))
	}
	for i := range n {
		name, value := at(i)
		from := len(dst)
		dst = append(dst, name...)
		lower(dst[from:])
		dst = append(dst, 0)
		dst = append(dst, value...)
		dst = append(dst, 0)
	}
	return dst
}

// PairsSize is how many bytes AppendPairs appends for them.
func PairsSize(n int, at func(i int) (name, value []byte)) int {
	size := 4 + n*(8+2)
	for i := range n {
		name, value := at(i)
		size += len(name) + len(value)
	}
	return size
}

func lower(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
}

// Pairs is a list that was parsed. Its slices alias the bytes it was parsed from.
type Pairs struct {
	b []byte
	n int
}

// ParsePairs checks a list as a whole; no bytes at all are an empty one.
func ParsePairs(b []byte) (Pairs, error) {
	if len(b) == 0 {
		return Pairs{}, nil
	}
	if len(b) < 4 || len(b) > MaxPairsBytes {
		return Pairs{}, errPairs
	}
	n := binary.LittleEndian.Uint32(b)
	if n > MaxPairs || len(b) < 4+8*int(n) {
		return Pairs{}, errPairs
	}
	p := Pairs{b, int(n)}
	end := uint64(4 + 8*n)
	for i := range p.n {
		name, value := p.lengths(i)
		end += uint64(name) + uint64(value) + 2
	}
	if end > uint64(len(b)) {
		return Pairs{}, errPairs
	}
	return p, nil
}

func (p Pairs) lengths(i int) (name, value uint32) {
	return binary.LittleEndian.Uint32(p.b[4+8*i:]), binary.LittleEndian.Uint32(p.b[8+8*i:])
}

// Len counts the pairs.
func (p Pairs) Len() int { return p.n }

// All yields the pairs in order.
func (p Pairs) All(yield func(name, value []byte) bool) {
	at := 4 + 8*p.n
	for i := range p.n {
		n, v := p.lengths(i)
		name := p.b[at : at+int(n)]
		at += int(n) + 1
		value := p.b[at : at+int(v)]
		at += int(v) + 1
		if !yield(name, value) {
			return
		}
	}
}
