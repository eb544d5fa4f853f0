package exchange

import "iter"

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

// Add appends a field. The slices are kept, not copied.
func (f *Fields) Add(name, value []byte) {
	f.list = append(f.list, Field{Name: name, Value: value})
}

// Set replaces the first field of that name and removes the others, or adds
// one. The slices are kept, not copied.
func (f *Fields) Set(name, value []byte) {
	i := f.index(string(name))
	if i < 0 {
		f.Add(name, value)
		return
	}
	f.list[i].Value = value
	f.delAfter(i+1, string(name))
}

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

// EqualFold compares field names: ASCII letters without regard to case.
func EqualFold(b []byte, s string) bool {
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
