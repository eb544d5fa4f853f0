package wasm

import (
	"errors"

	"github.com/weirmesh/weir/policy/wasm/fuel"
	"github.com/weirmesh/weir/policy/wasm/sections"
)

// Support is what this host makes of an import.
type Support string

// What an import may be to this host.
const (
	Supported Support = "supported"
	// NotOffered functions can be linked, and answer that they are not offered.
	NotOffered Support = "not offered"
	// Unknown imports keep a module from being a plugin.
	Unknown Support = "unknown"
)

// SupportFor says what this host makes of an import, and what the function does
// in a few words, where there is more to say than its name does.
func SupportFor(i sections.Import) (Support, string) {
	f, ok := lookup(fuel.Import{Module: i.Module, Name: i.Name})
	switch {
	case !ok || i.Kind != sections.Function:
		return Unknown, ""
	case f.kind&absent != 0:
		return NotOffered, f.about
	}
	return Supported, f.about
}

// IsCallback says whether the host calls an export of that name.
func IsCallback(export string) bool {
	for _, c := range callbacks {
		if c.name == export {
			return true
		}
	}
	return false
}

// TrapOf finds the trap in an error of a policy's; nil: it is another error.
func TrapOf(err error) *Trap {
	var trap *Trap
	if errors.As(err, &trap) {
		return trap
	}
	return nil
}
