package sdk

import (
	"iter"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Header is a header section. Names compare without regard to case; send them
// in lower case. The pseudo-fields of HTTP/2 (":path", ":status", …) are
// fields too.
type Header struct {
	section abi.MapType
}

// Get returns the value of the first field of that name, "" where there is none.
func (h Header) Get(name string) string {
	value, _ := abi.GetHeader(h.section, name)
	return value
}

// Lookup is Get that tells an empty value from none.
func (h Header) Lookup(name string) (string, bool) {
	value, s := abi.GetHeader(h.section, name)
	return value, s == abi.OK
}

// Set replaces every field of that name by one, or adds it.
func (h Header) Set(name, value string) {
	if s := abi.ReplaceHeader(h.section, name, value); s != abi.OK {
		refused("set", name, s)
	}
}

// Add adds a field.
func (h Header) Add(name, value string) {
	if s := abi.AddHeader(h.section, name, value); s != abi.OK {
		refused("add", name, s)
	}
}

// Del removes every field of that name.
func (h Header) Del(name string) {
	if s := abi.RemoveHeader(h.section, name); s != abi.OK && s != abi.NotFound {
		refused("delete", name, s)
	}
}

// All yields every field in order. It is a copy: fields may be changed
// meanwhile.
func (h Header) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		encoded, _ := abi.GetHeaders(h.section)
		abi.Pairs(encoded, yield)
	}
}

// refused logs what a host does not do: a field that cannot be sent, a section
// that is gone. A policy could do nothing better about it.
func refused(verb, name string, s abi.Status) { Warnf("%s header %s: %v", verb, name, s) }
