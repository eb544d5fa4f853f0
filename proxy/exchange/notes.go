package exchange

import "bytes"

// note is what one policy tells those after it.
type note struct{ key, value []byte }

// maxNotes bounds the notes of an exchange.
const maxNotes = 64

// Note returns what was noted under a key.
func (x *Exchange) Note(key []byte) ([]byte, bool) {
	for i := range x.notes {
		if bytes.Equal(x.notes[i].key, key) {
			return x.notes[i].value, true
		}
	}
	return nil, false
}

// SetNote notes a value for the policies that follow, under a key of any bytes.
// Both are copied. It is false when there are too many notes.
func (x *Exchange) SetNote(key, value []byte) bool {
	for i := range x.notes {
		if bytes.Equal(x.notes[i].key, key) {
			x.notes[i].value = x.CopyBytes(value)
			return true
		}
	}
	if len(x.notes) >= maxNotes {
		return false
	}
	x.notes = append(x.notes, note{x.CopyBytes(key), x.CopyBytes(value)})
	return true
}
