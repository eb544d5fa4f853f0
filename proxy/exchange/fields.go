package exchange

import (
	"bytes"
	"iter"
)

// Field is one line of a header section. Names keep the case they came in and
// compare without regard to it (RFC 9110, section 5.1).
type Field struct {
	Name, Value []byte
}

// Fields is a header or trailer section: an ordered list, as on the wire. The
// zero value is empty and ready.
//
// The bytes belong to the exchange: they are valid until it ends. Whoever
// keeps one longer copies it.
type Fields struct {
	list []Field
}

// Len counts the fields.
func (f *Fields) Len() int { return len(f.list) }

// At returns the field at i, 0 ≤ i < Len.
func (f *Fields) At(i int) *Field { return &f.list[i] }

// Get returns the value of the first field of that name, nil when there is none.
func (f *Fields) Get(name string) []byte {
	if i := f.index(name); i >= 0 {
		return f.list[i].Value
	}
	return nil
}

// Has reports whether there is a field of that name.
func (f *Fields) Has(name string) bool { return f.index(name) >= 0 }

// Values yields the values of every field of that name, in order.
func (f *Fields) Values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range f.list {
			if EqualFold(f.list[i].Name, name) && !yield(f.list[i].Value) {
				return
			}
		}
	}
}

// Add appends a field. The slices are kept, not copied. A name that is no token
// adds nothing and gives false; what a value must not hold (control characters)
// becomes a space (RFC 9110, section 5.5), so that no one can break out of a field.
func (f *Fields) Add(name, value []byte) bool {
	if !ValidName(name) {
		return false
	}
	f.list = append(f.list, Field{Name: name, Value: clean(value)})
	return true
}

// AddParsed appends a field that a codec has already checked.
func (f *Fields) AddParsed(name, value []byte) {
	f.list = append(f.list, Field{Name: name, Value: value})
}

// Set replaces the first field of that name and removes the others, or adds
// one, as [Fields.Add] does.
func (f *Fields) Set(name, value []byte) bool {
	for i := range f.list {
		if equalFold(f.list[i].Name, name) {
			f.list[i].Value = clean(value)
			f.delAfter(i+1, string(name))
			return true
		}
	}
	return f.Add(name, value)
}

// AddVary says that an answer differs by a field of the request (RFC 9110,
// section 12.5.5), unless it says so already.
func (f *Fields) AddVary(name string) {
	for value := range f.Values("vary") {
		for one := range bytes.SplitSeq(value, []byte{','}) {
			if one = bytes.TrimSpace(one); equalFold(one, name) || string(one) == "*" {
				return
			}
		}
	}
	f.AddParsed(fieldVary, []byte(name))
}

var fieldVary = []byte("Vary")

// Del removes every field of that name and reports whether there was one.
func (f *Fields) Del(name string) bool { return f.delAfter(0, name) }

// Reset empties the section and keeps its memory.
func (f *Fields) Reset() {
	clear(f.list)
	f.list = f.list[:0]
}

func (f *Fields) index(name string) int {
	for i := range f.list {
		if EqualFold(f.list[i].Name, name) {
			return i
		}
	}
	return -1
}

func (f *Fields) delAfter(from int, name string) bool {
	kept := from
	for i := from; i < len(f.list); i++ {
		if EqualFold(f.list[i].Name, name) {
			continue
		}
		f.list[kept] = f.list[i]
		kept++
	}
	found := kept < len(f.list)
	clear(f.list[kept:])
	f.list = f.list[:kept]
	return found
}

// ValidName reports whether a name is a token (RFC 9110, section 5.6.2).
func ValidName(name []byte) bool {
	for _, b := range name {
		if !tokenByte[b] {
			return false
		}
	}
	return len(name) > 0
}

// TokenByte reports whether a byte may stand in a token.
func TokenByte(b byte) bool { return tokenByte[b] }

var tokenByte = func() (t [256]bool) {
	for b := byte('!'); b < 0x7f; b++ {
		t[b] = true
	}
	for _, b := range []byte("\"(),/:;<=>?@[\\]{}") {
		t[b] = false
	}
	return t
}()

func clean(value []byte) []byte {
	for i, b := range value {
		if control(b) {
			cleaned := bytes.Clone(value)
			for ; i < len(cleaned); i++ {
				if control(cleaned[i]) {
					cleaned[i] = ' '
				}
			}
			return cleaned
		}
	}
	return value
}

func control(b byte) bool { return b < ' ' && b != '\t' || b == 0x7f }

// EqualFold compares field names: ASCII letters without regard to case.
func EqualFold(b []byte, s string) bool { return equalFold(b, s) }

func equalFold[S string | []byte](b []byte, s S) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range len(b) {
		if x, y := b[i], s[i]; x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
