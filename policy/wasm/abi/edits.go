package abi

import (
	"encoding/binary"
	"errors"
)

// Edit is a kind of change of a head.
type Edit byte

// The kinds of change.
const (
	EditSet Edit = iota
	EditAdd
	EditDel
)

// Change is one change of a head.
type Change struct {
	Kind        Edit
	Name, Value []byte
}

var errChanges = errors.New("malformed list of changes")

// ParseChanges parses a list of changes: for each its kind in a byte, the lengths of
// name and value (32 bits, little endian), and both. What it returns aliases b.
func ParseChanges(b []byte) (changes []Change, err error) {
	const head = 1 + 4 + 4
	for len(b) > 0 {
		if len(b) < head || Edit(b[0]) > EditDel {
			return nil, errChanges
		}
		kind := Edit(b[0])
		name, value := uint64(binary.LittleEndian.Uint32(b[1:])), uint64(binary.LittleEndian.Uint32(b[5:]))
		b = b[head:]
		if name+value > uint64(len(b)) {
			return nil, errChanges
		}
		changes = append(changes, Change{kind, b[:name:name], b[name : name+value : name+value]})
		b = b[name+value:]
	}
	return changes, nil
}
